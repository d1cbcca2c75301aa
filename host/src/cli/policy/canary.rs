//! Versions that some of a group's jobs follow, on the command line.

use anyhow::{Context as _, anyhow};
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::super::Session;

/// The most jobs of a hundred that follow a canary: if all do, the version is in force.
const MOST: i64 = 99;

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(in super::super) struct Canary {
    #[command(subcommand)]
    verb: Option<Verb>,
    /// The group's name.
    #[arg(required = true)]
    group: Option<String>,
    /// The version's number.
    #[arg(required = true)]
    version: Option<i64>,
    /// How many of a hundred jobs follow it: the others follow the version in force.
    #[arg(long, required = true, value_parser = clap::value_parser!(u32).range(1..=MOST))]
    percent: Option<u32>,
    #[command(flatten)]
    bounds: Bounds,
    /// Why.
    #[arg(long)]
    why: Option<String>,
}

/// When a canary is taken back.
#[derive(Debug, Args)]
pub(in super::super) struct Bounds {
    /// With --percent: the largest share of its attempts that may have a fault before it is taken back.
    #[arg(long, value_name = "SHARE", requires = "percent")]
    max_faults: Option<f64>,
    /// With --percent: by how much the share of its attempts that are no success may exceed that of the version in force.
    #[arg(long, value_name = "SHARE", requires = "percent")]
    max_differences: Option<f64>,
    /// With --percent: how many attempts of each it takes to say so.
    #[arg(long, value_name = "N", requires = "percent")]
    min_attempts: Option<u32>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Show which version it is, and what came of its attempts on the node that answers.
    Get {
        /// The group's name.
        group: String,
    },
    /// End it: all jobs follow the version in force.
    Delete {
        /// The group's name.
        group: String,
        /// Why.
        #[arg(long)]
        why: Option<String>,
    },
}

impl Canary {
    pub(super) async fn run(self, session: &Session) -> anyhow::Result<()> {
        match self.verb {
            Some(Verb::Get { group }) => session.out.answer(&of(session, &group).await?),
            Some(Verb::Delete { group, why }) => {
                let canary = of(session, &group).await?;
                // It may be taken back by itself meanwhile: then there is nothing to do, and the version in force stays.
                let doc = json!({ "version": canary["version"], "why": why });
                let moved: Value = session.client.post(&["groups", &group, "policy", "rollback"], &doc).await?;
                session.done(&moved, &format!("{group}: ended"))
            }
            None => {
                let (group, version) = self.group.zip(self.version).context("a group and a version are needed")?;
                promote(session, &group, version, self.percent, self.bounds, self.why).await
            }
        }
    }
}

/// What some of a group's jobs follow.
async fn of(session: &Session, group: &str) -> anyhow::Result<Value> {
    let mut group: Value = session.client.get(&["groups", group], &[]).await?;
    match group["canary"].take() {
        Value::Null => Err(anyhow!("no version is tried out in the group {}", group["name"])),
        canary => Ok(canary),
    }
}

/// Puts a version in force, for all jobs or for some.
pub(super) async fn promote(
    session: &Session,
    group: &str,
    version: i64,
    percent: Option<u32>,
    bounds: Bounds,
    why: Option<String>,
) -> anyhow::Result<()> {
    let Bounds { max_faults, max_differences, min_attempts } = bounds;
    let doc = json!({ "version": version, "percent": percent, "max_faults": max_faults,
        "max_differences": max_differences, "min_attempts": min_attempts, "why": why });
    let moved: Value = session.client.post(&["groups", group, "policy", "promote"], &doc).await?;
    let whose = match moved["canary"]["percent"].as_u64() {
        Some(percent) => format!("{percent} % of the jobs follow version {version}"),
        None => format!("version {version} is in force"),
    };
    session.done(&moved, &format!("{group}: {whose}"))
}
