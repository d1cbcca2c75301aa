//! Rollout of policy versions: what attempts mean for the versions of their groups' policies. It is called after the settlement was written.
//!
//! It decides one thing: to revert a version that does badly. A canary is reverted when too many of its attempts have faults or do not
//! succeed. The version in force is reverted when one of its policies is quarantined and another version was in force before. Each revert is
//! one write, which is refused if the group's version was changed meanwhile.

mod canary;
mod quarantines;
mod replay;
mod requests;
mod shadow;

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::canary::Canaries;
use crate::delivery::attempt::{AttemptExecutor, AttemptSnapshot};
use crate::services::Services;
use carillon_catalog::{Action, Author, Canary, CatalogError, Group, Initiator};
use carillon_core::audit::Origin;
use carillon_core::job::{AttemptRecord, GroupId, Settlement, TenantId};
use carillon_policy::binding::Use;
use carillon_policy::{PolicyKey, QuarantineTimes, Role};
use carillon_telemetry::{Fact, Subject};

pub use self::canary::{Arm, Arms};
pub use self::replay::{Backtest, Record, Skipped};
pub use self::requests::RequestChanges;
pub use self::shadow::{Difference, Shadows, Tally};

/// Watches the results of the policies' versions.
pub struct RolloutMonitor {
    /// Shadows, which run beside the versions in force.
    pub shadows: Arc<Shadows>,
    canaries: Canaries,
    services: Services,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// Version that is reverted, because it does badly.
enum Reverted {
    /// This canary: its jobs follow the version in force.
    Canary(Canary),
    /// The version in force: the one before it is in force again.
    Active,
}

impl RolloutMonitor {
    /// Creates a monitor that works until `stop`.
    #[must_use]
    pub fn new(services: Services, executor: Arc<AttemptExecutor>, stop: CancellationToken) -> Self {
        let shadows = Shadows::new(services.clone(), executor, stop.clone());
        Self { shadows: Arc::new(shadows), canaries: Canaries::default(), services, tasks: TaskTracker::new(), stop }
    }

    /// Returns the part of a settlement that [`RolloutMonitor::settled`] needs, if it needs any.
    #[must_use]
    pub fn attempt_to_watch(&self, group: GroupId, settlement: &Settlement) -> Option<Arc<AttemptRecord>> {
        let attempt = settlement.attempt.as_ref()?;
        let tries = || self.services.catalog.group_by_id(group).is_some_and(|group| group.rollout.canary.is_some());
        (has_fault(attempt) || tries()).then(|| Arc::clone(attempt))
    }

    /// Counts the attempt of a job that was settled; `trial` is the snapshot for its group's shadow.
    pub fn settled(
        self: &Arc<Self>,
        group: GroupId,
        attempt: Option<Arc<AttemptRecord>>,
        trial: Option<Box<AttemptSnapshot>>,
    ) {
        if let Some(trial) = trial {
            self.shadows.show(trial);
        }
        let Some((attempt, group)) = attempt.zip(self.services.catalog.group_by_id(group)) else { return };
        if let Some(why) = self.canaries.count(&self.services.catalog, &group, &attempt)
            && let Some(canary) = group.rollout.canary.clone()
        {
            self.revert(group, Reverted::Canary(canary), why);
        } else if has_fault(&attempt)
            && let Some((reverted, why)) = self.quarantined(&group, &attempt)
        {
            self.revert(group, reverted, why);
        }
    }

    /// Returns the results of attempts since the group's canary began.
    #[must_use]
    pub fn arms(&self, group: &Group) -> Arms {
        self.canaries.arms(group)
    }

    /// Publishes the newest change of a group's version in force.
    pub fn publish(&self, group: &Group) {
        let Some(it) = group.rollout.history.last() else { return };
        let about = Subject::group(group.tenant.id, group.id);
        self.services.telemetry.record(match it.action {
            Action::Rollback => Fact::rollback(about, it.at, it.to, it.why.clone()),
            Action::Unquarantine => Fact::unquarantine(about, it.at, it.to, it.why.clone()),
            Action::Bind | Action::Promote | Action::Canary => Fact::promote(about, it.at, it.to, it.why.clone()),
        });
    }

    /// Returns which version must be reverted because a policy of it is quarantined, and why.
    ///
    /// A policy that is also part of the version to revert to does not count against the version.
    fn quarantined(&self, group: &Arc<Group>, attempt: &AttemptRecord) -> Option<(Reverted, String)> {
        let effective = group.effective.as_ref().ok().filter(|effective| effective.rollback_on_quarantine)?;
        let decided = attempt.detail.binding_version;
        let (reverted, before) = match &group.rollout.canary {
            Some(canary) if canary.version == decided => (Reverted::Canary(canary.clone()), group.binding),
            _ if group.binding == decided => (Reverted::Active, self.services.catalog.previous(group)?),
            _ => return None,
        };
        let (variant, before) =
            (self.services.catalog.bound(group, decided)?, self.services.catalog.bound(group, before)?);
        let effective = match &reverted {
            Reverted::Canary(_) => variant.effective.as_ref().ok()?,
            Reverted::Active => effective,
        };
        let policy_key = |used: &Use| policy_key(group.tenant.id, used);
        let before: Vec<PolicyKey> = before.effective.iter().flat_map(|it| it.uses()).map(policy_key).collect();
        let times = QuarantineTimes { now: attempt.finished_at, lifted_at: group.rollout.lifted_at };
        let is_bad = |used: &&Use| {
            let it = policy_key(used);
            let is_quarantined = self.services.runtime.quarantine.entry(&it, times).is_some();
            used.role != Role::Observe && is_quarantined && !before.contains(&it)
        };
        let bad = effective.uses().find(is_bad)?;
        Some((reverted, format!("{}: `{}` failed too often and is quarantined", bad.role, bad.plugin)))
    }

    fn revert(self: &Arc<Self>, group: Arc<Group>, reverted: Reverted, why: String) {
        let rollouts = Arc::clone(self);
        self.tasks.spawn(async move {
            let author = Author::new(Origin::system(), Some(why.clone()));
            let moved = async {
                let (catalog, initiator) = (&rollouts.services.catalog, Initiator::Server);
                match &reverted {
                    Reverted::Canary(canary) => catalog.end_canary(&group, canary, &author, initiator).await,
                    Reverted::Active => catalog.roll_back(&group, &author, initiator).await,
                }
            };
            let moved = tokio::select! {
                moved = moved => moved,
                () = rollouts.stop.cancelled() => return,
            };
            let (tenant, name) = (&group.tenant.name, &group.name);
            match moved {
                Ok(group) => {
                    tracing::warn!(tenant, group = name, why, "rolled back a policy version");
                    rollouts.publish(&group);
                }
                // The group was changed meanwhile, perhaps for the same reason.
                Err(CatalogError::Conflict(_) | CatalogError::Gone) => {}
                Err(error) => {
                    tracing::error!(tenant, group = name, why, %error, "rolling back a policy version failed")
                }
            }
        });
    }
}

fn has_fault(attempt: &AttemptRecord) -> bool {
    attempt.detail.plugins.iter().any(|used| used.fault.is_some())
}

fn policy_key(tenant: TenantId, used: &Use) -> PolicyKey {
    PolicyKey { tenant, plugin: used.digest.clone(), config: used.config_digest.clone() }
}
