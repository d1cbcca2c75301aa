//! Wake-ups. They carry no data and may be lost: every loop also looks by itself.
//!
//! Most jobs are due long after they are accepted. So whoever waits says until when it waits anyway, and jobs that are due later wake
//! nobody.

use std::sync::atomic::{AtomicI64, Ordering};

use tokio::sync::Notify;
use tokio::sync::futures::Notified;

use carillon_core::clock::UnixMs;

/// Wakes who waits for jobs.
#[derive(Debug)]
pub struct Notifier {
    here: Notify,
    elsewhere: Notify,
    aborts: Notify,
    /// Jobs that are due at this time (Unix, in milliseconds) or later need no wake-up here.
    foreseen: AtomicI64,
}

impl Default for Notifier {
    fn default() -> Self {
        Self {
            here: Notify::new(),
            elsewhere: Notify::new(),
            aborts: Notify::new(),
            foreseen: AtomicI64::new(i64::MAX),
        }
    }
}

impl Notifier {
    /// Jobs may be due that this node can take.
    pub fn here(&self) {
        self.here.notify_one();
    }

    /// Jobs may be due that any node can take, from this time on.
    pub fn everywhere(&self, from: UnixMs) {
        if from.0 < self.foreseen.load(Ordering::SeqCst) {
            self.here.notify_one();
        }
        self.elsewhere.notify_one();
    }

    /// Waits for jobs that this node can take.
    pub fn woken(&self) -> Notified<'_> {
        self.here.notified()
    }

    /// Whoever waits for jobs looks by itself before those are due that are due at this time or later. To be said before it
    /// waits, and taken back ([`UnixMs::MAX`]) before it looks: what is accepted meanwhile may not be in what it sees.
    pub fn foresee(&self, from: UnixMs) {
        self.foreseen.store(from.0, Ordering::SeqCst);
    }

    /// Attempts may be to be cut off.
    pub fn abort(&self) {
        self.aborts.notify_one();
    }

    /// Waits until attempts may be to be cut off.
    pub fn aborts(&self) -> Notified<'_> {
        self.aborts.notified()
    }

    /// Waits until other nodes are to be told.
    pub fn told(&self) -> Notified<'_> {
        self.elsewhere.notified()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn what_is_foreseen_wakes_nobody_here() {
        let notifier = Notifier::default();
        let woken = |from: i64| {
            notifier.everywhere(UnixMs(from));
            assert!(notifier.told().now_or_never().is_some());
            notifier.woken().now_or_never().is_some()
        };
        assert!(woken(1_000));
        notifier.foresee(UnixMs(1_000));
        assert_eq!([999, 1_000, 5_000].map(woken), [true, false, false]);
        notifier.foresee(UnixMs::MAX);
        assert!(woken(5_000));
    }
}
