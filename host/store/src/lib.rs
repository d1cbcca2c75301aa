//! What is kept. Each verb is one transaction, takes and returns facts, and decides nothing.
//!
//! A verb that has returned `Ok` is durable: it survives `kill -9` and a power cut. A verb that has failed has changed nothing.
//! Where the answer to "may I?" must be the same for every producer and every node, a verb carries the question along as data
//! ([`carillon_core::job::Admission`]) and a pure function of [`carillon_core::job`] answers it inside of the transaction.
//! The module `conformance` states the rest of the contract as tests that run against every backend.

#[cfg(any(test, feature = "conformance"))]
#[allow(missing_docs, reason = "the names of cases say what they show")]
#[allow(clippy::unwrap_used, reason = "a case fails where a verb does")]
pub mod conformance;
pub mod documents;
pub mod entities;
pub mod figures;
pub mod health;
pub mod housekeeping;
pub mod labels;
pub mod lane;
pub mod peers;
pub mod queries;
pub mod transfer;
pub mod unreadable;

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use carillon_core::clock::UnixMs;
use carillon_core::job::{
    AttemptRecord, GroupId, Job, JobId, Lease, LeasedJob, NewJob, Priority, Settlement, SkipReason, SkippedTicks, Spec,
    State, TenantId, Token,
};

pub use entities::{Changes, Entities, Entity, Kind, Precondition, PutEntity};
pub use figures::{Backlog, CommitStats, failure_count};
pub use health::{STUCK, StoreHealth, Work};
pub use lane::GroupBacklog;
pub use peers::{Heartbeat, Member, MemberList, NodeDoc, Peers, Signal, Signals};
pub use queries::{JobFilter, JobsQuery, NamesQuery, Stats, TickRecord, Ticked, TicksQuery};
pub use transfer::{Cell, Checksum, Counters, Key, Row, RowDigest, TABLES, Table, shown};

/// The most jobs that one [`Jobs::insert`] takes.
pub const INSERT_LIMIT: usize = 10_000;

/// Why a verb failed. Knows nothing of HTTP.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The group is not there, or is being deleted.
    #[error("the group does not exist")]
    NoSuchGroup,
    /// The entity exists already, or its version is not the expected one.
    #[error("{0}")]
    Conflict(String),
    /// The idempotency key belongs to a request with another body.
    #[error("the idempotency key was used for another request")]
    KeyReused,
    /// The database cannot be reached, or is shutting down. The same call may go through later.
    #[error("the store is unavailable: {0}")]
    Unavailable(String),
    /// There is no room left for the database. Nothing was written; the same call goes through when there is.
    #[error("the disk of the store is full: {0}")]
    Full(String),
    /// The database holds something that this program did not write.
    #[error("the store is inconsistent: {0}")]
    Corrupt(String),
}

/// What an answered write survives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// The crash of a program or of the database, and a loss of power: each commit is flushed to disk.
    #[default]
    Full,
    /// The crash of a program. A loss of power can undo the last moments, but damages nothing.
    Normal,
}

/// The jobs of one request, stored all or none.
#[derive(Clone, Debug, Default)]
pub struct Insert {
    /// In the order in which they are placed.
    pub jobs: Vec<NewJob>,
    /// Answers a repetition of the request without storing anything.
    pub once: Option<IdempotentRequest>,
}

impl From<Vec<NewJob>> for Insert {
    fn from(jobs: Vec<NewJob>) -> Self {
        Self { jobs, once: None }
    }
}

/// Writes the answer to a request whose jobs were placed.
pub type WriteAnswer = Arc<dyn Fn(&[InsertOutcome]) -> String + Send + Sync>;

/// A request that is carried out once, however often it is sent.
#[derive(Clone)]
pub struct IdempotentRequest {
    /// Whose.
    pub tenant: TenantId,
    /// What the producer calls it.
    pub key: String,
    /// Differs between requests that are not the same.
    pub fingerprint: String,
    /// When it was made.
    pub now: UnixMs,
    /// How long it is remembered.
    pub expires_at: UnixMs,
    /// Writes the answer, which is kept with the jobs: what became of them is known only inside of the transaction. A request of which every
    /// job was skipped has done nothing, and its answer is not kept.
    pub answer: WriteAnswer,
}

