//! Lookups of entities in memory. This module changes nothing.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use super::CatalogState;
use crate::bulks::Bulk;
use crate::entities::{Group, Key, PluginVersion, SHARED, Tenant};
use crate::schedules::Schedule;
use crate::token::ApiToken;
use crate::versions::{Binding, slot_of};
use carillon_core::job::{GroupId, TenantId};
use carillon_policy::Digest;
use carillon_policy::binding::PluginName;
use carillon_store::Kind;

impl CatalogState {
    /// Returns a version of a group's policy that is not in force.
    pub(crate) fn binding(&self, group: GroupId, number: i64) -> Option<&Arc<Binding>> {
        self.bindings.get(&(group, number))
    }

    /// Returns all versions of a group that are not in force, oldest first.
    pub(crate) fn bindings_of(&self, group: GroupId) -> impl Iterator<Item = &Arc<Binding>> {
        self.bindings.range((group, i64::MIN)..=(group, i64::MAX)).map(|(_, binding)| binding)
    }

    /// Returns the versions whose group is gone.
    pub(crate) fn orphans(&self) -> impl Iterator<Item = (TenantId, String)> {
        self.known.values().filter_map(|(_, tenant, kind, name)| {
            let (group, _) = slot_of(name).filter(|_| *kind == Kind::Binding)?;
            (!self.known.contains_key(&group.0)).then(|| (*tenant, name.clone()))
        })
    }

    pub(crate) fn digest_of(&self, tenant: TenantId, name: &PluginName) -> Option<Digest> {
        self.plugin(tenant, name).map(|plugin| plugin.doc.digest.clone())
    }

    /// Returns a plugin that the tenant can see; the newest version if none is named.
    pub(crate) fn plugin(&self, tenant: TenantId, name: &PluginName) -> Option<&Arc<PluginVersion>> {
        let version = match &name.version {
            Some(version) => Some(version.parse::<semver::Version>().ok()?),
            None => None,
        };
        if let Some(builtin) = self.builtins.get(&name.name) {
            return version.is_none_or(|version| version == builtin.version).then_some(builtin);
        }
        let given =
            self.versions(self.owner_of(tenant, &name.name), &name.name).filter(|plugin| plugin.is_given_to(tenant));
        let Some(version) = version else {
            let given: Vec<_> = given.collect();
            let released = given.iter().rfind(|plugin| plugin.version.pre.is_empty());
            return released.or(given.last()).copied();
        };
        let mut given = given;
        given.find(|plugin| plugin.version == version)
    }

    /// Returns the owner of the versions that a tenant sees under a name: the tenant if it has any of its own, or else [`SHARED`].
    pub(crate) fn owner_of(&self, tenant: TenantId, name: &str) -> TenantId {
        if self.versions(tenant, name).next().is_some() { tenant } else { SHARED }
    }

    /// Returns an owner's versions of a plugin, oldest first.
    fn versions(&self, owner: TenantId, name: &str) -> impl Iterator<Item = &Arc<PluginVersion>> {
        self.plugins.get(&(owner, name.to_owned())).into_iter().flat_map(BTreeMap::values)
    }

    /// Returns the plugins of an owner.
    pub(crate) fn plugins_of(&self, owner: TenantId) -> impl Iterator<Item = &Arc<PluginVersion>> {
        let names = self.plugins.range((owner, String::new())..).take_while(move |((id, _), _)| *id == owner);
        names.flat_map(|(_, versions)| versions.values())
    }

    /// Returns the plugins that a tenant sees: the server's, its own, and those that are shared with it under other names.
    pub(crate) fn plugins_seen_by(&self, tenant: TenantId) -> impl Iterator<Item = &Arc<PluginVersion>> {
        let is_seen = move |plugin: &&Arc<PluginVersion>| {
            tenant != SHARED && plugin.is_given_to(tenant) && self.owner_of(tenant, &plugin.name) == SHARED
        };
        self.builtins.values().chain(self.plugins_of(tenant)).chain(self.plugins_of(SHARED).filter(is_seen))
    }

