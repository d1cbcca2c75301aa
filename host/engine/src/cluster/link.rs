//! Peer synchronization: the loops that keep a node in touch with the others.
//!
//! Each runs until the server stops, whatever fails: polling finds what a lost notification announced.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::{ClockSample, DatabaseClock};
use crate::services::Services;
use carillon_core::clock::Clock as _;
use carillon_store::{Peers, Signal, StoreError};

/// Pause after a signal, so that all signals within it become one notification.
const TELL_PAUSE: Duration = Duration::from_millis(10);

/// Pause before the node listens again after a failure.
const LISTEN_PAUSE: Duration = Duration::from_millis(500);

/// Connects a node with the others.
pub struct PeerSync {
    services: Services,
    /// Connection to the other nodes.
    peers: Arc<dyn Peers>,
    /// Time on which all nodes agree.
    clock: Arc<DatabaseClock>,
    /// Notified when another node has changed the configuration.
    configured: Arc<Notify>,
}

impl PeerSync {
    /// Creates the connection of this node's services with the other nodes; it notifies `configured` when one of them has changed the
    /// configuration.
    #[must_use]
    pub fn new(services: Services, peers: Arc<dyn Peers>, clock: Arc<DatabaseClock>, configured: Arc<Notify>) -> Self {
        Self { services, peers, clock, configured }
    }

    /// Publishes this node's heartbeat and listens to the others, until `stop`; then removes it from the list.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        tokio::select! {
            () = self.run_beats() => {}
            () = self.run_telling() => {}
            () = self.run_listening() => {}
            () = stop.cancelled() => {}
        }
        if let Err(error) = self.peers.leave(self.services.cluster.id).await {
            tracing::warn!(%error, "leaving the cluster failed; other nodes count this one until it expires");
        }
    }

    async fn run_beats(&self) {
        loop {
            let next = self.clock.now().plus(self.services.cluster.times.heartbeat_interval);
            match self.beat().await {
                // The limits of groups may have grown.
                Ok(true) => self.services.notifier.notify_local(),
                Ok(false) => {}
                Err(error) => tracing::error!(%error, "heartbeat failed"),
            }
            self.clock.sleep_until(next).await;
        }
    }

    async fn beat(&self) -> Result<bool, StoreError> {
        let (asked, before) = (self.clock.now(), self.clock.local());
        let roll = self.peers.beat(self.services.cluster.beat()).await?;
        self.clock.correct(ClockSample { before, there: roll.now, after: self.clock.local() });
        Ok(self.services.cluster.update_view(roll, asked))
    }

    async fn run_telling(&self) {
        loop {
            self.services.notifier.notified_remote().await;
            if let Err(error) = self.peers.tell(self.services.cluster.id).await {
                tracing::debug!(%error, "notifying other nodes of jobs failed; they find the jobs by polling");
            }
            // No decision depends on this pause, so it is not the clock's.
            tokio::time::sleep(TELL_PAUSE).await;
        }
    }

    async fn run_listening(&self) {
        loop {
            if let Err(error) = self.listen().await {
                tracing::debug!(%error, "listening to other nodes failed; reconnecting");
            }
            tokio::time::sleep(LISTEN_PAUSE).await;
        }
    }

    async fn listen(&self) -> Result<(), StoreError> {
        let mut signals = self.peers.listen(self.services.cluster.id).await?;
        // Notifications before this moment may have been missed.
        self.services.notifier.notify_local();
        self.configured.notify_one();
        loop {
            match signals.next().await? {
                Signal::Jobs => self.services.notifier.notify_local(),
                Signal::Catalog => self.configured.notify_one(),
            }
        }
    }
}
