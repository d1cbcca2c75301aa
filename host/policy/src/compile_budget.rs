//! Budget of compilation: how long the compiler may run for the uploads of one tenant within an hour, on this node.
//!
//! The queue in front of the compiler bounds how many uploads wait; without a budget one tenant could keep a processor busy all day. The
//! compilations of a tenant run one after the other, so a tenant exceeds its budget by one compilation at most. Components that groups use are
//! compiled whatever the budget says: it never delays a delivery.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::load_error::LoadError;
use carillon_core::clock::UnixMs;
use carillon_core::job::TenantId;

/// Minutes of an hour: the use is kept for each minute in which compilations began.
const MINUTES: i64 = 60;

const MS_PER_MINUTE: i64 = 60_000;

/// Budget of one upload's tenant, and the time of the upload.
#[derive(Clone, Copy, Debug)]
pub struct CompileBudget {
    /// Seconds of compilation within an hour (`limits.tenant.compile_seconds` or the tenant's quota).
    pub seconds: u64,
    /// Present time.
    pub now: UnixMs,
}

impl CompileBudget {
    /// Budget of a program that compiles for nobody but its user.
    pub const UNBOUNDED: Self = Self { seconds: u64::MAX, now: UnixMs(0) };
}

/// Durations of compilations of the last hour, for each tenant.
#[derive(Default)]
pub(super) struct CompileUse(Mutex<HashMap<TenantId, VecDeque<Minute>>>);

/// Minute since 1970, and the duration of the compilations that began in it.
struct Minute {
    number: i64,
    used: Duration,
}

impl CompileUse {
    /// Checks that the tenant has used less than its budget.
    pub(super) fn check(&self, tenant: TenantId, budget: CompileBudget) -> Result<(), LoadError> {
        let limit = Duration::from_secs(budget.seconds);
        let mut tenants = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        tenants.retain(|_, minutes| {
            forget_old(minutes, budget.now);
            !minutes.is_empty()
        });
        let none = VecDeque::new();
        let minutes = tenants.get(&tenant).unwrap_or(&none);
        let mut used = total(minutes);
        if used < limit {
            return Ok(());
        }
        // The budget has room again when so many of the oldest minutes are forgotten that the rest is less.
        let enough = minutes.iter().find(|minute| {
            used = used.saturating_sub(minute.used);
            used < limit
        });
        let at = enough.map_or(budget.now.0 / MS_PER_MINUTE, |minute| minute.number) + MINUTES;
        let wait = UnixMs(at * MS_PER_MINUTE).since(budget.now);
        Err(LoadError::OverBudget { seconds: budget.seconds, retry_after: wait.max(Duration::from_secs(1)) })
    }

    /// Adds the duration of a compilation.
    pub(super) fn add(&self, tenant: TenantId, now: UnixMs, used: Duration) {
        let mut tenants = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let minutes = tenants.entry(tenant).or_default();
        let number = now.0 / MS_PER_MINUTE;
        match minutes.back_mut().filter(|last| last.number == number) {
            Some(last) => last.used += used,
            None => minutes.push_back(Minute { number, used }),
        }
    }

    /// Returns how long the compiler ran for the tenant within the last hour.
    pub(super) fn used(&self, tenant: TenantId, now: UnixMs) -> Duration {
        let mut tenants = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(minutes) = tenants.get_mut(&tenant) else { return Duration::ZERO };
        forget_old(minutes, now);
        total(minutes)
    }
}

/// Removes the minutes that are more than an hour ago, and those that lie ahead because the clock was set back.
fn forget_old(minutes: &mut VecDeque<Minute>, now: UnixMs) {
    let present = now.0 / MS_PER_MINUTE;
    minutes.retain(|minute| (0..MINUTES).contains(&(present - minute.number)));
}

fn total(minutes: &VecDeque<Minute>) -> Duration {
    minutes.iter().map(|minute| minute.used).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECONDS: u64 = 100;

    fn at(minute: i64) -> CompileBudget {
        CompileBudget { seconds: SECONDS, now: UnixMs(minute * MS_PER_MINUTE) }
    }

    fn wait(usage: &CompileUse, budget: CompileBudget) -> Option<Duration> {
        match usage.check(TenantId(1), budget) {
            Ok(()) => None,
            Err(LoadError::OverBudget { seconds: SECONDS, retry_after }) => Some(retry_after),
            Err(error) => panic!("{error}"),
        }
    }

    #[test]
    fn budget_is_per_tenant_and_hour() {
        let usage = CompileUse::default();
        let add = |minute, seconds| usage.add(TenantId(1), at(minute).now, Duration::from_secs(seconds));
        assert_eq!(wait(&usage, at(0)), None);
        add(0, 30);
        add(10, 30);
        add(20, 39);
        assert_eq!(wait(&usage, at(20)), None);
        add(20, 31);
        assert_eq!(usage.used(TenantId(1), at(20).now), Duration::from_secs(130));
        // Without the first minute it is exactly the budget, which is used up; without the second it is less.
        assert_eq!(wait(&usage, at(20)), Some(Duration::from_secs(50 * 60)));
        assert_eq!(wait(&usage, at(69)), Some(Duration::from_secs(60)));
        assert_eq!(wait(&usage, at(70)), None);
        assert_eq!(usage.used(TenantId(1), at(70).now), Duration::from_secs(70));
        usage.check(TenantId(2), at(20)).unwrap();
    }

    #[test]
    fn budget_of_zero_allows_nothing() {
        let budget = CompileBudget { seconds: 0, ..at(5) };
        let refused = CompileUse::default().check(TenantId(1), budget);
        assert!(matches!(refused, Err(LoadError::OverBudget { .. })), "{refused:?}");
    }

    #[test]
    fn use_of_tenants_that_upload_nothing_is_forgotten() {
        let usage = CompileUse::default();
        usage.add(TenantId(1), at(0).now, Duration::from_secs(1));
        usage.check(TenantId(2), at(60)).unwrap();
        assert!(usage.0.lock().unwrap().is_empty());
    }
}
