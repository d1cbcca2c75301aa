//! Concurrency per receiver: limits how many attempts of a group are on their way to one receiver at once.
//!
//! The time at which a receiver slot becomes free is unknown, so a refused job gets an estimate: waiting jobs come back in [`RetrySlots`]
//! twice as fast as attempts have ended lately. So a receiver slot is seldom unused, and each one costs about two checks. Where no attempt
//! ends, jobs come back more and more rarely: a receiver that hangs costs few checks.
//!
//! Like all of this module's state it is this node's own memory. Taken receiver slots are never forgotten; a waiting job may be, and then is
//! only overtaken.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::retry_slots::{MIN_SPACING, Refusal, RetrySlots};
use super::tenant_table::{OfTenant, TenantTable};
use crate::delivery::send::Requester;
use carillon_core::clock::UnixMs;
use carillon_core::job::TenantId;

/// Largest number of receivers, of all groups, that are kept without a taken slot. Beyond it, the tenant that has the most loses those where
/// nothing happened the longest.
const MAX_RECEIVERS: usize = 10_000;

/// Estimated duration of an attempt until one has ended.
const FIRST_GUESS: Duration = Duration::from_millis(100);

/// Greatest distance between waiting jobs, however long attempts take.
const MAX_SPACING: Duration = Duration::from_secs(60);

/// Divides the weight of the newest attempt in the mean: it counts for an eighth.
const SMOOTHING: u32 = 8;

/// Slots of all receivers.
pub(super) struct ReceiverLimits(Mutex<TenantTable<Key, State>>);

impl Default for ReceiverLimits {
    fn default() -> Self {
        Self(Mutex::new(TenantTable::new(MAX_RECEIVERS)))
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    owner: Requester,
    origin: String,
}

impl OfTenant for Key {
    fn tenant(&self) -> TenantId {
        self.owner.tenant
    }
}

struct State {
    taken: u32,
    /// Mean duration of an attempt.
    mean: Duration,
    /// Time at which a slot was last taken or returned.
    moved_at: UnixMs,
    retry_slots: RetrySlots,
}

/// One receiver slot. Dropping it returns it.
pub(super) struct ReceiverSlot {
    limits: Arc<ReceiverLimits>,
    key: Key,
    since: UnixMs,
    took: Option<Duration>,
}

impl ReceiverLimits {
    /// Takes one of `most` slots.
    ///
    /// # Errors
    /// Returns [`Refusal`] if all are taken.
    pub(super) fn enter(
        self: &Arc<Self>,
        owner: Requester,
        origin: &str,
        most: u32,
        now: UnixMs,
    ) -> Result<ReceiverSlot, Refusal> {
        let key = Key { owner, origin: origin.to_owned() };
        let mut known = self.lock();
        if known.is_full() && !known.contains(&key) {
            known.retain(|state| state.taken > 0 || !state.retry_slots.is_over(now));
            if known.is_full() {
                known.make_room(|state| (state.taken == 0).then_some(state.moved_at));
            }
        }
        let state = known.entry(key.clone(), State::default);
        if state.taken >= most {
            let pace = (state.mean / most.max(1)).max(now.since(state.moved_at));
            let spacing = (pace / 2).clamp(MIN_SPACING, MAX_SPACING);
            return Err(Refusal { retry_at: now.plus(spacing), spacing });
        }
        state.taken += 1;
        state.moved_at = now;
        Ok(ReceiverSlot { limits: Arc::clone(self), key, since: now, took: None })
    }

    /// Reserves the retry slot of a refused job.
    pub(super) fn reserve(&self, owner: Requester, origin: &str, refusal: Refusal) -> UnixMs {
        let key = Key { owner, origin: origin.to_owned() };
        // All slots may have become free since the refusal.
        self.lock().get_mut(&key).map_or(refusal.retry_at, |state| state.retry_slots.reserve(refusal))
    }

