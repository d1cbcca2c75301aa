//! What is configured, not scheduled.

use std::collections::BTreeSet;

use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::StoreError;
use carillon_core::clock::UnixMs;

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
    /// A schedule.
    Schedule,
    /// A change of many jobs that goes on in the background.
    Bulk,
    /// A version of a group's policy that is not in force: its name is `group number/version`.
    Binding,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 8] =
        [Self::Tenant, Self::Group, Self::Key, Self::ApiToken, Self::Plugin, Self::Schedule, Self::Bulk, Self::Binding];

    /// The name in the store.
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
        }
    }
}

/// Something that is configured, not scheduled. There are few of them, and every node holds all of them in memory.
#[derive(Clone, Debug, PartialEq)]
pub struct Entity {
    /// Unique among all entities, never used again; a group's [`GroupId`](carillon_core::job::GroupId) and a tenant's [`TenantId`](carillon_core::job::TenantId).
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
    pub expect: Precondition,
    /// The versions of plugins, with their tenants, without which it makes no sense.
    pub needs: Vec<(i64, String)>,
    /// Of a plugin: the sha-256 in hex that its document names as `digest`, and the bytes, which are kept as long as a plugin names them.
    pub component: Option<(String, Bytes)>,
}

impl PutEntity {
    /// Whether what is expected is there, in the version that was found.
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

/// What is said of a plugin that a put needs, and that is not there.
pub fn no_plugin(name: &str) -> StoreError {
    StoreError::Conflict(format!("the plugin `{name}` does not exist"))
}

/// Whether nothing has changed since a generation, if one is given.
pub fn check_generation(expected: Option<i64>, found: i64) -> Result<(), StoreError> {
    match expected {
        Some(expected) if expected != found => {
            Err(StoreError::Conflict("something else was configured in the same moment".to_owned()))
        }
        _ => Ok(()),
    }
}

/// What has changed since a generation.
#[derive(Clone, Debug, PartialEq)]
pub struct Changes {
    /// The generation up to which it is complete. It may hold later changes, too.
    pub generation: i64,
    /// What is new or has changed, as it is now.
    pub changed: Vec<Entity>,
    /// The ids of what has gone.
    pub gone: Vec<i64>,
}

/// How many of the newest changes are known one by one.
const CHANGES_KEPT: usize = 64;

/// The newest changes, as a generation and the id of an entity each, in their order. Kept next to the generation, as JSON.
///
/// A program that does not know them leaves a gap, which shows: each change has a generation of its own.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RecentChanges(Vec<(i64, i64)>);

impl RecentChanges {
    /// Those that are kept as `text`; none if they cannot be read.
    pub fn read(text: &str) -> Self {
        serde_json::from_str(text).unwrap_or_default()
    }

    /// Takes down a change of an entity.
    pub fn record(&mut self, generation: i64, entity: i64) {
        self.0.push((generation, entity));
        let surplus = self.0.len().saturating_sub(CHANGES_KEPT);
        self.0.drain(..surplus);
    }

    /// The entities that have changed between two generations, if all of these changes are known.
    pub fn between(&self, since: i64, now: i64) -> Option<BTreeSet<i64>> {
        let newer: Vec<_> = self.0.iter().filter(|(generation, _)| *generation > since && *generation <= now).collect();
        let has_all = newer.iter().map(|(generation, _)| *generation).eq(since + 1..=now);
        (has_all && since <= now).then(|| newer.iter().map(|(_, entity)| *entity).collect())
    }
}

/// What a put expects to find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precondition {
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

    /// What has changed since an earlier generation. None if that is not known any more: then everything is to be loaded.
    async fn changes(&self, since: i64) -> Result<Option<Changes>, StoreError>;

    /// The generation of the newest change.
    async fn generation(&self) -> Result<i64, StoreError>;

    /// Writes an entity. Fails with [`StoreError::Conflict`] if `expect` does not hold, or something that it needs is not there.
    async fn put(&self, put: PutEntity) -> Result<Entity, StoreError>;

    /// Removes an entity; false if it was not there. The bytes of a plugin go with the last version, of any tenant, that names them. A
    /// group's jobs go with it, a bounded number at each [`Jobs::prune`](super::Jobs::prune);
    /// fails with [`StoreError::Conflict`] while the group has waiting or running jobs, and if anything has changed since a
    /// `generation` that is given: what was looked at then may no longer hold.
    async fn delete(
        &self,
        tenant: i64,
        kind: Kind,
        name: String,
        now: UnixMs,
        generation: Option<i64>,
    ) -> Result<bool, StoreError>;

    /// What was sealed with the master key of the first server on this database; none if no server has kept anything yet.
    async fn sealed_proof(&self) -> Result<Option<String>, StoreError>;

    /// Keeps a proof of the master key unless there is one other than `instead_of`, and returns the one that is kept from now on.
    async fn keep_proof(&self, sealed: String, instead_of: Option<String>) -> Result<String, StoreError>;

    /// The bytes of a component.
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
