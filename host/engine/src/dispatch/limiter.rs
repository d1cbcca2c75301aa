//! Concurrency and rate limits: how many attempts of a group, and of all groups of a tenant together, may start on this node now.
//!
//! Not: configuration. The caller passes the limits; [`Limiter::capacity_of`] alone compares them with the attempts that run.
//!
//! The places of the node, and the bytes of its payloads, are pools that tenants [share](carillon_core::shares): [`Limiter::share_of`].
//!
//! Invariants: an attempt counts for its group and for its tenant, whatever their limits at the time; the payloads of all attempts together
//! have a bound in bytes ([`Payloads`]). An attempt counts until its settlement is written, or until the settlement is certain to be written
//! before the next claim. So the number of a group's jobs in the state `running`, which is also the number that is sent again after a crash,
//! never exceeds the group's concurrency.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use carillon_core::clock::UnixMs;
use carillon_core::job::{GroupId, TenantId};
use carillon_core::shares::{ShareRule, Tenancy};
use carillon_policy::binding::Rate;

/// Nanoseconds in a millisecond.
const NANOS: i128 = 1_000_000;

/// Bound of the payloads of all running attempts.
///
/// A job's payload is not known before the job is claimed, so each free permit counts as the largest payload that is accepted.
#[derive(Clone, Copy, Debug)]
pub struct Payloads {
    /// Largest sum of all payloads, in bytes. A single attempt may run whatever its payload.
    pub max_bytes: u64,
    /// Size of the largest payload that is accepted, in bytes.
    pub largest_bytes: u64,
}

impl Payloads {
    /// Returns how many payloads of any size fit into these bytes.
    fn count_in(&self, bytes: u64) -> u64 {
        bytes / self.largest_bytes.max(1)
    }
}

/// A tenant's share of the free places of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TenantRoom {
    /// Number of attempts that may start before the tenant has its largest share.
    pub most: u32,
    /// Number of attempts that may start before the tenant's share is no longer small. They may take places that are kept.
    pub small: u32,
}

/// Counts the attempts that run on this node, and computes how many more may start.
pub struct Limiter {
    capacity: usize,
    payloads: Payloads,
    /// Rule of the places.
    places: ShareRule,
    /// Rule of the payloads' bytes.
    bytes: ShareRule,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    running: usize,
    payload_bytes: u64,
    scopes: HashMap<Scope, ScopeState>,
}

/// Owner of a limit: a group or a tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// The attempts of one group.
    Group(GroupId),
    /// The attempts of all groups of one tenant.
    Tenant(TenantId),
}

#[derive(Default)]
struct ScopeState {
    running: u32,
    payload_bytes: u64,
    gcra: Option<Gcra>,
}

/// The right to run one attempt. Dropping it returns it.
pub struct Permit {
    limiter: Arc<Limiter>,
    payload_bytes: u64,
    /// The attempt's scopes, each with the time up to which the attempt used up the scope's rate.
    scopes: [(Scope, i128); 2],
}

/// Number of attempts that may start now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Capacity {
    /// Up to this many may start.
    Now(u32),
    /// None may start before this time: the rate is used up.
    NotBefore(UnixMs),
    /// None may start until an attempt ends: the concurrency is used up.
    Full,
}

impl Capacity {
    /// Returns how many attempts may start now.
    #[must_use]
    pub fn most(self) -> u32 {
        match self {
            Self::Now(most) => most,
            Self::NotBefore(_) | Self::Full => 0,
        }
    }
}

impl Limiter {
    /// Creates the limiter of a node that runs at most `capacity` attempts at once, with payloads within the given bounds. One of several
    /// tenants may hold the part `tenant_share` of either.
    #[must_use]
    pub fn new(capacity: usize, payloads: Payloads, tenant_share: f64) -> Self {
        let places = ShareRule::new(u64::try_from(capacity).unwrap_or(u64::MAX), tenant_share);
        let bytes = ShareRule::new(payloads.max_bytes, tenant_share);
        Self { capacity, payloads, places, bytes, inner: Mutex::default() }
    }

    /// Returns how many attempts of all tenants may start now without those that are kept for tenants with few running attempts.
    #[must_use]
    pub fn unreserved(&self, tenancy: Tenancy) -> u32 {
        let inner = self.lock();
        let places = self.places.unreserved(inner.running as u64, tenancy);
        let payloads = self.payloads.count_in(self.bytes.unreserved(inner.payload_bytes, tenancy));
        u32::try_from(places.min(payloads)).unwrap_or(u32::MAX)
    }

