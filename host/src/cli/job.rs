//! `carillon job`: schedules jobs and follows them.

use std::path::PathBuf;

use anyhow::Context;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::{Args, Subcommand};
use serde_json::{Map, Value};

use super::client::{JobInput, Payload};
use super::{Paging, Session, batch, input};
use crate::job::State;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Schedule a callback.
    Create {
        /// The group whose policy and limits apply.
        group: String,
        #[command(flatten)]
        job: Box<JobArgs>,
    },
    /// Schedule many callbacks from a file with a job in JSON to a line.
    Batch(batch::Batch),
    /// Show a job.
    Get {
        /// The job's id.
        id: String,
    },
    /// List the jobs of a group.
    List {
        /// The group.
        group: String,
        /// Only jobs in this state.
        #[arg(long)]
        state: Option<State>,
        /// Only jobs of this name.
        #[arg(long)]
        name: Option<String>,
        #[command(flatten)]
        paging: Paging,
    },
    /// Cancel jobs that are not finished.
    Cancel {
        /// The jobs' ids.
        #[arg(required = true)]
        ids: Vec<String>,
    },
    /// List what was tried for a job, and what came of it.
    Attempts {
        /// The job's id.
        id: String,
        #[command(flatten)]
        paging: Paging,
    },
}

/// A job, as flags.
#[derive(Debug, Args)]
pub(super) struct JobArgs {
    /// Where the callback goes.
    url: String,
    /// The HTTP method; the server's default is POST.
    #[arg(short = 'X', long)]
    method: Option<String>,
    /// A header, `Name: value`. Can be repeated.
    #[arg(short = 'H', long = "header", value_name = "HEADER", value_parser = input::header)]
    headers: Vec<(String, String)>,
    #[command(flatten)]
    payload: PayloadArgs,
    /// When: RFC 3339, `+90s`, or seconds since 1970; at once if it is not said.
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    run_at: Option<String>,
    /// A name of your own for it.
    #[arg(long)]
    name: Option<String>,
    /// A label, `KEY=VALUE`. Can be repeated.
    #[arg(short, long, value_name = "LABEL", value_parser = input::pair)]
    metadata: Vec<(String, String)>,
    /// Labels as a JSON object of texts, or of namespaces of texts: `{"billing": {"invoice": "17"}}`.
    #[arg(long, value_name = "JSON", value_parser = input::json_object)]
    metadata_json: Option<Value>,
    /// Send each label as a header `Carillon-Metadata-<Key>`.
    #[arg(long)]
    metadata_headers: bool,
    /// Overrides of the group's policy, as JSON: `{"retry": {"max_attempts": 3}}`.
    #[arg(long, value_name = "JSON", value_parser = input::json_object)]
    policy: Option<Value>,
}

/// A job's body, in one of three forms.
#[derive(Debug, Args)]
#[group(multiple = false)]
struct PayloadArgs {
    /// The body, as JSON.
    #[arg(short = 'd', long, value_name = "JSON", value_parser = input::json)]
    payload: Option<Value>,
    /// The body, as text.
    #[arg(long, value_name = "TEXT")]
    payload_text: Option<String>,
    /// The body: the bytes of a file, or of standard input for `-`.
    #[arg(long, value_name = "FILE")]
    payload_file: Option<PathBuf>,
}

impl JobArgs {
    /// The job that the flags describe.
    pub(super) fn input(self) -> anyhow::Result<JobInput> {
        let mut metadata = match self.metadata_json {
            Some(Value::Object(labels)) => labels,
            _ => Map::new(),
        };
        metadata.extend(self.metadata.into_iter().map(|(key, value)| (key, Value::String(value))));
        Ok(JobInput {
            url: self.url,
            method: self.method,
            headers: self.headers.into_iter().collect(),
            payload: self.payload.read()?,
            run_at: self.run_at.as_deref().map(input::time),
            name: self.name,
            metadata,
            metadata_headers: self.metadata_headers,
            policy: self.policy,
        })
    }
}

impl PayloadArgs {
    fn read(self) -> anyhow::Result<Option<Payload>> {
        if let Some(path) = self.payload_file {
            return Ok(Some(Payload::Base64(STANDARD.encode(input::bytes(&path)?))));
        }
        Ok(self.payload.map(Payload::Json).or_else(|| self.payload_text.map(Payload::Text)))
    }
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

const ATTEMPTS: [(&str, &str); 8] = [
    ("ATTEMPT", "/number"),
    ("STARTED", "/started_at"),
    ("STATUS", "/status"),
    ("ERROR", "/error/code"),
    ("VERDICT", "/verdict/outcome"),
    ("THEN", "/decision/state"),
    ("NEXT", "/decision/next_run_at"),
    ("REASON", "/decision/reason"),
];

impl Command {
    pub(super) async fn run(self, session: &Session) -> anyhow::Result<()> {
        match self {
            Self::Create { group, job } => create(session, &group, *job).await,
            Self::Batch(batch) => batch.run(session).await,
            Self::Get { id } => {
                let job: Value = session.client.get(&["jobs", &id], &[]).await?;
                session.out.answer(&job)
            }
            Self::List { group, state, name, paging } => {
                let state = state.map(|state| ("state", state.to_string()));
                let query = state.into_iter().chain(name.map(|name| ("name", name))).collect();
                session.list(&["groups", &group, "jobs"], query, &paging, &LIST).await
            }
            Self::Cancel { ids } => cancel(session, &ids).await,
            Self::Attempts { id, paging } => {
                session.list(&["jobs", &id, "attempts"], Vec::new(), &paging, &ATTEMPTS).await
            }
        }
    }
}

async fn create(session: &Session, group: &str, job: JobArgs) -> anyhow::Result<()> {
    let created: Value = session.client.post(&["groups", group, "jobs"], &job.input()?).await?;
    session.out.answer(&created)
}

/// Cancels one after the other and stops at the first that cannot be.
async fn cancel(session: &Session, ids: &[String]) -> anyhow::Result<()> {
    for id in ids {
        let job = session.client.delete(&["jobs", id]).await.with_context(|| format!("{id} is not cancelled"))?;
        let state = job["state"].as_str().unwrap_or("cancelled");
        session.done(&job, &format!("{id}: {state}"))?;
    }
    Ok(())
}
