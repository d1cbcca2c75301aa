//! Tenants, groups, keys, tokens and plugins: their stored forms, and the forms that the server works with.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::plan_cache::PlanCell;
use super::secrets::Sealed;
use super::signers::{SignerInput, Signers};
use super::versions::Rollout;
use carillon_core::clock::UnixMs;
use carillon_core::job::{GroupId, JobId, TenantId};
use carillon_policy::binding::{Document, Effective, Invalid, Quota, QuotaInput};
use carillon_policy::config_schema::{self, Schema};
use carillon_policy::{KeyKind, KeyMaterial, KeyOrigins, PluginRecord, Quarantine, Watch};

/// Tenant: an isolation boundary.
#[derive(Debug)]
pub struct Tenant {
    /// Number of the tenant.
    pub id: TenantId,
    /// Name of the tenant.
    pub name: String,
    /// Settings that its groups inherit, in the form of a group's policy.
    pub defaults: Value,
    /// Bounds on what its groups use together.
    pub quota: Quota,
    /// Signers whose plugins it accepts.
    pub signers: Signers,
    /// Whether nothing is delivered, ticked or leased, and its tokens are refused.
    pub suspended: bool,
    /// Time of creation.
    pub created_at: UnixMs,
    /// Version of the entity, which rises with each change.
    pub(super) revision: i64,
}

impl Tenant {
    /// Returns the settings, as a client puts them.
    pub(super) fn doc(&self) -> TenantRecord {
        let (defaults, quota) = (self.defaults.clone(), self.quota.doc.clone());
        TenantRecord { defaults, quota, plugin_signers: self.signers.docs() }
    }
}

/// Stored form of a tenant.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct StoredTenant {
    #[serde(flatten)]
    pub(super) doc: TenantRecord,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) suspended: bool,
}

/// Settings of a tenant, as a client puts them.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct TenantRecord {
    /// Settings that its groups inherit, in the form of a group's policy: an object.
    #[serde(default)]
    pub defaults: Value,
    /// Bounds on what its groups use together.
    #[serde(default)]
    pub quota: QuotaInput,
    /// Signers whose plugins it accepts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub plugin_signers: Vec<SignerInput>,
}

/// Group of jobs.
#[derive(Debug)]
pub struct Group {
    /// Number of the group.
    pub id: GroupId,
    /// Owning tenant.
    pub tenant: Arc<Tenant>,
    /// Name of the group.
    pub name: String,
    /// Version of the entity, which rises with each change.
    pub version: i64,
    /// Version of the policy that this value has: the one in force, unless the caller requested another.
    pub binding: i64,
    /// Whether its jobs wait, even when they are due.
    pub paused: bool,
    /// Document that the client put, with plugins pinned to versions.
    pub own: Document,
    /// Policy in force; an error if something that it refers to is gone.
    pub effective: Result<Arc<Effective>, Invalid>,
    /// History of the versions in force, and the canary and shadow.
    pub rollout: Arc<Rollout>,
    /// Time of creation.
    pub created_at: UnixMs,
    /// Time of the last change.
    pub updated_at: UnixMs,
    pub(super) plan: Arc<PlanCell>,
    /// The same group under other versions of its policy, as far as callers have requested them.
    pub(super) variants: Mutex<HashMap<i64, Arc<Group>>>,
}

impl Group {
    /// Returns whether none of its jobs may start: it is paused, or its tenant is suspended.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.paused || self.tenant.suspended
    }

    /// Returns the group's weight in the division of claims, relative to the tenant's other groups.
    #[must_use]
    pub fn weight(&self) -> u32 {
        self.effective.as_ref().map_or(1, |effective| effective.limits.weight)
    }

    /// Returns whether the group has an observer.
    #[must_use]
    pub fn has_observer(&self) -> bool {
        self.effective.as_ref().is_ok_and(|effective| effective.observe.is_some())
    }

    /// Returns a watch on calls for a job of the group, or for its observer.
    #[must_use]
    pub fn watch(&self, quarantine: &Arc<Quarantine>, job: Option<JobId>) -> Watch {
        let (quarantine, lifted_at) = (Arc::clone(quarantine), self.rollout.lifted_at);
        Watch { quarantine, tenant: self.tenant.id, group: self.id, binding: self.binding, job, lifted_at }
    }

    /// Returns a watch on calls that show the job to the group's shadow. It starts without faults whenever the shadow is set.
    #[must_use]
    pub fn watch_of_shadow(&self, quarantine: &Arc<Quarantine>, job: JobId) -> Watch {
        Watch { lifted_at: self.rollout.shadow_lifted_at(), ..self.watch(quarantine, Some(job)) }
    }

    /// Returns the same group with another policy, which is not stored.
    #[must_use]
    pub fn with_effective(&self, own: &Value, effective: Effective) -> Self {
        self.with(Arc::clone(&self.tenant), self.binding, own.into(), Ok(Arc::new(effective)))
    }

    pub(super) fn with(
        &self,
        tenant: Arc<Tenant>,
        binding: i64,
        own: Document,
        effective: Result<Arc<Effective>, Invalid>,
    ) -> Self {
        Self {
            id: self.id,
            tenant,
            name: self.name.clone(),
            version: self.version,
            binding,
            paused: self.paused,
            own,
            effective,
            rollout: Arc::clone(&self.rollout),
            created_at: self.created_at,
            updated_at: self.updated_at,
            plan: Arc::default(),
            variants: Mutex::default(),
        }
    }
}

