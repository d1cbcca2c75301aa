//! The connections that read, and the moment without any.
//!
//! SQLite begins its write-ahead log anew only when nobody reads from it, so reads that overlap for ever would make it grow for ever.
//! When it has become long, the writer asks for a pause ([`Readers::pause`]): reads that have begun end, and new ones wait for it.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use sqlx::Sqlite;
use sqlx::pool::PoolConnection;
use sqlx::sqlite::{SqliteConnection, SqlitePool};
use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};

use super::error::Failure;

/// The connections that read.
#[derive(Clone, Debug)]
pub(super) struct Readers {
    pool: SqlitePool,
    /// Whoever reads has it shared. It is fair: a pause that is asked for comes before the next read.
    gate: Arc<RwLock<()>>,
}

/// A connection that reads. It goes back when this is dropped.
pub(super) struct Reader {
    connection: PoolConnection<Sqlite>,
    _reading: Reading,
}

/// The right to read.
pub(super) type Reading = OwnedRwLockReadGuard<()>;

impl Readers {
    pub(super) fn new(pool: SqlitePool) -> Self {
        Self { pool, gate: Arc::default() }
    }

    /// A connection for one or several statements.
    pub(super) async fn take(&self) -> Result<Reader, Failure> {
        let _reading = self.reading().await;
        Ok(Reader { connection: self.connection().await?, _reading })
    }

    /// A connection for later. Whoever reads with it has the right to read ([`Readers::reading`]).
    pub(super) async fn connection(&self) -> Result<PoolConnection<Sqlite>, Failure> {
        Ok(self.pool.acquire().await?)
    }

    /// The right to read, as long as it is held.
    pub(super) async fn reading(&self) -> Reading {
        Arc::clone(&self.gate).read_owned().await
    }

    /// Waits until nobody reads, and keeps it so.
    pub(super) async fn pause(&self) -> OwnedRwLockWriteGuard<()> {
        Arc::clone(&self.gate).write_owned().await
    }

    /// Refuses further reads, and waits for those that have begun.
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
