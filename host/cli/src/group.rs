//! `carillon group`: binds policies and limits to groups of jobs.

use std::path::PathBuf;

use super::{Paging, Session, input};
use carillon_client::answer::{Answer, Members};
use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Create a group, or change what a document names of its policy and limits; the rest stays.
    Put {
        /// The group's name.
        name: String,
        /// Its policy and limits, or a part of them, in JSON or TOML; `-` is standard input. In JSON, null takes away what is there or
        /// inherited. Without a file, a new group has the defaults.
        #[arg(short, long)]
        file: Option<PathBuf>,
        /// The file is all that the group has of its own: what it does not name goes. `sign` goes only if the file says `"sign": null`.
        #[arg(long)]
        replace: bool,
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
