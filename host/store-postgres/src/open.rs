//! Opens a database: checks that it exists, belongs to this program, and has a schema that this program knows.
//!
//! Nodes may start at the same time: migrations run under a lock of the database. Nodes of two versions may run at the same time: a migration
//! adds what the newer version needs, and a later version, which raises `needs`, removes what only the older one needs.

use std::str::FromStr;
use std::time::Duration;

use sqlx::migrate::MigrateError;
use sqlx::postgres::{PgConnection, PgPoolOptions};
use sqlx::{AssertSqlSafe, Connection as _, Row as _};

use super::connections::Connections;
use super::error::Failure;
use super::hosts::{self, Hosts};
use super::migration_mark;
use super::migrations;
use carillon_store::{Durability, StoreError};

/// Oldest server for which the statements are written and tested: PostgreSQL 15.
const OLDEST_SERVER: i32 = 150_000;

/// Default time that a node waits for the database.
const BOUND: Duration = Duration::from_secs(10);

/// Idle time after which a connection is closed, because other nodes may be short of connections.
const IDLE: Duration = Duration::from_secs(60);

/// Place of the database, and settings for writing it.
#[derive(Clone, Debug)]
pub struct PostgresOptions {
    hosts: Hosts,
    durability: Durability,
    bound: Duration,
}

impl PostgresOptions {
    /// Returns these options with another durability.
    #[must_use]
    pub fn with(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// Returns these options with another bound on waiting for the database: for a connection, and for the work of a transaction.
    #[must_use]
    pub fn within(mut self, bound: Duration) -> Self {
        self.bound = bound;
        self
    }
}

impl FromStr for PostgresOptions {
    type Err = String;

    /// Parses `postgres://user:password@host:port/database?sslmode=…`, as other programs write it, with one host or several.
    ///
    /// The error does not repeat the URL, which may contain a password.
    fn from_str(url: &str) -> Result<Self, Self::Err> {
        Ok(Self { hosts: Hosts::parse(url)?, durability: Durability::default(), bound: BOUND })
    }
}

/// Settings of every session.
///
/// Every statement is written as a walk along an index from a few rows to a few others. So no table may be read as a whole because it was
/// small when the plan was made, and no statement is worth compiling. The connection of a node that has gone silently must be closed.
pub(super) const SESSION: &str = "
    SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL READ COMMITTED, READ WRITE;
    SET enable_seqscan = off;
    SET enable_bitmapscan = off;
    SET enable_hashjoin = off;
    SET enable_mergejoin = off;
    SET jit = off;
    SET tcp_keepalives_idle = 10;
    SET tcp_keepalives_interval = 5;
    SET tcp_keepalives_count = 3;
    SET tcp_user_timeout = '25s';
    SET application_name = 'carillon'";

/// Returns the settings that make the server stop work when the node stops waiting, so that abandoned work keeps no locks.
fn bounds(bound: Duration) -> String {
    let ms = bound.as_millis();
    format!("SET statement_timeout = {ms}; SET idle_in_transaction_session_timeout = {ms}")
}

/// Setting for full durability: a confirmed write is on disk, whatever the server's default is.
///
/// A server setting that waits for standbys, too, is kept.
pub(super) const FULL: &str =
    "SELECT set_config('synchronous_commit', 'on', FALSE) WHERE current_setting('synchronous_commit') = 'off'";

pub(super) const NORMAL: &str = "SET synchronous_commit = off";

/// Returns how connections are prepared whose statements take at most `bound`.
pub(super) fn session(options: &PostgresOptions, bound: Duration) -> PgPoolOptions {
    let durability = match options.durability {
        Durability::Full => FULL,
        Durability::Normal => NORMAL,
    };
    let bounds = bounds(bound.min(options.bound));
    PgPoolOptions::new().idle_timeout(IDLE).after_connect(move |connection, _| {
        let bounds = bounds.clone();
        Box::pin(async move {
            if !hosts::is_writer(&mut *connection).await? {
                return Err(sqlx::Error::Protocol(hosts::STANDBY.to_owned()));
            }
            sqlx::raw_sql(SESSION).execute(&mut *connection).await?;
            sqlx::raw_sql(AssertSqlSafe(bounds)).execute(&mut *connection).await?;
            sqlx::raw_sql(durability).execute(connection).await?;
            Ok(())
        })
    })
}

/// Connects, and migrates the schema.
pub(super) async fn open(options: &PostgresOptions) -> Result<Connections, StoreError> {
    let pool = session(options, options.bound);
    // A separate connection: the lock of the migrations belongs to it, and is released with it.
    let (writer, mut connection) = options.hosts.writer(options.bound).await?;
    prepare(&mut connection).await?;
    connection.close().await.map_err(Failure::from)?;
    Ok(Connections::new(pool, writer, options.hosts.clone(), options.bound))
}

/// Connects once, with the server's own settings.
pub(super) async fn connect(options: &PostgresOptions) -> Result<PgConnection, StoreError> {
    let (_, connection) = options.hosts.writer(options.bound).await?;
    Ok(connection)
}

async fn prepare(connection: &mut PgConnection) -> Result<(), Failure> {
    refuse_foreign(connection).await?;
    migration_mark::refuse_unfinished(connection).await?;
    migrate(connection).await
}

/// Creates or migrates the schema.
pub(super) async fn migrate(connection: &mut PgConnection) -> Result<(), Failure> {
    // Not `run`: its bound on `Acquire` makes this future impossible to spawn.
    migrations::MIGRATIONS.run_direct(None, connection, false).await.map_err(migration_failure)?;
    refuse_newer(connection).await
}

const NEEDS: &str = "SELECT needs FROM carillon";

/// Refuses a schema that a newer program has made without the parts that this program needs.
async fn refuse_newer(connection: &mut PgConnection) -> Result<(), Failure> {
    let needs: i64 = sqlx::query_scalar(NEEDS).fetch_one(connection).await?;
    let known = migrations::newest();
    if needs > known {
        let text = format!(
            "its schema is for programs that know version {needs}, and this one knows {known}: use a newer program"
        );
        return Err(StoreError::Corrupt(text).into());
    }
    Ok(())
}

/// Selects tables of a schema without our mark.
///
/// A first start that was cut off leaves only the migrations' own table.
const FOREIGN_TABLES: &str = "
    SELECT current_setting('server_version_num')::INTEGER AS version, to_regclass('carillon') IS NOT NULL AS ours,
        current_schema() IS NOT NULL AS has_schema,
        EXISTS (SELECT 1 FROM pg_tables WHERE schemaname = current_schema() AND tablename <> '_sqlx_migrations') AS has_tables";

pub(super) async fn refuse_foreign(connection: &mut PgConnection) -> Result<(), Failure> {
    let row = sqlx::query(FOREIGN_TABLES).fetch_one(connection).await?;
    let corrupt = |text: &str| Err(StoreError::Corrupt(text.to_owned()).into());
    if row.try_get::<i32, _>("version")? < OLDEST_SERVER {
        return corrupt("its server is older than PostgreSQL 15");
    }
    if !row.try_get::<bool, _>("has_schema")? {
        return corrupt("the user's search path names no schema that exists");
    }
    if row.try_get::<bool, _>("has_tables")? && !row.try_get::<bool, _>("ours")? {
        return corrupt("the database belongs to another program");
    }
    Ok(())
}

fn migration_failure(error: MigrateError) -> Failure {
    match error {
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => error.into(),
        other => StoreError::Corrupt(other.to_string()).into(),
    }
}
