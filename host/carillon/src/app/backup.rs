//! Backup of the database of a server, which may be running.

use std::path::Path;

use anyhow::bail;

use carillon_config::{Config, StoreLocation};

/// Copies the SQLite database of this configuration into the new file `to`, and returns its size in bytes.
///
/// # Errors
/// Returns an error if the database is not SQLite, or cannot be copied.
pub async fn backup(config: &Config, to: &Path) -> anyhow::Result<u64> {
    let StoreLocation::File(from) = config.store.place()? else {
        bail!("store.url: back up a PostgreSQL database with PostgreSQL's own tools, such as `pg_dump`");
    };
    Ok(carillon_store_sqlite::backup(&from, to).await?)
}