    /// Returns a tenant's share of the node's free places.
    #[must_use]
    pub fn share_of(&self, tenant: TenantId, tenancy: Tenancy) -> TenantRoom {
        let inner = self.lock();
        let own = inner.scopes.get(&Scope::Tenant(tenant));
        let (running, bytes) = own.map_or((0, 0), |own| (u64::from(own.running), own.payload_bytes));
        // One attempt may always run, whatever its payload.
        let at_least = u64::from(running == 0);
        let part = |places: u64, bytes: u64| {
            let most = places.min(self.payloads.count_in(bytes).max(at_least));
            u32::try_from(most).unwrap_or(u32::MAX)
        };
        let (places_cap, bytes_cap) = (self.places.cap(tenancy), self.bytes.cap(tenancy));
        TenantRoom {
            most: part(places_cap.saturating_sub(running), bytes_cap.saturating_sub(bytes)),
            small: part(self.places.small_room(running), self.bytes.small_room(bytes)),
        }
    }

    /// Returns how many attempts may start on this node now.
    #[must_use]
    pub fn free(&self) -> usize {
        let inner = self.lock();
        let bytes_left = self.payloads.max_bytes.saturating_sub(inner.payload_bytes);
        let payloads = bytes_left / self.payloads.largest_bytes.max(1);
        let payloads = if inner.running == 0 { payloads.max(1) } else { payloads };
        self.capacity.saturating_sub(inner.running).min(usize::try_from(payloads).unwrap_or(usize::MAX))
    }

    /// Returns how many attempts run.
    #[must_use]
    pub fn running(&self) -> usize {
        self.lock().running
    }

    /// Returns how many attempts of a scope may start now under the given concurrency and rate. Reserves nothing: [`Limiter::enter`] does.
    #[must_use]
    pub fn capacity_of(&self, scope: Scope, concurrency: u32, rate: Option<Rate>, now: UnixMs) -> Capacity {
        let mut inner = self.lock();
        let state = inner.scopes.entry(scope).or_default();
        // A change of the rate does not give back what was spent before it.
        state.gcra = rate.map(|rate| Gcra { rate, ..state.gcra.unwrap_or(Gcra::new(rate, now)) });
        let free = concurrency.saturating_sub(state.running);
        let paced = state.gcra.as_mut().map_or(Capacity::Now(u32::MAX), |gcra| gcra.capacity(now));
        if state.is_blank() {
            inner.scopes.remove(&scope);
        }
        match paced {
            _ if free == 0 => Capacity::Full,
            Capacity::Now(count) => Capacity::Now(count.min(free)),
            closed => closed,
        }
    }

    /// Counts an attempt that starts now, with its payload, until the permit is dropped.
    #[must_use]
    pub fn enter(self: &Arc<Self>, tenant: TenantId, group: GroupId, payload_bytes: u64, now: UnixMs) -> Permit {
        let scopes = [Scope::Tenant(tenant), Scope::Group(group)];
        let mut inner = self.lock();
        inner.running += 1;
        inner.payload_bytes = inner.payload_bytes.saturating_add(payload_bytes);
        let scopes = scopes.map(|scope| {
            let state = inner.scopes.entry(scope).or_default();
            state.running += 1;
            state.payload_bytes = state.payload_bytes.saturating_add(payload_bytes);
            (scope, state.gcra.as_mut().map_or(i128::MIN, |gcra| gcra.spend(now)))
        });
        Permit { limiter: Arc::clone(self), payload_bytes, scopes }
    }

