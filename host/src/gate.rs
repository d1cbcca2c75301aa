//! How much of a group may start now: its concurrency, its rate, its share of the node.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::clock::UnixMs;
use crate::job::GroupId;
use crate::policy::binding::Rate;

/// Nanoseconds in a millisecond.
const NANOS: i128 = 1_000_000;

/// What runs on this node, and how much more may.
pub struct Gates {
    capacity: usize,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    running: usize,
    groups: HashMap<GroupId, GateState>,
}

#[derive(Default)]
struct GateState {
    running: u32,
    pace: Option<Pace>,
}

/// The right to run one attempt; it ends when this is dropped.
pub struct Slot {
    gates: Arc<Gates>,
    group: GroupId,
}

/// How much a group may start now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opening {
    /// Up to this many.
    Now(u32),
    /// Nothing before this time.
    NotBefore(UnixMs),
    /// Nothing before one of its attempts ends.
    Full,
}

impl Gates {
    /// For a node that runs at most `capacity` attempts at once.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self { capacity, inner: Mutex::default() }
    }

    /// How many attempts may start on this node now.
    #[must_use]
    pub fn free(&self) -> usize {
        self.capacity.saturating_sub(self.lock().running)
    }

    /// How many attempts run.
    #[must_use]
    pub fn running(&self) -> usize {
        self.lock().running
    }

    /// How much the group may start now. Takes nothing: [`Gates::enter`] does.
    #[must_use]
    pub fn opening(&self, group: GroupId, concurrency: u32, rate: Option<Rate>, now: UnixMs) -> Opening {
        let mut inner = self.lock();
        let state = inner.groups.entry(group).or_default();
        // What was spent before a change of the rate stays spent.
        state.pace = rate.map(|rate| Pace { rate, ..state.pace.unwrap_or(Pace::new(rate, now)) });
        let free = concurrency.saturating_sub(state.running);
        let paced = state.pace.as_mut().map_or(Opening::Now(u32::MAX), |pace| pace.opening(now));
        match paced {
            _ if free == 0 => Opening::Full,
            Opening::Now(count) => Opening::Now(count.min(free)),
            closed => closed,
        }
    }

    /// Counts an attempt that starts now, until the slot is dropped.
    #[must_use]
    pub fn enter(self: &Arc<Self>, group: GroupId, now: UnixMs) -> Slot {
        let mut inner = self.lock();
        inner.running += 1;
        let state = inner.groups.entry(group).or_default();
        state.running += 1;
        if let Some(pace) = &mut state.pace {
            pace.spend(now);
        }
        Slot { gates: Arc::clone(self), group }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slot {
    /// Nothing was sent: the group's rate gets back what this has taken, so that the others go at their pace.
    #[must_use]
    pub fn unused(self) -> Self {
        if let Some(pace) = self.gates.lock().groups.get_mut(&self.group).and_then(|state| state.pace.as_mut()) {
            pace.give_back();
        }
        self
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut inner = self.gates.lock();
        inner.running -= 1;
        if let Some(state) = inner.groups.get_mut(&self.group) {
            state.running -= 1;
            if state.running == 0 && state.pace.is_none() {
                inner.groups.remove(&self.group);
            }
        }
    }
}

/// A rate as the generic cell rate algorithm (ITU-T I.371): one number, the time at which an evenly paced sender would be.
///
/// A library's limiter does not serve here: it takes what it allows at once, but a claim may find fewer jobs than were allowed.
#[derive(Clone, Copy, Debug)]
struct Pace {
    rate: Rate,
    /// In nanoseconds since 1970.
    ahead: i128,
}

impl Pace {
    fn new(rate: Rate, now: UnixMs) -> Self {
        Self { rate, ahead: i128::from(now.0) * NANOS }
    }

    fn interval(&self) -> i128 {
        i128::try_from((self.rate.period / self.rate.count.get()).as_nanos()).unwrap_or(i128::MAX).max(1)
    }

    fn opening(&mut self, now: UnixMs) -> Opening {
        let (now, interval) = (i128::from(now.0) * NANOS, self.interval());
        let burst = interval * i128::from(self.rate.burst.get());
        // It is never further ahead than that, unless the clock has been set back.
        self.ahead = self.ahead.min(now + burst);
        let room = (burst - (self.ahead - now).max(0)) / interval;
        match u32::try_from(room) {
            Ok(count) if count > 0 => Opening::Now(count),
            _ => {
                let at = (self.ahead + interval - burst).div_euclid(NANOS) + 1;
                Opening::NotBefore(UnixMs(i64::try_from(at).unwrap_or(i64::MAX)))
            }
        }
    }

    fn spend(&mut self, now: UnixMs) {
        self.ahead = self.ahead.max(i128::from(now.0) * NANOS) + self.interval();
    }

    fn give_back(&mut self) {
        self.ahead -= self.interval();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const GROUP: GroupId = GroupId(1);

    fn per_second(count: u32) -> Rate {
        let count = count.try_into().unwrap();
        Rate { count, period: Duration::from_secs(1), burst: count }
    }

    fn start(gates: &Arc<Gates>, count: usize, now: UnixMs) {
        (0..count).for_each(|_| drop(gates.enter(GROUP, now)));
    }

    #[test]
    fn concurrency_is_given_back_with_the_slot() {
        let gates = Arc::new(Gates::new(10));
        assert_eq!(gates.opening(GROUP, 2, None, UnixMs(0)), Opening::Now(2));
        let slots = [gates.enter(GROUP, UnixMs(0)), gates.enter(GROUP, UnixMs(0))];
        assert_eq!(gates.opening(GROUP, 2, None, UnixMs(0)), Opening::Full);
        assert_eq!(gates.free(), 8);
        drop(slots);
        assert_eq!(gates.opening(GROUP, 2, None, UnixMs(0)), Opening::Now(2));
        assert_eq!(gates.free(), 10);
    }

    #[test]
    fn a_rate_allows_a_burst_and_then_its_pace() {
        let gates = Arc::new(Gates::new(1_000));
        let opening = |now| gates.opening(GROUP, 1_000, Some(per_second(10)), UnixMs(now));
        assert_eq!(opening(0), Opening::Now(10));
        start(&gates, 10, UnixMs(0));
        let Opening::NotBefore(at) = opening(0) else { panic!("open") };
        assert_eq!(opening(at.0), Opening::Now(1));
        assert!(matches!(opening(at.0 - 2), Opening::NotBefore(_)));
        assert!((100..=101).contains(&at.0), "{at:?}");
        assert_eq!(opening(350), Opening::Now(3));
        assert_eq!(opening(100_000), Opening::Now(10), "a pause saves up one burst, no more");
    }

    #[test]
    fn what_was_not_sent_takes_nothing_of_the_rate() {
        let gates = Arc::new(Gates::new(1_000));
        let opening = || gates.opening(GROUP, 1_000, Some(per_second(10)), UnixMs(0));
        assert_eq!(opening(), Opening::Now(10));
        start(&gates, 9, UnixMs(0));
        (0..500).for_each(|_| drop(gates.enter(GROUP, UnixMs(0)).unused()));
        assert_eq!(opening(), Opening::Now(1));
    }

    #[test]
    fn a_burst_of_its_own_changes_the_beginning_and_not_the_pace() {
        for burst in [1, 4, 25] {
            let gates = Arc::new(Gates::new(1_000));
            let rate = Rate { burst: burst.try_into().unwrap(), ..per_second(10) };
            let opening = |now| gates.opening(GROUP, 1_000, Some(rate), UnixMs(now));
            assert_eq!(opening(0), Opening::Now(burst));
            start(&gates, burst as usize, UnixMs(0));
            let Opening::NotBefore(at) = opening(0) else { panic!("open") };
            assert!((100..=101).contains(&at.0), "{at:?}");
            assert_eq!(opening(350), Opening::Now(burst.min(3)));
            assert_eq!(opening(100_000), Opening::Now(burst), "a pause saves up one burst, no more");
        }
    }

    #[test]
    fn what_was_spent_stays_spent_when_the_rate_changes() {
        let gates = Arc::new(Gates::new(1_000));
        let opening = |rate, now| gates.opening(GROUP, 1_000, Some(per_second(rate)), UnixMs(now));
        assert_eq!(opening(10, 0), Opening::Now(10));
        start(&gates, 10, UnixMs(0));
        assert!(matches!(opening(20, 0), Opening::NotBefore(_)), "another rate is no new burst");
        assert_eq!(opening(20, 500), Opening::Now(10));
    }

    #[test]
    fn a_clock_that_jumps_back_gives_nothing_away_and_holds_nothing_up() {
        let gates = Arc::new(Gates::new(1_000));
        let opening = |now| gates.opening(GROUP, 1_000, Some(per_second(1)), now);
        assert_eq!(opening(UnixMs(5_000)), Opening::Now(1));
        start(&gates, 1, UnixMs(5_000));
        let Opening::NotBefore(at) = opening(UnixMs(0)) else { panic!("open") };
        assert!((1_000..=1_001).contains(&at.0), "a period, not until the time that was left: {at:?}");
        assert_eq!(opening(at), Opening::Now(1));
    }
}
