//! Entries of the audit log for the writes of the catalog, and for what is no write of it.
//!
//! Each verb that changes something takes the [`Origin`] of the change. What is written without one is upkeep, which changes no configuration.

use std::sync::Arc;

use super::{Catalog, CatalogError, Tenant, versions};
use carillon_core::audit::{AuditEntry, AuditId, AuditObject, AuditTenant, Origin, Outcome, Verb};
use carillon_core::job::TenantId;
use carillon_store::{Audit, Kind};

/// Receives each entry after it is stored.
pub type AuditSink = Arc<dyn Fn(&AuditEntry) + Send + Sync>;

/// Cause of a write.
#[derive(Clone, Debug)]
pub(super) enum Cause<'a> {
    /// A change, which is recorded.
    Change(Change<'a>),
    /// Anything else: see [`Audit::Upkeep`].
    Upkeep,
}

/// A change that is recorded.
#[derive(Clone, Debug)]
pub(super) struct Change<'a> {
    origin: &'a Origin,
    verb: Verb,
    version: Option<i64>,
    readers: Readers,
}

/// Readers of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Readers {
    /// The tenant's admins, and operators.
    Tenant,
    /// Operators alone.
    Operators,
}

impl<'a> Cause<'a> {
    pub(super) fn change(origin: &'a Origin, verb: Verb) -> Self {
        Self::Change(Change { origin, verb, version: None, readers: Readers::Tenant })
    }

    /// Returns a change of a group's policy, whose version is this one.
    pub(super) fn policy(origin: &'a Origin, verb: Verb, version: i64) -> Self {
        Self::Change(Change { origin, verb, version: Some(version), readers: Readers::Tenant })
    }

    /// Returns a change of a token.
    pub(super) fn token(origin: &'a Origin, verb: Verb, readers: Readers) -> Self {
        Self::Change(Change { origin, verb, version: None, readers })
    }
}

impl Readers {
    /// Returns the readers of entries about a token: those of an operator belong to no tenant.
    pub(super) fn of_token(operator: bool) -> Self {
        if operator { Self::Operators } else { Self::Tenant }
    }
}

/// What is recorded besides the writes of the catalog: a refusal, a read, or a change of jobs.
#[derive(Debug)]
pub struct NewAuditEntry<'a> {
    /// Origin of the request.
    pub origin: &'a Origin,
    /// Tenant that the entry belongs to; `None` if only operators see it.
    pub tenant: Option<&'a Tenant>,
    /// What was requested.
    pub verb: Verb,
    /// What it was requested for.
    pub object: AuditObject,
    /// Result.
    pub outcome: Outcome,
    /// Number of equal requests.
    pub count: u64,
}

impl Catalog {
    /// Writes an entry of the audit log that belongs to no write of the catalog.
    ///
    /// # Errors
    /// Returns the store's error.
    pub async fn record(&self, new: NewAuditEntry<'_>) -> Result<(), CatalogError> {
        let NewAuditEntry { origin, tenant, verb, object, outcome, count } = new;
        let tenant = tenant.map(|tenant| AuditTenant { id: tenant.id.0, name: tenant.name.clone() });
        let entry = AuditEntry { outcome, count, ..self.new_entry(origin, tenant, verb, object) };
        self.store.append(entry.clone()).await?;
        self.memory.announce(&entry);
        Ok(())
    }

    /// Returns what is written to the audit log with a write of an entity.
    pub(super) fn audit(&self, cause: &Cause<'_>, tenant: TenantId, kind: Kind, name: &str) -> Audit {
        let Cause::Change(Change { origin, verb, version, readers }) = cause else { return Audit::Upkeep };
        let owner = match (kind, readers) {
            (_, Readers::Operators) => None,
            (Kind::Tenant, Readers::Tenant) => {
                let id = self.tenant(name).map_or(0, |tenant| tenant.id.0);
                Some(AuditTenant { id, name: name.to_owned() })
            }
            (_, Readers::Tenant) => {
                let name = self.state().tenants().find(|known| known.id == tenant).map(|known| known.name.clone());
                name.map(|name| AuditTenant { id: tenant.0, name })
            }
        };
        let version = version.map(|version| version.to_string());
        let object = self.object(verb, kind, name);
        let object = AuditObject { version: version.or(object.version), ..object };
        Audit::Recorded(Box::new(self.new_entry(origin, owner, verb.clone(), object)))
    }

    fn object(&self, verb: &Verb, kind: Kind, name: &str) -> AuditObject {
        match kind {
            Kind::Plugin => {
                let (plugin, version) = name.split_once('@').unwrap_or((name, ""));
                AuditObject {
                    version: Some(version.to_owned()),
                    ..AuditObject::new(kind.as_str(), Some(plugin.to_owned()))
                }
            }
            Kind::Binding => {
                let group = versions::slot_of(name).and_then(|(group, _)| self.group_by_id(group));
                AuditObject::new("policy", group.map(|group| group.name.clone()))
            }
            Kind::Group if verb.as_str().starts_with("policy.") => AuditObject::new("policy", Some(name.to_owned())),
            _ => AuditObject::new(kind.as_str(), Some(name.to_owned())),
        }
    }

    fn new_entry(&self, origin: &Origin, tenant: Option<AuditTenant>, verb: Verb, object: AuditObject) -> AuditEntry {
        let Origin { actor, address, request_id } = origin.clone();
        AuditEntry {
            id: AuditId::new(&*self.clock),
            at: self.now(),
            node: self.node.clone(),
            actor,
            tenant,
            verb,
            object,
            changed: Vec::new(),
            address,
            request_id,
            outcome: Outcome::Done,
            count: 1,
        }
    }
}
