//! Mapping of rows to the types of the store: written once for all databases, which differ in their statements only.
//!
//! A value that does not fit is [`StoreError::Corrupt`], never a panic. Every function is compiled for the driver's own row, so that reading a
//! column is a direct call.

pub mod entity;
pub mod leased;

use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

use bytes::Bytes;
use serde::de::DeserializeOwned;

use super::{Backlog, Stats, StoreError, TickRecord, Ticked, lane, unreadable};
use carillon_core::clock::UnixMs;
use carillon_core::error_code::ErrorCode;
use carillon_core::job::{AttemptRecord, GroupId, Job, JobId, Lease, Past, SkippedTicks, Spec, State, TenantId, Token};

/// Error of a backend, which holds a [`StoreError`].
pub trait Failure: From<StoreError> + Into<StoreError> {}

impl<T: From<StoreError> + Into<StoreError>> Failure for T {}

/// Row of a driver: its values, by the names of their columns.
///
/// The required methods are the driver's; the others are the same for all. `E` is the error of the backend.
pub trait Columns<E: Failure> {
    /// Reads a number.
    fn i64(&self, column: &str) -> Result<i64, E>;

    /// Reads a number, or NULL.
    fn opt_i64(&self, column: &str) -> Result<Option<i64>, E>;

    /// Reads a truth value.
    fn bool(&self, column: &str) -> Result<bool, E>;

    /// Reads a text.
    fn text(&self, column: &str) -> Result<&str, E>;

    /// Reads a text, or NULL.
    fn opt_text(&self, column: &str) -> Result<Option<&str>, E>;

    /// Reads bytes, such as a payload.
    fn bytes(&self, column: &str) -> Result<Bytes, E>;

    /// Reads a job's id.
    fn job_id(&self, column: &str) -> Result<JobId, E>;

    /// Reads a job's id, or NULL.
    fn opt_job_id(&self, column: &str) -> Result<Option<JobId>, E>;

    /// Reads a number of another type.
    fn number<T: TryFrom<i64>>(&self, column: &str) -> Result<T, E> {
        let value = self.i64(column)?;
        T::try_from(value).map_err(|_| corrupt(column, format_args!("{value} is out of range")).into())
    }

    /// Reads a number of another type, or NULL.
    fn opt_number<T: TryFrom<i64>>(&self, column: &str) -> Result<Option<T>, E> {
        let Some(value) = self.opt_i64(column)? else { return Ok(None) };
        T::try_from(value).map(Some).map_err(|_| corrupt(column, format_args!("{value} is out of range")).into())
    }

    /// Reads a time.
    fn time(&self, column: &str) -> Result<UnixMs, E> {
        self.i64(column).map(UnixMs)
    }

    /// Reads a time, or NULL.
    fn opt_time(&self, column: &str) -> Result<Option<UnixMs>, E> {
        Ok(self.opt_i64(column)?.map(UnixMs))
    }

    /// Reads one of several words.
    fn word<T: FromStr<Err = String>>(&self, column: &str) -> Result<T, E> {
        self.text(column)?.parse().map_err(|error| corrupt(column, error).into())
    }

    /// Reads one of several words, or NULL.
    fn opt_word<T: FromStr<Err = String>>(&self, column: &str) -> Result<Option<T>, E> {
        let Some(word) = self.opt_text(column)? else { return Ok(None) };
        word.parse().map(Some).map_err(|error| corrupt(column, error).into())
    }

    /// Reads an error code, also one of a newer version, or NULL.
    fn opt_error_code(&self, column: &str) -> Result<Option<ErrorCode>, E> {
        Ok(self.opt_text(column)?.map(ErrorCode::parse))
    }

    /// Reads a document.
    fn document<T: DeserializeOwned>(&self, column: &str) -> Result<T, E> {
        serde_json::from_str(self.text(column)?).map_err(|error| corrupt(column, error).into())
    }
}

/// Returns the error for a column whose value does not fit.
pub fn corrupt(column: &str, what: impl Display) -> StoreError {
    StoreError::Corrupt(format!("column `{column}`: {what}"))
}

/// Reads a row of the view `job_shown`.
pub fn job<E: Failure>(row: &impl Columns<E>) -> Result<Job, E> {
    job_with(row, row.opt_time("finished_at")?, row.document("spec")?, row.number("body_len")?)
}

/// Reads the row of one job that was asked for: a row that cannot be read is [`StoreError::Unreadable`].
pub fn only_job<E: Failure>(id: JobId, row: &impl Columns<E>) -> Result<Job, E> {
    job(row).map_err(|error| {
        unreadable::note(Some(id), &error.into());
        StoreError::Unreadable(id).into()
    })
}

