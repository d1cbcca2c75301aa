//! Tidies up: takes back the jobs of nodes that died, and removes what has been kept long enough.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::clock::UnixMs;
use crate::config::Retention;
use crate::due::Node;
use crate::job::State;
use crate::settle;
use crate::store::{Prune, StoreError};

/// How often leases that have ended are looked for, at most.
const LOST_LEASE_PERIOD: Duration = Duration::from_secs(5);

/// How many jobs are taken back, or removed, in one transaction.
const BATCH: u32 = 500;

impl Node {
    /// Takes back jobs whose lease ended, until `stop`. The first time at once: after a crash they are waiting.
    pub async fn run_recovery(self: Arc<Self>, stop: CancellationToken) {
        let period = LOST_LEASE_PERIOD.min(self.config.lease.get());
        while !stop.is_cancelled() {
            let found = self.recover().await;
            match found {
                Ok(0) => {}
                Ok(found) => {
                    tracing::warn!(found, "jobs of a node that stopped were taken back");
                    self.wake.notify_one();
                    continue;
                }
                Err(error) => tracing::error!(%error, "cannot look for leases that ended"),
            }
            self.pause(period, &stop).await;
        }
    }

    async fn recover(&self) -> Result<usize, StoreError> {
        let now = self.clock.now();
        let leased = self.store.claim_expired(now, now.plus(self.config.lease.get()), BATCH).await?;
        let settlements = leased.iter().map(|leased| settle::interrupted(leased, now)).collect::<Vec<_>>();
        let settled = self.store.settle(settlements.clone()).await?;
        for ((leased, settlement), settled) in leased.iter().zip(&settlements).zip(settled) {
            self.observer.interrupted(leased, settlement, settled);
        }
        Ok(leased.len())
    }

    /// Removes finished jobs as `retention` says, until `stop`.
    pub async fn run_retention(self: Arc<Self>, retention: Retention, stop: CancellationToken) {
        while !stop.is_cancelled() {
            match self.store.prune(cutoffs(&retention, self.clock.now()), BATCH).await {
                Ok(removed) if removed >= BATCH => {
                    tokio::task::yield_now().await;
                    continue;
                }
                Ok(_) => {}
                Err(error) => tracing::error!(%error, "cannot remove old jobs"),
            }
            self.pause(retention.sweep_interval.get(), &stop).await;
        }
    }

    async fn pause(&self, period: Duration, stop: &CancellationToken) {
        tokio::select! {
            () = self.clock.sleep_until(self.clock.now().plus(period)) => {}
            () = stop.cancelled() => {}
        }
    }
}

fn cutoffs(retention: &Retention, now: UnixMs) -> Vec<Prune> {
    [
        (State::Succeeded, retention.succeeded),
        (State::Dead, retention.dead),
        (State::Expired, retention.expired),
        (State::Cancelled, retention.cancelled),
    ]
    .map(|(state, kept)| Prune { state, before: now.minus(kept.get()) })
    .to_vec()
}
