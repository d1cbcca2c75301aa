//! Reading connections, turns of tenants, and pauses in which nothing is read.
//!
//! Reads for clients have connections of their own, for which tenants take turns ([`ReadTurns`]): the server's own reads never wait behind
//! lists. A read whose time is over, or whose caller is gone, ends: SQLite asks a flag every [`STEPS`] of its instructions. Long reads pause as
//! well, so that they take half of the processors together, however many run: SQLite reads in this process.
//!
//! SQLite restarts its write-ahead log only when no connection reads from it, so reads that always overlap would make it grow without limit.
//! When the log has become long, the writer requests a pause ([`Readers::pause`]): running reads end, and new ones wait for the end of the
//! pause.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::time::Duration;

use sqlx::Sqlite;
use sqlx::pool::PoolConnection;
use sqlx::sqlite::{SqliteConnection, SqlitePool};
use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};
use tokio::time::timeout;

use super::error::Failure;
use carillon_core::clock::Stopwatch;
use carillon_core::job::TenantId;
use carillon_store::StoreError;
use carillon_store::read_turns::{READ_PLACES, READ_TIME, ReadTurn, ReadTurns};

/// Instructions of SQLite's virtual machine between two looks at whether a read is to end: some tens of microseconds.
const STEPS: i32 = 4_000;

/// Time after which a read is long.
const QUICK: Duration = Duration::from_millis(10);

/// Pools of the reading connections.
#[derive(Clone, Debug)]
pub(super) struct Readers {
    /// For the server's own reads.
    system: SqlitePool,
    /// For clients: as many as there are turns.
    viewers: SqlitePool,
    turns: Arc<ReadTurns>,
    /// Number of long reads that run.
    long: Arc<AtomicUsize>,
    cores: usize,
    /// Held shared by every read.
    ///
    /// The lock is fair: a requested pause comes before the next read.
    gate: Arc<RwLock<()>>,
}

/// A reading connection, which is returned to the pool on drop.
pub(super) struct Reader {
    connection: PoolConnection<Sqlite>,
    _reading: Reading,
}

/// A connection for a read of a tenant. Dropping it ends the read.
pub(super) struct Viewing {
    reader: Reader,
    is_over: Arc<AtomicBool>,
    pace: Pace,
    _turn: ReadTurn,
}

/// States of a read: a long one is counted, and one that has ended never is again.
const SHORT: u8 = 0;
const LONG: u8 = 1;
const ENDED: u8 = 2;

/// Pace of a read.
#[derive(Clone)]
struct Pace {
    begun: Stopwatch,
    /// Begin of the work since the last pause.
    working: Stopwatch,
    /// One of [`SHORT`], [`LONG`] and [`ENDED`].
    state: Arc<AtomicU8>,
    long: Arc<AtomicUsize>,
    cores: usize,
}

impl Pace {
    fn new(long: Arc<AtomicUsize>, cores: usize) -> Self {
        let now = Stopwatch::start();
        Self { begun: now, working: now, state: Arc::default(), long, cores }
    }

    /// Pauses a long read, on SQLite's own thread.
    fn pause(&mut self) {
        if self.begun.elapsed() >= QUICK {
            if self.state.load(Ordering::Relaxed) == SHORT {
                self.long.fetch_add(1, Ordering::Relaxed);
                if self.state.compare_exchange(SHORT, LONG, Ordering::Relaxed, Ordering::Relaxed).is_err() {
                    self.long.fetch_sub(1, Ordering::Relaxed);
                }
            }
            std::thread::sleep(pause_after(self.working.elapsed(), self.long.load(Ordering::Relaxed), self.cores));
        }
        self.working = Stopwatch::start();
    }