/// Stored form of a group.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct GroupRecord {
    pub(super) policy: Value,
    #[serde(default)]
    pub(super) paused: bool,
    /// Absent if the group was stored before policies had versions.
    #[serde(default)]
    pub(super) rollout: Option<Rollout>,
}

/// Key of a tenant, with its versions.
#[derive(Debug)]
pub struct Key {
    /// Name of the key.
    pub name: String,
    /// Time of creation.
    pub created_at: UnixMs,
    /// Time of the last change.
    pub updated_at: UnixMs,
    /// Newest version: it signs first, or is sent.
    pub newest: KeyVersion,
    /// Older versions that also sign, newest first; some may have expired.
    pub older: Vec<KeyVersion>,
    /// Sorted names of the groups that may use the key; `None` grants it to all of the tenant's groups.
    pub groups: Option<Vec<String>>,
    /// Origins of requests that may use the key; `None` allows all.
    pub origins: Option<KeyOrigins>,
    /// Whether its value came from the configuration.
    pub is_declared: bool,
    /// Version of the entity, which rises with each change.
    pub(super) revision: i64,
}

impl Key {
    /// Returns whether the group of this name may use the key.
    #[must_use]
    pub fn is_granted_to(&self, group: &str) -> bool {
        self.groups.as_ref().is_none_or(|groups| groups.iter().any(|known| known == group))
    }

    /// Returns all versions that sign at this time, newest first.
    pub fn live(&self, now: UnixMs) -> impl Iterator<Item = &KeyVersion> {
        std::iter::once(&self.newest).chain(self.older.iter().filter(move |version| version.lives(now)))
    }
}

/// Version of a key: one value.
#[derive(Clone, Debug)]
pub struct KeyVersion {
    /// Number, which rises and is not used again while the key exists.
    pub number: i64,
    /// Kind of the key, which determines its use.
    pub kind: KeyKind,
    /// Time at which the value was put.
    pub created_at: UnixMs,
    /// Expiry, if the version has one.
    pub expires_at: Option<UnixMs>,
    /// The value, if it could be decrypted.
    pub material: Option<Arc<KeyMaterial>>,
    pub(super) sealed: Sealed,
}

impl KeyVersion {
    /// Returns whether the version has not expired.
    #[must_use]
    pub fn lives(&self, now: UnixMs) -> bool {
        self.expires_at.is_none_or(|end| now < end)
    }
}

/// Stored form of a key.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct KeyRecord {
    #[serde(flatten)]
    pub(super) newest: SealedVersion,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) older: Vec<SealedVersion>,
    /// Absent if the key is granted to all groups.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) groups: Option<Vec<String>>,
    /// Absent if the key may go to all origins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) origins: Option<Vec<String>>,
    /// Whether the newest value came from the configuration.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) declared: bool,
}

/// Stored form of a key's version.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct SealedVersion {
    pub(super) kind: KeyKind,
    pub(super) sealed: Sealed,
    /// Absent where it equals the entity's own version; likewise the time, where it equals that of the entity's last change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) number: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) created_at: Option<UnixMs>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) expires_at: Option<UnixMs>,
}

impl From<&KeyVersion> for SealedVersion {
    fn from(version: &KeyVersion) -> Self {
        Self {
            kind: version.kind,
            sealed: version.sealed.clone(),
            number: Some(version.number),
            created_at: Some(version.created_at),
            expires_at: version.expires_at,
        }
    }
}

/// Role of a token, which determines what its bearer may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum AccessRole {
    /// Reads what is not secret.
    Viewer,
    /// Also makes and cancels jobs.
    Producer,
    /// Also changes groups, keys, plugins and tokens of the tenant.
    Admin,
}

impl fmt::Display for AccessRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Viewer => "viewer",
            Self::Producer => "producer",
            Self::Admin => "admin",
        })
    }
}

/// Owner of the plugins that operators share with tenants, which is the number of no tenant.
pub const SHARED: TenantId = TenantId(0);

/// Version of a plugin.
pub struct PluginVersion {
    /// Name of the plugin.
    pub name: String,
    /// Semantic version.
    pub version: semver::Version,
    /// Whether it is one of the server's own plugins.
    pub builtin: bool,
    /// Whether an operator shares it with tenants.
    pub shared: bool,
    /// Its stored description.
    pub doc: PluginRecord,
    pub(super) schema: Schema,
    /// Time of the upload.
    pub created_at: UnixMs,
}

impl PluginVersion {
    /// Returns `name@version`.
    #[must_use]
    pub fn full_name(&self) -> String {
        format!("{}@{}", self.name, self.version)
    }

    /// Returns whether a tenant that has no plugin of this name may use the version. Operators manage shared versions as [`SHARED`].
    pub(super) fn is_given_to(&self, tenant: TenantId) -> bool {
        !self.shared || tenant == SHARED || self.doc.tenants.as_ref().is_none_or(|tenants| tenants.contains(&tenant))
    }

    /// Checks a config against the plugin's schema.
    ///
    /// # Errors
    /// Returns [`Invalid`] with a pointer into the config.
    pub fn check_config(&self, config: &Value) -> Result<(), Invalid> {
        let schema = self.schema.validator(&self.doc.config_schema).map_err(|error| Invalid::at("", error))?;
        schema.validate(config).map_err(|error| {
            let message = config_schema::message(&error, &self.doc.config_schema);
            Invalid::at(error.instance_path().to_string(), message)
        })
    }
}
