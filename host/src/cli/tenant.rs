//! `carillon tenant`: manages tenants.

use std::path::PathBuf;

use clap::Subcommand;
use serde_json::{Value, json};

use super::{Paging, Session, input};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Create a tenant, or replace the defaults that its groups inherit and the quota that they share.
    Put {
        /// The tenant's name.
        name: String,
        /// The defaults, in JSON or TOML, in the form of a group; `-` is standard input.
        #[arg(long, value_name = "FILE")]
        defaults: Option<PathBuf>,
        /// How many attempts of all of its groups run at once.
        #[arg(long, value_name = "COUNT")]
        concurrency: Option<u32>,
        /// How many of them start in a period: `100/s`, `600/min`, `5000/h`.
        #[arg(long)]
        rate: Option<String>,
        /// How many may start at once after a pause, if not as many as the rate counts.
        #[arg(long, value_name = "COUNT", requires = "rate")]
        burst: Option<u32>,
        /// How much of what starts it gets, compared with other tenants that have jobs due: 1 to 100.
        #[arg(long, value_name = "COUNT")]
        weight: Option<u32>,
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
            Self::Put { name, defaults, concurrency, rate, burst, weight } => {
                let defaults = defaults.map_or_else(|| Ok(json!({})), |file| input::document(&file))?;
                let quota = json!({ "concurrency": concurrency, "rate": rate, "burst": burst, "weight": weight });
                let body = json!({ "defaults": defaults, "quota": quota });
                let tenant: Value = session.client.put(&["tenants", &name], &body).await?;
                session.done(&tenant, &format!("{name}: stored"))
            }
            Self::List { paging } => session.list(&["tenants"], Vec::new(), &paging, &LIST).await,
        }
    }
}
