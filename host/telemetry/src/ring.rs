//! The newest events, in memory: a live view. What is durable are jobs and their attempts.
//!
//! Invariants: whoever records waits for nobody who reads; what is kept is bounded by number and by memory; ids follow one another
//! without a gap, so that a reader who lost some can tell. A reader that is too slow, or was away for too long, loses the oldest
//! events and is told so.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::event::{Event, Fact};
use carillon_core::clock::UnixMs;

/// The part of an id below the millisecond of the start: a server makes fewer events than 2^20 a millisecond, so its ids stay below
/// those of a later start, unless the clock was set back by more than it ran.
const ID_BITS: u32 = 20;

/// The most events that are looked at in one go, so that nobody holds the lock for long.
const CHUNK: usize = 512;

/// How much is kept.
#[derive(Clone, Copy, Debug)]
pub struct RingCapacity {
    /// The most events.
    pub events: usize,
    /// The most memory that they take, in bytes, as estimated.
    pub memory: usize,
}

/// The newest events.
pub struct Ring {
    bounds: RingCapacity,
    kept: Mutex<Kept>,
    recorded: Notify,
}

/// Events stand side by side in one block: many small allocations that live long would make all others slower.
struct Kept {
    events: VecDeque<Event>,
    size: usize,
    next: u64,
}

/// Where a reader stands: it has seen everything up to this id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor(pub u64);

/// What a look at the ring found.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// The id of the last event that was lost, if some were: the reader does not know how many.
    pub lost_until: Option<u64>,
    /// How many of this run were lost.
    pub lost: u64,
    /// Those that are wanted, in order.
    pub events: Vec<Event>,
    /// Whether there are more to look at.
    pub more: bool,
}

impl Ring {
    /// An empty one of a server that starts `now`.
    #[must_use]
    pub fn new(bounds: RingCapacity, now: UnixMs) -> Self {
        let next = (now.as_u64() << ID_BITS) + 1;
        let most = bounds.events.min(bounds.memory / size_of::<Event>()) + 1;
        let kept = Kept { events: VecDeque::with_capacity(most), size: 0, next };
        Self { bounds, kept: Mutex::new(kept), recorded: Notify::new() }
    }

    /// Keeps facts, in this order.
    pub fn record(&self, facts: impl IntoIterator<Item = Fact>) {
        let mut kept = self.lock();
        for fact in facts {
            kept.size += fact.size();
            let id = kept.next;
            kept.next += 1;
            kept.events.push_back(Event { id, fact });
            while kept.events.len() > self.bounds.events || kept.size > self.bounds.memory {
                let Some(oldest) = kept.events.pop_front() else { break };
                kept.size -= oldest.fact.size();
            }
        }
        drop(kept);
        self.recorded.notify_waiters();
    }

    /// Wakes at each record. Register before you look.
    #[must_use]
    pub fn recorded(&self) -> &Notify {
        &self.recorded
    }

    /// Behind the newest event.
    #[must_use]
    pub fn newest(&self) -> Cursor {
        Cursor(self.lock().next - 1)
    }

