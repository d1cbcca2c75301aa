//! Rows of leased jobs and of their earlier attempts.

use std::cmp::Reverse;
use std::collections::HashMap;

use bytes::Bytes;

use super::{Columns, Failure, job_with, lease, past};
use crate::unreadable::{Claimed, UnreadableJob, note, note_attempt};
use crate::{Abort, StoreError, lane};
use carillon_core::clock::UnixMs;
use carillon_core::job::{HISTORY_LIMIT, JobId, Lease, LeasedJob, Past, Spec};

/// Returns the numbers of the first and the last earlier attempt that a leased job's policies see; None if it has spent none.
pub fn history_range<E: Failure>(job: &impl Columns<E>) -> Result<Option<(i64, i64)>, E> {
    let (base, last) = (job.i64("attempt_base")?, job.i64("attempt_count")?);
    let limit = i64::try_from(HISTORY_LIMIT).unwrap_or(i64::MAX);
    Ok((last > base).then(|| (base.max(last.saturating_sub(limit)).saturating_add(1), last)))
}

/// Combines rows into leased jobs, in the order of priority, `run_at` and id; `rest` returns the request and the payload of a job's row.
///
/// Unreadable jobs are kept apart: they must not keep the others from being delivered.
pub fn claimed<E: Failure, R: Columns<E>>(
    jobs: &[R],
    history: &[R],
    rest: impl Fn(&R) -> Result<(Spec, Bytes), E>,
) -> Claimed {
    let mut histories = histories(history);
    let mut claimed = Claimed::default();
    for row in jobs {
        match one(row, &rest, &mut histories) {
            Ok(one) => claimed.leased.push(one),
            Err(error) => claimed.unreadable.extend(unreadable(row, error.into())),
        }
    }
    claimed.leased.sort_by_key(|leased| (Reverse(leased.job.priority), leased.job.run_at, leased.job.id));
    claimed
}

/// Returns the earlier attempts of each job, without those that cannot be read.
fn histories<E: Failure, R: Columns<E>>(rows: &[R]) -> HashMap<JobId, Vec<Past>> {
    let mut histories: HashMap<JobId, Vec<Past>> = HashMap::new();
    for row in rows {
        match row.job_id("job").and_then(|job| Ok((job, past(row)?))) {
            Ok((job, past)) => histories.entry(job).or_default().push(past),
            Err(error) => note_attempt(row.job_id("job").ok().zip(row.number("number").ok()), &error.into()),
        }
    }
    histories
}

/// Notes an unreadable job.
///
/// None if its lease cannot be read either.
fn unreadable<E: Failure>(row: &impl Columns<E>, error: StoreError) -> Option<UnreadableJob> {
    note(row.job_id("id").ok(), &error);
    Some(UnreadableJob { lease: lease(row).ok()?, attempt_count: row.number("attempt_count").ok(), error })
}

fn one<E: Failure, R: Columns<E>>(
    row: &R,
    rest: impl Fn(&R) -> Result<(Spec, Bytes), E>,
    histories: &mut HashMap<JobId, Vec<Past>>,
) -> Result<LeasedJob, E> {
    let (spec, body) = rest(row)?;
    let job = job_with(row, None, spec, u64::try_from(body.len()).unwrap_or(u64::MAX))?;
    let mut history = histories.remove(&job.id).unwrap_or_default();
    history.sort_by_key(|past| past.number);
    // For policies, attempts count from the last redrive.
    history.iter_mut().for_each(|past| past.number = past.number.saturating_sub(job.attempt_base));
    let (_, token) = lease(row)?;
    Ok(LeasedJob {
        token,
        lost_leases: row.number("lost_leases")?,
        until: row.time("lease_until")?,
        body,
        history,
        job,
    })
}

/// Reads a lease and its end.
pub fn ending<E: Failure>(row: &impl Columns<E>) -> Result<(Lease, UnixMs), E> {
    Ok((lease(row)?, row.time("lease_until")?))
}

/// Reads a lease whose attempt is to be cut off.
pub fn abort<E: Failure>(row: &impl Columns<E>) -> Result<Abort, E> {
    let (_, mode) = lane::group(row.i64("lane")?);
    Ok(Abort { lease: lease(row)?, mode })
}
