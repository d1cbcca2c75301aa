//! Groups in the catalog.

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Map, Value};

use super::audit::Cause;
use super::change::{MAX_TRIES, busy};
use super::entities::GroupRecord;
use super::versions::roles_of;
use super::{Action, Author, Catalog, CatalogError, CheckBudget, Group, Rollout, Tenant, validation};
use carillon_core::audit::{Origin, Verb};
use carillon_core::job::{GroupId, TenantId};
use carillon_core::limits::json_len;
use carillon_policy::Role;
use carillon_policy::binding::{Changes, Effective, Invalid, PluginName, compose, override_configs, provenance};
use carillon_store::Kind;

/// New content of a group.
#[derive(Clone, Debug)]
pub enum Written {
    /// The group's whole own document.
    Whole(Value),
    /// The whole document from the configuration. It may leave a signer out, because TOML has no null to express that.
    Declared(Value),
    /// A part of the document; members that it does not name stay.
    Part(Value),
}

/// Result of a change of a group.
#[derive(Debug)]
pub struct PutGroup {
    /// The group.
    pub group: Arc<Group>,
    /// Whether the group is new.
    pub is_new: bool,
    /// Differences in the policy in force; a new group is compared with what any group inherits.
    pub changes: Changes,
}

/// Rejects a document that would end the signing of a group's requests without saying so; `own` is the group's whole own document.
pub(super) fn keeps_signing(group: &Group, own: &Value, next: &Effective) -> Result<(), Invalid> {
    let signer = match &group.effective {
        Ok(effective) => effective.sign.as_ref().map(|used| used.plugin.to_string()),
        Err(_) => group.own.value().pointer("/sign/plugin").and_then(Value::as_str).map(str::to_owned),
    };
    match signer {
        Some(signer) if next.sign.is_none() && own.get("sign") != Some(&Value::Null) => {
            let message = format!(
                "requests of the group are signed by `{signer}`, and this document leaves `sign` out: keep it, or write \
                 `\"sign\": null` to send them unsigned"
            );
            Err(Invalid::at("/sign", message))
        }
        _ => Ok(()),
    }
}

impl Catalog {
    /// Returns the tenant's group of this name.
    #[must_use]
    pub fn group(&self, tenant: TenantId, name: &str) -> Option<Arc<Group>> {
        self.state().group(tenant, name).cloned()
    }

    /// Returns the group with this number, of any tenant.
    #[must_use]
    pub fn group_by_id(&self, id: GroupId) -> Option<Arc<Group>> {
        self.state().group_by_id(id).cloned()
    }

    /// Returns the tenant's groups, by name.
    #[must_use]
    pub fn groups(&self, tenant: TenantId) -> Vec<Arc<Group>> {
        self.state().groups_of(tenant).cloned().collect()
    }

    /// Returns the policy that would be in force for a group with this own document, checked as for a put; nothing is written. Without a
    /// name, the policy is one that any group could be made with, if the keys are granted to it.
    ///
    /// # Errors
    /// Returns an error with a pointer if the document is not valid.
    pub async fn candidate(
        &self,
        tenant: &Tenant,
        group: Option<&str>,
        own: &Value,
    ) -> Result<Effective, CatalogError> {
        self.bounds.requests.document.check("group", "", json_len(own))?;
        let effective = self.state().effective(tenant, group, own)?;
        self.check_policy(tenant, group, &effective).await?;
        Ok(effective)
    }

    /// Returns which layer each value of a group's policy comes from.
    #[must_use]
    pub fn provenance(&self, group: &Group) -> BTreeMap<String, String> {
        let doc = group.effective.as_ref().map(|effective| effective.doc.value()).unwrap_or_default();
        let (own, state) = (group.own.value(), self.state());
        provenance(&doc, &state.layers(&group.tenant, Some(&group.name), &own))
    }

    /// Returns what a tenant's group of this name inherits besides its tenant's defaults; null if nothing.
    #[must_use]
    pub fn preset(&self, tenant: TenantId, group: &str) -> Value {
        self.state().preset(tenant, Some(group)).clone()
    }

