//! Reads the certificate of the server's ports again: from time to time, and at SIGHUP.

use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use carillon_api::tls::{Reload, ReloadTrigger, ServerTls};
use carillon_core::clock::Clock;
use carillon_engine::services::Services;
use carillon_telemetry::Telemetry;

/// Time between two looks at the files.
const INTERVAL: Duration = Duration::from_secs(30);

/// Replaces the certificate when its files have changed.
pub(super) struct CertificateReloader {
    tls: Arc<ServerTls>,
    clock: Arc<dyn Clock>,
    telemetry: Arc<Telemetry>,
    /// Handler of SIGHUP, which ends a process without one.
    hangup: Mutex<Option<Signal>>,
}

impl CertificateReloader {
    pub(super) fn new(tls: Arc<ServerTls>, services: &Services) -> Self {
        let hangup = signal(SignalKind::hangup()).inspect_err(
            |error| tracing::warn!(%error, "SIGHUP cannot be handled; the certificate is read periodically"),
        );
        let (clock, telemetry) = (Arc::clone(&services.clock), Arc::clone(&services.telemetry));
        Self { tls, clock, telemetry, hangup: Mutex::new(hangup.ok()) }
    }

    /// Runs until `stop`.
    pub(super) async fn run(self: Arc<Self>, stop: CancellationToken) {
        let mut hangup = self.hangup.lock().await;
        loop {
            let trigger = tokio::select! {
                () = stop.cancelled() => return,
                () = self.clock.sleep_until(self.clock.now().plus(INTERVAL)) => ReloadTrigger::Period,
                () = received(hangup.as_mut()) => ReloadTrigger::Signal,
            };
            self.reload(trigger).await;
        }
    }

    async fn reload(&self, trigger: ReloadTrigger) {
        let tls = Arc::clone(&self.tls);
        let Ok(reload) = tokio::task::spawn_blocking(move || tls.reload(trigger)).await else { return };
        match reload {
            Reload::Unchanged => return,
            Reload::Replaced => tracing::info!("certificate reloaded"),
            Reload::Failed(ref error) => {
                tracing::warn!(error, "certificate reload failed; the previous certificate stays in use");
            }
        }
        self.telemetry.metrics.certificate_read(reload == Reload::Replaced);
    }
}

/// Returns when the signal has arrived; never without a handler.
async fn received(hangup: Option<&mut Signal>) {
    if let Some(hangup) = hangup
        && hangup.recv().await.is_some()
    {
        return;
    }
    std::future::pending().await
}
