//! Rescuer: settles the jobs of nodes that died, and waiting jobs that have expired.
//!
//! An expired lease is rescued only if this node does not hold it: a node that stood still extends its own leases first. A lease that another
//! node has taken meanwhile belongs to that node.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::delivery::settle::{self, RetryBounds};
use crate::dispatch::lease_keeper::LeaseKeeper;
use crate::dispatch::leases::Sorted;
use crate::services::Services;
use carillon_core::clock::{self, UnixMs};
use carillon_core::job::{Lease, LeasedJob, Settlement};
use carillon_store::{ClaimLost, ClaimOverdue, StoreError};
use carillon_telemetry::Fact;

/// Period of the query for expired leases and expired jobs. A lease whose expiry is known is checked in between.
const LATE_PERIOD: Duration = Duration::from_secs(1);

/// Largest number of jobs that one transaction rescues.
const BATCH: u32 = 500;

/// Result of a query for expired leases.
struct Recovered {
    /// Number of jobs that were rescued.
    jobs: usize,
    /// Expiry of the next lease, if that is soon.
    next_end: Option<UnixMs>,
}

/// Settles jobs that nothing works on any more.
pub struct Rescuer {
    services: Services,
    lease_keeper: Arc<LeaseKeeper>,
    bounds: RetryBounds,
}

impl Rescuer {
    /// Creates a rescuer that leaves the leases of this keeper alone.
    #[must_use]
    pub fn new(services: Services, lease_keeper: Arc<LeaseKeeper>, bounds: RetryBounds) -> Self {
        Self { services, lease_keeper, bounds }
    }

    /// Rescues jobs with expired leases, and settles waiting jobs that have expired, until `stop`.
    ///
    /// The first run is immediate: after a crash, leases have expired.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        while !stop.is_cancelled() {
            // The period counts from the start of a query, not from its end.
            let looked = self.services.clock.now();
            let found = async { Ok::<_, StoreError>((self.recover().await?, self.expire().await?)) };
            let mut next = looked.plus(LATE_PERIOD);
            match found.await {
                Ok((Recovered { jobs: 0, next_end }, 0)) => next = next_end.map_or(next, |end| next.min(end)),
                Ok((Recovered { jobs, .. }, _)) => {
                    if jobs > 0 {
                        tracing::warn!(count = jobs, "rescued jobs with expired leases");
                    }
                    self.services.notifier.notify_local();
                    continue;
                }
                Err(error) => {
                    tracing::error!(%error, "rescuing or expiring jobs failed");
                    clock::pause_until_stopped(LATE_PERIOD, &stop).await;
                    continue;
                }
            }
            tokio::select! {
                () = self.services.clock.sleep_until(next) => {}
                () = stop.cancelled() => {}
            }
        }
    }

    async fn recover(&self) -> Result<Recovered, StoreError> {
        let now = self.services.clock.now();
        let mut ending = self.services.store.ending_leases(now, now.plus(LATE_PERIOD), BATCH).await?;
        let coming = ending.split_off(ending.partition_point(|(_, end)| *end <= now));
        let next_end = coming.first().map(|(_, end)| *end);
        if ending.is_empty() {
            return Ok(Recovered { jobs: 0, next_end });
        }
        let Sorted { held, lost } =
            self.lease_keeper.leases().sort(ending.into_iter().map(|(lease, _)| lease).collect()).await;
        if !held.is_empty() {
            self.lease_keeper.extend_leases().await?;
        }
        Ok(Recovered { jobs: self.settle_lost(lost, now).await?, next_end })
    }

    /// Settles the attempts under these leases as interrupted.
    async fn settle_lost(&self, lost: Vec<Lease>, now: UnixMs) -> Result<usize, StoreError> {
        if lost.is_empty() {
            return Ok(0);
        }
        let lease_until = self.lease_keeper.expiry(now);
        let leased = self.services.store.claim_lost(ClaimLost { lost, ended_by: now, now, lease_until }).await?;
        for leased in &leased {
            self.services.telemetry.record(Fact::interrupt(leased, now));
        }
        self.lease_keeper.settle_all(&leased, |leased: &LeasedJob| settle::interrupted(leased, now, self.bounds)).await;
        Ok(leased.len())
    }

    async fn expire(&self) -> Result<usize, StoreError> {
        let now = self.services.clock.now();
        let lease_until = self.lease_keeper.expiry(now);
        let leased = self.services.store.claim_overdue(ClaimOverdue { now, lease_until, limit: BATCH }).await?;
        self.lease_keeper.settle_all(&leased, |leased: &LeasedJob| Settlement::expired(leased, now, None)).await;
        Ok(leased.len())
    }
}
