//! Tenants in the catalog.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::audit::Cause;
use super::change::{MAX_TRIES, busy};
use super::entities::StoredTenant;
use super::signers::Signers;
use super::{Catalog, CatalogError, NO_TENANT, SignerInput, Tenant, TenantRecord, document, validation};
use carillon_core::audit::{Origin, Verb};
use carillon_core::job::TenantId;
use carillon_core::json::read_value;
use carillon_core::limits::json_len;
use carillon_core::shares::Tenancy;
use carillon_policy::binding::{Changes, Invalid, Quota, compose};
use carillon_store::{Kind, Precondition, PutEntity};

/// Change of a tenant's settings. Members that it does not name stay; null removes one.
#[derive(Clone, Debug, Default, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TenantPatch {
    /// Settings that its groups inherit, in the form of a group.
    #[schema(value_type = Object)]
    pub defaults: Map<String, Value>,
    /// Limits on what its groups use together.
    #[schema(value_type = carillon_policy::binding::QuotaInput)]
    pub quota: Map<String, Value>,
    /// Signers of plugins: name → Ed25519 public key in PEM; null removes a signer.
    pub plugin_signers: BTreeMap<String, Option<String>>,
}

impl TenantPatch {
    /// Merges this part into the tenant's settings and returns all of them. `inherited` is what a group inherits now.
    fn over(&self, tenant: &Tenant, inherited: &Value) -> Result<TenantRecord, CatalogError> {
        let mut defaults = tenant.defaults.clone();
        compose(&mut defaults, inherited, &Value::Object(self.defaults.clone()));
        let mut quota = document(&tenant.quota.doc);
        json_patch::merge(&mut quota, &Value::Object(self.quota.clone()));
        let quota = read_value(&quota).map_err(|error| Invalid::at("/quota", error.message))?;
        let mut plugin_signers = tenant.signers.docs();
        for (name, public_key) in &self.plugin_signers {
            let place = plugin_signers.iter().position(|known| known.name == *name);
            match (public_key.clone(), place) {
                (Some(public_key), Some(place)) => plugin_signers[place].public_key = public_key,
                (Some(public_key), None) => plugin_signers.push(SignerInput { name: name.clone(), public_key }),
                (None, Some(place)) => drop(plugin_signers.remove(place)),
                (None, None) => {}
            }
        }
        Ok(TenantRecord { defaults, quota, plugin_signers })
    }
}

/// Result of a change of a tenant.
#[derive(Debug)]
pub struct PutTenant {
    /// The tenant.
    pub tenant: Arc<Tenant>,
    /// Whether the tenant is new.
    pub is_new: bool,
    /// Names of the parts that differ: `defaults.sign`, `quota.rate`, `plugin_signers.NAME`.
    pub changes: Changes,
}

impl PutTenant {
    fn new(before: Option<&Tenant>, tenant: Arc<Tenant>) -> Self {
        let parts = |tenant: Option<&Tenant>| {
            let signers = |signer: SignerInput| (signer.name, Value::from(signer.public_key));
            tenant.map_or_else(Default::default, |tenant| {
                let signers: Map<_, _> = tenant.signers.docs().into_iter().map(signers).collect();
                [tenant.defaults.clone(), document(&tenant.quota.doc), Value::Object(signers)]
            })
        };
        let (was, is): ([Value; 3], [Value; 3]) = (parts(before), parts(Some(&tenant)));
        let names = ["defaults", "quota", "plugin_signers"].into_iter();
        let changes = names
            .zip(was.iter().zip(&is))
            .fold(Changes::default(), |changes, (name, (was, is))| changes.and_within(name, was, is));
        Self { is_new: before.is_none(), tenant, changes }
    }
}

/// What a tenant has of what its quota bounds.
#[derive(Clone, Copy, Debug, Serialize, utoipa::ToSchema)]
pub struct TenantUsage {
    /// Number of groups.
    pub groups: u64,
    /// Number of schedules.
    pub schedules: u64,
    /// Number of keys.
    pub keys: u64,
    /// Number of tokens.
    pub tokens: u64,
    /// Number of versions of its own plugins.
    pub plugins: u64,
    /// Size of their components together, in bytes.
    pub plugin_bytes: usize,
    /// Size of the documents of its groups, versions of policies and schedules together, in bytes.
    pub config_bytes: u64,
    /// Number of changes of many jobs that are under way.
    pub bulks: u64,
    /// Compilation of its uploads within the last hour, in seconds, on this node.
    pub compile_seconds: u64,
}

impl Catalog {
    /// Returns the tenant of this name.
    #[must_use]
    pub fn tenant(&self, name: &str) -> Option<Arc<Tenant>> {
        self.state().tenant(name).cloned()
    }

    /// Returns all tenants, by name.
    #[must_use]
    pub fn tenants(&self) -> Vec<Arc<Tenant>> {
        self.state().tenants().cloned().collect()
    }

    /// Returns whether one tenant exists or several.
    #[must_use]
    pub fn tenancy(&self) -> Tenancy {
        if self.state().tenants().nth(1).is_some() { Tenancy::Several } else { Tenancy::Single }
    }

