//! Leases that are on their way to a consumer.
//!
//! A lease that its consumer never received blocks its job until the lease expires, and spends an attempt. So leases that were claimed for a
//! response are released at once, unspent, unless the response was handed over. This holds whatever happens to the request, its connection or
//! its handler.

use std::sync::Arc;

use tokio_util::task::TaskTracker;

use super::LeaseTicket;
use crate::delivery::settler::Settler;
use crate::dispatch::leases::Hold;
use crate::services::Services;
use carillon_core::job::{LeasedJob, Settlement};
use carillon_core::limits::json_len;

/// Releases leases that did not reach their consumer.
pub(in crate::dispatch) struct Returns {
    services: Services,
    settler: Arc<Settler>,
    /// Tracks the releases; the server waits for them before it exits.
    pub(super) tasks: TaskTracker,
}

/// Returns the size of a leased job, in bytes.
fn len(leased: &LeasedJob) -> usize {
    json_len(&leased.job.spec).saturating_add(leased.body.len())
}

/// Leases that were claimed for a response. Dropping them releases them.
pub struct Handover {
    returns: Arc<Returns>,
    leases: Vec<(LeaseTicket, LeasedJob)>,
    /// Keep the rescuer from settling these leases meanwhile.
    holds: Vec<Hold>,
}

impl Returns {
    pub(in crate::dispatch) fn new(services: Services, settler: Arc<Settler>, tasks: TaskTracker) -> Self {
        Self { services, settler, tasks }
    }
}

impl Handover {
    pub(super) fn new(returns: &Arc<Returns>, leases: Vec<(LeaseTicket, LeasedJob)>, holds: Vec<Hold>) -> Self {
        Self { returns: Arc::clone(returns), leases, holds }
    }

    /// Returns the leases to hand over.
    #[must_use]
    pub fn leases(&self) -> &[(LeaseTicket, LeasedJob)] {
        &self.leases
    }

    pub(super) fn leases_mut(&mut self) -> &mut Vec<(LeaseTicket, LeasedJob)> {
        &mut self.leases
    }

    /// Returns the size of the leased jobs with their payloads, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.leases.iter().map(|(_, leased)| len(leased)).fold(0, usize::saturating_add)
    }

    /// Adds the leases of another claim.
    pub(super) fn append(&mut self, mut other: Self) {
        self.leases.append(&mut other.leases);
        self.holds.append(&mut other.holds);
    }

    /// Releases the leases beyond the first `bytes`; one lease at least stays.
    pub(super) fn shrink(&mut self, bytes: usize) {
        let mut sum = 0_usize;
        let fits = |(_, leased): &&(LeaseTicket, LeasedJob)| {
            sum = sum.saturating_add(len(leased));
            sum <= bytes
        };
        let fitting = self.leases.iter().take_while(fits).count().max(1);
        if fitting < self.leases.len() {
            let rest = self.leases.split_off(fitting);
            drop(Self::new(&self.returns, rest, Vec::new()));
        }
    }

    /// Marks the leases as received by the consumer.
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
            tracing::debug!(jobs = leased.len(), "released leases that were not handed over");
            let now = returns.services.clock.now();
            returns.settler.settle_all(&leased, |leased| Settlement::released(leased, now)).await;
            drop(holds);
            returns.services.notifier.notify_all_nodes(now);
        });
    }
}
