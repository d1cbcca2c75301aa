//! Quarantine of policies that fail repeatedly, so that a broken plugin pauses its own tenant's jobs and uses no CPU.
//!
//! The unit is a component *with* a config, of a tenant: the same component is still called under another config, and for another tenant.
//! Only faults of several jobs lead to quarantine: a job whose payload no policy can handle counts once, however often it is tried. Only
//! calls whose result is used are counted.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use super::component::{Digest, Role};
use super::fault::{Blame, Fault, FaultCode};
use carillon_core::clock::UnixMs;
use carillon_core::job::{GroupId, JobId, TenantId};

/// Maximum number of (component, config) pairs of a tenant that are watched at once; a further pair is not watched.
const WATCHED: usize = 10_000;

/// Key of a watched policy: a component under a config, of a tenant.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PolicyKey {
    /// Tenant that calls it.
    pub tenant: TenantId,
    /// Digest of the component.
    pub plugin: Digest,
    /// Digest of the config.
    pub config: Digest,
}

/// Rules of quarantine: when it begins, and how long it lasts.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// Number of jobs whose faults lead to quarantine, if they occur ...
    pub threshold: u32,
    /// ... within this time.
    pub window: Duration,
    /// Duration of the quarantine.
    pub period: Duration,
}

/// Quarantine of a policy: its cause and its duration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuarantineEntry {
    /// Group of the job whose fault reached the threshold.
    pub group: GroupId,
    /// Time of that fault.
    pub since: UnixMs,
    /// End of the quarantine.
    pub until: UnixMs,
    /// Code of that fault.
    pub fault: FaultCode,
}

/// Quarantine that has begun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuarantineStart {
    /// Tenant that the policy belongs to.
    pub tenant: TenantId,
    /// Version of the group's policy that it is a part of.
    pub binding: i64,
    /// Role that the plugin plays.
    pub role: Role,
    /// Name of the plugin in the group's binding.
    pub plugin: String,
    /// Cause and duration.
    pub entry: QuarantineEntry,
}

/// Times that decide which quarantines are in force for a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuarantineTimes {
    /// Current time.
    pub now: UnixMs,
    /// Time at which the group's quarantines were lifted: what began up to then does not count.
    pub lifted_at: UnixMs,
}

/// Recent faults of all policies.
pub struct Quarantine {
    rules: Rules,
    log: Mutex<FaultLog>,
    has_begun: Notify,
}

#[derive(Default)]
struct FaultLog {
    watched: HashMap<TenantId, HashMap<PolicyKey, Record>>,
    starts: Vec<QuarantineStart>,
}

#[derive(Default)]
struct Record {
    /// At most as many faults as lead to quarantine.
    faults: VecDeque<(UnixMs, Option<JobId>)>,
    start: Option<QuarantineStart>,
}

/// Watch on the calls that are made for a group.
#[derive(Clone)]
pub struct Watch {
    /// Faults so far.
    pub quarantine: Arc<Quarantine>,
    /// Tenant of the group.
    pub tenant: TenantId,
    /// The group.
    pub group: GroupId,
    /// Version of the group's policy.
    pub binding: i64,
    /// The job; `None` for an observer, each of whose calls counts.
    pub job: Option<JobId>,
    /// Time at which quarantines of the group were lifted; earlier faults do not count for it.
    pub lifted_at: UnixMs,
}

impl Quarantine {
    /// Makes a quarantine without any fault.
    #[must_use]
    pub fn new(rules: Rules) -> Self {
        Self { rules, log: Mutex::default(), has_begun: Notify::new() }
    }

    /// Returns the quarantine of a policy, if it is in force.
    #[must_use]
    pub fn entry(&self, policy: &PolicyKey, times: QuarantineTimes) -> Option<QuarantineEntry> {
        let entry = self.lock().watched.get(&policy.tenant)?.get(policy)?.start.as_ref()?.entry;
        (entry.since > times.lifted_at && self.lasts(&entry, times.now)).then_some(entry)
    }

    /// Returns all quarantines that last now.
    #[must_use]
    pub fn entries(&self, now: UnixMs) -> Vec<QuarantineEntry> {
        let log = self.lock();
        let records = log.watched.values().flat_map(HashMap::values);
        let entries = records.filter_map(|record| Some(record.start.as_ref()?.entry));
        entries.filter(|entry| self.lasts(entry, now)).collect()
    }

