//! `carillon backup`: copies an SQLite database while its server runs.

use std::path::PathBuf;

use anyhow::bail;
use clap::Args;
use serde_json::json;

use super::config::StoreArgs;
use super::output::Output;
use crate::config::Place;
use crate::store::backup;

#[derive(Debug, Args)]
pub(super) struct Backup {
    /// The file to write; it must not exist.
    to: PathBuf,
    #[command(flatten)]
    store: StoreArgs,
}

impl Backup {
    pub(super) async fn run(self, out: Output) -> anyhow::Result<()> {
        let Place::File(from) = self.store.load()?.store.place()? else {
            bail!("store.url: a PostgreSQL database is backed up with PostgreSQL's own means, such as `pg_dump`");
        };
        let bytes = backup(&from, &self.to).await?;
        let to = self.to.display();
        if out.is_json() {
            return out.json(&json!({ "file": to.to_string(), "bytes": bytes }));
        }
        out.line(&format!("{to}: {bytes} bytes"))?;
        out.note("The master key is not in it: keep a copy of that apart from it.")
    }
}