    /// Makes or changes a group. A paused group stays paused. A policy that differs from the present one is a new version, in force at once.
    ///
    /// # Errors
    /// Returns an error with a pointer if the policy is not valid, or if it ends the signing of the group's requests without saying so.
    pub async fn put_group(
        &self,
        tenant: &Tenant,
        name: &str,
        written: Written,
        author: &Author,
    ) -> Result<PutGroup, CatalogError> {
        validation::name("group", name)?;
        let cause = Cause::change(&author.origin, Verb::GROUP_PUT);
        // The document that a part is merged into must not change meanwhile: on this node, parts wait for each other.
        let _merging = match written {
            Written::Whole(_) | Written::Declared(_) => None,
            Written::Part(_) => Some(self.merging.lock().await),
        };
        for _ in 0..MAX_TRIES {
            let seen = self.group(tenant.id, name);
            let own = self.pin(tenant.id, self.written_over(tenant, name, seen.as_deref(), &written));
            let effective = self.candidate(tenant, Some(name), &own).await?;
            let policy = roles_of(&own);
            let version = |number| self.new_binding(tenant.id, number, policy.clone(), &effective, author);
            let (is_stale, before) = (AtomicBool::new(false), Mutex::new(None));
            let changed = self
                .change_group(&cause, tenant.id, name, |now| {
                    let is_seen = now.map(|group| group.version) == seen.as_ref().map(|group| group.version);
                    if matches!(written, Written::Part(_)) && !is_seen {
                        is_stale.store(true, Ordering::Relaxed);
                        return Err(CatalogError::Gone);
                    }
                    let policy_before = self.policy_before(tenant, Some(name), now);
                    *before.lock().unwrap_or_else(PoisonError::into_inner) = Some((now.is_none(), policy_before));
                    let Some(group) = now else {
                        let rollout = Some(Rollout::first(version(1), author));
                        return Ok(GroupRecord { policy: own.clone(), paused: false, rollout });
                    };
                    if !matches!(written, Written::Declared(_)) {
                        keeps_signing(group, &own, &effective)?;
                    }
                    let moved = group.moved(|rollout| {
                        if rollout.active.policy != policy {
                            let next = version(rollout.number());
                            rollout.advance(next, Action::Bind, author, self.now());
                        }
                    });
                    Ok(GroupRecord { policy: own.clone(), ..moved })
                })
                .await;
            if is_stale.into_inner() {
                continue;
            }
            let group = changed?;
            self.forget_old(&group).await?;
            let before = before.into_inner().unwrap_or_else(PoisonError::into_inner);
            let (is_new, before) = before.unwrap_or_default();
            return Ok(PutGroup { group, is_new, changes: Changes::between(&before, &effective.doc.value()) });
        }
        Err(busy())
    }

    /// Returns the group's own document with a part of it changed. Nothing is written.
    #[must_use]
    pub fn with_part(&self, group: &Group, part: &Value) -> Value {
        self.written_over(&group.tenant, &group.name, Some(group), &Written::Part(part.clone()))
    }

    /// Returns the group's own document after this is written to it.
    pub(super) fn written_over(&self, tenant: &Tenant, name: &str, group: Option<&Group>, written: &Written) -> Value {
        match written {
            Written::Whole(own) | Written::Declared(own) => own.clone(),
            Written::Part(part) => {
                let mut own = group.map_or_else(|| Value::Object(Map::new()), |group| group.own.value());
                compose(&mut own, &self.policy_before(tenant, Some(name), group), part);
                own
            }
        }
    }

    /// Returns the policy in force for a group, or for a new one of this name with an empty document. If something that the group names is
    /// gone, returns the group's own document.
    pub(super) fn policy_before(&self, tenant: &Tenant, name: Option<&str>, group: Option<&Group>) -> Value {
        match group {
            Some(group) => group.effective.as_ref().map_or_else(|_| group.own.value(), |known| known.doc.value()),
            None => {
                let inherited = self.state().effective(tenant, name, &Value::Object(Map::new()));
                inherited.map(|effective| effective.doc.value()).unwrap_or_default()
            }
        }
    }

