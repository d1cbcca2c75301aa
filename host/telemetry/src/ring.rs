//! Ring of the newest events, in memory: a live view. Jobs and their attempts are durable; events are not.
//!
//! Invariants: recording waits for no reader; kept events are bounded by number and by memory; ids have no gap, so a reader can detect that
//! it lost events. A reader that is too slow, or was away for too long, loses the oldest events and is told so.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::event::{Event, Fact};
use carillon_core::clock::UnixMs;

/// Bits of an id below the millisecond of the server's start.
///
/// A server records fewer than 2^20 events in a millisecond, so its ids stay below those of a later start, unless the clock was set back by
/// more than the server ran.
const ID_BITS: u32 = 20;

/// Largest number of events that one read scans, so that no reader holds the lock for long.
const CHUNK: usize = 512;

/// Capacity of the ring.
#[derive(Clone, Copy, Debug)]
pub struct RingCapacity {
    /// Largest number of events.
    pub events: usize,
    /// Largest memory of the events, in bytes, as estimated.
    pub memory: usize,
}

/// The newest events.
pub struct Ring {
    bounds: RingCapacity,
    kept: Mutex<Kept>,
    recorded: Notify,
}

/// Ring buffer. The events are stored in one block, because many small allocations that live long would slow down all others.
struct Kept {
    events: VecDeque<Event>,
    size: usize,
    next: u64,
}

/// Position of a reader: it has seen every event up to this id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor(pub u64);

/// Result of a read.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Id of the last lost event, if some were lost; their number is known for this run only.
    pub lost_until: Option<u64>,
    /// Number of lost events of this run.
    pub lost: u64,
    /// Wanted events, in order.
    pub events: Vec<Event>,
    /// Whether more events can be read.
    pub more: bool,
}

impl Ring {
    /// Creates an empty ring of a server that starts `now`.
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

    /// Notifies of each record. A reader registers before it reads.
    #[must_use]
    pub fn recorded(&self) -> &Notify {
        &self.recorded
    }

    /// Returns the position behind the newest event.
    #[must_use]
    pub fn newest(&self) -> Cursor {
        Cursor(self.lock().next - 1)
    }

    /// Returns the events after `cursor`, and moves it behind the scanned ones.
    ///
    /// A cursor of another run, or ahead of this one, has lost events. `wanted` must be fast and must not block, since it delays recording.
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
