//! Interruption of an attempt.

use tokio_util::sync::CancellationToken;

use crate::delivery::settle::CutOff;

/// Signals that interrupt one attempt.
pub struct Interruption {
    stop: CancellationToken,
    abort: CancellationToken,
}

impl Interruption {
    /// Creates it from the signals of the server's stop and of the job's cancellation.
    #[must_use]
    pub fn new(stop: CancellationToken, abort: CancellationToken) -> Self {
        Self { stop, abort }
    }

    /// Waits for one of the signals, and returns it. Cancel safe.
    pub async fn cause(&self) -> CutOff {
        tokio::select! {
            biased;
            () = self.abort.cancelled() => CutOff::Cancelled,
            () = self.stop.cancelled() => CutOff::Stopped,
        }
    }
}
