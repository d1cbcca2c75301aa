//! The entities in memory, by the names and numbers that they are looked up by. Pure but for decryption.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex};

use anyhow::Context as _;
use serde_json::Value;

use super::bulks::Bulk;
use super::entities::{ApiToken, Group, GroupDoc, Key, PluginVersion, Tenant, TenantDoc, TokenDoc};
use super::keys::key_of;
use super::presets::Presets;
use super::read::{plugin_of, read};
use super::schedules::Schedule;
use super::secrets::Vault;
use super::signers::Signers;
use super::versions::{Binding, BoundPlugin, Rollout, roles_of, slot_of};
use crate::job::{GroupId, TenantId};
use crate::policy::Digest;
use crate::policy::binding::{Effective, Invalid, PluginName, Quota, Use, lay};
use crate::store::{Entity, Kind};

/// Everything that is configured.
pub(super) struct State {
    server_defaults: Value,
    presets: Presets,
    /// The version of each entity that is here, with what it is removed by.
    known: HashMap<i64, (i64, TenantId, Kind, String)>,
    builtins: BTreeMap<String, Arc<PluginVersion>>,
    tenants: HashMap<TenantId, Arc<Tenant>>,
    tenant_names: BTreeMap<String, TenantId>,
    groups: HashMap<GroupId, Arc<Group>>,
    group_names: BTreeMap<(TenantId, String), GroupId>,
    keys: BTreeMap<(TenantId, String), Arc<Key>>,
    tokens: BTreeMap<(TenantId, String), Arc<ApiToken>>,
    token_hashes: HashMap<String, Arc<ApiToken>>,
    plugins: BTreeMap<(TenantId, String, semver::Version), Arc<PluginVersion>>,
    bulks: BTreeMap<(TenantId, String), Arc<Bulk>>,
    schedules: BTreeMap<(TenantId, String), Arc<Schedule>>,
    /// Those that are not in force, by group and number.
    bindings: BTreeMap<(GroupId, i64), Arc<Binding>>,
}

impl State {
    pub(super) fn new(server_defaults: Value, presets: Presets, builtins: Vec<Arc<PluginVersion>>) -> Self {
        Self {
            server_defaults,
            presets,
            known: HashMap::new(),
            builtins: builtins.into_iter().map(|plugin| (plugin.name.clone(), plugin)).collect(),
            tenants: HashMap::new(),
            tenant_names: BTreeMap::new(),
            groups: HashMap::new(),
            group_names: BTreeMap::new(),
            keys: BTreeMap::new(),
            tokens: BTreeMap::new(),
            token_hashes: HashMap::new(),
            plugins: BTreeMap::new(),
            bulks: BTreeMap::new(),
            schedules: BTreeMap::new(),
            bindings: BTreeMap::new(),
        }
    }

    /// Takes over all that is in the store: what is new or has changed, and that the rest has gone. The answer is the components that no
    /// plugin has any more.
    pub(super) fn apply_all(&mut self, mut entities: Vec<Entity>, vault: &Vault) -> anyhow::Result<Vec<Digest>> {
        let there: HashSet<i64> = entities.iter().map(|entity| entity.id).collect();
        let gone: Vec<_> = self.known.iter().filter(|(id, _)| !there.contains(id)).map(|(_, it)| it.clone()).collect();
        let mut components: Vec<_> =
            gone.into_iter().filter_map(|(_, tenant, kind, name)| self.remove(tenant, kind, &name)).collect();
        entities.retain(|entity| self.known.get(&entity.id).is_none_or(|(version, ..)| *version < entity.version));
        entities.sort_by_key(|entity| match entity.kind {
            Kind::Tenant => 0,
            Kind::Plugin => 1,
            Kind::Key => 2,
            Kind::Group => 3,
            Kind::ApiToken => 4,
            Kind::Schedule => 5,
            Kind::Bulk => 6,
            Kind::Binding => 7,
        });
        entities.into_iter().try_for_each(|entity| self.apply(entity, vault))?;
        components.retain(|digest| !self.has_component(digest));
        Ok(components)
    }

