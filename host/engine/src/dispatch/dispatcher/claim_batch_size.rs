//! How many jobs a claim takes: so many that it does not take long.
//!
//! While a claim is on its way nothing else is claimed. So the longer it takes, the longer a job of another tenant waits that becomes
//! due meanwhile; and the more it takes, the longer it takes, most of all where the processor has other things to do.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// A claim that took longer is followed by one half as large.
const LONG: Duration = Duration::from_millis(16);

/// A claim that was full and took less than this is followed by one twice as large.
const SHORT: Duration = Duration::from_millis(8);

/// No claim is made smaller. Most of the time of a small claim is that of the transaction which it waits for and of the flush behind it, and
/// does not get shorter: with 32 jobs at a time a slow machine had two cores and used one and a half.
const LEAST: u32 = 128;

/// The size of the next claim.
#[derive(Debug)]
pub struct ClaimBatchSize(AtomicU32);

impl Default for ClaimBatchSize {
    fn default() -> Self {
        Self(AtomicU32::new(u32::MAX))
    }
}

impl ClaimBatchSize {
    /// How many jobs a claim takes that may take `most`.
    pub(super) fn of(&self, most: u32) -> u32 {
        most.min(self.0.load(Ordering::Relaxed))
    }

    /// A claim of at most `asked` jobs found `found` and took so long.
    pub(super) fn took(&self, asked: u32, found: u32, elapsed: Duration) {
        let size = self.0.load(Ordering::Relaxed);
        if elapsed > LONG {
            self.0.store((found / 2).max(LEAST), Ordering::Relaxed);
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
        assert_eq!(pace.of(256), 256);
        pace.took(256, 256, 20 * MS);
        assert_eq!(pace.of(256), 128);
        pace.took(128, 128, 12 * MS);
        assert_eq!(pace.of(256), 128, "neither long nor short");
        pace.took(128, 0, 90 * MS);
        assert_eq!(pace.of(256), LEAST);
        pace.took(LEAST, 9, 2 * MS);
        assert_eq!(pace.of(256), 2 * LEAST);
        pace.took(20, 20, 2 * MS);
        assert_eq!(pace.of(256), 2 * LEAST, "one that was meant to be small says nothing");
        assert_eq!(pace.of(16), 16);
    }
}
