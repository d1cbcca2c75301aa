//! The words that every stage shares: a job, its states, an attempt, a settlement.
//!
//! ```text
//!                 ┌────────────── retry, hold, release ─────────────┐
//!                 ▼                                                 │
//!  insert ──► scheduled ──────────── claim (lease) ─────────────► running ──► succeeded
//!                 │                                                 ├───────► dead
//!                 ├──► cancelled ◄───── cancel was asked for ───────┤
//!                 └──► expired   ◄──────────────────────────────────┘
//! ```
//!
//! `succeeded`, `dead`, `expired` and `cancelled` are final: a job reaches exactly one of them.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::clock::{Clock, UnixMs};

/// A tenant's number in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TenantId(pub i64);

/// A group's number in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct GroupId(pub i64);

/// A job's id: a UUID of version 7, so that ids sort by the time of acceptance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct JobId(pub Uuid);

impl JobId {
    /// A new id, unique without asking anybody.
    #[must_use]
    pub fn new(clock: &dyn Clock) -> Self {
        let mut random = [0; 10];
        clock.fill_random(&mut random);
        Self(uuid::Builder::from_unix_timestamp_millis(clock.now().as_u64(), &random).into_uuid())
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for JobId {
    type Err = uuid::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

/// Where a job stands; the diagram is in the module's documentation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Waits for its `run_at`.
    Scheduled,
    /// Leased: an attempt is being made.
    Running,
    /// Final: an answer was judged a success.
    Succeeded,
    /// Final: it will not be tried again.
    Dead,
    /// Final: its time ran out before it succeeded.
    Expired,
    /// Final: somebody cancelled it.
    Cancelled,
}

impl State {
    /// Every state, in the order of the diagram.
    pub const ALL: [Self; 6] =
        [Self::Scheduled, Self::Running, Self::Succeeded, Self::Dead, Self::Expired, Self::Cancelled];

    /// Whether a job can go from this state to `next` in one step.
    #[must_use]
    pub fn can_become(self, next: Self) -> bool {
        match self {
            Self::Scheduled => matches!(next, Self::Running | Self::Cancelled | Self::Expired),
            Self::Running => next != Self::Running,
            Self::Succeeded | Self::Dead | Self::Expired | Self::Cancelled => false,
        }
    }

    /// Whether a job stays in this state for good.
    #[must_use]
    pub fn is_final(self) -> bool {
        !matches!(self, Self::Scheduled | Self::Running)
    }

    /// The state's name in the API and in the store.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Scheduled => "scheduled",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Dead => "dead",
            Self::Expired => "expired",
            Self::Cancelled => "cancelled",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for State {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|state| state.as_str() == text).ok_or_else(|| {
            format!("`{text}` is not a state; the states are {}", Self::ALL.map(Self::as_str).join(", "))
        })
    }
}

/// Where a job's request goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// An HTTP method in capitals.
    pub method: String,
    /// An absolute `http` or `https` URL.
    pub url: String,
    /// In the order in which they are sent.
    pub headers: Vec<(String, String)>,
}

/// The part of a job that never changes and that only the attempt looks at.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spec {
    /// Where to deliver.
    pub target: Target,
    /// The client's own labels; policies see them as attributes.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
    /// A merge patch (RFC 7396) over the group's policy, if the job overrides it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<serde_json::Value>,
    /// The job's own limit on one request, in milliseconds, body included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// A job that is about to be stored.
#[derive(Clone, Debug, PartialEq)]
pub struct NewJob {
    /// Chosen by the caller with [`JobId::new`].
    pub id: JobId,
    /// The owner; the group belongs to the same tenant.
    pub tenant: TenantId,
    /// The group whose policy and limits apply.
    pub group: GroupId,
    /// The client's own name for it; need not be unique.
    pub name: Option<String>,
    /// Not before this.
    pub run_at: UnixMs,
    /// When it was accepted.
    pub created_at: UnixMs,
    /// No attempt starts after this.
    pub deadline: Option<UnixMs>,
    /// The source of its attempts' randomness.
    pub seed: u32,
    /// The rest of it.
    pub spec: Spec,
    /// The payload.
    pub body: Bytes,
}

/// A stored job, as it is shown. The payload is not part of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Job {
    /// See [`NewJob`].
    pub id: JobId,
    /// See [`NewJob`].
    pub tenant: TenantId,
    /// See [`NewJob`].
    pub group: GroupId,
    /// See [`NewJob`].
    pub name: Option<String>,
    /// Where it stands.
    pub state: State,
    /// When its next attempt is, or its last one was, due.
    pub run_at: UnixMs,
    /// When it was accepted.
    pub created_at: UnixMs,
    /// When it reached its final state.
    pub finished_at: Option<UnixMs>,
    /// See [`NewJob`].
    pub deadline: Option<UnixMs>,
    /// See [`NewJob`].
    pub seed: u32,
    /// How many attempts it has spent.
    pub attempt_count: u32,
    /// The status that the newest attempt was answered with, if it was answered.
    pub last_status: Option<u16>,
    /// The code of the newest attempt's error, if it had one.
    pub last_error: Option<String>,
    /// Whether it will be cancelled instead of retried when its attempt is over.
    pub cancel_requested: bool,
    /// The rest of it.
    pub spec: Spec,
    /// The length of its payload in bytes.
    pub body_len: u64,
}

/// The fencing token of a lease: each lease of a job has a higher one than the lease before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Token(pub i64);

/// A job that this node has the right to work on until its lease ends.
#[derive(Clone, Debug, PartialEq)]
pub struct Leased {
    /// The job as it stood when it was leased (`state` is `running`).
    pub job: Job,
    /// Proves the right.
    pub token: Token,
    /// The payload.
    pub body: Bytes,
    /// How many leases of this job ended without anybody settling them.
    pub lost_leases: u32,
    /// Its newest spent attempts, oldest first, at most [`HISTORY_LIMIT`].
    pub history: Vec<Past>,
}

