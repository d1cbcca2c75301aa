//! Telemetry: log lines, metrics, and the events that clients and observers follow.
//!
//! Not: decisions. It only receives facts.
//!
//! Invariants: a fact is recorded after the store has committed, and recording waits for no reader.

mod event;
mod metrics;
mod process;
#[cfg(test)]
mod reference;
mod request_labels;
mod ring;

use carillon_core::audit::AuditEntry;
use carillon_core::clock::UnixMs;
use carillon_core::job::{Admission, Job, JobId, LeasedJob, NewJob, Next, Settlement, State};
use carillon_store::{ChangeOutcome, InsertOutcome, JobChange, SettleOutcome};

pub use self::event::{Details, Event, Fact, FactCode, Planned, Subject};
pub use self::metrics::{Metrics, ObserverOutcome, ShadowOutcome};
pub use self::request_labels::RequestLabels;
pub use self::ring::{Cursor, Found, Ring, RingCapacity};

/// Target of the log lines of the audit log.
const AUDIT_TARGET: &str = "carillon::audit";

/// Facts of a job that is about to be stored, published by the result of the insertion.
pub struct PendingFacts {
    push: Fact,
    debounced: bool,
}

impl PendingFacts {
    /// Collects the facts of this job.
    #[must_use]
    pub fn from_job(job: &NewJob) -> Self {
        Self { push: Fact::push(job), debounced: matches!(job.admission, Admission::Debounced(_)) }
    }

    fn facts(self, placed: &InsertOutcome) -> Vec<Fact> {
        let Self { mut push, debounced } = self;
        let (now, about) = (push.at, push.about.clone());
        match placed {
            InsertOutcome::Stored { run_at, forgotten, cancelled } => {
                push.details.run_at = Some(*run_at);
                let other = |id: &JobId| Subject { job: Some(*id), ..Subject::group(about.tenant, about.group) };
                let cancelled: Vec<Fact> = cancelled.iter().map(|id| Fact::cancel(other(id), now)).collect();
                let unreadable = || "what was known of its key could not be read".to_owned();
                let error = forgotten.then(|| Fact::debounce_error(about.clone(), now, unreadable()));
                let miss = debounced.then(|| Fact::debounce_miss(about, Planned { at: now, run_at: *run_at }));
                cancelled.into_iter().chain(error).chain(miss).chain([push]).collect()
            }
            InsertOutcome::Duplicate(other) => vec![Fact::dedupe_hit(&**other, now)],
            InsertOutcome::Debounced(other) => vec![Fact::debounce_hit(&**other, now)],
            InsertOutcome::Carried { job, before } => {
                vec![Fact::debounce_hit(&**job, now), Fact::request_replaced(&**job, now, before)]
            }
            // The caller that requested the tick publishes it.
            InsertOutcome::Skipped | InsertOutcome::TickSkipped(_) => Vec::new(),
        }
    }
}

/// Publishes facts as events, metrics and log lines.
pub struct Telemetry {
    /// Counters, gauges and histograms.
    pub metrics: Metrics,
    /// Newest events.
    pub events: Ring,
}

impl Telemetry {
    /// Creates the telemetry of a server that starts `now`, with this capacity for events.
    #[must_use]
    pub fn new(events: RingCapacity, now: UnixMs) -> Self {
        Self { metrics: Metrics::default(), events: Ring::new(events, now) }
    }

    /// Publishes a fact that is not part of an attempt.
    pub fn record(&self, fact: Fact) {
        self.events.record([fact]);
    }

    /// Publishes an entry of the audit log as an event and a log line. A token's name is written by its maker, and is escaped.
    pub fn record_audit(&self, entry: &AuditEntry) {
        let AuditEntry { verb, actor, tenant, object, outcome, count, .. } = entry;
        let address = entry.address.map(|address| address.to_string());
        tracing::info!(
            target: AUDIT_TARGET,
            id = %entry.id,
            verb = verb.as_str(),
            outcome = outcome.as_str(),
            actor = actor.id(),
            actor_name = ?actor.name,
            tenant = tenant.as_ref().map(|tenant| &tenant.name),
            kind = object.kind,
            object = ?object.name,
            version = object.version,
            changed = ?entry.changed,
            address,
            request_id = entry.request_id,
            count,
            "audit"
        );
        self.events.record([Fact::audit(entry)]);
    }

    /// Publishes the results of an insertion.
    pub fn record_insertion(&self, jobs: Vec<PendingFacts>, placed: &[InsertOutcome]) {
        let stored = placed.iter().filter(|placed| matches!(placed, InsertOutcome::Stored { .. })).count();
        self.metrics.accepted(u64::try_from(stored).unwrap_or(u64::MAX));
        self.events.record(jobs.into_iter().zip(placed).flat_map(|(job, placed)| job.facts(placed)));
    }

    /// Publishes the results of a change of jobs.
    pub fn record_changes(&self, jobs: &[Job], change: &JobChange, changed: &[ChangeOutcome], now: UnixMs) {
        let done = jobs.iter().zip(changed).filter(|(_, changed)| **changed == ChangeOutcome::Done).map(|(job, _)| job);
        self.events.record(done.map(|job| match change {
            JobChange::Cancel | JobChange::Withdraw => Fact::cancel(job, now),
            JobChange::Reschedule(at) => Fact::reschedule(job, Planned { at: now, run_at: *at }),
            JobChange::Redrive(at) => Fact::redrive(job, Planned { at: now, run_at: *at }, 1),
            JobChange::Purge => Fact::purge(job, now, 1),
            JobChange::Edit(_) => Fact::edit(job, now),
        }));
    }

    /// Publishes the result of a settlement, whether or not it was applied.
    pub fn record_settlement(&self, leased: &LeasedJob, settlement: &Settlement, settled: SettleOutcome) {
        self.metrics.settled(settlement, settled);
        let (id, number) = (leased.job.id, leased.number());
        let state = match settled {
            SettleOutcome::Applied(state) => state,
            SettleOutcome::LeaseLost => {
                tracing::warn!(job = %id, attempt = number, "settlement refused because the lease had expired");
                return;
            }
        };
        self.events.record([Fact::settled(leased, settlement, state)]);
        self.events.record(settlement.follow_ups.iter().map(Fact::push));
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
