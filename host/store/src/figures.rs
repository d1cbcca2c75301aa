//! Numbers for the metrics: how well commits are shared, how much waits, how often the database failed in this process.

use std::sync::atomic::{AtomicU64, Ordering};

use super::StoreError;
use carillon_core::clock::UnixMs;

/// How many commits there were, and for how many calls: calls ÷ commits is the mean size of a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CommitStats {
    /// Transactions committed.
    pub commits: u64,
    /// Calls that were answered by them, those that failed included.
    pub calls: u64,
    /// The most calls in one transaction so far.
    pub largest: u64,
}

/// How much waits, and how large the database is; for the metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backlog {
    /// Jobs that wait for their time, or to be started; not those that an earlier job of their order key blocks.
    pub waiting: u64,
    /// Those of them whose time has come.
    pub due: u64,
    /// When the first of them is, or was, due.
    pub earliest: Option<UnixMs>,
    /// Bytes of the database.
    pub database_bytes: u64,
}

static FAILURES: AtomicU64 = AtomicU64::new(0);

/// Counts an error of a driver, if it says something of the database and not of what was asked.
pub fn count_failure(error: &StoreError) {
    if matches!(error, StoreError::Unavailable(_) | StoreError::Corrupt(_)) {
        FAILURES.fetch_add(1, Ordering::Relaxed);
    }
}

/// How often the database failed since the process began.
#[must_use]
pub fn failure_count() -> u64 {
    FAILURES.load(Ordering::Relaxed)
}