    /// What follows `cursor`, which is moved behind what was looked at. A cursor of another run, or ahead of this one, has lost
    /// events. `wanted` is quick and asks nobody, since it holds up whoever records.
    pub fn read(&self, cursor: &mut Cursor, wanted: impl Fn(&Fact) -> bool) -> Found {
        let kept = self.lock();
        let newest = kept.next - 1;
        let oldest = kept.next - u64::try_from(kept.events.len()).unwrap_or(0);
        let mut found = Found::default();
        if cursor.0 < oldest - 1 || cursor.0 > newest {
            found.lost = (oldest - 1).saturating_sub(cursor.0);
            *cursor = Cursor(oldest - 1);
            found.lost_until = Some(cursor.0);
        }
        let seen = usize::try_from(cursor.0 + 1 - oldest).unwrap_or(usize::MAX);
        for event in kept.events.iter().skip(seen).take(CHUNK) {
            *cursor = Cursor(event.id);
            if wanted(&event.fact) {
                found.events.push(event.clone());
            }
        }
        found.more = cursor.0 < newest;
        found
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Subject;
    use carillon_core::job::{GroupId, TenantId};

    const NOW: UnixMs = UnixMs(1_795_168_800_000);

    fn ring(events: usize, memory: usize) -> Ring {
        Ring::new(RingCapacity { events, memory }, NOW)
    }

    fn record(ring: &Ring, count: usize) {
        ring.record((0..count).map(|_| Fact::empty(TenantId(1), GroupId(1), NOW)));
    }

    fn all(ring: &Ring, cursor: &mut Cursor) -> Found {
        ring.read(cursor, |_| true)
    }

    fn ids(found: &Found) -> Vec<u64> {
        found.events.iter().map(|event| event.id).collect()
    }

    #[test]
    fn a_reader_gets_each_event_once_and_in_order() {
        let ring = ring(100, usize::MAX);
        let mut cursor = ring.newest();
        let base = cursor.0;
        record(&ring, 3);
        assert_eq!(ids(&all(&ring, &mut cursor)), [base + 1, base + 2, base + 3]);
        assert_eq!(all(&ring, &mut cursor), Found::default());
        record(&ring, 1);
        assert_eq!(ids(&all(&ring, &mut cursor)), [base + 4]);
        assert_eq!(cursor, ring.newest());
    }

    #[test]
    fn many_events_come_in_pieces() {
        let ring = ring(1_000, usize::MAX);
        let mut cursor = ring.newest();
        record(&ring, CHUNK + 1);
        let mut other = cursor;
        let found = all(&ring, &mut cursor);
        assert_eq!((found.events.len(), found.more), (CHUNK, true));
        let found = all(&ring, &mut cursor);
        assert_eq!((found.events.len(), found.more), (1, false));
        let none = ring.read(&mut other, |_| false);
        assert_eq!((none.events.len(), none.more), (0, true), "what is not wanted is looked at in pieces, too");
    }

    #[test]
    fn who_is_too_slow_is_told() {
        let ring = ring(10, usize::MAX);
        let (mut slow, base) = (ring.newest(), ring.newest().0);
        record(&ring, 10);
        let mut just_in_time = slow;
        assert_eq!(all(&ring, &mut just_in_time).lost_until, None);
        record(&ring, 5);
        let found = all(&ring, &mut slow);
        assert_eq!((found.lost_until, found.lost), (Some(base + 5), 5));
        assert_eq!(ids(&found), (base + 6..=base + 15).collect::<Vec<_>>());
    }

    #[test]
    fn a_cursor_of_another_run_is_told() {
        for (ahead, lost) in [(i64::MIN, 0), (-1, 1), (1, 0), (i64::MAX, 0)] {
            let ring = ring(10, usize::MAX);
            let base = ring.newest().0;
            let mut cursor = Cursor(base.saturating_add_signed(ahead));
            let found = all(&ring, &mut cursor);
            assert_eq!((found.lost_until, found.events.len()), (Some(base), 0), "{ahead}");
            assert!(ahead == i64::MIN || found.lost == lost, "{ahead}");
            record(&ring, 1);
            let found = all(&ring, &mut cursor);
            assert_eq!((found.lost_until, found.events.len()), (None, 1), "{ahead}");
        }
    }

    #[test]
    fn memory_is_bounded_too() {
        let ring = ring(1_000, 10 * size_of::<Event>());
        let mut cursor = ring.newest();
        record(&ring, 20);
        assert_eq!(all(&ring, &mut cursor).events.len(), 10);
        let mut named = Subject::group(TenantId(1), GroupId(1));
        named.name = Some("x".repeat(size_of::<Event>()));
        ring.record([Fact::cancel(named, NOW)]);
        let mut cursor = Cursor(0);
        assert_eq!(all(&ring, &mut cursor).events.len(), 9, "a long name takes the place of two");
    }

    #[test]
    fn ids_of_a_later_start_are_higher() {
        let (before, after) =
            (ring(10, usize::MAX), Ring::new(RingCapacity { events: 10, memory: 1 << 20 }, UnixMs(NOW.0 + 1)));
        record(&before, 1_000);
        assert!(before.newest().0 < after.newest().0);
    }
}
