//! Arguments of a call as JSON. The form is for people: absent members have defaults, and a text stands for its bytes.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use super::NotACase;
use crate::{
    Attempt, Attribute, Event, Exchange, Header, JudgedOutcome, Past, Request, Response, TransportError, Verdict,
};
use carillon_core::clock::UnixMs;

/// Arguments of a call. Each role reads its own part.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Input {
    attempt: AttemptInput,
    request: RequestInput,
    response: Option<ResponseInput>,
    error: Option<ErrorInput>,
    verdict: VerdictInput,
    history: Vec<PastInput>,
    events: Vec<EventInput>,
}

impl Input {
    /// Returns the attempt; its time is `now` unless the attempt states one.
    pub(super) fn attempt(&mut self, now: UnixMs) -> Attempt {
        std::mem::take(&mut self.attempt).attempt(now)
    }

    pub(super) fn request(self) -> Result<Request, NotACase> {
        self.request.request()
    }

    pub(super) fn exchange(self) -> Result<Exchange, NotACase> {
        exchange(self.response, self.error)
    }

    pub(super) fn verdict(&mut self) -> (Verdict, Vec<Past>) {
        let VerdictInput { outcome, reason } = std::mem::take(&mut self.verdict);
        (Verdict { outcome: outcome.outcome(), reason }, self.history.iter().map(PastInput::past).collect())
    }

    pub(super) fn events(self) -> Vec<Event> {
        self.events.into_iter().map(EventInput::event).collect()
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct AttemptInput {
    job_id: String,
    group: String,
    number: u32,
    run_at_ms: Option<u64>,
    now_ms: Option<u64>,
    created_ms: Option<u64>,
    deadline_ms: Option<u64>,
    seed: u32,
    attributes: BTreeMap<String, String>,
}

impl Default for AttemptInput {
    fn default() -> Self {
        Self {
            job_id: uuid::Uuid::nil().to_string(),
            group: "local".to_owned(),
            number: 1,
            run_at_ms: None,
            now_ms: None,
            created_ms: None,
            deadline_ms: None,
            seed: 0,
            attributes: BTreeMap::new(),
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RequestInput {
    method: String,
    url: String,
    headers: HeadersInput,
    body: String,
    body_base64: Option<String>,
}

impl Default for RequestInput {
    fn default() -> Self {
        Self {
            method: "POST".to_owned(),
            url: "https://example.com/".to_owned(),
            headers: HeadersInput::default(),
            body: String::new(),
            body_base64: None,
        }
    }
}

/// Values by name, or a list of pairs in which a name may occur more than once.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum HeadersInput {
    Named(BTreeMap<String, String>),
    Pairs(Vec<(String, String)>),
}

impl Default for HeadersInput {
    fn default() -> Self {
        Self::Pairs(Vec::new())
    }
}

impl HeadersInput {
    fn headers(self) -> Vec<Header> {
        let pairs = match self {
            Self::Named(named) => named.into_iter().collect(),
            Self::Pairs(pairs) => pairs,
        };
        pairs.into_iter().map(|(name, value)| Header { name, value: value.into_bytes() }).collect()
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ResponseInput {
    status: u16,
    #[serde(default)]
    headers: HeadersInput,
    #[serde(default)]
    body: String,
    body_base64: Option<String>,
    #[serde(default)]
    truncated: bool,
    #[serde(default)]
    elapsed_ms: u32,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ErrorInput {
    code: String,
    #[serde(default)]
    message: String,
    #[serde(default)]
    elapsed_ms: u32,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum OutcomeInput {
    Success,
    #[default]
    Retryable,
    Permanent,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct VerdictInput {
    outcome: OutcomeInput,
    reason: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PastInput {
    number: u32,
    started_ms: u64,
    finished_ms: u64,
    outcome: OutcomeInput,
    status: Option<u16>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct EventInput {
    id: u64,
    kind: String,
    at_ms: u64,
    group: String,
    job_id: String,
    #[serde(default)]
    attributes: BTreeMap<String, String>,
}

fn exchange(response: Option<ResponseInput>, error: Option<ErrorInput>) -> Result<Exchange, NotACase> {
    match (response, error) {
        (Some(response), None) => Ok(Exchange::Response(Response {
            status: response.status,
            headers: response.headers.headers(),
            body: body(response.body, response.body_base64.as_deref())?,
            truncated: response.truncated,
            elapsed_ms: response.elapsed_ms,
        })),
        (None, Some(error)) => Ok(Exchange::TransportError(TransportError {
            code: error.code,
            message: error.message,
            elapsed_ms: error.elapsed_ms,
        })),
        _ => Err(NotACase("a judge is shown either a `response` or an `error`".to_owned())),
    }
}

fn body(text: String, base64: Option<&str>) -> Result<Vec<u8>, NotACase> {
    let decode =
        |base64| STANDARD.decode(base64).map_err(|error| NotACase(format!("`body_base64` is not base64: {error}")));
    base64.map_or(Ok(text.into_bytes()), decode)
}

fn attributes(attributes: BTreeMap<String, String>) -> Vec<Attribute> {
    attributes.into_iter().map(|(key, value)| Attribute { key, value }).collect()
}

impl AttemptInput {
    fn attempt(self, now: UnixMs) -> Attempt {
        let now_ms = self.now_ms.unwrap_or_else(|| now.as_u64());
        Attempt {
            job_id: self.job_id,
            group: self.group,
            number: self.number,
            run_at_ms: self.run_at_ms.unwrap_or(now_ms),
            now_ms,
            created_ms: self.created_ms.unwrap_or(now_ms),
            deadline_ms: self.deadline_ms,
            seed: self.seed,
            attributes: attributes(self.attributes),
        }
    }
}

impl RequestInput {
    fn request(self) -> Result<Request, NotACase> {
        let body = body(self.body, self.body_base64.as_deref())?;
        Ok(Request { method: self.method, url: self.url, headers: self.headers.headers(), body })
    }
}

impl OutcomeInput {
    fn outcome(self) -> JudgedOutcome {
        match self {
            Self::Success => JudgedOutcome::Success,
            Self::Retryable => JudgedOutcome::Retryable,
            Self::Permanent => JudgedOutcome::Permanent,
        }
    }
}

impl PastInput {
    fn past(&self) -> Past {
        Past {
            number: self.number,
            started_ms: self.started_ms,
            finished_ms: self.finished_ms,
            outcome: self.outcome.outcome(),
            status: self.status,
        }
    }
}

impl EventInput {
    fn event(self) -> Event {
        Event {
            id: self.id,
            kind: self.kind,
            at_ms: self.at_ms,
            group: self.group,
            job_id: self.job_id,
            attributes: attributes(self.attributes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_may_come_more_than_once() {
        let names = |headers: &str| {
            let input: Input = serde_json::from_str(&format!(r#"{{"request": {{"headers": {headers}}}}}"#)).unwrap();
            input.request().unwrap().headers.into_iter().map(|header| header.name).collect::<Vec<_>>()
        };
        assert_eq!(names(r#"[["X-A", "1"], ["X-A", "2"]]"#), ["X-A", "X-A"]);
        assert_eq!(names(r#"{"X-B": "1", "X-A": "2"}"#), ["X-A", "X-B"]);
    }

    #[test]
    fn a_judge_is_shown_one_thing() {
        let input: Input = serde_json::from_str("{}").unwrap();
        assert!(input.exchange().unwrap_err().to_string().contains("either"));
        assert!(serde_json::from_str::<Input>(r#"{"respond": {}}"#).is_err());
    }
}
