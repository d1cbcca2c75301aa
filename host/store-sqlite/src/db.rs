//! The writing connection.
//!
//! Each statement costs a switch to the connection's thread and back, and then waits for its turn among all tasks. Statements that open a
//! transaction, or move its savepoint forward, have neither parameters nor rows: so they are sent together with the next statement.

use futures_util::{TryStreamExt, future};
use sqlx::query::Query;
use sqlx::sqlite::{SqliteArguments, SqliteConnection, SqliteRow};
use sqlx::{AssertSqlSafe, Connection, Execute, Executor, Sqlite};

/// A statement with its parameters.
pub(super) type Statement<'q> = Query<'q, Sqlite, SqliteArguments>;

/// The connection, and the statements that are sent with its next statement.
pub(super) struct Db {
    connection: SqliteConnection,
    before: Option<&'static str>,
}

impl Db {
    pub(super) fn new(connection: SqliteConnection) -> Self {
        Self { connection, before: None }
    }

    /// Sends statements together with the next one, unless others are pending already.
    pub(super) fn before_next(&mut self, statements: &'static str) {
        self.before.get_or_insert(statements);
    }

    /// Rolls back the open transaction, if there is one, and drops the pending statements.
    pub(super) async fn roll_back(&mut self) {
        self.before = None;
        // SQLite has rolled back by itself after some errors; then this statement fails, which is harmless.
        let _ = self.execute(sqlx::query("ROLLBACK")).await;
    }

    pub(super) async fn fetch_all(&mut self, statement: Statement<'_>) -> Result<Vec<SqliteRow>, sqlx::Error> {
        self.with_before(statement)?.fetch_all(&mut self.connection).await
    }

    /// Runs a statement in a transaction of its own, all in one message.
    ///
    /// If it fails, the transaction may still be open.
    pub(super) async fn fetch_all_alone(&mut self, statement: Statement<'_>) -> Result<Vec<SqliteRow>, sqlx::Error> {
        surround("BEGIN IMMEDIATE; ", statement, "; COMMIT")?.fetch_all(&mut self.connection).await
    }

    pub(super) async fn fetch_optional(&mut self, statement: Statement<'_>) -> Result<Option<SqliteRow>, sqlx::Error> {
        self.with_before(statement)?.fetch_optional(&mut self.connection).await
    }

    pub(super) async fn fetch_one(&mut self, statement: Statement<'_>) -> Result<SqliteRow, sqlx::Error> {
        self.with_before(statement)?.fetch_one(&mut self.connection).await
    }

    /// Returns how many rows the statement changed.
    pub(super) async fn execute(&mut self, statement: Statement<'_>) -> Result<u64, sqlx::Error> {
        let statement = self.with_before(statement)?;
        // The pending statements repeat the count of an earlier statement, so only the last result counts.
        let results = self.connection.execute_many(statement);
        results.try_fold(0, |_, result| future::ready(Ok(result.rows_affected()))).await
    }

    pub(super) async fn close(self) -> Result<(), sqlx::Error> {
        self.connection.close().await
    }

    fn with_before<'q>(&mut self, statement: Statement<'q>) -> Result<Statement<'q>, sqlx::Error> {
        let Some(before) = self.before else { return Ok(statement) };
        let statement = surround(&format!("{before}; "), statement, "")?;
        self.before = None;
        Ok(statement)
    }
}

/// Returns a statement with this many further parameters, which are NULL.
pub(super) fn with_nulls(statement: Statement<'_>, count: usize) -> Statement<'_> {
    (0..count).fold(statement, |statement, _| statement.bind(None::<i64>))
}

/// Returns a statement with others around it, which have no parameters.
fn surround<'q>(before: &str, mut statement: Statement<'q>, after: &str) -> Result<Statement<'q>, sqlx::Error> {
    let arguments = statement.take_arguments().map_err(sqlx::Error::Encode)?.unwrap_or_default();
    let sql = format!("{before}{}{after}", statement.sql().as_str());
    Ok(sqlx::query_with(AssertSqlSafe(sql), arguments))
}
