//! Quotas: what a tenant keeps, counted with each write.
//!
//! Counts are those of this node's memory: writes of several nodes at the same moment may pass a bound by one each. What the server itself
//! writes (progress, moves between versions) is never refused, because it adds no entity and no document.

use std::collections::HashMap;

use serde_json::Value;

use super::{Catalog, TenantUsage};
use carillon_core::job::TenantId;
use carillon_core::limits::{QuotaExceeded, TenantLimits, json_len};
use carillon_policy::binding::QuotaInput;
use carillon_store::Kind;

/// Name of a bound in a tenant's quota, and the setting of its default.
pub(super) type Bound = (&'static str, &'static str);

pub(super) const JOBS: Bound = ("jobs", "limits.tenant.jobs");
pub(super) const GROUPS: Bound = ("groups", "limits.tenant.groups");
pub(super) const SCHEDULES: Bound = ("schedules", "limits.tenant.schedules");
pub(super) const KEYS: Bound = ("keys", "limits.tenant.keys");
pub(super) const TOKENS: Bound = ("tokens", "limits.tenant.tokens");
pub(super) const PLUGINS: Bound = ("plugins", "limits.tenant.plugins");
pub(super) const BULKS: Bound = ("bulks", "limits.tenant.bulks");
pub(super) const STORED_BYTES: Bound = ("stored_bytes", "limits.tenant.stored_bytes");
pub(super) const CONFIG_BYTES: Bound = ("config_bytes", "limits.tenant.config_bytes");

/// Number of a tenant's entities of one kind, and the size of their documents.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sum {
    pub(super) entities: u64,
    bytes: u64,
}

/// Sums of all tenants' entities.
#[derive(Default)]
pub(super) struct Ledger {
    sizes: HashMap<(TenantId, Kind, String), u64>,
    sums: HashMap<(TenantId, Kind), Sum>,
}

impl Ledger {
    /// Records an added or changed entity.
    pub(super) fn put(&mut self, tenant: TenantId, kind: Kind, name: &str, doc: &Value) {
        self.remove(tenant, kind, name);
        if is_of_operator(kind, doc) {
            return;
        }
        let size = config_bytes(kind, doc);
        self.sizes.insert((tenant, kind, name.to_owned()), size);
        let sum = self.sums.entry((tenant, kind)).or_default();
        sum.entities += 1;
        sum.bytes += size;
    }

    /// Returns the size of an entity's document, if the entity is known.
    pub(super) fn size(&self, tenant: TenantId, kind: Kind, name: &str) -> Option<u64> {
        self.sizes.get(&(tenant, kind, name.to_owned())).copied()
    }

    /// Records that an entity is gone.
    pub(super) fn remove(&mut self, tenant: TenantId, kind: Kind, name: &str) {
        let Some(size) = self.sizes.remove(&(tenant, kind, name.to_owned())) else { return };
        if let Some(sum) = self.sums.get_mut(&(tenant, kind)) {
            sum.entities = sum.entities.saturating_sub(1);
            sum.bytes = sum.bytes.saturating_sub(size);
        }
    }

    /// Returns the sum of a tenant's entities of one kind.
    pub(super) fn sum(&self, tenant: TenantId, kind: Kind) -> Sum {
        self.sums.get(&(tenant, kind)).copied().unwrap_or_default()
    }

    /// Returns the size of all documents of a tenant's configuration.
    pub(super) fn config_bytes(&self, tenant: TenantId) -> u64 {
        [Kind::Group, Kind::Binding, Kind::Schedule].map(|kind| self.sum(tenant, kind).bytes).iter().sum()
    }
}

/// Returns the size of what a client has written of an entity; 0 if it is not a document of its configuration.
pub(super) fn config_bytes(kind: Kind, doc: &Value) -> u64 {
    let len = match kind {
        // The history of a group's versions is bounded by itself, and the server writes it.
        Kind::Group => doc.get("policy").map_or(0, json_len),
        Kind::Binding => json_len(doc),
        Kind::Schedule => doc.get("spec").map_or(0, json_len),
        Kind::Tenant | Kind::Key | Kind::ApiToken | Kind::Plugin | Kind::Bulk | Kind::DataKey => 0,
    };
    u64::try_from(len).unwrap_or(u64::MAX)
}

/// Returns whether an entity is a token of an operator: it belongs to no tenant, and no tenant's quota keeps operators out.
pub(super) fn is_of_operator(kind: Kind, doc: &Value) -> bool {
    kind == Kind::ApiToken && doc.get("operator").and_then(Value::as_bool).unwrap_or(false)
}

