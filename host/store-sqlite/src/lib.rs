//! Embedded database: one file, one process, no server.
//!
//! - **One writer** ([`writer`]): a task that owns the only writing connection and commits many callers' work together.
//! - **Readers** on their own connections (write-ahead log): a read sees every write that was confirmed before the read began, and never
//!   waits for the writer.
//! - **One process**: a lock file next to the database refuses a second process, so no process holds the leases that are found at the start.
//! - **Bounded files**: the space of pruned rows is returned to the disk ([`prune`]), and the log restarts in a pause of the readers
//!   ([`readers`]).
//!
//! When the disk is full or fails, verbs return [`StoreError::Unavailable`] and change nothing; they succeed again as soon as the disk works.
//! When the file is damaged or belongs to another program, they return [`StoreError::Corrupt`].

mod admit;
mod audit;
mod backup;
mod catalog;
mod change;
mod claim;
mod contents;
mod db;
mod debounce;
mod deleted_tenants;
mod error;
mod file;
mod insert;
mod job_rows;
mod jobs;
mod migrations;
mod open;
mod order_keys;
#[cfg(test)]
mod plans;
mod probe;
mod producer_keys;
mod prune;
mod readers;
mod reads;
mod rows;
mod settle;
mod sizes;
mod source;
#[cfg(test)]
mod tests;
mod ticks;
mod transaction;
mod writer;

use sqlx::Sqlite;
use sqlx::pool::PoolConnection;
use tokio::sync::Mutex;

pub use backup::backup;
pub use open::SqliteOptions;
pub use source::SqliteSource;

use carillon_store::{StoreError, StoreHealth};
use readers::Readers;
use writer::{Log, Writer};

/// An open SQLite database.
#[derive(Debug)]
pub struct SqliteStore {
    writer: Writer,
    health: StoreHealth,
    readers: Readers,
    /// Connection of [`Jobs::waiting`](carillon_store::Jobs::waiting), kept from the first call on.
    ///
    /// Returning a connection to the pool costs as much as a query.
    lookout: Mutex<Option<PoolConnection<Sqlite>>>,
}

impl SqliteStore {
    /// Opens the database, creates or migrates its schema, and ends the leases that an earlier process left.
    ///
    /// # Errors
    /// Returns [`StoreError::Unavailable`] if the file cannot be opened or another process uses it; [`StoreError::Corrupt`] if it is not a
    /// database of this program, or one of a newer version.
    pub async fn open(options: SqliteOptions) -> Result<Self, StoreError> {
        let opened = open::open(&options).await?;
        let readers = Readers::new(opened.system, opened.viewers);
        let log = Log::new(opened.path, readers.clone());
        let writer = Writer::start(opened.writer, log, opened.lock);
        Ok(Self { writer, health: StoreHealth::default(), readers, lookout: Mutex::default() })
    }
}
