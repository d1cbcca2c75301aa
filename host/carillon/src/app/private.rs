//! Files that only their owner can read.

use std::fs::{File, OpenOptions, Permissions};
use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

/// Permissions: only the owner reads and writes.
const MODE: u32 = 0o600;

/// Writes a line into a file of mode 0600 that replaces the present one. The file gets its name when it is complete.
pub(super) fn write_private(path: &Path, line: &str) -> std::io::Result<()> {
    let directory = path.parent().filter(|directory| !directory.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(directory)?;
    let mut draft = path.as_os_str().to_owned();
    draft.push(".new");
    let draft = PathBuf::from(draft);
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(MODE).open(&draft)?;
    // A file that was left behind may have another mode.
    file.set_permissions(Permissions::from_mode(MODE))?;
    writeln!(file, "{line}")?;
    file.sync_all()?;
    std::fs::rename(&draft, path)?;
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_file_takes_the_place_of_one_that_others_could_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new").join("token");
        write_private(&path, "first").unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        let draft = dir.path().join("new/token.new");
        std::fs::write(&draft, "left behind").unwrap();
        std::fs::set_permissions(&draft, Permissions::from_mode(0o666)).unwrap();
        write_private(&path, "second").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "second\n");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, MODE);
        assert!(!draft.exists());
    }
}
