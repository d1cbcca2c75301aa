//! What ends an attempt early.

use tokio_util::sync::CancellationToken;

use crate::delivery::settle::CutOff;

/// The signals that end one attempt early.
pub struct Interruption {
    stop: CancellationToken,
    abort: CancellationToken,
}

impl Interruption {
    /// By the end of the server, and by the cancellation of its job.
    #[must_use]
    pub fn new(stop: CancellationToken, abort: CancellationToken) -> Self {
        Self { stop, abort }
    }

    /// Returns when one of the signals is there. Cancel safe.
    pub async fn cause(&self) -> CutOff {
        tokio::select! {
            biased;
            () = self.abort.cancelled() => CutOff::Cancelled,
            () = self.stop.cancelled() => CutOff::Stopped,
        }
    }
}
