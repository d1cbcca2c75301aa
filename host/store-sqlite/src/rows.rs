//! Conversion between rows and the types of [`carillon_core::job`].
//!
//! A value that does not fit is [`StoreError::Corrupt`], never a panic.

use std::str::FromStr;
use std::time::Duration;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;
use uuid::Uuid;

use super::error::Failure;
use carillon_core::clock::UnixMs;
use carillon_core::error_code::ErrorCode;
use carillon_core::job::{AttemptRecord, GroupId, Job, JobId, Past, TenantId, Token};
use carillon_store::{StoreError, lane};

/// Largest number of rows in one statement.
///
/// SQLite takes 32,766 parameters; a row has at most 12.
pub(super) const PER_STATEMENT: usize = 512;

/// A statement that takes a list of rows in place of `{rows}`.
///
/// Lists are padded with rows of NULLs to a power of two, so that there are few different statements and each is prepared once;
/// the statement must ignore a row whose first column is NULL. It must not begin with `WITH`: SQLite then runs a list as a
/// compound of as many selects.
pub(super) struct Sql {
    /// Number of columns of a row.
    pub(super) columns: usize,
    /// Text of the statement.
    pub(super) text: &'static str,
}

impl Sql {
    /// Returns the statement for at least `count` rows, of which the last may be left unbound.
    pub(super) fn with_rows(&self, count: usize) -> String {
        let row = format!("({})", vec!["?"; self.columns].join(","));
        self.text.replace("{rows}", &vec![row.as_str(); count.next_power_of_two()].join(","))
    }

    /// Returns how many parameters [`Sql::with_rows`] leaves unbound.
    pub(super) fn padding(&self, count: usize) -> usize {
        (count.next_power_of_two() - count) * self.columns
    }
}

/// Encodes a job's id for the database.
pub(super) fn id(id: JobId) -> Vec<u8> {
    id.0.as_bytes().to_vec()
}

/// Reads a column that holds a number of another type.
pub(super) fn number<T: TryFrom<i64>>(row: &SqliteRow, column: &str) -> Result<T, Failure> {
    let value: i64 = row.try_get(column)?;
    T::try_from(value).map_err(|_| corrupt(column, &format!("{value} is out of range")))
}

fn optional_number<T: TryFrom<i64>>(row: &SqliteRow, column: &str) -> Result<Option<T>, Failure> {
    let value: Option<i64> = row.try_get(column)?;
    value.map(T::try_from).transpose().map_err(|_| corrupt(column, "a number is out of range"))
}

fn time(row: &SqliteRow, column: &str) -> Result<UnixMs, Failure> {
    Ok(UnixMs(row.try_get(column)?))
}

fn optional_time(row: &SqliteRow, column: &str) -> Result<Option<UnixMs>, Failure> {
    Ok(row.try_get::<Option<i64>, _>(column)?.map(UnixMs))
}

/// Reads a column that holds an error code, also one of a newer version, or NULL.
fn error_code(row: &SqliteRow, column: &str) -> Result<Option<ErrorCode>, Failure> {
    Ok(row.try_get::<Option<&str>, _>(column)?.map(ErrorCode::parse))
}

/// Reads a column that holds one of several words.
pub(super) fn word<T: FromStr<Err = String>>(row: &SqliteRow, column: &str) -> Result<T, Failure> {
    row.try_get::<&str, _>(column)?.parse().map_err(|error: String| corrupt(column, &error))
}

/// Reads a column that holds one of several words, or NULL.
pub(super) fn word_if_any<T: FromStr<Err = String>>(row: &SqliteRow, column: &str) -> Result<Option<T>, Failure> {
    let text: Option<&str> = row.try_get(column)?;
    text.map(|text| text.parse().map_err(|error: String| corrupt(column, &error))).transpose()
}

/// Reads the order key of a row of `job`, with its group.
pub(super) fn order_key(row: &SqliteRow) -> Result<Option<(i64, String)>, Failure> {
    let (group, key): (i64, Option<String>) = (row.try_get("grp")?, row.try_get("order_key")?);
    Ok(key.map(|key| (group, key)))
}

/// Reads a column that holds a document.
pub(super) fn document<T: DeserializeOwned>(row: &SqliteRow, column: &str) -> Result<T, Failure> {
    serde_json::from_str(row.try_get(column)?).map_err(|error| corrupt(column, &error.to_string()))
}

/// Reads a column that holds a payload.
pub(super) fn payload(row: &SqliteRow, column: &str) -> Result<Bytes, Failure> {
    Ok(Bytes::from(row.try_get::<Vec<u8>, _>(column)?))
}

/// Reads a column that holds a job's id.
pub(super) fn job_id(row: &SqliteRow, column: &str) -> Result<JobId, Failure> {
    let bytes: &[u8] = row.try_get(column)?;
    Uuid::from_slice(bytes).map(JobId).map_err(|error| corrupt(column, &error.to_string()))
}

pub(super) fn token(row: &SqliteRow) -> Result<Token, Failure> {
    Ok(Token(row.try_get("token")?))
}

/// Reads a row of `job_shown`.
pub(super) fn job(row: &SqliteRow) -> Result<Job, Failure> {
    job_with(row, number(row, "body_len")?)
}

/// Reads a row of `job` with its `spec`.
pub(super) fn job_with(row: &SqliteRow, body_len: u64) -> Result<Job, Failure> {
    Ok(Job {
        id: job_id(row, "id")?,
        tenant: TenantId(row.try_get("tenant")?),
        group: GroupId(row.try_get("grp")?),
        name: row.try_get("name")?,
        state: word(row, "state")?,
        run_at: time(row, "run_at")?,
        created_at: time(row, "created_at")?,
        finished_at: optional_time(row, "finished_at")?,
        deadline: optional_time(row, "deadline")?,
        max_delay: optional_number(row, "max_delay")?.map(Duration::from_millis),
        priority: lane::priority(row.try_get("lane")?),
        order_key: row.try_get("order_key")?,
        seed: number(row, "seed")?,
        attempt_count: number(row, "attempt_count")?,
        attempt_base: number(row, "attempt_base")?,
        revision: row.try_get("revision")?,
        last_status: optional_number(row, "last_status")?,
        last_error: error_code(row, "last_error")?,
        cancel_requested: row.try_get("cancel_requested")?,
        spec: document(row, "spec")?,
        body_len,
    })
}

pub(super) fn past(row: &SqliteRow) -> Result<Past, Failure> {
    Ok(Past {
        number: number(row, "number")?,
        started_at: time(row, "started_at")?,
        finished_at: time(row, "finished_at")?,
        outcome: word(row, "outcome")?,
        status: optional_number(row, "status")?,
    })
}

pub(super) fn attempt(row: &SqliteRow) -> Result<AttemptRecord, Failure> {
    let Past { number, started_at, finished_at, outcome, status } = past(row)?;
    let response_body = payload(row, "response_body")?;
    Ok(AttemptRecord {
        number,
        started_at,
        finished_at,
        outcome,
        status,
        response_body,
        detail: document(row, "detail")?,
    })
}

fn corrupt(column: &str, what: &str) -> Failure {
    Failure(StoreError::Corrupt(format!("column `{column}`: {what}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_padded_to_a_power_of_two() {
        let sql = Sql { columns: 2, text: "VALUES {rows}" };
        assert_eq!(sql.with_rows(1), "VALUES (?,?)");
        assert_eq!(sql.with_rows(3), "VALUES (?,?),(?,?),(?,?),(?,?)");
        assert_eq!([1, 3, 4].map(|count| sql.padding(count)), [0, 2, 0]);
    }
}
