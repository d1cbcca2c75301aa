//! `carillon cluster`: shows the nodes that share the database.

use clap::Subcommand;

use super::{Paging, Session};

#[derive(Debug, Subcommand)]
pub enum Command {
    /// List the nodes, with their health and load.
    Status,
}

const LIST: [(&str, &str); 8] = [
    ("NAME", "/name"),
    ("ADDRESS", "/address"),
    ("VERSION", "/version"),
    ("ALIVE", "/alive"),
    ("STOPPING", "/stopping"),
    ("RUNNING", "/running"),
    ("CAPACITY", "/capacity"),
    ("LAST SEEN", "/last_seen_at"),
];

impl Command {
    pub(super) async fn run(self, session: &Session) -> anyhow::Result<()> {
        match self {
            Self::Status => session.list(&["nodes"], Vec::new(), &Paging::default(), &LIST).await,
        }
    }
}
