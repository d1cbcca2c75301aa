//! Circuit breakers of receivers: one for each origin that a tenant sends to.
//!
//! A receiver that does not respond would cost each of its jobs an attempt, and the node a permit for the length of a timeout. While its
//! circuit breaker is open, its jobs are postponed. See [`super::circuit_breaker`] for the states.
//!
//! Receivers without failures take no memory, and [`MAX_BREAKERS`] bounds the others: then the tenant that has the most circuit breakers loses those that
//! no job has asked for the longest. A circuit breaker that no job has asked for during [`IDLE_RETENTION`] is forgotten.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::IDLE_RETENTION;
use super::circuit_breaker::{BreakerChange, CircuitBreaker, Entry, Health, PassKind, Rules};
use super::retry_slots::{MIN_SPACING, Refusal, Turn};
use super::tenant_table::{OfTenant, TenantTable};
use carillon_config::Delivery;
use carillon_core::clock::UnixMs;
use carillon_core::job::TenantId;

/// Largest number of receivers with a circuit breaker.
const MAX_BREAKERS: usize = 10_000;

/// Longest origin that has a circuit breaker, in bytes: no name that resolves is longer.
const ORIGIN_LEN: usize = 300;

/// Period in which circuit breakers that can be forgotten are removed.
const SWEEP: Duration = Duration::from_secs(60);

/// All circuit breakers of a node.
pub(super) struct Breakers {
    /// `None` if circuit breakers are disabled.
    rules: Option<Rules>,
    inner: Mutex<Inner>,
}

struct Inner {
    known: TenantTable<Key, ReceiverBreaker>,
    /// Number of circuit breakers that are open or half-open.
    open: u32,
    swept_at: Option<UnixMs>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    tenant: TenantId,
    origin: String,
}

impl Default for Inner {
    fn default() -> Self {
        Self { known: TenantTable::new(MAX_BREAKERS), open: 0, swept_at: None }
    }
}

impl OfTenant for Key {
    fn tenant(&self) -> TenantId {
        self.tenant
    }
}

#[derive(Default)]
struct ReceiverBreaker {
    breaker: CircuitBreaker,
    asked_at: UnixMs,
}

/// See [`super::Pass`].
pub(super) struct Pass {
    breakers: Arc<Breakers>,
    /// `None` if this origin has no circuit breaker.
    key: Option<Key>,
    kind: PassKind,
}

impl Breakers {
    /// Creates the circuit breakers from the `[delivery]` settings.
    pub(super) fn new(delivery: &Delivery) -> Self {
        let (pause, longest_pause) = (delivery.breaker_pause.get(), delivery.breaker_longest_pause.get());
        let failures = delivery.breaker_failures;
        let rules = (failures > 0).then_some(Rules { failures, pause, longest_pause });
        Self { rules, inner: Mutex::default() }
    }

    /// Creates circuit breakers with these rules.
    #[cfg(test)]
    pub(super) fn with(failures: u32, pause: Duration) -> Self {
        let rules = (failures > 0).then_some(Rules { failures, pause, longest_pause: pause * 4 });
        Self { rules, inner: Mutex::default() }
    }

    /// Requests an attempt of a tenant's job now.
    ///
    /// # Errors
    /// Returns [`Refusal`] if the circuit breaker is open.
    pub(super) fn enter(
        self: &Arc<Self>,
        tenant: TenantId,
        origin: &str,
        turn: Turn,
        now: UnixMs,
    ) -> Result<Pass, Refusal> {
        let mut pass = Pass { breakers: Arc::clone(self), key: None, kind: PassKind::Normal };
        let Some(rules) = self.rules.filter(|_| origin.len() <= ORIGIN_LEN) else { return Ok(pass) };
        let key = Key { tenant, origin: origin.to_owned() };
        let mut inner = self.lock();
        // All open circuit breakers share one pace of retry slots: the number of jobs that are checked in a second does not grow with the
        // number of dead receivers.
        let spacing = MIN_SPACING * inner.open.max(1);
        if let Some(known) = inner.known.get_mut(&key) {
            known.asked_at = now;
            match known.breaker.enter(&rules, turn, now, spacing) {
                Entry::Passed(kind) => pass.kind = kind,
                Entry::Refused(refusal) => return Err(refusal),
            }
        }
        pass.key = Some(key);
        Ok(pass)
    }

