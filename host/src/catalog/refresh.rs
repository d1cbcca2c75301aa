//! What other nodes have configured. Each change raises a number in the store; a node that sees another number than its own loads what
//! has changed since, or everything if that is not known any more. Nothing but delay depends on it: what must be exact is asked of the store.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::{Catalog, Rejected};
use crate::wake::Wake;

/// How often the number is looked at even if nobody says that it has changed.
const PERIOD: Duration = Duration::from_millis(500);

impl Catalog {
    /// Takes over what other nodes change, whenever `configured` says so and from time to time, until `stop`. Wakes `wake` when
    /// something has changed: a group may have jobs that nobody here looked at.
    pub async fn run_refresh(self: Arc<Self>, configured: Arc<Notify>, wake: Arc<Wake>, stop: CancellationToken) {
        while !stop.is_cancelled() {
            match self.memory.refresh().await {
                Ok(true) => wake.here(),
                Ok(false) => {}
                Err(error) => tracing::error!(%error, "catalog refresh failed"),
            }
            tokio::select! {
                () = configured.notified() => {}
                () = self.clock.sleep_until(self.now().plus(PERIOD)) => {}
                () = stop.cancelled() => {}
            }
        }
    }

    /// Takes over what other nodes have changed until now: for a decision that must not miss it.
    pub(super) async fn catch_up(&self) -> Result<(), Rejected> {
        self.memory.refresh().await?;
        Ok(())
    }
}
