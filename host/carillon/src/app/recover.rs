//! Recovery of a server whose secrets are lost. No server needs to run; one that uses an SQLite file must not.

use carillon_catalog::{DEFAULT_TENANT, Unfit, recover_operator, unlock};
use carillon_config::Config;
use carillon_core::clock::Clock;

use super::open::{Home, master_key, open_existing};

/// Makes a token of an operator in the store of this configuration, and returns its text.
///
/// # Errors
/// Returns an error if there is no store, or if a server uses it.
pub async fn recover_operator_token(config: &Config, clock: std::sync::Arc<dyn Clock>) -> anyhow::Result<String> {
    let opened = open_existing(config, clock).await?;
    let recovered = recover_operator(DEFAULT_TENANT, &config.server.name(), &*opened.store, &*opened.clock).await;
    opened.store.close().await;
    recovered
}

/// Makes the store of this configuration accept the configured master key, whatever key its values are encrypted with.
///
/// # Errors
/// Returns an error if there is no store, if a server uses it, or if the key cannot be read.
pub async fn recover_master_key(config: &Config, clock: std::sync::Arc<dyn Clock>) -> anyhow::Result<()> {
    let home = Home::new(config)?;
    let opened = open_existing(config, clock).await?;
    let taken = unlock(&master_key(config, &home), None, Unfit::Adopt, &*opened.store, &*opened.clock).await;
    opened.store.close().await;
    taken.map(drop)
}
