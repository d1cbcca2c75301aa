//! `carillon schedule`: makes jobs again and again.

use std::path::PathBuf;

use clap::Subcommand;
use serde_json::{Value, json};

use super::{Paging, Session, input};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Create a schedule, or replace it.
    Put {
        /// The schedule's name.
        name: String,
        /// What it is, in JSON or TOML: at least `group`, `cron` and `job`; `-` is standard input.
        #[arg(short, long)]
        file: PathBuf,
    },
    /// Show a schedule.
    Get {
        /// The schedule's name.
        name: String,
    },
    /// List the schedules.
    List {
        #[command(flatten)]
        paging: Paging,
    },
    /// List what became of the schedule's runs, newest first.
    History {
        /// The schedule's name.
        name: String,
        #[command(flatten)]
        paging: Paging,
    },
    /// Delete a schedule. The jobs that it has made stay.
    Delete {
        /// The schedule's name.
        name: String,
    },
    /// Make no jobs until the schedule is resumed.
    Pause {
        /// The schedule's name.
        name: String,
    },
    /// Make jobs again, from now on.
    Resume {
        /// The schedule's name.
        name: String,
    },
    /// Make one of its jobs now.
    Run {
        /// The schedule's name.
        name: String,
    },
    /// Make the jobs of a range of the past that were not made then.
    Backfill {
        /// The schedule's name.
        name: String,
        /// Where the range begins: RFC 3339, or seconds since 1970.
        #[arg(long, value_name = "TIME")]
        from: String,
        /// Where it ends.
        #[arg(long, value_name = "TIME")]
        to: String,
    },
    /// Print when the schedule runs next, at most ten times.
    Next {
        /// The schedule's name.
        name: String,
    },
}

const LIST: [(&str, &str); 8] = [
    ("NAME", "/name"),
    ("GROUP", "/group"),
    ("CRON", "/cron"),
    ("TIME ZONE", "/time_zone"),
    ("PAUSED", "/paused"),
    ("RUNS", "/runs"),
    ("LAST RUN", "/last_run"),
    ("NEXT RUN", "/next_runs/0"),
];

const HISTORY: [(&str, &str); 5] =
    [("RUN", "/tick"), ("JOB", "/job"), ("SKIPPED", "/skipped"), ("COUNT", "/count"), ("REASON", "/reason")];

impl Command {
    pub(super) async fn run(self, session: &Session) -> anyhow::Result<()> {
        let client = &session.client;
        match self {
            Self::Put { name, file } => {
                let stored: Value = client.put(&["schedules", &name], &input::document(&file)?).await?;
                let next = stored.pointer("/next_runs/0").and_then(Value::as_str).unwrap_or("never");
                session.done(&stored, &format!("{name}: stored, runs next: {next}"))
            }
            Self::Get { name } => {
                let schedule: Value = client.get(&["schedules", &name], &[]).await?;
                session.out.answer(&schedule)
            }
            Self::List { paging } => session.list(&["schedules"], Vec::new(), &paging, &LIST).await,
            Self::History { name, paging } => {
                session.list(&["schedules", &name, "history"], Vec::new(), &paging, &HISTORY).await
            }
            Self::Delete { name } => {
                session.done(&client.delete(&["schedules", &name]).await?, &format!("{name}: deleted"))
            }
            Self::Pause { name } => {
                session.done(&client.act(&["schedules", &name, "pause"]).await?, &format!("{name}: paused"))
            }
            Self::Resume { name } => {
                session.done(&client.act(&["schedules", &name, "resume"]).await?, &format!("{name}: resumed"))
            }
            Self::Run { name } => {
                let job = client.act(&["schedules", &name, "run"]).await?;
                let id = job["id"].as_str().unwrap_or_default().to_owned();
                session.done(&job, &id)
            }
            Self::Backfill { name, from, to } => {
                let range = json!({"from": input::time(&from), "to": input::time(&to)});
                let done: Value = client.post(&["schedules", &name, "backfill"], &range).await?;
                let text = format!("{name}: {} of {} runs made up for", done["created"], done["ticks"]);
                session.done(&done, &text)
            }
            Self::Next { name } => {
                let schedule: Value = client.get(&["schedules", &name], &[]).await?;
                if session.out.is_json() {
                    return session.out.json(&schedule["next_runs"]);
                }
                let runs = schedule["next_runs"].as_array().into_iter().flatten().filter_map(Value::as_str);
                runs.into_iter().try_for_each(|run| session.out.line(run))
            }
        }
    }
}
