//! Store: the contract between the server and its database. Each verb is one transaction, takes and returns facts, and decides no policy.
//!
//! A verb that has returned `Ok` is durable: its effect survives `kill -9` and a power cut. A verb that has failed has changed nothing.
//! Where every producer and node must get the same decision, a verb carries the question as data ([`carillon_core::job::Admission`]), and a
//! pure function of [`carillon_core::job`] decides it inside the transaction. `conformance` states the rest as tests for every backend.

pub mod audit;
mod changes;
pub mod claims;
#[cfg(any(test, feature = "conformance"))]
#[allow(missing_docs, reason = "the names of cases say what they show")]
#[allow(clippy::unwrap_used, reason = "a case fails where a verb does")]
pub mod conformance;
pub mod decode;
pub mod documents;
pub mod entities;
mod error;
pub mod figures;
pub mod health;
pub mod housekeeping;
pub mod labels;
pub mod lane;
pub mod live_groups;
pub mod peers;
pub mod queries;
pub mod read_turns;
mod recorded;
pub mod transfer;
pub mod unreadable;

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use carillon_core::clock::UnixMs;
use carillon_core::job::{
    Admission, AttemptRecord, DispatchMode, GroupId, Job, JobId, Lease, LeasedJob, NewJob, Priority, Settlement,
    SkipReason, SkippedTicks, State, TenantId, Token,
};

pub use audit::{AuditLog, AuditQuery, ChainHead, Chained, StoredEntry};
pub use changes::{ChangeOutcome, Edit, JobChange, Replaced};
pub use claims::{ClaimLost, ClaimOverdue, Extension};
pub use entities::{Changes, DeleteEntity, Entities, Entity, Kind, Precondition, PutEntity, Reseal};
pub use error::StoreError;
pub use figures::{Backlog, CommitStats, failure_count};
pub use health::{STUCK, StoreHealth, Work};
pub use lane::GroupBacklog;
pub use peers::{Heartbeat, Member, MemberList, NodeRecord, Peers, Signal, Signals};
pub use queries::{JobFilter, JobsQuery, NameFilter, NamesQuery, Stats, TickRecord, Ticked, TicksQuery};
pub use recorded::{Audit, Recorded};
pub use transfer::{Cell, Checksum, Counters, Key, PageRange, Row, RowDigest, TABLES, Table, shown};

/// Largest number of jobs in one [`Jobs::insert`].
pub const INSERT_LIMIT: usize = 10_000;

/// Returns [`StoreError::Conflict`] if these are too many jobs for one insert.
pub fn check_count(jobs: usize) -> Result<(), StoreError> {
    let error = || StoreError::Conflict(format!("{jobs} jobs are too many for one insert: {INSERT_LIMIT}"));
    if jobs > INSERT_LIMIT { Err(error()) } else { Ok(()) }
}

/// Failures that a confirmed write survives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// A crash of the program or of the database, and a loss of power: each commit is flushed to disk.
    #[default]
    Full,
    /// A crash of the program. A loss of power can undo the newest commits, but damages nothing.
    Normal,
}

/// Jobs of one request; all of them are stored, or none.
#[derive(Clone, Debug, Default)]
pub struct Insert {
    /// Jobs, in the order in which they are stored.
    pub jobs: Vec<NewJob>,
    /// Idempotency key of the request: a repetition gets the recorded response and stores nothing.
    pub once: Option<IdempotentRequest>,
}

/// Returns whether all of these jobs are stored without a condition.
pub fn are_unconditional<R: AsRef<NewJob>>(jobs: &[R]) -> bool {
    jobs.iter().all(|job| job.as_ref().admission == Admission::Always)
}

impl From<Vec<NewJob>> for Insert {
    fn from(jobs: Vec<NewJob>) -> Self {
        Self { jobs, once: None }
    }
}

/// Writes the response to a request from the outcomes of its jobs.
pub type WriteAnswer = Arc<dyn Fn(&[InsertOutcome]) -> String + Send + Sync>;

