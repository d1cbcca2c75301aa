//! `carillon token`: manages API tokens.

use clap::{Subcommand, ValueEnum};
use serde::Serialize;

use super::{Paging, Session};
use carillon_client::answer::Answer;

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Create a token and show it once.
    Create(NewToken),
    /// List tokens, without their secrets.
    List {
        #[command(flatten)]
        paging: Paging,
    },
    /// Revoke a token.
    Revoke {
        /// Id of the token, as `list` shows it.
        id: String,
    },
}

/// Token to create.
#[derive(Debug, clap::Args, Serialize)]
pub struct NewToken {
    /// Name of the token, such as its purpose.
    name: String,
    /// Role of the token.
    #[arg(long)]
    role: Role,
    /// Let the token also manage tenants; requires the token of an operator, and `--role admin`.
    #[arg(long)]
    operator: bool,
    /// Time for which the token is valid, such as `30days`. Default: until it is revoked.
    #[arg(long, value_name = "DURATION")]
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_in: Option<String>,
}

#[derive(Clone, Copy, Debug, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Full access to the tenant.
    Admin,
    /// Create jobs and follow them.
    Producer,
    /// Read only.
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
