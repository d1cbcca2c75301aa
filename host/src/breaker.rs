//! Which receivers are left alone: a circuit breaker for each origin (scheme, host, port) that a tenant sends to.
//!
//! A receiver that does not answer, or asks to be left alone, would cost each of its jobs an attempt and the node a place for as long
//! as a timeout lasts. While its breaker is open its jobs go back to wait, and spend nothing. See [`machine`] for when that is.
//!
//! All of it is this node's own memory: each node finds out for itself, and a node that starts knows nothing and asks. So nothing here
//! is needed for safety; a job that should have waited is an attempt that fails. Receivers without failures take no memory, and
//! [`MOST`] bounds the others: past it, further ones go without a breaker. What nobody asked about for [`FORGET`] is forgotten.

mod machine;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

pub use self::machine::{Change, Health, Rules};
use self::machine::{Entry, Machine};
use crate::clock::UnixMs;
use crate::config::Delivery;
use crate::job::{Job, JobId, TenantId};

/// The most receivers that something is known of.
const MOST: usize = 10_000;

/// The most jobs whose first `run_at` is known while they wait.
const MOST_WAITING: usize = 100_000;

/// The longest origin that has a breaker, in bytes: no name that resolves is longer.
const ORIGIN_LEN: usize = 300;

/// What nobody asked about for so long is forgotten, if it has waited for as long as it was to.
const FORGET: Duration = Duration::from_secs(900);

/// How often that is looked for.
const SWEEP: Duration = Duration::from_secs(60);

/// All breakers of a node.
pub struct Breakers {
    /// None if they are off.
    rules: Option<Rules>,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    known: HashMap<Key, Known>,
    /// The jobs that wait and may start only so long after they were due.
    waiting: HashMap<JobId, Waiting>,
    swept_at: Option<UnixMs>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    tenant: TenantId,
    origin: String,
}

#[derive(Default)]
struct Known {
    machine: Machine,
    asked_at: UnixMs,
}

/// A job that was put off.
#[derive(Clone, Copy)]
struct Waiting {
    /// When it was due before anybody put it off.
    due: UnixMs,
    /// What it was put off to.
    run_at: UnixMs,
}

/// The right to make an attempt. If it is dropped without a report, as if nothing had been sent.
pub struct Pass {
    breakers: Arc<Breakers>,
    /// None if this origin has no breaker.
    key: Option<Key>,
    is_probe: bool,
}

impl Breakers {
    /// As `[delivery]` says.
    #[must_use]
    pub fn new(delivery: &Delivery) -> Self {
        let (pause, longest_pause) = (delivery.breaker_pause.get(), delivery.breaker_longest_pause.get());
        let failures = delivery.breaker_failures;
        let rules = (failures > 0).then_some(Rules { failures, pause, longest_pause });
        Self { rules, inner: Mutex::default() }
    }

    /// Asks for an attempt of a tenant's job now.
    ///
    /// # Errors
    /// The time at which to ask again, if the origin is left alone.
    pub fn enter(self: &Arc<Self>, tenant: TenantId, origin: &str, now: UnixMs) -> Result<Pass, UnixMs> {
        let mut pass = Pass { breakers: Arc::clone(self), key: None, is_probe: false };
        let Some(rules) = self.rules.filter(|_| origin.len() <= ORIGIN_LEN) else { return Ok(pass) };
        let key = Key { tenant, origin: origin.to_owned() };
        let mut inner = self.lock();
        if let Some(known) = inner.known.get_mut(&key) {
            known.asked_at = now;
            match known.machine.enter(&rules, now) {
                Entry::Pass => {}
                Entry::Probe => pass.is_probe = true,
                Entry::Wait(at) => return Err(at),
            }
        }
        pass.key = Some(key);
        Ok(pass)
    }