/// A request that is carried out once, however often the producer sends it.
#[derive(Clone)]
pub struct IdempotentRequest {
    /// Owning tenant.
    pub tenant: TenantId,
    /// Idempotency key, chosen by the producer.
    pub key: String,
    /// Fingerprint of the request's content; requests that differ have different fingerprints.
    pub fingerprint: String,
    /// Time of the request.
    pub now: UnixMs,
    /// Time until which the request is remembered.
    pub expires_at: UnixMs,
    /// Writes the response, which is stored with the jobs: their outcomes are known only in the transaction. Not stored if all jobs were skipped.
    pub answer: WriteAnswer,
}

impl std::fmt::Debug for IdempotentRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Once").field("key", &self.key).finish_non_exhaustive()
    }
}

/// Result of a request to store jobs.
#[derive(Clone, Debug, PartialEq)]
pub enum InsertResult {
    /// Outcome of each job, in order.
    Placed(Vec<InsertOutcome>),
    /// The request was carried out before; this is the recorded response.
    Replayed(String),
}

/// Outcome of one job of an [`Insert`].
#[derive(Clone, Debug, PartialEq)]
pub enum InsertOutcome {
    /// The job is stored.
    Stored {
        /// Time when the job is due; later than the requested time if the job was debounced.
        run_at: UnixMs,
        /// Whether the record of the job's debounce key was unreadable, and was treated as absent.
        forgotten: bool,
        /// Waiting jobs of the same schedule, or of the same name, that the job has cancelled.
        cancelled: Vec<JobId>,
    },
    /// Another job has the same dedupe key.
    Duplicate(Box<Job>),
    /// Another waiting job will do this job's work.
    Debounced(Box<Job>),
    /// Another job waits for this job's debounce key, and carries its request from now on.
    Carried {
        /// The waiting job, after the change.
        job: Box<Job>,
        /// The waiting job, before the change.
        before: Box<Job>,
    },
    /// The job is left out: its tick was handled before, or the job that it was to replace is in a state that prevents it.
    Skipped,
    /// The job is left out: its tick makes no job.
    TickSkipped(SkipReason),
}

impl InsertOutcome {
    /// Returns the outcome of a job that is stored as it was given.
    #[must_use]
    pub fn stored(job: &NewJob) -> Self {
        Self::stored_instead(job, Vec::new())
    }

    /// Returns the outcome of a job that is stored as it was given, and has cancelled others.
    #[must_use]
    pub fn stored_instead(job: &NewJob, cancelled: Vec<JobId>) -> Self {
        Self::Stored { run_at: job.run_at, forgotten: false, cancelled }
    }

    /// Returns whether the job itself is stored.
    #[must_use]
    pub fn is_stored(&self) -> bool {
        matches!(self, Self::Stored { .. })
    }

    /// Returns whether nothing was done for the job.
    #[must_use]
    pub fn is_skipped(&self) -> bool {
        matches!(self, Self::Skipped | Self::TickSkipped(_))
    }
}

/// A claim: which due jobs are to be leased.
#[derive(Clone, Debug)]
pub struct ClaimDue {
    /// Latest `run_at` of the jobs; it may lie shortly after the current time.
    pub due_by: UnixMs,
    /// Time when the leases end.
    pub lease_until: UnixMs,
    /// How the claimed jobs are dispatched.
    pub mode: DispatchMode,
    /// Groups to claim from, with the largest number of jobs of each.
    pub quotas: Vec<(GroupId, u32)>,
    /// Parts of these quotas that go to certain priorities before the most urgent jobs, where such jobs are due.
    pub owed: Vec<Owed>,
}

/// A lease whose attempt is to be cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Abort {
    /// Lease of the job.
    pub lease: Lease,
    /// How the job was dispatched: a consumer holds the lease of a pulled one.
    pub mode: DispatchMode,
}

/// Starts that a priority of a group is owed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owed {
    /// A group that has a quota.
    pub group: GroupId,
    /// Priority of the jobs.
    pub priority: Priority,
    /// Number of starts, at most the quota.
    pub count: u32,
}

/// Outcome of a settlement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SettleOutcome {
    /// The job is now in this state. The state is `Cancelled` where a cancel had been requested and the job would have been retried.
    Applied(State),
    /// The lease was no longer valid for its holder; nothing was written.
    LeaseLost,
}

