//! Cuts off what a newer run of a schedule takes the place of.
//!
//! The newer run waits in the store until the older one has ended, on whichever node that is; so nothing depends on how soon this is seen.
//! Where the node holds the lease the attempt is cut off, and settles itself. A consumer cannot be interrupted: its lease is taken
//! away, and what it says of the job afterwards is refused.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::delivery::settle;
use crate::dispatch::dispatcher::Dispatcher;
use carillon_core::clock::UnixMs;
use carillon_core::job::{Lease, LeasedJob};
use carillon_store::{Abort, StoreError};

/// How often they are looked for. Those of ticks that this node has stored are seen at once.
const PERIOD: Duration = Duration::from_secs(1);

/// How many are seen at once.
const BATCH: u32 = 500;

impl Dispatcher {
    /// Cuts off attempts, until `stop`.
    pub async fn run_aborts(self: Arc<Self>, stop: CancellationToken) {
        loop {
            let woken = self.notifier.aborts();
            tokio::pin!(woken);
            woken.as_mut().enable();
            let next = self.clock.now().plus(PERIOD);
            if let Err(error) = self.cut_off().await {
                tracing::error!(%error, "cannot look for attempts that are to be cut off");
            }
            tokio::select! {
                () = woken => {}
                () = self.clock.sleep_until(next) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    async fn cut_off(&self) -> Result<(), StoreError> {
        let (pulled, delivered): (Vec<Abort>, _) =
            self.store.aborts(BATCH).await?.into_iter().partition(|abort| abort.pull);
        let leases = |aborts: Vec<Abort>| aborts.into_iter().map(|abort| abort.lease).collect::<Vec<Lease>>();
        self.leases.abort(&leases(delivered));
        if pulled.is_empty() {
            return Ok(());
        }
        let now = self.clock.now();
        // Whenever they would have ended.
        let taken = self.store.claim_lost(leases(pulled), UnixMs::MAX, now.plus(self.config.lease.get())).await?;
        self.settle_all(&taken, |leased: &LeasedJob| settle::revoked(leased, now)).await;
        self.notifier.here();
        Ok(())
    }
}