    /// When a job was due before it was put off, if it was, and nobody has moved it since.
    #[must_use]
    pub fn due(&self, job: &Job) -> UnixMs {
        if job.max_delay.is_none() {
            return job.run_at;
        }
        let waiting = self.lock().waiting.get(&job.id).copied();
        waiting.filter(|waiting| waiting.run_at == job.run_at).map_or(job.run_at, |waiting| waiting.due)
    }

    /// A job that was due at `due` is put off to `run_at`.
    pub fn put_off(&self, job: &Job, due: UnixMs, run_at: UnixMs, now: UnixMs) {
        // Of the others nobody asks.
        let Some(rules) = self.rules.filter(|_| job.max_delay.is_some()) else { return };
        let mut inner = self.lock();
        if inner.waiting.len() >= MOST_WAITING {
            inner.sweep(&rules, now);
        }
        if inner.waiting.len() < MOST_WAITING || inner.waiting.contains_key(&job.id) {
            inner.waiting.insert(job.id, Waiting { due, run_at });
        }
    }

    /// How many receivers are left alone.
    #[must_use]
    pub fn open(&self, now: UnixMs) -> usize {
        let Some(rules) = self.rules else { return 0 };
        let mut inner = self.lock();
        inner.sweep(&rules, now);
        inner.known.values().filter(|known| known.machine.is_open()).count()
    }

