//! Is told what happened, and decides nothing: log lines, metrics, and the events that clients and observers follow.
//!
//! Whoever tells does so after the store has committed, and waits for nobody who listens.

mod asked;
mod event;
mod metrics;
mod ring;

use crate::clock::UnixMs;
use crate::job::{Leased, Next, Settlement, State};
use crate::store::{Placed, Settled};

pub use self::asked::Asked;
pub use self::event::{Details, Event, Fact, Kind, Subject};
pub use self::metrics::{Metrics, ObserverOutcome, RequestLabels};
pub use self::ring::{Bounds, Cursor, Found, Ring};

/// Where facts go.
pub struct Observer {
    /// The numbers.
    pub metrics: Metrics,
    /// The newest events.
    pub events: Ring,
}

impl Observer {
    /// For a server that starts `now` and keeps this many events.
    #[must_use]
    pub fn new(events: Bounds, now: UnixMs) -> Self {
        Self { metrics: Metrics::default(), events: Ring::new(events, now) }
    }

    /// Something happened that is no part of an attempt.
    pub fn tell(&self, fact: Fact) {
        self.events.record([fact]);
    }

    /// Jobs were to be stored: what became of each.
    pub fn placed(&self, asked: Vec<Asked>, placed: &[Placed]) {
        let stored = placed.iter().filter(|placed| matches!(placed, Placed::Stored { .. })).count();
        self.metrics.accepted(u64::try_from(stored).unwrap_or(u64::MAX));
        self.events.record(asked.into_iter().zip(placed).flat_map(|(asked, placed)| asked.facts(placed)));
    }

    /// A lease ended without a settlement, and its job was taken back: [`Observer::settled`] tells what became of it.
    pub fn interrupted(&self, leased: &Leased, settlement: &Settlement, settled: Settled) {
        if matches!(settled, Settled::Applied(_)) {
            self.events.record([Fact::interrupt(leased, settlement.at)]);
        }
        self.settled(leased, settlement, settled);
    }

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
        let follow = settlement.follow_ups.iter().map(|job| Fact::push(job, settlement.at, job.run_at));
        self.events.record([Fact::settled(leased, settlement, state)].into_iter().chain(follow));
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
