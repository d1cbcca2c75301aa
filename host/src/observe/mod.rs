//! Is told what happened, and decides nothing: log lines and metrics.

mod metrics;

use crate::job::{Leased, Next, Settlement, State};
use crate::store::Settled;

pub use self::metrics::{Metrics, RequestLabels};

/// Where facts go.
#[derive(Default)]
pub struct Observer {
    /// The numbers.
    pub metrics: Metrics,
}

impl Observer {
    /// An attempt is over and its settlement was, or was not, applied.
    pub fn settled(&self, leased: &Leased, settlement: &Settlement, settled: Settled) {
        self.metrics.settled(settlement, settled);
        let (id, number) = (leased.job.id, leased.number());
        let state = match settled {
            Settled::Applied(state) => state,
            Settled::LeaseLost => {
                tracing::warn!(job = %id, attempt = number, "the lease had ended; its new holder decides");
                return;
            }
        };
        let attempt = settlement.attempt.as_ref();
        let error = attempt.and_then(|attempt| attempt.detail.error.as_ref()).map(|error| error.code.as_str());
        let status = attempt.and_then(|attempt| attempt.status);
        let run_at = match settlement.next() {
            Next::Scheduled(at) => Some(at.to_string()),
            Next::Final(_) => None,
        };
        match state {
            State::Dead | State::Expired => {
                tracing::info!(job = %id, attempt = number, %state, status, error, "job ended")
            }
            _ => tracing::debug!(job = %id, attempt = number, %state, status, error, run_at, "attempt settled"),
        }
    }
}