    /// Returns the quarantines that are in force because of jobs of this group of the tenant.
    #[must_use]
    pub fn of_group(
        &self,
        tenant: TenantId,
        group: GroupId,
        times: QuarantineTimes,
    ) -> Vec<(PolicyKey, QuarantineStart)> {
        let log = self.lock();
        let records = log.watched.get(&tenant).into_iter().flatten();
        let starts = records.filter_map(|(policy, record)| Some((policy, record.start.as_ref()?)));
        let is_of_group = |entry: &QuarantineEntry| entry.group == group && entry.since > times.lifted_at;
        let counts = starts.filter(|(_, start)| is_of_group(&start.entry) && self.lasts(&start.entry, times.now));
        counts.map(|(policy, start)| (policy.clone(), start.clone())).collect()
    }

    /// Waits for quarantines to begin, and returns those that began since the last call. Only one task may wait.
    pub async fn next_starts(&self) -> Vec<QuarantineStart> {
        loop {
            let starts = std::mem::take(&mut self.lock().starts);
            if !starts.is_empty() {
                return starts;
            }
            self.has_begun.notified().await;
        }
    }

    /// Returns whether a quarantine lasts. Its end is at most one period from now, unless the clock has been set back.
    fn lasts(&self, entry: &QuarantineEntry, now: UnixMs) -> bool {
        entry.until > now && entry.until <= now.plus(self.rules.period)
    }

    fn threshold(&self) -> usize {
        usize::try_from(self.rules.threshold).unwrap_or(usize::MAX)
    }

    fn lock(&self) -> MutexGuard<'_, FaultLog> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watch {
    /// Returns the key of the component under the config, for this watch's tenant.
    #[must_use]
    pub fn policy_key(&self, plugin: &Digest, config: &Digest) -> PolicyKey {
        PolicyKey { tenant: self.tenant, plugin: plugin.clone(), config: config.clone() }
    }

    /// Checks whether the policy may be called.
    ///
    /// # Errors
    /// Returns a fault with [`FaultCode::Quarantined`] if the policy is in quarantine.
    pub fn admit(&self, policy: &PolicyKey, now: UnixMs) -> Result<(), Fault> {
        match self.quarantine.entry(policy, QuarantineTimes { now, lifted_at: self.lifted_at }) {
            None => Ok(()),
            Some(QuarantineEntry { until, .. }) => Err(Fault {
                code: FaultCode::Quarantined,
                blame: Blame::Policy,
                message: format!("the policy failed too often and is not called until {until}"),
            }),
        }
    }

    /// Counts a fault of the policy that the group calls `plugin`.
    pub fn report(&self, policy: &PolicyKey, role: Role, plugin: &str, fault: FaultCode, now: UnixMs) {
        let Rules { window, period, .. } = self.quarantine.rules;
        let threshold = self.quarantine.threshold();
        let mut log = self.quarantine.lock();
        let watched = log.watched.entry(policy.tenant).or_default();
        if watched.len() >= WATCHED {
            let horizon = now.minus(window);
            watched.retain(|_, record| record.is_live(now, horizon));
        }
        if watched.len() >= WATCHED && !watched.contains_key(policy) {
            return;
        }
        let record = watched.entry(policy.clone()).or_default();
        record.faults.retain(|(at, _)| now.since(*at) <= window);
        let counts = |(at, _): &&(UnixMs, Option<JobId>)| *at > self.lifted_at;
        if self.job.is_some() && record.faults.iter().filter(counts).any(|(_, job)| *job == self.job) {
            return;
        }
        record.faults.push_back((now, self.job));
        let surplus = record.faults.len().saturating_sub(threshold);
        record.faults.drain(..surplus);
        if record.faults.iter().filter(counts).count() < threshold {
            return;
        }
        record.faults.clear();
        let entry = QuarantineEntry { group: self.group, since: now, until: now.plus(period), fault };
        let (tenant, binding, plugin) = (self.tenant, self.binding, plugin.to_owned());
        let start = QuarantineStart { tenant, binding, role, plugin, entry };
        record.start = Some(start.clone());
        log.starts.push(start);
        drop(log);
        self.quarantine.has_begun.notify_one();
    }
}

