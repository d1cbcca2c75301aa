//! Views of groups.

use super::super::ApiState;
use super::quarantine_view::quarantine_views;
use super::views::{CanaryView, ChangedGroupView, GroupView};
use carillon_catalog::Group;
use carillon_policy::binding::Changes;

/// Shows a group with the policy that it has stored.
pub(super) fn group_view(api: &ApiState, group: &Group) -> GroupView {
    GroupView {
        name: group.name.clone(),
        version: group.version,
        binding: group.binding,
        paused: group.paused,
        created_at: group.created_at.to_string(),
        updated_at: group.updated_at.to_string(),
        policy: group.own.value(),
        sources: None,
        quota: None,
        broken: group.effective.as_ref().err().map(ToString::to_string),
        quarantined: quarantine_views(api, group),
        warnings: api.services.catalog.warnings(group),
        canary: canary_view(api, group),
        observer: group.has_observer().then(|| api.observers.report(group.id).into()),
    }
}

/// Shows a group with the policy that is in force, merged from all layers.
pub(super) fn effective_group_view(api: &ApiState, group: &Group) -> GroupView {
    let in_force = group.effective.as_ref().map(|effective| &effective.doc);
    GroupView {
        policy: in_force.unwrap_or(&group.own).value(),
        sources: Some(api.services.catalog.provenance(group)),
        quota: Some(group.tenant.quota.doc.clone()),
        ..group_view(api, group)
    }
}

/// A group under another version of its policy than before.
pub(super) fn changed_group(api: &ApiState, before: &Group, after: &Group) -> ChangedGroupView {
    let policy = |group: &Group| group.effective.as_ref().map_or_else(|_| group.own.value(), |it| it.doc.value());
    let changes = Changes::between(&policy(before), &policy(after));
    ChangedGroupView { group: group_view(api, after), changes }
}

fn canary_view(api: &ApiState, group: &Group) -> Option<CanaryView> {
    let canary = group.rollout.canary.as_ref()?;
    let arms = api.rollouts.arms(group);
    Some(CanaryView {
        version: canary.version,
        percent: canary.percent,
        since: canary.since.to_string(),
        max_faults: canary.max_faults,
        max_differences: canary.max_differences,
        min_attempts: canary.min_attempts,
        canary: arms.canary.into(),
        active: arms.active.into(),
    })
}
