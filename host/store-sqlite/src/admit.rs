//! Stores jobs under a condition: once for an idempotency key, a dedupe key, a debounce key, or a schedule's tick; or in place of other jobs.
//!
//! The writer runs one call after the other, so what is read here still holds when the transaction is committed.

use sqlx::sqlite::SqliteRow;

use super::db::{Db, with_nulls};
use super::error::Failure;
use super::job_rows::{self, Row};
use super::producer_keys::Memory;
use super::ticks::{PUT_TICK, PUT_TICKED};
use super::{change, debounce, order_keys, rows, ticks};
use carillon_core::clock::UnixMs;
use carillon_core::job::{Admission, JobId, Overlap, SkippedTicks, State, Tick, stands_for_later};
use carillon_store::decode::{self, Columns as _};
use carillon_store::documents::{Answered, DEDUPE, IDEMPOTENCY, dedupe_key};
use carillon_store::{IdempotentRequest, InsertOutcome, InsertResult, JobChange, Replaced, are_unconditional};

/// Stores the jobs of one call, in order.
pub(super) async fn place(
    db: &mut Db,
    jobs: &[Row],
    once: Option<&IdempotentRequest>,
) -> Result<InsertResult, Failure> {
    if let Some(once) = once
        && let Some(answer) = replay(db, once).await?
    {
        return Ok(InsertResult::Replayed(answer));
    }
    let mut placed = Vec::with_capacity(jobs.len());
    if are_unconditional(jobs) {
        job_rows::write(db, &jobs.iter().collect::<Vec<_>>()).await?;
        placed.extend(jobs.iter().map(|row| InsertOutcome::stored(&row.job)));
    } else {
        for row in jobs {
            placed.push(one(db, row).await?);
        }
    }
    if let Some(once) = once
        && let Some(answered) = Answered::record(once, &placed)?
    {
        let memory = Memory { tenant: once.tenant, kind: IDEMPOTENCY, key: &once.key };
        memory.write(db, once.expires_at, None, &answered).await?;
    }
    Ok(InsertResult::Placed(placed))
}

async fn replay(db: &mut Db, once: &IdempotentRequest) -> Result<Option<String>, Failure> {
    let memory = Memory { tenant: once.tenant, kind: IDEMPOTENCY, key: &once.key };
    let Some(found) = memory.read(db, once.now).await? else { return Ok(None) };
    Ok(Some(Answered::replay(&found.doc, once)?))
}

async fn one(db: &mut Db, row: &Row) -> Result<InsertOutcome, Failure> {
    match &row.job.admission {
        Admission::Always => {
            job_rows::write(db, &[row]).await?;
            Ok(InsertOutcome::stored(&row.job))
        }
        Admission::Unique { key, window } => {
            let key = dedupe_key(row.job.group, key);
            let memory = Memory { tenant: row.job.tenant, kind: DEDUPE, key: &key };
            if let Some(first) = memory.job(db, row.job.created_at).await?.filter(stands_for_later) {
                return Ok(InsertOutcome::Duplicate(Box::new(first)));
            }
            memory.write(db, row.job.created_at.plus(*window), Some(row.job.id), "{}").await?;
            job_rows::write(db, &[row]).await?;
            Ok(InsertOutcome::stored(&row.job))
        }
        Admission::Debounced(debounce) => debounce::place(db, row, debounce).await,
        Admission::Tick(tick) => tick_of(db, row, tick).await,
        Admission::Replace { moved } => replace(db, row, *moved).await,
    }
}

/// Running jobs are cancelled when their attempt is over.
pub(super) const CANCEL_OF_NAME: &str = "
    UPDATE job SET
        state            = CASE state WHEN 'scheduled' THEN 'cancelled' ELSE state END,
        finished_at      = CASE state WHEN 'scheduled' THEN ?3 END,
        cancel_requested = (state = 'running')
    WHERE grp = ?1 AND name = ?2 AND finished_at IS NULL
    RETURNING id, state, grp, order_key";

/// Concurrent requests may be carried out in another order than that of their jobs' ids. The newest job of a name is always the one that was
/// stored last: jobs with later ids lose the name.
pub(super) const UNNAME_LATER: &str = "UPDATE job SET name = NULL WHERE grp = ?1 AND name = ?2 AND id > ?3";

