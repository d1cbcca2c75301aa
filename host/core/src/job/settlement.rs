//! Settlements: the result of a leased job.

use std::sync::Arc;

use super::{AttemptRecord, JobId, Lease, LeasedJob, NewJob, State, TenantId, Token};
use crate::clock::UnixMs;

/// Result of a leased job.
///
/// Only the constructors make one, so that every combination of fields makes sense.
#[derive(Clone, Debug, PartialEq)]
pub struct Settlement {
    /// Id of the job.
    pub id: JobId,
    /// Token of the lease; the settlement applies only while this lease is the newest.
    pub token: Token,
    /// Time of the decision.
    pub at: UnixMs,
    /// Record of the attempt, if one was made or tried.
    pub attempt: Option<Arc<AttemptRecord>>,
    /// Follow-up jobs, stored together with the settlement or not at all.
    pub follow_ups: Vec<NewJob>,
    tenant: Option<TenantId>,
    is_ordered: bool,
    next: Next,
}

/// State of a job after its settlement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// `scheduled`, due at this time.
    Scheduled(UnixMs),
    /// This final state.
    Final(State),
}

impl Next {
    /// Returns the time when the next attempt is due, if there is one.
    #[must_use]
    pub fn run_at(self) -> Option<UnixMs> {
        match self {
            Self::Scheduled(at) => Some(at),
            Self::Final(_) => None,
        }
    }
}

impl Settlement {
    /// Settles a job as succeeded.
    #[must_use]
    pub fn succeeded(leased: &LeasedJob, at: UnixMs, attempt: AttemptRecord) -> Self {
        Self::new(leased, at, Some(attempt), Next::Final(State::Succeeded))
    }

    /// Settles a job as a dead letter.
    #[must_use]
    pub fn dead(leased: &LeasedJob, at: UnixMs, attempt: AttemptRecord) -> Self {
        Self::new(leased, at, Some(attempt), Next::Final(State::Dead))
    }

    /// Settles a stored job that cannot be read as dead.
    ///
    /// Its order key is unknown, so the settlement assumes that other jobs may wait for its end.
    #[must_use]
    pub fn dead_unread((id, token): Lease, at: UnixMs, attempt: Arc<AttemptRecord>) -> Self {
        let next = Next::Final(State::Dead);
        Self { id, token, at, attempt: Some(attempt), follow_ups: Vec::new(), tenant: None, is_ordered: true, next }
    }

    /// Settles a job as expired; `attempt` is the one that was made just before, if any.
    #[must_use]
    pub fn expired(leased: &LeasedJob, at: UnixMs, attempt: Option<AttemptRecord>) -> Self {
        Self::new(leased, at, attempt, Next::Final(State::Expired))
    }

    /// Settles a failed attempt; the next one is due at `run_at`.
    #[must_use]
    pub fn retry(leased: &LeasedJob, at: UnixMs, attempt: AttemptRecord, run_at: UnixMs) -> Self {
        Self::new(leased, at, Some(attempt), Next::Scheduled(run_at))
    }

    /// Settles a job that could not be sent.
    ///
    /// The job waits until `run_at` and the attempt is not spent (`attempt.detail.spent` is false).
    #[must_use]
    pub fn held(leased: &LeasedJob, at: UnixMs, mut attempt: AttemptRecord, run_at: UnixMs) -> Self {
        attempt.detail.spent = false;
        Self::new(leased, at, Some(attempt), Next::Scheduled(run_at))
    }

    /// Gives a job back unchanged, without an attempt.
    #[must_use]
    pub fn released(leased: &LeasedJob, at: UnixMs) -> Self {
        Self::new(leased, at, None, Next::Scheduled(leased.job.run_at))
    }

    /// Settles a job as cancelled; its attempt was cut off.
    #[must_use]
    pub fn cancelled(leased: &LeasedJob, at: UnixMs, attempt: AttemptRecord) -> Self {
        Self::new(leased, at, Some(attempt), Next::Final(State::Cancelled))
    }

    fn new(leased: &LeasedJob, at: UnixMs, attempt: Option<AttemptRecord>, next: Next) -> Self {
        let (id, token, attempt) = (leased.job.id, leased.token, attempt.map(Arc::new));
        let (tenant, is_ordered) = (Some(leased.job.tenant), leased.job.order_key.is_some());
        Self { id, token, at, attempt, follow_ups: Vec::new(), tenant, is_ordered, next }
    }

    /// Returns the settlement without follow-up jobs and without any content from outside in its attempt.
    ///
    /// For a store that refuses the whole settlement for `reason`; the job's next state stays the same.
    #[must_use]
    pub fn reduced(&self, reason: &str) -> Self {
        let attempt = self.attempt.as_ref().map(|attempt| Arc::new(attempt.reduced(reason)));
        Self { attempt, follow_ups: Vec::new(), ..self.clone() }
    }

    /// Returns the job's next state, unless a cancel was requested.
    #[must_use]
    pub fn next(&self) -> Next {
        self.next
    }

    /// Returns the owning tenant of the job; `None` if the job cannot be read.
    #[must_use]
    pub fn tenant(&self) -> Option<TenantId> {
        self.tenant
    }

    /// Returns whether other jobs may wait for the job's end, because it has an order key.
    #[must_use]
    pub fn is_ordered(&self) -> bool {
        self.is_ordered
    }

    /// Returns the new number of spent attempts, if the settlement spends one.
    #[must_use]
    pub fn spent(&self) -> Option<u32> {
        self.attempt.as_ref().filter(|attempt| attempt.detail.spent).map(|attempt| attempt.number)
    }

    /// Returns the code of the attempt's error, if there was an error.
    #[must_use]
    pub fn error_code(&self) -> Option<&str> {
        Some(self.attempt.as_ref()?.detail.error.as_ref()?.code.as_str())
    }

    /// Returns whether the settlement spends an attempt of the job.
    #[must_use]
    pub fn spends(&self) -> bool {
        self.attempt.as_ref().is_some_and(|attempt| attempt.detail.spent)
    }
}
