//! `carillon recover`: restores access when a secret is lost. It opens the store itself; a server that uses an SQLite file must be stopped.

use std::sync::Arc;

use clap::Subcommand;
use serde_json::json;

use crate::app;
use carillon_cli::Output;
use carillon_cli::config::StoreArgs;
use carillon_core::clock::SystemClock;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Create a token of an operator and show it once; with PostgreSQL, servers may run meanwhile.
    Token(StoreArgs),
    /// Make the store accept the configured master key, if the previous one is lost.
    ///
    /// Stored keys stay in lists and are unusable: store each of them again. Stop all servers first.
    MasterKey(StoreArgs),
}

impl Command {
    pub(super) async fn run(self, out: Output) -> anyhow::Result<()> {
        match self {
            Self::Token(arguments) => {
                let token = app::recover_operator_token(&arguments.load()?, Arc::new(SystemClock)).await?;
                if out.is_json() { out.json(&json!({ "token": token })) } else { out.line(&token) }
            }
            Self::MasterKey(arguments) => {
                let config = arguments.load()?;
                app::recover_master_key(&config, Arc::new(SystemClock)).await?;
                let store = config.store.name();
                if out.is_json() {
                    return out.json(&json!({ "store": store }));
                }
                out.line(&format!("{store}: the configured master key is in force; store every key again"))
            }
        }
    }
}
