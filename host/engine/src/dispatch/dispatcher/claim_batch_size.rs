//! Adaptive size of a claim, so that a claim takes a short time.
//!
//! While a claim runs, nothing else is claimed. So a longer claim delays a job of another tenant that becomes due meanwhile; and a larger
//! claim takes longer, most of all where the processor has other work.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Duration above which the next claim is half as large.
const LONG: Duration = Duration::from_millis(16);

/// Duration below which a full claim is followed by one twice as large.
const SHORT: Duration = Duration::from_millis(8);

/// Smallest size of a claim.
///
/// A small claim spends most of its time on the transaction before it and on the flush after it, and a smaller size does not shorten that:
/// with 32 jobs for each claim a slow machine with two cores used one and a half of them.
const MIN_BATCH: u32 = 128;

/// Adaptive size of the next claim.
#[derive(Debug)]
pub struct ClaimBatchSize(AtomicU32);

impl Default for ClaimBatchSize {
    fn default() -> Self {
        Self(AtomicU32::new(u32::MAX))
    }
}

impl ClaimBatchSize {
    /// Returns the size of a claim that may take at most `most` jobs.
    pub(super) fn up_to(&self, most: u32) -> u32 {
        most.min(self.0.load(Ordering::Relaxed))
    }

    /// Adjusts the size after a claim of at most `asked` jobs that found `found` in `elapsed`.
    pub(super) fn took(&self, asked: u32, found: u32, elapsed: Duration) {
        let size = self.0.load(Ordering::Relaxed);
        if elapsed > LONG {
            self.0.store((found / 2).max(MIN_BATCH), Ordering::Relaxed);
        } else if elapsed < SHORT && asked >= size {
            self.0.store(size.saturating_mul(2), Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn claims_that_take_long_become_small_and_grow_again() {
        let pace = ClaimBatchSize::default();
        assert_eq!(pace.up_to(256), 256);
        pace.took(256, 256, 20 * MS);
        assert_eq!(pace.up_to(256), 128);
        pace.took(128, 128, 12 * MS);
        assert_eq!(pace.up_to(256), 128, "neither long nor short");
        pace.took(128, 0, 90 * MS);
        assert_eq!(pace.up_to(256), MIN_BATCH);
        pace.took(MIN_BATCH, 9, 2 * MS);
        assert_eq!(pace.up_to(256), 2 * MIN_BATCH);
        pace.took(20, 20, 2 * MS);
        assert_eq!(pace.up_to(256), 2 * MIN_BATCH, "one that was meant to be small says nothing");
        assert_eq!(pace.up_to(16), 16);
    }
}
