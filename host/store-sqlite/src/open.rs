//! Opens a database: checks that it exists, belongs to this program, is not in use, and has a schema that this program knows.
//!
//! Every problem of the file is found here, before a port opens, and reported in one sentence.

use std::fs::File;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use sqlx::migrate::MigrateError;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{ConnectOptions, Row as _};

use super::error::Failure;
use super::file;
use super::migrations;
use carillon_store::read_turns::READ_PLACES;
use carillon_store::{Durability, StoreError};

/// "Carl": the number that the first migration writes into the header of the file.
const APPLICATION_ID: i64 = 0x4361_726c;

/// Largest number of reading connections for the server's own reads, one of which looks for waiting jobs.
const SYSTEM_CONNECTIONS: u32 = 3;

/// Longest time that a read waits for a free connection.
const READ_WAIT: Duration = Duration::from_secs(10);

/// Longest time that a statement waits for another process (a backup, a shell) to release the database.
const BUSY_WAIT: Duration = Duration::from_secs(5);

/// Page cache of the writing connection, in KiB.
///
/// Twice and eight times as much was not faster, and SQLite walks through the cache at a commit.
const WRITER_CACHE_KIB: u32 = 8 * 1024;

/// Page cache of each reading connection, in KiB.
///
/// Readers look for the earliest job of each group; rows that they read once are in the operating system's cache, too.
const READER_CACHE_KIB: u32 = 2 * 1024;

/// Length of the write-ahead log, in pages of 4 KiB, at which it is copied into the database.
const CHECKPOINT_PAGES: u32 = 4_000;

/// Size in bytes to which the write-ahead log is cut when it restarts, and beyond which reads pause so that it can restart.
pub(super) const LOG_BYTES: u32 = 64 * 1024 * 1024;

/// Largest database of an older program that is rewritten at its start so that its file can shrink, in bytes.
///
/// The rewrite takes a second or two, and needs as much room again meanwhile.
const MAX_REWRITTEN_BYTES: i64 = 256 * 1024 * 1024;

/// Number of rows that a connection's thread may be ahead of the task that reads them.
const ROWS_AHEAD: usize = 512;

/// Path of the database, and settings for writing it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SqliteOptions {
    /// Path of the file.
    ///
    /// Its directory must exist; the file is created if it does not.
    pub path: PathBuf,
    /// Failures that a confirmed write survives.
    ///
    /// [`Durability::Normal`] is `synchronous=NORMAL`.
    pub durability: Durability,
}

impl SqliteOptions {
    /// Options for the file `path`, with full durability.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), durability: Durability::default() }
    }
}

impl FromStr for SqliteOptions {
    type Err = String;

    /// Reads `sqlite:relative/path`, `sqlite:/absolute/path` or `sqlite:///absolute/path`.
    fn from_str(url: &str) -> Result<Self, Self::Err> {
        let path = url.strip_prefix("sqlite:").ok_or_else(|| format!("`{url}` does not begin with `sqlite:`"))?;
        let path = path.strip_prefix("//").unwrap_or(path);
        if path.is_empty() || path == ":memory:" || path.contains('?') {
            return Err(format!("`{url}` must name a file, as in `sqlite:carillon.db`, and nothing else"));
        }
        Ok(Self::new(path))
    }
}

/// Parts of an open database.
pub(super) struct Opened {
    /// Resolved name of the file.
    pub(super) path: PathBuf,
    pub(super) lock: File,
    pub(super) writer: SqliteConnection,
    /// Connections for the server's own reads.
    pub(super) system: SqlitePool,
    /// Connections for reads of clients.
    pub(super) viewers: SqlitePool,
}

pub(super) async fn open(options: &SqliteOptions) -> Result<Opened, StoreError> {
    let path = file::resolve(&options.path)?;
    let named = |Failure(error): Failure| match error {
        StoreError::Corrupt(text) => StoreError::Corrupt(format!("`{}`: {text}", path.display())),
        StoreError::Unavailable(text) => StoreError::Unavailable(format!("`{}`: {text}", path.display())),
        other => other,
    };
    let Some(lock) = file::try_lock(&path)? else {
        return Err(StoreError::Unavailable(format!("another process uses `{}`", path.display())));
    };
    file::make(&path)?;
    let options = &SqliteOptions { path: path.clone(), ..options.clone() };
    let writer = prepare(options).await.map_err(named)?;
    let readers = |connections| {
        SqlitePoolOptions::new()
            .max_connections(connections)
            .acquire_timeout(READ_WAIT)
            .idle_timeout(None)
            .max_lifetime(None)
            .test_before_acquire(false)
            .connect_lazy_with(reading(options))
    };
    let (system, viewers) = (readers(SYSTEM_CONNECTIONS), readers(READ_PLACES));
    Ok(Opened { path, lock, writer, system, viewers })
}