/// Returns the tenants' limits with a quota over them.
pub(super) fn limits(defaults: TenantLimits, quota: &QuotaInput) -> TenantLimits {
    let plugins = quota.plugins.and_then(|plugins| u64::try_from(plugins).ok());
    TenantLimits {
        jobs: quota.jobs.unwrap_or(defaults.jobs),
        schedules: quota.schedules.unwrap_or(defaults.schedules),
        groups: quota.groups.unwrap_or(defaults.groups),
        keys: quota.keys.unwrap_or(defaults.keys),
        tokens: quota.tokens.unwrap_or(defaults.tokens),
        plugins: plugins.unwrap_or(defaults.plugins),
        config_bytes: quota.config_bytes.unwrap_or(defaults.config_bytes),
        bulks: quota.bulks.unwrap_or(defaults.bulks),
        compile_seconds: quota.compile_seconds.unwrap_or(defaults.compile_seconds),
        stored_bytes: quota.stored_bytes.unwrap_or(defaults.stored_bytes),
    }
}

/// Checks that `added` more are within a bound.
pub(super) fn within((name, setting): Bound, limit: u64, used: u64, added: u64) -> Result<(), QuotaExceeded> {
    if used.saturating_add(added) <= limit {
        return Ok(());
    }
    Err(QuotaExceeded { name, setting, limit, used })
}

impl Catalog {
    /// Checks that a tenant with `unfinished` jobs may have `added` more.
    ///
    /// # Errors
    /// Returns [`QuotaExceeded`] if it may not.
    pub fn check_jobs(&self, tenant: TenantId, unfinished: u64, added: u64) -> Result<(), QuotaExceeded> {
        within(JOBS, self.state().limits_of(tenant).jobs, unfinished, added)
    }

    /// Checks that a tenant whose jobs take `used` bytes may store `added` more.
    ///
    /// # Errors
    /// Returns [`QuotaExceeded`] if it may not.
    pub fn check_stored_bytes(&self, tenant: TenantId, used: u64, added: u64) -> Result<(), QuotaExceeded> {
        within(STORED_BYTES, self.state().limits_of(tenant).stored_bytes, used, added)
    }

    /// Checks that a tenant may upload another version of a plugin.
    pub(super) fn check_plugins(&self, tenant: TenantId) -> Result<(), QuotaExceeded> {
        let state = self.state();
        within(PLUGINS, state.limits_of(tenant).plugins, state.ledger.sum(tenant, Kind::Plugin).entities, 1)
    }

    /// Returns what the tenant has of what its quota bounds.
    #[must_use]
    pub fn usage(&self, tenant: TenantId) -> TenantUsage {
        let state = self.state();
        let count = |kind| state.ledger.sum(tenant, kind).entities;
        TenantUsage {
            groups: count(Kind::Group),
            schedules: count(Kind::Schedule),
            keys: count(Kind::Key),
            tokens: count(Kind::ApiToken),
            plugins: count(Kind::Plugin),
            plugin_bytes: state.plugins_of(tenant).map(|plugin| plugin.doc.size).sum(),
            config_bytes: state.ledger.config_bytes(tenant),
            bulks: state.bulks_under_way(tenant),
            compile_seconds: self.runtime.registry.compile_time(tenant, self.clock.now()).as_secs(),
        }
    }

    /// Returns the limits of what the tenant keeps: its quota, and the server's defaults for the rest.
    #[must_use]
    pub fn tenant_limits(&self, tenant: TenantId) -> TenantLimits {
        self.state().limits_of(tenant)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn ledger_counts_each_entity_once() {
        let (mut ledger, tenant) = (Ledger::default(), TenantId(1));
        let doc = json!({"policy": {"a": 1}, "rollout": {"history": ["long"]}});
        ledger.put(tenant, Kind::Group, "g", &doc);
        ledger.put(tenant, Kind::Group, "g", &doc);
        ledger.put(TenantId(2), Kind::Group, "g", &doc);
        let sum = ledger.sum(tenant, Kind::Group);
        assert_eq!((sum.entities, sum.bytes, ledger.config_bytes(tenant)), (1, 7, 7));
        ledger.remove(tenant, Kind::Group, "g");
        ledger.remove(tenant, Kind::Group, "g");
        assert_eq!((ledger.sum(tenant, Kind::Group).entities, ledger.config_bytes(tenant)), (0, 0));
        assert_eq!(ledger.config_bytes(TenantId(2)), 7);
    }

    #[test]
    fn ledger_counts_no_token_of_an_operator() {
        let (mut ledger, tenant) = (Ledger::default(), TenantId(1));
        ledger.put(tenant, Kind::ApiToken, "one", &json!({"operator": true}));
        ledger.put(tenant, Kind::ApiToken, "two", &json!({"operator": false}));
        assert_eq!(ledger.sum(tenant, Kind::ApiToken).entities, 1);
    }

    #[test]
    fn quota_is_full_at_its_limit() {
        assert_eq!(within(GROUPS, 2, 1, 1), Ok(()));
        let error = within(GROUPS, 2, 2, 1).unwrap_err();
        let text = "the tenant's quota `groups` is 2 (default: `limits.tenant.groups`), and its use is 2";
        assert_eq!(error.to_string(), text);
    }
}