async fn replace(db: &mut Db, row: &Row, moved: Option<JobId>) -> Result<InsertOutcome, Failure> {
    let mut cancelled = Vec::new();
    let now = row.job.created_at;
    if let Some(moved) = moved {
        let withdrawn = change::change(db, row.job.tenant, &[moved], &JobChange::Withdraw, now).await?;
        match Replaced::after_withdrawal(withdrawn.first()) {
            Replaced::Cancelled => cancelled.push(moved),
            Replaced::Ended => {
                change::change(db, row.job.tenant, &[moved], &JobChange::Purge, now).await?;
            }
            Replaced::Kept => return Ok(InsertOutcome::Skipped),
        }
    }
    let query = sqlx::query(CANCEL_OF_NAME).bind(row.job.group.0).bind(row.job.name.as_deref());
    let found = db.fetch_all(query.bind(now.0)).await?;
    cancelled.extend(cancelled_of(db, &found).await?);
    let query = sqlx::query(UNNAME_LATER).bind(row.job.group.0).bind(row.job.name.as_deref());
    db.execute(query.bind(rows::id(row.job.id))).await?;
    job_rows::write(db, &[row]).await?;
    Ok(InsertOutcome::stored_instead(&row.job, cancelled))
}

pub(super) const TICK: &str = "SELECT job IS NOT NULL AS ran FROM tick WHERE schedule = ?1 AND at = ?2";

pub(super) const RUNS: &str = "SELECT runs - extra AS runs FROM ticked WHERE schedule = ?1";

pub(super) const UNFINISHED_OF_SCHEDULE: &str = "
    SELECT EXISTS (SELECT 1 FROM job WHERE schedule = ?1 AND finished_at IS NULL) AS unfinished";

/// The attempts of running jobs are cut off.
pub(super) const CANCEL_OF_SCHEDULE: &str = "
    UPDATE job SET
        state            = CASE state WHEN 'scheduled' THEN 'cancelled' ELSE state END,
        finished_at      = CASE state WHEN 'scheduled' THEN ?2 END,
        cancel_requested = (state = 'running'),
        abort_requested  = (state = 'running')
    WHERE schedule = ?1 AND finished_at IS NULL
    RETURNING id, state, grp, order_key";

async fn tick_of(db: &mut Db, row: &Row, tick: &Tick) -> Result<InsertOutcome, Failure> {
    let found = db.fetch_optional(sqlx::query(TICK).bind(tick.schedule).bind(tick.at.0)).await?;
    let ran = found.map(|found| found.bool("ran")).transpose()?;
    if tick.is_handled(ran) {
        return Ok(InsertOutcome::Skipped);
    }
    let runs = db.fetch_optional(sqlx::query(RUNS).bind(tick.schedule)).await?;
    let runs: u64 = runs.map(|found| found.number("runs")).transpose()?.unwrap_or(0);
    let unfinished = tick.overlap == Overlap::Skip && has_unfinished(db, tick.schedule).await?;
    if let Some(reason) = tick.reason_to_skip(runs, unfinished) {
        ticks::put(db, tick.schedule, &SkippedTicks::one(tick.at, reason)).await?;
        return Ok(InsertOutcome::TickSkipped(reason));
    }
    let cancelled = match tick.overlap {
        Overlap::Cancel => cancel_earlier(db, tick.schedule, row.job.created_at).await?,
        Overlap::Skip | Overlap::Queue | Overlap::Allow => Vec::new(),
    };
    job_rows::write(db, &[row]).await?;
    put_tick(db, tick, row.job.id).await?;
    Ok(InsertOutcome::stored_instead(&row.job, cancelled))
}

async fn has_unfinished(db: &mut Db, schedule: i64) -> Result<bool, Failure> {
    db.fetch_one(sqlx::query(UNFINISHED_OF_SCHEDULE).bind(schedule)).await?.bool("unfinished")
}

/// Cancels the unfinished jobs of a schedule; returns the jobs that have ended by it.
async fn cancel_earlier(db: &mut Db, schedule: i64, now: UnixMs) -> Result<Vec<JobId>, Failure> {
    let found = db.fetch_all(sqlx::query(CANCEL_OF_SCHEDULE).bind(schedule).bind(now.0)).await?;
    cancelled_of(db, &found).await
}

/// Returns the jobs that the cancel has ended, and advances the order keys of all jobs found.
async fn cancelled_of(db: &mut Db, found: &[SqliteRow]) -> Result<Vec<JobId>, Failure> {
    let mut cancelled = Vec::new();
    for row in found {
        if row.word::<State>("state")? == State::Cancelled {
            cancelled.push(row.job_id("id")?);
        }
    }
    let keys = found.iter().map(decode::order_key).collect::<Result<Vec<_>, _>>()?;
    order_keys::advance(db, keys.into_iter().flatten()).await?;
    Ok(cancelled)
}

async fn put_tick(db: &mut Db, tick: &Tick, job: JobId) -> Result<(), Failure> {
    let query = sqlx::query(PUT_TICK).bind(tick.schedule).bind(tick.at.0).bind(rows::id(job));
    db.execute(with_nulls(query, 3)).await?;
    let query = sqlx::query(PUT_TICKED).bind(tick.schedule).bind(tick.reached().0).bind(1);
    db.execute(query.bind(i64::from(tick.again)).bind(0)).await?;
    Ok(())
}
