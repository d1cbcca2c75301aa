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
    local: Notify,
    remote: Notify,
    aborts: Notify,
    /// Time (Unix, in milliseconds) of the dispatcher's next poll: jobs due from then on need no wake-up on this node.
    next_poll_at: AtomicI64,
}

impl Default for Notifier {
    fn default() -> Self {
        Self {
            local: Notify::new(),
            remote: Notify::new(),
            aborts: Notify::new(),
            next_poll_at: AtomicI64::new(i64::MAX),
        }
    }
}

impl Notifier {
    /// Wakes this node: jobs may be due that it can start.
    pub fn notify_local(&self) {
        self.local.notify_one();
    }

    /// Wakes all nodes: jobs may be due, from this time on, that any node can start.
    pub fn notify_all_nodes(&self, from: UnixMs) {
        if from.0 < self.next_poll_at.load(Ordering::SeqCst) {
            self.local.notify_one();
        }
        self.remote.notify_one();
    }

    /// Waits for jobs that this node can start.
    pub fn notified_local(&self) -> Notified<'_> {
        self.local.notified()
    }

    /// Announces that the dispatcher queries the store by itself before jobs become due at this time or later.
    ///
    /// The dispatcher calls it before it waits, and revokes the announcement ([`UnixMs::MAX`]) before it queries: the query may miss a job
    /// that is accepted meanwhile.
    pub fn expect_poll_at(&self, at: UnixMs) {
        self.next_poll_at.store(at.0, Ordering::SeqCst);
    }

    /// Announces that attempts may have to be aborted.
    pub fn notify_aborts(&self) {
        self.aborts.notify_one();
    }

    /// Waits until attempts may have to be aborted.
    pub fn notified_aborts(&self) -> Notified<'_> {
        self.aborts.notified()
    }

    /// Waits until other nodes are to be woken.
    pub fn notified_remote(&self) -> Notified<'_> {
        self.remote.notified()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn jobs_due_after_the_next_poll_wake_only_other_nodes() {
        let notifier = Notifier::default();
        let woken = |from: i64| {
            notifier.notify_all_nodes(UnixMs(from));
            assert!(notifier.notified_remote().now_or_never().is_some());
            notifier.notified_local().now_or_never().is_some()
        };
        assert!(woken(1_000));
        notifier.expect_poll_at(UnixMs(1_000));
        assert_eq!([999, 1_000, 5_000].map(woken), [true, false, false]);
        notifier.expect_poll_at(UnixMs::MAX);
        assert!(woken(5_000));
    }
}