impl Record {
    fn is_live(&self, now: UnixMs, horizon: UnixMs) -> bool {
        self.start.as_ref().is_some_and(|start| start.entry.until > now)
            || self.faults.back().is_some_and(|(at, _)| *at >= horizon)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    fn watch() -> Watch {
        let rules = Rules { threshold: 3, window: Duration::from_secs(60), period: Duration::from_secs(300) };
        Watch {
            quarantine: Arc::new(Quarantine::new(rules)),
            tenant: TenantId(1),
            group: GroupId(1),
            binding: 4,
            job: None,
            lifted_at: UnixMs(0),
        }
    }

    impl Watch {
        fn of_job(&self, job: u128) -> Self {
            Self { job: Some(JobId(uuid::Uuid::from_u128(job))), ..self.clone() }
        }

        fn named(&self, config: &str) -> PolicyKey {
            self.policy_key(&Digest::from_bytes(b"plugin"), &Digest::from_bytes(config.as_bytes()))
        }

        /// Reports a fault; returns whether the policy is quarantined right after it.
        fn fails(&self, config: &str, at: i64) -> bool {
            self.report(&self.named(config), Role::Judge, "judge@1.0.0", FaultCode::Trap, UnixMs(at));
            !self.admits(config, at)
        }

        fn admits(&self, config: &str, at: i64) -> bool {
            self.admit(&self.named(config), UnixMs(at)).is_ok()
        }
    }

    #[test]
    fn the_third_fault_in_the_window_is_one_too_many() {
        let watch = watch();
        assert!(!watch.fails("a", 1));
        assert!(!watch.fails("a", 1_000));
        assert!(watch.fails("a", 60_000));
        assert!(!watch.admits("a", 359_999));
        assert!(watch.admits("b", 60_001), "another config is not concerned");
        assert!(watch.admits("a", 360_000));
        let entry = QuarantineEntry {
            group: GroupId(1),
            since: UnixMs(60_000),
            until: UnixMs(360_000),
            fault: FaultCode::Trap,
        };
        let start =
            QuarantineStart { tenant: TenantId(1), binding: 4, role: Role::Judge, plugin: "judge@1.0.0".into(), entry };
        assert_eq!(watch.quarantine.entries(UnixMs(60_001)), [entry]);
        assert!(watch.quarantine.entries(UnixMs(360_000)).is_empty());
        let of_group = |group, lifted_at, now| {
            let times = QuarantineTimes { now: UnixMs(now), lifted_at: UnixMs(lifted_at) };
            watch.quarantine.of_group(TenantId(1), GroupId(group), times)
        };
        assert_eq!(of_group(1, 0, 60_001), [(watch.named("a"), start.clone())]);
        for (group, lifted_at, now) in [(2, 0, 60_001), (1, 60_000, 60_001), (1, 0, 360_000)] {
            assert!(of_group(group, lifted_at, now).is_empty(), "{group} {lifted_at} {now}");
        }
        assert_eq!(watch.quarantine.next_starts().now_or_never(), Some(vec![start]));
        assert_eq!(watch.quarantine.next_starts().now_or_never(), None, "it is told once");
    }

    #[test]
    fn faults_that_are_far_apart_do_not_add_up() {
        let watch = watch();
        assert!((1..20).all(|n| !watch.fails("a", n * 31_000)));
    }

    #[test]
    fn one_job_is_not_enough() {
        let watch = watch();
        assert!((1..60).all(|n| !watch.of_job(1).fails("a", n * 1_000)), "its own tries count once");
        assert!(!watch.of_job(2).fails("a", 60_001));
        assert!(watch.of_job(3).fails("a", 60_002));
    }

    #[test]
    fn a_tenant_is_none_of_another_ones_business() {
        let watch = watch();
        let other = Watch { tenant: TenantId(2), ..watch.clone() };
        assert!((1..=3).any(|at| watch.fails("a", at)));
        assert!(other.admits("a", 4) && !watch.admits("a", 4));
        for n in 0..=WATCHED {
            watch.fails(&n.to_string(), 5);
        }
        assert!((5..=7).all(|at| !watch.fails("one more", at)), "there is no room for it");
        assert!((5..=7).any(|at| other.fails("one more", at)), "but for another tenant's there is");
    }

    #[test]
    fn what_was_before_it_was_lifted_does_not_count() {
        let watch = watch();
        assert!((1..=3).any(|at| watch.fails("a", at)));
        let lifted = Watch { lifted_at: UnixMs(10), ..watch.clone() };
        assert!(lifted.admits("a", 11));
        assert!(!watch.admits("a", 11), "another group still waits");
        assert!(!lifted.fails("a", 9), "an attempt that began before");
        assert!(!lifted.fails("a", 11) && !lifted.fails("a", 12));
        assert!(lifted.fails("a", 13));
    }
}
