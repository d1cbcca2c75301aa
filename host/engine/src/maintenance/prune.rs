//! Pruner: removes jobs after their retention, and what deleted groups and finished bulk changes left.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::services::Services;
use carillon_catalog::BULK_RETENTION;
use carillon_config::Retention;
use carillon_core::clock::UnixMs;
use carillon_core::job::State;
use carillon_store::Prune;

/// How long the ticks of schedules are kept. A backfill further back does not know which ticks have run.
pub const TICKS_KEPT: Duration = Duration::from_secs(90 * 86_400);

/// Largest number of jobs that one transaction removes.
const BATCH: u32 = 500;

/// Removes what is kept no longer.
pub struct Pruner {
    services: Services,
    retention: Retention,
}

impl Pruner {
    /// Creates a pruner with these settings.
    #[must_use]
    pub fn new(services: Services, retention: Retention) -> Self {
        Self { services, retention }
    }

    /// Removes finished jobs by the `retention` settings, until `stop`.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        while !stop.is_cancelled() {
            // The period counts from the start of a pass, not from its end.
            let now = self.services.clock.now();
            match self.services.store.prune(cutoffs(&self.retention, now)).await {
                Ok(removed) if removed >= BATCH => {
                    tokio::task::yield_now().await;
                    continue;
                }
                Ok(_) => {}
                Err(error) => tracing::error!(%error, "removing old jobs failed"),
            }
            if let Err(error) = self.services.catalog.tidy(now.minus(BULK_RETENTION)).await {
                tracing::error!(%error, "removing data of deleted groups and finished bulk changes failed");
            }
            self.services.limiter.forget_idle(now);
            let next = now.plus(self.retention.sweep_interval.get());
            tokio::select! {
                () = self.services.clock.sleep_until(next) => {}
                () = stop.cancelled() => {}
            }
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
        audit: now.minus(retention.audit.get()),
        now,
        limit: BATCH,
    }
}
