//! `carillon token`: manages API tokens.

use clap::{Subcommand, ValueEnum};
use serde::Serialize;
use serde_json::Value;

use super::{Paging, Session};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Make a token and show it, once.
    Create(NewToken),
    /// List the tokens, without their secrets.
    List {
        #[command(flatten)]
        paging: Paging,
    },
    /// Make a token useless.
    Revoke {
        /// The token's id, as `list` shows it.
        id: String,
    },
}

/// What a token is to be.
#[derive(Debug, clap::Args, Serialize)]
pub(super) struct NewToken {
    /// What it is for.
    name: String,
    /// What it allows.
    #[arg(long)]
    role: Role,
    /// The tenant that it is limited to.
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    tenant: Option<String>,
}

#[derive(Clone, Copy, Debug, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
enum Role {
    /// Everything.
    Admin,
    /// To schedule jobs and follow them.
    Producer,
    /// To look.
    Viewer,
}

const LIST: [(&str, &str); 5] =
    [("ID", "/id"), ("NAME", "/name"), ("ROLE", "/role"), ("TENANT", "/tenant"), ("CREATED", "/created_at")];

impl Command {
    pub(super) async fn run(self, session: &Session) -> anyhow::Result<()> {
        match self {
            Self::Create(token) => {
                let created: Value = session.client.post(&["tokens"], &token).await?;
                session.out.answer(&created)
            }
            Self::List { paging } => session.list(&["tokens"], Vec::new(), &paging, &LIST).await,
            Self::Revoke { id } => {
                session.done(&session.client.delete(&["tokens", &id]).await?, &format!("{id}: revoked"))
            }
        }
    }
}