    /// Makes a tenant, or replaces all of its settings.
    ///
    /// # Errors
    /// Returns the errors of [`Catalog::put_tenant`], and one if the change ends the signing of requests without saying so.
    pub async fn replace_tenant(
        &self,
        name: &str,
        doc: TenantRecord,
        origin: &Origin,
    ) -> Result<PutTenant, CatalogError> {
        let before = self.tenant(name);
        let signs = before.as_ref().is_some_and(|known| known.defaults["sign"].is_object());
        if signs && doc.defaults.get("sign").is_none() {
            let message = "the tenant's groups inherit a signer, and this document leaves `sign` out: keep it, or write \
                           `\"sign\": null` to send their requests unsigned";
            return Err(Invalid::at("/defaults/sign", message).into());
        }
        let tenant = self.put_tenant(name, doc, origin).await?;
        Ok(PutTenant::new(before.as_deref(), tenant))
    }

    /// Changes a part of a tenant's settings; members that the part does not name stay.
    ///
    /// # Errors
    /// Returns the errors of [`Catalog::put_tenant`]; [`CatalogError::Gone`] if there is no such tenant.
    pub async fn patch_tenant(
        &self,
        name: &str,
        patch: &TenantPatch,
        origin: &Origin,
    ) -> Result<PutTenant, CatalogError> {
        // The settings that the part is merged into must not change meanwhile: on this node, parts wait for each other.
        let _merging = self.merging.lock().await;
        for _ in 0..MAX_TRIES {
            let before = self.tenant(name).ok_or(CatalogError::Gone)?;
            let doc = patch.over(&before, &self.policy_before(&before, None, None))?;
            match self.write_tenant(name, doc, Precondition::Version(before.revision), origin).await {
                Ok(tenant) => return Ok(PutTenant::new(Some(&before), tenant)),
                Err(CatalogError::Conflict(_)) => {}
                Err(error) => return Err(error),
            }
            self.refresh().await?;
        }
        Err(busy())
    }

    /// Makes or changes a tenant. A suspended tenant stays suspended.
    ///
    /// # Errors
    /// Returns an error if the name, the quota or a signer is not valid, or if one of the tenant's groups would no longer be valid.
    pub async fn put_tenant(
        &self,
        name: &str,
        doc: TenantRecord,
        origin: &Origin,
    ) -> Result<Arc<Tenant>, CatalogError> {
        let mut refused = None;
        for _ in 0..MAX_TRIES {
            let expect = match self.tenant(name) {
                Some(tenant) => Precondition::Version(tenant.revision),
                None if self.state().is_tenant_known(name) => Precondition::Anything,
                None => Precondition::Nothing,
            };
            if let Some((before, conflict)) = refused.take()
                && before == expect
            {
                // The tenant has not changed, so another writer is not the reason.
                return Err(conflict);
            }
            match self.write_tenant(name, doc.clone(), expect, origin).await {
                Err(CatalogError::Conflict(text)) => refused = Some((expect, CatalogError::Conflict(text))),
                done => return done,
            }
            self.refresh().await?;
        }
        Err(busy())
    }

    async fn write_tenant(
        &self,
        name: &str,
        doc: TenantRecord,
        expect: Precondition,
        origin: &Origin,
    ) -> Result<Arc<Tenant>, CatalogError> {
        validation::name("tenant", name)?;
        self.bounds.requests.document.check("tenant", "", json_len(&doc))?;
        let quota = Quota::parse(doc.quota).map_err(|error| error.within("/quota"))?;
        let signers = Signers::parse(doc.plugin_signers).map_err(|error| error.within("/plugin_signers"))?;
        let known = self.tenant(name);
        let (id, suspended) = (known.as_ref().map(|known| known.id), known.is_some_and(|known| known.suspended));
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
            suspended,
            created_at: self.clock.now(),
            revision: 0,
        };
        let groups = id.map(|id| self.groups(id)).unwrap_or_default();
        let mut needs = Vec::new();
        let owns: Vec<_> = groups.iter().map(|group| (Some(group.name.as_str()), group.own.value())).collect();
        for (group, own) in owns.into_iter().chain([(None, Value::Object(Map::new()))]) {
            let effective =
                self.state().effective(&candidate, group, &own).map_err(|error| error.within("/defaults"))?;
            self.check_policy(&candidate, group, &effective).await.map_err(|error| error.within("/defaults"))?;
            let plugins = self.state().bound_plugins(candidate.id, &effective);
            needs.extend(self.needs(candidate.id, &plugins));
        }
        needs.sort_unstable();
        needs.dedup();
        let doc = document(&StoredTenant { doc: candidate.doc(), suspended });
        let cause = Cause::change(origin, Verb::TENANT_PUT);
        let put = self.entity(&cause, TenantId(NO_TENANT), Kind::Tenant, name, doc, expect);
        self.put(PutEntity { needs, ..put }).await?;
        self.tenant(name).ok_or(CatalogError::Gone)
    }
}
