//! Suspension and deletion of tenants.
//!
//! A suspension is a part of the stored tenant, so that every node follows it and it survives a restart. A deletion frees the name and removes
//! the tenant from memory at once; the housekeeping of the store removes what belongs to it, in slices.

use std::sync::Arc;

use super::audit::Cause;
use super::change::{MAX_TRIES, busy};
use super::entities::StoredTenant;
use super::{ApiToken, Catalog, CatalogError, DEFAULT_TENANT, NO_TENANT, Tenant, document};
use carillon_core::audit::{Origin, Verb};
use carillon_core::job::TenantId;
use carillon_store::{Kind, Precondition};

impl Catalog {
    /// Returns whether the tenant exists and is not suspended.
    #[must_use]
    pub fn is_active(&self, tenant: TenantId) -> bool {
        self.state().tenant_by_id(tenant).is_some_and(|tenant| !tenant.suspended)
    }

    /// Suspends or resumes a tenant.
    ///
    /// # Errors
    /// Returns [`CatalogError::Gone`] if there is no such tenant.
    pub async fn set_suspended(
        &self,
        name: &str,
        suspended: bool,
        origin: &Origin,
    ) -> Result<Arc<Tenant>, CatalogError> {
        let cause = Cause::change(origin, if suspended { Verb::TENANT_SUSPEND } else { Verb::TENANT_RESUME });
        let decide = |tenant: Option<&Tenant>| {
            let tenant = tenant.ok_or(CatalogError::Gone)?;
            let doc = document(&StoredTenant { doc: tenant.doc(), suspended });
            let expect = Precondition::Version(tenant.revision);
            Ok(self.entity(&cause, TenantId(NO_TENANT), Kind::Tenant, name, doc, expect).into())
        };
        self.change(|| self.tenant(name), decide).await?;
        self.tenant(name).ok_or(CatalogError::Gone)
    }

    /// Removes a tenant with all that belongs to it; returns false if there is none. Its jobs and the rest of its data leave the store in the
    /// background.
    ///
    /// # Errors
    /// Returns a conflict if it is the default tenant, or if the last operator's token is stored with it.
    pub async fn delete_tenant(&self, name: &str, origin: &Origin) -> Result<bool, CatalogError> {
        if name == DEFAULT_TENANT {
            return Err(CatalogError::Conflict(format!("the tenant `{DEFAULT_TENANT}` cannot be deleted")));
        }
        let cause = Cause::change(origin, Verb::TENANT_DELETE);
        let _changing = self.changing.lock().await;
        for _ in 0..MAX_TRIES {
            // An operator's token that another node revoked a moment ago does not count; one that is revoked from now on makes this decide again.
            self.refresh().await?;
            let Some(tenant) = self.tenant(name) else { return Ok(false) };
            let now = self.now();
            let is_inside = |token: &&Arc<ApiToken>| token.tenant.id == tenant.id;
            let operators = self.operator_tokens();
            let (inside, outside): (Vec<_>, Vec<_>) =
                operators.iter().filter(|token| token.is_live(now)).partition(is_inside);
            if !inside.is_empty() && outside.is_empty() {
                let detail = "the last token of an operator is stored with this tenant: make another one first";
                return Err(CatalogError::Conflict(detail.to_owned()));
            }
            let generation = Some(self.memory.generation());
            match self.delete_unchanged(&cause, TenantId(NO_TENANT), Kind::Tenant, name, generation).await {
                Err(CatalogError::Conflict(_)) => {}
                Ok(true) => {
                    // From now on, nothing that is still stored of its payloads can be read.
                    if let Err(error) = self.delete_data_key(tenant.id).await {
                        let error = format!("{error:#}");
                        tracing::warn!(
                            tenant = name,
                            error,
                            "deleting the key of a tenant's payloads failed; housekeeping deletes it"
                        );
                    }
                    return Ok(true);
                }
                done => return done,
            }
        }
        Err(busy())
    }
}
