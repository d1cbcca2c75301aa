//! What other nodes have configured. Each change raises a number in the store; a node that sees another number than its own loads what
//! has changed since, or everything if that is not known any more. Nothing but delay depends on it: what must be exact is asked of the store.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::{Catalog, Rejected};
use crate::store::{Changes, StoreError};
use crate::wake::Wake;

/// How often the number is looked at even if nobody says that it has changed.
const PERIOD: Duration = Duration::from_millis(500);

impl Catalog {
    /// Takes over what other nodes change, whenever `configured` says so and from time to time, until `stop`. Wakes `wake` when
    /// something has changed: a group may have jobs that nobody here looked at.
    pub async fn run_refresh(self: Arc<Self>, configured: Arc<Notify>, wake: Arc<Wake>, stop: CancellationToken) {
        while !stop.is_cancelled() {
            match self.refresh().await {
                Ok(true) => {
                    self.changed.notify_waiters();
                    wake.here();
                }
                Ok(false) => {}
                Err(error) => tracing::error!(error = format!("{error:#}"), "cannot see what is configured elsewhere"),
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
        let seen = self.refresh().await;
        seen.map(drop).map_err(|error| Rejected::Store(StoreError::Unavailable(format!("{error:#}"))))
    }

    /// True if something was taken over.
    async fn refresh(&self) -> anyhow::Result<bool> {
        if self.store.generation().await? == self.generation.load(Ordering::Relaxed) {
            return Ok(false);
        }
        // A change of this node is either in what is loaded, or is applied after it.
        let _writing = self.writing.lock().await;
        let changes = self.store.changes(self.generation.load(Ordering::Relaxed)).await?;
        let (generation, unused) = match changes {
            Some(Changes { generation, changed, gone }) => {
                let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
                (generation, state.apply_changes(changed, gone, &self.vault)?)
            }
            None => {
                let (generation, entities) = self.store.load().await?;
                let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
                (generation, state.apply_all(entities, &self.vault)?)
            }
        };
        self.generation.store(generation, Ordering::Relaxed);
        for component in &unused {
            self.runtime.registry.forget(component).await;
        }
        Ok(true)
    }
}