    /// Takes over a new or changed entity.
    pub(super) fn apply(&mut self, entity: Entity, vault: &Vault) -> anyhow::Result<()> {
        let tenant = TenantId(entity.tenant);
        self.known.insert(entity.id, (entity.version, tenant, entity.kind, entity.name.clone()));
        match entity.kind {
            Kind::Tenant => self.apply_tenant(entity)?,
            Kind::Group => self.apply_group(&entity)?,
            Kind::Key => {
                let key = key_of(&entity, read(&entity)?, vault);
                self.keys.insert((tenant, entity.name), Arc::new(key));
                self.rebuild_groups(tenant);
            }
            Kind::ApiToken => self.apply_token(entity)?,
            Kind::Plugin => {
                let plugin = plugin_of(&entity)?;
                self.plugins.insert((tenant, plugin.name.clone(), plugin.version.clone()), Arc::new(plugin));
            }
            Kind::Schedule => {
                let schedule = Schedule::of(&entity, read(&entity)?);
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
        }
        Ok(())
    }

    /// Forgets a deleted entity. Of a version of a plugin, the answer is its component.
    pub(super) fn remove(&mut self, tenant: TenantId, kind: Kind, name: &str) -> Option<Digest> {
        let slot = (tenant, name.to_owned());
        self.known.retain(|_, (_, owner, its_kind, its_name)| (*owner, *its_kind, &**its_name) != (tenant, kind, name));
        match kind {
            Kind::Tenant => {}
            Kind::Bulk => drop(self.bulks.remove(&slot)),
            Kind::Schedule => drop(self.schedules.remove(&slot)),
            Kind::Binding => drop(slot_of(name).and_then(|slot| self.bindings.remove(&slot))),
            Kind::Group => {
                if let Some(id) = self.group_names.remove(&slot) {
                    self.groups.remove(&id);
                }
            }
            Kind::Key => {
                self.keys.remove(&slot);
                self.rebuild_groups(tenant);
            }
            Kind::ApiToken => self.forget_token(&slot),
            Kind::Plugin => {
                let PluginName { name, version } = PluginName::from(name);
                let removed = self.plugins.remove(&(tenant, name, version?.parse().ok()?))?;
                return Some(removed.doc.digest.clone());
            }
        }
        None
    }

    /// Whether a plugin, of whichever tenant, is this component.
    pub(super) fn has_component(&self, digest: &Digest) -> bool {
        self.builtins.values().chain(self.plugins.values()).any(|plugin| plugin.doc.digest == *digest)
    }

    fn apply_tenant(&mut self, entity: Entity) -> anyhow::Result<()> {
        let doc: TenantDoc = read(&entity)?;
        let id = TenantId(entity.id);
        self.tenant_names.insert(entity.name.clone(), id);
        let quota = Quota::parse(doc.quota).with_context(|| format!("the quota of the tenant `{}`", entity.name))?;
        let signers = Signers::parse(doc.plugin_signers)
            .with_context(|| format!("the signers of plugins of the tenant `{}`", entity.name))?;
        let (defaults, created_at) = (doc.defaults, entity.created_at);
        let tenant = Arc::new(Tenant { id, name: entity.name, defaults, quota, signers, created_at });
        self.tenants.insert(id, Arc::clone(&tenant));
        self.rebuild_groups(id);
        self.rebuild_tokens(&tenant);
        Ok(())
    }

    fn apply_group(&mut self, entity: &Entity) -> anyhow::Result<()> {
        let doc: GroupDoc = read(entity)?;
        let id = GroupId(entity.id);
        let tenant = self.tenant_of(entity)?;
        let effective = self.effective(&tenant, Some(&entity.name), &doc.policy).map(Arc::new);
        let rollout = doc.rollout.unwrap_or_else(|| self.unversioned(&tenant, entity, &doc.policy));
        self.group_names.insert((tenant.id, entity.name.clone()), id);
        let group = Group {
            id,
            tenant,
            name: entity.name.clone(),
            version: entity.version,
            binding: rollout.active.number,
            paused: doc.paused,
            own: doc.policy,
            effective,
            rollout: Arc::new(rollout),
            created_at: entity.created_at,
            updated_at: entity.updated_at,
            plan: Arc::default(),
            variants: Mutex::default(),
        };
        self.groups.insert(id, Arc::new(group));
        Ok(())
    }

    /// What is known of the policy of a group that was written before policies had versions: its attempts recorded the group's.
    fn unversioned(&self, tenant: &Tenant, entity: &Entity, own: &Value) -> Rollout {
        let effective = self.effective(tenant, Some(&entity.name), own);
        let plugins = effective.map(|effective| self.bound_plugins(tenant.id, &effective));
        Rollout::of(Binding {
            number: entity.version,
            policy: roles_of(own),
            by: None,
            why: None,
            made_at: entity.updated_at,
            plugins: plugins.unwrap_or_default(),
        })
    }

    fn apply_token(&mut self, entity: Entity) -> anyhow::Result<()> {
        let doc: TokenDoc = read(&entity)?;
        let tenant = self.tenant_of(&entity)?;
        let slot = (tenant.id, entity.name.clone());
        self.forget_token(&slot);
        let token = Arc::new(ApiToken {
            id: entity.name,
            last_used: ApiToken::last_use_of(&doc),
            name: doc.name,
            tenant,
            role: doc.role,
            operator: doc.operator,
            created_at: entity.created_at,
            expires_at: doc.expires_at,
            hash: doc.hash,
            revision: entity.version,
        });
        self.token_hashes.insert(token.hash.clone(), Arc::clone(&token));
        self.tokens.insert(slot, token);
        Ok(())
    }

    /// Another token may be of the same text.
    fn forget_token(&mut self, slot: &(TenantId, String)) {
        let Some(token) = self.tokens.remove(slot) else { return };
        if self.token_hashes.get(&token.hash).is_some_and(|known| known.id == token.id) {
            self.token_hashes.remove(&token.hash);
        }
    }

    /// What a change of the tenant or of its keys means for its groups.
    fn rebuild_groups(&mut self, tenant: TenantId) {
        let ids: Vec<_> = self.groups_of(tenant).map(|group| group.id).collect();
        for id in ids {
            let (Some(old), Some(tenant)) = (self.groups.get(&id).cloned(), self.tenants.get(&tenant).cloned()) else {
                continue;
            };
            let effective = self.effective(&tenant, Some(&old.name), &old.own).map(Arc::new);
            let group = old.with(tenant, old.binding, old.own.clone(), effective);
            self.groups.insert(id, Arc::new(group));
        }
    }

    /// Whoever comes with a token acts for the tenant as it is now.
    fn rebuild_tokens(&mut self, tenant: &Arc<Tenant>) {
        let tokens = self.tokens.iter_mut().filter(|((owner, _), _)| *owner == tenant.id);
        for (_, token) in tokens {
            *token = Arc::new(ApiToken { tenant: Arc::clone(tenant), ..ApiToken::clone(token) });
            self.token_hashes.insert(token.hash.clone(), Arc::clone(token));
        }
    }

    fn tenant_of(&self, entity: &Entity) -> anyhow::Result<Arc<Tenant>> {
        let tenant = self.tenants.get(&TenantId(entity.tenant)).cloned();
        tenant.ok_or_else(|| anyhow::anyhow!("the {} `{}` has no tenant", entity.kind.as_str(), entity.name))
    }

    /// The layers that a group of this tenant and name is made of, lowest first.
    pub(super) fn layers<'a>(
        &'a self,
        tenant: &'a Tenant,
        group: Option<&str>,
        own: &'a Value,
    ) -> [(&'static str, &'a Value); 4] {
        [
            ("server", &self.server_defaults),
            ("tenant", &tenant.defaults),
            ("preset", self.preset(tenant.id, group)),
            ("group", own),
        ]
    }

