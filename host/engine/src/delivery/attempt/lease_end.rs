//! The end of an attempt's lease, as far as its node knows it.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use carillon_core::clock::UnixMs;

/// End of a lease. Clones share it, and each extension that the store has confirmed moves it.
#[derive(Clone, Debug)]
pub struct LeaseEnd(Arc<AtomicI64>);

impl LeaseEnd {
    /// Returns an end that no extension has moved yet.
    #[must_use]
    pub fn new(until: UnixMs) -> Self {
        Self(Arc::new(AtomicI64::new(until.0)))
    }

    /// Moves the end to `until`, unless it is later already.
    pub fn extend(&self, until: UnixMs) {
        self.0.fetch_max(until.0, Ordering::Relaxed);
    }

    /// Returns whether the lease is over at `now`: another node may hold the job by then.
    #[must_use]
    pub fn has_passed(&self, now: UnixMs) -> bool {
        now.0 >= self.0.load(Ordering::Relaxed)
    }
}
