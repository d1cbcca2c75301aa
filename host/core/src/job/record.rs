//! Records of attempts: the part that policies see, and the details for people and tools.

use std::borrow::Cow;
use std::str::FromStr;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::State;
use crate::clock::UnixMs;
use crate::error_code::ErrorCode;

/// Outcome of an attempt, as the judge decided it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// The job has succeeded.
    Success,
    /// The attempt failed, and another one may succeed.
    Retryable,
    /// The attempt failed, and no other one can succeed.
    Permanent,
}

impl Outcome {
    /// Returns the outcome's name in the API and in the store.
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

/// Message of the record that replaces one that the store refuses.
const REFUSED: &str = "the details of this attempt could not be stored";

/// An earlier attempt, as a retry policy sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Past {
    /// Number, from 1.
    pub number: u32,
    /// Time when the attempt began.
    pub started_at: UnixMs,
    /// Time when the attempt was over.
    pub finished_at: UnixMs,
    /// Result of the attempt.
    pub outcome: Outcome,
    /// Status of the response, if there was a response.
    pub status: Option<u16>,
}

/// Record of an attempt.
#[derive(Clone, Debug, PartialEq)]
pub struct AttemptRecord {
    /// Number, from 1.
    pub number: u32,
    /// Time when the attempt began.
    pub started_at: UnixMs,
    /// Time when the attempt was over.
    pub finished_at: UnixMs,
    /// Result of the attempt; an attempt that was not spent is `Retryable`.
    pub outcome: Outcome,
    /// Status of the response, if there was a response.
    pub status: Option<u16>,
    /// First bytes of the response's body.
    pub response_body: Bytes,
    /// Details, which only people and tools read.
    pub detail: AttemptDetail,
}

impl AttemptRecord {
    /// Returns the record to store instead, where the store refuses the whole record for `reason`.
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
                error: Some(AttemptError { code: ErrorCode::AttemptRecordRefused, message }),
                decision,
                timings: detail.timings,
                seed: detail.seed,
                binding_version: detail.binding_version,
                ..AttemptDetail::default()
            },
            ..*self
        }
    }

    /// Returns the part of the record that a retry policy sees.
    #[must_use]
    pub fn past(&self) -> Past {
        let Self { number, started_at, finished_at, outcome, status, .. } = *self;
        Past { number, started_at, finished_at, outcome, status }
    }
}

/// The part of an attempt's record that is stored as one document.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct AttemptDetail {
    /// Whether the attempt counts.
    ///
    /// If not, nothing was sent, and its number is used again.
    pub spent: bool,
    /// SHA-256 of the request as sent: method, URL, headers (without those whose values are keys) and body.
    ///
    /// If the request was redirected, of the first one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_digest: Option<String>,
    /// URLs to which the request was redirected, in order, without user info; very long ones are cut.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub redirects: Vec<String>,
    /// Error of the attempt, if there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<AttemptError>,
    /// Verdict of the judge.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<VerdictRecord>,
    /// Decision about the job after the attempt, with its reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(ignore)]
    pub decision: Option<DecisionRecord>,
    /// Components that decided, in the order of the calls.
    #[serde(default)]
    pub plugins: Vec<PluginUse>,
    /// Duration of each stage.
    #[serde(default)]
    pub timings: Timings,
    /// Headers of the response; the API shows them in another form.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(ignore)]
    pub response_headers: Vec<(String, String)>,
    /// Whether more of the body arrived than was stored.
    #[serde(default)]
    pub response_truncated: bool,
    /// Seed of the randomness that the policies were given.
    #[serde(default)]
    pub seed: u32,
    /// Version of the group's policy that decided.
    #[serde(default)]
    pub binding_version: i64,
    /// Inputs of its policies that are not in the rest of the record.
    ///
    /// None if nothing was sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(ignore)]
    pub inputs: Option<Inputs>,
    /// The whole of this, encrypted, in base64; the stored part of the response's body is then encrypted, too.
    ///
    /// Only a store that encrypts writes and reads it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(ignore)]
    pub sealed: Option<String>,
}

/// Inputs of an attempt's policies that are not in the rest of its record, so that a replay can decide the attempt again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inputs {
    /// Time when the attempt was due.
    pub run_at: UnixMs,
    /// Time when the response was complete: the current time for the judge and the retry policy.
    pub answered_at: UnixMs,
    /// Whether the body was longer than the part that the judge saw.
    #[serde(default)]
    pub truncated: bool,
    /// Failure in place of a response.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<RecordedFailure>,
}

/// Failure of a request, as the judge saw it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordedFailure {
    /// Code of the transport error ([`TransportError::code`]).
    ///
    /// It is a text, because a newer node may have written one that this version does not know.
    ///
    /// [`TransportError::code`]: crate::error_code::TransportError::code
    pub code: String,
    /// Message for people, one sentence.
    pub message: String,
}

/// Error of an attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct AttemptError {
    /// Stable code for programs: `stage.reason`.
    #[schema(value_type = String)]
    pub code: ErrorCode,
    /// Message for people, one sentence.
    pub message: String,
}

/// Verdict of a judge.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct VerdictRecord {
    /// Result of the attempt.
    pub outcome: Outcome,
    /// Reason that the judge gave.
    pub reason: String,
}

/// Decision about the job after the attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DecisionRecord {
    /// State of the job after the attempt.
    pub state: State,
    /// Time when the next attempt is due, if there is one (RFC 3339 in the API, milliseconds in the store).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_run_at: Option<UnixMs>,
    /// Reason for the decision.
    pub reason: String,
}

impl AttemptDetail {
    /// Returns whether the judge saw more of the response's body than was stored.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        self.response_truncated && self.inputs.as_ref().is_some_and(|inputs| !inputs.truncated)
    }
}

/// One policy call of an attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct PluginUse {
    /// Role: `encode`, `sign`, `judge` or `retry`.
    #[schema(value_type = String)]
    pub role: Cow<'static, str>,
    /// Name of the plugin; with its version, `name@version`, unless it is one of the server's own.
    #[schema(value_type = String)]
    pub plugin: Arc<str>,
    /// SHA-256 of the component.
    #[schema(value_type = String)]
    pub digest: Arc<str>,
    /// SHA-256 of the config that the plugin was given.
    #[schema(value_type = String)]
    pub config_digest: Arc<str>,
    /// Duration of the call in microseconds.
    pub micros: u64,
    /// Fuel that the call used.
    pub fuel: u64,
    /// Log lines of the call.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub log: Vec<String>,
    /// Code of the fault, if the call had no usable result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub fault: Option<ErrorCode>,
}

/// Durations of an attempt's stages, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Timings {
    /// From `run_at` to the start of the attempt.
    ///
    /// If the request was prepared before `run_at`, to the time when it was sent.
    pub late: u64,
    /// Encode and sign, with the wait for a policy thread.
    ///
    /// For a job that is on time, this is over before the job is due.
    pub prepare: u64,
    /// From the start of the request to the end of the response's body.
    pub exchange: u64,
    /// The part of `exchange` in which connections were opened: name look-up, sockets and TLS.
    ///
    /// 0 where an open connection could be used.
    #[serde(default)]
    pub connect: u64,
    /// Judge and retry, with the wait for a policy thread.
    pub decide: u64,
}
