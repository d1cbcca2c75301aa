//! Aborts attempts that a newer run of a schedule replaces.
//!
//! The newer run waits in the store until the older one has ended, on whichever node it runs; so correctness does not depend on how soon an
//! abort is noticed. The node that holds the lease aborts the attempt, and the attempt settles itself. A consumer cannot be interrupted: its
//! lease is revoked, and its later report on the job is refused.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::delivery::settle;
use crate::dispatch::lease_keeper::LeaseKeeper;
use crate::services::Services;
use carillon_core::clock::UnixMs;
use carillon_core::job::{DispatchMode, Lease, LeasedJob};
use carillon_store::{Abort, ClaimLost, StoreError};

/// Period of the query for attempts to abort. Aborts caused by ticks that this node has stored are handled at once.
const PERIOD: Duration = Duration::from_secs(1);

/// Largest number of aborts that one query returns.
const BATCH: u32 = 500;

/// Aborts attempts that newer runs of their schedules replace.
pub struct Aborter {
    services: Services,
    lease_keeper: Arc<LeaseKeeper>,
}

impl Aborter {
    /// Creates an aborter of the attempts whose leases the keeper holds.
    #[must_use]
    pub fn new(services: Services, lease_keeper: Arc<LeaseKeeper>) -> Self {
        Self { services, lease_keeper }
    }

    /// Aborts replaced attempts, until `stop`.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        loop {
            let woken = self.services.notifier.notified_aborts();
            tokio::pin!(woken);
            woken.as_mut().enable();
            let next = self.services.clock.now().plus(PERIOD);
            if let Err(error) = self.cut_off().await {
                tracing::error!(%error, "aborting attempts failed");
            }
            tokio::select! {
                () = woken => {}
                () = self.services.clock.sleep_until(next) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    async fn cut_off(&self) -> Result<(), StoreError> {
        let (pulled, delivered): (Vec<Abort>, _) =
            self.services.store.aborts(BATCH).await?.into_iter().partition(|abort| abort.mode == DispatchMode::Pull);
        let leases = |aborts: Vec<Abort>| aborts.into_iter().map(|abort| abort.lease).collect::<Vec<Lease>>();
        self.lease_keeper.leases().abort(&leases(delivered));
        if pulled.is_empty() {
            return Ok(());
        }
        let now = self.services.clock.now();
        let lease_until = self.lease_keeper.expiry(now);
        // Revokes the leases whatever their expiry.
        let claim = ClaimLost { lost: leases(pulled), ended_by: UnixMs::MAX, now, lease_until };
        let taken = self.services.store.claim_lost(claim).await?;
        self.lease_keeper.settle_all(&taken, |leased: &LeasedJob| settle::revoked(leased, now)).await;
        self.services.notifier.notify_local();
        Ok(())
    }
}
