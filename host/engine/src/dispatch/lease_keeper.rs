//! Lease keeper: extends the leases of running attempts before they expire.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::delivery::settler::Settler;
use crate::dispatch::leases::{EXTENSIONS, Hold, Leases};
use crate::services::Services;
use carillon_core::clock::{self, UnixMs};
use carillon_core::job::{LeasedJob, Settlement};
use carillon_store::{Extension, StoreError};

/// The pause after the store has failed.
const STORE_PAUSE: Duration = Duration::from_millis(500);

/// Keeps the leases that this node holds.
pub struct LeaseKeeper {
    services: Services,
    leases: Arc<Leases>,
    settler: Arc<Settler>,
    /// Duration of a lease.
    duration: Duration,
}

impl LeaseKeeper {
    pub(super) fn new(services: Services, leases: Arc<Leases>, settler: Arc<Settler>, duration: Duration) -> Self {
        Self { services, leases, settler, duration }
    }

    /// Extends the leases of running attempts, until `stop`.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let period = self.extension_period();
        let mut next = self.services.clock.now().plus(period);
        loop {
            tokio::select! {
                () = self.services.clock.sleep_until(next) => {}
                () = self.leases.extension_requested() => {}
                () = stop.cancelled() => return,
            }
            next = match self.extend_leases().await {
                Ok(asked) => asked.plus(period),
                Err(error) => {
                    tracing::error!(%error, "extending leases failed");
                    clock::pause_until_stopped(period.min(STORE_PAUSE), &stop).await;
                    self.services.clock.now()
                }
            };
        }
    }

    /// Extends the held leases, and again if that took so long that they may soon expire; returns the time from which they were extended.
    pub(crate) async fn extend_leases(&self) -> Result<UnixMs, StoreError> {
        loop {
            let (asked, leases) = (self.services.clock.now(), self.leases.kept());
            if leases.is_empty() {
                return Ok(asked);
            }
            let until = self.expiry(asked);
            let ours = self.services.store.extend(leases.clone(), Extension::AtLeast(until)).await?;
            self.leases
                .extended(leases.into_iter().zip(&ours).filter(|(_, ours)| **ours).map(|(lease, _)| lease), until);
            let lost = ours.iter().filter(|ours| !**ours).count();
            if lost > 0 {
                tracing::debug!(lost, "leases expired before they were extended");
            }
            if self.services.clock.now().since(asked) < self.extension_period() {
                return Ok(asked);
            }
        }
    }

    /// Settles jobs and holds their leases meanwhile: however long the store takes, they are not rescued twice.
    pub(crate) async fn settle_all(&self, leased: &[LeasedJob], settle: impl Fn(&LeasedJob) -> Settlement) {
        let _holds: Vec<Hold> = leased.iter().map(|leased| self.leases.keep(leased.lease(), leased.until)).collect();
        self.settler.settle_all(leased, settle).await;
    }

    /// Returns the leases that this node holds.
    pub(crate) fn leases(&self) -> &Leases {
        &self.leases
    }

    /// Returns the expiry of a lease that is taken or extended at this time.
    pub(crate) fn expiry(&self, at: UnixMs) -> UnixMs {
        at.plus(self.duration)
    }

    pub(super) fn extension_period(&self) -> Duration {
        self.duration / EXTENSIONS
    }
}