    fn report(&self, key: Key, is_probe: bool, health: Health, now: UnixMs) -> Option<Change> {
        let rules = self.rules?;
        let mut inner = self.lock();
        if !inner.known.contains_key(&key) {
            if matches!(health, Health::Answered | Health::Unknown) {
                return None;
            }
            inner.sweep(&rules, now);
            if inner.known.len() >= MOST {
                return None;
            }
        }
        let known = inner.known.entry(key.clone()).or_default();
        known.asked_at = known.asked_at.max(now);
        let change = known.machine.report(&rules, is_probe, health, now);
        if known.machine.is_blank() {
            inner.known.remove(&key);
        }
        change
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Forgets what is old, now and then. Times that lie ahead are of a clock that was set back.
    fn sweep(&mut self, rules: &Rules, now: UnixMs) {
        if self.swept_at.is_some_and(|at| now.since(at) < SWEEP && at <= now) {
            return;
        }
        self.swept_at = Some(now);
        let fresh = |at: UnixMs| now.since(at) < FORGET;
        self.known.retain(|_, known| {
            known.asked_at = known.asked_at.min(now);
            known.machine.is_needed(rules, now) || fresh(known.asked_at)
        });
        self.waiting.retain(|_, waiting| fresh(waiting.run_at));
    }
}

impl Pass {
    /// What the attempt says of its receiver.
    pub fn report(mut self, health: Health, now: UnixMs) -> Option<Change> {
        let key = self.key.take()?;
        self.breakers.report(key, self.is_probe, health, now)
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        if let Some(key) = self.key.take().filter(|_| self.is_probe) {
            // Any time will do: the next one may ask at once.
            self.breakers.report(key, true, Health::Unknown, UnixMs(0));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::{GroupId, Priority, Spec, State};

    const TENANT: TenantId = TenantId(1);

    fn breakers(failures: u32) -> Arc<Breakers> {
        let pause = Duration::from_secs(5);
        let rules = (failures > 0).then_some(Rules { failures, pause, longest_pause: pause * 4 });
        Arc::new(Breakers { rules, inner: Mutex::default() })
    }

    fn fail(breakers: &Arc<Breakers>, tenant: TenantId, origin: &str, now: i64) -> Option<Change> {
        breakers.enter(tenant, origin, UnixMs(now)).ok()?.report(Health::Failed, UnixMs(now))
    }

    fn job(run_at: i64, max_delay: Option<u64>) -> Job {
        Job {
            id: JobId(uuid::Uuid::nil()),
            tenant: TENANT,
            group: GroupId(1),
            name: None,
            state: State::Running,
            run_at: UnixMs(run_at),
            created_at: UnixMs(0),
            finished_at: None,
            deadline: None,
            max_delay: max_delay.map(Duration::from_millis),
            priority: Priority::default(),
            order_key: None,
            attempt_base: 0,
            revision: 0,
            seed: 0,
            attempt_count: 0,
            last_status: None,
            last_error: None,
            cancel_requested: false,
            spec: Spec::default(),
            body_len: 0,
        }
    }

    #[test]
    fn each_tenant_and_each_origin_has_its_own() {
        let breakers = breakers(1);
        assert!(fail(&breakers, TENANT, "http://a", 0).is_some());
        assert!(breakers.enter(TENANT, "http://a", UnixMs(0)).is_err());
        for (tenant, origin) in [(TENANT, "http://b"), (TENANT, "http://a:81"), (TenantId(2), "http://a")] {
            assert!(breakers.enter(tenant, origin, UnixMs(0)).is_ok(), "{origin}");
        }
        assert_eq!(breakers.open(UnixMs(0)), 1);
    }

    #[test]
    fn without_failures_there_is_no_memory_of_anything() {
        let breakers = breakers(2);
        let pass = || breakers.enter(TENANT, "http://a", UnixMs(0)).unwrap();
        for health in [Health::Answered, Health::Unknown] {
            pass().report(health, UnixMs(0));
            assert!(breakers.lock().known.is_empty());
        }
        pass().report(Health::Failed, UnixMs(0));
        assert_eq!(breakers.lock().known.len(), 1);
        pass().report(Health::Answered, UnixMs(0));
        assert!(breakers.lock().known.is_empty());
    }

    #[test]
    fn a_probe_that_is_dropped_is_followed_by_another() {
        let breakers = breakers(1);
        fail(&breakers, TENANT, "http://a", 0);
        let probe = breakers.enter(TENANT, "http://a", UnixMs(5_000)).unwrap();
        assert!(breakers.enter(TENANT, "http://a", UnixMs(5_000)).is_err());
        drop(probe);
        let probe = breakers.enter(TENANT, "http://a", UnixMs(5_000)).unwrap();
        assert_eq!(probe.report(Health::Answered, UnixMs(5_001)), Some(Change::Closed));
        assert_eq!(breakers.open(UnixMs(5_001)), 0);
    }

    #[test]
    fn memory_is_bounded_and_what_is_old_makes_room() {
        let breakers = breakers(1);
        for n in 0..MOST + 10 {
            fail(&breakers, TENANT, &format!("http://{n}"), 0);
        }
        assert_eq!(breakers.lock().known.len(), MOST);
        assert!(breakers.enter(TENANT, &format!("http://{MOST}"), UnixMs(0)).is_ok(), "it has no breaker");
        let later = i64::try_from(FORGET.as_millis()).unwrap();
        assert!(fail(&breakers, TENANT, "http://new", later).is_some());
        assert_eq!(breakers.lock().known.len(), 1);
        fail(&breakers, TENANT, &"x".repeat(ORIGIN_LEN + 1), later);
        assert_eq!(breakers.lock().known.len(), 1, "no name is so long");
    }

    #[test]
    fn what_is_off_does_nothing() {
        let breakers = breakers(0);
        assert!((0..100).all(|_| fail(&breakers, TENANT, "http://a", 0).is_none()));
        assert!(breakers.enter(TENANT, "http://a", UnixMs(0)).is_ok());
    }

    #[test]
    fn a_job_that_is_put_off_again_and_again_was_due_when_it_was_first() {
        let (breakers, now) = (breakers(1), UnixMs(0));
        for run_at in [100, 200, 300] {
            let job = job(run_at, Some(500));
            let due = breakers.due(&job);
            assert_eq!(due, UnixMs(100));
            breakers.put_off(&job, due, UnixMs(run_at + 100), now);
        }
        assert_eq!(breakers.due(&job(777, Some(500))), UnixMs(777), "somebody moved it");
        breakers.put_off(&job(1, None), UnixMs(0), UnixMs(9), now);
        assert_eq!(breakers.due(&job(9, None)), UnixMs(9));
    }
}
