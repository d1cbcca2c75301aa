//! Rotation of the master key of a store. A server that uses an SQLite file must be stopped.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use carillon_catalog::{MasterKey, SealedValues, Servers};
use carillon_config::{Config, Period};
use carillon_core::clock::Clock;

use super::open::{Home, master_key, old_master_key, open_existing};

/// Time limit of the one transaction that seals all values anew.
const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(600);

/// Seals every value of the store of this configuration under the key in `new`; the store was sealed with the one in `old`. Returns the numbers
/// of values before that.
///
/// # Errors
/// Returns an error, and changes nothing, if there is no store, if a server uses it that may not, or if a key cannot be read or is another one.
pub async fn rotate_master_key(
    mut config: Config,
    old: PathBuf,
    new: PathBuf,
    servers: Servers,
    clock: Arc<dyn Clock>,
) -> anyhow::Result<SealedValues> {
    (config.store.timeout, config.engine.lease) =
        (Period::from(TRANSACTION_TIMEOUT), Period::from(TRANSACTION_TIMEOUT));
    let (old, new) = (MasterKey::File("--old-file", old), MasterKey::File("--new-file", new));
    let opened = open_existing(&config, clock).await?;
    let (store, clock) = (&*opened.store, &*opened.clock);
    let rotated = carillon_catalog::rotate_master_key(&old, &new, servers, store, clock).await;
    store.close().await;
    rotated
}

/// Counts the sealed values of the store of this configuration by the configured master keys.
///
/// # Errors
/// Returns an error if there is no store, if a server uses it as an SQLite file, or if it was sealed with another key.
pub async fn sealed_values(config: &Config, clock: Arc<dyn Clock>) -> anyhow::Result<SealedValues> {
    let (key, old) = (master_key(config, &Home::new(config)?), old_master_key(config));
    let opened = open_existing(config, clock).await?;
    let counted = carillon_catalog::sealed_values(&key, old.as_ref(), &*opened.store, &*opened.clock).await;
    opened.store.close().await;
    counted
}
