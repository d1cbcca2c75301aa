//! Configured entities: tenants, groups, keys, tokens, plugins, schedules, bulk changes, policies.
//!
//! Entities are not scheduled; jobs are (see [`Jobs`](super::Jobs)).

use std::collections::BTreeSet;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::StoreError;
use super::recorded::{Audit, Recorded};
use carillon_core::clock::UnixMs;

/// Kind of an [`Entity`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// A tenant.
    ///
    /// Its own `tenant` is 0.
    Tenant,
    /// A group.
    Group,
    /// A signing key, encrypted.
    Key,
    /// An API token, hashed.
    ApiToken,
    /// A version of a plugin, named `name@version`.
    Plugin,
    /// A schedule.
    Schedule,
    /// A change of many jobs that runs in the background.
    Bulk,
    /// A version of a group's policy that is not in force, named `group number/version`.
    Binding,
    /// The key that encrypts a tenant's payloads, itself encrypted.
    DataKey,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 9] = [
        Self::Tenant,
        Self::Group,
        Self::Key,
        Self::ApiToken,
        Self::Plugin,
        Self::Schedule,
        Self::Bulk,
        Self::Binding,
        Self::DataKey,
    ];

    /// Returns the kind's name in the store.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tenant => "tenant",
            Self::Group => "group",
            Self::Key => "key",
            Self::ApiToken => "token",
            Self::Plugin => "plugin",
            Self::Schedule => "schedule",
            Self::Bulk => "bulk",
            Self::Binding => "binding",
            Self::DataKey => "data_key",
        }
    }
}

/// A configured entity.
///
/// There are few entities, and every node holds all of them in memory.
#[derive(Clone, Debug, PartialEq)]
pub struct Entity {
    /// Number, unique among all entities and never used again.
    ///
    /// A group's [`GroupId`](carillon_core::job::GroupId) and a tenant's [`TenantId`](carillon_core::job::TenantId).
    pub id: i64,
    /// Owning tenant; 0 for a tenant.
    pub tenant: i64,
    /// Kind of the entity.
    pub kind: Kind,
    /// Name, unique among the tenant's entities of this kind.
    pub name: String,
    /// Version: 1 at first, raised by 1 with each change.
    pub version: i64,
    /// Content.
    pub doc: serde_json::Value,
    /// Time of creation.
    pub created_at: UnixMs,
    /// Time of the last change.
    pub updated_at: UnixMs,
}

/// A new or changed entity.
#[derive(Clone, Debug)]
pub struct PutEntity {
    /// Owning tenant; 0 for a tenant.
    pub tenant: i64,
    /// Kind of the entity.
    pub kind: Kind,
    /// Name, unique among the tenant's entities of this kind.
    pub name: String,
    /// New content.
    pub doc: serde_json::Value,
    /// Time of the change.
    pub now: UnixMs,
    /// Condition on the version that is stored now.
    pub expect: Precondition,
    /// Versions of plugins that the entity refers to, with their tenants; they must exist.
    pub needs: Vec<(i64, String)>,
    /// Only for a plugin: the SHA-256 in hex that its document names as `digest`, and the component's bytes.
    ///
    /// The bytes are kept as long as a plugin names them.
    pub component: Option<(String, Bytes)>,
    /// Entry of the audit log that is written with it.
    pub audit: Audit,
}

/// Entity to be removed.
#[derive(Clone, Debug)]
pub struct DeleteEntity {
    /// Owning tenant; 0 for a tenant.
    pub tenant: i64,
    /// Kind of the entity.
    pub kind: Kind,
    /// Name of the entity.
    pub name: String,
    /// Time of the change.
    pub now: UnixMs,
    /// Generation after which nothing may have changed, if one is given: a check that the caller made at that generation may no longer hold.
    pub generation: Option<i64>,
    /// Entry of the audit log that is written with the removal.
    pub audit: Audit,
}

