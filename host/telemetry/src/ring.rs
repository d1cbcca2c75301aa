//! Ring of the newest events, in memory: a live view. Jobs and their attempts are durable; events are not.
//!
//! Invariants: recording waits for no reader; kept events are bounded by number and by memory; ids have no gap when they are given, so a reader
//! can detect that it lost events. A reader that is too slow, or was away for too long, loses the oldest events and is told so. When there is no
//! room, the tenant that keeps the most loses its own oldest event: no tenant loses one to another that keeps more.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::event::{Event, Fact};
use carillon_core::clock::UnixMs;
use carillon_core::job::TenantId;

/// Bits of an id below the millisecond of the server's start.
///
/// A server records fewer than 2^20 events in a millisecond, so its ids stay below those of a later start, unless the clock was set back by
/// more than the server ran.
const ID_BITS: u32 = 20;

/// Largest number of events that one read scans, so that no reader holds the lock for long.
const CHUNK: usize = 512;

/// Holes at which the ring is compacted: more than 1/`HOLES_DIVISOR` of its events, and `MIN_HOLES` besides.
const HOLES_DIVISOR: usize = 8;
const MIN_HOLES: usize = 64;

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
    /// Events in the order of their ids. An event that made room for another tenant's leaves a hole until the next compaction.
    slots: VecDeque<Slot>,
    holes: usize,
    tenants: HashMap<TenantId, Own>,
    /// What each tenant keeps, see [`Kept::weight`]: the last one keeps the most.
    by_weight: BTreeSet<(usize, TenantId)>,
    size: usize,
    /// Memory that counts for an event at least, in bytes, so that many small events weigh as much as few large ones.
    unit: usize,
    /// First id of this run.
    first: u64,
    next: u64,
    /// Newest id that a tenant lost of which nothing else is known any more.
    forgotten_until: u64,
}

struct Slot {
    id: u64,
    fact: Option<Fact>,
}

/// Events of one tenant; there is at least one.
#[derive(Default)]
struct Own {
    ids: VecDeque<u64>,
    size: usize,
    /// Newest id that it lost; 0 if none.
    lost_until: u64,
}

/// Position of a reader: it has seen every event up to this id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor(pub u64);