    /// What lies under a tenant's group of this name; null if nothing does.
    pub(super) fn preset(&self, tenant: TenantId, group: Option<&str>) -> &Value {
        let preset = group.and_then(|group| self.presets.get(group));
        preset.map_or(&Value::Null, |preset| preset.of_tenant(|key| self.key(tenant, key).map(|key| &**key)))
    }

    /// What is in force for a group of this name with this own policy; without a name, for one that inherits no preset.
    pub(super) fn effective(&self, tenant: &Tenant, group: Option<&str>, own: &Value) -> Result<Effective, Invalid> {
        let mut doc = Value::Object(serde_json::Map::new());
        for (_, layer) in self.layers(tenant, group, own) {
            lay(&mut doc, layer);
        }
        Effective::parse(doc, &|name| self.digest_of(tenant.id, name))
    }

    /// The plugins of a policy, with their versions.
    pub(super) fn bound_plugins(&self, tenant: TenantId, effective: &Effective) -> Vec<BoundPlugin> {
        let bound = |used: &Use| {
            let plugin = self.plugin(tenant, &used.plugin);
            let name = plugin.map_or_else(|| used.plugin.to_string(), |it| it.full_name());
            BoundPlugin { role: used.role, plugin: name, digest: used.digest.clone() }
        };
        effective.uses().map(bound).collect()
    }

    /// A version of a group's policy that is, or was, not in force.
    pub(super) fn binding(&self, group: GroupId, number: i64) -> Option<&Arc<Binding>> {
        self.bindings.get(&(group, number))
    }

    /// All of them, oldest first.
    pub(super) fn bindings_of(&self, group: GroupId) -> impl Iterator<Item = &Arc<Binding>> {
        self.bindings.range((group, i64::MIN)..=(group, i64::MAX)).map(|(_, binding)| binding)
    }

