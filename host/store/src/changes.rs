//! Changes that people and programs make to jobs, and what becomes of them.

use bytes::Bytes;

use carillon_core::clock::UnixMs;
use carillon_core::job::{Priority, Spec, State};

/// A change of jobs.
#[derive(Clone, Debug, PartialEq)]
pub enum JobChange {
    /// `scheduled` → `cancelled`. A `running` job is cancelled when its attempt is over, unless that succeeds.
    Cancel,
    /// `scheduled` → `cancelled`. A `running` job continues as if no cancel had been requested.
    Withdraw,
    /// A `scheduled` job becomes due at this time.
    Reschedule(UnixMs),
    /// `dead` or `expired` → `scheduled`, due at this time. A job that had a deadline gets as much time as it had in its first life.
    Redrive(UnixMs),
    /// Removes a job that has ended, with its attempts.
    Purge,
    /// Replaces parts of a `scheduled` job.
    Edit(Box<Edit>),
}

/// New values for parts of a job.
#[derive(Clone, Debug, PartialEq)]
pub struct Edit {
    /// Revision of the job on which the edit is based.
    pub revision: i64,
    /// New name; None takes the name away.
    pub name: Option<String>,
    /// New time when the job is due.
    pub run_at: UnixMs,
    /// New urgency within the group.
    pub priority: Priority,
    /// New request and settings.
    pub spec: Spec,
    /// New payload, if it changes.
    pub body: Option<Bytes>,
}

impl Edit {
    /// Returns the new spec beside an encrypted payload that stays; `None` if the payload changes.
    #[must_use]
    pub fn beside_sealed(&self) -> Option<Spec> {
        self.body.is_none().then(|| Spec { sealed_body: true, ..self.spec.clone() })
    }
}

/// Outcome of a change for one job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeOutcome {
    /// The change was made.
    Done,
    /// The cancellation is recorded: an attempt is running; unless it succeeds, the job becomes `cancelled` when the attempt is over.
    Requested,
    /// Nothing was changed: the job's state does not allow the change.
    Not(State),
    /// Nothing was changed: the job was edited after the edit's revision.
    Stale,
    /// The tenant has no such job.
    Unknown,
}

impl ChangeOutcome {
    /// Returns the outcome for a job that the change has left in `state`.
    #[must_use]
    pub fn changed(state: State) -> Self {
        // Only a cancel reaches a running job, and can no more than be requested.
        if state == State::Running { Self::Requested } else { Self::Done }
    }

    /// Returns the outcome for a job that the change did not apply to, because of its state or its revision.
    #[must_use]
    pub fn unchanged(state: State, change: &JobChange) -> Self {
        match change {
            JobChange::Edit(_) if state == State::Scheduled => Self::Stale,
            _ => Self::Not(state),
        }
    }
}

/// Fate of a job that another job replaces under a new id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replaced {
    /// The job was waiting and is now cancelled: the new job takes its place.
    Cancelled,
    /// The job has ended: it is removed, and the new job takes its place.
    Ended,
    /// The job runs or does not exist: the new job is not stored.
    Kept,
}

impl Replaced {
    /// Returns the fate of a job that the store was told to withdraw.
    #[must_use]
    pub fn after_withdrawal(outcome: Option<&ChangeOutcome>) -> Self {
        match outcome {
            Some(ChangeOutcome::Done) => Self::Cancelled,
            Some(ChangeOutcome::Not(state)) if state.is_final() => Self::Ended,
            _ => Self::Kept,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edit() -> JobChange {
        let (priority, spec) = (Priority::default(), Spec::default());
        JobChange::Edit(Box::new(Edit { revision: 1, name: None, run_at: UnixMs(0), priority, spec, body: None }))
    }

    #[test]
    fn a_change_that_does_not_apply_says_why() {
        assert_eq!(ChangeOutcome::unchanged(State::Scheduled, &edit()), ChangeOutcome::Stale);
        assert_eq!(ChangeOutcome::unchanged(State::Dead, &edit()), ChangeOutcome::Not(State::Dead));
        let scheduled = ChangeOutcome::unchanged(State::Scheduled, &JobChange::Purge);
        assert_eq!(scheduled, ChangeOutcome::Not(State::Scheduled));
    }

    #[test]
    fn a_job_is_replaced_unless_it_runs_or_is_gone() {
        let fate = |outcome| Replaced::after_withdrawal(Some(&outcome));
        assert_eq!(fate(ChangeOutcome::Done), Replaced::Cancelled);
        for state in State::ALL {
            let expected = if state.is_final() { Replaced::Ended } else { Replaced::Kept };
            assert_eq!(fate(ChangeOutcome::Not(state)), expected, "{state}");
        }
        assert_eq!(fate(ChangeOutcome::Unknown), Replaced::Kept);
        assert_eq!(Replaced::after_withdrawal(None), Replaced::Kept);
    }
}
