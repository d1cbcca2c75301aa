//! `carillon job batch`: schedules many jobs from a file, with a progress bar.

use std::fs::File;
use std::io::{BufRead, BufReader, stdin};
use std::ops::RangeInclusive;
use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use serde_json::value::RawValue;

use super::{Session, input};

/// A batch is sent before its lines exceed this size, so that it stays below the server's limit on a body.
const BATCH_BYTES: usize = 8 << 20;

#[derive(Debug, Args)]
pub struct Batch {
    /// Group of the jobs.
    group: String,
    /// File with one JSON job per line, in the form of the API; `-` reads standard input.
    #[arg(default_value = input::STDIN)]
    file: PathBuf,
    /// Maximum number of jobs in one request, which is accepted as a whole or not at all.
    #[arg(long, default_value_t = 1000, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    size: u16,
}

/// Jobs that are sent together.
#[derive(Default)]
struct Chunk {
    jobs: Vec<Box<RawValue>>,
    bytes: usize,
    first_line: usize,
    last_line: usize,
}

impl Chunk {
    fn push(&mut self, line: usize, job: Box<RawValue>) {
        if self.jobs.is_empty() {
            self.first_line = line;
        }
        self.last_line = line;
        self.bytes += job.get().len();
        self.jobs.push(job);
    }

    fn lines(&self) -> RangeInclusive<usize> {
        self.first_line..=self.last_line
    }
}

/// Sends chunks and records their results.
struct Sender<'a> {
    session: &'a Session,
    group: &'a str,
    bar: &'a ProgressBar,
    ids: Vec<String>,
}

impl Sender<'_> {
    async fn send(&mut self, chunk: &mut Chunk) -> anyhow::Result<()> {
        let chunk = std::mem::take(chunk);
        if chunk.jobs.is_empty() {
            return Ok(());
        }
        let sent = self.session.client.create_jobs(self.group, &chunk.jobs).await;
        let lines = chunk.lines();
        self.ids.extend(
            sent.with_context(|| format!("the jobs of lines {} to {} were not accepted", lines.start(), lines.end()))?,
        );
        self.bar.set_message(format!("{} jobs", self.ids.len()));
        Ok(())
    }
}

impl Batch {
    pub(super) async fn run(self, session: &Session) -> anyhow::Result<()> {
        let (lines, bar) = self.open()?;
        let mut sender = Sender { session, group: &self.group, bar: &bar, ids: Vec::new() };
        let sent = self.send(lines, &mut sender).await;
        bar.finish_and_clear();
        // Jobs that were accepted before a failure stay accepted, so their ids are printed in either case.
        let (count, ids) = (sender.ids.len(), json!({ "ids": sender.ids }));
        session.done(&ids, &format!("{count} jobs accepted"))?;
        sent
    }

    fn open(&self) -> anyhow::Result<(Box<dyn BufRead>, ProgressBar)> {
        if self.file.as_os_str() == input::STDIN {
            let bar =
                ProgressBar::new_spinner().with_style(ProgressStyle::with_template("{spinner} {msg} in {elapsed}")?);
            return Ok((Box::new(BufReader::new(stdin())), bar));
        }
        let unreadable = || format!("{} cannot be read", self.file.display());
        let file = File::open(&self.file).with_context(unreadable)?;
        let length = file.metadata().with_context(unreadable)?.len();
        let style = ProgressStyle::with_template("{wide_bar} {percent}% {msg}, {eta} left")?;
        Ok((Box::new(BufReader::new(file)), ProgressBar::new(length).with_style(style)))
    }

    async fn send(&self, lines: Box<dyn BufRead>, sender: &mut Sender<'_>) -> anyhow::Result<()> {
        let mut chunk = Chunk::default();
        for (number, line) in (1..).zip(lines.lines()) {
            let line = line.with_context(|| format!("line {number} cannot be read"))?;
            sender.bar.inc(line.len() as u64 + 1);
            if line.trim().is_empty() {
                continue;
            }
            let job = match RawValue::from_string(line) {
                Ok(job) if job.get().starts_with('{') => job,
                Ok(_) => bail!("line {number} is not a JSON object"),
                Err(error) => bail!("line {number} is not JSON: {error}"),
            };
            if chunk.bytes + job.get().len() > BATCH_BYTES {
                sender.send(&mut chunk).await?;
            }
            chunk.push(number, job);
            if chunk.jobs.len() == usize::from(self.size) {
                sender.send(&mut chunk).await?;
            }
        }
        sender.send(&mut chunk).await
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use axum::http::StatusCode;
    use axum::routing::post;
    use axum::{Json, Router};
    use serde_json::Value;

    use super::super::output::Output;
    use super::*;
    use carillon_client::Client;

    /// Accepts batches without a job named `bad`.
    async fn accept(Json(body): Json<Value>) -> (StatusCode, Json<Value>) {
        let names: Vec<Value> = body["jobs"].as_array().unwrap().iter().map(|job| job["name"].clone()).collect();
        if names.contains(&json!("bad")) {
            return (StatusCode::UNPROCESSABLE_ENTITY, Json(json!({"title": "Invalid input", "detail": "bad job"})));
        }
        (StatusCode::CREATED, Json(json!({ "ids": names })))
    }

    /// Sends `lines` in batches of two; returns the ids of the accepted jobs and the error.
    async fn send(lines: &'static str) -> (Vec<String>, String) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = format!("http://{}", listener.local_addr().unwrap());
        let routes = Router::new().route("/v1/groups/g/jobs/batch", post(accept));
        tokio::spawn(async { axum::serve(listener, routes).await });

        let session = Session { client: Client::new(&server, None).unwrap(), out: Output::new(true) };
        let batch = Batch { group: "g".into(), file: "-".into(), size: 2 };
        let mut sender = Sender { session: &session, group: "g", bar: &ProgressBar::hidden(), ids: Vec::new() };
        let sent = batch.send(Box::new(Cursor::new(lines)), &mut sender).await;
        (sender.ids, sent.err().map(|error| format!("{error:#}")).unwrap_or_default())
    }

    #[tokio::test]
    async fn every_line_is_sent_once() {
        let (ids, error) = send("{\"name\": \"a\"}\n\n {\"name\": \"b\"}\n{\"name\": \"c\"}").await;
        assert_eq!((ids, error.as_str()), (vec!["a".into(), "b".into(), "c".into()], ""));
    }

    #[tokio::test]
    async fn a_refused_batch_is_told_by_its_lines_and_the_ones_before_it_count() {
        let (ids, error) =
            send("{\"name\": \"a\"}\n{\"name\": \"b\"}\n{\"name\": \"c\"}\n{\"name\": \"bad\"}\n{\"name\": \"d\"}")
                .await;
        assert_eq!(ids, ["a", "b"]);
        assert_eq!(error, "the jobs of lines 3 to 4 were not accepted: Invalid input: bad job");
        let (_, error) = send("{\"name\": \"a\"}\n{\"name").await;
        assert!(error.contains("line 2 is not JSON"), "{error}");
        assert!(send("[1]").await.1.contains("line 1 is not a JSON object"));
    }
}
