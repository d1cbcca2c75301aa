//! Copies a database that may be in use.

use std::fs::{File, OpenOptions, remove_file};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use sqlx::ConnectOptions as _;

use super::error::Failure;
use super::{SqliteOptions, open};
use carillon_store::StoreError;

/// Permissions of the copy: it holds payloads and headers.
const MODE: u32 = 0o600;

/// Copies the database in `from`, as it is at one moment, into the new file `to`, and returns its bytes.
///
/// Servers may write meanwhile.
///
/// # Errors
/// Returns [`StoreError::Unavailable`] if there is no database, or if the new file exists already or cannot be written;
/// [`StoreError::Corrupt`] if the database is not one of this program.
pub async fn backup(from: &Path, to: &Path) -> Result<u64, StoreError> {
    let unavailable =
        |path: &Path, error: &dyn std::fmt::Display| StoreError::Unavailable(format!("`{}`: {error}", path.display()));
    if !from.is_file() {
        return Err(unavailable(from, &"there is no such database"));
    }
    if to.symlink_metadata().is_ok() {
        return Err(unavailable(to, &"the file exists already; name another one"));
    }
    let mut draft = to.as_os_str().to_owned();
    draft.push(".part");
    let draft = PathBuf::from(draft);
    // SQLite writes into an empty file, which is private from the beginning.
    let made = OpenOptions::new().write(true).create(true).truncate(true).mode(MODE).open(&draft);
    made.map_err(|error| unavailable(&draft, &error))?;
    let done = copy(from, &draft).await.and_then(|()| place(&draft, to).map_err(|error| unavailable(to, &error)));
    if done.is_err() {
        drop(remove_file(&draft));
    }
    done
}

async fn copy(from: &Path, draft: &Path) -> Result<(), StoreError> {
    let named = |Failure(error): Failure| match error {
        StoreError::Corrupt(text) => StoreError::Corrupt(format!("`{}`: {text}", from.display())),
        StoreError::Unavailable(text) => StoreError::Unavailable(format!("`{}`: {text}", from.display())),
        other => other,
    };
    let mut db = open::reading(&SqliteOptions::new(from)).connect().await.map_err(Failure::from).map_err(named)?;
    open::refuse_foreign(&mut db).await.map_err(named)?;
    let target = draft.to_str().ok_or_else(|| StoreError::Unavailable("the file's name is not UTF-8".to_owned()))?;
    sqlx::query("VACUUM INTO ?1").bind(target).execute(&mut db).await.map_err(Failure::from).map_err(named)?;
    Ok(())
}

/// Renames a complete copy to its final name, unless another file has this name by now.
fn place(draft: &Path, to: &Path) -> std::io::Result<u64> {
    let file = File::open(draft)?;
    file.sync_all()?;
    let bytes = file.metadata()?.len();
    std::fs::hard_link(draft, to)?;
    remove_file(draft)?;
    let directory = to.parent().filter(|directory| !directory.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(directory)?.sync_all()?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::SqliteStore;
    use carillon_store::{Entities as _, Jobs as _};

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn backup_of_a_database_in_use_opens_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("x.db"), dir.path().join("copy.db"));
        backup(&from, &to).await.unwrap_err();
        let store = SqliteStore::open(SqliteOptions::new(&from)).await.unwrap();
        store.keep_proof("before".to_owned(), None).await.unwrap();
        let bytes = backup(&from, &to).await.unwrap();
        store.keep_proof("after".to_owned(), Some("before".to_owned())).await.unwrap();
        let metadata = std::fs::metadata(&to).unwrap();
        assert_eq!((metadata.len(), metadata.permissions().mode() & 0o777), (bytes, MODE));
        let copy = SqliteStore::open(SqliteOptions::new(&to)).await.unwrap();
        assert_eq!(copy.sealed_proof().await.unwrap().as_deref(), Some("before"));
        copy.close().await;
        let error = backup(&from, &to).await.unwrap_err().to_string();
        assert!(error.contains("exists already"), "{error}");
        assert!(!dir.path().join("copy.db.part").exists());
        store.close().await;
    }
}
