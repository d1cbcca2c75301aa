//! Entities in memory, indexed by name and number. Pure except for decryption.

mod lookups;
mod order;
mod quotas;
mod tokens;
#[cfg(test)]
mod touched;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex};

use anyhow::Context as _;
use serde_json::Value;

use super::bulks::Bulk;
use super::decode::{plugin_of, read};
use super::entities::{Group, GroupRecord, Key, PluginVersion, SHARED, StoredTenant, Tenant};
use super::keys::key_of;
use super::presets::{Preset, Presets};
use super::quotas::Ledger;
use super::schedules::Schedule;
use super::secrets::Vault;
use super::signers::Signers;
use super::token::ApiToken;
use super::versions::{Binding, Rollout, roles_of, slot_of};
use carillon_core::job::{GroupId, TenantId};
use carillon_core::limits::TenantLimits;
use carillon_policy::Digest;
use carillon_policy::binding::{Document, PluginName, Quota};
use carillon_store::{Entity, Kind};

/// A tenant and its groups, as they become with a change of the tenant.
pub(super) struct PreparedTenant {
    tenant: Arc<Tenant>,
    groups: Vec<Arc<Group>>,
}

/// All configured entities.
pub(super) struct CatalogState {
    pub(super) server_defaults: Value,
    pub(super) presets: Presets,
    /// Default bounds of what a tenant keeps.
    pub(super) tenant_limits: TenantLimits,
    /// Sums of what each tenant keeps.
    pub(super) ledger: Ledger,
    /// Version of each entity in memory, with the data that its removal needs.
    known: HashMap<i64, (i64, TenantId, Kind, String)>,
    /// Number of each entity in memory, so that a removal looks at no other entity.
    ids: HashMap<(TenantId, Kind, String), i64>,
    builtins: BTreeMap<String, Arc<PluginVersion>>,
    tenants: HashMap<TenantId, Arc<Tenant>>,
    tenant_names: BTreeMap<String, TenantId>,
    groups: HashMap<GroupId, Arc<Group>>,
    group_names: BTreeMap<(TenantId, String), GroupId>,
    /// Groups that have an observer.
    observed: HashSet<GroupId>,
    keys: BTreeMap<(TenantId, String), Arc<Key>>,
    /// Number of changes of each tenant's keys.
    keys_epochs: HashMap<TenantId, u64>,
    tokens: BTreeMap<(TenantId, String), Arc<ApiToken>>,
    token_hashes: HashMap<String, Arc<ApiToken>>,
    /// Versions of each tenant's plugins by owner and name; those that are shared belong to [`SHARED`].
    plugins: BTreeMap<(TenantId, String), BTreeMap<semver::Version, Arc<PluginVersion>>>,
    bulks: BTreeMap<(TenantId, String), Arc<Bulk>>,
    schedules: BTreeMap<(TenantId, String), Arc<Schedule>>,
    /// Versions that are not in force, by group and number.
    bindings: BTreeMap<(GroupId, i64), Arc<Binding>>,
}

impl CatalogState {
    pub(super) fn new(
        server_defaults: Value,
        presets: Presets,
        builtins: Vec<Arc<PluginVersion>>,
        tenant_limits: TenantLimits,
    ) -> Self {
        Self {
            server_defaults,
            presets,
            tenant_limits,
            ledger: Ledger::default(),
            known: HashMap::new(),
            ids: HashMap::new(),
            builtins: builtins.into_iter().map(|plugin| (plugin.name.clone(), plugin)).collect(),
            tenants: HashMap::new(),
            tenant_names: BTreeMap::new(),
            groups: HashMap::new(),
            group_names: BTreeMap::new(),
            observed: HashSet::new(),
            keys: BTreeMap::new(),
            keys_epochs: HashMap::new(),
            tokens: BTreeMap::new(),
            token_hashes: HashMap::new(),
            plugins: BTreeMap::new(),
            bulks: BTreeMap::new(),
            schedules: BTreeMap::new(),
            bindings: BTreeMap::new(),
        }
    }

    /// Loads all entities of the store at the start. An entity that cannot be read is left out, so that it does not keep a server from starting.
    pub(super) fn load(&mut self, entities: Vec<Entity>, vault: &Vault) {
        for entity in self.order(entities, &[]).0 {
            // `apply` has logged the error.
            drop(self.apply(entity, None, vault));
        }
    }