/// Rows that [`Jobs::prune`] may remove.
#[derive(Clone, Debug, Default)]
pub struct Prune {
    /// States, with the time up to which jobs that ended in them may go. Where that is cheaper, they stay up to half as long again (as of `now`).
    pub ended: Vec<(State, UnixMs)>,
    /// Time up to which ticks may be removed; each schedule's newest tick stays known.
    pub ticks: UnixMs,
    /// Time up to which entries of the audit log may be removed.
    pub audit: UnixMs,
    /// Current time: records of producers' keys that expired by then are removed.
    pub now: UnixMs,
    /// Largest number of jobs to remove, and of the other rows.
    pub limit: u32,
}

/// Verbs on jobs.
#[async_trait]
pub trait Jobs: Send + Sync {
    /// Stores jobs, all or none, each under its [`carillon_core::job::Admission`]. Fails with [`StoreError::NoSuchGroup`] for a missing group or one
    /// of another tenant, [`StoreError::Conflict`] for a taken id or over [`INSERT_LIMIT`] jobs, [`StoreError::KeyReused`] for another request's key.
    async fn insert(&self, insert: Insert) -> Result<InsertResult, StoreError>;

    /// Returns the groups with unblocked waiting jobs and their first times. The cost grows with groups and priorities in use, not with jobs.
    async fn waiting(&self) -> Result<Vec<GroupBacklog>, StoreError>;

    /// Leases due jobs: `scheduled` → `running`, with a new token. Within each group, owed jobs come first, then the order is priority, `run_at`,
    /// id. This and the other claims end a stored job that cannot be read as `dead` and leave it out; lists leave it out, too.
    async fn claim_due(&self, claim: ClaimDue) -> Result<Vec<LeasedJob>, StoreError>;

    /// Returns at most `limit` leases that end at `until` or before, as seen at `now`, in the order of their ends.
    async fn ending_leases(&self, now: UnixMs, until: UnixMs, limit: u32) -> Result<Vec<(Lease, UnixMs)>, StoreError>;

    /// Leases jobs anew whose leases ended without a settlement; `lost_leases` rises.
    async fn claim_lost(&self, claim: ClaimLost) -> Result<Vec<LeasedJob>, StoreError>;

    /// Returns at most `limit` leases whose attempts are to be cut off, because a newer run of the schedule waits for the job's end.
    async fn aborts(&self, limit: u32) -> Result<Vec<Abort>, StoreError>;

    /// Lowers `lost_leases` by one for jobs whose leases were lost although their holder was alive, so that newer leases are in force.
    async fn excuse(&self, lost: Vec<Lease>) -> Result<(), StoreError>;

    /// Leases waiting jobs whose deadlines have passed, so that the caller settles them as expired.
    async fn claim_overdue(&self, claim: ClaimOverdue) -> Result<Vec<LeasedJob>, StoreError>;

    /// Returns the job that a tenant's consumer holds under this lease, if the lease is the newest one and does not end before `now`.
    async fn held(
        &self,
        tenant: TenantId,
        id: JobId,
        token: Token,
        now: UnixMs,
    ) -> Result<Option<LeasedJob>, StoreError>;

    /// Moves the end of leases; returns for each whether it was still valid for its holder.
    async fn extend(&self, leases: Vec<Lease>, extension: Extension) -> Result<Vec<bool>, StoreError>;

    /// Writes settlements with attempts and follow-up jobs, each only under the newest lease, and returns the outcomes in order. A follow-up job of a
    /// group that no longer exists is left out.
    async fn settle(&self, settlements: Vec<Settlement>) -> Result<Vec<SettleOutcome>, StoreError>;

    /// Returns whether writes, failed ones aside, take effect in the order in which they begin: a later claim then sees an earlier settlement.
    fn keeps_order(&self) -> bool;

    /// Makes one change to several of a tenant's jobs; returns the outcome for each.
    async fn change(
        &self,
        tenant: TenantId,
        ids: Vec<JobId>,
        change: JobChange,
        now: UnixMs,
    ) -> Result<Vec<ChangeOutcome>, StoreError>;

