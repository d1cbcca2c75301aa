//! Configuration refresh: loads what other nodes have configured.
//!
//! Each change raises a revision number in the store. A node that sees another number than its own loads the changes since its own, or
//! everything if these are not known any more. A late refresh only delays a change: decisions that must be exact read the store.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::notifier::Notifier;
use carillon_catalog::Catalog;

/// Period of the poll for a changed revision.
const PERIOD: Duration = Duration::from_millis(500);

/// Loads the changes of other nodes, on each notification of `configured` and in each poll period, until `stop`.
///
/// Notifies `notifier` after a change: a group may have jobs that this node has not considered.
pub async fn run_refresh(
    catalog: Arc<Catalog>,
    configured: Arc<Notify>,
    notifier: Arc<Notifier>,
    stop: CancellationToken,
) {
    while !stop.is_cancelled() {
        match catalog.refresh().await {
            Ok(true) => notifier.notify_local(),
            Ok(false) => {}
            Err(error) => tracing::error!(%error, "catalog refresh failed"),
        }
        tokio::select! {
            () = configured.notified() => {}
            () = catalog.clock().sleep_until(catalog.clock().now().plus(PERIOD)) => {}
            () = stop.cancelled() => {}
        }
    }
}