    /// Splits changes into the entities that are newer than those in memory, in the order in which they are applied, and the ones to remove.
    pub(super) fn order(
        &self,
        mut entities: Vec<Entity>,
        gone: &[i64],
    ) -> (Vec<Entity>, Vec<(TenantId, Kind, String)>) {
        entities.retain(|entity| self.known.get(&entity.id).is_none_or(|(version, ..)| *version < entity.version));
        entities.sort_by_key(|entity| order::rank(entity.kind));
        let gone = gone.iter().filter_map(|id| self.known.get(id).cloned());
        (entities, gone.map(|(_, tenant, kind, name)| (tenant, kind, name)).collect())
    }

    /// Returns the numbers of the entities in memory that the store no longer has.
    pub(super) fn gone(&self, entities: &[Entity]) -> Vec<i64> {
        let there: HashSet<i64> = entities.iter().map(|entity| entity.id).collect();
        self.known.keys().filter(|id| !there.contains(id)).copied().collect()
    }

    /// Applies an added or changed entity. One that cannot be read is left out, but recorded as present in the store: what depends on it
    /// waits. What belongs to a deleted tenant is left out, and removed by the housekeeping.
    pub(super) fn apply(
        &mut self,
        entity: Entity,
        prepared: Option<PreparedTenant>,
        vault: &Vault,
    ) -> anyhow::Result<()> {
        if !self.is_owner_known(entity.tenant) {
            let (kind, name) = (entity.kind.as_str(), &entity.name);
            tracing::debug!(tenant = entity.tenant, kind, name, "ignored an entity of a deleted tenant");
            return Ok(());
        }
        let (id, tenant, kind, name) = (entity.id, TenantId(entity.tenant), entity.kind, entity.name.clone());
        let known = (entity.version, tenant, kind, name.clone());
        self.remember(id, known.clone());
        self.ledger.put(tenant, kind, &name, &entity.doc);
        self.apply_readable(entity, prepared, vault).inspect_err(|error| {
            let (tenant, kind, error) = (tenant.0, kind.as_str(), format!("{error:#}"));
            tracing::error!(tenant, kind, name, error, "ignored a stored entity that cannot be read");
            self.remove(TenantId(tenant), known.2, &name);
            self.remember(id, known);
        })
    }

    /// Records that the store has an entity.
    fn remember(&mut self, id: i64, known: (i64, TenantId, Kind, String)) {
        let (_, tenant, kind, name) = &known;
        let before = self.ids.insert((*tenant, *kind, name.clone()), id);
        // An entity that was removed and made again, of which only the latter has been seen.
        if let Some(before) = before.filter(|before| *before != id) {
            self.known.remove(&before);
        }
        self.known.insert(id, known);
    }

    /// Returns whether the store has a tenant of this number, even one that cannot be read. Tenants and shared plugins have no owner.
    fn is_owner_known(&self, owner: i64) -> bool {
        owner == SHARED.0 || self.known.get(&owner).is_some_and(|(_, _, kind, _)| *kind == Kind::Tenant)
    }

    fn apply_readable(
        &mut self,
        entity: Entity,
        prepared: Option<PreparedTenant>,
        vault: &Vault,
    ) -> anyhow::Result<()> {
        let tenant = TenantId(entity.tenant);
        match entity.kind {
            Kind::Tenant => self.apply_tenant(entity, prepared)?,
            Kind::Group => self.apply_group(&entity)?,
            Kind::Key => {
                let owner = self.tenants.get(&tenant).map_or("", |tenant| &tenant.name);
                let key = key_of(&entity, read(&entity)?, owner, vault);
                self.keys.insert((tenant, entity.name.clone()), Arc::new(key));
                self.key_changed(tenant, &entity.name);
            }
            Kind::ApiToken => self.apply_token(entity)?,
            Kind::Plugin => {
                let plugin = plugin_of(&entity)?;
                let versions = self.plugins.entry((tenant, plugin.name.clone())).or_default();
                versions.insert(plugin.version.clone(), Arc::new(plugin));
            }
            Kind::Schedule => {
                let schedule = Schedule::from_record(&entity, read(&entity)?);
                self.schedules.insert((tenant, schedule.name.clone()), Arc::new(schedule));
            }
            Kind::Bulk => {
                let bulk = Bulk { id: entity.name.clone(), tenant, created_at: entity.created_at, doc: read(&entity)? };
                self.bulks.insert((tenant, entity.name), Arc::new(bulk));
            }
            Kind::Binding => {
                let slot = slot_of(&entity.name).with_context(|| format!("the binding `{}`", entity.name))?;
                self.bindings.insert(slot, Arc::new(read(&entity)?));
            }
            // The store's wrapper keeps these keys.
            Kind::DataKey => {}
        }
        Ok(())
    }

