//! What is configured: tenants, groups, keys, tokens, plugins. All of it is in memory; the store has the durable copy.
//!
//! A write goes to the store first and is in force when it returns. Reads touch no database, so the way of a job pays nothing
//! for the number of groups.

mod check;
mod entities;
mod plans;
mod secrets;
mod state;

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use async_trait::async_trait;
use bytes::Bytes;
use serde::Serialize;
use serde_json::{Map, Value};
use tokio::sync::Notify;

pub use self::check::Rejected;
pub use self::entities::{AccessRole, ApiToken, Group, Key, PluginDoc, PluginVersion, Tenant};
pub use self::secrets::{Vault, token_hash};

use self::entities::{GroupDoc, KeyDoc, TenantDoc, TokenDoc};
use self::secrets::new_token;
use self::state::{State, plugin_version};
use crate::clock::{Clock, UnixMs};
use crate::job::{GroupId, TenantId};
use crate::policy::binding::{Effective, Invalid, PluginName, override_configs};
use crate::policy::{ComponentSource, Digest, KeyKind, KeyMaterial, LoadError, Plugin, Runtime};
use crate::store::{Entity, Expect, Kind, PutEntity, Store, StoreError};

/// The tenant that exists from the start.
pub const DEFAULT_TENANT: &str = "default";

/// The tenant column of a tenant.
const NO_TENANT: i64 = 0;

/// Bounds that no group can pass.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Of [`crate::policy::binding::GroupLimits::timeout`].
    pub max_timeout: std::time::Duration,
    /// Of [`crate::policy::binding::GroupLimits::concurrency`].
    pub max_concurrency: u32,
}

/// Everything that is configured.
pub struct Catalog {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    runtime: Arc<Runtime>,
    vault: Vault,
    bounds: Bounds,
    builtins: Builtins,
    state: RwLock<State>,
    writing: tokio::sync::Mutex<()>,
    changed: Notify,
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
    pub bounds: Bounds,
    /// What every group inherits.
    pub server_defaults: Value,
}

