//! The catalog: tenants, groups, schedules, keys, tokens and plugins, in memory, with the durable copy in the store.
//!
//! Role: answers what is configured, changes it, and leads from a job's group to its plan: the binding with its plugins loaded and its keys
//! ready.
//!
//! Not: a loop, or any decision about jobs.
//!
//! Invariants: a write goes to the store first, then to memory, and is in force when it returns. A read touches no database, so the delivery
//! of a job costs the same for any number of groups. A policy is put in force in the transaction that sees its plugins, and a plugin is
//! deleted in one that sees that nothing has begun to use it. One store has one master key, or two while it changes.
//!
//! May import: `carillon-core`, `-store`, `-policy`; it is the only crate that imports chacha20poly1305.

mod audit;
mod bindings;
mod budget;
mod bulks;
mod by;
mod canaries;
mod change;
mod decode;
mod entities;
mod error;
mod groups;
mod key_grants;
mod keys;
mod layers;
mod master_key;
mod memory;
mod plan_cache;
mod plans;
mod plugins;
mod presets;
mod quotas;
mod refresh;
mod rotation;
mod schedules;
mod sealing;
mod secrets;
mod shared_plugins;
mod signers;
mod state;
#[cfg(test)]
mod stored_documents;
mod tenant_ends;
mod tenants;
mod tickets;
mod token;
mod tokens;
mod tried;
mod validation;
mod versions;

use std::sync::{Arc, RwLockReadGuard};

use async_trait::async_trait;
use bytes::Bytes;
use serde::Serialize;
use serde_json::{Map, Value};
use tokio::sync::Notify;

pub use self::audit::{AuditSink, NewAuditEntry};
pub use self::bindings::Proposed;
pub use self::budget::{CheckBudget, CheckLimits};
pub use self::bulks::{BULK_RETENTION, Bulk, BulkAction, BulkRecord};
pub use self::by::By;
pub use self::entities::{AccessRole, Group, Key, KeyVersion, PluginVersion, SHARED, Tenant, TenantRecord};
pub use self::error::CatalogError;
pub use self::groups::{PutGroup, Written};
pub use self::key_grants::KeyGrants;
pub use self::keys::{KeyValue, Overlap};
pub use self::master_key::{MasterKey, Unfit, unlock};
pub use self::plugins::Upload;
pub use self::presets::{KeyedPreset, Preset, Presets};
pub use self::rotation::{SealedValues, Servers, rotate_master_key, sealed_values};
pub use self::schedules::{Schedule, ScheduleSpec};
pub use self::sealing::{Encryption, SealedStore};
pub use self::secrets::{Vault, token_hash};
pub use self::shared_plugins::Sharing;
pub use self::signers::{SignerInput, Signers};
pub use self::tenants::{PutTenant, TenantPatch, TenantUsage};
pub use self::tickets::TICKET_MAC_LEN;
pub use self::token::{ApiToken, NewToken, TokenAuthor};
pub use self::tokens::{FIRST_OPERATOR, Rotation, recover_operator};
pub use self::tried::{Canary, Shadow};
pub use self::versions::{Action, Author, Binding, BoundPlugin, Initiator, Move, Rollout};

use self::audit::Cause;
use self::decode::plugin_version;
use self::memory::Memory;
use self::plan_cache::Plans;
use self::state::CatalogState;
use carillon_core::audit::Origin;
use carillon_core::clock::{Clock, UnixMs};
use carillon_core::job::TenantId;
use carillon_core::limits::{RequestLimits, TenantLimits};
use carillon_policy::{ComponentSource, Digest, Runtime, describe};
use carillon_store::{DeleteEntity, Entity, Kind, Precondition, PutEntity, Store};

/// Name of the tenant that exists from the start.
pub const DEFAULT_TENANT: &str = "default";

/// Tenant column of the entity of a tenant.
const NO_TENANT: i64 = 0;

/// Bounds that no group can exceed.
#[derive(Clone, Copy, Debug)]
pub struct PolicyBounds {
    /// Maximum of [`carillon_policy::binding::GroupLimits::timeout`].
    pub max_timeout: std::time::Duration,
    /// Maximum of [`carillon_policy::binding::GroupLimits::recorded_body`].
    pub max_recorded_body: usize,
    /// Bounds of documents and of their parts.
    pub requests: RequestLimits,
    /// Default bounds of what a tenant keeps.
    pub tenants: TenantLimits,
    /// Bounds of the config checks of one request.
    pub checks: CheckLimits,
}

/// The catalog: all configured entities.
pub struct Catalog {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    /// Name of this node in the audit log.
    node: String,
    runtime: Arc<Runtime>,
    vault: Arc<Vault>,
    bounds: PolicyBounds,
    builtins: Builtins,
    plans: Plans,
    memory: Arc<Memory>,
    /// Held while an entity is changed, so that only other nodes can be faster.
    changing: tokio::sync::Mutex<()>,
    /// Held while a part is merged into a group's document, before `changing`.
    merging: tokio::sync::Mutex<()>,
    /// Held while a plugin is accepted, so that concurrent uploads count for a tenant's quota.
    accepting: tokio::sync::Mutex<()>,
}

