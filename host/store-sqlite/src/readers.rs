//! Reading connections, and pauses in which nothing is read.
//!
//! SQLite restarts its write-ahead log only when no connection reads from it, so reads that always overlap would make it grow without limit.
//! When the log has become long, the writer requests a pause ([`Readers::pause`]): running reads end, and new ones wait for the end of the
//! pause.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use sqlx::Sqlite;
use sqlx::pool::PoolConnection;
use sqlx::sqlite::{SqliteConnection, SqlitePool};
use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};

use super::error::Failure;

/// Pool of the reading connections.
#[derive(Clone, Debug)]
pub(super) struct Readers {
    pool: SqlitePool,
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

/// Permission to read.
pub(super) type Reading = OwnedRwLockReadGuard<()>;

impl Readers {
    pub(super) fn new(pool: SqlitePool) -> Self {
        Self { pool, gate: Arc::default() }
    }

    /// Returns a connection for one or several statements.
    pub(super) async fn take(&self) -> Result<Reader, Failure> {
        let _reading = self.reading().await;
        Ok(Reader { connection: self.connection().await?, _reading })
    }

    /// Returns a connection for later use.
    ///
    /// Each read on it needs the permission of [`Readers::reading`].
    pub(super) async fn connection(&self) -> Result<PoolConnection<Sqlite>, Failure> {
        Ok(self.pool.acquire().await?)
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
        self.pool.close().await;
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