impl PutEntity {
    /// Returns [`StoreError::Conflict`] unless the version that was found meets the condition.
    pub fn check(&self, found: Option<i64>) -> Result<(), StoreError> {
        let (kind, name) = (self.kind.as_str(), &self.name);
        let conflict = |text: String| Err(StoreError::Conflict(text));
        match (self.expect, found) {
            (Precondition::Anything, _) | (Precondition::Nothing, None) => Ok(()),
            (Precondition::Version(expected), Some(version)) if expected == version => Ok(()),
            (Precondition::Nothing, Some(_)) => conflict(format!("the {kind} `{name}` exists already")),
            (Precondition::Version(expected), Some(version)) => {
                conflict(format!("the {kind} `{name}` has version {version}, not {expected}"))
            }
            (Precondition::Version(_), None) => conflict(format!("the {kind} `{name}` does not exist")),
        }
    }
}

/// Sealed values that are replaced by the same values under another master key, all of them or none.
#[derive(Clone, Debug)]
pub struct Reseal {
    /// Entities with sealed values, each on the condition of its present version.
    pub entities: Vec<PutEntity>,
    /// Proof of the new master key.
    pub proof: String,
    /// Proof that must be in force.
    pub instead_of: String,
    /// Time after its last sign of life for which a server counts as running: no server may run then. `None` if servers may run.
    pub without_servers: Option<Duration>,
}

/// Returns the error for a database that servers use.
pub fn servers_run(count: u64) -> StoreError {
    StoreError::Conflict(format!("servers that use the database: {count}; stop them first"))
}

/// Returns [`StoreError::Conflict`] unless the proof that is in force is the new one.
pub fn check_proof(kept: &str, new: &str) -> Result<(), StoreError> {
    if kept == new {
        return Ok(());
    }
    Err(StoreError::Conflict("the master key of the database was changed meanwhile".to_owned()))
}

/// Returns the error for a plugin that a put needs and that does not exist.
pub fn no_plugin(name: &str) -> StoreError {
    StoreError::Conflict(format!("the plugin `{name}` does not exist"))
}

/// Returns [`StoreError::Conflict`] if the tenant of an entity that is to be written was deleted.
pub fn check_owner(is_deleted: bool) -> Result<(), StoreError> {
    if is_deleted {
        return Err(StoreError::Conflict("the tenant was deleted".to_owned()));
    }
    Ok(())
}

/// Returns [`StoreError::Conflict`] if a group that is to be deleted has unfinished jobs.
pub fn check_unfinished(group: &str, jobs: u64) -> Result<(), StoreError> {
    if jobs > 0 {
        return Err(StoreError::Conflict(format!("the group `{group}` has {jobs} waiting or running jobs")));
    }
    Ok(())
}

/// Returns [`StoreError::Conflict`] if anything has changed since the expected generation, where one is given.
pub fn check_generation(expected: Option<i64>, found: i64) -> Result<(), StoreError> {
    match expected {
        Some(expected) if expected != found => {
            Err(StoreError::Conflict("another request changed the configuration at the same time".to_owned()))
        }
        _ => Ok(()),
    }
}

/// Changes since a generation.
#[derive(Clone, Debug, PartialEq)]
pub struct Changes {
    /// Generation up to which the list is complete.
    ///
    /// The list may hold later changes, too.
    pub generation: i64,
    /// New and changed entities, in their current versions.
    pub changed: Vec<Entity>,
    /// Ids of removed entities.
    pub gone: Vec<i64>,
}

/// Number of the newest changes that are recorded one by one.
const CHANGES_KEPT: usize = 64;

/// The newest changes in order: for each, its generation and the entity's id.
///
/// Kept next to the generation, as JSON. A program version that does not write this list leaves a gap in the generations, which
/// [`between`](Self::between) detects: each change has a generation of its own.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RecentChanges(Vec<(i64, i64)>);

impl RecentChanges {
    /// Decodes the list from `text`; a list that cannot be read counts as empty.
    pub fn read(text: &str) -> Self {
        serde_json::from_str(text).unwrap_or_default()
    }