    /// Ends the read.
    fn end(&self) {
        if self.state.swap(ENDED, Ordering::Relaxed) == LONG {
            self.long.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// Returns the pause after some work, with which this many reads together use half of the processors.
fn pause_after(work: Duration, reads: usize, cores: usize) -> Duration {
    let (reads, cores) = (u32::try_from(reads).unwrap_or(u32::MAX), u32::try_from(cores).unwrap_or(u32::MAX));
    (work.saturating_mul(reads.saturating_mul(2)) / cores.max(1)).saturating_sub(work)
}

/// Permission to read.
pub(super) type Reading = OwnedRwLockReadGuard<()>;

impl Readers {
    pub(super) fn new(system: SqlitePool, viewers: SqlitePool) -> Self {
        Self {
            system,
            viewers,
            turns: Arc::new(ReadTurns::new(READ_PLACES)),
            long: Arc::default(),
            cores: std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get),
            gate: Arc::default(),
        }
    }

    /// Returns a connection for one or several statements of the server's own.
    pub(super) async fn take(&self) -> Result<Reader, Failure> {
        let _reading = self.reading().await;
        Ok(Reader { connection: self.connection().await?, _reading })
    }

    /// Returns a connection for a read of a tenant, in its turn.
    pub(super) async fn view(&self, tenant: TenantId) -> Result<Viewing, StoreError> {
        let _turn = self.turns.take(tenant, READ_TIME).await?;
        let _reading = self.reading().await;
        let mut connection = self.viewers.acquire().await.map_err(Failure::from)?;
        let is_over = Arc::new(AtomicBool::new(false));
        let pace = Pace::new(Arc::clone(&self.long), self.cores);
        let (flag, mut steps) = (Arc::clone(&is_over), pace.clone());
        let mut handle = connection.lock_handle().await.map_err(Failure::from)?;
        handle.set_progress_handler(STEPS, move || {
            let goes_on = !flag.load(Ordering::Relaxed);
            if goes_on {
                steps.pause();
            }
            goes_on
        });
        drop(handle);
        Ok(Viewing { reader: Reader { connection, _reading }, is_over, pace, _turn })
    }

    /// Does a read for a client, within its time.
    pub(super) async fn bounded<T>(read: impl Future<Output = Result<T, Failure>>) -> Result<T, StoreError> {
        timeout(READ_TIME, read).await.map_err(|_| StoreError::ReadTimeout)?.map_err(StoreError::from)
    }

    /// Returns a connection for later use.
    ///
    /// Each read on it needs the permission of [`Readers::reading`].
    pub(super) async fn connection(&self) -> Result<PoolConnection<Sqlite>, Failure> {
        Ok(self.system.acquire().await?)
    }

    /// Returns the permission to read, for as long as it is held.
    pub(super) async fn reading(&self) -> Reading {
        Arc::clone(&self.gate).read_owned().await
    }

    /// Waits until nothing is read, and blocks reads until the guard is dropped.
    pub(super) async fn pause(&self) -> OwnedRwLockWriteGuard<()> {
        Arc::clone(&self.gate).write_owned().await
    }

    /// Refuses further reads, and waits for the running ones.
    pub(super) async fn close(&self) {
        self.viewers.close().await;
        self.system.close().await;
    }
}

impl Deref for Reader {
    type Target = SqliteConnection;

    fn deref(&self) -> &SqliteConnection {
        &self.connection
    }
}

impl DerefMut for Reader {
    fn deref_mut(&mut self) -> &mut SqliteConnection {
        &mut self.connection
    }
}

impl Deref for Viewing {
    type Target = SqliteConnection;

    fn deref(&self) -> &SqliteConnection {
        &self.reader
    }
}

impl DerefMut for Viewing {
    fn deref_mut(&mut self) -> &mut SqliteConnection {
        &mut self.reader
    }
}

impl Drop for Viewing {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        self.pace.end();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_reads_together_use_half_of_the_processors() {
        let ms = Duration::from_millis;
        for (reads, cores, pause) in [(1, 2, 0), (2, 2, 10), (4, 2, 30), (1, 1, 10), (4, 8, 0), (8, 8, 10)] {
            assert_eq!(pause_after(ms(10), reads, cores), ms(pause), "{reads} reads on {cores} cores");
        }
    }

    #[test]
    fn read_counts_as_long_until_it_ends() {
        let long = Arc::new(AtomicUsize::new(0));
        let mut pace = Pace::new(Arc::clone(&long), 2);
        pace.pause();
        assert_eq!(long.load(Ordering::Relaxed), 0, "it has just begun");
        std::thread::sleep(QUICK);
        pace.pause();
        pace.pause();
        assert_eq!(long.load(Ordering::Relaxed), 1);
        pace.end();
        pace.end();
        assert_eq!(long.load(Ordering::Relaxed), 0);
        pace.pause();
        assert_eq!(long.load(Ordering::Relaxed), 0, "it has ended");
    }
}
