//! Canaries, on the command line.

use anyhow::{Context as _, anyhow};
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::super::Session;
use carillon_client::answer::Answer;
use carillon_client::bodies::Page;

/// Maximum percentage of jobs that follow a canary: if all did, the version would be in force.
const MAX_PERCENT: i64 = 99;

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct Canary {
    #[command(subcommand)]
    verb: Option<Verb>,
    /// Name of the group.
    #[arg(required = true)]
    group: Option<String>,
    /// Number of the version.
    #[arg(required = true)]
    version: Option<i64>,
    /// Percentage of jobs that follow the version; the others follow the version in force.
    #[arg(long, required = true, value_parser = clap::value_parser!(u32).range(1..=MAX_PERCENT))]
    percent: Option<u32>,
    #[command(flatten)]
    bounds: CanaryLimits,
    /// Reason for the change.
    #[arg(long)]
    why: Option<String>,
}

/// Limits beyond which a canary is reverted.
#[derive(Debug, Args)]
pub struct CanaryLimits {
    /// With --percent: maximum share of the canary's attempts with a fault; a canary above it is reverted.
    #[arg(long, value_name = "SHARE", requires = "percent")]
    max_faults: Option<f64>,
    /// With --percent: maximum by which the canary's share of attempts without success may exceed that of the version in force.
    #[arg(long, value_name = "SHARE", requires = "percent")]
    max_differences: Option<f64>,
    /// With --percent: minimum number of attempts of each version before the canary is judged.
    #[arg(long, value_name = "N", requires = "percent")]
    min_attempts: Option<u32>,
}

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Show the canary, and its results on the node that responds.
    Get {
        /// Name of the group.
        group: String,
    },
    /// End the canary: all jobs follow the version in force.
    Delete {
        /// Name of the group.
        group: String,
        /// Reason for the change.
        #[arg(long)]
        why: Option<String>,
    },
}

impl Canary {
    pub(super) async fn run(self, session: &Session) -> anyhow::Result<()> {
        match self.verb {
            Some(Verb::Get { group }) => {
                let canary = current(session, &group).await?;
                if session.out.is_json() { session.out.json(&canary) } else { show(session, &canary) }
            }
            Some(Verb::Delete { group, why }) => {
                let canary = current(session, &group).await?;
                // It may be reverted automatically meanwhile: then there is nothing to do, and the version in force stays.
                let doc = json!({ "version": canary["version"], "why": why });
                let moved: Value = session.client.post(&["groups", &group, "policy", "rollback"], &doc).await?;
                session.done(&moved, &format!("{group}: canary ended"))
            }
            None => {
                let (group, version) = self.group.zip(self.version).context("a group and a version are needed")?;
                promote(session, &group, version, self.percent, self.bounds, self.why).await
            }
        }
    }
}

/// Returns a group's canary. If there is none, the error says how the last one ended.
async fn current(session: &Session, group: &str) -> anyhow::Result<Value> {
    let shown: Answer = session.client.get(&["groups", group], &[]).await?;
    if shown["canary"].is_object() {
        return Ok(shown["canary"].clone());
    }
    let query = [("limit", HISTORY_LIMIT.to_string())];
    let history: Page = session.client.get(&["groups", group, "policy", "history"], &query).await?;
    let moves: Vec<&Value> = history.items.iter().map(|it| &**it).collect();
    let end = last_end(&moves).map(|end| format!("; {end}")).unwrap_or_default();
    Err(anyhow!("the group `{group}` has no canary{end}"))
}

/// Returns how the last canary of a history ended; the first move is the newest.
fn last_end(moves: &[&Value]) -> Option<String> {
    let began = moves.iter().position(|it| it["action"] == "canary")?;
    let (canary, end) = (&moves[began]["to_version"], moves[..began].last()?);
    let text = |key: &str| end[key].as_str();
    let how = if end["action"] == "rollback" { "was rolled back" } else { "ended with another version in force" };
    let by = end["by"]["name"].as_str().map(|by| format!(" by {by}")).unwrap_or_default();
    let why = text("why").map(|why| format!(": {why}")).unwrap_or_default();
    Some(format!("the last one, version {canary}, {how}{by} at {}{why}", text("at").unwrap_or("an unknown time")))
}

/// Maximum number of moves that are searched.
const HISTORY_LIMIT: usize = 100;

const ARMS: [(&str, &str); 4] =
    [("VERSION", "/version"), ("ATTEMPTS", "/attempts"), ("FAULTS", "/faults"), ("NOT SUCCEEDED", "/failures")];

/// Prints a canary: its settings, and its results beside those of the version in force.
fn show(session: &Session, canary: &Value) -> anyhow::Result<()> {
    let mut settings = canary.clone();
    let arm = |settings: &mut Value, key: &str, name: String| {
        let mut arm = settings[key].take();
        arm["version"] = name.into();
        arm
    };
    let arms = [
        arm(&mut settings, "canary", format!("{} (canary)", canary["version"])),
        arm(&mut settings, "active", "in force".to_owned()),
    ];
    session.out.answer_with(&["version", "percent", "since"], &settings)?;
    session.out.line("")?;
    session.out.table(&ARMS, &arms)
}

/// Puts a version in force, for all jobs or for some.
pub(super) async fn promote(
    session: &Session,
    group: &str,
    version: i64,
    percent: Option<u32>,
    bounds: CanaryLimits,
    why: Option<String>,
) -> anyhow::Result<()> {
    let CanaryLimits { max_faults, max_differences, min_attempts } = bounds;
    let doc = json!({ "version": version, "percent": percent, "max_faults": max_faults,
        "max_differences": max_differences, "min_attempts": min_attempts, "why": why });
    let moved: Answer = session.client.post(&["groups", group, "policy", "promote"], &doc).await?;
    let whose = match moved["canary"]["percent"].as_u64() {
        Some(percent) => format!("{percent} % of the jobs follow version {version}"),
        None => format!("version {version} is in force"),
    };
    session.changed(&moved, &format!("{group}: {whose}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_the_last_canary_is_told() {
        let moved =
            |action: &str, to: i64| json!({"action": action, "to_version": to, "at": "T", "by": null, "why": null});
        let mut end = moved("rollback", 1);
        end["by"] = json!({"token": null, "name": "canary"});
        end["why"] = "too many faults".into();
        let (began, bound) = (moved("canary", 2), moved("bind", 1));
        let told = |moves: &[&Value]| last_end(moves);
        let expected = "the last one, version 2, was rolled back by canary at T: too many faults";
        assert_eq!(told(&[&end, &began, &bound]).as_deref(), Some(expected));
        assert_eq!(told(&[&bound]), None);
        let promoted = moved("promote", 2);
        assert!(told(&[&promoted, &began]).unwrap().contains("another version in force"));
        let bound_again = moved("bind", 4);
        assert_eq!(told(&[&bound_again, &end, &began]).as_deref(), Some(expected));
    }
}
