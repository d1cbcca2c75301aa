//! Clocks of tests: one that stands still until it is moved, and one that is wrong.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::clock::{Clock, Sleep, SystemClock, UnixMs};

/// 2026-11-20T10:00:00Z
const START: UnixMs = UnixMs(1_795_168_800_000);

/// A clock that is moved by hand.
///
/// Its sleepers wake as soon as their time has come, so that moving it loses nothing.
#[derive(Debug)]
pub struct ManualClock(watch::Sender<UnixMs>);

impl ManualClock {
    /// Returns a clock at 2026-11-20T10:00:00Z.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::new(Self(watch::Sender::new(START)))
    }

    /// Moves the clock to `at`.
    ///
    /// # Panics
    /// Panics if `at` is earlier than the present time.
    pub fn set(&self, at: UnixMs) {
        self.0.send_modify(|now| {
            assert!(at >= *now, "the clock is at {now} and does not go back to {at}");
            *now = at;
        });
    }

    /// Sets the clock to an earlier time, as an operator may who corrects a mistake.
    pub fn turn_back(&self, to: UnixMs) {
        self.0.send_modify(|now| *now = to);
    }

    /// Moves the clock on.
    pub fn advance(&self, by: Duration) {
        self.set(self.now().plus(by));
    }
}

impl Clock for ManualClock {
    fn now(&self) -> UnixMs {
        *self.0.borrow()
    }

    fn sleep_until(&self, at: UnixMs) -> Sleep<'_> {
        let mut now = self.0.subscribe();
        Box::pin(async move {
            // The sender lives as long as this borrow of the clock.
            drop(now.wait_for(|now| *now >= at).await);
        })
    }

    fn fill_random(&self, bytes: &mut [u8]) {
        SystemClock.fill_random(bytes);
    }
}

/// The system's clock, set wrong.
#[derive(Debug)]
pub struct SkewedClock {
    ahead: i64,
}

impl SkewedClock {
    /// Returns a clock that is `ahead` milliseconds ahead of the right time.
    #[must_use]
    pub fn new(ahead: i64) -> Arc<Self> {
        Arc::new(Self { ahead })
    }
}

impl Clock for SkewedClock {
    fn now(&self) -> UnixMs {
        UnixMs(SystemClock.now().0 + self.ahead)
    }

    fn sleep_until(&self, at: UnixMs) -> Sleep<'_> {
        Box::pin(async move { SystemClock.sleep_until(UnixMs(at.0 - self.ahead)).await })
    }

    fn fill_random(&self, bytes: &mut [u8]) {
        SystemClock.fill_random(bytes);
    }
}
