//! What becomes of a leased job.

use std::sync::Arc;

use super::{AttemptRecord, JobId, Lease, LeasedJob, NewJob, State, Token};
use crate::clock::UnixMs;

/// What becomes of a leased job. Made by the constructors only, so that every mix of fields makes sense.
#[derive(Clone, Debug, PartialEq)]
pub struct Settlement {
    /// Which job.
    pub id: JobId,
    /// It applies only while this lease is the newest.
    pub token: Token,
    /// When it was decided.
    pub at: UnixMs,
    /// What is kept of the attempt, if one was made or tried.
    pub attempt: Option<Arc<AttemptRecord>>,
    /// The jobs that follow: stored together with the settlement, or not at all.
    pub follow_ups: Vec<NewJob>,
    is_ordered: bool,
    next: Next,
}

/// Where a settled job goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Back to `scheduled`, due at this time.
    Scheduled(UnixMs),
    /// To this final state.
    Final(State),
}

impl Next {
    /// When the next attempt is due, if there is one.
    #[must_use]
    pub fn run_at(self) -> Option<UnixMs> {
        match self {
            Self::Scheduled(at) => Some(at),
            Self::Final(_) => None,
        }
    }
}

impl Settlement {
    /// The job is done.
    #[must_use]
    pub fn succeeded(leased: &LeasedJob, at: UnixMs, attempt: AttemptRecord) -> Self {
        Self::of(leased, at, Some(attempt), Next::Final(State::Succeeded))
    }

    /// The job will not be tried again.
    #[must_use]
    pub fn dead(leased: &LeasedJob, at: UnixMs, attempt: AttemptRecord) -> Self {
        Self::of(leased, at, Some(attempt), Next::Final(State::Dead))
    }

    /// The stored job cannot be read, so that nobody knows whether others wait for its end.
    #[must_use]
    pub fn dead_unread((id, token): Lease, at: UnixMs, attempt: Arc<AttemptRecord>) -> Self {
        let next = Next::Final(State::Dead);
        Self { id, token, at, attempt: Some(attempt), follow_ups: Vec::new(), is_ordered: true, next }
    }

    /// The job's time ran out; `attempt` is the one that was made just before, if any.
    #[must_use]
    pub fn expired(leased: &LeasedJob, at: UnixMs, attempt: Option<AttemptRecord>) -> Self {
        Self::of(leased, at, attempt, Next::Final(State::Expired))
    }

    /// The attempt failed and another one is due at `run_at`.
    #[must_use]
    pub fn retry(leased: &LeasedJob, at: UnixMs, attempt: AttemptRecord, run_at: UnixMs) -> Self {
        Self::of(leased, at, Some(attempt), Next::Scheduled(run_at))
    }

    /// Nothing could be sent: the job waits until `run_at` and the attempt is not spent (`attempt.detail.spent` is false).
    #[must_use]
    pub fn held(leased: &LeasedJob, at: UnixMs, mut attempt: AttemptRecord, run_at: UnixMs) -> Self {
        attempt.detail.spent = false;
        Self::of(leased, at, Some(attempt), Next::Scheduled(run_at))
    }

    /// The node gives the job back untouched.
    #[must_use]
    pub fn released(leased: &LeasedJob, at: UnixMs) -> Self {
        Self::of(leased, at, None, Next::Scheduled(leased.job.run_at))
    }

    /// The job was cancelled, and its attempt was cut off.
    #[must_use]
    pub fn cancelled(leased: &LeasedJob, at: UnixMs, attempt: AttemptRecord) -> Self {
        Self::of(leased, at, Some(attempt), Next::Final(State::Cancelled))
    }

    fn of(leased: &LeasedJob, at: UnixMs, attempt: Option<AttemptRecord>, next: Next) -> Self {
        let (id, token, attempt) = (leased.job.id, leased.token, attempt.map(Arc::new));
        let is_ordered = leased.job.order_key.is_some();
        Self { id, token, at, attempt, follow_ups: Vec::new(), is_ordered, next }
    }

    /// The same for a store that refuses it for `reason`: what becomes of the job, and of its attempt nothing that came from outside.
    #[must_use]
    pub fn reduced(&self, reason: &str) -> Self {
        let attempt = self.attempt.as_ref().map(|attempt| Arc::new(attempt.reduced(reason)));
        Self { attempt, follow_ups: Vec::new(), ..self.clone() }
    }

    /// Where the job goes, unless it was asked to be cancelled.
    #[must_use]
    pub fn next(&self) -> Next {
        self.next
    }

    /// Whether others may wait for the job's end: it has an order key.
    #[must_use]
    pub fn is_ordered(&self) -> bool {
        self.is_ordered
    }

    /// Whether an attempt of the job is spent.
    #[must_use]
    pub fn spends(&self) -> bool {
        self.attempt.as_ref().is_some_and(|attempt| attempt.detail.spent)
    }
}
