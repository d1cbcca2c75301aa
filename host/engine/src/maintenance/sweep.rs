//! Sweeper: rescues the jobs of nodes that died, and removes jobs after their retention.
//!
//! An expired lease is rescued only if this node does not hold it: a node that stood still extends its own leases first. A lease that another
//! node has taken meanwhile belongs to that node.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::delivery::settle;
use crate::dispatch::dispatcher::Dispatcher;
use crate::dispatch::leases::{Hold, Sorted};
use carillon_catalog::BULK_RETENTION;
use carillon_config::Retention;
use carillon_core::clock::{self, UnixMs};
use carillon_core::job::{Lease, LeasedJob, Settlement, State};
use carillon_store::{ClaimLost, ClaimOverdue, Prune, StoreError};
use carillon_telemetry::Fact;

/// Period of the query for expired leases and expired jobs. A lease whose expiry is known is checked in between.
const LATE_PERIOD: Duration = Duration::from_secs(1);

/// How long the ticks of schedules are kept. A backfill further back does not know which ticks have run.
pub const TICKS_KEPT: Duration = Duration::from_secs(90 * 86_400);

/// Largest number of jobs that one transaction rescues or removes.
const BATCH: u32 = 500;

/// Result of a query for expired leases.
struct Recovered {
    /// Number of jobs that were rescued.
    jobs: usize,
    /// Expiry of the next lease, if that is soon.
    next_end: Option<UnixMs>,
}

impl Dispatcher {
    /// Rescues jobs with expired leases, and settles waiting jobs that have expired, until `stop`.
    ///
    /// The first run is immediate: after a crash, leases have expired.
    pub async fn run_late(self: Arc<Self>, stop: CancellationToken) {
        while !stop.is_cancelled() {
            // The period counts from the start of a query, not from its end.
            let looked = self.clock.now();
            let found = async { Ok::<_, StoreError>((self.recover().await?, self.expire().await?)) };
            let mut next = looked.plus(LATE_PERIOD);
            match found.await {
                Ok((Recovered { jobs: 0, next_end }, 0)) => next = next_end.map_or(next, |end| next.min(end)),
                Ok((Recovered { jobs, .. }, _)) => {
                    if jobs > 0 {
                        tracing::warn!(count = jobs, "rescued jobs with expired leases");
                    }
                    self.notifier.notify_local();
                    continue;
                }
                Err(error) => {
                    tracing::error!(%error, "rescuing or expiring jobs failed");
                    clock::pause_until_stopped(LATE_PERIOD, &stop).await;
                    continue;
                }
            }
            self.pause_until(next, &stop).await;
        }
    }

    async fn recover(&self) -> Result<Recovered, StoreError> {
        let now = self.clock.now();
        let mut ending = self.store.ending_leases(now, now.plus(LATE_PERIOD), BATCH).await?;
        let coming = ending.split_off(ending.partition_point(|(_, end)| *end <= now));
        let next_end = coming.first().map(|(_, end)| *end);
        if ending.is_empty() {
            return Ok(Recovered { jobs: 0, next_end });
        }
        let Sorted { held, lost } = self.leases.sort(ending.into_iter().map(|(lease, _)| lease).collect()).await;
        if !held.is_empty() {
            self.extend_leases().await?;
        }
        Ok(Recovered { jobs: self.settle_lost(lost, now).await?, next_end })
    }

    /// Settles the attempts under these leases as interrupted.
    async fn settle_lost(&self, lost: Vec<Lease>, now: UnixMs) -> Result<usize, StoreError> {
        if lost.is_empty() {
            return Ok(0);
        }
        let lease_until = now.plus(self.config.lease.get());
        let leased = self.store.claim_lost(ClaimLost { lost, ended_by: now, now, lease_until }).await?;
        for leased in &leased {
            self.telemetry.record(Fact::interrupt(leased, now));
        }
        self.settle_all(&leased, |leased: &LeasedJob| settle::interrupted(leased, now)).await;
        Ok(leased.len())
    }

    async fn expire(&self) -> Result<usize, StoreError> {
        let now = self.clock.now();
        let lease_until = now.plus(self.config.lease.get());
        let leased = self.store.claim_overdue(ClaimOverdue { now, lease_until, limit: BATCH }).await?;
        self.settle_all(&leased, |leased: &LeasedJob| Settlement::expired(leased, now, None)).await;
        Ok(leased.len())
    }

    /// Settles jobs and holds their leases meanwhile: however long the store takes, they are not rescued twice.
    pub(crate) async fn settle_all(&self, leased: &[LeasedJob], settle: impl Fn(&LeasedJob) -> Settlement) {
        let _holds: Vec<Hold> = leased.iter().map(|leased| self.leases.keep(leased.lease())).collect();
        self.settler.settle_all(leased, settle).await;
    }

    /// Removes finished jobs by the `retention` settings, until `stop`.
    pub async fn run_retention(self: Arc<Self>, retention: Retention, stop: CancellationToken) {
        while !stop.is_cancelled() {
            match self.store.prune(cutoffs(&retention, self.clock.now())).await {
                Ok(removed) if removed >= BATCH => {
                    tokio::task::yield_now().await;
                    continue;
                }
                Ok(_) => {}
                Err(error) => tracing::error!(%error, "removing old jobs failed"),
            }
            let now = self.clock.now();
            if let Err(error) = self.catalog.tidy(now.minus(BULK_RETENTION)).await {
                tracing::error!(%error, "removing data of deleted groups and finished bulk changes failed");
            }
            self.limiter.forget_idle(now);
            self.pause_until(self.clock.now().plus(retention.sweep_interval.get()), &stop).await;
        }
    }

    async fn pause_until(&self, at: UnixMs, stop: &CancellationToken) {
        tokio::select! {
            () = self.clock.sleep_until(at) => {}
            () = stop.cancelled() => {}
        }
    }
}

fn cutoffs(retention: &Retention, now: UnixMs) -> Prune {
    let ended = [
        (State::Succeeded, retention.succeeded),
        (State::Dead, retention.dead),
        (State::Expired, retention.expired),
        (State::Cancelled, retention.cancelled),
    ];
    Prune {
        ended: ended.map(|(state, kept)| (state, now.minus(kept.get()))).to_vec(),
        ticks: now.minus(TICKS_KEPT),
        now,
        limit: BATCH,
    }
}