    /// Returns the groups that have an observer.
    #[must_use]
    pub fn observed_groups(&self) -> HashSet<GroupId> {
        self.state().observed_groups().clone()
    }

    /// Pauses or resumes a group.
    ///
    /// # Errors
    /// Returns [`CatalogError::Gone`] if the group is removed at the same moment.
    pub async fn set_paused(&self, group: &Group, paused: bool, origin: &Origin) -> Result<(), CatalogError> {
        let cause = Cause::change(origin, if paused { Verb::GROUP_PAUSE } else { Verb::GROUP_RESUME });
        let change =
            |group: Option<&Group>| Ok(GroupRecord { paused, ..group.ok_or(CatalogError::Gone)?.moved(|_| ()) });
        self.change_group(&cause, group.tenant.id, &group.name, change).await.map(drop)
    }

    /// Removes a group, and later its finished jobs; returns false if there is none.
    ///
    /// # Errors
    /// Returns an error if the group has unfinished jobs, receives another group's dead letters, or is used by a schedule.
    pub async fn delete_group(&self, tenant: TenantId, name: &str, origin: &Origin) -> Result<bool, CatalogError> {
        let takes_from = |group: &Arc<Group>| {
            group.name != name && group.effective.iter().any(|it| it.dead_letters.as_deref() == Some(name))
        };
        if let Some(user) = self.groups(tenant).into_iter().find(takes_from) {
            return Err(CatalogError::Conflict(format!(
                "the group `{}` sends its dead letters to this group",
                user.name
            )));
        }
        if let Some(user) = self.schedules(tenant).into_iter().find(|schedule| schedule.spec.group == name) {
            return Err(CatalogError::Conflict(format!("the schedule `{}` makes its jobs in this group", user.name)));
        }
        let Some(group) = self.group(tenant, name) else { return Ok(false) };
        let removed = self.delete(&Cause::change(origin, Verb::GROUP_DELETE), tenant, Kind::Group, name).await?;
        self.forget_all(tenant, group.id).await?;
        Ok(removed)
    }

    /// Checks a group's policy with a job's overrides merged into it.
    ///
    /// # Errors
    /// Returns an error with a pointer into the overrides if they are not valid.
    pub async fn check_overrides(
        &self,
        group: &Group,
        overrides: &Value,
        budget: &mut CheckBudget,
    ) -> Result<(), CatalogError> {
        let effective = self.overridden(group, overrides)?;
        let checked = group.effective.as_deref().ok();
        let changes = self.check_changes(&group.tenant, Some(&group.name), checked, &effective, budget);
        changes.await.map_err(CatalogError::without_config)
    }

    pub(super) fn overridden(&self, group: &Group, overrides: &Value) -> Result<Effective, Invalid> {
        validation::nesting(overrides)?;
        let mut doc = group.effective.as_ref().map_err(Clone::clone)?.doc.value();
        override_configs(&mut doc, overrides)?;
        Effective::parse(doc, &|name| self.state().digest_of(group.tenant.id, name))
    }

    /// Pins each of the tenant's own plugins in a policy to a version, so that an upload changes no group.
    pub(super) fn pin(&self, tenant: TenantId, mut own: Value) -> Value {
        let state = self.state();
        let pin = |used: &mut Value| {
            let Some(Value::String(text)) = used.get_mut("plugin") else { return };
            let name = PluginName::from(text.as_str());
            if let Some(plugin) = state.plugin(tenant, &name).filter(|plugin| !plugin.builtin) {
                *text = plugin.full_name();
            }
        };
        Role::SINGLE.into_iter().filter_map(|role| own.get_mut(role.as_str()).map(&pin)).for_each(drop);
        own.get_mut(Role::Encode.as_str()).and_then(Value::as_array_mut).into_iter().flatten().for_each(pin);
        own
    }
}