    /// Removes a deleted entity, and with a tenant all that belongs to it. Returns the components of the versions of plugins among them.
    pub(super) fn remove(&mut self, tenant: TenantId, kind: Kind, name: &str) -> Vec<Digest> {
        let mut components = Vec::new();
        if kind == Kind::Tenant {
            let id = self.ids.iter().find(|((_, kind, known), _)| *kind == Kind::Tenant && known == name);
            if let Some(id) = id.map(|(_, id)| TenantId(*id)) {
                for (kind, name) in self.owned_by(id) {
                    components.extend(self.remove_one(id, kind, &name));
                }
                self.keys_epochs.remove(&id);
            }
        }
        components.extend(self.remove_one(tenant, kind, name));
        components
    }

    /// Removes an entity. For a version of a plugin, returns its component.
    fn remove_one(&mut self, tenant: TenantId, kind: Kind, name: &str) -> Option<Digest> {
        let slot = (tenant, name.to_owned());
        self.ledger.remove(tenant, kind, name);
        if let Some(id) = self.ids.remove(&(tenant, kind, name.to_owned())) {
            self.known.remove(&id);
        }
        match kind {
            Kind::Tenant => {
                if let Some(id) = self.tenant_names.remove(name) {
                    self.tenants.remove(&id);
                }
            }
            Kind::Bulk => drop(self.bulks.remove(&slot)),
            Kind::Schedule => drop(self.schedules.remove(&slot)),
            Kind::Binding => drop(slot_of(name).and_then(|slot| self.bindings.remove(&slot))),
            Kind::Group => {
                if let Some(id) = self.group_names.remove(&slot) {
                    self.groups.remove(&id);
                    self.observed.remove(&id);
                }
            }
            Kind::Key => {
                self.keys.remove(&slot);
                self.key_changed(tenant, name);
            }
            Kind::ApiToken => self.forget_token(&slot),
            Kind::DataKey => {}
            Kind::Plugin => {
                let PluginName { name, version } = PluginName::from(name);
                let slot = (tenant, name);
                let versions = self.plugins.get_mut(&slot)?;
                let removed = versions.remove(&version?.parse().ok()?)?;
                if versions.is_empty() {
                    self.plugins.remove(&slot);
                }
                return Some(removed.doc.digest.clone());
            }
        }
        None
    }

    /// Returns whether a plugin of any tenant has this component.
    pub(super) fn has_component(&self, digest: &Digest) -> bool {
        let uploaded = self.plugins.values().flat_map(BTreeMap::values);
        self.builtins.values().chain(uploaded).any(|plugin| plugin.doc.digest == *digest)
    }

    /// Computes what a changed tenant and its groups become: work in proportion to what the tenant has stored, for which others need not wait.
    pub(super) fn prepare_tenant(&self, entity: &Entity) -> anyhow::Result<PreparedTenant> {
        let StoredTenant { doc, suspended } = read(entity)?;
        let id = TenantId(entity.id);
        let quota = Quota::parse(doc.quota).with_context(|| format!("the quota of the tenant `{}`", entity.name))?;
        let signers = Signers::parse(doc.plugin_signers)
            .with_context(|| format!("the signers of plugins of the tenant `{}`", entity.name))?;
        let (name, defaults, created_at, revision) =
            (entity.name.clone(), doc.defaults, entity.created_at, entity.version);
        let tenant = Arc::new(Tenant { id, name, defaults, quota, signers, suspended, created_at, revision });
        let groups = self.groups_of(id).map(|group| self.rebuilt(&tenant, group)).collect();
        Ok(PreparedTenant { tenant, groups })
    }

    /// Applies a changed tenant. Nothing may have changed since it was `prepared`.
    fn apply_tenant(&mut self, entity: Entity, prepared: Option<PreparedTenant>) -> anyhow::Result<()> {
        let id = TenantId(entity.id);
        self.tenant_names.insert(entity.name.clone(), id);
        let PreparedTenant { tenant, groups } = match prepared {
            Some(prepared) => prepared,
            None => self.prepare_tenant(&entity)?,
        };
        self.tenants.insert(id, Arc::clone(&tenant));
        for group in groups {
            self.keep_group(group);
        }
        self.rebuild_tokens(&tenant);
        Ok(())
    }