    /// Records a change of an entity.
    pub fn record(&mut self, generation: i64, entity: i64) {
        self.0.push((generation, entity));
        let surplus = self.0.len().saturating_sub(CHANGES_KEPT);
        self.0.drain(..surplus);
    }

    /// Returns the entities that changed between two generations, or None unless all of these changes are recorded.
    pub fn between(&self, since: i64, now: i64) -> Option<BTreeSet<i64>> {
        let newer: Vec<_> = self.0.iter().filter(|(generation, _)| *generation > since && *generation <= now).collect();
        let has_all = newer.iter().map(|(generation, _)| *generation).eq(since + 1..=now);
        (has_all && since <= now).then(|| newer.iter().map(|(_, entity)| *entity).collect())
    }
}

/// Condition of a put on the stored version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precondition {
    /// No condition.
    Anything,
    /// The entity does not exist.
    Nothing,
    /// The entity exists in exactly this version.
    Version(i64),
}

/// Verbs on configured entities.
#[async_trait]
pub trait Entities: Send + Sync {
    /// Returns all entities and their generation.
    ///
    /// The generation rises with each change, so equal generations mean equal entities.
    async fn load(&self) -> Result<(i64, Vec<Entity>), StoreError>;

    /// Returns the changes since an earlier generation.
    ///
    /// None if these changes are no longer recorded: the caller then loads everything.
    async fn changes(&self, since: i64) -> Result<Option<Changes>, StoreError>;

    /// Returns the generation of the newest change.
    async fn generation(&self) -> Result<i64, StoreError>;

    /// Writes an entity.
    ///
    /// Fails with [`StoreError::Conflict`] if `expect` does not hold, if something that the entity needs does not exist, or if its tenant was
    /// deleted.
    async fn put(&self, put: PutEntity) -> Result<Recorded<Entity>, StoreError>;

    /// Removes an entity; returns false if it did not exist.
    ///
    /// The bytes of a plugin's component are removed with the last version, of any tenant, that names them. A group's jobs are removed after
    /// it, a bounded number at each [`Jobs::prune`](super::Jobs::prune), and so is all that belongs to a tenant.
    ///
    /// Fails with [`StoreError::Conflict`] while the group has waiting or running jobs, and if anything has changed since the generation, where
    /// one is given.
    async fn delete(&self, delete: DeleteEntity) -> Result<Recorded<bool>, StoreError>;

    /// Returns the proof that the first server on this database sealed with its master key; None if no server has kept one yet.
    async fn sealed_proof(&self) -> Result<Option<String>, StoreError>;

    /// Keeps a proof of the master key unless there is one other than `instead_of`, and returns the proof that is now in force.
    async fn keep_proof(&self, sealed: String, instead_of: Option<String>) -> Result<String, StoreError>;

    /// Replaces sealed values and the proof of the master key in one transaction.
    ///
    /// Fails with [`StoreError::Conflict`], and changes nothing, if an entity has another version, if another proof is in force, or if servers
    /// run that may not.
    async fn reseal(&self, reseal: Reseal) -> Result<(), StoreError>;

    /// Returns the bytes of a component.
    async fn component(&self, digest: &str) -> Result<Option<Bytes>, StoreError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recent_changes_know_gaps_and_have_a_bound() {
        let mut recent = RecentChanges::default();
        for generation in 1..=100 {
            recent.record(generation, generation * 10 % 70);
        }
        let mut recent = RecentChanges::read(&serde_json::to_string(&recent).unwrap());
        assert_eq!(recent.between(98, 100), Some([990 % 70, 1_000 % 70].into()));
        assert_eq!(recent.between(100, 100), Some([].into()));
        assert_eq!(recent.between(35, 100), None, "too long ago");
        assert!(recent.between(36, 100).is_some());
        assert_eq!(recent.between(101, 100), None, "another database's");
        recent.record(102, 7);
        assert_eq!(recent.between(100, 102), None, "a program that knows nothing of this made the change before");
        assert_eq!(recent.between(101, 102), Some([7].into()));
        assert_eq!(RecentChanges::read("?").between(0, 1), None);
    }
}
