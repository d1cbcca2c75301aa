//! `carillon keys`: changes the master key of a store, and shows how far that is. It opens the store itself.

use std::path::PathBuf;
use std::sync::Arc;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::app;
use carillon_catalog::{SealedValues, Servers};
use carillon_cli::Output;
use carillon_cli::config::StoreArgs;
use carillon_config::Flag;
use carillon_core::clock::SystemClock;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Encrypt all keys in the store under another master key, in one transaction.
    ///
    /// Stop all servers first, or, if they share a PostgreSQL database, give them both keys and use --while-serving. The command can be
    /// interrupted and run again at any time.
    RotateMaster(RotateMaster),
    /// Count the values in the store that are encrypted under the configured master key and under keys.old_master_key_file.
    ///
    /// Servers that share a PostgreSQL database may run meanwhile; one that uses an SQLite file must be stopped.
    Status(StoreArgs),
}

#[derive(Debug, Args)]
pub(super) struct RotateMaster {
    #[command(flatten)]
    store: StoreArgs,
    /// File with the present master key.
    #[arg(long, value_name = "FILE")]
    old_file: PathBuf,
    /// File with the new master key; `openssl rand -hex 32` makes one.
    #[arg(long, value_name = "FILE")]
    new_file: PathBuf,
    /// Let servers run meanwhile. Each must have the new key as keys.master_key_file and the present one as keys.old_master_key_file.
    #[arg(long)]
    while_serving: bool,
}

impl Command {
    pub(super) async fn run(self, out: Output) -> anyhow::Result<()> {
        match self {
            Self::RotateMaster(command) => command.run(out).await,
            Self::Status(arguments) => {
                let values = app::sealed_values(&arguments.load()?, Arc::new(SystemClock)).await?;
                if out.is_json() {
                    return out.json(&values);
                }
                let SealedValues { current, old, unusable } = values;
                let columns = [("MASTER KEY", "/key"), ("VALUES", "/values")];
                let row = |key: &str, values: usize| json!({"key": key, "values": values});
                let mut rows = vec![row("current", current), row("old", old)];
                rows.extend((unusable > 0).then(|| row("neither (lost)", unusable)));
                out.table::<Value>(&columns, &rows)?;
                out.note(match old {
                    0 => "nothing is encrypted under an old master key: keys.old_master_key_file is not needed",
                    _ => "keep keys.old_master_key_file until `carillon keys rotate-master` has run",
                })
            }
        }
    }
}

impl RotateMaster {
    async fn run(self, out: Output) -> anyhow::Result<()> {
        // The keys of the command take the place of the configured ones.
        let flag = |name, key, value: &str| Flag { name, key, value: value.into() };
        let old_file = self.old_file.display().to_string();
        let keys = vec![
            flag("--old-file", "keys.master_key", ""),
            flag("--old-file", "keys.master_key_file", &old_file),
            flag("--old-file", "keys.old_master_key_file", ""),
        ];
        let config = self.store.load_with(keys)?;
        let servers = if self.while_serving { Servers::HaveBothKeys } else { Servers::Stopped };
        let (store, new_file) = (config.store.name(), self.new_file.display().to_string());
        let values =
            app::rotate_master_key(config, self.old_file, self.new_file, servers, Arc::new(SystemClock)).await?;
        if out.is_json() {
            return out.json(
                &json!({"store": store, "rotated": values.old, "current": values.current, "unusable": values.unusable}),
            );
        }
        out.line(&format!("{store}: encrypted under the new master key: {}", values.old))?;
        if values.unusable > 0 {
            out.note(&format!("values that neither key opens were left as they are: {}", values.unusable))?;
        }
        out.note(&format!("start servers with keys.master_key_file = `{new_file}`, or move it to the place of the old file; keep a copy elsewhere"))
    }
}