impl Leased {
    /// The number of the attempt that this lease is for, from 1.
    #[must_use]
    pub fn number(&self) -> u32 {
        self.job.attempt_count.saturating_add(1)
    }

    /// How many leases before this one were given back without spending an attempt.
    #[must_use]
    pub fn unspent_leases(&self) -> u32 {
        let before = self.token.0.saturating_sub(1).saturating_sub(i64::from(self.job.attempt_count));
        u32::try_from(before).unwrap_or(0)
    }
}

/// The most earlier attempts that a retry policy is shown.
pub const HISTORY_LIMIT: usize = 100;

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

/// The part of an attempt's record that is stored as one document.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct AttemptDetail {
    /// False if nothing was sent, or it was interrupted by a stop: the number is used again.
    pub spent: bool,
    /// The sha-256 of the request as sent: method, URL, headers and body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_digest: Option<String>,
    /// What went wrong, if something did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<AttemptError>,
    /// What the judge said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<VerdictRecord>,
    /// What became of the job, and why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decision: Option<DecisionRecord>,
    /// Which component decided what, in the order of the calls.
    #[serde(default)]
    pub plugins: Vec<PluginUse>,
    /// How long each stage took.
    #[serde(default)]
    pub timings: Timings,
    /// The answer's headers.
    #[serde(default)]
    pub response_headers: Vec<(String, String)>,
    /// Whether more of the body arrived than was kept.
    #[serde(default)]
    pub response_truncated: bool,
    /// The randomness that the policies were given.
    #[serde(default)]
    pub seed: u32,
    /// The version of the group's binding that was in force.
    #[serde(default)]
    pub binding_version: i64,
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct DecisionRecord {
    /// The state that the job went to.
    pub state: State,
    /// When the next attempt is due, if there is one (RFC 3339 in the API, milliseconds in the store).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<i64>)]
    pub next_run_at: Option<UnixMs>,
    /// Why.
    pub reason: String,
}

/// One policy call of an attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct PluginUse {
    /// `encode`, `sign`, `judge` or `retry`.
    pub role: String,
    /// The plugin's name, with its version if it is not one of the server's own: `name@version`.
    pub plugin: String,
    /// The sha-256 of the component.
    pub digest: String,
    /// The sha-256 of the config that it was given.
    pub config_digest: String,
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
    /// From `run_at` to the start of the attempt.
    pub late: u64,
    /// Encode and sign, with the wait for a policy thread.
    pub prepare: u64,
    /// From the start of the request to the end of the answer's body.
    pub exchange: u64,
    /// Judge and retry, with the wait for a policy thread.
    pub decide: u64,
}

/// What becomes of a leased job. Made by the constructors only, so that every mix of fields makes sense.
#[derive(Clone, Debug, PartialEq)]
pub struct Settlement {
    /// Which job.
    pub id: JobId,
    /// It applies only while this lease is the newest.
    pub token: Token,
    /// When it was decided.
    pub at: UnixMs,
    /// What is kept of the attempt, if one was made or tried.
    pub attempt: Option<AttemptRecord>,
    next: Next,
}

/// Where a settled job goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Back to `scheduled`, due at this time.
    Scheduled(UnixMs),
    /// To this final state.
    Final(State),
}

impl Settlement {
    /// The job is done.
    #[must_use]
    pub fn succeeded(leased: &Leased, at: UnixMs, attempt: AttemptRecord) -> Self {
        Self::of(leased, at, Some(attempt), Next::Final(State::Succeeded))
    }

    /// The job will not be tried again.
    #[must_use]
    pub fn dead(leased: &Leased, at: UnixMs, attempt: AttemptRecord) -> Self {
        Self::of(leased, at, Some(attempt), Next::Final(State::Dead))
    }

    /// The job's time ran out; `attempt` is the one that was made just before, if any.
    #[must_use]
    pub fn expired(leased: &Leased, at: UnixMs, attempt: Option<AttemptRecord>) -> Self {
        Self::of(leased, at, attempt, Next::Final(State::Expired))
    }

    /// The attempt failed and another one is due at `run_at`.
    #[must_use]
    pub fn retry(leased: &Leased, at: UnixMs, attempt: AttemptRecord, run_at: UnixMs) -> Self {
        Self::of(leased, at, Some(attempt), Next::Scheduled(run_at))
    }

    /// Nothing could be sent: the job waits until `run_at` and the attempt is not spent (`attempt.detail.spent` is false).
    #[must_use]
    pub fn held(leased: &Leased, at: UnixMs, mut attempt: AttemptRecord, run_at: UnixMs) -> Self {
        attempt.detail.spent = false;
        Self::of(leased, at, Some(attempt), Next::Scheduled(run_at))
    }

    /// The node gives the job back untouched.
    #[must_use]
    pub fn released(leased: &Leased, at: UnixMs) -> Self {
        Self::of(leased, at, None, Next::Scheduled(leased.job.run_at))
    }

    fn of(leased: &Leased, at: UnixMs, attempt: Option<AttemptRecord>, next: Next) -> Self {
        Self { id: leased.job.id, token: leased.token, at, attempt, next }
    }

    /// Where the job goes, unless it was asked to be cancelled.
    #[must_use]
    pub fn next(&self) -> Next {
        self.next
    }

    /// Whether an attempt of the job is spent.
    #[must_use]
    pub fn spends(&self) -> bool {
        self.attempt.as_ref().is_some_and(|attempt| attempt.detail.spent)
    }
}