impl std::fmt::Debug for IdempotentRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Once").field("key", &self.key).finish_non_exhaustive()
    }
}

/// What became of a request to store jobs.
#[derive(Clone, Debug, PartialEq)]
pub enum InsertResult {
    /// What became of each job, in order.
    Placed(Vec<InsertOutcome>),
    /// It was carried out before, and answered with this.
    Replayed(String),
}

/// What became of a job that was to be stored.
#[derive(Clone, Debug, PartialEq)]
pub enum InsertOutcome {
    /// It is stored.
    Stored {
        /// When it is due: later than asked for if it was debounced.
        run_at: UnixMs,
        /// What was remembered of its debounce key could not be read, and was taken for nothing.
        forgotten: bool,
        /// The waiting jobs of its schedule, or of its name, that it has ended.
        cancelled: Vec<JobId>,
    },
    /// Another job has its key.
    Duplicate(Box<Job>),
    /// Another job waits that will do its work.
    Debounced(Box<Job>),
    /// Another job waits for its debounce key, and carries its request from now on.
    Carried {
        /// That job now.
        job: Box<Job>,
        /// The same job with the request that was replaced.
        before: Box<Job>,
    },
    /// A tick that was dealt with before, or the state of the job that it was to replace, keeps it out.
    Skipped,
    /// Its tick makes no job.
    TickSkipped(SkipReason),
}

impl InsertOutcome {
    /// Whether the job itself is stored.
    #[must_use]
    pub fn is_stored(&self) -> bool {
        matches!(self, Self::Stored { .. })
    }

    /// Whether nothing was done for it.
    #[must_use]
    pub fn is_skipped(&self) -> bool {
        matches!(self, Self::Skipped | Self::TickSkipped(_))
    }
}

/// Which jobs are to be leased.
#[derive(Clone, Debug)]
pub struct ClaimDue {
    /// Jobs with a `run_at` up to this are due.
    pub now: UnixMs,
    /// When the leases end.
    pub lease_until: UnixMs,
    /// Those to be pulled instead of those to be delivered.
    pub pull: bool,
    /// From which groups, and how many at most from each.
    pub quotas: Vec<(GroupId, u32)>,
    /// Of these quotas, how many go to jobs of which priority before the most urgent ones, as far as there are some.
    pub owed: Vec<Owed>,
}

/// A lease under which the work is to be cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Abort {
    /// Which.
    pub lease: Lease,
    /// Whether a consumer holds it.
    pub pull: bool,
}

/// Starts that a priority of a group is owed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owed {
    /// Of a group with a quota.
    pub group: GroupId,
    /// Which jobs.
    pub priority: Priority,
    /// No more than the quota.
    pub count: u32,
}

/// What a settlement did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SettleOutcome {
    /// The job is now in this state. It is `Cancelled` where a cancel had been asked for and the job would have been retried.
    Applied(State),
    /// The lease was no longer ours; nothing was written.
    LeaseLost,
}

/// What is to be done to jobs.
#[derive(Clone, Debug, PartialEq)]
pub enum JobChange {
    /// `scheduled` → `cancelled`. A `running` job is cancelled when its attempt is over, unless that succeeds.
    Cancel,
    /// `scheduled` → `cancelled`. A `running` job goes on as if nobody had asked.
    Withdraw,
    /// A `scheduled` job becomes due at this time.
    Reschedule(UnixMs),
    /// `dead` or `expired` → `scheduled`, due at this time. What had a deadline gets as much time as it had in its first life.
    Redrive(UnixMs),
    /// Removes a job that has ended, with its attempts.
    Purge,
    /// Replaces parts of a `scheduled` job.
    Edit(Box<Edit>),
}

