//! `carillon tenant`: manages tenants.

use std::path::PathBuf;

use clap::Subcommand;
use serde_json::{Value, json};

use super::{Paging, Session, input};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Create a tenant, or replace the defaults that its groups inherit.
    Put {
        /// The tenant's name.
        name: String,
        /// The defaults, in JSON or TOML, in the form of a group; `-` is standard input.
        #[arg(long, value_name = "FILE")]
        defaults: Option<PathBuf>,
    },
    /// List the tenants.
    List {
        #[command(flatten)]
        paging: Paging,
    },
}

const LIST: [(&str, &str); 2] = [("NAME", "/name"), ("CREATED", "/created_at")];

impl Command {
    pub(super) async fn run(self, session: &Session) -> anyhow::Result<()> {
        match self {
            Self::Put { name, defaults } => {
                let defaults = defaults.map_or_else(|| Ok(json!({})), |file| input::document(&file))?;
                let tenant: Value = session.client.put(&["tenants", &name], &json!({ "defaults": defaults })).await?;
                session.done(&tenant, &format!("{name}: stored"))
            }
            Self::List { paging } => session.list(&["tenants"], Vec::new(), &paging, &LIST).await,
        }
    }
}
