//! The connection that writes.
//!
//! Each statement is a switch to the connection's thread and back, and waits for a turn among all tasks before the next one. What opens a
//! transaction, or moves its savepoint forward, has neither parameters nor rows: so it goes along with the statement behind it.

use futures_util::{TryStreamExt, future};
use sqlx::query::Query;
use sqlx::sqlite::{SqliteArguments, SqliteConnection, SqliteRow};
use sqlx::{AssertSqlSafe, Connection, Execute, Executor, Sqlite};

/// A statement with its parameters.
pub(super) type Statement<'q> = Query<'q, Sqlite, SqliteArguments>;

/// The connection, and what is to go along with its next statement.
pub(super) struct Db {
    connection: SqliteConnection,
    before: Option<&'static str>,
}

impl Db {
    pub(super) fn new(connection: SqliteConnection) -> Self {
        Self { connection, before: None }
    }

    /// Sends statements along with the next one, unless others wait for it already.
    pub(super) fn before_next(&mut self, statements: &'static str) {
        self.before.get_or_insert(statements);
    }

    /// Gives up the open transaction, if there is one, and what was to go along with its next statement.
    pub(super) async fn roll_back(&mut self) {
        self.before = None;
        // SQLite has rolled back by itself after some errors; then this one fails, and that is all right.
        let _ = self.execute(sqlx::query("ROLLBACK")).await;
    }

    pub(super) async fn fetch_all(&mut self, statement: Statement<'_>) -> Result<Vec<SqliteRow>, sqlx::Error> {
        self.with_before(statement)?.fetch_all(&mut self.connection).await
    }

    /// Runs a statement in a transaction of its own, all in one message. If it fails the transaction may be open still.
    pub(super) async fn fetch_all_alone(&mut self, statement: Statement<'_>) -> Result<Vec<SqliteRow>, sqlx::Error> {
        surround("BEGIN IMMEDIATE; ", statement, "; COMMIT")?.fetch_all(&mut self.connection).await
    }

    pub(super) async fn fetch_optional(&mut self, statement: Statement<'_>) -> Result<Option<SqliteRow>, sqlx::Error> {
        self.with_before(statement)?.fetch_optional(&mut self.connection).await
    }

    pub(super) async fn fetch_one(&mut self, statement: Statement<'_>) -> Result<SqliteRow, sqlx::Error> {
        self.with_before(statement)?.fetch_one(&mut self.connection).await
    }

    /// How many rows the statement changed.
    pub(super) async fn execute(&mut self, statement: Statement<'_>) -> Result<u64, sqlx::Error> {
        let statement = self.with_before(statement)?;
        // What went along repeats the number of whatever changed rows before.
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

/// A statement with so many more parameters, which are NULL.
pub(super) fn with_nulls(statement: Statement<'_>, count: usize) -> Statement<'_> {
    (0..count).fold(statement, |statement, _| statement.bind(None::<i64>))
}

/// A statement with others around it, which have no parameters.
fn surround<'q>(before: &str, mut statement: Statement<'q>, after: &str) -> Result<Statement<'q>, sqlx::Error> {
    let arguments = statement.take_arguments().map_err(sqlx::Error::Encode)?.unwrap_or_default();
    let sql = format!("{before}{}{after}", statement.sql().as_str());
    Ok(sqlx::query_with(AssertSqlSafe(sql), arguments))
}
