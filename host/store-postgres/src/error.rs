//! Translates PostgreSQL's errors into store errors for operators.

use carillon_store::{StoreError, figures};

/// Error of a statement or a verb.
///
/// Lets `?` take both a [`StoreError`] and a driver's error.
#[derive(Debug, Clone)]
pub(super) struct Failure {
    pub(super) error: StoreError,
    /// Whether a retry may succeed: the transaction was rolled back in favor of another one, or a statement was `outdated`.
    pub(super) again: bool,
    /// Whether a newer program has added to a table since a statement was prepared on this connection.
    pub(super) outdated: bool,
    /// Whether the database stopped the statement, because its time was over.
    pub(super) canceled: bool,
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self { error, again: false, outdated: false, canceled: false }
    }
}

impl From<Failure> for StoreError {
    fn from(failure: Failure) -> Self {
        failure.error
    }
}

impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Self {
        let (mut again, mut outdated, mut canceled) = (false, false, false);
        let error = match &error {
            sqlx::Error::Database(database) => {
                let code = database.code().unwrap_or_default();
                // The only unsupported feature that our statements can meet is "cached plan must not change result type".
                outdated = code == FEATURE_NOT_SUPPORTED;
                canceled = code == QUERY_CANCELED;
                again = outdated || matches!(&*code, SERIALIZATION_FAILURE | DEADLOCK);
                of_code(&code, database.message())
            }
            sqlx::Error::PoolClosed => StoreError::Unavailable("it is shut down".to_owned()),
            sqlx::Error::PoolTimedOut => {
                StoreError::Unavailable("there was no connection to the database in time".to_owned())
            }
            sqlx::Error::ColumnDecode { .. }
            | sqlx::Error::Decode(_)
            | sqlx::Error::Encode(_)
            | sqlx::Error::ColumnNotFound(_)
            | sqlx::Error::TypeNotFound { .. }
            | sqlx::Error::RowNotFound => StoreError::Corrupt(error.to_string()),
            sqlx::Error::Configuration(_) => StoreError::Corrupt(format!("the URL of the store: {error}")),
            _ => StoreError::Unavailable(error.to_string()),
        };
        if !again && !canceled {
            figures::count_failure(&error);
        }
        Self { error, again, outdated, canceled }
    }
}

// SQLSTATE codes, from https://www.postgresql.org/docs/15/errcodes-appendix.html.
const SERIALIZATION_FAILURE: &str = "40001";
const DEADLOCK: &str = "40P01";
const UNIQUE_VIOLATION: &str = "23505";
const DISK_FULL: &str = "53100";
const QUERY_CANCELED: &str = "57014";
const FEATURE_NOT_SUPPORTED: &str = "0A000";

/// Returns the error for an SQLSTATE: its first two characters are its class.
fn of_code(code: &str, message: &str) -> StoreError {
    match code.get(..2) {
        _ if code == UNIQUE_VIOLATION => StoreError::Conflict(format!("it exists already ({message})")),
        _ if code == DISK_FULL => StoreError::Full(message.to_owned()),
        // Integrity constraint violation.
        Some("23") => StoreError::Corrupt(format!("a constraint of the schema refused a change: {message}")),
        // Data exception; syntax error or access rule violation, which includes missing tables.
        Some("22") => StoreError::Corrupt(format!("the database refused a value: {message}")),
        Some("42") => StoreError::Corrupt(format!("the schema is not ours, or not accessible: {message}")),
        // Data corrupted, index corrupted.
        Some("XX") => StoreError::Corrupt(format!("the database is damaged: {message}")),
        Some("53") => StoreError::Unavailable(format!("the database is out of resources: {message}")),
        Some("25") => StoreError::Unavailable(format!("the database may not be written to: {message}")),
        Some("28") => StoreError::Unavailable(format!("the database refuses this user: {message}")),
        Some("3D") => StoreError::Unavailable(format!("the database does not exist: {message}")),
        _ => StoreError::Unavailable(message.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_say_who_must_act() {
        assert!(matches!(of_code("23505", "m"), StoreError::Conflict(_)));
        for damaged in ["23514", "22021", "42P01", "XX001"] {
            assert!(matches!(of_code(damaged, "m"), StoreError::Corrupt(_)), "{damaged}");
        }
        assert!(matches!(of_code("53100", "m"), StoreError::Full(_)));
        for passing in ["53300", "57P01", "25006", "08006", "40P01", ""] {
            assert!(matches!(of_code(passing, "m"), StoreError::Unavailable(_)), "{passing}");
        }
    }
}