/// The components that this binary brings along.
struct Builtins(Vec<(Digest, &'static [u8])>);

#[async_trait]
impl ComponentSource for Builtins {
    async fn component(&self, digest: &Digest) -> Option<Bytes> {
        self.0.iter().find(|(known, _)| known == digest).map(|(_, bytes)| Bytes::from_static(bytes))
    }
}

#[async_trait]
impl ComponentSource for Catalog {
    async fn component(&self, digest: &Digest) -> Option<Bytes> {
        match self.builtins.component(digest).await {
            Some(component) => Some(component),
            None => self.store.component(&digest.0).await.ok().flatten(),
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
            let described = describe(&options.runtime, &plugin, component.len()).await?;
            versions.push(Arc::new(plugin_version(described.name, &described.version, true, described.doc, now)?));
        }
        let (_, entities) = options.store.load().await?;
        let mut state = State::new(options.server_defaults, versions);
        state.apply_all(entities, &options.vault)?;
        let catalog = Self {
            store: options.store,
            clock: options.clock,
            runtime: options.runtime,
            vault: options.vault,
            bounds: options.bounds,
            builtins,
            state: RwLock::new(state),
            writing: tokio::sync::Mutex::new(()),
            changed: Notify::new(),
        };
        if catalog.tenant(DEFAULT_TENANT).is_none() {
            catalog.put_tenant(DEFAULT_TENANT, Value::Object(Map::new())).await?;
        }
        Ok(catalog)
    }

    /// Wakes when something has changed.
    #[must_use]
    pub fn changed(&self) -> &Notify {
        &self.changed
    }

    fn state(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    async fn put(&self, put: PutEntity) -> Result<Entity, Rejected> {
        let _writing = self.writing.lock().await;
        let entity = self.store.put(put).await?;
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        state.apply(entity.clone(), &self.vault).map_err(|error| StoreError::Corrupt(format!("{error:#}")))?;
        drop(state);
        self.changed.notify_waiters();
        Ok(entity)
    }

    async fn delete(&self, tenant: TenantId, kind: Kind, name: &str) -> Result<bool, Rejected> {
        let _writing = self.writing.lock().await;
        let removed = self.store.delete(tenant.0, kind, name.to_owned(), self.clock.now()).await?;
        if removed {
            self.state.write().unwrap_or_else(PoisonError::into_inner).remove(tenant, kind, name);
            self.changed.notify_waiters();
        }
        Ok(removed)
    }
}

/// Tenants.
impl Catalog {
    /// The tenant of this name.
    #[must_use]
    pub fn tenant(&self, name: &str) -> Option<Arc<Tenant>> {
        self.state().tenant(name).cloned()
    }

    /// All tenants, by name.
    #[must_use]
    pub fn tenants(&self) -> Vec<Arc<Tenant>> {
        self.state().tenants().cloned().collect()
    }

    /// Makes or changes a tenant.
    ///
    /// # Errors
    /// If the name is not a name, or one of the tenant's groups would no longer make sense.
    pub async fn put_tenant(&self, name: &str, defaults: Value) -> Result<Arc<Tenant>, Rejected> {
        check::name("tenant", name)?;
        let id = self.tenant(name).map(|tenant| tenant.id);
        let candidate = Tenant {
            id: id.unwrap_or(TenantId(NO_TENANT)),
            name: name.to_owned(),
            defaults,
            created_at: self.clock.now(),
        };
        let groups = id.map(|id| self.groups(id)).unwrap_or_default();
        let owns: Vec<_> = groups.iter().map(|group| group.own.clone()).chain([Value::Object(Map::new())]).collect();
        for own in owns {
            let effective = self.state().effective(&candidate, &own).map_err(|error| error.within("/defaults"))?;
            self.check_policy(&candidate, &effective).await.map_err(|error| error.within("/defaults"))?;
        }
        let doc = document(&TenantDoc { defaults: candidate.defaults });
        self.put(self.entity(TenantId(NO_TENANT), Kind::Tenant, name, doc, Expect::Anything)).await?;
        self.tenant(name).ok_or(Rejected::Gone)
    }
}

/// Groups.
impl Catalog {
    /// The tenant's group of this name.
    #[must_use]
    pub fn group(&self, tenant: TenantId, name: &str) -> Option<Arc<Group>> {
        self.state().group(tenant, name).cloned()
    }

    /// The group with this number, whoever owns it.
    #[must_use]
    pub fn group_by_id(&self, id: GroupId) -> Option<Arc<Group>> {
        self.state().group_by_id(id).cloned()
    }

    /// The tenant's groups, by name.
    #[must_use]
    pub fn groups(&self, tenant: TenantId) -> Vec<Arc<Group>> {
        self.state().groups_of(tenant).cloned().collect()
    }

    /// What would be in force for a group with this own policy, checked as for a put; nothing is written.
    ///
    /// # Errors
    /// If it makes no sense, with a pointer to what does not.
    pub async fn candidate(&self, tenant: &Tenant, own: &Value) -> Result<Effective, Rejected> {
        let effective = self.state().effective(tenant, own)?;
        self.check_policy(tenant, &effective).await?;
        Ok(effective)
    }

    /// The layers that a group's policy is made of, lowest first, and their merger's provenance.
    #[must_use]
    pub fn provenance(&self, group: &Group) -> std::collections::BTreeMap<String, String> {
        let doc = group.effective.as_ref().map(|effective| effective.doc.clone()).unwrap_or_default();
        let state = self.state();
        crate::policy::binding::provenance(&doc, &state.layers(&group.tenant, &group.own))
    }

    /// Makes or changes a group; the answer says whether it is new. A paused group stays paused.
    ///
    /// # Errors
    /// If the policy makes no sense, with a pointer to what does not.
    pub async fn put_group(&self, tenant: &Tenant, name: &str, own: Value) -> Result<(Arc<Group>, bool), Rejected> {
        check::name("group", name)?;
        let own = self.pin(tenant.id, own);
        self.candidate(tenant, &own).await?;
        let before = self.group(tenant.id, name);
        let paused = before.as_ref().is_some_and(|group| group.paused);
        self.write_group(tenant.id, name, &GroupDoc { policy: own, paused }, Expect::Anything).await?;
        Ok((self.group(tenant.id, name).ok_or(Rejected::Gone)?, before.is_none()))
    }

    /// Lets a group's jobs wait, or go on.
    ///
    /// # Errors
    /// If the group was changed at the same moment.
    pub async fn set_paused(&self, group: &Group, paused: bool) -> Result<(), Rejected> {
        let doc = GroupDoc { policy: group.own.clone(), paused };
        self.write_group(group.tenant.id, &group.name, &doc, Expect::Version(group.version)).await
    }

    /// Removes a group and, by and by, its finished jobs. False if there is none.
    ///
    /// # Errors
    /// If it has unfinished jobs.
    pub async fn delete_group(&self, tenant: TenantId, name: &str) -> Result<bool, Rejected> {
        self.delete(tenant, Kind::Group, name).await
    }

    /// A group's policy with a job's overrides over it, checked.
    ///
    /// # Errors
    /// If the overrides make no sense, with a pointer into them.
    pub async fn check_overrides(&self, group: &Group, overrides: &Value) -> Result<(), Rejected> {
        let effective = self.overridden(group, overrides)?;
        self.check_policy(&group.tenant, &effective).await.map_err(Rejected::without_config)
    }

    fn overridden(&self, group: &Group, overrides: &Value) -> Result<Effective, Invalid> {
        let mut doc = group.effective.as_ref().map_err(Clone::clone)?.doc.clone();
        override_configs(&mut doc, overrides)?;
        Effective::parse(doc, &|name| self.state().digest_of(group.tenant.id, name))
    }

    async fn write_group(&self, tenant: TenantId, name: &str, doc: &GroupDoc, expect: Expect) -> Result<(), Rejected> {
        self.put(self.entity(tenant, Kind::Group, name, document(doc), expect)).await.map(drop)
    }

    /// Writes the version of each of the tenant's own plugins into a policy, so that an upload changes no group.
    fn pin(&self, tenant: TenantId, mut own: Value) -> Value {
        let state = self.state();
        let pin = |used: &mut Value| {
            let Some(Value::String(text)) = used.get_mut("plugin") else { return };
            let name = PluginName::from(text.as_str());
            if let Some(plugin) = state.plugin(tenant, &name).filter(|plugin| !plugin.builtin) {
                *text = format!("{}@{}", plugin.name, plugin.version);
            }
        };
        ["sign", "judge", "retry"].into_iter().filter_map(|role| own.get_mut(role).map(&pin)).for_each(drop);
        own.get_mut("encode").and_then(Value::as_array_mut).into_iter().flatten().for_each(pin);
        own
    }
}

/// Keys.
impl Catalog {
    /// The tenant's keys, by name.
    #[must_use]
    pub fn keys(&self, tenant: TenantId) -> Vec<Arc<Key>> {
        self.state().keys_of(tenant).cloned().collect()
    }

    /// The tenant's key of this name.
    #[must_use]
    pub fn key(&self, tenant: TenantId, name: &str) -> Option<Arc<Key>> {
        self.state().key(tenant, name).cloned()
    }

    /// Gives a key its value. It cannot be read again.
    ///
    /// # Errors
    /// If the value is not of the kind.
    pub async fn put_key(
        &self,
        tenant: TenantId,
        name: &str,
        kind: KeyKind,
        secret: zeroize::Zeroizing<Vec<u8>>,
    ) -> Result<(), Rejected> {
        check::name("key", name)?;
        KeyMaterial::new(name.to_owned(), kind, secret.clone()).map_err(|error| Invalid::at("/secret", error))?;
        let sealed = self.vault.seal(&key_owner(tenant, name), &secret, &*self.clock);
        let sealed = sealed.map_err(|error| Invalid::at("/secret", error.to_string()))?;
        let doc = document(&KeyDoc { kind, sealed });
        self.put(self.entity(tenant, Kind::Key, name, doc, Expect::Anything)).await.map(drop)
    }

    /// Removes a key; false if there is none.
    ///
    /// # Errors
    /// If a group signs with it.
    pub async fn delete_key(&self, tenant: TenantId, name: &str) -> Result<bool, Rejected> {
        let signs = |group: &Arc<Group>| {
            let sign = group.effective.as_ref().ok().and_then(|effective| effective.sign.as_ref());
            sign.is_some_and(|sign| sign.keys.iter().any(|key| key == name))
        };
        if let Some(group) = self.groups(tenant).into_iter().find(signs) {
            return Err(Rejected::Conflict(format!("the group `{}` signs with this key", group.name)));
        }
        self.delete(tenant, Kind::Key, name).await
    }
}

/// API tokens.
impl Catalog {
    /// What a token lets its bearer do.
    #[must_use]
    pub fn token(&self, token: &str) -> Option<Arc<ApiToken>> {
        self.state().token_by_hash(&token_hash(token)).cloned()
    }

    /// The tenant's tokens.
    #[must_use]
    pub fn tokens(&self, tenant: TenantId) -> Vec<Arc<ApiToken>> {
        self.state().tokens_of(tenant).cloned().collect()
    }

    /// Makes a token. Its text is returned once and not kept.
    ///
    /// # Errors
    /// If the store does not take it.
    pub async fn create_token(
        &self,
        tenant: TenantId,
        name: &str,
        role: AccessRole,
        operator: bool,
    ) -> Result<(Arc<ApiToken>, String), Rejected> {
        let token = new_token(&*self.clock);
        let made = self.add_token(tenant, name, role, operator, &token).await?;
        Ok((made, token))
    }

    /// Lets `token`, whose text somebody else has chosen, in.
    ///
    /// # Errors
    /// If the store does not take it.
    pub async fn add_token(
        &self,
        tenant: TenantId,
        name: &str,
        role: AccessRole,
        operator: bool,
        token: &str,
    ) -> Result<Arc<ApiToken>, Rejected> {
        let mut id = [0; 8];
        self.clock.fill_random(&mut id);
        let id = hex::encode(id);
        let doc = document(&TokenDoc { hash: token_hash(token), name: name.to_owned(), role, operator });
        self.put(self.entity(tenant, Kind::ApiToken, &id, doc, Expect::Nothing)).await?;
        self.token(token).ok_or(Rejected::Gone)
    }

    /// Revokes a token; false if there is none.
    ///
    /// # Errors
    /// If the store does not answer.
    pub async fn delete_token(&self, tenant: TenantId, id: &str) -> Result<bool, Rejected> {
        self.delete(tenant, Kind::ApiToken, id).await
    }
}

/// Plugins.
impl Catalog {
    /// A plugin that the tenant can see; the newest version if none is named.
    #[must_use]
    pub fn plugin(&self, tenant: TenantId, name: &PluginName) -> Option<Arc<PluginVersion>> {
        self.state().plugin(tenant, name).cloned()
    }

    /// Every plugin version that the tenant can see, the server's own first.
    #[must_use]
    pub fn plugins(&self, tenant: TenantId) -> Vec<Arc<PluginVersion>> {
        self.state().plugins_of(tenant).cloned().collect()
    }

    /// Accepts a component as a version of one of the tenant's plugins; the answer says whether it is new. The same bytes again
    /// are accepted again; other bytes under the same version are not.
    ///
    /// # Errors
    /// Whatever keeps it from being that plugin, as a sentence for its author.
    pub async fn put_plugin(
        &self,
        tenant: TenantId,
        name: &str,
        version: &str,
        component: Bytes,
    ) -> Result<(Arc<PluginVersion>, bool), Rejected> {
        check::name("plugin", name)?;
        if self.state().is_builtin(name) {
            return Err(Rejected::Conflict(format!("`{name}` is one of the server's own plugins")));
        }
        let full = PluginName { name: name.to_owned(), version: Some(version.to_owned()) };
        let digest = Digest::of(&component);
        if let Some(known) = self.plugin(tenant, &full) {
            return if known.doc.digest == digest {
                Ok((known, false))
            } else {
                Err(Rejected::Conflict(format!(
                    "`{full}` exists with the digest {}; a version never changes",
                    known.doc.digest
                )))
            };
        }
        let plugin = self.runtime.registry.admit(&component).await?;
        let described = describe(&self.runtime, &plugin, component.len()).await?;
        if described.name != name || described.version != version {
            let said = format!("{}@{}", described.name, described.version);
            return Err(
                LoadError::Description(format!("it calls itself `{said}`, but was uploaded as `{full}`")).into()
            );
        }
        plugin_version(described.name, version, false, described.doc.clone(), self.clock.now())
            .map_err(|error| LoadError::Description(error.to_string()))?;
        self.store.put_component(digest.to_string(), component).await?;
        let doc = document(&described.doc);
        self.put(self.entity(tenant, Kind::Plugin, &full.to_string(), doc, Expect::Nothing)).await?;
        Ok((self.plugin(tenant, &full).ok_or(Rejected::Gone)?, true))
    }

    fn entity(&self, tenant: TenantId, kind: Kind, name: &str, doc: Value, expect: Expect) -> PutEntity {
        PutEntity { tenant: tenant.0, kind, name: name.to_owned(), doc, now: self.now(), expect }
    }

    fn now(&self) -> UnixMs {
        self.clock.now()
    }
}

/// A plugin's own words, read.
struct Described {
    name: String,
    version: String,
    doc: PluginDoc,
}

async fn describe(runtime: &Runtime, plugin: &Arc<Plugin>, size: usize) -> Result<Described, LoadError> {
    let (asked, limits) = (Arc::clone(plugin), Arc::clone(&runtime.limits));
    let called = runtime.threads.run(GroupId(0), move || asked.describe(&limits)).await;
    let said = called.and_then(|called| called.result).map_err(|fault| LoadError::Description(fault.to_string()))?;
    let schema: Value = serde_json::from_str(&said.config_schema)
        .map_err(|error| LoadError::Description(format!("its config schema is not JSON: {error}")))?;
    let doc = PluginDoc {
        digest: plugin.digest.clone(),
        roles: plugin.roles(),
        summary: said.summary,
        config_schema: schema,
        size,
    };
    Ok(Described { name: said.name, version: said.version, doc })
}

/// Whom a sealed key belongs to.
fn key_owner(tenant: TenantId, name: &str) -> String {
    format!("{}/{name}", tenant.0)
}

fn document(doc: &impl Serialize) -> Value {
    #[expect(clippy::expect_used, reason = "these structs have string keys only, so they are JSON")]
    serde_json::to_value(doc).expect("a document is JSON")
}
