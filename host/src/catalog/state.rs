//! The entities in memory, by the names and numbers that they are looked up by. Pure but for decryption.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use anyhow::Context as _;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::sync::OnceCell;

use super::bulks::Bulk;
use super::entities::{ApiToken, Group, GroupDoc, Key, PluginDoc, PluginVersion, Tenant, TenantDoc, TokenDoc};
use super::keys::key_of;
use super::schedules::Schedule;
use super::secrets::Vault;
use crate::clock::UnixMs;
use crate::job::{GroupId, TenantId};
use crate::policy::Digest;
use crate::policy::binding::{Effective, PluginName, Quota, lay};
use crate::store::{Entity, Kind};

/// Everything that is configured.
pub(super) struct State {
    server_defaults: Value,
    /// The version of each entity that is here, with what it is removed by.
    known: HashMap<i64, (i64, TenantId, Kind, String)>,
    builtins: BTreeMap<String, Arc<PluginVersion>>,
    tenants: HashMap<TenantId, Arc<Tenant>>,
    tenant_names: BTreeMap<String, TenantId>,
    groups: HashMap<GroupId, Arc<Group>>,
    group_names: BTreeMap<(TenantId, String), GroupId>,
    keys: BTreeMap<(TenantId, String), Arc<Key>>,
    tokens: BTreeMap<(TenantId, String), (String, Arc<ApiToken>)>,
    token_hashes: HashMap<String, Arc<ApiToken>>,
    plugins: BTreeMap<(TenantId, String, semver::Version), Arc<PluginVersion>>,
    bulks: BTreeMap<(TenantId, String), Arc<Bulk>>,
    schedules: BTreeMap<(TenantId, String), Arc<Schedule>>,
}

impl State {
    pub(super) fn new(server_defaults: Value, builtins: Vec<Arc<PluginVersion>>) -> Self {
        Self {
            server_defaults,
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
        }
    }

    /// Takes over all that is in the store: what is new or has changed, and that the rest has gone.
    pub(super) fn apply_all(&mut self, mut entities: Vec<Entity>, vault: &Vault) -> anyhow::Result<()> {
        let there: HashSet<i64> = entities.iter().map(|entity| entity.id).collect();
        let gone: Vec<_> = self.known.iter().filter(|(id, _)| !there.contains(id)).map(|(_, it)| it.clone()).collect();
        for (_, tenant, kind, name) in gone {
            self.remove(tenant, kind, &name);
        }
        entities.retain(|entity| self.known.get(&entity.id).is_none_or(|(version, ..)| *version < entity.version));
        entities.sort_by_key(|entity| match entity.kind {
            Kind::Tenant => 0,
            Kind::Plugin => 1,
            Kind::Key => 2,
            Kind::Group => 3,
            Kind::ApiToken => 4,
            Kind::Schedule => 5,
            Kind::Bulk => 6,
        });
        entities.into_iter().try_for_each(|entity| self.apply(entity, vault))
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
        }
        Ok(())
    }

    /// Forgets a deleted entity.
    pub(super) fn remove(&mut self, tenant: TenantId, kind: Kind, name: &str) {
        let slot = (tenant, name.to_owned());
        self.known.retain(|_, (_, owner, its_kind, its_name)| (*owner, *its_kind, &**its_name) != (tenant, kind, name));
        match kind {
            Kind::Tenant => {}
            Kind::Bulk => drop(self.bulks.remove(&slot)),
            Kind::Schedule => drop(self.schedules.remove(&slot)),
            Kind::Group => {
                if let Some(id) = self.group_names.remove(&slot) {
                    self.groups.remove(&id);
                }
            }
            Kind::Key => {
                self.keys.remove(&slot);
                self.rebuild_groups(tenant);
            }
            Kind::ApiToken => {
                if let Some((hash, _)) = self.tokens.remove(&slot) {
                    self.token_hashes.remove(&hash);
                }
            }
            Kind::Plugin => {
                if let Some(Ok(version)) = PluginName::from(name).version.map(|version| version.parse()) {
                    self.plugins.remove(&(tenant, PluginName::from(name).name, version));
                }
            }
        }
    }

    fn apply_tenant(&mut self, entity: Entity) -> anyhow::Result<()> {
        let doc: TenantDoc = read(&entity)?;
        let id = TenantId(entity.id);
        self.tenant_names.insert(entity.name.clone(), id);
        let quota = Quota::parse(doc.quota).with_context(|| format!("the quota of the tenant `{}`", entity.name))?;
        let (defaults, created_at) = (doc.defaults, entity.created_at);
        let tenant = Arc::new(Tenant { id, name: entity.name, defaults, quota, created_at });
        self.tenants.insert(id, Arc::clone(&tenant));
        self.rebuild_groups(id);
        self.rebuild_tokens(&tenant);
        Ok(())
    }

    fn apply_group(&mut self, entity: &Entity) -> anyhow::Result<()> {
        let doc: GroupDoc = read(entity)?;
        let id = GroupId(entity.id);
        let tenant = self.tenant_of(entity)?;
        let effective = self.effective(&tenant, &doc.policy).map(Arc::new);
        self.group_names.insert((tenant.id, entity.name.clone()), id);
        let group = Group {
            id,
            tenant,
            name: entity.name.clone(),
            version: entity.version,
            paused: doc.paused,
            own: doc.policy,
            effective,
            created_at: entity.created_at,
            updated_at: entity.updated_at,
            plan: OnceCell::new(),
        };
        self.groups.insert(id, Arc::new(group));
        Ok(())
    }

    fn apply_token(&mut self, entity: Entity) -> anyhow::Result<()> {
        let doc: TokenDoc = read(&entity)?;
        let tenant = self.tenant_of(&entity)?;
        let slot = (tenant.id, entity.name.clone());
        let token = Arc::new(ApiToken {
            id: entity.name,
            name: doc.name,
            tenant,
            role: doc.role,
            operator: doc.operator,
            created_at: entity.created_at,
        });
        self.token_hashes.insert(doc.hash.clone(), Arc::clone(&token));
        self.tokens.insert(slot, (doc.hash, token));
        Ok(())
    }

    /// What a change of the tenant or of its keys means for its groups.
    fn rebuild_groups(&mut self, tenant: TenantId) {
        let ids: Vec<_> = self.groups_of(tenant).map(|group| group.id).collect();
        for id in ids {
            let (Some(old), Some(tenant)) = (self.groups.get(&id).cloned(), self.tenants.get(&tenant).cloned()) else {
                continue;
            };
            let effective = self.effective(&tenant, &old.own).map(Arc::new);
            let group = Group {
                tenant,
                name: old.name.clone(),
                own: old.own.clone(),
                effective,
                plan: OnceCell::new(),
                id: old.id,
                version: old.version,
                paused: old.paused,
                created_at: old.created_at,
                updated_at: old.updated_at,
            };
            self.groups.insert(id, Arc::new(group));
        }
    }

    /// Whoever comes with a token acts for the tenant as it is now.
    fn rebuild_tokens(&mut self, tenant: &Arc<Tenant>) {
        let tokens = self.tokens.iter_mut().filter(|((owner, _), _)| *owner == tenant.id);
        for (_, (hash, token)) in tokens {
            *token = Arc::new(ApiToken { tenant: Arc::clone(tenant), ..ApiToken::clone(token) });
            self.token_hashes.insert(hash.clone(), Arc::clone(token));
        }
    }

    fn tenant_of(&self, entity: &Entity) -> anyhow::Result<Arc<Tenant>> {
        let tenant = self.tenants.get(&TenantId(entity.tenant)).cloned();
        tenant.ok_or_else(|| anyhow::anyhow!("the {} `{}` has no tenant", entity.kind.as_str(), entity.name))
    }

    /// The layers under a group of this tenant, lowest first.
    pub(super) fn layers<'a>(&'a self, tenant: &'a Tenant, own: &'a Value) -> [(&'static str, &'a Value); 3] {
        [("server", &self.server_defaults), ("tenant", &tenant.defaults), ("group", own)]
    }

    /// What is in force for a group with this own policy.
    pub(super) fn effective(&self, tenant: &Tenant, own: &Value) -> Result<Effective, crate::policy::binding::Invalid> {
        let mut doc = Value::Object(serde_json::Map::new());
        for (_, layer) in self.layers(tenant, own) {
            lay(&mut doc, layer);
        }
        Effective::parse(doc, &|name| self.digest_of(tenant.id, name))
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
            None => self.versions(tenant, &name.name).last(),
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
        tokens.map(|(_, (_, token))| token)
    }
}

