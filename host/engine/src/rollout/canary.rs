//! Canaries: results of a version that some of the jobs follow, compared with the version in force, and the decision to revert it. Pure but
//! for the table of accounts.
//!
//! Each node decides by its own attempts; the first node that decides reverts the version for all.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::by_group::ByGroup;
use carillon_catalog::{Canary, Catalog, Group};
use carillon_core::error_code::ErrorCode;
use carillon_core::job::{AttemptRecord, Outcome};
use carillon_policy::FaultCode;

/// Results of a version's attempts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Arm {
    /// Number of attempts.
    pub attempts: u64,
    /// Attempts with a fault of a policy.
    pub faults: u64,
    /// Attempts that were sent and did not succeed.
    pub failures: u64,
}

/// Results of both versions' attempts since the canary began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Arms {
    /// Results of the version in force.
    pub active: Arm,
    /// Results of the canary.
    pub canary: Arm,
}

/// Canaries of all groups.
#[derive(Default)]
pub(super) struct Canaries(Mutex<ByGroup<(Canary, Arms)>>);

impl Canaries {
    /// Counts an attempt of a group of `catalog`; returns the reason to revert its version, if there is one.
    pub(super) fn count(&self, catalog: &Catalog, group: &Group, attempt: &AttemptRecord) -> Option<String> {
        let Some(canary) = &group.rollout.canary else {
            self.lock().remove(group.id);
            return None;
        };
        let outcome = Arm::from_attempt(attempt)?;
        let mut accounts = self.lock();
        let exists = |group| catalog.group_by_id(group).is_some();
        let (known, arms) = accounts.entry(group.id, exists).or_insert_with(|| (canary.clone(), Arms::default()));
        if known != canary {
            (*known, *arms) = (canary.clone(), Arms::default());
        }
        let version = attempt.detail.binding_version;
        if version == canary.version {
            arms.canary.add(outcome);
        } else if version == group.rollout.active.number {
            arms.active.add(outcome);
        }
        objection(canary, arms)
    }

    /// Returns the results of the attempts since the group's canary began.
    pub(super) fn arms(&self, group: &Group) -> Arms {
        let accounts = self.lock();
        let account = accounts.get(group.id).filter(|(known, _)| Some(known) == group.rollout.canary.as_ref());
        account.map(|(_, arms)| *arms).unwrap_or_default()
    }

    fn lock(&self) -> MutexGuard<'_, ByGroup<(Canary, Arms)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Arm {
    /// Counts one attempt; `None` if it says nothing of its policy: it was postponed, held for lack of resources, or interrupted.
    fn from_attempt(attempt: &AttemptRecord) -> Option<Self> {
        let detail = &attempt.detail;
        let code = detail.error.as_ref().map(|error| &error.code);
        let fault = code.filter(|code| code.is_policy_fault());
        let says_nothing = fault.is_none() && (!detail.spent || code.is_some_and(ErrorCode::is_interruption));
        if fault == Some(&FaultCode::Overloaded.into()) || says_nothing {
            return None;
        }
        let has_fault = fault.is_some() || detail.plugins.iter().any(|used| used.fault.is_some());
        let is_failure = detail.spent && attempt.outcome != Outcome::Success;
        Some(Self { attempts: 1, faults: u64::from(has_fault), failures: u64::from(is_failure) })
    }

    fn add(&mut self, other: Self) {
        self.attempts += other.attempts;
        self.faults += other.faults;
        self.failures += other.failures;
    }

    #[expect(clippy::cast_precision_loss, reason = "2^53 attempts are not made")]
    fn share(self, part: u64) -> f64 {
        if self.attempts == 0 { 0.0 } else { part as f64 / self.attempts as f64 }
    }
}

/// Returns the reason to revert the canary, if there were enough attempts to decide.
fn objection(canary: &Canary, Arms { active, canary: arm }: &Arms) -> Option<String> {
    let enough = u64::from(canary.min_attempts);
    if arm.attempts < enough {
        return None;
    }
    let (faults, most) = (arm.share(arm.faults), canary.max_faults);
    if faults > most {
        let (count, all) = (arm.faults, arm.attempts);
        return Some(format!("{count} of its {all} attempts had a fault, more than max_faults = {most}"));
    }
    let (ours, theirs, most) = (arm.share(arm.failures), active.share(active.failures), canary.max_differences);
    (active.attempts >= enough && ours - theirs > most).then(|| {
        format!(
            "{} of its {} attempts did not succeed, against {} of {} of the version in force: the difference exceeds max_differences = {most}",
            arm.failures, arm.attempts, active.failures, active.attempts
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use carillon_core::clock::UnixMs;

    fn canary() -> Canary {
        Canary {
            version: 2,
            percent: 10,
            since: UnixMs(0),
            by: None,
            why: None,
            max_faults: 0.05,
            max_differences: 0.1,
            min_attempts: 20,
        }
    }

    fn objects(active: (u64, u64, u64), arm: (u64, u64, u64)) -> Option<String> {
        let arm_of = |(attempts, faults, failures)| Arm { attempts, faults, failures };
        objection(&canary(), &Arms { active: arm_of(active), canary: arm_of(arm) })
    }

    #[test]
    fn it_takes_enough_attempts_to_object() {
        assert_eq!(objects((0, 0, 0), (19, 19, 19)), None);
        assert!(objects((0, 0, 0), (20, 2, 0)).unwrap().contains("max_faults = 0.05"));
        assert_eq!(objects((0, 0, 0), (20, 1, 0)), None, "exactly as many as may");
    }

    #[test]
    fn failures_are_compared_with_those_of_the_version_in_force() {
        assert_eq!(objects((19, 0, 0), (20, 0, 20)), None, "nothing to compare with");
        assert!(objects((20, 0, 0), (20, 0, 3)).unwrap().contains("max_differences = 0.1"));
        assert_eq!(objects((20, 0, 0), (20, 0, 2)), None);
        assert_eq!(objects((20, 0, 18), (20, 0, 20)), None, "a receiver that is down is not the policy's");
    }
}
