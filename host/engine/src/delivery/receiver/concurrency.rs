//! Concurrency per receiver: limits how many attempts of a group are on their way to one receiver at once.
//!
//! The time at which a receiver slot becomes free is unknown, so a refused job gets an estimate: waiting jobs come back in [`RetrySlots`]
//! twice as fast as attempts have ended lately. So a receiver slot is seldom unused, and each one costs about two checks. Where no attempt
//! ends, jobs come back more and more rarely: a receiver that hangs costs few checks.
//!
//! Like all of this module's state it is this node's own memory. Taken receiver slots are never forgotten; a waiting job may be, and then is
//! only overtaken.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::retry_slots::{LEAST, RetrySlots, Waits};
use carillon_core::clock::UnixMs;
use carillon_core::job::GroupId;

/// Largest number of receivers, of all groups, that are kept without a taken slot.
const MOST: usize = 10_000;

/// Estimated duration of an attempt until one has ended.
const FIRST_GUESS: Duration = Duration::from_millis(100);

/// Greatest distance between waiting jobs, however long attempts take.
const SLOWEST: Duration = Duration::from_secs(60);

/// Divides the weight of the newest attempt in the mean: it counts for an eighth.
const SMOOTHING: u32 = 8;

/// Slots of all receivers.
#[derive(Default)]
pub(super) struct ReceiverLimits(Mutex<HashMap<Key, State>>);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    group: GroupId,
    origin: String,
}

struct State {
    taken: u32,
    /// Mean duration of an attempt.
    mean: Duration,
    /// Time at which a slot was last taken or returned.
    moved_at: UnixMs,
    line: RetrySlots,
}

/// One receiver slot. Dropping it returns it.
pub(super) struct ReceiverSlot {
    places: Arc<ReceiverLimits>,
    key: Key,
    since: UnixMs,
    took: Option<Duration>,
}

