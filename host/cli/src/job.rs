//! `carillon job`: schedules jobs and follows them.

use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use clap::Subcommand;
use serde_json::{Value, json};

use super::bulk::Narrow;
use super::job_args::JobArgs;
use super::job_target::Target;
use super::{Paging, Session, attempts, batch, input};
use carillon_client::answer::{Answer, Members};
use carillon_core::clock::Stopwatch;
use carillon_core::job::State;

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Create a job.
    Create {
        /// Group whose policy and limits apply.
        group: String,
        /// Idempotency key: a repeated request with this key within 24 hours creates no second job.
        #[arg(long, value_name = "KEY")]
        idempotency_key: Option<String>,
        #[command(flatten)]
        job: Box<JobArgs>,
    },
    /// Create many jobs from a file with one JSON job per line.
    Batch(batch::Batch),
    /// Show a job.
    Get(Target),
    /// List the jobs of a group, or of all groups.
    List {
        /// Group of the jobs. Default: all groups.
        group: Option<String>,
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
        /// Only jobs accepted at this time or later: RFC 3339, or seconds since 1970.
        #[arg(long, value_name = "TIME")]
        created_from: Option<String>,
        /// Only jobs accepted before this time.
        #[arg(long, value_name = "TIME")]
        created_before: Option<String>,
        #[command(flatten)]
        narrow: Box<Narrow>,
        #[command(flatten)]
        paging: Paging,
    },
    /// Wait until a job has ended, and show it; fails unless the job succeeded.
    Wait {
        #[command(flatten)]
        target: Target,
        /// Maximum time to wait, such as `90s`. Default: no limit.
        #[arg(long, value_name = "PERIOD", value_parser = carillon_core::duration::parse)]
        timeout: Option<Duration>,
    },
    /// Cancel jobs that have not ended.
    Cancel {
        /// Ids of the jobs.
        #[arg(required = true)]
        ids: Vec<String>,
        /// Treat the arguments as names of jobs in this group.
        #[arg(long)]
        group: Option<String>,
    },
    /// Run a waiting job now.
    Run(Target),
    /// Retry a dead letter or an expired job.
    Retry(Target),
    /// Create a copy of a job, in whatever state the job is.
    Copy {
        #[command(flatten)]
        target: Target,
        /// Time to run: RFC 3339, `+90s`, or seconds since 1970. Default: now.
        #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
        run_at: Option<String>,
    },
    /// Move a waiting job to another time.
    Reschedule {
        #[command(flatten)]
        target: Target,
        /// Time to run: RFC 3339, `+90s`, or seconds since 1970.
        #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
        run_at: String,
    },
    /// Change a waiting job.
    Edit {
        #[command(flatten)]
        target: Target,
        /// Members to replace, as JSON: `{"url": "…", "headers": {"X-Old": null}}`.
        #[arg(value_name = "JSON", value_parser = input::json_object)]
        patch: Members,
    },
    /// List the attempts of a job and their results.
    Attempts {
        #[command(flatten)]
        target: Target,
        #[command(flatten)]
        paging: Paging,
    },
    /// Show everything about one attempt: the results and logs of its policies, and the response.
    Attempt {
        #[command(flatten)]
        target: Target,
        /// Number of the attempt.
        number: u32,
    },
}

const LIST: [(&str, &str); 7] = [
    ("ID", "/id"),
    ("NAME", "/name"),
    ("STATE", "/state"),
    ("RUN AT", "/run_at"),
    ("ATTEMPTS", "/attempt_count"),
    ("LAST STATUS", "/last_status"),
    ("LAST ERROR", "/last_error"),
];

/// Fields of a job that a record shows first.
const FIRST: [&str; 6] = ["id", "name", "group", "state", "run_at", "last_error"];

/// Pauses between two requests while a job is awaited: the first, and the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const MAX_PAUSE: Duration = Duration::from_secs(2);

const LIST_ALL: [(&str, &str); 7] = [
    ("ID", "/id"),
    ("GROUP", "/group"),
    ("NAME", "/name"),
    ("STATE", "/state"),
    ("RUN AT", "/run_at"),
    ("ATTEMPTS", "/attempt_count"),
    ("LAST STATUS", "/last_status"),
];