/// The parts of a job that are replaced.
#[derive(Clone, Debug, PartialEq)]
pub struct Edit {
    /// The revision of the job that the edit was made from.
    pub revision: i64,
    /// See [`NewJob`].
    pub name: Option<String>,
    /// See [`NewJob`].
    pub run_at: UnixMs,
    /// See [`NewJob`].
    pub priority: Priority,
    /// See [`NewJob`].
    pub spec: Spec,
    /// The payload, if that changes.
    pub body: Option<Bytes>,
}

/// What a change did to one job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeOutcome {
    /// What was asked for.
    Done,
    /// An attempt is being made; unless it succeeds, the job will be `cancelled` when it is over.
    Requested,
    /// Nothing: the job is in a state in which this cannot be done.
    Not(State),
    /// Nothing: the job was edited meanwhile.
    Stale,
    /// The tenant has no such job.
    Unknown,
}

/// What may go.
#[derive(Clone, Debug, Default)]
pub struct Prune {
    /// Jobs that ended in this state at this time or before. Where it is cheaper they are kept up to half as long again, as seen from `now`.
    pub ended: Vec<(State, UnixMs)>,
    /// Ticks up to this time; how far each schedule has come stays known.
    pub ticks: UnixMs,
    /// What was remembered of producers until now.
    pub now: UnixMs,
    /// At most this many jobs, and as many of the rest.
    pub limit: u32,
}

/// The jobs.
#[async_trait]
pub trait Jobs: Send + Sync {
    /// Stores jobs, all or none, each as its [`carillon_core::job::Admission`] says. Fails with [`StoreError::NoSuchGroup`] if a group is
    /// not there or not its job's tenant's, with [`StoreError::Conflict`] if an id is taken or there are more than
    /// [`INSERT_LIMIT`], and with [`StoreError::KeyReused`] if the request's key belongs to another one.
    async fn insert(&self, insert: Insert) -> Result<InsertResult, StoreError>;

    /// The groups that have jobs waiting which no earlier one of their key blocks, with the time of the first of each. Its cost
    /// grows with the groups and the priorities in use, not with the jobs.
    async fn waiting(&self) -> Result<Vec<GroupBacklog>, StoreError>;

    /// Leases due jobs, within each group first those that are owed, then by priority, `run_at` and id: `scheduled` → `running`, with a new token. A stored
    /// job that cannot be read is left out here and in lists, and this and the other claims end it as `dead`.
    async fn claim_due(&self, claim: ClaimDue) -> Result<Vec<LeasedJob>, StoreError>;

    /// The leases that end at `until` or before, at most `limit` of them, each with its end, by which they are ordered. It is `now`.
    async fn ending_leases(&self, now: UnixMs, until: UnixMs, limit: u32) -> Result<Vec<(Lease, UnixMs)>, StoreError>;

    /// Leases jobs anew whose lease is one of these, and ended at `now` or before without being settled; `lost_leases` rises.
    async fn claim_lost(
        &self,
        lost: Vec<Lease>,
        now: UnixMs,
        lease_until: UnixMs,
    ) -> Result<Vec<LeasedJob>, StoreError>;

    /// At most `limit` leases under which the work is to be cut off: a newer run of its schedule waits for the job's end.
    async fn aborts(&self, limit: u32) -> Result<Vec<Abort>, StoreError>;

    /// These leases were lost although their holder was there, so that newer ones are in force: `lost_leases` of their jobs falls by one.
    async fn excuse(&self, lost: Vec<Lease>) -> Result<(), StoreError>;

    /// Leases at most `limit` waiting jobs whose time ran out before `now`: they are to be settled as expired.
    async fn claim_overdue(&self, now: UnixMs, lease_until: UnixMs, limit: u32) -> Result<Vec<LeasedJob>, StoreError>;

    /// The job that a tenant's consumer holds under this lease, if it is the newest one and does not end before `now`.
    async fn held(
        &self,
        tenant: TenantId,
        id: JobId,
        token: Token,
        now: UnixMs,
    ) -> Result<Option<LeasedJob>, StoreError>;