    fn apply_group(&mut self, entity: &Entity) -> anyhow::Result<()> {
        let Some(tenant) = self.tenant_of(entity) else { return Ok(()) };
        let doc: GroupRecord = read(entity)?;
        let id = GroupId(entity.id);
        let effective = self.effective(&tenant, Some(&entity.name), &doc.policy).map(Arc::new);
        let rollout = doc.rollout.unwrap_or_else(|| self.unversioned(&tenant, entity, &doc.policy));
        let before = self.group_names.insert((tenant.id, entity.name.clone()), id);
        if let Some(before) = before.filter(|before| *before != id) {
            self.groups.remove(&before);
            self.observed.remove(&before);
        }
        let group = Group {
            id,
            tenant,
            name: entity.name.clone(),
            version: entity.version,
            binding: rollout.active.number,
            paused: doc.paused,
            own: Document::from(&doc.policy),
            effective,
            rollout: Arc::new(rollout),
            created_at: entity.created_at,
            updated_at: entity.updated_at,
            plan: Arc::default(),
            variants: Mutex::default(),
        };
        self.keep_group(Arc::new(group));
        Ok(())
    }

    fn keep_group(&mut self, group: Arc<Group>) {
        if group.has_observer() {
            self.observed.insert(group.id);
        } else {
            self.observed.remove(&group.id);
        }
        self.groups.insert(group.id, group);
    }

    /// Makes the rollout of a group that was stored before policies had versions: its attempts recorded the version of the group's entity.
    fn unversioned(&self, tenant: &Tenant, entity: &Entity, own: &Value) -> Rollout {
        let effective = self.effective(tenant, Some(&entity.name), own);
        let plugins = effective.map(|effective| self.bound_plugins(tenant.id, &effective));
        Rollout::new(Binding {
            number: entity.version,
            policy: Document::from(&roles_of(own)),
            by: None,
            why: None,
            made_at: entity.updated_at,
            plugins: plugins.unwrap_or_default(),
        })
    }

    /// Returns a number that rises whenever one of the tenant's keys changes. The plans of its groups are then made again when they are
    /// needed, whether they use that key or not, so that a change costs nothing for groups without work.
    pub(super) fn keys_epoch(&self, tenant: TenantId) -> u64 {
        self.keys_epochs.get(&tenant).copied().unwrap_or(0)
    }

    fn key_changed(&mut self, tenant: TenantId, key: &str) {
        *self.keys_epochs.entry(tenant).or_default() += 1;
        let depends = |preset: &Preset| preset.keyed.as_ref().is_some_and(|keyed| keyed.key == key);
        let groups =
            self.presets.iter().filter(|(_, preset)| depends(preset)).map(|(group, _)| (tenant, group.clone()));
        let ids: Vec<_> = groups.filter_map(|group| self.group_names.get(&group).copied()).collect();
        self.rebuild(tenant, ids);
    }

    fn rebuild(&mut self, tenant: TenantId, groups: Vec<GroupId>) {
        for id in groups {
            let (Some(old), Some(tenant)) = (self.groups.get(&id).cloned(), self.tenants.get(&tenant).cloned()) else {
                continue;
            };
            let group = self.rebuilt(&tenant, &old);
            self.keep_group(group);
        }
    }

    /// Returns a group under its tenant as it is now.
    fn rebuilt(&self, tenant: &Arc<Tenant>, old: &Group) -> Arc<Group> {
        let effective = self.effective(tenant, Some(&old.name), &old.own.value()).map(Arc::new);
        Arc::new(old.with(Arc::clone(tenant), old.binding, old.own.clone(), effective))
    }

    /// Returns the tenant of an entity; `None` if the tenant was deleted while another node wrote the entity. Such an entity stays invisible.
    fn tenant_of(&self, entity: &Entity) -> Option<Arc<Tenant>> {
        let tenant = self.tenants.get(&TenantId(entity.tenant)).cloned();
        if tenant.is_none() {
            tracing::info!(kind = entity.kind.as_str(), name = entity.name, "ignored an entity of a deleted tenant");
        }
        tenant
    }
}