    /// Those whose group is gone.
    pub(super) fn orphans(&self) -> impl Iterator<Item = (TenantId, String)> {
        self.known.values().filter_map(|(_, tenant, kind, name)| {
            let (group, _) = slot_of(name).filter(|_| *kind == Kind::Binding)?;
            (!self.groups.contains_key(&group)).then(|| (*tenant, name.clone()))
        })
    }

    pub(super) fn digest_of(&self, tenant: TenantId, name: &PluginName) -> Option<Digest> {
        self.plugin(tenant, name).map(|plugin| plugin.doc.digest.clone())
    }

    /// A plugin that the tenant can see; the newest version if none is named.
    pub(super) fn plugin(&self, tenant: TenantId, name: &PluginName) -> Option<&Arc<PluginVersion>> {
        let version = match &name.version {
            Some(version) => Some(version.parse::<semver::Version>().ok()?),
            None => None,
        };
        if let Some(builtin) = self.builtins.get(&name.name) {
            return version.is_none_or(|version| version == builtin.version).then_some(builtin);
        }
        match version {
            Some(version) => self.plugins.get(&(tenant, name.name.clone(), version)),
            None => {
                let released = self.versions(tenant, &name.name).rfind(|plugin| plugin.version.pre.is_empty());
                released.or_else(|| self.versions(tenant, &name.name).next_back())
            }
        }
    }

    /// The tenant's versions of a plugin, oldest first.
    pub(super) fn versions(
        &self,
        tenant: TenantId,
        name: &str,
    ) -> impl DoubleEndedIterator<Item = &Arc<PluginVersion>> {
        let name = name.to_owned();
        self.plugins.iter().filter(move |((id, other, _), _)| *id == tenant && *other == name).map(|(_, plugin)| plugin)
    }

    pub(super) fn plugins_of(&self, tenant: TenantId) -> impl Iterator<Item = &Arc<PluginVersion>> {
        let own = self.plugins.iter().filter(move |((id, _, _), _)| *id == tenant).map(|(_, plugin)| plugin);
        self.builtins.values().chain(own)
    }

    pub(super) fn is_builtin(&self, name: &str) -> bool {
        self.builtins.contains_key(name)
    }

    pub(super) fn tenant(&self, name: &str) -> Option<&Arc<Tenant>> {
        self.tenants.get(self.tenant_names.get(name)?)
    }

    pub(super) fn tenants(&self) -> impl Iterator<Item = &Arc<Tenant>> {
        self.tenant_names.values().filter_map(|id| self.tenants.get(id))
    }

    pub(super) fn group(&self, tenant: TenantId, name: &str) -> Option<&Arc<Group>> {
        self.groups.get(self.group_names.get(&(tenant, name.to_owned()))?)
    }

    pub(super) fn group_by_id(&self, id: GroupId) -> Option<&Arc<Group>> {
        self.groups.get(&id)
    }

    pub(super) fn groups(&self) -> impl Iterator<Item = &Arc<Group>> {
        self.groups.values()
    }

    pub(super) fn groups_of(&self, tenant: TenantId) -> impl Iterator<Item = &Arc<Group>> {
        let names = self.group_names.range((tenant, String::new())..).take_while(move |((id, _), _)| *id == tenant);
        names.filter_map(|(_, id)| self.groups.get(id))
    }

    pub(super) fn key(&self, tenant: TenantId, name: &str) -> Option<&Arc<Key>> {
        self.keys.get(&(tenant, name.to_owned()))
    }

    pub(super) fn keys_of(&self, tenant: TenantId) -> impl Iterator<Item = &Arc<Key>> {
        self.keys.range((tenant, String::new())..).take_while(move |((id, _), _)| *id == tenant).map(|(_, key)| key)
    }

    pub(super) fn bulk(&self, tenant: TenantId, id: &str) -> Option<&Arc<Bulk>> {
        self.bulks.get(&(tenant, id.to_owned()))
    }

    pub(super) fn bulks(&self) -> impl Iterator<Item = &Arc<Bulk>> {
        self.bulks.values()
    }

    pub(super) fn schedule(&self, tenant: TenantId, name: &str) -> Option<&Arc<Schedule>> {
        self.schedules.get(&(tenant, name.to_owned()))
    }

    pub(super) fn schedules(&self) -> impl Iterator<Item = &Arc<Schedule>> {
        self.schedules.values()
    }

    pub(super) fn token_by_hash(&self, hash: &str) -> Option<&Arc<ApiToken>> {
        self.token_hashes.get(hash)
    }

    pub(super) fn tokens_of(&self, tenant: TenantId) -> impl Iterator<Item = &Arc<ApiToken>> {
        let tokens = self.tokens.range((tenant, String::new())..).take_while(move |((id, _), _)| *id == tenant);
        tokens.map(|(_, token)| token)
    }
}
