//! Tidies up: takes back the jobs of nodes that died, and removes what has been kept long enough.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::clock::UnixMs;
use crate::config::Retention;
use crate::due::Node;
use crate::flow;
use crate::job::{Leased, Settlement, State};
use crate::observe::Fact;
use crate::settle;
use crate::store::{Prune, StoreError};

/// How often leases that have ended, and jobs whose time has run out, are looked for.
const LATE_PERIOD: Duration = Duration::from_secs(1);

/// How long the ticks of schedules are kept: a backfill further back does not know what has run.
pub const TICKS_KEPT: Duration = Duration::from_secs(90 * 86_400);

/// How many jobs are taken back, or removed, in one transaction.
const BATCH: u32 = 500;

impl Node {
    /// Takes back jobs whose lease ended, and ends waiting jobs whose time has run out, until `stop`. The first time at once: after
    /// a crash they are waiting.
    pub async fn run_late(self: Arc<Self>, stop: CancellationToken) {
        while !stop.is_cancelled() {
            // What comes while this looks is found a period after it began, not after it ended.
            let looked = self.clock.now();
            let found = async { Ok::<_, StoreError>((self.recover().await?, self.expire().await?)) };
            match found.await {
                Ok((0, 0)) => {}
                Ok((recovered, _)) => {
                    if recovered > 0 {
                        tracing::warn!(recovered, "jobs were taken back whose lease had ended");
                    }
                    self.wake.here();
                    continue;
                }
                Err(error) => tracing::error!(%error, "cannot look for leases that ended and jobs that expired"),
            }
            self.pause_until(looked.plus(LATE_PERIOD), &stop).await;
        }
    }

    async fn recover(&self) -> Result<usize, StoreError> {
        let now = self.clock.now();
        let leased = self.store.claim_lost(now, now.plus(self.config.lease.get()), BATCH).await?;
        for leased in &leased {
            self.observer.tell(Fact::interrupt(leased, now));
        }
        self.settle_all(&leased, |leased: &Leased| settle::interrupted(leased, now)).await
    }

    async fn expire(&self) -> Result<usize, StoreError> {
        let now = self.clock.now();
        let leased = self.store.claim_overdue(now, now.plus(self.config.lease.get()), BATCH).await?;
        self.settle_all(&leased, |leased: &Leased| Settlement::expired(leased, now, None)).await
    }

    async fn settle_all(&self, leased: &[Leased], settle: impl Fn(&Leased) -> Settlement) -> Result<usize, StoreError> {
        let settlement = |leased: &Leased| flow::with_follow_ups(&self.catalog, &*self.clock, leased, settle(leased));
        let settlements = leased.iter().map(settlement).collect::<Vec<_>>();
        let settled = self.store.settle(settlements.clone()).await?;
        for ((leased, settlement), settled) in leased.iter().zip(&settlements).zip(settled) {
            self.observer.settled(leased, settlement, settled);
        }
        Ok(leased.len())
    }

    /// Removes finished jobs as `retention` says, until `stop`.
    pub async fn run_retention(self: Arc<Self>, retention: Retention, stop: CancellationToken) {
        while !stop.is_cancelled() {
            match self.store.prune(cutoffs(&retention, self.clock.now())).await {
                Ok(removed) if removed >= BATCH => {
                    tokio::task::yield_now().await;
                    continue;
                }
                Ok(_) => {}
                Err(error) => tracing::error!(%error, "cannot remove old jobs"),
            }
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
