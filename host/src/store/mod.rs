//! What is kept. Each verb is one transaction, takes and returns facts, and decides nothing.
//!
//! A verb that has returned `Ok` is durable: it survives `kill -9` and a power cut. A verb that has failed has changed nothing.
//! The module `conformance` states the rest of the contract as tests that run against every backend.

#[cfg(test)]
mod conformance;
mod sqlite;

use async_trait::async_trait;
use bytes::Bytes;

use crate::clock::UnixMs;
use crate::job::{AttemptRecord, GroupId, Job, JobId, Leased, NewJob, Settlement, State, TenantId, Token};

pub use sqlite::{Durability, SqliteOptions, SqliteStore};

/// The most jobs that one [`Jobs::insert`] takes.
pub const INSERT_LIMIT: usize = 10_000;

/// Why a verb failed. Knows nothing of HTTP.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// The group is not there, or is being deleted.
    #[error("the group does not exist")]
    NoSuchGroup,
    /// The entity exists already, or its version is not the expected one.
    #[error("{0}")]
    Conflict(String),
    /// The database cannot be reached, is full, or is shutting down. The same call may go through later.
    #[error("the store is unavailable: {0}")]
    Unavailable(String),
    /// The database holds something that this program did not write.
    #[error("the store is inconsistent: {0}")]
    Corrupt(String),
}

/// A group that has jobs waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// Which.
    pub group: GroupId,
    /// When the first of them is due.
    pub earliest: UnixMs,
}

/// Which jobs are to be leased.
#[derive(Clone, Debug)]
pub struct ClaimDue {
    /// Jobs with a `run_at` up to this are due.
    pub now: UnixMs,
    /// When the leases end.
    pub lease_until: UnixMs,
    /// From which groups, and how many at most from each.
    pub quotas: Vec<(GroupId, u32)>,
}

/// What a settlement did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// The job is now in this state. It is `Cancelled` where a cancel had been asked for and the job would have been retried.
    Applied(State),
    /// The lease was no longer ours; nothing was written.
    LeaseLost,
}

/// What a cancel did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cancelled {
    /// It waited and is now `cancelled`.
    Now,
    /// An attempt is being made; unless it succeeds, the job will be `cancelled` when it is over.
    Requested,
    /// It had already ended, in this state.
    Already(State),
    /// The tenant has no such job.
    Unknown,
}

/// A page of a group's jobs, newest first.
#[derive(Clone, Debug)]
pub struct JobsQuery {
    /// Whose.
    pub tenant: TenantId,
    /// Of which group.
    pub group: GroupId,
    /// Only those in this state.
    pub state: Option<State>,
    /// Only those of exactly this name.
    pub name: Option<String>,
    /// Only those accepted before this one.
    pub before: Option<JobId>,
    /// At most this many.
    pub limit: u32,
}

/// Exact counts of a group's jobs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize, utoipa::ToSchema)]
pub struct Stats {
    /// Waiting, due or not.
    pub scheduled: u64,
    /// Leased.
    pub running: u64,
    /// Ended well.
    pub succeeded: u64,
    /// Dead letters.
    pub dead: u64,
    /// Ended because their time ran out.
    pub expired: u64,
    /// Ended because somebody cancelled them.
    pub cancelled: u64,
    /// Waiting and due.
    pub available: u64,
    /// The same as `running`: the queue's word for it.
    pub in_flight: u64,
    /// Waiting and not yet due.
    pub delayed: u64,
}

/// Jobs that ended in `state` before `before` may go.
#[derive(Clone, Copy, Debug)]
pub struct Prune {
    /// A final state.
    pub state: State,
    /// The newest `finished_at` that goes.
    pub before: UnixMs,
}

/// How many commits there were, and for how many calls: calls ÷ commits is the mean size of a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CommitStats {
    /// Transactions committed.
    pub commits: u64,
    /// Calls that were answered by them, those that failed included.
    pub calls: u64,
    /// The most calls in one transaction so far.
    pub largest: u64,
}

/// The jobs.
#[async_trait]
pub trait Jobs: Send + Sync {
    /// Stores jobs, all or none. Fails with [`StoreError::NoSuchGroup`] if a group is not there or not its job's tenant's, and with
    /// [`StoreError::Conflict`] if an id is taken or there are more than [`INSERT_LIMIT`].
    async fn insert(&self, jobs: Vec<NewJob>) -> Result<(), StoreError>;

    /// The groups that have waiting jobs, with the time of the first of each. Its cost grows with the groups, not with the jobs.
    async fn waiting(&self) -> Result<Vec<Waiting>, StoreError>;

    /// Leases due jobs in the order of `run_at` (then id) within each group: `scheduled` → `running`, with a new token. A stored job
    /// that cannot be read is logged and left out, so that it does not stop the others.
    async fn claim_due(&self, claim: ClaimDue) -> Result<Vec<Leased>, StoreError>;

