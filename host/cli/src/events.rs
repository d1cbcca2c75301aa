//! `carillon events`: follows the events, and reconnects when the connection breaks.

use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use reqwest::Response;
use serde_json::Value;

use super::Session;
use carillon_client::ClientError;
use carillon_client::answer::Answer;
use carillon_core::event_kind::EventKind;

/// Silence after which the connection counts as broken: the server sends something every 15 s.
const SILENCE: Duration = Duration::from_secs(45);

/// Pause before reconnecting.
const PAUSE: Duration = Duration::from_secs(1);

/// Maximum length of a line of a stream, in bytes.
const LINE_LEN: usize = 1 << 20;

/// Fields that a line shows without their names, in this order; other fields follow with their names.
const COLUMNS: [&str; 4] = ["at", "kind", "group", "job"];

/// Fields that follow with their names.
const DETAILS: [&str; 11] =
    ["name", "attempt", "status", "error", "run_at", "count", "schedule", "origin", "binding", "reason", "metadata"];

#[derive(Debug, Args)]
pub struct Events {
    /// Only events of this group.
    #[arg(long)]
    group: Option<String>,
    /// Only events of these kinds, separated by commas: push, pop, complete, retry, error, …
    #[arg(long, value_name = "KINDS", value_delimiter = ',')]
    kind: Vec<EventKind>,
    /// Only events of this job.
    #[arg(long, value_name = "ID")]
    job: Option<String>,
    /// Start after the event with this id, if the server still has it.
    #[arg(long, value_name = "ID")]
    since: Option<u64>,
    /// Stop after this number of events.
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
}

impl Events {
    pub(super) async fn run(self, session: &Session) -> anyhow::Result<()> {
        let kinds = self.kind.iter().map(|kind| kind.as_str()).collect::<Vec<_>>().join(",");
        let kinds = Some(kinds).filter(|kinds| !kinds.is_empty());
        let query = [("group", self.group), ("kind", kinds), ("job", self.job)];
        let query: Vec<_> = query.into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
        let mut follower =
            Follower { session, left: self.limit.unwrap_or(u64::MAX), seen: self.since.map(|id| id.to_string()) };
        let mut response = session.client.open(&["events"], &query, follower.seen.as_deref()).await?;
        loop {
            let broken = match follower.follow(response).await {
                Ok(()) => return Ok(()),
                Err(Stopped::Failed(error)) => return Err(error),
                Err(Stopped::Broken(reason)) => reason,
            };
            session.out.note(&format!("the event stream was interrupted ({broken}), reconnecting"))?;
            response = loop {
                tokio::time::sleep(PAUSE).await;
                match session.client.open(&["events"], &query, follower.seen.as_deref()).await {
                    Ok(response) => break response,
                    Err(ClientError::Refused(problem)) if problem.status < 500 => {
                        return Err(ClientError::Refused(problem).into());
                    }
                    Err(_) => {}
                }
            };
        }
    }
}

/// Reason why a stream is not read any further.
enum Stopped {
    /// The connection is broken.
    Broken(String),
    /// The output cannot be written.
    Failed(anyhow::Error),
}

struct Follower<'a> {
    session: &'a Session,
    left: u64,
    seen: Option<String>,
}

impl Follower<'_> {
    /// Prints events until the requested number is reached.
    async fn follow(&mut self, mut response: Response) -> Result<(), Stopped> {
        let mut parser = Parser::default();
        while self.left > 0 {
            let chunk = match tokio::time::timeout(SILENCE, response.chunk()).await {
                Err(_) => return Err(Stopped::Broken(format!("no data for {} s", SILENCE.as_secs()))),
                Ok(Err(error)) => return Err(Stopped::Broken(error.without_url().to_string())),
                Ok(Ok(None)) => return Err(Stopped::Broken("the server closed it".to_owned())),
                Ok(Ok(Some(chunk))) => chunk,
            };
            for message in parser.feed(&chunk).map_err(Stopped::Failed)? {
                if self.left > 0 {
                    self.take(message).map_err(Stopped::Failed)?;
                }
            }
        }
        Ok(())
    }

    fn take(&mut self, message: Message) -> anyhow::Result<()> {
        if !message.data.is_empty() {
            let event: Answer =
                serde_json::from_str(&message.data).context("the server sent data that is not an event")?;
            let out = self.session.out;
            if out.is_json() {
                out.json_line(&event)?
            } else {
                out.line(&line(&event))?
            }
            self.left -= 1;
        }
        self.seen = message.id.or(self.seen.take());
        Ok(())
    }
}

/// Formats an event as one line, for people.
fn line(event: &Value) -> String {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let columns = COLUMNS.iter().filter_map(|name| event.get(name)).map(text);
    let details = DETAILS.iter().filter_map(|name| {
        let value = event.get(name)?;
        Some(if *name == "reason" { format!("({})", text(value)) } else { format!("{name}={}", text(value)) })
    });
    columns.chain(details).collect::<Vec<_>>().join(" ")
}

/// Message of a stream.
#[derive(Debug, Default, PartialEq, Eq)]
struct Message {
    id: Option<String>,
    data: String,
}

/// Parser of the format of event streams (the HTML standard, section 9.2.6), as far as this server uses it.
#[derive(Default)]
struct Parser {
    line: Vec<u8>,
    message: Message,
}

impl Parser {
    /// Returns the messages that are complete with these bytes.
    fn feed(&mut self, bytes: &[u8]) -> anyhow::Result<Vec<Message>> {
        let mut messages = Vec::new();
        for byte in bytes {
            if *byte != b'\n' {
                anyhow::ensure!(self.line.len() < LINE_LEN, "the server sent a line of more than {LINE_LEN} bytes");
                self.line.push(*byte);
                continue;
            }
            let line = String::from_utf8_lossy(&std::mem::take(&mut self.line)).into_owned();
            match line.trim_end_matches('\r').split_once(':') {
                Some(("id", id)) => self.message.id = Some(id.strip_prefix(' ').unwrap_or(id).to_owned()),
                Some(("data", data)) => self.message.data.push_str(data.strip_prefix(' ').unwrap_or(data)),
                Some(_) => {}
                None => messages.extend(Some(std::mem::take(&mut self.message)).filter(|it| *it != Message::default())),
            }
        }
        Ok(messages)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn streams_are_read_in_any_pieces() {
        let text = b": hello\nid: 1\n\nid: 2\nevent: push\ndata: {\"a\": \"b:c\"}\n\n: still here\n\n";
        for size in 1..text.len() {
            let (mut parser, mut found) = (Parser::default(), Vec::new());
            text.chunks(size).for_each(|piece| found.extend(parser.feed(piece).unwrap()));
            let message = |id: &str, data: &str| Message { id: Some(id.to_owned()), data: data.to_owned() };
            assert_eq!(found, [message("1", ""), message("2", r#"{"a": "b:c"}"#)], "pieces of {size}");
        }
    }

    #[test]
    fn an_event_is_one_line() {
        let event = json!({
            "at": "2026-11-20T10:00:00.000Z", "kind": "retry", "id": "7", "group": "g", "job": "j", "attempt": 1, "status": 503,
            "reason": "because", "metadata": {"k": "v"},
        });
        assert_eq!(
            line(&event),
            r#"2026-11-20T10:00:00.000Z retry g j attempt=1 status=503 (because) metadata={"k":"v"}"#
        );
    }
}
