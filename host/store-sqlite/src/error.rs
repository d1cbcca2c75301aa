//! Translates SQLite's errors into store errors for operators.

use carillon_store::{StoreError, figures};

/// Error of a statement or a verb.
///
/// Lets `?` take both a [`StoreError`] and a driver's error.
#[derive(Debug, Clone)]
pub(super) struct Failure(pub(super) StoreError);

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self(error)
    }
}

impl From<Failure> for StoreError {
    fn from(failure: Failure) -> Self {
        failure.0
    }
}

impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Self {
        let error = match &error {
            sqlx::Error::Database(database) => {
                let code = database.code().and_then(|code| code.parse().ok()).unwrap_or(GENERIC);
                of_code(code, database.message())
            }
            sqlx::Error::PoolClosed | sqlx::Error::WorkerCrashed => {
                StoreError::Unavailable("it is shut down".to_owned())
            }
            sqlx::Error::PoolTimedOut => StoreError::Unavailable("all its read connections are busy".to_owned()),
            sqlx::Error::ColumnDecode { .. }
            | sqlx::Error::Decode(_)
            | sqlx::Error::ColumnNotFound(_)
            | sqlx::Error::TypeNotFound { .. }
            | sqlx::Error::RowNotFound => StoreError::Corrupt(error.to_string()),
            _ => StoreError::Unavailable(error.to_string()),
        };
        figures::count_failure(&error);
        Self(error)
    }
}

// Primary result codes, from https://www.sqlite.org/rescode.html.
const GENERIC: i32 = 1;
const PERMISSION: i32 = 3;
const BUSY: i32 = 5;
const LOCKED: i32 = 6;
const READ_ONLY: i32 = 8;
const IO: i32 = 10;
const CORRUPT: i32 = 11;
const FULL: i32 = 13;
const CANNOT_OPEN: i32 = 14;
const CONSTRAINT: i32 = 19;
const NOT_A_DATABASE: i32 = 26;
// Extended codes.
const CONSTRAINT_PRIMARY_KEY: i32 = 1555;
const CONSTRAINT_UNIQUE: i32 = 2067;

/// Returns the error for an extended result code: its low byte is the primary one.
fn of_code(extended: i32, message: &str) -> StoreError {
    match extended & 0xff {
        CONSTRAINT if matches!(extended, CONSTRAINT_PRIMARY_KEY | CONSTRAINT_UNIQUE) => {
            StoreError::Conflict(format!("it exists already ({message})"))
        }
        CONSTRAINT => StoreError::Corrupt(format!("a constraint of the schema refused a change: {message}")),
        CORRUPT => StoreError::Corrupt(format!("the database file is damaged: {message}")),
        NOT_A_DATABASE => StoreError::Corrupt("the file is not an SQLite database".to_owned()),
        FULL => StoreError::Full(message.to_owned()),
        BUSY | LOCKED => StoreError::Unavailable(format!("another process holds the database: {message}")),
        READ_ONLY | PERMISSION => StoreError::Unavailable(format!("the database may not be written to: {message}")),
        CANNOT_OPEN => StoreError::Unavailable(format!("the database file cannot be opened: {message}")),
        IO => StoreError::Unavailable(format!("reading or writing the database failed: {message}")),
        _ => StoreError::Unavailable(message.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use sqlx::Connection;
    use sqlx::sqlite::SqliteConnection;

    /// Returns the error of the last of `statements` in an empty database.
    async fn failure_of(statements: &'static str) -> StoreError {
        let mut connection = SqliteConnection::connect("sqlite::memory:").await.unwrap();
        let error = sqlx::raw_sql(statements).execute(&mut connection).await.unwrap_err();
        Failure::from(error).into()
    }

    #[tokio::test]
    async fn full_disk_has_an_error_of_its_own() {
        let error = failure_of(
            "PRAGMA max_page_count = 2; CREATE TABLE t (a); CREATE TABLE u (a); INSERT INTO t VALUES (zeroblob(100000))",
        )
        .await;
        assert!(matches!(&error, StoreError::Full(_)), "{error}");
    }

    #[tokio::test]
    async fn a_duplicate_is_a_conflict_and_a_broken_check_is_not() {
        let error = failure_of("CREATE TABLE t (a UNIQUE); INSERT INTO t VALUES (1), (1)").await;
        assert!(matches!(error, StoreError::Conflict(_)), "{error}");
        let error = failure_of("CREATE TABLE t (a CHECK (a = 2)); INSERT INTO t VALUES (1)").await;
        assert!(matches!(error, StoreError::Corrupt(_)), "{error}");
    }

    #[tokio::test]
    async fn a_read_only_database_is_unavailable() {
        let error = failure_of("PRAGMA query_only = 1; CREATE TABLE t (a)").await;
        assert!(matches!(&error, StoreError::Unavailable(text) if text.contains("may not be written")), "{error}");
    }
}
