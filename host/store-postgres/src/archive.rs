//! Ends of jobs: an ended job moves from `job` to `job_done`.
//!
//! The caller has locked the job's row before and decided from its content, so that the statement here finds it unchanged.

use sqlx::postgres::{PgConnection, PgRow};
use uuid::Uuid;

use super::error::Failure;
use super::order_keys;
use carillon_core::clock::UnixMs;
use carillon_core::job::{JobId, State};
use carillon_store::decode::{self, Columns as _};

pub(super) const FINISH: &str = "
    WITH ended AS (
        SELECT * FROM UNNEST($1::UUID[], $2::TEXT[], $3::BIGINT[], $4::BIGINT[], $5::BOOLEAN[], $6::BIGINT[], $7::TEXT[])
        AS ended (ended_id, final, ended_at, spent, tried, status, error)
    ), gone AS (
        DELETE FROM job USING ended WHERE job.id = ended.ended_id AND job.id = ANY ($1) RETURNING *
    )
    INSERT INTO job_done (id, tenant, grp, lane, run_at, state, finished_at, cancel_requested, token, attempt_count, attempt_base,
        revision, seed, created_at, deadline, ttl, max_delay, schedule, name, order_key, last_status, last_error)
    SELECT id, tenant, grp, lane, run_at, final, ended_at, cancel_requested, token, coalesce(spent, attempt_count), attempt_base,
        revision, seed, created_at, deadline, ttl, max_delay, schedule, name, order_key,
        CASE WHEN tried THEN status ELSE last_status END, CASE WHEN tried THEN error ELSE last_error END
    FROM gone";

/// End of a job.
pub(super) struct Ended {
    pub(super) id: JobId,
    /// Final state.
    pub(super) state: State,
    pub(super) at: UnixMs,
    /// Number of spent attempts, if it changes.
    pub(super) spent: Option<i64>,
    /// Status and error of the last attempt, if one was made or tried.
    pub(super) tried: Option<(Option<i64>, Option<String>)>,
}

/// Moves jobs, whose rows are locked, to the table of ended jobs.
pub(super) async fn finish(db: &mut PgConnection, ended: &[Ended]) -> Result<(), Failure> {
    if ended.is_empty() {
        return Ok(());
    }
    let tried = |it: &Ended| it.tried.clone().unwrap_or_default();
    let query = sqlx::query(FINISH)
        .bind(ended.iter().map(|it| it.id.0).collect::<Vec<Uuid>>())
        .bind(ended.iter().map(|it| it.state.as_str()).collect::<Vec<_>>())
        .bind(ended.iter().map(|it| it.at.0).collect::<Vec<i64>>())
        .bind(ended.iter().map(|it| it.spent).collect::<Vec<_>>())
        .bind(ended.iter().map(|it| it.tried.is_some()).collect::<Vec<bool>>())
        .bind(ended.iter().map(|it| tried(it).0).collect::<Vec<_>>())
        .bind(ended.iter().map(|it| tried(it).1).collect::<Vec<_>>());
    query.execute(db).await?;
    Ok(())
}

pub(super) const REQUEST_CANCEL: &str = "UPDATE job SET cancel_requested = TRUE WHERE id = ANY($1)";

/// Cancels the waiting ones of the jobs; running ones are cancelled when their attempt is over.
///
/// `found` are their locked rows. Returns the jobs that have ended by it, and advances their order keys.
pub(super) async fn cancel(db: &mut PgConnection, found: &[PgRow], at: UnixMs) -> Result<Vec<JobId>, Failure> {
    let (mut ended, mut requested, mut keys) = (Vec::new(), Vec::new(), Vec::new());
    for row in found {
        let id = row.job_id("id")?;
        if row.word::<State>("state")? == State::Running {
            requested.push(id.0);
        } else {
            ended.push(Ended { id, state: State::Cancelled, at, spent: None, tried: None });
            keys.extend(decode::order_key(row)?);
        }
    }
    if !requested.is_empty() {
        sqlx::query(REQUEST_CANCEL).bind(requested).execute(&mut *db).await?;
    }
    finish(db, &ended).await?;
    order_keys::advance(db, keys.into_iter()).await?;
    Ok(ended.into_iter().map(|ended| ended.id).collect())
}