/// Returns the options for a reading connection.
pub(super) fn reading(options: &SqliteOptions) -> SqliteConnectOptions {
    common(options).read_only(true).pragma("cache_size", format!("-{READER_CACHE_KIB}"))
}

fn common(options: &SqliteOptions) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(&options.path)
        .busy_timeout(BUSY_WAIT)
        .foreign_keys(true)
        .pragma("temp_store", "memory")
        .row_buffer_size(ROWS_AHEAD)
        .disable_statement_logging()
}

/// Connects the writer, migrates the schema and ends the leases of the previous process.
async fn prepare(options: &SqliteOptions) -> Result<SqliteConnection, Failure> {
    let synchronous = match options.durability {
        Durability::Full => SqliteSynchronous::Full,
        Durability::Normal => SqliteSynchronous::Normal,
    };
    let mut writer = common(options)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(synchronous)
        .pragma("cache_size", format!("-{WRITER_CACHE_KIB}"))
        .pragma("wal_autocheckpoint", CHECKPOINT_PAGES.to_string())
        .pragma("journal_size_limit", LOG_BYTES.to_string())
        .connect()
        .await?;
    refuse_foreign(&mut writer).await?;
    let_shrink(&mut writer).await?;
    // Not `run`: its bound on `Acquire` makes this future impossible to spawn.
    migrations::MIGRATIONS.run_direct(None, &mut writer, false).await.map_err(migration_failure)?;
    sqlx::query(END_LEASES).execute(&mut writer).await?;
    Ok(writer)
}

/// Value of `PRAGMA auto_vacuum` in a file that can return its free pages.
const INCREMENTAL: i64 = 2;

const SIZE: &str = "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size";

/// Sets the file's mode so that it can return free pages: at no cost for a new file, by rewriting an old one.
async fn let_shrink(writer: &mut SqliteConnection) -> Result<(), Failure> {
    let mode: i64 = sqlx::query_scalar("PRAGMA auto_vacuum").fetch_one(&mut *writer).await?;
    let bytes: i64 = sqlx::query_scalar(SIZE).fetch_one(&mut *writer).await?;
    if mode == INCREMENTAL {
        return Ok(());
    }
    if bytes > MAX_REWRITTEN_BYTES {
        tracing::warn!(bytes, "database file cannot shrink; stop the server and run `PRAGMA auto_vacuum = 2; VACUUM`");
        return Ok(());
    }
    let rewritten = sqlx::raw_sql("PRAGMA auto_vacuum = 2; VACUUM").execute(writer).await;
    if let Err(error) = rewritten {
        tracing::warn!(%error, "rewriting the database file failed; it cannot shrink");
    }
    Ok(())
}

/// Selects tables of a database without our mark.
///
/// A first start that was cut off leaves only the migrations' own table.
const FOREIGN_TABLES: &str = "
    SELECT application_id AS application,
        (SELECT count(*) FROM sqlite_schema WHERE tbl_name <> '_sqlx_migrations') AS tables
    FROM pragma_application_id";

pub(super) async fn refuse_foreign(writer: &mut SqliteConnection) -> Result<(), Failure> {
    let row = sqlx::query(FOREIGN_TABLES).fetch_one(writer).await?;
    let (application, tables): (i64, i64) = (row.try_get("application")?, row.try_get("tables")?);
    if tables > 0 && application != APPLICATION_ID {
        return Err(Failure(StoreError::Corrupt("the database belongs to another program".to_owned())));
    }
    Ok(())
}

fn migration_failure(error: MigrateError) -> Failure {
    match error {
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => error.into(),
        MigrateError::VersionMissing(version) => {
            let known = migrations::newest();
            let text =
                format!("its schema has version {version}, but this program knows only {known}: use a newer program");
            Failure(StoreError::Corrupt(text))
        }
        other => Failure(StoreError::Corrupt(other.to_string())),
    }
}

/// Ends the leases of a process that has ended: because of the lock, no other process can hold a lease.
///
/// Consumers keep their leases.
pub(super) const END_LEASES: &str = "
    UPDATE job SET lease_until = 0 WHERE state = 'running' AND lease_until > 0 AND lane % 20 < 10";
