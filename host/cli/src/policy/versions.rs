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
        /// Name of the group.
        group: String,
        #[command(flatten)]
        paging: Paging,
    },
    /// Show a version of a group's policy.
    Version {
        /// Name of the group.
        group: String,
        /// Number of the version.
        version: i64,
    },
    /// Create a version that is not in force until it is promoted.
    Propose {
        /// Name of the group.
        group: String,
        /// File with the changes of encode, sign, judge, retry and observe to the version in force, in JSON or TOML; `-` reads standard
        /// input. Settings that it does not contain stay; null removes a setting and stops its inheritance.
        file: PathBuf,
        /// Use the file as the whole version: settings that it does not contain are inherited. `sign` is removed only if the file contains
        /// `"sign": null`.
        #[arg(long)]
        replace: bool,
        /// Reason for the version.
        #[arg(long)]
        why: Option<String>,
    },
    /// Put a version in force for all jobs, or for a percentage of them.
    Promote {
        /// Name of the group.
        group: String,
        /// Number of the version.
        version: i64,
        /// Percentage of jobs that follow the version; the others follow the version in force. Default: all jobs.
        #[arg(long)]
        percent: Option<u32>,
        #[command(flatten)]
        bounds: CanaryLimits,
        /// Reason for the change.
        #[arg(long)]
        why: Option<String>,
    },
    /// Start a canary (as `promote --percent` does), show its results, or end it.
    Canary(Canary),
    /// End the canary, or without a canary put the previous version in force again.
    Rollback {
        /// Name of the group.
        group: String,
        /// Fail unless this is the version that is rolled back.
        #[arg(long)]
        version: Option<i64>,
        /// Reason for the change.
        #[arg(long)]
        why: Option<String>,
    },
    /// End the quarantine of a group's policies on all nodes.
    Unquarantine {
        /// Name of the group.
        group: String,
        /// Reason for the change.
        #[arg(long)]
        why: Option<String>,
    },
    /// Run a version beside the one in force: its results are compared and never used.
    #[command(subcommand)]
    Shadow(Shadow),
    /// List which version was put in force, when, by whom and why.
    History {
        /// Name of the group.
        group: String,
        #[command(flatten)]
        paging: Paging,
    },
}

#[derive(Debug, Subcommand)]
pub enum Shadow {
    /// Start the shadow, or replace it by another version.
    Put {
        /// Name of the group.
        group: String,
        /// Number of the version.
        version: i64,
        /// Percentage of attempts that the shadow sees.
        #[arg(long, default_value = "100")]
        percent: u32,
    },
    /// Show the results of the shadow on the node that responds.
    Get {
        /// Name of the group.
        group: String,
    },
    /// End the shadow.
    Delete {
        /// Name of the group.
        group: String,
    },
}

const VERSIONS: [(&str, &str); 5] =
    [("VERSION", "/version"), ("ACTIVE", "/active"), ("CREATED", "/made_at"), ("BY", "/by/name"), ("WHY", "/why")];

const HISTORY: [(&str, &str); 7] = [
    ("AT", "/at"),
    ("ACTION", "/action"),
    ("FROM", "/from_version"),
    ("TO", "/to_version"),
    ("PERCENT", "/percent"),
    ("BY", "/by/name"),
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
                session.changed(&made, &format!("{group}: created version {}", made["version"]))
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
                session.done(&lifted, &format!("{group}: quarantine ended"))
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
                session.done(&set, &format!("{group}: version {version} runs in shadow"))
            }
            Self::Get { group } => {
                let shadow: Answer = client.get(&["groups", &group, "policy", "shadow"], &[]).await?;
                if session.out.is_json() { session.out.json(&shadow) } else { differences::show(session, &shadow) }
            }
            Self::Delete { group } => {
                let answer = client.delete(&["groups", &group, "policy", "shadow"]).await?;
                session.done(&answer, &format!("{group}: shadow ended"))
            }
        }
    }
}