fn read<T: DeserializeOwned>(entity: &Entity) -> anyhow::Result<T> {
    T::deserialize(&entity.doc)
        .map_err(|error| anyhow::anyhow!("the {} `{}` cannot be read: {error}", entity.kind.as_str(), entity.name))
}

fn plugin_of(entity: &Entity) -> anyhow::Result<PluginVersion> {
    let name = PluginName::from(entity.name.as_str());
    plugin_version(name.name, &name.version.unwrap_or_default(), false, read(entity)?, entity.created_at)
}

/// Puts a plugin's parts together.
pub(super) fn plugin_version(
    name: String,
    version: &str,
    builtin: bool,
    doc: PluginDoc,
    created_at: UnixMs,
) -> anyhow::Result<PluginVersion> {
    let version =
        version.parse().map_err(|_| anyhow::anyhow!("`{version}` is not a semantic version such as `1.4.0`"))?;
    anyhow::ensure!(
        builtin || !refers(&doc.config_schema),
        "the config schema must not use `$ref`: write its definitions where they are used"
    );
    // Patterns are matched in linear time: the schema is the plugin author's, the server's time is everybody's.
    let schema = jsonschema::options()
        .with_pattern_options(jsonschema::PatternOptions::regex())
        .build(&doc.config_schema)
        .map_err(|error| anyhow::anyhow!("the config schema is not a JSON Schema: {error}"))?;
    Ok(PluginVersion { name, version, builtin, doc, schema, created_at })
}

/// Whether a schema refers to parts of itself. With references its size no longer bounds the work that a check takes.
fn refers(schema: &Value) -> bool {
    match schema {
        Value::Object(fields) => fields
            .iter()
            .any(|(name, field)| ["$ref", "$dynamicRef", "$recursiveRef"].contains(&name.as_str()) || refers(field)),
        Value::Array(items) => items.iter().any(refers),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_schema_stands_on_its_own() {
        assert!(refers(&json!({"properties": {"a": {"anyOf": [{"$ref": "#/$defs/a"}]}}})));
        assert!(!refers(&json!({"type": "object", "properties": {"a": {"type": "string"}}})));
    }
}
