//! Tenants in the catalog.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::signers::Signers;
use super::{Catalog, NO_TENANT, Rejected, Tenant, TenantDoc, check, document};
use crate::job::TenantId;
use crate::policy::binding::Quota;
use crate::store::{Expect, Kind, PutEntity};

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
    /// If the name is not a name, the quota or a signer makes no sense, or one of the tenant's groups would no longer make sense.
    pub async fn put_tenant(&self, name: &str, doc: TenantDoc) -> Result<Arc<Tenant>, Rejected> {
        check::name("tenant", name)?;
        let quota = Quota::parse(doc.quota).map_err(|error| error.within("/quota"))?;
        let signers = Signers::parse(doc.plugin_signers).map_err(|error| error.within("/plugin_signers"))?;
        let id = self.tenant(name).map(|tenant| tenant.id);
        let defaults = match id {
            Some(id) => self.pin(id, doc.defaults),
            None => doc.defaults,
        };
        let candidate = Tenant {
            id: id.unwrap_or(TenantId(NO_TENANT)),
            name: name.to_owned(),
            defaults,
            quota,
            signers,
            created_at: self.clock.now(),
        };
        let groups = id.map(|id| self.groups(id)).unwrap_or_default();
        let mut needs = Vec::new();
        let owns: Vec<_> = groups.iter().map(|group| (Some(group.name.as_str()), group.own.clone())).collect();
        for (group, own) in owns.into_iter().chain([(None, Value::Object(Map::new()))]) {
            let effective =
                self.state().effective(&candidate, group, &own).map_err(|error| error.within("/defaults"))?;
            self.check_policy(&candidate, group, &effective).await.map_err(|error| error.within("/defaults"))?;
            let plugins = self.state().bound_plugins(candidate.id, &effective);
            needs.extend(self.needs(candidate.id, &plugins));
        }
        needs.sort_unstable();
        needs.dedup();
        let Tenant { defaults, quota, signers, .. } = candidate;
        let doc = document(&TenantDoc { defaults, quota: quota.doc, plugin_signers: signers.docs() });
        let put = self.entity(TenantId(NO_TENANT), Kind::Tenant, name, doc, Expect::Anything);
        self.put(PutEntity { needs, ..put }).await?;
        self.tenant(name).ok_or(Rejected::Gone)
    }
}