impl Command {
    pub(super) async fn run(self, session: &Session) -> anyhow::Result<()> {
        let client = &session.client;
        match self {
            Self::Create { group, idempotency_key, job } => {
                let (path, job) = (["groups", &group, "jobs"], job.input()?);
                let made: Answer = match idempotency_key {
                    Some(key) => client.post_once(&path, &key, &job).await?,
                    None => client.post(&path, &job).await?,
                };
                session.out.answer_with(&FIRST, &made)
            }
            Self::Batch(batch) => batch.run(session).await,
            Self::Get(target) => {
                let job: Answer = client.get(&["jobs", &target.id], &target.query()).await?;
                session.out.answer_with(&FIRST, &job)?;
                if job["last_error"].is_string() && !session.out.is_json() {
                    session.out.note(&format!("for details, run: carillon job attempts {}", target.id))?;
                }
                Ok(())
            }
            Self::Wait { target, timeout } => wait(session, &target, timeout).await,
            Self::List { group, state, name, name_prefix, metadata, created_from, created_before, narrow, paging } => {
                let labels: Vec<_> =
                    metadata.into_iter().map(|(key, value)| (format!("metadata.{key}"), value)).collect();
                let state = state.map(|state| ("state", state.to_string()));
                let created = [("created_from", created_from), ("created_before", created_before)];
                let named = [("name", name), ("name_prefix", name_prefix)].into_iter().chain(created);
                let named = named.filter_map(|(key, value)| Some((key, value?)));
                let labels = labels.iter().map(|(key, value)| (key.as_str(), value.clone()));
                let mut query: Vec<(&str, String)> = state.into_iter().chain(named).chain(narrow.members()).collect();
                query.extend(labels);
                match &group {
                    Some(group) => session.list(&["groups", group, "jobs"], query, &paging, &LIST).await,
                    None => session.list(&["jobs"], query, &paging, &LIST_ALL).await,
                }
            }
            Self::Cancel { ids, group } => cancel(session, ids, group).await,
            Self::Run(target) => act(session, &target, "run", &json!({})).await,
            Self::Retry(target) => act(session, &target, "retry", &json!({})).await,
            Self::Copy { target, run_at } => {
                act(session, &target, "copy", &json!({"run_at": run_at.as_deref().map(input::time)})).await
            }
            Self::Reschedule { target, run_at } => {
                act(session, &target, "reschedule", &json!({"run_at": input::time(&run_at)})).await
            }
            Self::Edit { target, patch } => {
                let job = client.patch(&["jobs", &target.id], &target.query(), &patch).await?;
                session.out.answer_with(&FIRST, &job)
            }
            Self::Attempts { target, paging } => attempts::list(session, &target, &paging).await,
            Self::Attempt { target, number } => attempts::show(session, &target, number).await,
        }
    }
}

/// Polls a job until it is finished.
async fn wait(session: &Session, target: &Target, timeout: Option<Duration>) -> anyhow::Result<()> {
    let stopwatch = Stopwatch::start();
    let mut pause = FIRST_PAUSE;
    loop {
        let job: Answer = session.client.get(&["jobs", &target.id], &target.query()).await?;
        let state = job["state"].as_str().and_then(|state| state.parse::<State>().ok());
        let state = state.context("the server returned a job state that this program does not know")?;
        if state.is_final() {
            session.out.answer_with(&FIRST, &job)?;
            ensure!(
                state == State::Succeeded,
                "the job is {state}; for details, run: carillon job attempts {}",
                target.id
            );
            return Ok(());
        }
        let left = timeout.map(|timeout| timeout.saturating_sub(stopwatch.elapsed()));
        if left.is_some_and(|left| left.is_zero()) {
            bail!("timed out: the job is still {state}");
        }
        tokio::time::sleep(left.map_or(pause, |left| left.min(pause))).await;
        pause = (pause * 2).min(MAX_PAUSE);
    }
}

async fn act(session: &Session, target: &Target, verb: &str, body: &Value) -> anyhow::Result<()> {
    let job = session.client.post_to(&["jobs", &target.id, verb], &target.query(), body).await?;
    let text = |field: &str| job[field].as_str().unwrap_or_default().to_owned();
    session.done(&job, &format!("{}: {}, due {}", text("id"), text("state"), text("run_at")))
}

/// Cancels jobs one after the other, and stops at the first that cannot be cancelled.
async fn cancel(session: &Session, ids: Vec<String>, group: Option<String>) -> anyhow::Result<()> {
    for id in ids {
        let target = Target { id, group: group.clone() };
        let job = session.client.delete_from(&["jobs", &target.id], &target.query()).await;
        let job = job.with_context(|| format!("`{}` cannot be cancelled", target.id))?;
        let state = job["state"].as_str().unwrap_or("cancelled");
        session.done(&job, &format!("{}: {state}", target.id))?;
    }
    Ok(())
}
