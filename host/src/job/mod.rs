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

mod metadata;
mod record;
mod settlement;
mod state;

use std::fmt;
use std::str::FromStr;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::clock::{Clock, UnixMs};

pub use self::metadata::{Label, METADATA_HEADER, Metadata, Text};
pub use self::record::{
    AttemptDetail, AttemptError, AttemptRecord, DecisionRecord, Outcome, Past, PluginUse, Timings, VerdictRecord,
};
pub use self::settlement::{Next, Settlement};
pub use self::state::State;

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
    #[serde(default, skip_serializing_if = "Metadata::is_empty")]
    pub metadata: Metadata,
    /// Whether the metadata goes out as headers.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub metadata_headers: bool,
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

impl NewJob {
    /// The job as it stands when it has just been stored.
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
            seed: self.seed,
            attempt_count: 0,
            last_status: None,
            last_error: None,
            cancel_requested: false,
            spec: self.spec,
            body_len: u64::try_from(self.body.len()).unwrap_or(u64::MAX),
        }
    }
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
