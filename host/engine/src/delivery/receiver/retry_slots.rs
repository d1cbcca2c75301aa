//! Retry slots of one receiver: each postponed job gets a time of its own at which it asks again.
//!
//! However many jobs wait, they ask at the pace of the slots, and the receiver gets them one after the other. A series of slots ends after
//! [`LONGEST`]: the next job begins another series, whose slots lie between those of the first. So no job waits longer than that because of a
//! wrong pace, and each waiting job is checked once in that time, not more often.

use std::time::Duration;

use carillon_core::clock::UnixMs;

/// Longest series of slots.
pub(super) const LONGEST: Duration = Duration::from_secs(600);

/// Shortest distance between two slots.
pub(super) const LEAST: Duration = Duration::from_millis(1);

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

/// Behaviour of a job that is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waits {
    /// The job comes back at a slot of its own.
    InLine,
    /// The job asks again anyway, and takes no slot.
    Nowhere,
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
    /// Reserves the next slot: at `first` or later, and `step` after the previous one.
    pub(super) fn place(&mut self, first: UnixMs, step: Duration) -> UnixMs {
        if self.end <= first {
            (self.end, self.full) = (first, 0);
        } else if self.end > first.plus(LONGEST) {
            let full = self.full.wrapping_add(1);
            let between = step.mul_f64((f64::from(full) * GOLDEN).fract());
            (self.end, self.full) = (first.plus(between), full);
        }
        let place = self.end;
        self.end = place.plus(step.max(LEAST));
        self.waiting = self.waiting.saturating_add(1);
        place
    }

    /// Returns the time at which a refused job asks again: a new slot if it waits, else `first`.
    pub(super) fn wait(&mut self, first: UnixMs, step: Duration, turn: Turn, waits: Waits) -> UnixMs {
        if waits == Waits::Nowhere {
            return first;
        }
        self.leave(turn);
        self.place(first, step)
    }

    /// Frees the slot of a job that has come back, if it had one.
    pub(super) fn leave(&mut self, turn: Turn) {
        if turn == Turn::Back {
            self.waiting = self.waiting.saturating_sub(1);
        }
    }

    /// Returns whether waiting jobs go before a job with this turn.
    pub(super) fn is_before(&self, turn: Turn, now: UnixMs) -> bool {
        turn == Turn::New && self.waiting > 0 && self.end.plus(GRACE) > now && self.end <= now.plus(LONGEST * 2)
    }

    /// Returns whether no job waits any more.
    pub(super) fn is_over(&self, now: UnixMs) -> bool {
        self.end <= now || self.end > now.plus(LONGEST * 2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_line_that_is_full_is_followed_by_one_between_its_places() {
        let (mut line, step) = (RetrySlots::default(), Duration::from_secs(30));
        let mut places: Vec<_> = (0..21 * 100).map(|_| line.place(UnixMs(5), step)).collect();
        assert_eq!(places[..3], [UnixMs(5), UnixMs(30_005), UnixMs(60_005)]);
        assert!(places.iter().all(|place| *place <= UnixMs(5).plus(LONGEST).plus(step)));
        places.sort_unstable();
        places.dedup();
        assert_eq!(places.len(), 21 * 100, "two in one place");
        let gap = places.windows(2).map(|pair| pair[1].since(pair[0])).max().unwrap();
        assert!(gap < Duration::from_secs(1), "they come evenly, not in bursts: {gap:?}");
    }

    #[test]
    fn a_line_that_nobody_joins_is_over() {
        let (mut line, now) = (RetrySlots::default(), UnixMs(1_000));
        assert!(line.is_over(now));
        line.place(now, LEAST);
        assert!(!line.is_over(now) && line.is_over(now.plus(LEAST)));
        assert!(line.is_over(now.minus(LONGEST * 3)), "the clock was set back");
        assert_eq!(line.place(UnixMs(9_000), LEAST), UnixMs(9_000), "nobody waits for those who have gone");
    }

    proptest! {
        #[test]
        fn every_place_is_ahead_and_not_too_far(
            joins in prop::collection::vec((-2_000_000_i64..2_000_000, 0_u64..900_000), 1..200),
        ) {
            let mut line = RetrySlots::default();
            for (first, step) in joins {
                let (first, step) = (UnixMs(first), Duration::from_millis(step));
                let place = line.place(first, step);
                prop_assert!(place >= first && place <= first.plus(LONGEST).plus(step));
            }
        }
    }
}