impl ReceiverLimits {
    /// Takes one of `most` slots.
    ///
    /// # Errors
    /// Returns the time at which to ask again, if all are taken: a retry slot of its own for a job that waits.
    pub(super) fn enter(
        self: &Arc<Self>,
        group: GroupId,
        origin: &str,
        most: u32,
        now: UnixMs,
        waits: Waits,
    ) -> Result<ReceiverSlot, UnixMs> {
        let key = Key { group, origin: origin.to_owned() };
        let mut known = self.lock();
        if known.len() >= MOST && !known.contains_key(&key) {
            forget(&mut known, now);
        }
        let state = known.entry(key.clone()).or_default();
        if state.taken >= most {
            let pace = (state.mean / most.max(1)).max(now.since(state.moved_at));
            let step = (pace / 2).clamp(LEAST, SLOWEST);
            let next = now.plus(step);
            return Err(if waits == Waits::InLine { state.line.place(next, step) } else { next });
        }
        state.taken += 1;
        state.moved_at = now;
        Ok(ReceiverSlot { places: Arc::clone(self), key, since: now, took: None })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, State>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn forget(known: &mut HashMap<Key, State>, now: UnixMs) {
    known.retain(|_, state| state.taken > 0 || !state.line.is_over(now));
    if known.len() >= MOST {
        known.retain(|_, state| state.taken > 0);
    }
}

impl Default for State {
    fn default() -> Self {
        Self { taken: 0, mean: FIRST_GUESS, moved_at: UnixMs(0), line: RetrySlots::default() }
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
        let mut known = self.places.lock();
        let Some(state) = known.get_mut(&self.key) else { return };
        state.taken -= 1;
        if let Some(took) = self.took {
            state.moved_at = self.since.plus(took);
            state.mean = (state.mean * (SMOOTHING - 1) + took) / SMOOTHING;
        }
        // Where no job ever had to wait, the state is not needed.
        if state.taken == 0 && state.line == RetrySlots::default() {
            known.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::retry_slots::LONGEST;
    use super::*;

    const GROUP: GroupId = GroupId(1);
    const HERE: &str = "http://a";

    fn enter(places: &Arc<ReceiverLimits>, most: u32, now: i64) -> Result<ReceiverSlot, UnixMs> {
        places.enter(GROUP, HERE, most, UnixMs(now), Waits::InLine)
    }

    #[test]
    fn places_are_of_a_group_and_an_origin_and_are_given_back() {
        let places = Arc::new(ReceiverLimits::default());
        let seats = [enter(&places, 2, 0).ok().unwrap(), enter(&places, 2, 0).ok().unwrap()];
        assert!(enter(&places, 2, 0).is_err());
        assert!(enter(&places, 3, 0).is_ok(), "the limit is the group's present one");
        assert!(places.enter(GROUP, "http://b", 2, UnixMs(0), Waits::InLine).is_ok());
        assert!(places.enter(GroupId(2), HERE, 2, UnixMs(0), Waits::InLine).is_ok());
        drop(seats);
        assert!(enter(&places, 1, 0).is_ok());
    }

    #[test]
    fn who_waits_comes_back_at_twice_the_pace_of_the_places() {
        let places = Arc::new(ReceiverLimits::default());
        for at in 0..100 {
            enter(&places, 1, at).ok().unwrap().leave(UnixMs(at + 1_000));
            // Keeps the state from being forgotten, as a waiting job does.
            let seat = enter(&places, 1, at).ok().unwrap();
            assert!(enter(&places, 1, at).is_err());
            drop(seat);
        }
        let now = 2_000_000;
        let _seats = [enter(&places, 2, now).ok().unwrap(), enter(&places, 2, now).ok().unwrap()];
        let waits: Vec<_> = (0..4).map(|_| enter(&places, 2, now).err().unwrap().0 - now).collect();
        let step = waits[0];
        assert!((240..=251).contains(&step), "a place is free every 500 ms: {waits:?}");
        assert!(waits.windows(2).all(|pair| (step - 1..=step + 1).contains(&(pair[1] - pair[0]))), "{waits:?}");
    }

    #[test]
    fn who_only_asks_is_in_nobodys_way() {
        let places = Arc::new(ReceiverLimits::default());
        let _seat = enter(&places, 1, 0).ok().unwrap();
        let only_asks = || places.enter(GROUP, HERE, 1, UnixMs(0), Waits::Nowhere).err().unwrap();
        let first = only_asks();
        assert_eq!([only_asks(), enter(&places, 1, 0).err().unwrap()], [first; 2]);
    }

    #[test]
    fn a_receiver_that_hangs_is_asked_after_more_and_more_seldom() {
        let places = Arc::new(ReceiverLimits::default());
        let _seat = enter(&places, 1, 0).ok().unwrap();
        let (mut now, mut looks) = (0, 0);
        while now < 600_000 {
            now = enter(&places, 1, now).err().unwrap().0;
            looks += 1;
        }
        assert!(looks < 40, "{looks}");
    }

    #[test]
    fn nobody_comes_back_at_once_or_in_hours_whatever_the_pace() {
        for took in [0, 1, 86_400_000] {
            let places = Arc::new(ReceiverLimits::default());
            let _others = enter(&places, 2, 0).ok().unwrap();
            for _ in 0..200 {
                enter(&places, 2, 0).ok().unwrap().leave(UnixMs(took));
            }
            let _seat = enter(&places, 2, 0).ok().unwrap();
            for _ in 0..1_000 {
                let at = enter(&places, 2, 0).err().unwrap();
                assert!(at > UnixMs(0) && at <= UnixMs(0).plus(LONGEST + SLOWEST * 2), "{at}");
            }
        }
    }

    #[test]
    fn memory_is_bounded_and_taken_places_are_never_forgotten() {
        let places = Arc::new(ReceiverLimits::default());
        let seats = (0..MOST).map(|n| places.enter(GROUP, &n.to_string(), 1, UnixMs(0), Waits::InLine).ok().unwrap());
        let mut seats: Vec<_> = seats.collect();
        for n in 0..MOST {
            assert!(
                places.enter(GROUP, &n.to_string(), 1, UnixMs(0), Waits::InLine).is_err(),
                "all of them have somebody who waits"
            );
        }
        let kept = seats.split_off(MOST - 1);
        drop(seats);
        assert_eq!(places.lock().len(), MOST);
        assert!(enter(&places, 1, 0).is_ok());
        assert_eq!(places.lock().len(), 1, "{}", kept.len());
        assert!(places.enter(GROUP, &(MOST - 1).to_string(), 1, UnixMs(0), Waits::InLine).is_err());
    }
}
