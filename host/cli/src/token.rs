//! `carillon token`: manages API tokens.

use clap::{Subcommand, ValueEnum};
use serde::Serialize;

use super::{Paging, Session};
use carillon_client::answer::Answer;

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Create a token and show it once.
    Create(NewToken),
    /// List the tenant's tokens, without their secrets.
    List {
        /// List the tokens of operators instead, which belong to no tenant; requires the token of an operator.
        #[arg(long)]
        operator: bool,
        #[command(flatten)]
        paging: Paging,
    },
    /// Give a token another secret under the same id, and show it once.
    Rotate {
        /// Id of the token, as `list` shows it.
        id: String,
        #[command(flatten)]
        rotation: Rotation,
    },
    /// Revoke a token. What it has opened ends within a second.
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
    /// Time from which the token is not valid any more, such as `2027-01-01T00:00:00Z`.
    #[arg(long, value_name = "TIME", conflicts_with = "expires_in")]
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<String>,
    /// Group that the token sees and touches; may be repeated. Default: all groups of the tenant.
    #[arg(long = "group", value_name = "NAME")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    groups: Vec<String>,
    /// Network or address from which the token is accepted, such as `192.0.2.0/24`; may be repeated. Default: from everywhere.
    #[arg(long = "address", value_name = "NETWORK")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    addresses: Vec<String>,
}

/// Rotation of a token.
#[derive(Debug, clap::Args, Serialize)]
pub struct Rotation {
    /// Time for which the present secret stays valid, such as `1h`. Default: it ends at once.
    #[arg(long, value_name = "DURATION")]
    #[serde(skip_serializing_if = "Option::is_none")]
    overlap: Option<String>,
    /// Time for which the token is valid from now on, such as `30days`. Default: its expiry stays.
    #[arg(long, value_name = "DURATION")]
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_in: Option<String>,
    /// Time from which the token is not valid any more. Default: its expiry stays.
    #[arg(long, value_name = "TIME", conflicts_with = "expires_in")]
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<String>,
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

const LIST: [(&str, &str); 10] = [
    ("ID", "/id"),
    ("NAME", "/name"),
    ("ROLE", "/role"),
    ("OPERATOR", "/operator"),
    ("TENANT", "/tenant"),
    ("CREATED", "/created_at"),
    ("EXPIRES", "/expires_at"),
    ("LAST USED", "/last_used_at"),
    ("FROM", "/last_used_from"),
    ("CREATED BY", "/created_by/name"),
];

impl Command {
    pub(super) async fn run(self, session: &Session) -> anyhow::Result<()> {
        match self {
            Self::Create(token) => {
                let created: Answer = session.client.post(&["tokens"], &token).await?;
                session.out.answer(&created)
            }
            Self::List { operator, paging } => {
                let query = if operator { vec![("operator", true.to_string())] } else { Vec::new() };
                session.list(&["tokens"], query, &paging, &LIST).await
            }
            Self::Rotate { id, rotation } => {
                let rotated: Answer = session.client.post(&["tokens", &id, "rotate"], &rotation).await?;
                session.out.answer(&rotated)
            }
            Self::Revoke { id } => {
                session.done(&session.client.delete(&["tokens", &id]).await?, &format!("{id}: revoked"))
            }
        }
    }
}
