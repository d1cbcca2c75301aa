//! Tenants, groups, keys, tokens and plugins: what is stored of each, and what the server works with.

use std::collections::HashMap;
use std::sync::atomic::AtomicI64;
use std::sync::{Arc, Mutex};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::plan_cache::PlanCell;
use super::secrets::Sealed;
use super::signers::{SignerDoc, Signers};
use super::versions::Rollout;
use carillon_core::clock::UnixMs;
use carillon_core::job::{GroupId, JobId, TenantId};
use carillon_policy::binding::{Effective, Invalid, Quota, QuotaDoc};
use carillon_policy::config_schema::{self, Schema};
use carillon_policy::{KeyKind, KeyMaterial, PluginDoc, Quarantine, Watch};

/// An isolation boundary.
#[derive(Debug)]
pub struct Tenant {
    /// Its number.
    pub id: TenantId,
    /// Its name.
    pub name: String,
    /// What its groups inherit, in the form of a group's policy.
    pub defaults: Value,
    /// What they may use together.
    pub quota: Quota,
    /// Whose plugins it takes.
    pub signers: Signers,
    /// When it was made.
    pub created_at: UnixMs,
}

/// What is put, and stored, of a tenant.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct TenantDoc {
    /// What its groups inherit, in the form of a group's policy: an object.
    #[serde(default)]
    pub defaults: Value,
    /// What they may use together.
    #[serde(default)]
    pub quota: QuotaDoc,
    /// Whose plugins it takes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub plugin_signers: Vec<SignerDoc>,
}

/// A task group.
#[derive(Debug)]
pub struct Group {
    /// Its number.
    pub id: GroupId,
    /// Its owner.
    pub tenant: Arc<Tenant>,
    /// Its name.
    pub name: String,
    /// One more with each change.
    pub version: i64,
    /// The version of its policy that this is: the one in force, unless it was asked for under another one.
    pub binding: i64,
    /// Whether its jobs wait, whatever their time.
    pub paused: bool,
    /// What was put, with plugins pinned to versions.
    pub own: Value,
    /// What is in force; an error if something that it refers to has gone.
    pub effective: Result<Arc<Effective>, Invalid>,
    /// Which versions of its policy were in force, and what is tried out.
    pub rollout: Arc<Rollout>,
    /// When it was made.
    pub created_at: UnixMs,
    /// When it was last changed.
    pub updated_at: UnixMs,
    pub(super) plan: Arc<PlanCell>,
    /// The same group under other versions of its policy, as far as somebody asked.
    pub(super) variants: Mutex<HashMap<i64, Arc<Group>>>,
}

impl Group {
    /// How much of what starts it gets, compared with the tenant's other groups.
    #[must_use]
    pub fn weight(&self) -> u32 {
        self.effective.as_ref().map_or(1, |effective| effective.limits.weight)
    }

    /// Whether somebody watches what happens to its jobs.
    #[must_use]
    pub fn has_observer(&self) -> bool {
        self.effective.as_ref().is_ok_and(|effective| effective.observe.is_some())
    }

    /// What keeps an eye on calls for this job of it, or for its observer.
    #[must_use]
    pub fn watch(&self, quarantine: &Arc<Quarantine>, job: Option<JobId>) -> Watch {
        let (quarantine, lifted_at) = (Arc::clone(quarantine), self.rollout.lifted_at);
        Watch { quarantine, tenant: self.tenant.id, group: self.id, binding: self.binding, job, lifted_at }
    }

    /// The same for calls that show the job to its shadow, which begins anew whenever it is set.
    #[must_use]
    pub fn watch_of_shadow(&self, quarantine: &Arc<Quarantine>, job: JobId) -> Watch {
        Watch { lifted_at: self.rollout.shadow_lifted_at(), ..self.watch(quarantine, Some(job)) }
    }

    /// The same group with another policy, which is not written anywhere.
    #[must_use]
    pub fn with_effective(&self, own: Value, effective: Effective) -> Self {
        self.with(Arc::clone(&self.tenant), self.binding, own, Ok(Arc::new(effective)))
    }