/// Reads a row of the view `job_shown` for a list, which leaves a row out that cannot be read.
pub fn listed_job<E: Failure>(row: &impl Columns<E>) -> Option<Job> {
    unreadable::readable(row.job_id("id").ok(), job(row))
}

/// Reads a row of the table of jobs, with the values that other tables may hold.
fn job_with<E: Failure>(
    row: &impl Columns<E>,
    finished_at: Option<UnixMs>,
    spec: Spec,
    body_len: u64,
) -> Result<Job, E> {
    Ok(Job {
        id: row.job_id("id")?,
        tenant: TenantId(row.i64("tenant")?),
        group: GroupId(row.i64("grp")?),
        name: row.opt_text("name")?.map(str::to_owned),
        state: row.word("state")?,
        run_at: row.time("run_at")?,
        created_at: row.time("created_at")?,
        finished_at,
        deadline: row.opt_time("deadline")?,
        max_delay: row.opt_number("max_delay")?.map(Duration::from_millis),
        priority: lane::priority(row.i64("lane")?),
        order_key: row.opt_text("order_key")?.map(str::to_owned),
        seed: row.number("seed")?,
        attempt_count: row.number("attempt_count")?,
        attempt_base: row.number("attempt_base")?,
        revision: row.i64("revision")?,
        last_status: row.opt_number("last_status")?,
        last_error: row.opt_error_code("last_error")?,
        cancel_requested: row.bool("cancel_requested")?,
        spec,
        body_len,
    })
}

/// Reads the part of an attempt that policies see.
fn past<E: Failure>(row: &impl Columns<E>) -> Result<Past, E> {
    Ok(Past {
        number: row.number("number")?,
        started_at: row.time("started_at")?,
        finished_at: row.time("finished_at")?,
        outcome: row.word("outcome")?,
        status: row.opt_number("status")?,
    })
}

/// Reads an attempt of a job; None if it cannot be read, which is noted.
pub fn listed_attempt<E: Failure>(job: JobId, row: &impl Columns<E>) -> Option<AttemptRecord> {
    let attempt = || -> Result<AttemptRecord, E> {
        let Past { number, started_at, finished_at, outcome, status } = past(row)?;
        let (response_body, detail) = (row.bytes("response_body")?, row.document("detail")?);
        Ok(AttemptRecord { number, started_at, finished_at, outcome, status, response_body, detail })
    };
    let note =
        |error: E| unreadable::note_attempt(row.number("number").ok().map(|number| (job, number)), &error.into());
    attempt().map_err(note).ok()
}

/// Reads the lease of a job's row.
pub fn lease<E: Failure>(row: &impl Columns<E>) -> Result<Lease, E> {
    Ok((row.job_id("id")?, Token(row.i64("token")?)))
}

/// Reads the order key of a job's row, with its group.
pub fn order_key<E: Failure>(row: &impl Columns<E>) -> Result<Option<(i64, String)>, E> {
    let Some(key) = row.opt_text("order_key")? else { return Ok(None) };
    Ok(Some((row.i64("grp")?, key.to_owned())))
}

/// Reads the progress of a schedule.
pub fn ticked<E: Failure>(row: &impl Columns<E>) -> Result<Ticked, E> {
    Ok(Ticked {
        schedule: row.i64("schedule")?,
        last: row.time("last")?,
        runs: row.number("runs")?,
        extra: row.number("extra")?,
        skipped: row.number("skipped")?,
        reason: row.opt_word("reason")?,
    })
}

/// Reads the record of a tick, or of several skipped ticks.
pub fn tick_record<E: Failure>(row: &impl Columns<E>) -> Result<TickRecord, E> {
    let at = row.time("at")?;
    let skipped = match row.opt_word("reason")? {
        None => None,
        Some(reason) => Some(SkippedTicks {
            first: row.time("skipped_from")?,
            last: at,
            count: row.number("skipped_count")?,
            reason,
        }),
    };
    Ok(TickRecord { at, job: row.opt_job_id("job")?, skipped })
}

/// Reads the numbers of waiting jobs.
pub fn backlog<E: Failure>(row: &impl Columns<E>) -> Result<Backlog, E> {
    Ok(Backlog {
        waiting: row.number("waiting")?,
        due: row.number("due")?,
        earliest: row.opt_time("earliest")?,
        database_bytes: row.number("bytes")?,
    })
}

/// Reads the counts of a group's jobs: a row for each state, and one for the available jobs.
pub fn stats<E: Failure, R: Columns<E>>(rows: &[R]) -> Result<Stats, E> {
    let count = |row: &R| {
        let state = match row.text("state")? {
            "available" => None,
            _ => Some(row.word::<State>("state")?),
        };
        Ok((state, row.number("jobs")?))
    };
    Ok(Stats::from_counts(rows.iter().map(count).collect::<Result<Vec<_>, E>>()?))
}
