//! Reading connections, turns of tenants, and pauses in which nothing is read.
//!
//! Reads for clients have connections of their own, for which tenants take turns ([`ReadTurns`]): the server's own reads never wait behind
//! lists. A read whose time is over, or whose caller is gone, ends: SQLite asks a flag every [`STEPS`] of its instructions.
//!
//! SQLite restarts its write-ahead log only when no connection reads from it, so reads that always overlap would make it grow without limit.
//! When the log has become long, the writer requests a pause ([`Readers::pause`]): running reads end, and new ones wait for the end of the
//! pause.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use sqlx::Sqlite;
use sqlx::pool::PoolConnection;
use sqlx::sqlite::{SqliteConnection, SqlitePool};
use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};
use tokio::time::timeout;

use super::error::Failure;
use carillon_core::job::TenantId;
use carillon_store::StoreError;
use carillon_store::read_turns::{READ_PLACES, READ_TIME, ReadTurn, ReadTurns};

/// Instructions of SQLite's virtual machine between two looks at whether a read is to end: some tens of microseconds.
const STEPS: i32 = 4_000;

/// Pools of the reading connections.
#[derive(Clone, Debug)]
pub(super) struct Readers {
    /// For the server's own reads.
    system: SqlitePool,
    /// For clients: as many as there are turns.
    viewers: SqlitePool,
    turns: Arc<ReadTurns>,
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
    _turn: ReadTurn,
}

/// Permission to read.
pub(super) type Reading = OwnedRwLockReadGuard<()>;

impl Readers {
    pub(super) fn new(system: SqlitePool, viewers: SqlitePool) -> Self {
        Self { system, viewers, turns: Arc::new(ReadTurns::new(READ_PLACES)), gate: Arc::default() }
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
        let flag = Arc::clone(&is_over);
        let mut handle = connection.lock_handle().await.map_err(Failure::from)?;
        handle.set_progress_handler(STEPS, move || !flag.load(Ordering::Relaxed));
        drop(handle);
        Ok(Viewing { reader: Reader { connection, _reading }, is_over, _turn })
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
    }
}
