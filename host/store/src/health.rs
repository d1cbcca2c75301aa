//! Health of the store: the outcome of the last call of each kind that the server depends on.
//!
//! A database that can be read may be one that cannot be written: its disk is full, or an index is damaged. So this module sends no query of
//! its own to the database; it records the outcomes of the calls that the server makes anyway.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::StoreError;
use carillon_core::clock::Stopwatch;

/// Time after which a call without an answer counts as failed.
pub const STUCK: Duration = Duration::from_secs(15);

/// Kinds of calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// Storing jobs.
    Accept,
    /// Looking for due jobs and leasing them.
    Claim,
    /// Settling attempts.
    Settle,
}

impl Work {
    /// All kinds.
    pub const ALL: [Self; 3] = [Self::Accept, Self::Claim, Self::Settle];

    /// Returns the sentence that reports a failure of this kind.
    #[must_use]
    pub fn failure(self) -> &'static str {
        match self {
            Self::Accept => "jobs cannot be stored",
            Self::Claim => "due jobs cannot be leased",
            Self::Settle => "attempts cannot be settled",
        }
    }
}

/// Outcomes of the last calls of each kind.
#[derive(Debug, Default)]
pub struct StoreHealth([Mutex<Calls>; Work::ALL.len()]);

#[derive(Debug, Default)]
struct Calls {
    /// Error of the last call that was answered, if it failed.
    failure: Option<StoreError>,
    /// Time since the last call that succeeded.
    succeeded: Option<Stopwatch>,
    /// Calls without an answer yet, the oldest first.
    begun: BTreeMap<u64, Stopwatch>,
    next: u64,
}

impl StoreHealth {
    fn calls(&self, work: Work) -> MutexGuard<'_, Calls> {
        self.0[work as usize].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a call and records its outcome.
    ///
    /// A call that the database has answered counts as succeeded, even if the answer is a refusal.
    pub async fn watch<T>(
        &self,
        work: Work,
        call: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let begun = Begun::now(self, work);
        let result = call.await;
        let failure = match &result {
            Err(error @ (StoreError::Unavailable(_) | StoreError::Full(_) | StoreError::Corrupt(_))) => {
                Some(error.clone())
            }
            _ => None,
        };
        drop(begun);
        let mut calls = self.calls(work);
        if failure.is_none() {
            calls.succeeded = Some(Stopwatch::start());
        }
        calls.failure = failure;
        drop(calls);
        result
    }

    /// Returns the first kind of work whose last call failed or was not answered in time, with the error.
    #[must_use]
    pub fn trouble(&self) -> Option<(Work, StoreError)> {
        Work::ALL.into_iter().find_map(|work| {
            let calls = self.calls(work);
            let stuck = calls.begun.first_key_value().is_some_and(|(_, begun)| begun.elapsed() >= STUCK);
            let stuck = stuck.then(|| StoreError::Unavailable("the database does not respond".to_owned()));
            Some((work, calls.failure.clone().or(stuck)?))
        })
    }

    /// Returns whether the last call of this kind succeeded, no longer ago than `time`.
    #[must_use]
    pub fn succeeded_within(&self, work: Work, time: Duration) -> bool {
        let calls = self.calls(work);
        calls.failure.is_none() && calls.succeeded.is_some_and(|ago| ago.elapsed() <= time)
    }
}

/// A call in progress.
struct Begun<'a> {
    health: &'a StoreHealth,
    work: Work,
    number: u64,
}

impl<'a> Begun<'a> {
    fn now(health: &'a StoreHealth, work: Work) -> Self {
        let mut calls = health.calls(work);
        let number = calls.next;
        calls.next += 1;
        calls.begun.insert(number, Stopwatch::start());
        drop(calls);
        Self { health, work, number }
    }
}

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        self.health.calls(self.work).begun.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn call(health: &StoreHealth, work: Work, result: Result<(), StoreError>) {
        drop(health.watch(work, async { result }).await);
    }

    #[tokio::test]
    async fn last_call_of_each_kind_counts() {
        let health = StoreHealth::default();
        let full = || StoreError::Full("no space left".to_owned());
        assert_eq!(health.trouble(), None);
        call(&health, Work::Accept, Err(full())).await;
        call(&health, Work::Claim, Ok(())).await;
        assert_eq!(health.trouble(), Some((Work::Accept, full())));
        assert!(health.succeeded_within(Work::Claim, STUCK) && !health.succeeded_within(Work::Accept, STUCK));
        call(&health, Work::Accept, Err(StoreError::NoSuchGroup)).await;
        assert_eq!(health.trouble(), None, "the database has answered");
        call(&health, Work::Settle, Err(StoreError::Corrupt("damaged".to_owned()))).await;
        assert!(matches!(health.trouble(), Some((Work::Settle, StoreError::Corrupt(_)))));
    }

    #[tokio::test]
    async fn call_that_is_given_up_is_no_longer_under_way() {
        let health = StoreHealth::default();
        let mut never = Box::pin(health.watch(Work::Claim, std::future::pending::<Result<(), _>>()));
        assert!(futures_util::poll!(&mut never).is_pending());
        assert_eq!(health.calls(Work::Claim).begun.len(), 1);
        drop(never);
        assert!(health.calls(Work::Claim).begun.is_empty());
    }
}
