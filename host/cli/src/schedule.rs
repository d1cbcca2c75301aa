//! `carillon schedule`: manages schedules, which make jobs repeatedly.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::{Paging, Session, input};
use carillon_client::answer::{Answer, Members};
use carillon_client::bodies::{Headers, JobInput, Payload};

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Create a schedule, or change the given settings of it. A new schedule needs a group, a cron expression and a job.
    Put(Box<Put>),
    /// Show a schedule.
    Get {
        /// Name of the schedule.
        name: String,
    },
    /// List schedules.
    List {
        #[command(flatten)]
        paging: Paging,
    },
    /// List the runs of a schedule and their results, newest first.
    History {
        /// Name of the schedule.
        name: String,
        #[command(flatten)]
        paging: Paging,
    },
    /// Delete a schedule; the jobs that it created stay.
    Delete {
        /// Name of the schedule.
        name: String,
    },
    /// Pause a schedule: it creates no jobs until it is resumed.
    Pause {
        /// Name of the schedule.
        name: String,
    },
    /// Resume a schedule: it creates jobs again, from now on.
    Resume {
        /// Name of the schedule.
        name: String,
    },
    /// Create a job of a schedule now.
    Run {
        /// Name of the schedule.
        name: String,
    },
    /// Create the missing jobs of a time range in the past.
    Backfill {
        /// Name of the schedule.
        name: String,
        /// Start of the range: RFC 3339, or seconds since 1970.
        #[arg(long, value_name = "TIME")]
        from: String,
        /// End of the range.
        #[arg(long, value_name = "TIME")]
        to: String,
    },
    /// Print the next runs of a schedule or of a cron expression, in UTC and in its time zone.
    Next {
        /// Name of the schedule.
        #[arg(required_unless_present = "cron", conflicts_with = "cron")]
        name: Option<String>,
        /// Cron expression to evaluate instead of a schedule.
        #[arg(long, value_name = "EXPRESSION")]
        cron: Option<String>,
        /// Time zone of the expression: an IANA name.
        #[arg(long, value_name = "ZONE", requires = "cron")]
        time_zone: Option<String>,
        /// Earliest time of a run: RFC 3339, seconds since 1970, or an offset such as `+30d`. Default: now.
        #[arg(long, value_name = "TIME")]
        from: Option<String>,
        /// Number of runs, at most 1000.
        #[arg(short = 'n', long, default_value_t = 10, value_name = "N")]
        count: u32,
    },
}

/// Schedule, from a file, as flags, or both.
#[derive(Debug, Args)]
pub struct Put {
    /// Name of the schedule.
    name: String,
    /// File with the schedule or a part of it, in JSON or TOML; `-` reads standard input. Flags override the file.
    #[arg(short, long)]
    file: Option<PathBuf>,
    /// Replace the whole schedule: settings that are not given have their defaults.
    #[arg(long)]
    replace: bool,
    /// Group whose policy and limits apply to the jobs.
    #[arg(long)]
    group: Option<String>,
    /// Cron expression: `30 4 * * mon-fri`, `@hourly`, `@every 90s`.
    #[arg(long, value_name = "EXPRESSION")]
    cron: Option<String>,
    /// Time zone of the expression: an IANA name. Default: UTC.
    #[arg(long, value_name = "ZONE")]
    time_zone: Option<String>,
    /// URL of the jobs. This flag and the flags below replace the whole job.
    #[arg(long)]
    url: Option<String>,
    /// HTTP method of the jobs. Default: POST.
    #[arg(short = 'X', long, requires = "url")]
    method: Option<String>,
    /// Header of the jobs, `Name: value`. Can be repeated.
    #[arg(short = 'H', long = "header", value_name = "HEADER", value_parser = input::header, requires = "url")]
    headers: Vec<(String, String)>,
    /// Body of the jobs as JSON, sent byte for byte as written.
    #[arg(short = 'd', long, value_name = "JSON", value_parser = input::json, requires = "url")]
    payload: Option<Box<RawValue>>,
}

