//! Views of quarantined policies.

use std::sync::Arc;

use super::super::ApiState;
use super::views::QuarantineView;
use carillon_catalog::Group;
use carillon_core::clock::UnixMs;
use carillon_policy::binding::Use;
use carillon_policy::{PolicyKey, Quarantine, QuarantineStart, QuarantineTimes};

/// Quarantined part of a version of a group's policy.
struct Part<'a> {
    bound: Arc<Group>,
    quarantine: &'a Quarantine,
    times: QuarantineTimes,
    shadow: bool,
}

impl Part<'_> {
    fn begun(&self) -> Vec<(PolicyKey, QuarantineStart, bool)> {
        let uses = self.bound.effective.iter().flat_map(|effective| effective.uses());
        uses.filter_map(|used| self.began(used)).collect()
    }

    fn began(&self, used: &Use) -> Option<(PolicyKey, QuarantineStart, bool)> {
        let (tenant, binding, role) = (self.bound.tenant.id, self.bound.binding, used.role);
        let policy = PolicyKey { tenant, plugin: used.digest.clone(), config: used.config_digest.clone() };
        let entry = self.quarantine.entry(&policy, self.times)?;
        Some((policy, QuarantineStart { tenant, binding, role, plugin: used.plugin.to_string(), entry }, self.shadow))
    }
}

impl QuarantineView {
    fn from_entry((policy, began, shadow): (PolicyKey, QuarantineStart, bool)) -> Self {
        Self {
            version: began.binding,
            shadow,
            role: began.role.to_string(),
            plugin: began.plugin,
            digest: policy.plugin.to_string(),
            since: began.entry.since.to_string(),
            until: began.entry.until.to_string(),
            fault: began.entry.fault.as_str(),
        }
    }
}

/// What is quarantined of the version in force, of the one that some of the jobs follow, of the shadow's, and of what jobs of the group
/// have put in their place.
pub(super) fn quarantine_views(api: &ApiState, group: &Group) -> Vec<QuarantineView> {
    let Some(group) = api.services.catalog.group_by_id(group.id) else { return Vec::new() };
    let (rollout, now) = (&group.rollout, api.services.clock.now());
    let canary = rollout.canary.as_ref().map(|canary| canary.version);
    let live = [Some(group.binding), canary].into_iter().flatten().map(|version| (version, false));
    let shadow = rollout.shadow.as_ref().map(|shadow| (shadow.version, true));
    let part = |(version, shadow)| {
        let (quarantine, lifted_at) = if shadow {
            (&api.services.runtime.shadow_quarantine, rollout.shadow_lifted_at())
        } else {
            (&api.services.runtime.quarantine, rollout.lifted_at)
        };
        Some(Part {
            bound: api.services.catalog.bound(&group, version)?,
            quarantine,
            times: QuarantineTimes { now, lifted_at },
            shadow,
        })
    };
    let bound: Vec<_> = live.chain(shadow).filter_map(part).flat_map(|part| part.begun()).collect();
    let is_bound = |policy: &PolicyKey| bound.iter().any(|(known, _, shadow)| known == policy && !shadow);
    let times = QuarantineTimes { now, lifted_at: rollout.lifted_at };
    let of_jobs = api.services.runtime.quarantine.of_group(group.tenant.id, group.id, times);
    let others = of_jobs.into_iter().filter(|(policy, _)| !is_bound(policy));
    let others: Vec<_> = others.map(|(policy, began)| (policy, began, false)).collect();
    bound.into_iter().chain(others).map(QuarantineView::from_entry).collect()
}

/// How many policies are quarantined on this node, as far as deliveries and observers go.
pub(super) fn quarantine_count(api: &ApiState) -> usize {
    let entries = api.services.runtime.quarantine.entries(api.services.clock.now());
    let lifted_at =
        |group| api.services.catalog.group_by_id(group).map_or(UnixMs::MAX, |group| group.rollout.lifted_at);
    entries.into_iter().filter(|entry| entry.since > lifted_at(entry.group)).count()
}
