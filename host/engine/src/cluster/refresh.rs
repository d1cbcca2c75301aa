//! Configuration refresh: loads what other nodes have configured.
//!
//! Each change raises a revision number in the store. A node that sees another number than its own loads the changes since its own, or
//! everything if these are not known any more. A late refresh only delays a change: decisions that must be exact read the store.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::services::Services;

/// Period of the poll for a changed revision.
const PERIOD: Duration = Duration::from_millis(500);

/// Loads the changes of other nodes.
pub struct CatalogRefresh {
    services: Services,
    /// Notified when another node has changed the configuration.
    configured: Arc<Notify>,
}

impl CatalogRefresh {
    /// Creates a refresh that `configured` wakes.
    #[must_use]
    pub fn new(services: Services, configured: Arc<Notify>) -> Self {
        Self { services, configured }
    }

    /// Loads the changes of other nodes, on each notification of `configured` and in each poll period, until `stop`.
    ///
    /// Wakes the dispatcher after a change: a group may have jobs that this node has not considered.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let Services { catalog, clock, notifier, .. } = &self.services;
        while !stop.is_cancelled() {
            match catalog.refresh().await {
                Ok(true) => notifier.notify_local(),
                Ok(false) => {}
                Err(error) => tracing::error!(%error, "catalog refresh failed"),
            }
            tokio::select! {
                () = self.configured.notified() => {}
                () = clock.sleep_until(clock.now().plus(PERIOD)) => {}
                () = stop.cancelled() => {}
            }
        }
    }
}
