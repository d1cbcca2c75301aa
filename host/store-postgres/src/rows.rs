//! Conversion between rows and the types of [`carillon_core::job`].
//!
//! A value that does not fit is [`StoreError::Corrupt`], never a panic.

use std::str::FromStr;
use std::time::Duration;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use sqlx::Row as _;
use sqlx::postgres::PgRow;

use super::error::Failure;
use carillon_core::clock::UnixMs;
use carillon_core::error_code::ErrorCode;
use carillon_core::job::{AttemptRecord, GroupId, Job, JobId, Past, TenantId, Token};
use carillon_store::{StoreError, lane};

/// Reads a column that holds a number of another type.
pub(super) fn number<T: TryFrom<i64>>(row: &PgRow, column: &str) -> Result<T, Failure> {
    let value: i64 = row.try_get(column)?;
    T::try_from(value).map_err(|_| corrupt(column, &format!("{value} is out of range")))
}

fn optional_number<T: TryFrom<i64>>(row: &PgRow, column: &str) -> Result<Option<T>, Failure> {
    let value: Option<i64> = row.try_get(column)?;
    value.map(T::try_from).transpose().map_err(|_| corrupt(column, "a number is out of range"))
}

fn time(row: &PgRow, column: &str) -> Result<UnixMs, Failure> {
    Ok(UnixMs(row.try_get(column)?))
}

fn optional_time(row: &PgRow, column: &str) -> Result<Option<UnixMs>, Failure> {
    Ok(row.try_get::<Option<i64>, _>(column)?.map(UnixMs))
}

/// Reads a column that holds an error code, also one of a newer version, or NULL.
fn error_code(row: &PgRow, column: &str) -> Result<Option<ErrorCode>, Failure> {
    Ok(row.try_get::<Option<&str>, _>(column)?.map(ErrorCode::parse))
}

/// Reads a column that holds one of several words.
pub(super) fn word<T: FromStr<Err = String>>(row: &PgRow, column: &str) -> Result<T, Failure> {
    row.try_get::<&str, _>(column)?.parse().map_err(|error: String| corrupt(column, &error))
}

/// Reads a column that holds one of several words, or NULL.
pub(super) fn word_if_any<T: FromStr<Err = String>>(row: &PgRow, column: &str) -> Result<Option<T>, Failure> {
    let text: Option<&str> = row.try_get(column)?;
    text.map(|text| text.parse().map_err(|error: String| corrupt(column, &error))).transpose()
}

/// Reads the order key of a job's row, with its group.
pub(super) fn order_key(row: &PgRow) -> Result<Option<(i64, String)>, Failure> {
    let (group, key): (i64, Option<String>) = (row.try_get("grp")?, row.try_get("order_key")?);
    Ok(key.map(|key| (group, key)))
}

/// Reads a column that holds a document.
pub(super) fn document<T: DeserializeOwned>(row: &PgRow, column: &str) -> Result<T, Failure> {
    serde_json::from_str(row.try_get(column)?).map_err(|error| corrupt(column, &error.to_string()))
}

/// Reads a column that holds a payload.
pub(super) fn payload(row: &PgRow, column: &str) -> Result<Bytes, Failure> {
    Ok(Bytes::from(row.try_get::<Vec<u8>, _>(column)?))
}

/// Reads a column that holds a job's id.
pub(super) fn job_id(row: &PgRow, column: &str) -> Result<JobId, Failure> {
    Ok(JobId(row.try_get(column)?))
}

pub(super) fn token(row: &PgRow) -> Result<Token, Failure> {
    Ok(Token(row.try_get("token")?))
}

/// Reads a row of `job_shown`.
pub(super) fn job(row: &PgRow) -> Result<Job, Failure> {
    let finished_at = optional_time(row, "finished_at")?;
    job_with(row, finished_at, document(row, "spec")?, number(row, "body_len")?)
}

/// Reads a row of `job` or `job_done`, with the values that other tables hold.
pub(super) fn job_with(
    row: &PgRow,
    finished_at: Option<UnixMs>,
    spec: carillon_core::job::Spec,
    body_len: u64,
) -> Result<Job, Failure> {
    Ok(Job {
        id: job_id(row, "id")?,
        tenant: TenantId(row.try_get("tenant")?),
        group: GroupId(row.try_get("grp")?),
        name: row.try_get("name")?,
        state: word(row, "state")?,
        run_at: time(row, "run_at")?,
        created_at: time(row, "created_at")?,
        finished_at,
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
        spec,
        body_len,
    })
}

pub(super) fn past(row: &PgRow) -> Result<Past, Failure> {
    Ok(Past {
        number: number(row, "number")?,
        started_at: time(row, "started_at")?,
        finished_at: time(row, "finished_at")?,
        outcome: word(row, "outcome")?,
        status: optional_number(row, "status")?,
    })
}

pub(super) fn attempt(row: &PgRow) -> Result<AttemptRecord, Failure> {
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
    StoreError::Corrupt(format!("column `{column}`: {what}")).into()
}