    /// Reserves the retry slot of a refused job.
    pub(super) fn reserve(&self, tenant: TenantId, origin: &str, turn: Turn, refusal: Refusal) -> UnixMs {
        let key = Key { tenant, origin: origin.to_owned() };
        // The circuit breaker may have closed since the refusal.
        self.lock().known.get_mut(&key).map_or(refusal.retry_at, |known| known.breaker.reserve(turn, refusal))
    }

    /// Returns the number of open circuit breakers.
    pub(super) fn open(&self, now: UnixMs) -> usize {
        let Some(rules) = self.rules else { return 0 };
        let mut inner = self.lock();
        inner.sweep(&rules, now);
        inner.open as usize
    }

    fn report(&self, key: Key, kind: PassKind, health: Health, now: UnixMs) -> Option<BreakerChange> {
        let rules = self.rules?;
        let mut inner = self.lock();
        if !inner.known.contains(&key) {
            if matches!(health, Health::Answered | Health::Unknown) {
                return None;
            }
            inner.sweep(&rules, now);
            if inner.known.is_full() {
                inner.make_room();
            }
        }
        let known = inner.known.entry(key.clone(), ReceiverBreaker::default);
        known.asked_at = known.asked_at.max(now);
        let change = known.breaker.report(&rules, kind, health, now);
        if known.breaker.is_blank() {
            inner.known.remove(&key);
        }
        match change {
            Some(BreakerChange::Opened(_)) => inner.open += 1,
            Some(BreakerChange::Closed) => inner.open = inner.open.saturating_sub(1),
            None => {}
        }
        change
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Forgets circuit breakers of the tenant that has the most. The next attempt at such a receiver is made, and fails.
    fn make_room(&mut self) {
        let forgotten = self.known.make_room(|known| Some(known.asked_at));
        let open = forgotten.iter().filter(|known| known.breaker.is_open()).count();
        self.open = self.open.saturating_sub(u32::try_from(open).unwrap_or(u32::MAX));
    }

    /// Removes old circuit breakers once in each [`SWEEP`]. Times in the future are of a clock that was set back.
    fn sweep(&mut self, rules: &Rules, now: UnixMs) {
        if self.swept_at.is_some_and(|at| now.since(at) < SWEEP && at <= now) {
            return;
        }
        self.swept_at = Some(now);
        let fresh = |at: UnixMs| now.since(at) < IDLE_RETENTION;
        self.known.retain(|known| {
            known.asked_at = known.asked_at.min(now);
            known.breaker.is_needed(rules, now) || fresh(known.asked_at)
        });
        let open = self.known.values().filter(|known| known.breaker.is_open()).count();
        self.open = u32::try_from(open).unwrap_or(u32::MAX);
    }
}

impl Pass {
    /// Reports the receiver's health after the attempt.
    pub(super) fn report(mut self, health: Health, now: UnixMs) -> Option<BreakerChange> {
        let key = self.key.take()?;
        self.breakers.report(key, self.kind, health, now)
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        if let Some(key) = self.key.take().filter(|_| self.kind == PassKind::Probe) {
            // Any time serves here: the next attempt may ask at once.
            self.breakers.report(key, PassKind::Probe, Health::Unknown, UnixMs(0));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TENANT: TenantId = TenantId(1);

    fn breakers(failures: u32) -> Arc<Breakers> {
        Arc::new(Breakers::with(failures, Duration::from_secs(5)))
    }

    fn fail(breakers: &Arc<Breakers>, tenant: TenantId, origin: &str, now: i64) -> Option<BreakerChange> {
        breakers.enter(tenant, origin, Turn::New, UnixMs(now)).ok()?.report(Health::Failed, UnixMs(now))
    }

    #[test]
    fn each_tenant_and_each_origin_has_its_own() {
        let breakers = breakers(1);
        assert!(fail(&breakers, TENANT, "http://a", 0).is_some());
        assert!(breakers.enter(TENANT, "http://a", Turn::New, UnixMs(0)).is_err());
        for (tenant, origin) in [(TENANT, "http://b"), (TENANT, "http://a:81"), (TenantId(2), "http://a")] {
            assert!(breakers.enter(tenant, origin, Turn::New, UnixMs(0)).is_ok(), "{origin}");
        }
        assert_eq!(breakers.open(UnixMs(0)), 1);
    }

    #[test]
    fn without_failures_there_is_no_memory_of_anything() {
        let breakers = breakers(2);
        let pass = || breakers.enter(TENANT, "http://a", Turn::New, UnixMs(0)).unwrap();
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
        let probe = breakers.enter(TENANT, "http://a", Turn::New, UnixMs(5_000)).unwrap();
        assert!(breakers.enter(TENANT, "http://a", Turn::New, UnixMs(5_000)).is_err());
        drop(probe);
        let probe = breakers.enter(TENANT, "http://a", Turn::Back, UnixMs(5_000)).unwrap();
        assert_eq!(probe.report(Health::Answered, UnixMs(5_001)), Some(BreakerChange::Closed));
        assert_eq!(breakers.open(UnixMs(5_001)), 0);
    }

    #[test]
    fn memory_is_bounded_and_the_tenant_with_the_most_loses_its_oldest() {
        let breakers = breakers(1);
        let key = |tenant, n: usize| Key { tenant, origin: format!("http://{n}") };
        let beside = TenantId(2);
        fail(&breakers, beside, "http://0", 0);
        let end = i64::try_from(MAX_BREAKERS).unwrap() + 10;
        for n in 0..end {
            fail(&breakers, TENANT, &format!("http://{n}"), n);
            let inner = breakers.lock();
            assert_eq!(inner.open as usize, inner.known.len(), "{n}");
        }
        let inner = breakers.lock();
        assert!(inner.known.len() <= MAX_BREAKERS);
        assert!(!inner.known.contains(&key(TENANT, 0)), "the oldest is forgotten");
        assert!(inner.known.contains(&key(TENANT, MAX_BREAKERS)), "the newest is not");
        assert!(inner.known.contains(&key(beside, 0)), "nor is another tenant's");
        drop(inner);
        let later = i64::try_from(IDLE_RETENTION.as_millis()).unwrap() + end;
        assert!(fail(&breakers, TENANT, "http://new", later).is_some());
        assert_eq!(breakers.lock().known.len(), 1);
        fail(&breakers, TENANT, &"x".repeat(ORIGIN_LEN + 1), later);
        assert_eq!(breakers.lock().known.len(), 1, "no name is so long");
    }

    #[test]
    fn disabled_breakers_let_everything_pass() {
        let breakers = breakers(0);
        assert!((0..100).all(|_| fail(&breakers, TENANT, "http://a", 0).is_none()));
        assert!(breakers.enter(TENANT, "http://a", Turn::New, UnixMs(0)).is_ok());
    }

    #[test]
    fn open_breakers_share_one_pace_of_retry_slots() {
        let breakers = breakers(1);
        for n in 0..10 {
            fail(&breakers, TENANT, &n.to_string(), 0);
        }
        let mut waits = Vec::new();
        for _ in 0..100 {
            waits.extend((0..10).map(|n| {
                let refusal = breakers.enter(TENANT, &n.to_string(), Turn::New, UnixMs(0)).err().unwrap();
                breakers.reserve(TENANT, &n.to_string(), Turn::New, refusal)
            }));
        }
        assert_eq!(waits.len(), 1_000);
        let within = |ms: i64| waits.iter().filter(|at| at.0 < 5_000 + ms).count();
        assert_eq!((within(100), within(500)), (100, 500), "a thousand in a second");
        assert_eq!(breakers.open(UnixMs(0)), 10);
        let probe = breakers.enter(TENANT, "0", Turn::Back, UnixMs(9_000)).ok().unwrap();
        assert_eq!(probe.report(Health::Answered, UnixMs(9_000)), Some(BreakerChange::Closed));
        assert_eq!(breakers.open(UnixMs(9_000)), 9);
    }
}
