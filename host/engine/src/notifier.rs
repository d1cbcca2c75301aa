//! Wake-ups of the loops. They carry no data and may be lost: every loop also polls.
//!
//! Most jobs are due long after they are accepted. So a waiting dispatcher announces up to when it sleeps anyway, and jobs that are due later
//! do not wake it.

use std::sync::atomic::{AtomicI64, Ordering};

use tokio::sync::Notify;
use tokio::sync::futures::Notified;

use carillon_core::clock::UnixMs;

/// Wakes the loops that wait for jobs.
#[derive(Debug)]
pub struct Notifier {
    here: Notify,
    elsewhere: Notify,
    aborts: Notify,
    /// Time (Unix, in milliseconds) from which due jobs need no wake-up on this node.
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
    /// Wakes this node: jobs may be due that it can start.
    pub fn here(&self) {
        self.here.notify_one();
    }

    /// Wakes all nodes: jobs may be due, from this time on, that any node can start.
    pub fn everywhere(&self, from: UnixMs) {
        if from.0 < self.foreseen.load(Ordering::SeqCst) {
            self.here.notify_one();
        }
        self.elsewhere.notify_one();
    }

    /// Waits for jobs that this node can start.
    pub fn woken(&self) -> Notified<'_> {
        self.here.notified()
    }

    /// Announces that the dispatcher queries the store by itself before jobs become due at this time or later.
    ///
    /// The dispatcher calls it before it waits, and revokes the announcement ([`UnixMs::MAX`]) before it queries: the query may miss a job
    /// that is accepted meanwhile.
    pub fn foresee(&self, from: UnixMs) {
        self.foreseen.store(from.0, Ordering::SeqCst);
    }

    /// Announces that attempts may have to be aborted.
    pub fn abort(&self) {
        self.aborts.notify_one();
    }

    /// Waits until attempts may have to be aborted.
    pub fn aborts(&self) -> Notified<'_> {
        self.aborts.notified()
    }

    /// Waits until other nodes are to be woken.
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
