//! Data model that all stages share: a job, its states, an attempt, a settlement.
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
//! `succeeded`, `dead`, `expired` and `cancelled` are final: a job reaches exactly one of them. Only a redrive, which a person or program
//! must request, brings a `dead` or `expired` job back to `scheduled`: it begins a second life with a new series of attempts.

mod admission;
mod dispatch_mode;
mod id;
mod metadata;
mod name;
mod record;
mod settlement;
mod shown_url;
mod skip;
mod state;
#[cfg(test)]
mod stored_documents;
mod template;

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::clock::UnixMs;
use crate::error_code::ErrorCode;

pub use self::admission::{
    Admission, Carries, Debounce, Debounced, LastAccepted, Newest, Overlap, Tick, stands_for_later,
};
pub use self::dispatch_mode::DispatchMode;
pub use self::id::{GroupId, JobId, TenantId, new_seed};
pub use self::metadata::{Label, METADATA_HEADER, Metadata, Text};
pub use self::name::check_name;
pub use self::record::{
    AttemptDetail, AttemptError, AttemptRecord, DecisionRecord, Inputs, Outcome, Past, PluginUse, RecordedFailure,
    Timings, VerdictRecord,
};
pub use self::settlement::{Next, Settlement};
pub use self::shown_url::{HIDDEN_PASSWORD, bare_url, is_secret_name, outlined_url, shown_document, shown_url};
pub use self::skip::{SkipReason, SkippedTicks};
pub use self::state::State;
pub use self::template::FollowUp;

/// Request of a job without its payload: method, URL and headers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// An HTTP method in capitals.
    pub method: String,
    /// An absolute `http` or `https` URL, in the client's spelling.
    pub url: String,
    /// Headers that the client has given, in the order in which they are sent.
    pub headers: Vec<(String, String)>,
}

impl Target {
    /// Returns the headers that the request has before any policy: the client's own, and the type of a JSON payload unless the client gives
    /// it.
    ///
    /// Derived headers are never stored, because the payload may be replaced.
    #[must_use]
    pub fn headers_for(&self, is_json: bool) -> Vec<(String, String)> {
        let mut headers = self.headers.clone();
        if is_json && !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-type")) {
            headers.push(("Content-Type".to_owned(), "application/json".to_owned()));
        }
        headers
    }
}

/// The part of a job that only its attempts use.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Spec {
    /// Receiver of the job.
    ///
    /// A job without one waits for a consumer to pull it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<Target>,
    /// The client's own labels; policies see them as attributes.
    #[serde(default, skip_serializing_if = "Metadata::is_empty")]
    pub metadata: Metadata,
    /// Whether the metadata is sent as headers.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub metadata_headers: bool,
    /// A merge patch (RFC 7396) over the group's policy, if the job overrides it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<serde_json::Value>,
    /// The job's own time limit for one request, in milliseconds, body included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// Follow-up job if the job succeeds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_success: Option<Box<FollowUp>>,
    /// Follow-up job if the job ends as a dead letter or expires.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_failure: Option<Box<FollowUp>>,
    /// Whether the payload was given as JSON, so that a consumer gets it as JSON.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_json: bool,
    /// Job that this job follows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<JobId>,
    /// Version of the group's policy that the job keeps, if the group pins its jobs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub binding: Option<i64>,
    /// The whole of this, encrypted, in base64; the other members are then what queries need.
    ///
    /// Only a store that encrypts writes and reads it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sealed: Option<String>,
    /// Whether the payload that is stored beside is encrypted.
    ///
    /// It must stay the last member: the databases look for [`SEALED_BODY`] at the end of the text.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub sealed_body: bool,
}

/// End of the stored text of a [`Spec`] whose payload is encrypted. Nothing that a client gives can be there.
pub const SEALED_BODY: &str = "\"sealed_body\":true}";

/// Priority of a job within its group: 0 to 9; due jobs of priority 9 start first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(try_from = "u8", into = "u8")]
pub struct Priority(u8);

impl Priority {
    /// The most urgent.
    pub const MAX: Self = Self(9);

    /// Returns the priority of this level; None if there is no such level.
    #[must_use]
    pub fn new(level: u8) -> Option<Self> {
        (level <= Self::MAX.0).then_some(Self(level))
    }
}

impl Default for Priority {
    /// Returns 4, as in the Java Message Service, which leaves levels on both sides.
    fn default() -> Self {
        Self(4)
    }
}

impl From<Priority> for u8 {
    fn from(priority: Priority) -> Self {
        priority.0
    }
}

impl TryFrom<u8> for Priority {
    type Error = String;

    fn try_from(level: u8) -> Result<Self, Self::Error> {
        Self::new(level)
            .ok_or_else(|| format!("the priority must be from 0 to {} (the most urgent), not {level}", Self::MAX.0))
    }
}

/// A job that is about to be stored.
#[derive(Clone, Debug, PartialEq)]
pub struct NewJob {
    /// Id, chosen by the caller with [`JobId::new`].
    pub id: JobId,
    /// Owning tenant; also the owner of the group.
    pub tenant: TenantId,
    /// Group whose policy and limits apply.
    pub group: GroupId,
    /// The client's own name for the job; need not be unique.
    pub name: Option<String>,
    /// Earliest time of the first attempt.
    pub run_at: UnixMs,
    /// Time of acceptance.
    pub created_at: UnixMs,
    /// Time after which no attempt starts.
    pub deadline: Option<UnixMs>,
    /// Longest time after the due time at which an attempt may start.
    pub max_delay: Option<Duration>,
    /// Order among the group's due jobs.
    pub priority: Priority,
    /// Order key: the group's jobs of one key are tried one at a time, in the order of their ids.
    pub order_key: Option<String>,
    /// Condition under which the job is stored.
    pub admission: Admission,
    /// Seed of the randomness of its attempts.
    pub seed: u32,
    /// Request and settings.
    pub spec: Spec,
    /// The payload.
    pub body: Bytes,
}