    pub(super) fn with(
        &self,
        tenant: Arc<Tenant>,
        binding: i64,
        own: Value,
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

/// What is stored of a group.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct GroupDoc {
    pub(super) policy: Value,
    #[serde(default)]
    pub(super) paused: bool,
    /// Absent if it was written before policies had versions.
    #[serde(default)]
    pub(super) rollout: Option<Rollout>,
}

/// A key.
#[derive(Debug)]
pub struct Key {
    /// Its name.
    pub name: String,
    /// When it was made.
    pub created_at: UnixMs,
    /// When it was last changed.
    pub updated_at: UnixMs,
    /// What signs first, or is sent.
    pub newest: KeyVersion,
    /// Those that sign besides, newest first; some may have expired.
    pub older: Vec<KeyVersion>,
    /// The names of the groups that may use it, sorted; all of the tenant's, if this is `None`.
    pub groups: Option<Vec<String>>,
    /// Whether its value came from the configuration.
    pub is_declared: bool,
    /// Of the entity: one more with each change.
    pub(super) revision: i64,
}

impl Key {
    /// Whether the group of this name may use it.
    #[must_use]
    pub fn is_granted_to(&self, group: &str) -> bool {
        self.groups.as_ref().is_none_or(|groups| groups.iter().any(|known| known == group))
    }

    /// All that signs at this time, newest first.
    pub fn live(&self, now: UnixMs) -> impl Iterator<Item = &KeyVersion> {
        std::iter::once(&self.newest).chain(self.older.iter().filter(move |version| version.lives(now)))
    }
}

/// One value of a key.
#[derive(Clone, Debug)]
pub struct KeyVersion {
    /// Rises, and is not used again while the key is there.
    pub number: i64,
    /// What it can be used for.
    pub kind: KeyKind,
    /// When it was put.
    pub created_at: UnixMs,
    /// When it ends, if it does by itself.
    pub expires_at: Option<UnixMs>,
    /// The value, if it could be decrypted.
    pub material: Option<Arc<KeyMaterial>>,
    pub(super) sealed: Sealed,
}

impl KeyVersion {
    /// Whether it has not expired.
    #[must_use]
    pub fn lives(&self, now: UnixMs) -> bool {
        self.expires_at.is_none_or(|end| now < end)
    }
}

/// What is stored of a key.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct KeyDoc {
    #[serde(flatten)]
    pub(super) newest: SealedVersion,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) older: Vec<SealedVersion>,
    /// Absent if it is granted to all groups.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) groups: Option<Vec<String>>,
    /// Whether the newest value came from the configuration.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) declared: bool,
}

/// What is stored of a key's version.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct SealedVersion {
    pub(super) kind: KeyKind,
    pub(super) sealed: Sealed,
    /// Absent where it is the entity's own version, and so is the time where it is that of the entity's last change.
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

/// What a token lets its bearer do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum AccessRole {
    /// Read what is not secret.
    Viewer,
    /// Also make and cancel jobs.
    Producer,
    /// Also change groups, keys, plugins and tokens of the tenant.
    Admin,
}

/// An API token.
#[derive(Clone, Debug)]
pub struct ApiToken {
    /// Its public id.
    pub id: String,
    /// A note on whose it is.
    pub name: String,
    /// Whose data it opens.
    pub tenant: Arc<Tenant>,
    /// How far.
    pub role: AccessRole,
    /// Whether it also manages tenants and their tokens.
    pub operator: bool,
    /// When it was made.
    pub created_at: UnixMs,
    /// When it ends, if it does by itself.
    pub expires_at: Option<UnixMs>,
    /// When its last use was noted; shared by all copies.
    pub(super) last_used: Arc<AtomicI64>,
    pub(super) hash: String,
    /// Of the entity: one more with each change.
    pub(super) revision: i64,
}

/// What is stored of a token.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct TokenDoc {
    pub(super) hash: String,
    pub(super) name: String,
    pub(super) role: AccessRole,
    #[serde(default)]
    pub(super) operator: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) expires_at: Option<UnixMs>,
    /// To the hour.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) last_used_at: Option<UnixMs>,
}

/// A version of a plugin.
pub struct PluginVersion {
    /// What it is called.
    pub name: String,
    /// Its version.
    pub version: semver::Version,
    /// Whether it is one of the server's own.
    pub builtin: bool,
    /// What is known of it.
    pub doc: PluginDoc,
    pub(super) schema: Schema,
    /// When it was uploaded.
    pub created_at: UnixMs,
}

impl PluginVersion {
    /// `name@version`.
    #[must_use]
    pub fn full_name(&self) -> String {
        format!("{}@{}", self.name, self.version)
    }

    /// Checks a config against the plugin's schema.
    ///
    /// # Errors
    /// Where in the config what is wrong.
    pub fn check_config(&self, config: &Value) -> Result<(), Invalid> {
        let schema = self.schema.of(&self.doc.config_schema).map_err(|error| Invalid::at("", error))?;
        schema.validate(config).map_err(|error| {
            let message = config_schema::message(&error, &self.doc.config_schema);
            Invalid::at(error.instance_path().to_string(), message)
        })
    }
}
