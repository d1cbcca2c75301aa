//! `carillon token`: manages API tokens.

use clap::{Subcommand, ValueEnum};
use serde::Serialize;

use super::{Paging, Session};
use carillon_client::answer::Answer;

#[derive(Debug, Subcommand)]
pub enum Command {
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
pub struct NewToken {
    /// What it is for.
    name: String,
    /// What it allows.
    #[arg(long)]
    role: Role,
    /// Let it manage tenants, too. It takes the token of an operator, and `--role admin`.
    #[arg(long)]
    operator: bool,
    /// How long it is valid: a duration such as `30days`. Without it, until it is revoked.
    #[arg(long, value_name = "DURATION")]
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_in: Option<String>,
}

#[derive(Clone, Copy, Debug, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Everything.
    Admin,
    /// To schedule jobs and follow them.
    Producer,
    /// To look.
    Viewer,
}

const LIST: [(&str, &str); 8] = [
    ("ID", "/id"),
    ("NAME", "/name"),
    ("ROLE", "/role"),
    ("OPERATOR", "/operator"),
    ("TENANT", "/tenant"),
    ("CREATED", "/created_at"),
    ("EXPIRES", "/expires_at"),
    ("LAST USED", "/last_used_at"),
];

impl Command {
    pub(super) async fn run(self, session: &Session) -> anyhow::Result<()> {
        match self {
            Self::Create(token) => {
                let created: Answer = session.client.post(&["tokens"], &token).await?;
                session.out.answer(&created)
            }
            Self::List { paging } => session.list(&["tokens"], Vec::new(), &paging, &LIST).await,
            Self::Revoke { id } => {
                session.done(&session.client.delete(&["tokens", &id]).await?, &format!("{id}: revoked"))
            }
        }
    }
}
