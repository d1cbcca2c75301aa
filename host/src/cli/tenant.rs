//! `carillon tenant`: manages tenants.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use serde::Serialize;
use serde_json::{Value, json};

use super::{Paging, Session, input};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Create a tenant, or replace the defaults that its groups inherit, the quota that they share, and whose plugins it takes.
    Put {
        /// The tenant's name.
        name: String,
        /// The defaults, in JSON or TOML, in the form of a group; `-` is standard input.
        #[arg(long, value_name = "FILE")]
        defaults: Option<PathBuf>,
        #[command(flatten)]
        quota: Quota,
        /// Whose plugins it takes: an Ed25519 public key in PEM under a name. Can be repeated; without any, plugins need no signature.
        #[arg(long = "plugin-signer", value_name = "NAME=FILE", value_parser = input::pair)]
        plugin_signers: Vec<(String, String)>,
    },
    /// List the tenants.
    List {
        #[command(flatten)]
        paging: Paging,
    },
}

/// What a tenant may use; what is not said is not bounded.
#[derive(Debug, Args, Serialize)]
pub(super) struct Quota {
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
    /// How many versions of plugins of its own it may have.
    #[arg(long, value_name = "COUNT")]
    plugins: Option<u32>,
    /// How many bytes they may have together.
    #[arg(long, value_name = "BYTES")]
    plugin_bytes: Option<u64>,
}

const LIST: [(&str, &str); 2] = [("NAME", "/name"), ("CREATED", "/created_at")];

impl Command {
    pub(super) async fn run(self, session: &Session) -> anyhow::Result<()> {
        match self {
            Self::Put { name, defaults, quota, plugin_signers } => {
                let defaults = defaults.map_or_else(|| Ok(json!({})), |file| input::document(&file))?;
                let signer = |(name, file): (String, String)| {
                    let key = std::fs::read_to_string(&file).with_context(|| format!("{file} cannot be read"))?;
                    anyhow::Ok(json!({ "name": name, "public_key": key }))
                };
                let signers = plugin_signers.into_iter().map(signer).collect::<Result<Vec<_>, _>>()?;
                let body = json!({ "defaults": defaults, "quota": quota, "plugin_signers": signers });
                let tenant: Value = session.client.put(&["tenants", &name], &body).await?;
                session.done(&tenant, &format!("{name}: stored"))
            }
            Self::List { paging } => session.list(&["tenants"], Vec::new(), &paging, &LIST).await,
        }
    }
}
