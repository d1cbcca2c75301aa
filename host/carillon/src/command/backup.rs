//! `carillon backup`: copies an SQLite database while its server runs.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use crate::app;
use carillon_cli::Output;
use carillon_cli::config::StoreArgs;

#[derive(Debug, Args)]
pub(super) struct Backup {
    /// File to write; it must not exist.
    to: PathBuf,
    #[command(flatten)]
    store: StoreArgs,
}

impl Backup {
    pub(super) async fn run(self, out: Output) -> anyhow::Result<()> {
        let bytes = app::backup(&self.store.load()?, &self.to).await?;
        let to = self.to.display();
        if out.is_json() {
            return out.json(&json!({ "file": to.to_string(), "bytes": bytes }));
        }
        out.line(&format!("{to}: {bytes} bytes"))?;
        out.note("the master key is not in the backup: keep a copy of the key in another place")
    }
}