impl Put {
    /// Returns the members that the flags set.
    fn document(&self) -> anyhow::Result<Members> {
        let mut doc = self.file.as_ref().map_or_else(|| Ok(Members::default()), |file| input::document(file))?;
        for (name, value) in [("group", &self.group), ("cron", &self.cron), ("time_zone", &self.time_zone)] {
            value.as_ref().map_or(Ok(()), |value| doc.put(name, value))?;
        }
        if let Some(url) = &self.url {
            let job = JobInput {
                url: Some(url.clone()),
                method: self.method.clone(),
                headers: Headers(self.headers.clone()),
                payload: self.payload.clone().map(Payload::Json),
                ..JobInput::default()
            };
            doc.put("job", &job)?;
        }
        anyhow::ensure!(!doc.is_empty() || self.replace, "no setting of the schedule is given; see --help");
        Ok(doc)
    }
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
            Self::Put(put) => {
                let (name, doc) = (put.name.clone(), put.document()?);
                let stored = if put.replace {
                    client.put(&["schedules", &name], &doc).await?
                } else {
                    session.put_part(&["schedules", &name], &[], &doc).await?
                };
                let next = stored.pointer("/next_runs/0").and_then(Value::as_str).unwrap_or("never");
                session.changed(&stored, &format!("{name}: stored, runs next: {next}"))
            }
            Self::Get { name } => {
                let schedule: Answer = client.get(&["schedules", &name], &[]).await?;
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
                let done: Answer = client.post(&["schedules", &name, "backfill"], &range).await?;
                let text = format!("{name}: created jobs for {} of {} runs", done["created"], done["ticks"]);
                session.done(&done, &text)
            }
            Self::Next { name, cron, time_zone, from, count } => {
                let mut query = vec![("count", count.to_string())];
                let options = [("cron", cron), ("time_zone", time_zone), ("from", from)];
                query.extend(options.into_iter().filter_map(|(key, value)| Some((key, value?))));
                match name {
                    Some(name) => next_of_schedule(session, &name, &query).await,
                    None => print_runs(session, &client.get(&["cron", "runs"], &query).await?),
                }
            }
        }
    }
}

/// Prints the next runs of a schedule, or the reason why there is none.
async fn next_of_schedule(session: &Session, name: &str, query: &[(&str, String)]) -> anyhow::Result<()> {
    let runs: Value = session.client.get(&["schedules", name, "runs"], query).await?;
    if session.out.is_json() || runs["runs"].as_array().is_some_and(|runs| !runs.is_empty()) {
        return print_runs(session, &runs);
    }
    let schedule: Value = session.client.get(&["schedules", name], &[]).await?;
    if let Some(broken) = schedule["broken"].as_str() {
        return session.out.line(&format!("broken: {broken}"));
    }
    session.out.line(if schedule["paused"] == true { "paused" } else { "never" })
}

fn print_runs(session: &Session, view: &Value) -> anyhow::Result<()> {
    if session.out.is_json() {
        return session.out.json(&view["runs"]);
    }
    let zone = view["time_zone"].as_str().unwrap_or_default();
    let texts = |run: &Value| Some((run["at"].as_str()?.to_owned(), run["local"].as_str()?.to_owned()));
    let runs = view["runs"].as_array().into_iter().flatten().filter_map(texts);
    runs.into_iter().try_for_each(|(at, local)| session.out.line(&format!("{at}  {local}  {zone}")))
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(Debug, clap::Parser)]
    struct Line {
        #[command(flatten)]
        put: Put,
    }

    fn document(arguments: &[&str]) -> anyhow::Result<String> {
        let line = Line::try_parse_from([&["put", "report"], arguments].concat())?;
        Ok(serde_json::to_string(&line.put.document()?)?)
    }

    #[test]
    fn a_schedule_is_made_of_flags() {
        let flags =
            ["--group", "g", "--cron", "30 2 * * *", "--url", "http://x/", "-H", "X-A: 1", "-d", "{\"n\": 1.10}"];
        assert_eq!(
            document(&flags).unwrap(),
            r#"{"group":"g","cron":"30 2 * * *","job":{"url":"http://x/","headers":{"X-A":"1"},"payload":{"n": 1.10}}}"#
        );
        assert_eq!(document(&["--time-zone", "Europe/Berlin"]).unwrap(), r#"{"time_zone":"Europe/Berlin"}"#);
        assert!(document(&[]).is_err() && document(&["-d", "1"]).is_err());
    }
}
