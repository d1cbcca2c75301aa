//! Groups in the catalog.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::Value;

use super::entities::GroupDoc;
use super::versions::roles_of;
use super::{Action, Author, Catalog, Group, Rejected, Rollout, Tenant, check};
use crate::job::{GroupId, TenantId};
use crate::policy::binding::{Effective, Invalid, PluginName, override_configs, provenance};
use crate::store::Kind;

impl Catalog {
    /// The tenant's group of this name.
    #[must_use]
    pub fn group(&self, tenant: TenantId, name: &str) -> Option<Arc<Group>> {
        self.state().group(tenant, name).cloned()
    }

    /// The group with this number, whoever owns it.
    #[must_use]
    pub fn group_by_id(&self, id: GroupId) -> Option<Arc<Group>> {
        self.state().group_by_id(id).cloned()
    }

    /// The tenant's groups, by name.
    #[must_use]
    pub fn groups(&self, tenant: TenantId) -> Vec<Arc<Group>> {
        self.state().groups_of(tenant).cloned().collect()
    }

    /// What would be in force for a group with this own policy, checked as for a put; nothing is written. Without a name it is what
    /// any group could be made with, if the keys are granted to it.
    ///
    /// # Errors
    /// If it makes no sense, with a pointer to what does not.
    pub async fn candidate(&self, tenant: &Tenant, group: Option<&str>, own: &Value) -> Result<Effective, Rejected> {
        let effective = self.state().effective(tenant, group, own)?;
        self.check_policy(tenant, group, &effective).await?;
        Ok(effective)
    }

    /// The layers that a group's policy is made of, lowest first, and their merger's provenance.
    #[must_use]
    pub fn provenance(&self, group: &Group) -> BTreeMap<String, String> {
        let doc = group.effective.as_ref().map(|effective| effective.doc.clone()).unwrap_or_default();
        let state = self.state();
        provenance(&doc, &state.layers(&group.tenant, Some(&group.name), &group.own))
    }

    /// What a tenant's group of this name inherits besides its tenant's defaults; null if nothing.
    #[must_use]
    pub fn preset(&self, tenant: TenantId, group: &str) -> Value {
        self.state().preset(tenant, Some(group)).clone()
    }

    /// Makes or changes a group; the answer says whether it is new. A paused group stays paused. Another policy than before is a new
    /// version of it, in force at once.
    ///
    /// # Errors
    /// If the policy makes no sense, with a pointer to what does not.
    pub async fn put_group(
        &self,
        tenant: &Tenant,
        name: &str,
        own: Value,
        author: &Author,
    ) -> Result<(Arc<Group>, bool), Rejected> {
        check::name("group", name)?;
        let own = self.pin(tenant.id, own);
        let effective = self.candidate(tenant, Some(name), &own).await?;
        let policy = roles_of(&own);
        let version = |number| self.new_binding(tenant.id, number, policy.clone(), &effective, author);
        let is_new = AtomicBool::new(false);
        let group = self
            .change_group(tenant.id, name, |before| {
                is_new.store(before.is_none(), Ordering::Relaxed);
                let Some(group) = before else {
                    let rollout = Some(Rollout::first(version(1), author));
                    return Ok(GroupDoc { policy: own.clone(), paused: false, rollout });
                };
                let moved = group.moved(|rollout| {
                    if rollout.active.policy != policy {
                        let next = version(rollout.number());
                        rollout.advance(next, Action::Bind, author, self.now());
                    }
                });
                Ok(GroupDoc { policy: own.clone(), ..moved })
            })
            .await?;
        self.forget_old(&group).await?;
        Ok((group, is_new.into_inner()))
    }

    /// The groups that have an observer.
    #[must_use]
    pub fn observed_groups(&self) -> HashSet<GroupId> {
        self.state().groups().filter(|group| group.has_observer()).map(|group| group.id).collect()
    }

    /// Lets a group's jobs wait, or go on.
    ///
    /// # Errors
    /// If the group is removed at the same moment.
    pub async fn set_paused(&self, group: &Group, paused: bool) -> Result<(), Rejected> {
        let change = |group: Option<&Group>| Ok(GroupDoc { paused, ..group.ok_or(Rejected::Gone)?.moved(|_| ()) });
        self.change_group(group.tenant.id, &group.name, change).await.map(drop)
    }

    /// Removes a group and, by and by, its finished jobs. False if there is none.
    ///
    /// # Errors
    /// If it has unfinished jobs, takes another group's dead letters, or a schedule uses it.
    pub async fn delete_group(&self, tenant: TenantId, name: &str) -> Result<bool, Rejected> {
        let takes_from = |group: &Arc<Group>| {
            group.name != name && group.effective.iter().any(|it| it.dead_letters.as_deref() == Some(name))
        };
        if let Some(user) = self.groups(tenant).into_iter().find(takes_from) {
            return Err(Rejected::Conflict(format!("the dead letters of the group `{}` go there", user.name)));
        }
        if let Some(user) = self.schedules(tenant).into_iter().find(|schedule| schedule.spec.group == name) {
            return Err(Rejected::Conflict(format!("the schedule `{}` makes its jobs there", user.name)));
        }
        let Some(group) = self.group(tenant, name) else { return Ok(false) };
        let removed = self.delete(tenant, Kind::Group, name).await?;
        self.forget_all(tenant, group.id).await?;
        Ok(removed)
    }

    /// A group's policy with a job's overrides over it, checked.
    ///
    /// # Errors
    /// If the overrides make no sense, with a pointer into them.
    pub async fn check_overrides(&self, group: &Group, overrides: &Value) -> Result<(), Rejected> {
        let effective = self.overridden(group, overrides)?;
        self.check_policy(&group.tenant, Some(&group.name), &effective).await.map_err(Rejected::without_config)
    }

    pub(super) fn overridden(&self, group: &Group, overrides: &Value) -> Result<Effective, Invalid> {
        let mut doc = group.effective.as_ref().map_err(Clone::clone)?.doc.clone();
        override_configs(&mut doc, overrides)?;
        Effective::parse(doc, &|name| self.state().digest_of(group.tenant.id, name))
    }

    /// Writes the version of each of the tenant's own plugins into a policy, so that an upload changes no group.
    pub(super) fn pin(&self, tenant: TenantId, mut own: Value) -> Value {
        let state = self.state();
        let pin = |used: &mut Value| {
            let Some(Value::String(text)) = used.get_mut("plugin") else { return };
            let name = PluginName::from(text.as_str());
            if let Some(plugin) = state.plugin(tenant, &name).filter(|plugin| !plugin.builtin) {
                *text = plugin.full_name();
            }
        };
        ["sign", "judge", "retry", "observe"].into_iter().filter_map(|role| own.get_mut(role).map(&pin)).for_each(drop);
        own.get_mut("encode").and_then(Value::as_array_mut).into_iter().flatten().for_each(pin);
        own
    }
}