/// Parts of which a catalog is made.
pub struct CatalogOptions {
    /// Durable copy.
    pub store: Arc<dyn Store>,
    /// Clock for the times of changes.
    pub clock: Arc<dyn Clock>,
    /// Policy runtime, which loads and calls plugins.
    pub runtime: Arc<Runtime>,
    /// Vault that encrypts keys.
    pub vault: Vault,
    /// Bounds that no group can exceed.
    pub bounds: PolicyBounds,
    /// Settings that every group inherits.
    pub server_defaults: Value,
    /// Settings that groups of certain names also inherit.
    pub presets: Presets,
    /// Name of this node in the audit log.
    pub node: String,
    /// Receives each entry of the audit log after it is stored.
    pub audit_sink: AuditSink,
}

/// Components that are embedded in this binary.
struct Builtins(Vec<(Digest, &'static [u8])>);

#[async_trait]
impl ComponentSource for Builtins {
    async fn component(&self, digest: &Digest) -> Result<Option<Bytes>, String> {
        Ok(self.0.iter().find(|(known, _)| known == digest).map(|(_, bytes)| Bytes::from_static(bytes)))
    }
}

#[async_trait]
impl ComponentSource for Catalog {
    async fn component(&self, digest: &Digest) -> Result<Option<Bytes>, String> {
        match self.builtins.component(digest).await? {
            Some(component) => Ok(Some(component)),
            None => self.store.component(&digest.0).await.map_err(|error| error.to_string()),
        }
    }
}

impl Catalog {
    /// Reads all entities from the store, and makes the default tenant if it does not exist.
    ///
    /// # Errors
    /// Returns an error if the store fails, or holds what this version cannot read.
    pub async fn open(options: CatalogOptions) -> anyhow::Result<Self> {
        let components =
            carillon_default_plugins::ALL.iter().map(|plugin| (Digest::from_bytes(plugin.component), plugin.component));
        let builtins = Builtins(components.collect());
        let now = options.clock.now();
        let mut versions = Vec::new();
        for (digest, component) in &builtins.0 {
            let plugin = options.runtime.registry.get(digest, &builtins).await?;
            let described = describe(&options.runtime, TenantId(NO_TENANT), &plugin, component.len()).await?;
            versions.push(Arc::new(plugin_version(described.name, &described.version, true, described.doc, now)?));
        }
        let vault = Arc::new(options.vault);
        let state = CatalogState::new(options.server_defaults, options.presets, versions, options.bounds.tenants);
        let (store, runtime) = (Arc::clone(&options.store), Arc::clone(&options.runtime));
        let memory = Memory::open(store, runtime, Arc::clone(&vault), state, options.audit_sink).await?;
        let catalog = Self {
            plans: Plans::new(options.runtime.loaded_limit),
            store: options.store,
            clock: options.clock,
            node: options.node,
            runtime: options.runtime,
            vault,
            bounds: options.bounds,
            builtins,
            memory: Arc::new(memory),
            changing: tokio::sync::Mutex::new(()),
            merging: tokio::sync::Mutex::new(()),
            accepting: tokio::sync::Mutex::new(()),
        };
        if !catalog.state().is_tenant_known(DEFAULT_TENANT) {
            let doc = TenantRecord { defaults: Value::Object(Map::new()), ..TenantRecord::default() };
            catalog.put_tenant(DEFAULT_TENANT, doc, &Origin::system()).await?;
        }
        catalog.forget_orphans().await?;
        Ok(catalog)
    }

    /// Returns a notification that fires after each change.
    #[must_use]
    pub fn changed(&self) -> &Notify {
        self.memory.changed()
    }

    fn state(&self) -> RwLockReadGuard<'_, CatalogState> {
        self.memory.state()
    }

    async fn put(&self, put: PutEntity) -> Result<Entity, CatalogError> {
        validation::nesting(&put.doc)?;
        self.memory.put(put).await
    }

    async fn delete(&self, cause: &Cause<'_>, tenant: TenantId, kind: Kind, name: &str) -> Result<bool, CatalogError> {
        self.delete_unchanged(cause, tenant, kind, name, None).await
    }

    /// Removes an entity if nothing has changed since this generation.
    async fn delete_unchanged(
        &self,
        cause: &Cause<'_>,
        tenant: TenantId,
        kind: Kind,
        name: &str,
        generation: Option<i64>,
    ) -> Result<bool, CatalogError> {
        let (now, audit) = (self.now(), self.audit(cause, tenant, kind, name));
        self.memory.delete(DeleteEntity { tenant: tenant.0, kind, name: name.to_owned(), now, generation, audit }).await
    }

    fn entity(
        &self,
        cause: &Cause<'_>,
        tenant: TenantId,
        kind: Kind,
        name: &str,
        doc: Value,
        expect: Precondition,
    ) -> PutEntity {
        let (now, needs, component) = (self.now(), Vec::new(), None);
        let audit = self.audit(cause, tenant, kind, name);
        PutEntity { tenant: tenant.0, kind, name: name.to_owned(), doc, now, expect, needs, component, audit }
    }

    fn now(&self) -> UnixMs {
        self.clock.now()
    }
}

fn document(doc: &impl Serialize) -> Value {
    #[expect(clippy::expect_used, reason = "these structs have string keys only, so they are JSON")]
    serde_json::to_value(doc).expect("a document is JSON")
}