    fn lock(&self) -> MutexGuard<'_, TenantTable<Key, State>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for State {
    fn default() -> Self {
        Self { taken: 0, mean: FIRST_GUESS, moved_at: UnixMs(0), retry_slots: RetrySlots::default() }
    }
}

impl ReceiverSlot {
    /// Ends the attempt, and counts its duration.
    pub(super) fn leave(mut self, now: UnixMs) {
        self.took = Some(now.since(self.since));
    }
}

impl Drop for ReceiverSlot {
    fn drop(&mut self) {
        let mut known = self.limits.lock();
        let Some(state) = known.get_mut(&self.key) else { return };
        state.taken -= 1;
        if let Some(took) = self.took {
            state.moved_at = self.since.plus(took);
            state.mean = (state.mean * (SMOOTHING - 1) + took) / SMOOTHING;
        }
        // Where no job ever had to wait, the state is not needed.
        if state.taken == 0 && state.retry_slots == RetrySlots::default() {
            known.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::retry_slots::MAX_SERIES;
    use super::*;
    use carillon_core::job::GroupId;

    const GROUP: Requester = of(1, 1);

    const fn of(tenant: i64, group: i64) -> Requester {
        Requester { tenant: TenantId(tenant), group: GroupId(group) }
    }
    const HERE: &str = "http://a";

    /// Takes a slot, or reserves a retry slot.
    fn enter_at(limits: &Arc<ReceiverLimits>, origin: &str, most: u32, now: i64) -> Result<ReceiverSlot, UnixMs> {
        let entered = limits.enter(GROUP, origin, most, UnixMs(now));
        entered.map_err(|refusal| limits.reserve(GROUP, origin, refusal))
    }

    fn enter(limits: &Arc<ReceiverLimits>, most: u32, now: i64) -> Result<ReceiverSlot, UnixMs> {
        enter_at(limits, HERE, most, now)
    }

    #[test]
    fn slots_belong_to_a_group_and_an_origin_and_are_returned() {
        let limits = Arc::new(ReceiverLimits::default());
        let slots = [enter(&limits, 2, 0).ok().unwrap(), enter(&limits, 2, 0).ok().unwrap()];
        assert!(enter(&limits, 2, 0).is_err());
        assert!(enter(&limits, 3, 0).is_ok(), "the limit is the group's present one");
        assert!(limits.enter(GROUP, "http://b", 2, UnixMs(0)).is_ok());
        assert!(limits.enter(of(1, 2), HERE, 2, UnixMs(0)).is_ok());
        drop(slots);
        assert!(enter(&limits, 1, 0).is_ok());
    }

    #[test]
    fn waiting_jobs_come_back_at_twice_the_pace_of_the_slots() {
        let limits = Arc::new(ReceiverLimits::default());
        for at in 0..100 {
            enter(&limits, 1, at).ok().unwrap().leave(UnixMs(at + 1_000));
            // Keeps the state from being forgotten, as a waiting job does.
            let slot = enter(&limits, 1, at).ok().unwrap();
            assert!(enter(&limits, 1, at).is_err());
            drop(slot);
        }
        let now = 2_000_000;
        let _slots = [enter(&limits, 2, now).ok().unwrap(), enter(&limits, 2, now).ok().unwrap()];
        let waits: Vec<_> = (0..4).map(|_| enter(&limits, 2, now).err().unwrap().0 - now).collect();
        let step = waits[0];
        assert!((240..=251).contains(&step), "a slot is free every 500 ms: {waits:?}");
        assert!(waits.windows(2).all(|pair| (step - 1..=step + 1).contains(&(pair[1] - pair[0]))), "{waits:?}");
    }

    #[test]
    fn refusal_alone_reserves_no_retry_slot() {
        let limits = Arc::new(ReceiverLimits::default());
        let _slot = enter(&limits, 1, 0).ok().unwrap();
        let refused = || limits.enter(GROUP, HERE, 1, UnixMs(0)).err().unwrap().retry_at;
        let first = refused();
        assert_eq!([refused(), enter(&limits, 1, 0).err().unwrap()], [first; 2]);
        assert_ne!(enter(&limits, 1, 0).err().unwrap(), first, "the first retry slot is reserved");
    }

    #[test]
    fn retry_slot_is_at_once_where_all_slots_have_become_free() {
        let limits = Arc::new(ReceiverLimits::default());
        let slot = limits.enter(GROUP, HERE, 1, UnixMs(0)).ok().unwrap();
        let refusal = limits.enter(GROUP, HERE, 1, UnixMs(0)).err().unwrap();
        drop(slot);
        assert_eq!(limits.reserve(GROUP, HERE, refusal), refusal.retry_at);
        assert!(limits.lock().is_empty());
    }

    #[test]
    fn receiver_that_hangs_is_checked_more_and_more_rarely() {
        let limits = Arc::new(ReceiverLimits::default());
        let _slot = enter(&limits, 1, 0).ok().unwrap();
        let (mut now, mut checks) = (0, 0);
        while now < 600_000 {
            now = enter(&limits, 1, now).err().unwrap().0;
            checks += 1;
        }
        assert!(checks < 40, "{checks}");
    }

    #[test]
    fn retry_slot_is_neither_at_once_nor_in_hours_whatever_the_pace() {
        for took in [0, 1, 86_400_000] {
            let limits = Arc::new(ReceiverLimits::default());
            let _others = enter(&limits, 2, 0).ok().unwrap();
            for _ in 0..200 {
                enter(&limits, 2, 0).ok().unwrap().leave(UnixMs(took));
            }
            let _slot = enter(&limits, 2, 0).ok().unwrap();
            for _ in 0..1_000 {
                let at = enter(&limits, 2, 0).err().unwrap();
                assert!(at > UnixMs(0) && at <= UnixMs(0).plus(MAX_SERIES + MAX_SPACING * 2), "{at}");
            }
        }
    }

    #[test]
    fn memory_is_bounded_and_taken_slots_are_never_forgotten() {
        let limits = Arc::new(ReceiverLimits::default());
        let beside = of(2, 2);
        drop({
            let slot = limits.enter(beside, HERE, 1, UnixMs(0)).ok().unwrap();
            let refusal = limits.enter(beside, HERE, 1, UnixMs(0)).err().unwrap();
            limits.reserve(beside, HERE, refusal);
            slot
        });
        let slots = (0..MAX_RECEIVERS - 1).map(|n| enter_at(&limits, &n.to_string(), 1, 0).ok().unwrap());
        let mut slots: Vec<_> = slots.collect();
        for n in 0..MAX_RECEIVERS - 1 {
            assert!(enter_at(&limits, &n.to_string(), 1, 0).is_err(), "a job waits for each of them");
        }
        let kept = slots.split_off(MAX_RECEIVERS - 2);
        drop(slots);
        assert_eq!(limits.lock().len(), MAX_RECEIVERS);
        assert!(enter(&limits, 1, 0).is_ok());
        assert!(limits.lock().len() < MAX_RECEIVERS, "those of the tenant that has the most are forgotten");
        assert_eq!(limits.lock().count_of(beside.tenant), 1, "and not those of another one");
        assert!(enter_at(&limits, &(MAX_RECEIVERS - 2).to_string(), 1, 0).is_err(), "{}", kept.len());
    }
}
