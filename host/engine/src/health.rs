//! Readiness of the server for a load balancer: whether jobs are accepted and delivered.
//!
//! Readiness follows the work: the last write, the last claim and the last settlement, and the loops that do them. Only where nothing was
//! written recently does the check try a write itself. The result is available within the second of a load balancer's probe, whatever the
//! database does.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::loops::Loops;
use crate::services::Services;
use carillon_core::clock::Stopwatch;
use carillon_core::job::JobId;
use carillon_store::{StoreError, Work};

/// Age up to which a stored job proves that jobs are accepted.
const FRESH: Duration = Duration::from_secs(10);

/// Time for which the result of a write that was tried holds.
const LOOK_PERIOD: Duration = Duration::from_secs(1);

/// Longest wait for the result of a write that is tried.
const PROBE_TIMEOUT: Duration = Duration::from_millis(500);

/// Computes whether the server is ready.
pub struct Health {
    services: Services,
    loops: Arc<Loops>,
    /// Cancelled when the server is to stop soon.
    leaving: CancellationToken,
    /// Result of the last write that was tried, and the time since then. Locked while one is tried for a caller.
    last_look: tokio::sync::Mutex<Option<(Stopwatch, Option<String>)>>,
    /// Held while a write is tried.
    probing: Arc<tokio::sync::Mutex<()>>,
    /// Trouble that was logged last.
    said: Mutex<Option<String>>,
}

impl Health {
    /// Creates the readiness check of a server with these services and loops.
    #[must_use]
    pub fn new(services: Services, loops: Arc<Loops>, leaving: CancellationToken) -> Self {
        Self {
            services,
            loops,
            leaving,
            last_look: tokio::sync::Mutex::default(),
            probing: Arc::default(),
            said: Mutex::default(),
        }
    }

    /// Returns why the server is not ready; `None` if jobs are accepted and delivered.
    pub async fn trouble(&self) -> Option<String> {
        let trouble = match self.known_trouble() {
            None if !self.services.store.health().succeeded_within(Work::Accept, FRESH) => self.look().await,
            // Clients may send nothing to a server that is not ready, so only this check can discover that it is ready again.
            Some(_) if self.services.store.health().trouble().is_some_and(|(work, _)| work == Work::Accept) => {
                self.look().await
            }
            known => known,
        };
        self.say(trouble.as_ref());
        trouble
    }

    /// Returns how often a background loop was restarted.
    #[must_use]
    pub fn loop_restarts(&self) -> u64 {
        self.loops.restarts()
    }

    /// Returns what is known without trying a write.
    #[must_use]
    pub fn known_trouble(&self) -> Option<String> {
        if self.leaving.is_cancelled() {
            return Some("the server is stopping".to_owned());
        }
        if let Some(name) = self.loops.down().first() {
            return Some(format!(
                "the background loop `{name}` panicked and is being restarted; the log has the cause"
            ));
        }
        self.services.store.health().trouble().map(|(work, error)| reason(work, &error))
    }

    /// Returns what the last look at the store found; looks again if that was more than [`LOOK_PERIOD`] ago. So the load of the store does not
    /// depend on the number of callers.
    async fn look(&self) -> Option<String> {
        let mut last = self.last_look.lock().await;
        if let Some((since, found)) = &*last
            && since.elapsed() < LOOK_PERIOD
        {
            return self.known_trouble().or_else(|| found.clone());
        }
        let found = self.probe().await;
        *last = Some((Stopwatch::start(), found.clone()));
        found
    }

    /// Tries a write, unless one is being tried, and waits for its result for at most [`PROBE_TIMEOUT`].
    async fn probe(&self) -> Option<String> {
        let probed = async {
            let probing = Arc::clone(&self.probing).lock_owned().await;
            if self.services.store.health().succeeded_within(Work::Accept, FRESH) {
                return;
            }
            let (store, id, now) =
                (Arc::clone(&self.services.store), JobId::new(&*self.services.clock), self.services.clock.now());
            // The write continues when the caller stops waiting; the store records its result.
            let probe = tokio::spawn(async move {
                drop(store.probe(id, now).await);
                drop(probing);
            });
            drop(probe.await);
        };
        if tokio::time::timeout(PROBE_TIMEOUT, probed).await.is_err() {
            let silent = StoreError::Unavailable("the database does not respond".to_owned());
            return Some(reason(Work::Accept, &silent));
        }
        self.known_trouble()
    }

    /// Logs once that the server is not ready, or that it is ready again.
    fn say(&self, trouble: Option<&String>) {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        match (&*said, trouble) {
            (before, Some(reason)) if before.as_ref() != Some(reason) => tracing::error!(reason, "server is not ready"),
            (Some(_), None) => tracing::info!("server is ready again"),
            _ => {}
        }
        *said = trouble.cloned();
    }
}

fn reason(work: Work, error: &StoreError) -> String {
    format!("{}: {error}", work.failure())
}
