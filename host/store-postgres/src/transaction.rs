//! Runs a verb as a transaction, and again after a deadlock.

use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use sqlx::Connection as _;
use sqlx::postgres::PgConnection;

use super::connections::Connections;
use super::error::Failure;
use carillon_store::{CommitStats, StoreError};

/// Largest number of times that a transaction that loses deadlocks is begun.
const TRIES: u32 = 10;

/// Work of a verb inside its transaction.
///
/// It may be run several times, of which one is committed.
#[async_trait]
pub(super) trait Verb: Send + Sync {
    /// Result of the verb.
    type Done: Send;

    /// Does the work.
    async fn run(&self, db: &mut PgConnection) -> Result<Self::Done, Failure>;
}

/// The connections, with the figures of their use.
#[derive(Debug)]
pub(super) struct Database {
    pub(super) connections: Connections,
    commits: AtomicU64,
    calls: AtomicU64,
    largest: AtomicU64,
}

impl Database {
    pub(super) fn new(connections: Connections) -> Self {
        Self { connections, commits: AtomicU64::new(0), calls: AtomicU64::new(0), largest: AtomicU64::new(0) }
    }

    /// Runs one caller's verb; returns when it is committed.
    pub(super) async fn call<V: Verb>(&self, verb: &V) -> Result<V::Done, StoreError> {
        let done = self.transact(verb).await;
        self.count(1);
        done
    }

    /// Runs a verb without counting its callers.
    pub(super) async fn transact<V: Verb>(&self, verb: &V) -> Result<V::Done, StoreError> {
        let mut tries = 1;
        loop {
            match self.once(verb).await {
                Err(failure) if failure.again && tries < TRIES => tries += 1,
                result => return Ok(result?),
            }
        }
    }

    async fn once<V: Verb>(&self, verb: &V) -> Result<V::Done, Failure> {
        let mut connection = self.connections.take().await?;
        let committed = async {
            // A transaction that is dropped without a commit is rolled back before its connection is used again.
            let mut transaction = connection.begin().await?;
            let done = verb.run(&mut transaction).await?;
            transaction.commit().await?;
            Ok(done)
        };
        let done = match self.connections.bounded(committed).await {
            Ok(done) => done,
            Err(failure) => {
                if failure.outdated {
                    connection.clear_cached_statements().await?;
                }
                return Err(failure);
            }
        };
        self.commits.fetch_add(1, Ordering::Relaxed);
        Ok(done)
    }

    /// Counts callers whose work one transaction has done.
    pub(super) fn count(&self, calls: u64) {
        self.calls.fetch_add(calls, Ordering::Relaxed);
        self.largest.fetch_max(calls, Ordering::Relaxed);
    }

    pub(super) fn stats(&self) -> CommitStats {
        CommitStats {
            commits: self.commits.load(Ordering::Relaxed),
            calls: self.calls.load(Ordering::Relaxed),
            largest: self.largest.load(Ordering::Relaxed),
        }
    }
}