impl NewJob {
    /// Creates a job that is due at its acceptance, with no target, conditions or limits of its own.
    #[must_use]
    pub fn plain(id: JobId, tenant: TenantId, group: GroupId, now: UnixMs) -> Self {
        Self {
            id,
            tenant,
            group,
            name: None,
            run_at: now,
            created_at: now,
            deadline: None,
            max_delay: None,
            priority: Priority::default(),
            order_key: None,
            admission: Admission::Always,
            seed: 0,
            spec: Spec::default(),
            body: Bytes::new(),
        }
    }

    /// Returns the job as it is right after it was stored.
    #[must_use]
    pub fn shown(self) -> Job {
        Job {
            id: self.id,
            tenant: self.tenant,
            group: self.group,
            name: self.name,
            state: State::Scheduled,
            run_at: self.run_at,
            created_at: self.created_at,
            finished_at: None,
            deadline: self.deadline,
            max_delay: self.max_delay,
            priority: self.priority,
            order_key: self.order_key,
            seed: self.seed,
            attempt_count: 0,
            attempt_base: 0,
            revision: 0,
            last_status: None,
            last_error: None,
            cancel_requested: false,
            spec: self.spec,
            body_len: u64::try_from(self.body.len()).unwrap_or(u64::MAX),
        }
    }
}

/// A stored job without its payload.
#[derive(Clone, Debug, PartialEq)]
pub struct Job {
    /// Id; sorts by the time of acceptance.
    pub id: JobId,
    /// Owning tenant; also the owner of the group.
    pub tenant: TenantId,
    /// Group whose policy and limits apply.
    pub group: GroupId,
    /// The client's own name for the job; need not be unique.
    pub name: Option<String>,
    /// State of the job.
    pub state: State,
    /// Time when the next attempt is due, or the last one was due.
    pub run_at: UnixMs,
    /// Time of acceptance.
    pub created_at: UnixMs,
    /// Time when the job reached its final state.
    pub finished_at: Option<UnixMs>,
    /// Time after which no attempt starts.
    pub deadline: Option<UnixMs>,
    /// Longest time after the due time at which an attempt may start.
    pub max_delay: Option<Duration>,
    /// Order among the group's due jobs.
    pub priority: Priority,
    /// Order key: the group's jobs of one key are tried one at a time, in the order of their ids.
    pub order_key: Option<String>,
    /// Seed of the randomness of its attempts.
    pub seed: u32,
    /// Number of spent attempts.
    pub attempt_count: u32,
    /// Number of attempts that were spent before the last redrive; the retry policy sees only the later ones.
    pub attempt_base: u32,
    /// Revision; raised by each edit.
    pub revision: i64,
    /// Status of the newest attempt's response, if there was a response.
    pub last_status: Option<u16>,
    /// Code of the newest attempt's error, if there was an error.
    pub last_error: Option<ErrorCode>,
    /// Whether the job will be cancelled instead of retried when its attempt is over.
    pub cancel_requested: bool,
    /// Request and settings.
    pub spec: Spec,
    /// Length of the payload in bytes.
    pub body_len: u64,
}

impl Job {
    /// Returns the time when the job ends `expired` unless an attempt has begun: its deadline, or `max_delay` after it was due.
    #[must_use]
    pub fn expires_at(&self) -> Option<UnixMs> {
        self.expires_if_due(self.run_at)
    }

    /// Returns the time when the job expires if it was due at `due` and is postponed.
    #[must_use]
    pub fn expires_if_due(&self, due: UnixMs) -> Option<UnixMs> {
        let too_late = self.max_delay.map(|delay| due.plus(delay));
        self.deadline.into_iter().chain(too_late).min()
    }
}

/// Fencing token of a lease: each lease of a job has a higher token than the lease before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Token(pub i64);

/// A lease: a job's id and the token of one of its leases.
pub type Lease = (JobId, Token);

/// A job that this node may work on until its lease ends.
#[derive(Clone, Debug, PartialEq)]
pub struct LeasedJob {
    /// The job as it was when it was leased (`state` is `running`).
    pub job: Job,
    /// Token of the lease.
    pub token: Token,
    /// Payload.
    pub body: Bytes,
    /// Number of leases of this job that ended without a settlement, without the leases that were lost to a pause of their node.
    pub lost_leases: u32,
    /// Time when the lease ends, unless it is extended.
    pub until: UnixMs,
    /// Newest spent attempts since the job was accepted or redriven, oldest first, at most [`HISTORY_LIMIT`].
    pub history: Vec<Past>,
}

impl LeasedJob {
    /// Returns the lease.
    #[must_use]
    pub fn lease(&self) -> Lease {
        (self.job.id, self.token)
    }

    /// Returns the number of the attempt that this lease is for, from 1.
    #[must_use]
    pub fn number(&self) -> u32 {
        self.job.attempt_count.saturating_add(1)
    }

    /// Returns the attempt's number as policies see it: a redriven job begins at 1 again.
    #[must_use]
    pub fn number_in_series(&self) -> u32 {
        self.number().saturating_sub(self.job.attempt_base)
    }

    /// Returns how many earlier leases ended without spending an attempt.
    #[must_use]
    pub fn unspent_leases(&self) -> u32 {
        let before = self.token.0.saturating_sub(1).saturating_sub(i64::from(self.job.attempt_count));
        u32::try_from(before).unwrap_or(0)
    }
}

/// Largest number of earlier attempts that a retry policy sees.
pub const HISTORY_LIMIT: usize = 100;
