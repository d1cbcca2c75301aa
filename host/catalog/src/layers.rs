//! Effective policy of a group: its layers merged, and the plugins that they name.

use serde_json::Value;

use super::Tenant;
use super::state::CatalogState;
use super::versions::BoundPlugin;
use carillon_core::job::TenantId;
use carillon_policy::binding::{Effective, Invalid, Use, lay};

impl CatalogState {
    /// Returns the layers of a group of this tenant and name, lowest first.
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

    /// Returns the preset under a tenant's group of this name; null if there is none.
    pub(super) fn preset(&self, tenant: TenantId, group: Option<&str>) -> &Value {
        let preset = group.and_then(|group| self.presets.get(group));
        preset.map_or(&Value::Null, |preset| preset.of_tenant(|key| self.key(tenant, key).map(|key| &**key)))
    }

    /// Returns the policy in force for a group of this name with this own document; without a name, for a group that inherits no preset.
    pub(super) fn effective(&self, tenant: &Tenant, group: Option<&str>, own: &Value) -> Result<Effective, Invalid> {
        let mut doc = Value::Object(serde_json::Map::new());
        for (_, layer) in self.layers(tenant, group, own) {
            lay(&mut doc, layer);
        }
        Effective::parse(doc, &|name| self.digest_of(tenant.id, name))
    }

    /// Returns the plugins of a policy, with their versions.
    pub(super) fn bound_plugins(&self, tenant: TenantId, effective: &Effective) -> Vec<BoundPlugin> {
        let bound = |used: &Use| {
            let plugin = self.plugin(tenant, &used.plugin);
            let name = plugin.map_or_else(|| used.plugin.to_string(), |it| it.full_name());
            BoundPlugin { role: used.role, plugin: name, digest: used.digest.clone() }
        };
        effective.uses().map(bound).collect()
    }
}
