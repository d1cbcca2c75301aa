//! `carillon bulk`: changes many jobs of a group, with a progress bar.

use std::time::Duration;

use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use super::{Paging, Session, input};
use carillon_client::answer::{Answer, Members};
use carillon_core::job::State;

/// Period of the requests for the progress.
const PERIOD: Duration = Duration::from_millis(200);

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Cancel waiting and running jobs.
    Cancel(Change),
    /// Run waiting jobs now.
    Run(Change),
    /// Move waiting jobs to another time.
    Reschedule {
        #[command(flatten)]
        change: Change,
        /// Time to run: RFC 3339, `+90s`, or seconds since 1970.
        #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
        run_at: String,
    },
    /// Retry dead letters and expired jobs.
    Redrive(Change),
    /// Remove dead letters, or with `--state` other jobs that have ended.
    Purge(Change),
    /// Show the progress of a bulk change.
    Get {
        /// Id of the bulk change.
        id: String,
    },
    /// List the bulk changes of the last week, newest first.
    List {
        #[command(flatten)]
        paging: Paging,
    },
}

/// Jobs to change.
#[derive(Debug, Args)]
pub struct Change {
    /// Name of the group.
    group: String,
    /// Only jobs in this state.
    #[arg(long)]
    state: Option<State>,
    /// Only jobs with this name.
    #[arg(long)]
    name: Option<String>,
    /// Only jobs whose name begins with this text.
    #[arg(long)]
    name_prefix: Option<String>,
    /// Only jobs with this label, `KEY=VALUE`. Can be repeated.
    #[arg(short, long, value_name = "LABEL", value_parser = input::pair)]
    metadata: Vec<(String, String)>,
    /// Only jobs accepted at this time or later.
    #[arg(long, value_name = "TIME")]
    created_from: Option<String>,
    /// Only jobs accepted before this time.
    #[arg(long, value_name = "TIME")]
    created_before: Option<String>,
    #[command(flatten)]
    narrow: Narrow,
    /// Only count the matching jobs.
    #[arg(long)]
    dry_run: bool,
    /// Do not ask for confirmation on a terminal.
    #[arg(short, long)]
    yes: bool,
}

/// Change of each job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Cancel,
    Run,
    Reschedule,
    Redrive,
    Purge,
}

impl Action {
    /// Returns the name in the API.
    fn as_str(self) -> &'static str {
        match self {
            Self::Cancel => "cancel",
            Self::Run => "run",
            Self::Reschedule => "reschedule",
            Self::Redrive => "redrive",
            Self::Purge => "purge",
        }
    }

    /// Returns the word for the jobs after the change.
    fn done(self) -> &'static str {
        match self {
            Self::Cancel => "cancelled",
            Self::Run => "run now",
            Self::Reschedule => "rescheduled",
            Self::Redrive => "redriven",
            Self::Purge => "removed",
        }
    }
}

/// Formats a number of jobs: `1 job`, `5,000 jobs`.
fn jobs(count: &Value) -> String {
    let count = count.as_u64().unwrap_or(0);
    let digits = count.to_string();
    let mut grouped = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    format!("{grouped} {}", if count == 1 { "job" } else { "jobs" })
}

/// Filter of jobs by due time, URL and order key.
#[derive(Debug, Args)]
pub struct Narrow {
    /// Only jobs that are, or last were, due at this time or later.
    #[arg(long, value_name = "TIME")]
    due_from: Option<String>,
    /// Only jobs that are, or last were, due before this time.
    #[arg(long, value_name = "TIME")]
    due_before: Option<String>,
    /// Only jobs with exactly this URL.
    #[arg(long)]
    url: Option<String>,
    /// Only jobs whose URL begins with this text.
    #[arg(long, value_name = "URL")]
    url_prefix: Option<String>,
    /// Only jobs with this order key.
    #[arg(long, value_name = "KEY")]
    order_key: Option<String>,
}

