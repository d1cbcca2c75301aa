//! Settler: writes settlements, with their follow-up jobs.
//!
//! It tries again while the store is unavailable, and where the store refuses a settlement it writes the essential part of it. A settlement
//! under a lease that another node has taken meanwhile changes one thing only: the lease was lost to a pause and not to a crash of the node,
//! so it does not count towards the bound of lost leases.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::delivery::follow_ups;
use crate::services::Services;
use carillon_core::clock;
use carillon_core::job::{LeasedJob, Settlement};
use carillon_store::{SettleOutcome, StoreError};

/// The pause after the store has failed.
const STORE_PAUSE: Duration = Duration::from_millis(500);

/// Writes settlements.
pub struct Settler {
    services: Services,
    /// Ends the retries while the store is unavailable.
    interrupt: CancellationToken,
    /// Whether the store was unavailable at the last call, so that an outage is logged once and not once for each job.
    is_away: AtomicBool,
}

/// Reason for which settlements were not written.
enum Unwritten {
    /// The server stops.
    Interrupted,
    /// The store refuses them permanently.
    Refused(StoreError),
}

impl Settler {
    /// Creates a settler that retries until `interrupt`.
    #[must_use]
    pub fn new(services: Services, interrupt: CancellationToken) -> Self {
        Self { services, interrupt, is_away: AtomicBool::new(false) }
    }

    /// Writes a settlement; returns its result, or `None` if it was not written. The caller holds the lease meanwhile.
    pub async fn settle(&self, leased: &LeasedJob, settlement: Settlement) -> Option<SettleOutcome> {
        let settlement = follow_ups::with_follow_ups(&self.services.catalog, &*self.services.clock, leased, settlement);
        match self.write(vec![settlement.clone()]).await {
            Ok(settled) => self.record(leased, &settlement, settled.first().copied()).await,
            Err(Unwritten::Interrupted) => None,
            Err(Unwritten::Refused(error)) => self.settle_reduced(leased, &settlement, &error).await,
        }
    }

    /// Writes many settlements in one transaction.
    pub async fn settle_all(&self, leased: &[LeasedJob], settle: impl Fn(&LeasedJob) -> Settlement) {
        if leased.is_empty() {
            return;
        }
        let settlement = |leased: &LeasedJob| {
            follow_ups::with_follow_ups(&self.services.catalog, &*self.services.clock, leased, settle(leased))
        };
        let settlements: Vec<Settlement> = leased.iter().map(settlement).collect();
        match self.write(settlements.clone()).await {
            Ok(settled) => {
                for ((leased, settlement), settled) in leased.iter().zip(&settlements).zip(settled) {
                    self.record(leased, settlement, Some(settled)).await;
                }
            }
            Err(Unwritten::Interrupted) => {}
            // The store refuses one of them; the others are written without it.
            Err(Unwritten::Refused(_)) => {
                for leased in leased {
                    self.settle(leased, settle(leased)).await;
                }
            }
        }
    }

    /// Writes the essential part of a settlement that the store refuses: the job's new state.
    async fn settle_reduced(
        &self,
        leased: &LeasedJob,
        settlement: &Settlement,
        error: &StoreError,
    ) -> Option<SettleOutcome> {
        let (job, lost) = (leased.job.id, settlement.follow_ups.len());
        tracing::error!(%job, %error, follow_ups = lost, "store refused a settlement; writing it without details");
        let reduced = settlement.reduced(&error.to_string());
        match self.write(vec![reduced.clone()]).await {
            Ok(settled) => self.record(leased, &reduced, settled.first().copied()).await,
            Err(Unwritten::Interrupted) => None,
            Err(Unwritten::Refused(error)) => {
                tracing::error!(%job, %error, "store refused a settlement without details; the job stays leased until its lease expires");
                None
            }
        }
    }

    async fn record(
        &self,
        leased: &LeasedJob,
        settlement: &Settlement,
        settled: Option<SettleOutcome>,
    ) -> Option<SettleOutcome> {
        let settled = settled.unwrap_or(SettleOutcome::LeaseLost);
        self.services.telemetry.record_settlement(leased, settlement, settled);
        self.services.stored_bytes.add_settled(leased.job.tenant, settlement);
        if settled == SettleOutcome::LeaseLost
            && let Err(error) = self.services.store.excuse(vec![leased.lease()]).await
        {
            tracing::debug!(job = %leased.job.id, %error, "excusing a lost lease failed");
        }
        Some(settled)
    }

    /// Retries until the store responds.
    async fn write(&self, settlements: Vec<Settlement>) -> Result<Vec<SettleOutcome>, Unwritten> {
        loop {
            let error = match self.services.store.settle(settlements.clone()).await {
                Ok(settled) => {
                    if self.is_away.swap(false, Ordering::Relaxed) {
                        tracing::info!("writing settlements works again");
                    }
                    return Ok(settled);
                }
                Err(StoreError::Unavailable(error) | StoreError::Full(error)) => error,
                Err(refusal) => return Err(Unwritten::Refused(refusal)),
            };
            if !self.is_away.swap(true, Ordering::Relaxed) {
                tracing::error!(error, "writing settlements failed; retrying until the store responds");
            }
            if self.interrupt.is_cancelled() {
                return Err(Unwritten::Interrupted);
            }
            clock::pause(STORE_PAUSE).await;
        }
    }
}