    /// Leases anew, at most `limit` of them, jobs whose lease ended at `now` or before without being settled; `lost_leases` rises.
    async fn claim_expired(&self, now: UnixMs, lease_until: UnixMs, limit: u32) -> Result<Vec<Leased>, StoreError>;

    /// Moves the end of leases. The answer says for each whether it was still ours.
    async fn extend(&self, leases: Vec<(JobId, Token)>, lease_until: UnixMs) -> Result<Vec<bool>, StoreError>;

    /// Writes settlements with their attempts, each only if its lease is still the newest. Answers in the order of the input.
    async fn settle(&self, settlements: Vec<Settlement>) -> Result<Vec<Settled>, StoreError>;

    /// Cancels a tenant's job.
    async fn cancel(&self, tenant: TenantId, id: JobId, now: UnixMs) -> Result<Cancelled, StoreError>;

    /// Removes jobs with their attempts that ended long enough ago, and those of deleted groups; at most `limit`. Returns how many.
    async fn prune(&self, what: Vec<Prune>, limit: u32) -> Result<u32, StoreError>;

    /// A tenant's job.
    async fn job(&self, tenant: TenantId, id: JobId) -> Result<Option<Job>, StoreError>;

    /// The payload of a tenant's job.
    async fn body(&self, tenant: TenantId, id: JobId) -> Result<Option<Bytes>, StoreError>;

    /// A page of jobs.
    async fn jobs(&self, query: JobsQuery) -> Result<Vec<Job>, StoreError>;

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

    /// Counts a group's jobs.
    async fn stats(&self, tenant: TenantId, group: GroupId, now: UnixMs) -> Result<Stats, StoreError>;
}

/// What kind of thing an [`Entity`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// Its own tenant column is 0.
    Tenant,
    /// A task group.
    Group,
    /// A signing key, encrypted.
    Key,
    /// An API token, hashed.
    ApiToken,
    /// A version of a plugin: its name is `name@version`.
    Plugin,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 5] = [Self::Tenant, Self::Group, Self::Key, Self::ApiToken, Self::Plugin];

    /// The name in the store.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tenant => "tenant",
            Self::Group => "group",
            Self::Key => "key",
            Self::ApiToken => "token",
            Self::Plugin => "plugin",
        }
    }
}

/// Something that is configured, not scheduled. There are few of them, and every node holds all of them in memory.
#[derive(Clone, Debug, PartialEq)]
pub struct Entity {
    /// Unique among all entities, never used again; a group's [`GroupId`] and a tenant's [`TenantId`].
    pub id: i64,
    /// The owner, 0 for a tenant.
    pub tenant: i64,
    /// What it is.
    pub kind: Kind,
    /// Unique among the tenant's entities of this kind.
    pub name: String,
    /// 1 at first, one more with each change.
    pub version: i64,
    /// Its content.
    pub doc: serde_json::Value,
    /// When it was made.
    pub created_at: UnixMs,
    /// When it was last changed.
    pub updated_at: UnixMs,
}

/// A new or changed entity.
#[derive(Clone, Debug)]
pub struct PutEntity {
    /// See [`Entity`].
    pub tenant: i64,
    /// See [`Entity`].
    pub kind: Kind,
    /// See [`Entity`].
    pub name: String,
    /// See [`Entity`].
    pub doc: serde_json::Value,
    /// The time of the change.
    pub now: UnixMs,
    /// What must be there now.
    pub expect: Expect,
}

/// What a put expects to find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// Whatever.
    Anything,
    /// Nothing.
    Nothing,
    /// The entity in exactly this version.
    Version(i64),
}

/// The configured things.
#[async_trait]
pub trait Entities: Send + Sync {
    /// All entities, and the generation that they belong to. It rises with each change, so equal generations mean equal entities.
    async fn load(&self) -> Result<(i64, Vec<Entity>), StoreError>;

    /// The generation of the newest change.
    async fn generation(&self) -> Result<i64, StoreError>;

    /// Writes an entity. Fails with [`StoreError::Conflict`] if `expect` does not hold.
    async fn put(&self, put: PutEntity) -> Result<Entity, StoreError>;

    /// Removes an entity; false if it was not there. A group's jobs go with it, a bounded number at each [`Jobs::prune`];
    /// fails with [`StoreError::Conflict`] while the group has waiting or running jobs.
    async fn delete(&self, tenant: i64, kind: Kind, name: String, now: UnixMs) -> Result<bool, StoreError>;

    /// Stores the bytes of a component under their sha-256 in hex; storing them again changes nothing.
    async fn put_component(&self, digest: String, component: Bytes) -> Result<(), StoreError>;

    /// The bytes of a component.
    async fn component(&self, digest: &str) -> Result<Option<Bytes>, StoreError>;
}

/// Everything that a backend must do.
pub trait Store: Jobs + Entities {}

impl<T: Jobs + Entities> Store for T {}