    /// Removes ended jobs with their attempts, old rows, and deleted groups' jobs; returns how many. From `limit` on, there may be more to remove.
    async fn prune(&self, what: Prune) -> Result<u32, StoreError>;

    /// Returns a tenant's job. Fails with [`StoreError::Unreadable`] for one that cannot be read; [`Jobs::change`] can still cancel or purge it.
    async fn job(&self, tenant: TenantId, id: JobId) -> Result<Option<Job>, StoreError>;

    /// Returns the payload of a tenant's job.
    async fn body(&self, tenant: TenantId, id: JobId) -> Result<Option<Bytes>, StoreError>;

    /// Returns a page of jobs. This and the reads of single jobs, lists and counts below are for clients: tenants take turns, and no read takes
    /// longer than [`read_turns::READ_TIME`] ([`StoreError::ReadTimeout`]).
    async fn jobs(&self, query: JobsQuery) -> Result<Vec<Job>, StoreError>;

    /// Returns the same page for the server's own work: outside of these turns, and in as much time as a transaction may take.
    async fn jobs_to_change(&self, query: JobsQuery) -> Result<Vec<Job>, StoreError>;

    /// Returns a page of a tenant's jobs over all groups, ignoring the filter's group. The cost grows with the number of groups, not of jobs.
    async fn jobs_of_tenant(&self, query: JobsQuery) -> Result<Vec<Job>, StoreError>;

    /// Returns the newest job of each name in any state, by name. The cost does not grow with the jobs of other names.
    async fn newest_of_names(&self, query: NamesQuery) -> Result<Vec<Job>, StoreError>;

    /// Counts jobs.
    async fn count(&self, filter: JobFilter) -> Result<u64, StoreError>;

    /// Returns the size of these jobs' payloads and documents, and of their attempts with the recorded bodies, in bytes. Reads none of them.
    async fn job_bytes(&self, ids: Vec<JobId>) -> Result<u64, StoreError>;

    /// Counts the unfinished jobs of all groups of a tenant.
    async fn unfinished(&self, tenant: TenantId) -> Result<u64, StoreError>;

    /// Returns the progress of each schedule that has had a tick, or of these schedules. The cost does not grow with other schedules.
    async fn ticked(&self, schedules: Option<Vec<i64>>) -> Result<Vec<Ticked>, StoreError>;

    /// Records that ticks made no job. Returns false where the schedule's progress includes the first of them: another node was earlier.
    async fn skip_ticks(&self, skipped: Vec<(i64, SkippedTicks)>) -> Result<Vec<bool>, StoreError>;

    /// Returns a page of a schedule's ticks, newest first. The cost does not grow with other schedules' ticks.
    async fn ticks(&self, query: TicksQuery) -> Result<Vec<TickRecord>, StoreError>;

    /// Returns at most `limit` attempts of a tenant's job with a number above `after`, in order.
    async fn attempts(
        &self,
        tenant: TenantId,
        id: JobId,
        after: u32,
        limit: u32,
    ) -> Result<Vec<AttemptRecord>, StoreError>;

    /// Returns how many calls share the writer's commits, for the metrics.
    fn commit_stats(&self) -> CommitStats;

    /// Returns the outcomes of the last calls that the server depends on.
    fn health(&self) -> &StoreHealth;

    /// Does the work of an insert and undoes it, then writes and removes a small job's bytes: fails if an insert would. Counts as [`Work::Accept`].
    async fn probe(&self, id: JobId, now: UnixMs) -> Result<(), StoreError>;

    /// Returns the numbers of jobs that wait at `now`. The time that it takes is proportional to the number of waiting jobs.
    async fn backlog(&self, now: UnixMs) -> Result<Backlog, StoreError>;

    /// Counts a group's jobs.
    async fn stats(&self, tenant: TenantId, group: GroupId, now: UnixMs) -> Result<Stats, StoreError>;

    /// Refuses further calls, answers the accepted ones, and closes the database.
    async fn close(&self);
}

/// All verbs of a backend.
pub trait Store: Jobs + Entities + AuditLog {}

impl<T: Jobs + Entities + AuditLog> Store for T {}