    /// Moves the end of leases. The answer says for each whether it was still ours.
    async fn extend(&self, leases: Vec<Lease>, lease_until: UnixMs) -> Result<Vec<bool>, StoreError>;

    /// Writes settlements with their attempts and the jobs that follow, each only if its lease is still the newest. A job that
    /// would follow in a group that has gone is left out. Answers in the order of the input.
    async fn settle(&self, settlements: Vec<Settlement>) -> Result<Vec<SettleOutcome>, StoreError>;

    /// Whether calls that write take effect in the order in which they begin, one that fails aside: then a claim that begins after a settlement
    /// sees it.
    fn keeps_order(&self) -> bool;

    /// Does the same to several of a tenant's jobs; says for each what came of it.
    async fn change(
        &self,
        tenant: TenantId,
        ids: Vec<JobId>,
        change: JobChange,
        now: UnixMs,
    ) -> Result<Vec<ChangeOutcome>, StoreError>;

    /// Removes what may go, jobs with their attempts, and jobs of deleted groups. Returns how much: as long as it is `limit` or more,
    /// there may be more to remove.
    async fn prune(&self, what: Prune) -> Result<u32, StoreError>;

    /// A tenant's job.
    async fn job(&self, tenant: TenantId, id: JobId) -> Result<Option<Job>, StoreError>;

    /// The payload of a tenant's job.
    async fn body(&self, tenant: TenantId, id: JobId) -> Result<Option<Bytes>, StoreError>;

    /// A page of jobs.
    async fn jobs(&self, query: JobsQuery) -> Result<Vec<Job>, StoreError>;

    /// A page of a tenant's jobs over all of its groups; the filter's own group is not looked at. Its cost grows with the number of groups,
    /// not of jobs.
    async fn jobs_of_tenant(&self, query: JobsQuery) -> Result<Vec<Job>, StoreError>;

    /// The newest job of each name, whatever its state, by name. Its cost does not grow with the jobs of other names.
    async fn newest_of_names(&self, query: NamesQuery) -> Result<Vec<Job>, StoreError>;

    /// How many jobs there are.
    async fn count(&self, filter: JobFilter) -> Result<u64, StoreError>;

    /// How far each schedule has come that has had a tick.
    async fn ticked(&self) -> Result<Vec<Ticked>, StoreError>;

    /// Writes that ticks made no job. False for those of a schedule that has come as far as their first one: another node was there before.
    async fn skip_ticks(&self, skipped: Vec<(i64, SkippedTicks)>) -> Result<Vec<bool>, StoreError>;

    /// A page of a schedule's ticks, newest first. Its cost does not grow with other schedules' ticks.
    async fn ticks(&self, query: TicksQuery) -> Result<Vec<TickRecord>, StoreError>;

    /// The attempts of a tenant's job with a number above `after`, in order, at most `limit`.
    async fn attempts(
        &self,
        tenant: TenantId,
        id: JobId,
        after: u32,
        limit: u32,
    ) -> Result<Vec<AttemptRecord>, StoreError>;

    /// How well the writer shares its commits; for the metrics.
    fn commit_stats(&self) -> CommitStats;

    /// What came of the last calls that the server lives by.
    fn health(&self) -> &StoreHealth;

    /// Does what storing a job takes, undoes it, and writes and removes something of the size of a small job: so that it fails as an insert
    /// would. It counts as [`Work::Accept`].
    async fn probe(&self, id: JobId, now: UnixMs) -> Result<(), StoreError>;

    /// How much waits at a time. It takes time in proportion to the jobs that wait.
    async fn backlog(&self, now: UnixMs) -> Result<Backlog, StoreError>;

    /// Counts a group's jobs.
    async fn stats(&self, tenant: TenantId, group: GroupId, now: UnixMs) -> Result<Stats, StoreError>;

    /// Refuses further calls, answers those that were accepted, and lets go of the database.
    async fn close(&self);
}

/// Everything that a backend must do.
pub trait Store: Jobs + Entities {}

impl<T: Jobs + Entities> Store for T {}
