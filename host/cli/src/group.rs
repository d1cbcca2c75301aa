//! `carillon group`: binds policies and limits to groups of jobs.

use std::path::PathBuf;

use super::{Paging, Session, input};
use carillon_client::answer::{Answer, Members};
use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Create a group, or change those of its settings that a file contains; other settings stay.
    Put {
        /// Name of the group.
        name: String,
        /// File with the policy and limits, or a part of them, in JSON or TOML; `-` reads standard input. In JSON, null removes a setting
        /// and stops its inheritance. Without a file, a new group has the defaults.
        #[arg(short, long)]
        file: Option<PathBuf>,
        /// Replace all settings of the group: those that the file does not contain are removed. `sign` is removed only if the file contains
        /// `"sign": null`.
        #[arg(long)]
        replace: bool,
        /// Reason for the change, stored with the new version of the policy.
        #[arg(long)]
        why: Option<String>,
    },
    /// Show a group.
    Get {
        /// Name of the group.
        name: String,
        /// Include inherited values, and show the source of each value.
        #[arg(long)]
        effective: bool,
    },
    /// List groups.
    List {
        #[command(flatten)]
        paging: Paging,
    },
    /// Delete a group.
    Delete {
        /// Name of the group.
        name: String,
    },
    /// Pause a group: no attempt starts until it is resumed.
    Pause {
        /// Name of the group.
        name: String,
    },
    /// Resume a group: attempts start again.
    Resume {
        /// Name of the group.
        name: String,
    },
    /// Count the jobs of a group by state.
    Stats {
        /// Name of the group.
        name: String,
    },
}

const LIST: [(&str, &str); 4] =
    [("NAME", "/name"), ("PAUSED", "/paused"), ("VERSION", "/version"), ("UPDATED", "/updated_at")];

impl Command {
    pub(super) async fn run(self, session: &Session) -> anyhow::Result<()> {
        let client = &session.client;
        match self {
            Self::Put { name, file, replace, why } => {
                let policy = file.map_or_else(|| Ok(Members::default()), |file| input::document(&file))?;
                let group = if replace {
                    client.put_group(&name, &policy, why).await?
                } else {
                    let query: Vec<_> = why.into_iter().map(|why| ("why", why)).collect();
                    session.put_part(&["groups", &name], &query, &policy).await?
                };
                session.changed(&group, &format!("{name}: stored"))
            }
            Self::Get { name, effective } => {
                let query = if effective { vec![("effective", "true".to_owned())] } else { Vec::new() };
                let group: Answer = client.get(&["groups", &name], &query).await?;
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
                let stats: Answer = client.get(&["groups", &name, "stats"], &[]).await?;
                session.out.answer(&stats)
            }
        }
    }
}
