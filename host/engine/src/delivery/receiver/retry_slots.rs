//! Retry slots of one receiver: each postponed job gets a time of its own at which it asks again.
//!
//! However many jobs wait, they ask at the pace of the slots, and the receiver gets them one after the other. A series of slots ends after
//! [`MAX_SERIES`]: the next job begins another series, whose slots lie between those of the first. So no job waits longer than that because of a
//! wrong pace, and each waiting job is checked once in that time, not more often.

use std::time::Duration;

use carillon_core::clock::UnixMs;

/// Longest series of slots.
pub(super) const MAX_SERIES: Duration = Duration::from_secs(600);

/// Shortest distance between two slots.
pub(super) const MIN_SPACING: Duration = Duration::from_millis(1);

/// The golden ratio's fraction: its multiples, without their whole parts, are spread evenly over 0 to 1 however many there are.
const GOLDEN: f64 = 0.618_033_988_749_895;

/// Delay after a slot until its job no longer blocks others: it may have been cancelled.
const GRACE: Duration = Duration::from_secs(1);

/// Whether a job that asks holds a retry slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// The job asks for the first time, or after an attempt.
    New,
    /// The job comes back at its slot.
    Back,
}

/// Refusal of an attempt. It reserves nothing: a job that waits gets a slot from [`RetrySlots::reserve`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    /// Earliest time at which to ask again.
    pub(super) retry_at: UnixMs,
    /// Distance between the slots of the jobs that wait.
    pub(super) spacing: Duration,
}

/// End of the newest series of slots.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct RetrySlots {
    end: UnixMs,
    /// Number of full series before this one.
    full: u32,
    /// Number of slots whose jobs have not come back.
    waiting: u32,
}

impl RetrySlots {
    /// Reserves the next slot for a refused job: not before the refusal's time, and its spacing after the previous slot.
    pub(super) fn reserve(&mut self, Refusal { retry_at, spacing }: Refusal) -> UnixMs {
        if self.end <= retry_at {
            (self.end, self.full) = (retry_at, 0);
        } else if self.end > retry_at.plus(MAX_SERIES) {
            let full = self.full.wrapping_add(1);
            let between = spacing.mul_f64((f64::from(full) * GOLDEN).fract());
            (self.end, self.full) = (retry_at.plus(between), full);
        }
        let slot = self.end;
        self.end = slot.plus(spacing.max(MIN_SPACING));
        self.waiting = self.waiting.saturating_add(1);
        slot
    }

    /// Frees the slot of a job that has come back, if it had one.
    pub(super) fn leave(&mut self, turn: Turn) {
        if turn == Turn::Back {
            self.waiting = self.waiting.saturating_sub(1);
        }
    }

    /// Returns whether waiting jobs go before a job with this turn.
    pub(super) fn is_before(&self, turn: Turn, now: UnixMs) -> bool {
        turn == Turn::New && self.waiting > 0 && self.end.plus(GRACE) > now && self.end <= now.plus(MAX_SERIES * 2)
    }

    /// Returns whether no job waits any more.
    pub(super) fn is_over(&self, now: UnixMs) -> bool {
        self.end <= now || self.end > now.plus(MAX_SERIES * 2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn full_series_is_followed_by_one_between_its_slots() {
        let (mut retry_slots, spacing) = (RetrySlots::default(), Duration::from_secs(30));
        let refusal = Refusal { retry_at: UnixMs(5), spacing };
        let mut slots: Vec<_> = (0..21 * 100).map(|_| retry_slots.reserve(refusal)).collect();
        assert_eq!(slots[..3], [UnixMs(5), UnixMs(30_005), UnixMs(60_005)]);
        assert!(slots.iter().all(|slot| *slot <= UnixMs(5).plus(MAX_SERIES).plus(spacing)));
        slots.sort_unstable();
        slots.dedup();
        assert_eq!(slots.len(), 21 * 100, "two jobs in one slot");
        let gap = slots.windows(2).map(|pair| pair[1].since(pair[0])).max().unwrap();
        assert!(gap < Duration::from_secs(1), "they come evenly, not in bursts: {gap:?}");
    }

    #[test]
    fn series_without_new_slots_is_over_after_its_last() {
        let (mut slots, now) = (RetrySlots::default(), UnixMs(1_000));
        let refusal = Refusal { retry_at: now, spacing: MIN_SPACING };
        assert!(slots.is_over(now));
        slots.reserve(refusal);
        assert!(!slots.is_over(now) && slots.is_over(now.plus(MIN_SPACING)));
        assert!(slots.is_over(now.minus(MAX_SERIES * 3)), "the clock was set back");
        let later = Refusal { retry_at: UnixMs(9_000), ..refusal };
        assert_eq!(slots.reserve(later), UnixMs(9_000), "no job waits behind slots that have passed");
    }

    proptest! {
        #[test]
        fn every_slot_is_ahead_and_not_too_far(
            refusals in prop::collection::vec((-2_000_000_i64..2_000_000, 0_u64..900_000), 1..200),
        ) {
            let mut slots = RetrySlots::default();
            for (retry_at, spacing) in refusals {
                let (retry_at, spacing) = (UnixMs(retry_at), Duration::from_millis(spacing));
                let slot = slots.reserve(Refusal { retry_at, spacing });
                prop_assert!(slot >= retry_at && slot <= retry_at.plus(MAX_SERIES).plus(spacing));
            }
        }
    }
}