/// Result of a read.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Id of the last lost event, if some were lost; their number is known for this run only.
    pub lost_until: Option<u64>,
    /// Number of lost events of this run, of whichever tenant; not counted for a reader of one tenant.
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
        let first = (now.as_u64() << ID_BITS) + 1;
        let most = bounds.events.min(bounds.memory / size_of::<Event>());
        let kept = Kept {
            slots: VecDeque::with_capacity(most + most / HOLES_DIVISOR + MIN_HOLES + 2),
            holes: 0,
            tenants: HashMap::new(),
            by_weight: BTreeSet::new(),
            size: 0,
            unit: bounds.memory / bounds.events.max(1),
            first,
            next: first,
            forgotten_until: 0,
        };
        Self { bounds, kept: Mutex::new(kept), recorded: Notify::new() }
    }

    /// Keeps facts, in this order.
    pub fn record(&self, facts: impl IntoIterator<Item = Fact>) {
        let mut kept = self.lock();
        for fact in facts {
            kept.push(fact);
            while kept.len() > self.bounds.events || kept.size > self.bounds.memory {
                if !kept.make_room() {
                    break;
                }
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

    /// Returns the events of all tenants after `cursor`, and moves it behind the scanned ones.
    ///
    /// A cursor of another run, or ahead of this one, has lost events. `wanted` must be fast and must not block, since it delays recording.
    pub fn read(&self, cursor: &mut Cursor, wanted: impl Fn(&Fact) -> bool) -> Found {
        let kept = self.lock();
        let newest = kept.next - 1;
        let mut found = Found::default();
        if kept.is_foreign(*cursor) {
            let before = kept.slots.front().map_or(newest, |slot| slot.id - 1);
            found.lost = before.saturating_sub(cursor.0);
            *cursor = Cursor(before);
            found.lost_until = Some(before);
        }
        let from = kept.slots.partition_point(|slot| slot.id <= cursor.0);
        for slot in kept.slots.range(from..).take(CHUNK) {
            // Ids between two events are those of events that are gone.
            let gone = slot.id - cursor.0 - u64::from(slot.fact.is_some());
            *cursor = Cursor(slot.id);
            if gone > 0 {
                found.lost += gone;
                found.lost_until = Some(slot.id - u64::from(slot.fact.is_some()));
            }
            if let Some(fact) = slot.fact.as_ref().filter(|fact| wanted(fact)) {
                found.events.push(Event { id: slot.id, fact: fact.clone() });
            }
        }
        if from + CHUNK >= kept.slots.len() && cursor.0 < newest {
            found.lost += newest - cursor.0;
            found.lost_until = Some(newest);
            *cursor = Cursor(newest);
        }
        found.more = cursor.0 < newest;
        found
    }

    /// Returns the events of one tenant after `cursor`, and moves it behind the scanned ones. It scans no events of other tenants.
    ///
    /// A cursor of another run, or ahead of this one, has lost events. `wanted` must be fast and must not block, since it delays recording.
    pub fn read_of(&self, tenant: TenantId, cursor: &mut Cursor, wanted: impl Fn(&Fact) -> bool) -> Found {
        let kept = self.lock();
        let (newest, own) = (kept.next - 1, kept.tenants.get(&tenant));
        let mut found = Found::default();
        let lost_until = own.map_or(0, |own| own.lost_until).max(kept.forgotten_until);
        if kept.is_foreign(*cursor) || cursor.0 < lost_until {
            let before = own.and_then(|own| own.ids.front()).map_or(newest, |first| first - 1);
            *cursor = Cursor(before);
            found.lost_until = Some(before);
        }
        if let Some(own) = own {
            let from = own.ids.partition_point(|id| *id <= cursor.0);
            for id in own.ids.range(from..).take(CHUNK) {
                *cursor = Cursor(*id);
                if let Some(fact) = kept.fact(*id).filter(|fact| wanted(fact)) {
                    found.events.push(Event { id: *id, fact: fact.clone() });
                }
            }
            found.more = from + CHUNK < own.ids.len();
        }
        if !found.more {
            *cursor = Cursor(newest);
        }
        found
    }

    /// Returns the events of several tenants after `cursor` as [`Ring::read_of`] does those of one.
    pub fn read_of_each(&self, tenants: &[TenantId], cursor: &mut Cursor, wanted: impl Fn(&Fact) -> bool) -> Found {
        let (mut reached, mut all) = (Cursor(u64::MAX), Found::default());
        for tenant in tenants {
            let mut own = *cursor;
            let found = self.read_of(*tenant, &mut own, &wanted);
            reached.0 = reached.0.min(own.0);
            all.lost_until = all.lost_until.max(found.lost_until);
            all.more |= found.more;
            all.events.extend(found.events);
        }
        // What is behind the tenant that was scanned the least far is read again with its next events, in order.
        all.events.retain(|event| event.id <= reached.0);
        all.events.sort_unstable_by_key(|event| event.id);
        *cursor = reached;
        all
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    /// Returns the number of events.
    fn len(&self) -> usize {
        self.slots.len() - self.holes
    }

    /// Returns whether a cursor is not of this run.
    fn is_foreign(&self, cursor: Cursor) -> bool {
        cursor.0 < self.first - 1 || cursor.0 >= self.next
    }

    fn position(&self, id: u64) -> usize {
        if self.slots.front().is_some_and(|slot| slot.id == id) {
            return 0;
        }
        self.slots.partition_point(|slot| slot.id < id)
    }

    fn fact(&self, id: u64) -> Option<&Fact> {
        self.slots.get(self.position(id))?.fact.as_ref()
    }

    /// Returns what a tenant's events take of the ring: the greater of their shares of its memory and of its number of events.
    fn weight(&self, own: &Own) -> usize {
        own.size.max(own.ids.len().saturating_mul(self.unit))
    }

    fn push(&mut self, fact: Fact) {
        let (id, size, tenant) = (self.next, fact.size(), fact.about.tenant);
        self.next += 1;
        self.size += size;
        self.slots.push_back(Slot { id, fact: Some(fact) });
        let mut own = self.tenants.remove(&tenant).unwrap_or_default();
        self.by_weight.remove(&(self.weight(&own), tenant));
        own.ids.push_back(id);
        own.size += size;
        self.by_weight.insert((self.weight(&own), tenant));
        self.tenants.insert(tenant, own);
    }

    /// Removes the oldest event of the tenant that keeps the most; returns false if there is no event.
    fn make_room(&mut self) -> bool {
        let Some((_, tenant)) = self.by_weight.pop_last() else { return false };
        let Some(mut own) = self.tenants.remove(&tenant) else { return false };
        let Some(id) = own.ids.pop_front() else { return false };
        let position = self.position(id);
        if let Some(fact) = self.slots.get_mut(position).and_then(|slot| slot.fact.take()) {
            self.size -= fact.size();
            own.size -= fact.size();
            self.holes += 1;
        }
        own.lost_until = id;
        if own.ids.is_empty() {
            // Its readers may be told of a loss that was another tenant's: better than not to be told of their own.
            self.forgotten_until = self.forgotten_until.max(id);
        } else {
            self.by_weight.insert((self.weight(&own), tenant));
            self.tenants.insert(tenant, own);
        }
        while self.slots.front().is_some_and(|slot| slot.fact.is_none()) {
            self.slots.pop_front();
            self.holes -= 1;
        }
        if self.holes > self.len() / HOLES_DIVISOR + MIN_HOLES {
            self.slots.retain(|slot| slot.fact.is_some());
            self.holes = 0;
        }
        true
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
    fn events_of_several_tenants_come_in_order_and_once() {
        let ring = ring(10_000, usize::MAX);
        let (mut cursor, base) = (ring.newest(), ring.newest().0);
        let of = |tenant: i64, count: usize| (0..count).map(move |_| Fact::empty(TenantId(tenant), GroupId(1), NOW));
        ring.record(of(1, CHUNK + 10).chain(of(2, 3)).chain(of(3, 5)).chain(of(1, 2)));
        let mut seen = Vec::new();
        loop {
            let found = ring.read_of_each(&[TenantId(1), TenantId(2)], &mut cursor, |_| true);
            assert_eq!(found.lost_until, None);
            seen.extend(ids(&found));
            if !found.more {
                break;
            }
        }
        let of_both = CHUNK as u64 + 13;
        let wanted: Vec<u64> = (1..=of_both).chain([of_both + 6, of_both + 7]).map(|number| base + number).collect();
        assert_eq!((seen, cursor), (wanted, ring.newest()));
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

    fn record_of(ring: &Ring, tenant: i64, count: usize) {
        ring.record((0..count).map(|_| Fact::empty(TenantId(tenant), GroupId(1), NOW)));
    }

    fn all_of(ring: &Ring, tenant: i64, cursor: &mut Cursor) -> Found {
        ring.read_of(TenantId(tenant), cursor, |_| true)
    }

    #[test]
    fn tenant_that_floods_the_ring_loses_its_own_events_only() {
        for quiet in [1, 10, 32] {
            let ring = ring(64, usize::MAX);
            let mut cursor = ring.newest();
            record_of(&ring, 2, quiet);
            for hostile in [1, 3, 1] {
                record_of(&ring, hostile, 10_000);
            }
            let still = quiet.min(64 / 3);
            let mut found = all_of(&ring, 2, &mut cursor);
            assert_eq!(found.events.len(), still, "all of them, or an equal part");
            assert_eq!(found.lost_until.is_some(), still < quiet);
            found = all_of(&ring, 2, &mut cursor);
            assert_eq!((found.events.len(), found.lost_until), (0, None));
            assert!(ring.lock().slots.len() <= 64 + 64 / HOLES_DIVISOR + MIN_HOLES + 1, "holes are bounded");
            let kept = ring.lock().len();
            assert_eq!(kept, 64);
        }
    }

    #[test]
    fn large_events_count_as_several() {
        let size = size_of::<Event>();
        let ring = ring(100, 100 * size);
        let mut large = Subject::group(TenantId(1), GroupId(1));
        large.name = Some("x".repeat(9 * size));
        record_of(&ring, 2, 40);
        ring.record((0..50).map(|_| Fact::cancel(large.clone(), NOW)));
        let found = all_of(&ring, 2, &mut Cursor(0));
        assert_eq!(found.events.len(), 40, "it keeps less than half of the memory");
        assert_eq!(all_of(&ring, 1, &mut Cursor(0)).events.len(), 6);
    }

    #[test]
    fn reader_of_one_tenant_is_told_of_its_own_loss_only() {
        let ring = ring(10, usize::MAX);
        let mut quiet = ring.newest();
        let mut loud = quiet;
        record_of(&ring, 2, 2);
        record_of(&ring, 1, 100);
        let found = all_of(&ring, 1, &mut loud);
        assert_eq!((found.events.len(), found.lost_until.is_some()), (8, true));
        let found = all_of(&ring, 2, &mut quiet);
        assert_eq!((found.events.len(), found.lost_until, found.more), (2, None, false));
        assert_eq!((quiet, loud), (ring.newest(), ring.newest()));
    }

    #[test]
    fn reader_of_all_counts_what_is_gone_between_the_events() {
        let ring = ring(10, usize::MAX);
        let mut cursor = ring.newest();
        record_of(&ring, 2, 2);
        record_of(&ring, 1, 100);
        let found = all(&ring, &mut cursor);
        assert_eq!((found.events.len(), found.lost), (10, 92));
        assert_eq!(found.lost_until, Some(cursor.0 - 8));
        assert_eq!(all(&ring, &mut cursor), Found::default());
    }

    #[test]
    fn events_of_one_tenant_come_in_pieces_and_in_order() {
        let ring = ring(10_000, usize::MAX);
        let mut cursor = ring.newest();
        for _ in 0..=CHUNK {
            record_of(&ring, 1, 1);
            record_of(&ring, 2, 2);
        }
        let mut seen = Vec::new();
        loop {
            let found = all_of(&ring, 1, &mut cursor);
            assert!(found.events.len() <= CHUNK && found.lost_until.is_none());
            seen.extend(ids(&found));
            if !found.more {
                break;
            }
        }
        assert_eq!(seen.len(), CHUNK + 1);
        assert!(seen.is_sorted());
    }

    #[test]
    fn ids_of_a_later_start_are_higher() {
        let (before, after) =
            (ring(10, usize::MAX), Ring::new(RingCapacity { events: 10, memory: 1 << 20 }, UnixMs(NOW.0 + 1)));
        record(&before, 1_000);
        assert!(before.newest().0 < after.newest().0);
    }
}
