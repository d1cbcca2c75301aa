//! Leases on their way to a consumer.
//!
//! A lease that nobody knows of keeps its job from everybody else until it ends, and spends an attempt. So what was claimed for an answer goes
//! back at once, unspent, unless the answer was handed over: whatever happens to the request, its connection or its handler.

use std::sync::Arc;

use tokio_util::task::TaskTracker;

use super::LeaseTicket;
use crate::delivery::settler::Settler;
use crate::dispatch::leases::Hold;
use crate::notifier::Notifier;
use carillon_core::clock::Clock;
use carillon_core::job::{LeasedJob, Settlement};

/// What takes leases back.
pub struct Returns {
    /// Writes that they are released.
    pub settler: Arc<Settler>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Is woken for the jobs that came back.
    pub notifier: Arc<Notifier>,
    /// The server does not end before these do.
    pub tasks: TaskTracker,
}

/// Leases that were claimed for an answer. Dropped, they go back.
pub struct Handover {
    returns: Arc<Returns>,
    leases: Vec<(LeaseTicket, LeasedJob)>,
    /// The sweeper leaves them alone meanwhile.
    holds: Vec<Hold>,
}

impl Handover {
    pub(super) fn new(returns: &Arc<Returns>, leases: Vec<(LeaseTicket, LeasedJob)>, holds: Vec<Hold>) -> Self {
        Self { returns: Arc::clone(returns), leases, holds }
    }

    /// What is handed over.
    #[must_use]
    pub fn leases(&self) -> &[(LeaseTicket, LeasedJob)] {
        &self.leases
    }

    pub(super) fn leases_mut(&mut self) -> &mut Vec<(LeaseTicket, LeasedJob)> {
        &mut self.leases
    }

    /// The consumer has them.
    pub fn done(mut self) {
        self.leases.clear();
    }
}

impl Drop for Handover {
    fn drop(&mut self) {
        let (leased, holds) = (std::mem::take(&mut self.leases), std::mem::take(&mut self.holds));
        if leased.is_empty() || tokio::runtime::Handle::try_current().is_err() {
            return;
        }
        let returns = Arc::clone(&self.returns);
        self.returns.tasks.spawn(async move {
            let leased: Vec<LeasedJob> = leased.into_iter().map(|(_, leased)| leased).collect();
            tracing::debug!(jobs = leased.len(), "a consumer went away before it got its leases; they go back");
            let now = returns.clock.now();
            returns.settler.settle_all(&leased, |leased| Settlement::released(leased, now)).await;
            drop(holds);
            returns.notifier.everywhere(now);
        });
    }
}
