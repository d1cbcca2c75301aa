//! Opening a database: is it there, is it ours, is its schema the one this program knows?
//!
//! Nodes may start at the same time: migrations run under a lock of the database.

use std::str::FromStr;
use std::time::Duration;

use sqlx::migrate::{MigrateError, Migrator};
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool, PgPoolOptions};
use sqlx::{ConnectOptions as _, Connection as _, Row as _};

use super::error::Failure;
use crate::store::{Durability, StoreError};

pub(super) static MIGRATIONS: Migrator = sqlx::migrate!("migrations/postgres");

/// The oldest server that the statements are written and tested for: PostgreSQL 15.
const OLDEST_SERVER: i32 = 150_000;

/// The most connections of a node.
const CONNECTIONS: u32 = 16;

/// How long a verb waits for a free connection, or for the server to answer at all.
const CONNECTION_WAIT: Duration = Duration::from_secs(10);

/// Where the database is and how it is written.
#[derive(Clone, Debug)]
pub struct PostgresOptions {
    connect: PgConnectOptions,
    durability: Durability,
}

impl PostgresOptions {
    /// These options, with another durability.
    #[must_use]
    pub fn with(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }
}

impl FromStr for PostgresOptions {
    type Err = String;

    /// Reads `postgres://user:password@host:port/database?sslmode=…`, as other programs write it. The error does not repeat the URL,
    /// which may have a password in it.
    fn from_str(url: &str) -> Result<Self, Self::Err> {
        if !["postgres://", "postgresql://"].iter().any(|scheme| url.starts_with(scheme)) {
            return Err("it does not begin with `postgres://`".to_owned());
        }
        let connect = url.parse::<PgConnectOptions>().map_err(|error| error.to_string())?;
        Ok(Self { connect: connect.disable_statement_logging(), durability: Durability::default() })
    }
}

/// Every statement is written as a walk along an index from a few rows to a few others. So no table is to be read as a whole because it
/// was small when the plan was made, and no statement is worth compiling. A node that hangs in the middle of a transaction must not keep its locks.
pub(super) const SESSION: &str = "
    SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL READ COMMITTED, READ WRITE;
    SET enable_seqscan = off;
    SET enable_bitmapscan = off;
    SET enable_hashjoin = off;
    SET enable_mergejoin = off;
    SET jit = off;
    SET idle_in_transaction_session_timeout = '30s';
    SET application_name = 'carillon'";

/// An answered write is on disk, even if the server's own default is otherwise. (What waits for standbys waits longer still.)
const FULL: &str =
    "SELECT set_config('synchronous_commit', 'on', FALSE) WHERE current_setting('synchronous_commit') = 'off'";

const NORMAL: &str = "SET synchronous_commit = off";

/// Connects, and brings the schema up to date.
pub(super) async fn open(options: &PostgresOptions) -> Result<PgPool, StoreError> {
    let durability = match options.durability {
        Durability::Full => FULL,
        Durability::Normal => NORMAL,
    };
    let pool = PgPoolOptions::new()
        .max_connections(CONNECTIONS)
        .acquire_timeout(CONNECTION_WAIT)
        .after_connect(move |connection, _| {
            Box::pin(async move {
                sqlx::raw_sql(SESSION).execute(&mut *connection).await?;
                sqlx::raw_sql(durability).execute(connection).await?;
                Ok(())
            })
        })
        .connect_lazy_with(options.connect.clone());
    // A connection of its own: the lock of the migrations belongs to it, and goes with it.
    let prepared = tokio::time::timeout(CONNECTION_WAIT, options.connect.connect()).await;
    let mut connection = prepared
        .map_err(|_| StoreError::Unavailable("the database does not answer".to_owned()))?
        .map_err(Failure::from)?;
    prepare(&mut connection).await?;
    connection.close().await.map_err(Failure::from)?;
    Ok(pool)
}

async fn prepare(connection: &mut PgConnection) -> Result<(), Failure> {
    refuse_foreign(connection).await?;
    // Not `run`: its bound on `Acquire` makes this future impossible to spawn.
    MIGRATIONS.run_direct(None, connection, false).await.map_err(migration_failure)
}

/// A schema with tables that does not carry our mark. (A first start that was cut off leaves only the migrations' own table.)
const FOREIGN_TABLES: &str = "
    SELECT current_setting('server_version_num')::INTEGER AS version, to_regclass('carillon') IS NOT NULL AS ours,
        current_schema() IS NOT NULL AS has_schema,
        EXISTS (SELECT 1 FROM pg_tables WHERE schemaname = current_schema() AND tablename <> '_sqlx_migrations') AS has_tables";

async fn refuse_foreign(connection: &mut PgConnection) -> Result<(), Failure> {
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
        MigrateError::VersionMissing(version) => {
            let known = MIGRATIONS.iter().map(|migration| migration.version).max().unwrap_or(0);
            let text =
                format!("its schema has version {version}, but this program knows only {known}: use a newer program");
            StoreError::Corrupt(text).into()
        }
        other => StoreError::Corrupt(other.to_string()).into(),
    }
}
