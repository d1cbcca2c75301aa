//! Limits of what a tenant keeps, and whether an entity that is about to be written is within them.

use serde_json::Value;

use super::CatalogState;
use crate::entities::SHARED;
use crate::quotas::{
    BULKS, CONFIG_BYTES, GROUPS, KEYS, PLUGINS, SCHEDULES, TOKENS, config_bytes, is_of_operator, limits, within,
};
use carillon_core::job::TenantId;
use carillon_core::limits::{QuotaExceeded, TenantLimits};
use carillon_policy::binding::QuotaInput;
use carillon_store::{Kind, PutEntity};

impl CatalogState {
    /// Returns the limits of what a tenant keeps.
    pub(crate) fn limits_of(&self, tenant: TenantId) -> TenantLimits {
        let none = QuotaInput::default();
        limits(self.tenant_limits, self.tenant_by_id(tenant).map_or(&none, |tenant| &tenant.quota.doc))
    }

    /// Checks that the tenant may keep an entity that is about to be written.
    pub(crate) fn check_quota(&self, put: &PutEntity) -> Result<(), QuotaExceeded> {
        let (tenant, kind) = (TenantId(put.tenant), put.kind);
        let (limits, sum) = (self.limits_of(tenant), self.ledger.sum(tenant, kind));
        let before = self.ledger.size(tenant, kind, &put.name);
        let size = config_bytes(kind, &put.doc);
        if before.is_none() {
            match kind {
                Kind::Group => within(GROUPS, limits.groups, sum.entities, 1)?,
                Kind::Schedule => within(SCHEDULES, limits.schedules, sum.entities, 1)?,
                Kind::Key => within(KEYS, limits.keys, sum.entities, 1)?,
                Kind::Plugin if tenant != SHARED => within(PLUGINS, limits.plugins, sum.entities, 1)?,
                Kind::ApiToken if !is_of_operator(kind, &put.doc) => within(TOKENS, limits.tokens, sum.entities, 1)?,
                Kind::Bulk if put.doc.get("finished_at").is_none_or(Value::is_null) => {
                    within(BULKS, limits.bulks, self.bulks_under_way(tenant), 1)?;
                }
                Kind::ApiToken | Kind::Bulk | Kind::Plugin | Kind::Tenant | Kind::Binding | Kind::DataKey => {}
            }
        }
        let added = size.saturating_sub(before.unwrap_or(0));
        if added > 0 {
            within(CONFIG_BYTES, limits.config_bytes, self.ledger.config_bytes(tenant), added)
        } else {
            Ok(())
        }
    }

    /// Returns the number of a tenant's changes of many jobs that are under way.
    pub(crate) fn bulks_under_way(&self, tenant: TenantId) -> u64 {
        let under_way = self.bulks().filter(|bulk| bulk.tenant == tenant && bulk.doc.finished_at.is_none()).count();
        u64::try_from(under_way).unwrap_or(u64::MAX)
    }
}