impl Narrow {
    /// Returns the filter's members, under their names in the API.
    pub(super) fn members(self) -> impl Iterator<Item = (&'static str, String)> {
        let members = [
            ("due_from", self.due_from),
            ("due_before", self.due_before),
            ("url", self.url),
            ("url_prefix", self.url_prefix),
            ("order_key", self.order_key),
        ];
        members.into_iter().filter_map(|(name, value)| Some((name, value?)))
    }
}

const LIST: [(&str, &str); 6] = [
    ("ID", "/id"),
    ("ACTION", "/action"),
    ("GROUP", "/group"),
    ("DONE", "/done"),
    ("TOTAL", "/total"),
    ("FINISHED", "/finished_at"),
];

impl Command {
    pub(super) async fn run(self, session: &Session) -> anyhow::Result<()> {
        match self {
            Self::Cancel(change) => change.run(session, Action::Cancel, None).await,
            Self::Run(change) => change.run(session, Action::Run, None).await,
            Self::Reschedule { change, run_at } => {
                change.run(session, Action::Reschedule, Some(input::time(&run_at))).await
            }
            Self::Redrive(change) => change.run(session, Action::Redrive, None).await,
            Self::Purge(change) => change.run(session, Action::Purge, None).await,
            Self::Get { id } => {
                let bulk: Answer = session.client.get(&["bulk", &id], &[]).await?;
                session.out.answer(&bulk)
            }
            Self::List { paging } => session.list(&["bulk"], Vec::new(), &paging, &LIST).await,
        }
    }
}

impl Change {
    /// Requests the change and waits for its end. On a terminal, the user must confirm first.
    async fn run(self, session: &Session, action: Action, run_at: Option<Value>) -> anyhow::Result<()> {
        let metadata = input::labels(Members::default(), self.metadata)?;
        let mut filter = json!({
            "state": self.state,
            "name": self.name,
            "name_prefix": self.name_prefix,
            "metadata": metadata,
            "created_from": self.created_from,
            "created_before": self.created_before,
        });
        for (name, value) in self.narrow.members() {
            filter[name] = Value::String(value);
        }
        let mut change = json!({"action": action.as_str(), "filter": filter, "run_at": run_at, "dry_run": true});
        let path = ["groups", &self.group, "bulk"];
        let must_ask = !self.yes && input::is_terminal();
        if self.dry_run || must_ask {
            let counted: Answer = session.client.post(&path, &change).await?;
            let count = jobs(&counted["total"]);
            if self.dry_run {
                return session.done(&counted, &format!("{count} would be {}", action.done()));
            }
            input::confirm(&format!("{count} of the group `{}` will be {}. Continue?", self.group, action.done()))?;
        }
        change["dry_run"] = false.into();
        let bulk: Answer = session.client.post(&path, &change).await?;
        let bulk = follow(session, bulk).await?;
        session.done(&bulk, &format!("{} {}", jobs(&bulk["done"]), action.done()))
    }
}

/// Waits for the end of a change, and shows its progress.
async fn follow(session: &Session, mut bulk: Answer) -> anyhow::Result<Answer> {
    let bar = ProgressBar::new(bulk["total"].as_u64().unwrap_or(0));
    bar.set_style(ProgressStyle::with_template("{wide_bar} {pos} of {len} jobs, {eta} left")?);
    let id = bulk["id"].as_str().unwrap_or_default().to_owned();
    while bulk["finished"] != true {
        tokio::time::sleep(PERIOD).await;
        bulk = session.client.get(&["bulk", &id], &[]).await?;
        bar.set_position(bulk["done"].as_u64().unwrap_or(0));
    }
    bar.finish_and_clear();
    Ok(bulk)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_are_counted_in_words() {
        for (count, text) in [(0, "0 jobs"), (1, "1 job"), (999, "999 jobs"), (5_000, "5,000 jobs")] {
            assert_eq!(jobs(&json!(count)), text);
        }
        assert_eq!(jobs(&json!(1_234_567)), "1,234,567 jobs");
    }
}
