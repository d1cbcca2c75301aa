//! Figures for the metrics: how many calls share a commit, how many jobs wait, how often the database failed in this process.

use std::sync::atomic::{AtomicU64, Ordering};

use super::StoreError;
use carillon_core::clock::UnixMs;

/// Numbers of commits and of the calls that they answered.
///
/// Calls ÷ commits is the mean size of a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CommitStats {
    /// Transactions committed.
    pub commits: u64,
    /// Calls that these transactions answered, failed calls included.
    pub calls: u64,
    /// Largest number of calls in one transaction so far.
    pub largest: u64,
}

/// Numbers of waiting jobs, and size of the database.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backlog {
    /// Jobs that wait for their time, or to be started.
    ///
    /// Jobs that an earlier job of their order key blocks are not counted.
    pub waiting: u64,
    /// Waiting jobs that are due.
    pub due: u64,
    /// Earliest `run_at` of the waiting jobs.
    pub earliest: Option<UnixMs>,
    /// Size of the database in bytes.
    pub database_bytes: u64,
}

static FAILURES: AtomicU64 = AtomicU64::new(0);

/// Counts an error of a driver, if its cause is the database and not the caller's input.
pub fn count_failure(error: &StoreError) {
    if matches!(error, StoreError::Unavailable(_) | StoreError::Corrupt(_)) {
        FAILURES.fetch_add(1, Ordering::Relaxed);
    }
}

/// Returns how often the database failed since the process began.
#[must_use]
pub fn failure_count() -> u64 {
    FAILURES.load(Ordering::Relaxed)
}
