//! Versions of a group's policy, on the command line.

use std::path::PathBuf;

use clap::Subcommand;
use serde_json::json;

use super::super::{Paging, Session, input};
use super::canary::{Canary, CanaryLimits, promote};
use super::differences;
use carillon_client::answer::Answer;

#[derive(Debug, Subcommand)]
pub enum Command {
    /// List the versions of a group's policy.
    Versions {
        /// The group's name.
        group: String,
        #[command(flatten)]
        paging: Paging,
    },
    /// Show a version of a group's policy.
    Version {
        /// The group's name.
        group: String,
        /// The version's number.
        version: i64,
    },
    /// Make a version that is not in force: it can be promoted.
    Propose {
        /// The group's name.
        group: String,
        /// What is different from the version in force in encode, sign, judge, retry and observe, in JSON or TOML; `-` is standard input. What
        /// it does not name stays; null takes away what is there or inherited.
        file: PathBuf,
        /// The file is the whole version: what it does not name is inherited. `sign` goes only if the file says `"sign": null`.
        #[arg(long)]
        replace: bool,
        /// What it is for.
        #[arg(long)]
        why: Option<String>,
    },
    /// Put a version in force, for all jobs or for some.
    Promote {
        /// The group's name.
        group: String,
        /// The version's number.
        version: i64,
        /// How many of a hundred jobs follow it: the others follow the version in force.
        #[arg(long)]
        percent: Option<u32>,
        #[command(flatten)]
        bounds: CanaryLimits,
        /// Why.
        #[arg(long)]
        why: Option<String>,
    },
    /// Let some of the jobs follow a version (as promote --percent does), show what came of it, or end it.
    Canary(Canary),
    /// Take back the version that some of the jobs follow, or put the version in force again that was before the present one.
    Rollback {
        /// The group's name.
        group: String,
        /// Only if it is this version that is taken back.
        #[arg(long)]
        version: Option<i64>,
        /// Why.
        #[arg(long)]
        why: Option<String>,
    },
    /// Let policies be called again that failed too often, on all nodes.
    Unquarantine {
        /// The group's name.
        group: String,
        /// Why.
        #[arg(long)]
        why: Option<String>,
    },
    /// Let a version run beside the one in force: its answers are compared, and never used.
    #[command(subcommand)]
    Shadow(Shadow),
    /// List who put which version in force, when and why.
    History {
        /// The group's name.
        group: String,
        #[command(flatten)]
        paging: Paging,
    },
}

#[derive(Debug, Subcommand)]
pub enum Shadow {
    /// Set it, or another one.
    Put {
        /// The group's name.
        group: String,
        /// The version's number.
        version: i64,
        /// How many of a hundred attempts it is shown.
        #[arg(long, default_value = "100")]
        percent: u32,
    },
    /// Show what it has said so far, on the node that answers.
    Get {
        /// The group's name.
        group: String,
    },
    /// End it.
    Delete {
        /// The group's name.
        group: String,
    },
}

const VERSIONS: [(&str, &str); 5] =
    [("VERSION", "/version"), ("ACTIVE", "/active"), ("MADE AT", "/made_at"), ("BY", "/by"), ("WHY", "/why")];

const HISTORY: [(&str, &str); 7] = [
    ("AT", "/at"),
    ("ACTION", "/action"),
    ("FROM", "/from_version"),
    ("TO", "/to_version"),
    ("PERCENT", "/percent"),
    ("BY", "/by"),
    ("WHY", "/why"),
];

impl Command {
    pub(super) async fn run(self, session: &Session) -> anyhow::Result<()> {
        let client = &session.client;
        match self {
            Self::Versions { group, paging } => {
                session.list(&["groups", &group, "policy", "versions"], Vec::new(), &paging, &VERSIONS).await
            }
            Self::Version { group, version } => {
                let version = version.to_string();
                let shown: Answer = client.get(&["groups", &group, "policy", "versions", &version], &[]).await?;
                session.out.answer(&shown)
            }
            Self::Propose { group, file, replace, why } => {
                let mut policy = input::document(&file)?;
                if let Some(why) = why {
                    policy.put("why", &why)?;
                }
                let base = if replace { None } else { Some(("base", "active".to_owned())) };
                let query: Vec<_> = base.into_iter().collect();
                let made = client.post_to(&["groups", &group, "policy", "versions"], &query, &policy).await?;
                session.changed(&made, &format!("{group}: version {} is made", made["version"]))
            }
            Self::Promote { group, version, percent, bounds, why } => {
                promote(session, &group, version, percent, bounds, why).await
            }
            Self::Canary(canary) => canary.run(session).await,
            Self::Rollback { group, version, why } => {
                let doc = json!({ "version": version, "why": why });
                let moved: Answer = client.post(&["groups", &group, "policy", "rollback"], &doc).await?;
                session.changed(&moved, &format!("{group}: version {} is in force", moved["binding"]))
            }
            Self::Unquarantine { group, why } => {
                let lifted: Answer =
                    client.post(&["groups", &group, "policy", "unquarantine"], &json!({ "why": why })).await?;
                session.done(&lifted, &format!("{group}: all of its policies are called again"))
            }
            Self::Shadow(command) => command.run(session).await,
            Self::History { group, paging } => {
                session.list(&["groups", &group, "policy", "history"], Vec::new(), &paging, &HISTORY).await
            }
        }
    }
}

impl Shadow {
    async fn run(self, session: &Session) -> anyhow::Result<()> {
        let client = &session.client;
        match self {
            Self::Put { group, version, percent } => {
                let doc = json!({ "version": version, "percent": percent });
                let set: Answer = client.put(&["groups", &group, "policy", "shadow"], &doc).await?;
                session.done(&set, &format!("{group}: version {version} runs beside the one in force"))
            }
            Self::Get { group } => {
                let shadow: Answer = client.get(&["groups", &group, "policy", "shadow"], &[]).await?;
                if session.out.is_json() { session.out.json(&shadow) } else { differences::show(session, &shadow) }
            }
            Self::Delete { group } => {
                let answer = client.delete(&["groups", &group, "policy", "shadow"]).await?;
                session.done(&answer, &format!("{group}: ended"))
            }
        }
    }
}
