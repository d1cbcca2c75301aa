//! What is kept of an attempt.

use std::borrow::Cow;
use std::str::FromStr;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::State;
use crate::clock::UnixMs;

/// What an answer was judged to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// The job is done.
    Success,
    /// Another try may help.
    Retryable,
    /// No further try can help.
    Permanent,
}

impl Outcome {
    /// The name in the API and in the store.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Retryable => "retryable",
            Self::Permanent => "permanent",
        }
    }
}

impl FromStr for Outcome {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        [Self::Success, Self::Retryable, Self::Permanent]
            .into_iter()
            .find(|outcome| outcome.as_str() == text)
            .ok_or_else(|| format!("`{text}` is not an outcome"))
    }
}

/// What is said of a record that the store refuses.
const REFUSED: &str = "the details of this attempt could not be stored";

/// An earlier attempt, as a retry policy sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Past {
    /// From 1.
    pub number: u32,
    /// When it began.
    pub started_at: UnixMs,
    /// When it was over.
    pub finished_at: UnixMs,
    /// What it came to.
    pub outcome: Outcome,
    /// The answer's status, if there was an answer.
    pub status: Option<u16>,
}

/// Everything that is kept of an attempt.
#[derive(Clone, Debug, PartialEq)]
pub struct AttemptRecord {
    /// From 1.
    pub number: u32,
    /// When it began.
    pub started_at: UnixMs,
    /// When it was over.
    pub finished_at: UnixMs,
    /// What it came to; an attempt that was not spent is `Retryable`.
    pub outcome: Outcome,
    /// The answer's status, if there was an answer.
    pub status: Option<u16>,
    /// The first bytes of the answer's body.
    pub response_body: Bytes,
    /// The rest, which only people and tools read.
    pub detail: AttemptDetail,
}

impl AttemptRecord {
    /// What is kept of it where the store refuses the whole of it for `reason`.
    #[must_use]
    pub fn reduced(&self, reason: &str) -> Self {
        let detail = &self.detail;
        let decision =
            detail.decision.as_ref().map(|decision| DecisionRecord { reason: REFUSED.to_owned(), ..decision.clone() });
        let message = format!("{REFUSED}: {}", reason.replace('\0', "\u{fffd}"));
        Self {
            response_body: Bytes::new(),
            detail: AttemptDetail {
                spent: detail.spent,
                error: Some(AttemptError { code: "attempt.record_refused".to_owned(), message }),
                decision,
                timings: detail.timings,
                seed: detail.seed,
                binding_version: detail.binding_version,
                ..AttemptDetail::default()
            },
            ..*self
        }
    }

    /// What a retry policy is shown of it.
    #[must_use]
    pub fn past(&self) -> Past {
        let Self { number, started_at, finished_at, outcome, status, .. } = *self;
        Past { number, started_at, finished_at, outcome, status }
    }
}

/// The part of an attempt's record that is stored as one document.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct AttemptDetail {
    /// False if nothing was sent: the number is used again.
    pub spent: bool,
    /// The sha-256 of the request as sent: method, URL, headers (but those whose values are keys) and body. If it was redirected,
    /// of the first one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_digest: Option<String>,
    /// The URLs that it was sent on to, in order, without user info; the beginnings of very long ones.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub redirects: Vec<String>,
    /// What went wrong, if something did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<AttemptError>,
    /// What the judge said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<VerdictRecord>,
    /// What became of the job, and why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(ignore)]
    pub decision: Option<DecisionRecord>,
    /// Which component decided what, in the order of the calls.
    #[serde(default)]
    pub plugins: Vec<PluginUse>,
    /// How long each stage took.
    #[serde(default)]
    pub timings: Timings,
    /// The answer's headers; shown in another form.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(ignore)]
    pub response_headers: Vec<(String, String)>,
    /// Whether more of the body arrived than was kept.
    #[serde(default)]
    pub response_truncated: bool,
    /// The randomness that the policies were given.
    #[serde(default)]
    pub seed: u32,
    /// The version of the group's policy that decided.
    #[serde(default)]
    pub binding_version: i64,
    /// What its policies were told, as far as the rest does not say it. None if nothing was sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(ignore)]
    pub inputs: Option<Inputs>,
}

/// What the policies of an attempt were told that the rest of its record does not say: so it can be decided again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inputs {
    /// When it was due.
    pub run_at: UnixMs,
    /// When the answer was there: what the judge and the retry policy took for now.
    pub answered_at: UnixMs,
    /// Whether there was more of the body than the judge was shown.
    #[serde(default)]
    pub truncated: bool,
    /// What came instead of an answer: the code of the transport error, and its message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<AttemptError>,
}

/// Something that went wrong in an attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct AttemptError {
    /// Stable, for programs: `stage.reason`.
    pub code: String,
    /// One sentence for people.
    pub message: String,
}

/// What a judge said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct VerdictRecord {
    /// What it was judged to be.
    pub outcome: Outcome,
    /// Why.
    pub reason: String,
}

/// What became of the job after the attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DecisionRecord {
    /// The state that the job went to.
    pub state: State,
    /// When the next attempt is due, if there is one (RFC 3339 in the API, milliseconds in the store).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_run_at: Option<UnixMs>,
    /// Why.
    pub reason: String,
}

impl AttemptDetail {
    /// Whether the judge saw more of the answer's body than was kept.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        self.response_truncated && self.inputs.as_ref().is_some_and(|inputs| !inputs.truncated)
    }
}

/// One policy call of an attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct PluginUse {
    /// `encode`, `sign`, `judge` or `retry`.
    #[schema(value_type = String)]
    pub role: Cow<'static, str>,
    /// The plugin's name, with its version if it is not one of the server's own: `name@version`.
    #[schema(value_type = String)]
    pub plugin: Arc<str>,
    /// The sha-256 of the component.
    #[schema(value_type = String)]
    pub digest: Arc<str>,
    /// The sha-256 of the config that it was given.
    #[schema(value_type = String)]
    pub config_digest: Arc<str>,
    /// How long the call took, in microseconds.
    pub micros: u64,
    /// How much fuel it burned.
    pub fuel: u64,
    /// What it logged.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub log: Vec<String>,
    /// The fault's code, if it did not answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
}

/// How long the stages of an attempt took, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Timings {
    /// From `run_at` to the start of the attempt; where its request was ready before, to when it was sent.
    pub late: u64,
    /// Encode and sign, with the wait for a policy thread. Of a job that is on time, this is over before it is due.
    pub prepare: u64,
    /// From the start of the request to the end of the answer's body.
    pub exchange: u64,
    /// The part of `exchange` in which connections were opened: names, sockets and TLS. 0 where an open one could be used.
    #[serde(default)]
    pub connect: u64,
    /// Judge and retry, with the wait for a policy thread.
    pub decide: u64,
}
