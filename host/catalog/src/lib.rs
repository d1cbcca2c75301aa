//! What is configured: tenants, groups, schedules, keys, tokens, plugins. All of it is in memory; the store has the durable copy.
//!
//! A write goes to the store first and is in force when it returns. Reads touch no database, so the way of a job pays nothing
//! for the number of groups.

mod bindings;
mod bulks;
mod canaries;
mod change;
mod decode;
mod entities;
mod error;
mod groups;
mod keys;
mod layers;
mod master_key;
mod memory;
mod plan_cache;
mod plans;
mod plugins;
mod presets;
mod refresh;
mod schedules;
mod secrets;
mod signers;
mod state;
mod tenants;
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

pub use self::bindings::Proposed;
pub use self::bulks::{BULK_RETENTION, Bulk, BulkAction, BulkDoc};
pub use self::entities::{AccessRole, ApiToken, Group, Key, KeyVersion, PluginVersion, Tenant, TenantDoc};
pub use self::error::CatalogError;
pub use self::groups::{PutGroup, Written};
pub use self::keys::{KeyValue, Overlap};
pub use self::master_key::{MasterKey, Unfit, unlock};
pub use self::plugins::Upload;
pub use self::presets::{KeyedPreset, Preset, Presets};
pub use self::schedules::{Schedule, ScheduleSpec};
pub use self::secrets::{Vault, token_hash};
pub use self::signers::{SignerDoc, Signers};
pub use self::tenants::{PutTenant, TenantPatch, TenantUsage};
pub use self::tokens::{FIRST_OPERATOR, NewToken, recover_operator};
pub use self::tried::{Canary, Shadow};
pub use self::versions::{Action, Author, Binding, BoundPlugin, Move, Rollout};

use self::decode::plugin_version;
use self::memory::{Memory, Removal};
use self::plan_cache::Plans;
use self::state::CatalogState;
use carillon_core::clock::{Clock, UnixMs};
use carillon_core::job::TenantId;
use carillon_policy::{ComponentSource, Digest, Runtime, describe};
use carillon_store::{Entity, Kind, Precondition, PutEntity, Store};

/// The tenant that exists from the start.
pub const DEFAULT_TENANT: &str = "default";

/// The tenant column of a tenant.
const NO_TENANT: i64 = 0;

/// Bounds that no group can pass.
#[derive(Clone, Copy, Debug)]
pub struct PolicyBounds {
    /// Of [`carillon_policy::binding::GroupLimits::timeout`].
    pub max_timeout: std::time::Duration,
    /// Of [`carillon_policy::binding::GroupLimits::recorded_body`].
    pub max_recorded_body: usize,
}

/// Everything that is configured.
pub struct Catalog {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    runtime: Arc<Runtime>,
    vault: Arc<Vault>,
    bounds: PolicyBounds,
    builtins: Builtins,
    plans: Plans,
    memory: Arc<Memory>,
    /// Held while an entity is changed, so that only other nodes can be faster.
    changing: tokio::sync::Mutex<()>,
    /// Held while a part of a group is laid over the rest, before `changing`.
    merging: tokio::sync::Mutex<()>,
    /// Held while a plugin is taken, so that what is taken at the same time counts for a tenant's quota.
    accepting: tokio::sync::Mutex<()>,
}

/// What a catalog is made of.
pub struct CatalogOptions {
    /// The durable copy.
    pub store: Arc<dyn Store>,
    /// The time of a change.
    pub clock: Arc<dyn Clock>,
    /// Loads and asks plugins.
    pub runtime: Arc<Runtime>,
    /// Encrypts keys.
    pub vault: Vault,
    /// What no group can pass.
    pub bounds: PolicyBounds,
    /// What every group inherits.
    pub server_defaults: Value,
    /// What the groups of some names inherit besides.
    pub presets: Presets,
}

/// The components that this binary brings along.
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
    /// Reads everything from the store, and makes the default tenant if it is not there.
    ///
    /// # Errors
    /// If the store does not answer, or holds what this version cannot read.
    pub async fn open(options: CatalogOptions) -> anyhow::Result<Self> {
        let components =
            carillon_default_plugins::ALL.iter().map(|plugin| (Digest::of(plugin.component), plugin.component));
        let builtins = Builtins(components.collect());
        let now = options.clock.now();
        let mut versions = Vec::new();
        for (digest, component) in &builtins.0 {
            let plugin = options.runtime.registry.get(digest, &builtins).await?;
            let described = describe(&options.runtime, TenantId(NO_TENANT), &plugin, component.len()).await?;
            versions.push(Arc::new(plugin_version(described.name, &described.version, true, described.doc, now)?));
        }
        let vault = Arc::new(options.vault);
        let state = CatalogState::new(options.server_defaults, options.presets, versions);
        let (store, runtime) = (Arc::clone(&options.store), Arc::clone(&options.runtime));
        let memory = Memory::open(store, runtime, Arc::clone(&vault), state).await?;
        let catalog = Self {
            plans: Plans::new(options.runtime.loaded_limit),
            store: options.store,
            clock: options.clock,
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
            let doc = TenantDoc { defaults: Value::Object(Map::new()), ..TenantDoc::default() };
            catalog.put_tenant(DEFAULT_TENANT, doc).await?;
        }
        catalog.forget_orphans().await?;
        Ok(catalog)
    }

    /// Wakes when something has changed.
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

    async fn delete(&self, tenant: TenantId, kind: Kind, name: &str) -> Result<bool, CatalogError> {
        self.delete_unchanged(tenant, kind, name, None).await
    }

    /// Removes what is there if nothing has changed since this generation.
    async fn delete_unchanged(
        &self,
        tenant: TenantId,
        kind: Kind,
        name: &str,
        generation: Option<i64>,
    ) -> Result<bool, CatalogError> {
        self.memory.delete(Removal { tenant, kind, name: name.to_owned(), now: self.now(), generation }).await
    }

    fn entity(&self, tenant: TenantId, kind: Kind, name: &str, doc: Value, expect: Precondition) -> PutEntity {
        let (now, needs, component) = (self.now(), Vec::new(), None);
        PutEntity { tenant: tenant.0, kind, name: name.to_owned(), doc, now, expect, needs, component }
    }

    fn now(&self) -> UnixMs {
        self.clock.now()
    }
}

fn document(doc: &impl Serialize) -> Value {
    #[expect(clippy::expect_used, reason = "these structs have string keys only, so they are JSON")]
    serde_json::to_value(doc).expect("a document is JSON")
}
