//! What other nodes have configured. Each change raises a number in the store; a node that sees another number than its own loads what
//! is there and takes over the difference. Nothing but delay depends on it: what must be exact is asked of the store.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::Catalog;

/// How often the number is looked at: so what changes on one node is in force on all within a second.
const PERIOD: Duration = Duration::from_millis(500);

impl Catalog {
    /// Takes over what other nodes change, until `stop`. Wakes `wake` when something has changed: a group may have jobs that nobody
    /// here looked at.
    pub async fn run_refresh(self: Arc<Self>, wake: Arc<Notify>, stop: CancellationToken) {
        while !stop.is_cancelled() {
            match self.refresh().await {
                Ok(true) => {
                    self.changed.notify_waiters();
                    wake.notify_one();
                }
                Ok(false) => {}
                Err(error) => tracing::error!(error = format!("{error:#}"), "cannot see what is configured elsewhere"),
            }
            tokio::select! {
                () = self.clock.sleep_until(self.now().plus(PERIOD)) => {}
                () = stop.cancelled() => {}
            }
        }
    }

    /// True if something was taken over.
    async fn refresh(&self) -> anyhow::Result<bool> {
        if self.store.generation().await? == self.generation.load(Ordering::Relaxed) {
            return Ok(false);
        }
        // A change of this node is either in what is loaded, or is applied after it.
        let _writing = self.writing.lock().await;
        let (generation, entities) = self.store.load().await?;
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        state.apply_all(entities, &self.vault)?;
        drop(state);
        self.generation.store(generation, Ordering::Relaxed);
        Ok(true)
    }
}