    /// Forgets the rates of groups and tenants that have caught up. Nothing else removes the entries of deleted groups and tenants.
    pub fn forget_idle(&self, now: UnixMs) {
        self.lock().scopes.retain(|_, state| !state.is_idle(now));
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Permit {
    /// Returns the permit's part of the rates, because nothing was sent; so other attempts are not slowed down.
    ///
    /// The part that has already expired by `now` is not returned twice.
    #[must_use]
    pub fn unused(self, now: UnixMs) -> Self {
        let mut inner = self.limiter.lock();
        for (scope, used_until) in &self.scopes {
            if let Some(gcra) = inner.scopes.get_mut(scope).and_then(|state| state.gcra.as_mut()) {
                gcra.refund(*used_until, now);
            }
        }
        drop(inner);
        self
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut inner = self.limiter.lock();
        inner.running -= 1;
        inner.payload_bytes = inner.payload_bytes.saturating_sub(self.payload_bytes);
        for (scope, _) in &self.scopes {
            if let Some(state) = inner.scopes.get_mut(scope) {
                state.running -= 1;
                state.payload_bytes = state.payload_bytes.saturating_sub(self.payload_bytes);
                if state.is_blank() {
                    inner.scopes.remove(scope);
                }
            }
        }
    }
}

impl ScopeState {
    /// Returns whether the state equals a new one.
    fn is_blank(&self) -> bool {
        self.running == 0 && self.gcra.is_none()
    }

    /// Returns whether a new state would let as many attempts start.
    fn is_idle(&self, now: UnixMs) -> bool {
        self.running == 0 && self.gcra.is_none_or(|gcra| gcra.ahead <= i128::from(now.0) * NANOS)
    }
}

/// A rate limit by the generic cell rate algorithm (ITU-T I.371). Its state is one number: the theoretical arrival time, at which an evenly
/// paced sender would be.
///
/// A library's limiter does not serve here: it takes what it allows at once, but a claim may find fewer jobs than were allowed.
#[derive(Clone, Copy, Debug)]
struct Gcra {
    rate: Rate,
    /// Theoretical arrival time of the next attempt, in nanoseconds since 1970.
    ahead: i128,
}

impl Gcra {
    fn new(rate: Rate, now: UnixMs) -> Self {
        Self { rate, ahead: i128::from(now.0) * NANOS }
    }

    fn interval(&self) -> i128 {
        i128::try_from((self.rate.period / self.rate.count.get()).as_nanos()).unwrap_or(i128::MAX).max(1)
    }

    fn capacity(&mut self, now: UnixMs) -> Capacity {
        let (now, interval) = (i128::from(now.0) * NANOS, self.interval());
        let burst = interval * i128::from(self.rate.burst.get());
        // The theoretical arrival time exceeds this bound only if the clock has been set back.
        self.ahead = self.ahead.min(now + burst);
        let room = (burst - (self.ahead - now).max(0)) / interval;
        match u32::try_from(room) {
            Ok(count) if count > 0 => Capacity::Now(count),
            _ => {
                let at = (self.ahead + interval - burst).div_euclid(NANOS) + 1;
                Capacity::NotBefore(UnixMs(i64::try_from(at).unwrap_or(i64::MAX)))
            }
        }
    }

    /// Counts one start; returns the time up to which it uses up the rate.
    fn spend(&mut self, now: UnixMs) -> i128 {
        self.ahead = self.ahead.max(i128::from(now.0) * NANOS) + self.interval();
        self.ahead
    }

    /// Takes one start back, unless the time that it used up has passed. Later starts are counted after it, so all of them move forward by
    /// one.
    fn refund(&mut self, used_until: i128, now: UnixMs) {
        if used_until > i128::from(now.0) * NANOS {
            self.ahead -= self.interval();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const TENANT: TenantId = TenantId(7);
    const GROUP: GroupId = GroupId(1);
    const OWN: Scope = Scope::Group(GROUP);
    const ALL: Scope = Scope::Tenant(TENANT);

    const PAYLOADS: Payloads = Payloads { max_bytes: 1_000, largest_bytes: 1 };

    #[test]
    fn payloads_take_places_and_give_them_back() {
        let limiter = Arc::new(Limiter::new(10, Payloads { max_bytes: 100, largest_bytes: 30 }, 0.5));
        assert_eq!(limiter.free(), 3);
        let small: Vec<Permit> = (0..4).map(|_| limiter.enter(TENANT, GROUP, 1, UnixMs(0))).collect();
        assert_eq!(limiter.free(), 3, "small payloads take little");
        let large = limiter.enter(TENANT, GROUP, 30, UnixMs(0));
        assert_eq!(limiter.free(), 2);
        let larger = limiter.enter(TENANT, GROUP, 1_000, UnixMs(0));
        assert_eq!(limiter.free(), 0);
        drop(larger);
        assert_eq!(limiter.free(), 2);
        drop((small, large));
        assert_eq!(limiter.free(), 3);
        let only = Arc::new(Limiter::new(10, Payloads { max_bytes: 5, largest_bytes: 30 }, 0.5));
        assert_eq!(only.free(), 1, "one may always run");
    }

    #[test]
    fn tenant_has_its_share_of_places_and_of_payload_bytes() {
        let limiter = Arc::new(Limiter::new(64, Payloads { max_bytes: 640, largest_bytes: 1 }, 0.5));
        let other = TenantId(8);
        assert_eq!(limiter.share_of(TENANT, Tenancy::Several), TenantRoom { most: 32, small: 4 });
        assert_eq!(limiter.share_of(TENANT, Tenancy::Single).most, 64);
        let running: Vec<Permit> = (0..32).map(|_| limiter.enter(TENANT, GROUP, 0, UnixMs(0))).collect();
        assert_eq!(limiter.share_of(TENANT, Tenancy::Several), TenantRoom { most: 0, small: 0 });
        assert_eq!(limiter.share_of(other, Tenancy::Several), TenantRoom { most: 32, small: 4 });
        assert_eq!((limiter.unreserved(Tenancy::Several), limiter.free()), (24, 32));
        drop(running);
        let large = limiter.enter(TENANT, GROUP, 319, UnixMs(0));
        assert_eq!(
            limiter.share_of(TENANT, Tenancy::Several),
            TenantRoom { most: 1, small: 0 },
            "bytes are shared, too"
        );
        assert_eq!(limiter.share_of(other, Tenancy::Several).most, 32);
        drop(large);
        assert!(limiter.lock().scopes.is_empty());
    }

    fn per_second(count: u32) -> Rate {
        let count = count.try_into().unwrap();
        Rate { count, period: Duration::from_secs(1), burst: count }
    }

    fn start(limiter: &Arc<Limiter>, count: usize, now: UnixMs) {
        (0..count).for_each(|_| drop(limiter.enter(TENANT, GROUP, 0, now)));
    }

    #[test]
    fn concurrency_is_given_back_with_the_slot() {
        let limiter = Arc::new(Limiter::new(10, PAYLOADS, 0.5));
        assert_eq!(limiter.capacity_of(OWN, 2, None, UnixMs(0)), Capacity::Now(2));
        let slots = [limiter.enter(TENANT, GROUP, 0, UnixMs(0)), limiter.enter(TENANT, GROUP, 0, UnixMs(0))];
        assert_eq!(limiter.capacity_of(OWN, 2, None, UnixMs(0)), Capacity::Full);
        assert_eq!(limiter.free(), 8);
        drop(slots);
        assert_eq!(limiter.capacity_of(OWN, 2, None, UnixMs(0)), Capacity::Now(2));
        assert_eq!(limiter.free(), 10);
    }

    #[test]
    fn a_rate_allows_a_burst_and_then_its_pace() {
        let limiter = Arc::new(Limiter::new(1_000, PAYLOADS, 0.5));
        let capacity = |now| limiter.capacity_of(OWN, 1_000, Some(per_second(10)), UnixMs(now));
        assert_eq!(capacity(0), Capacity::Now(10));
        start(&limiter, 10, UnixMs(0));
        let Capacity::NotBefore(at) = capacity(0) else { panic!("open") };
        assert_eq!(capacity(at.0), Capacity::Now(1));
        assert!(matches!(capacity(at.0 - 2), Capacity::NotBefore(_)));
        assert!((100..=101).contains(&at.0), "{at:?}");
        assert_eq!(capacity(350), Capacity::Now(3));
        assert_eq!(capacity(100_000), Capacity::Now(10), "a pause saves up one burst, no more");
    }

    #[test]
    fn a_pace_that_has_caught_up_is_forgotten_and_others_are_not() {
        let limiter = Arc::new(Limiter::new(1_000, PAYLOADS, 0.5));
        let capacity = |now| limiter.capacity_of(OWN, 1_000, Some(per_second(10)), UnixMs(now));
        assert_eq!(capacity(0), Capacity::Now(10));
        start(&limiter, 10, UnixMs(0));
        limiter.forget_idle(UnixMs(500));
        assert_eq!(capacity(500), Capacity::Now(5), "it is known still");
        let running = limiter.enter(TENANT, GROUP, 0, UnixMs(500));
        limiter.forget_idle(UnixMs(50_000));
        assert_eq!(limiter.lock().scopes.len(), 2, "an attempt runs");
        drop(running);
        limiter.forget_idle(UnixMs(50_000));
        assert!(limiter.lock().scopes.is_empty());
        assert_eq!(capacity(50_000), Capacity::Now(10));
    }

    #[test]
    fn what_was_not_sent_takes_nothing_of_the_rate() {
        let limiter = Arc::new(Limiter::new(1_000, PAYLOADS, 0.5));
        let capacity = || limiter.capacity_of(OWN, 1_000, Some(per_second(10)), UnixMs(0));
        assert_eq!(capacity(), Capacity::Now(10));
        start(&limiter, 9, UnixMs(0));
        (0..500).for_each(|_| drop(limiter.enter(TENANT, GROUP, 0, UnixMs(0)).unused(UnixMs(0))));
        assert_eq!(capacity(), Capacity::Now(1));
    }

    #[test]
    fn what_is_given_back_late_makes_no_room_for_two() {
        let limiter = Arc::new(Limiter::new(1_000, PAYLOADS, 0.5));
        let capacity = |now| limiter.capacity_of(OWN, 1_000, Some(per_second(1)), UnixMs(now));
        assert_eq!(capacity(0), Capacity::Now(1));
        let late = limiter.enter(TENANT, GROUP, 0, UnixMs(0));
        assert_eq!(capacity(5_000), Capacity::Now(1));
        start(&limiter, 1, UnixMs(5_000));
        drop(late.unused(UnixMs(5_001)));
        assert!(matches!(capacity(5_001), Capacity::NotBefore(_)), "one was sent in this second");
    }

    #[test]
    fn a_burst_of_its_own_changes_the_beginning_and_not_the_pace() {
        for burst in [1, 4, 25] {
            let limiter = Arc::new(Limiter::new(1_000, PAYLOADS, 0.5));
            let rate = Rate { burst: burst.try_into().unwrap(), ..per_second(10) };
            let capacity = |now| limiter.capacity_of(OWN, 1_000, Some(rate), UnixMs(now));
            assert_eq!(capacity(0), Capacity::Now(burst));
            start(&limiter, burst as usize, UnixMs(0));
            let Capacity::NotBefore(at) = capacity(0) else { panic!("open") };
            assert!((100..=101).contains(&at.0), "{at:?}");
            assert_eq!(capacity(350), Capacity::Now(burst.min(3)));
            assert_eq!(capacity(100_000), Capacity::Now(burst), "a pause saves up one burst, no more");
        }
    }

    #[test]
    fn what_was_spent_stays_spent_when_the_rate_changes() {
        let limiter = Arc::new(Limiter::new(1_000, PAYLOADS, 0.5));
        let capacity = |rate, now| limiter.capacity_of(OWN, 1_000, Some(per_second(rate)), UnixMs(now));
        assert_eq!(capacity(10, 0), Capacity::Now(10));
        start(&limiter, 10, UnixMs(0));
        assert!(matches!(capacity(20, 0), Capacity::NotBefore(_)), "another rate is no new burst");
        assert_eq!(capacity(20, 500), Capacity::Now(10));
    }

    #[test]
    fn a_clock_that_jumps_back_gives_nothing_away_and_holds_nothing_up() {
        let limiter = Arc::new(Limiter::new(1_000, PAYLOADS, 0.5));
        let capacity = |now| limiter.capacity_of(OWN, 1_000, Some(per_second(1)), now);
        assert_eq!(capacity(UnixMs(5_000)), Capacity::Now(1));
        start(&limiter, 1, UnixMs(5_000));
        let Capacity::NotBefore(at) = capacity(UnixMs(0)) else { panic!("open") };
        assert!((1_000..=1_001).contains(&at.0), "a period, not until the time that was left: {at:?}");
        assert_eq!(capacity(at), Capacity::Now(1));
    }

    #[test]
    fn a_tenants_attempts_are_those_of_all_of_its_groups() {
        let limiter = Arc::new(Limiter::new(1_000, PAYLOADS, 0.5));
        let all = |tenant, now| limiter.capacity_of(tenant, 3, Some(per_second(4)), UnixMs(now));
        let both = |now| (limiter.capacity_of(OWN, 10, Some(per_second(10)), UnixMs(now)), all(ALL, now));
        assert_eq!(both(0), (Capacity::Now(10), Capacity::Now(3)));
        let first = limiter.enter(TENANT, GROUP, 0, UnixMs(0));
        let others = [1, 2].map(|_| limiter.enter(TENANT, GroupId(2), 0, UnixMs(0)));
        assert_eq!(both(0), (Capacity::Now(9), Capacity::Full));
        drop(others);
        assert_eq!(both(0), (Capacity::Now(9), Capacity::Now(1)), "its rate is used up but for one");
        assert_eq!(all(Scope::Tenant(TenantId(8)), 0), Capacity::Now(3));
        drop(first.unused(UnixMs(0)));
        assert_eq!(both(0), (Capacity::Now(10), Capacity::Now(2)), "both get it back");
        start(&limiter, 2, UnixMs(0));
        let (Capacity::Now(8), Capacity::NotBefore(at)) = both(0) else { panic!("{:?}", both(0)) };
        assert!((250..=251).contains(&at.0), "{at:?}");
    }

    #[test]
    fn what_has_no_bounds_is_open_and_takes_no_memory() {
        let limiter = Arc::new(Limiter::new(1_000, PAYLOADS, 0.5));
        assert_eq!(limiter.capacity_of(ALL, u32::MAX, None, UnixMs(0)), Capacity::Now(u32::MAX));
        drop(limiter.enter(TENANT, GROUP, 0, UnixMs(0)));
        assert!(limiter.lock().scopes.is_empty());
    }
}
