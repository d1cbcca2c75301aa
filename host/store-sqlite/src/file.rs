//! Database file: its resolved name, its permissions, and its lock.
//!
//! SQLite keeps the write-ahead log next to the file, and the server its lock, so neither may depend on how the file was named: names are
//! resolved first, and a file that has a second name, as a hard link, is refused.

use std::ffi::OsString;
use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use carillon_store::StoreError;

/// Permissions for the owner only: the database holds payloads and headers.
const OWNER_ONLY: u32 = 0o600;

/// Permission bits of the group and of all others.
const OTHERS: u32 = 0o077;

/// Largest number of symbolic links that are followed to a file that does not exist yet, as many as Linux follows.
const MAX_LINKS: usize = 40;

/// Returns the one name of the file that `path` means, whether the file exists or not.
///
/// # Errors
/// Returns [`StoreError::Unavailable`] if its directory does not exist, or if the file has several names.
pub(super) fn resolve(path: &Path) -> Result<PathBuf, StoreError> {
    let mut path = path.to_owned();
    // A link may point to a file that does not exist yet.
    for _ in 0..MAX_LINKS {
        let Ok(target) = std::fs::read_link(&path) else { break };
        path = directory(&path).join(target);
    }
    let directory = directory(&path);
    let parent = match directory.canonicalize() {
        Ok(parent) if parent.is_dir() => parent,
        _ => return unavailable(format!("the directory `{}` does not exist", directory.display())),
    };
    let Some(name) = path.file_name() else {
        return unavailable(format!("`{}` does not name a file", path.display()));
    };
    let resolved = parent.join(name);
    match resolved.metadata() {
        Ok(found) if found.is_file() && found.nlink() > 1 => unavailable(format!(
            "`{}` has {} names (hard links), and a database must have one: remove the others, or make a copy",
            resolved.display(),
            found.nlink()
        )),
        _ => Ok(resolved),
    }
}

fn directory(path: &Path) -> &Path {
    path.parent().filter(|directory| !directory.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Creates the file, if it does not exist, for its owner only; SQLite gives its log the same permissions.
///
/// The permissions of an existing file that others may read stay as they are, with a warning.
///
/// # Errors
/// Returns [`StoreError::Unavailable`] if the file cannot be created.
pub(super) fn make(resolved: &Path) -> Result<(), StoreError> {
    match private().create_new(true).open(resolved) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let mode = resolved.metadata().map(|found| found.permissions().mode() & 0o777).unwrap_or(OWNER_ONLY);
            if mode & OTHERS != 0 {
                let (file, mode) = (resolved.display(), format!("{mode:o}"));
                tracing::warn!(%file, mode, "database file is readable by other users; set its mode to 0600");
            }
            Ok(())
        }
        Err(error) => unavailable(format!("`{}` cannot be created: {error}", resolved.display())),
    }
}

/// Takes the lock that makes this process the only one, for as long as the file is open.
///
/// None if another process has the lock.
///
/// # Errors
/// Returns [`StoreError::Unavailable`] if the lock file cannot be used.
pub(super) fn try_lock(resolved: &Path) -> Result<Option<File>, StoreError> {
    let mut name = OsString::from(resolved);
    name.push(".lock");
    let shown = PathBuf::from(&name);
    let file = match private().create(true).truncate(false).open(&name) {
        Ok(file) => file,
        Err(error) => return unavailable(format!("`{}` cannot be opened: {error}", shown.display())),
    };
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => unavailable(format!("`{}` cannot be locked: {error}", shown.display())),
    }
}

/// Returns the size of the write-ahead log, in bytes.
pub(super) fn log_len(resolved: &Path) -> u64 {
    let mut name = OsString::from(resolved);
    name.push("-wal");
    std::fs::metadata(name).map_or(0, |found| found.len())
}

fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true).mode(OWNER_ONLY);
    options
}

fn unavailable<T>(text: String) -> Result<T, StoreError> {
    Err(StoreError::Unavailable(text))
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::symlink;

    use super::*;

    /// Returns several names of one file, which need not exist.
    fn names(directory: &Path) -> Vec<PathBuf> {
        std::fs::create_dir(directory.join("real")).unwrap();
        std::fs::create_dir(directory.join("other")).unwrap();
        symlink(directory.join("real/a.db"), directory.join("absolute")).unwrap();
        symlink("../real/a.db", directory.join("other/relative")).unwrap();
        symlink("other/relative", directory.join("chained")).unwrap();
        symlink("real", directory.join("directory")).unwrap();
        let names = [
            "real/a.db",
            "real/./a.db",
            "real//a.db",
            "other/../real/a.db",
            "absolute",
            "other/relative",
            "chained",
            "directory/a.db",
            "directory/../real/a.db",
        ];
        names.map(|name| directory.join(name)).into()
    }

    #[test]
    fn a_file_has_one_resolved_name_before_and_after_it_is_made() {
        let directory = tempfile::tempdir().unwrap();
        let names = names(directory.path());
        let expected = directory.path().canonicalize().unwrap().join("real/a.db");
        for _ in 0..2 {
            for name in &names {
                assert_eq!(resolve(name).unwrap(), expected, "{}", name.display());
            }
            make(&expected).unwrap();
        }
    }

    #[test]
    fn a_second_lock_is_refused_under_every_name() {
        let directory = tempfile::tempdir().unwrap();
        let names = names(directory.path());
        for first in &names {
            let _held = try_lock(&resolve(first).unwrap()).unwrap().expect("nobody has it");
            for second in &names {
                let lock = try_lock(&resolve(second).unwrap()).unwrap();
                assert!(lock.is_none(), "{} and {}", first.display(), second.display());
            }
        }
    }

    #[test]
    fn a_hard_link_is_refused_under_both_names() {
        let directory = tempfile::tempdir().unwrap();
        let [one, other] = ["one.db", "other.db"].map(|name| directory.path().join(name));
        make(&one).unwrap();
        std::fs::hard_link(&one, &other).unwrap();
        for name in [&one, &other] {
            let error = resolve(name).unwrap_err().to_string();
            assert!(error.contains("2 names"), "{error}");
        }
        std::fs::remove_file(&other).unwrap();
        resolve(&one).unwrap();
    }

    #[test]
    fn what_is_made_is_the_owners_alone() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("a.db");
        make(&file).unwrap();
        let _lock = try_lock(&file).unwrap();
        for name in ["a.db", "a.db.lock"] {
            let mode = directory.path().join(name).metadata().unwrap().permissions().mode();
            assert_eq!(mode & 0o777, OWNER_ONLY, "{name}");
        }
        std::fs::set_permissions(&file, Permissions::from_mode(0o640)).unwrap();
        make(&file).unwrap();
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o640, "what the operator chose stays");
    }
}
