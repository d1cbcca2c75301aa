//! `carillon group`: binds policies and limits to groups of jobs.

use std::path::PathBuf;

use clap::Subcommand;
use serde_json::Value;

use super::{Paging, Session, input};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Create a group, or replace its policy and limits.
    Put {
        /// The group's name.
        name: String,
        /// Its policy and limits, in JSON or TOML; `-` is standard input. Without it, the group has the defaults.
        #[arg(short, long)]
        file: Option<PathBuf>,
        /// Why its policy is changed; kept with the new version of it.
        #[arg(long)]
        why: Option<String>,
    },
    /// Show a group.
    Get {
        /// The group's name.
        name: String,
        /// With everything it inherits, and where each value comes from.
        #[arg(long)]
        effective: bool,
    },
    /// List the groups.
    List {
        #[command(flatten)]
        paging: Paging,
    },
    /// Delete a group.
    Delete {
        /// The group's name.
        name: String,
    },
    /// Start no attempts until the group is resumed.
    Pause {
        /// The group's name.
        name: String,
    },
    /// Start attempts again.
    Resume {
        /// The group's name.
        name: String,
    },
    /// Count the group's jobs by state.
    Stats {
        /// The group's name.
        name: String,
    },
}

const LIST: [(&str, &str); 4] =
    [("NAME", "/name"), ("PAUSED", "/paused"), ("VERSION", "/version"), ("UPDATED", "/updated_at")];

impl Command {
    pub(super) async fn run(self, session: &Session) -> anyhow::Result<()> {
        let client = &session.client;
        match self {
            Self::Put { name, file, why } => {
                let policy =
                    file.map_or_else(|| Ok(Value::Object(serde_json::Map::new())), |file| input::document(&file))?;
                session.done(&client.put_group(&name, &policy, why).await?, &format!("{name}: stored"))
            }
            Self::Get { name, effective } => {
                let query = if effective { vec![("effective", "true".to_owned())] } else { Vec::new() };
                let group: Value = client.get(&["groups", &name], &query).await?;
                session.out.answer(&group)
            }
            Self::List { paging } => session.list(&["groups"], Vec::new(), &paging, &LIST).await,
            Self::Delete { name } => {
                session.done(&client.delete(&["groups", &name]).await?, &format!("{name}: deleted"))
            }
            Self::Pause { name } => {
                session.done(&client.act(&["groups", &name, "pause"]).await?, &format!("{name}: paused"))
            }
            Self::Resume { name } => {
                session.done(&client.act(&["groups", &name, "resume"]).await?, &format!("{name}: resumed"))
            }
            Self::Stats { name } => {
                let stats: Value = client.get(&["groups", &name, "stats"], &[]).await?;
                session.out.answer(&stats)
            }
        }
    }
}
