//! Takes over what other nodes have configured. Each change raises a number in the store; a node that sees another number than its own loads
//! what has changed since, or everything if that is not known any more. Nothing but delay depends on it: what must be exact is asked of the
//! store.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::notifier::Notifier;
use carillon_catalog::Catalog;

/// How often the number is looked at even if nobody says that it has changed.
const PERIOD: Duration = Duration::from_millis(500);

/// Takes over what other nodes change, whenever `configured` says so and from time to time, until `stop`. Wakes `wake` when something has
/// changed: a group may have jobs that this node has not looked at.
pub async fn run_refresh(
    catalog: Arc<Catalog>,
    configured: Arc<Notify>,
    notifier: Arc<Notifier>,
    stop: CancellationToken,
) {
    while !stop.is_cancelled() {
        match catalog.refresh().await {
            Ok(true) => notifier.here(),
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