    pub(crate) fn is_builtin(&self, name: &str) -> bool {
        self.builtins.contains_key(name)
    }

    pub(crate) fn tenant(&self, name: &str) -> Option<&Arc<Tenant>> {
        self.tenants.get(self.tenant_names.get(name)?)
    }

    pub(crate) fn tenant_by_id(&self, id: TenantId) -> Option<&Arc<Tenant>> {
        self.tenants.get(&id)
    }

    pub(crate) fn tenants(&self) -> impl Iterator<Item = &Arc<Tenant>> {
        self.tenant_names.values().filter_map(|id| self.tenants.get(id))
    }

    pub(crate) fn group(&self, tenant: TenantId, name: &str) -> Option<&Arc<Group>> {
        self.groups.get(self.group_names.get(&(tenant, name.to_owned()))?)
    }

    pub(crate) fn group_by_id(&self, id: GroupId) -> Option<&Arc<Group>> {
        self.groups.get(&id)
    }

    /// Returns the groups that have an observer.
    pub(crate) fn observed_groups(&self) -> &HashSet<GroupId> {
        &self.observed
    }

    pub(crate) fn groups_of(&self, tenant: TenantId) -> impl Iterator<Item = &Arc<Group>> {
        let names = self.group_names.range((tenant, String::new())..).take_while(move |((id, _), _)| *id == tenant);
        names.filter_map(|(_, id)| self.groups.get(id))
    }

    pub(crate) fn key(&self, tenant: TenantId, name: &str) -> Option<&Arc<Key>> {
        self.keys.get(&(tenant, name.to_owned()))
    }

    pub(crate) fn keys_of(&self, tenant: TenantId) -> impl Iterator<Item = &Arc<Key>> {
        self.keys.range((tenant, String::new())..).take_while(move |((id, _), _)| *id == tenant).map(|(_, key)| key)
    }

    pub(crate) fn bulk(&self, tenant: TenantId, id: &str) -> Option<&Arc<Bulk>> {
        self.bulks.get(&(tenant, id.to_owned()))
    }

    pub(crate) fn bulks(&self) -> impl Iterator<Item = &Arc<Bulk>> {
        self.bulks.values()
    }

    pub(crate) fn schedule(&self, tenant: TenantId, name: &str) -> Option<&Arc<Schedule>> {
        self.schedules.get(&(tenant, name.to_owned()))
    }

    pub(crate) fn schedules(&self) -> impl Iterator<Item = &Arc<Schedule>> {
        self.schedules.values()
    }

    pub(crate) fn token_by_hash(&self, hash: &str) -> Option<&Arc<ApiToken>> {
        self.token_hashes.get(hash)
    }

    pub(crate) fn token(&self, tenant: TenantId, id: &str) -> Option<&Arc<ApiToken>> {
        self.tokens.get(&(tenant, id.to_owned()))
    }

    pub(crate) fn tokens(&self) -> impl Iterator<Item = &Arc<ApiToken>> {
        self.tokens.values()
    }

    pub(crate) fn tokens_of(&self, tenant: TenantId) -> impl Iterator<Item = &Arc<ApiToken>> {
        let tokens = self.tokens.range((tenant, String::new())..).take_while(move |((id, _), _)| *id == tenant);
        tokens.map(|(_, token)| token)
    }

    /// Returns all entities of a tenant, of any kind.
    pub(super) fn owned_by(&self, tenant: TenantId) -> Vec<(Kind, String)> {
        let owned = self.known.values().filter(|(_, owner, kind, _)| *owner == tenant && *kind != Kind::Tenant);
        owned.map(|(_, _, kind, name)| (*kind, name.clone())).collect()
    }

    /// Returns whether the store has a tenant of this name, even one that cannot be read.
    pub(in super::super) fn is_tenant_known(&self, name: &str) -> bool {
        self.known.values().any(|(_, _, kind, known)| *kind == Kind::Tenant && known == name)
    }
}
