//! Ticks of schedules: each makes one job, on the node that notices it first, or is recorded as skipped.

use async_trait::async_trait;
use sqlx::postgres::PgConnection;

use super::archive;
use super::error::Failure;
use super::job_rows::{self, Row};
use super::locks::{self, Name};
use super::transaction::Verb;
use carillon_core::job::{JobId, Overlap, SkippedTicks, Tick};
use carillon_store::decode::{self, Columns as _};
use carillon_store::{InsertOutcome, TickRecord, Ticked, TicksQuery};

pub(super) const TICK: &str = "SELECT job IS NOT NULL AS ran FROM tick WHERE schedule = $1 AND at = $2";

pub(super) const RUNS: &str = "SELECT runs - extra AS runs FROM ticked WHERE schedule = $1";

pub(super) const UNFINISHED: &str = "SELECT EXISTS (SELECT 1 FROM job WHERE schedule = $1) AS unfinished";

/// Selects a schedule's unfinished jobs, and locks them so that they do not change before the transaction changes them.
pub(super) const OF_SCHEDULE: &str = "
    SELECT id, state, grp, order_key FROM job WHERE schedule = $1 ORDER BY id FOR UPDATE";

/// The attempts of running jobs are cut off.
pub(super) const ABORT: &str = "UPDATE job SET abort_requested = TRUE WHERE schedule = $1 AND state = 'running'";

pub(super) const PUT_TICK: &str = "
    INSERT INTO tick (schedule, at, job, reason, skipped_from, skipped_count) VALUES ($1, $2, $3, $4, $5, $6)
    ON CONFLICT (schedule, at) DO UPDATE SET job = excluded.job";

pub(super) const PUT_TICKED: &str = "
    INSERT INTO ticked (schedule, last, runs, extra, skipped) VALUES ($1, $2, $3, $4, $5)
    ON CONFLICT (schedule) DO UPDATE SET
        last = greatest(ticked.last, excluded.last), runs = ticked.runs + excluded.runs,
        extra = ticked.extra + excluded.extra, skipped = ticked.skipped + excluded.skipped";

/// Stores the job of a tick, or leaves it out; the schedule is locked.
pub(super) async fn place(db: &mut PgConnection, row: &Row, tick: &Tick) -> Result<InsertOutcome, Failure> {
    let found = sqlx::query(TICK).bind(tick.schedule).bind(tick.at.0).fetch_optional(&mut *db).await?;
    let ran = found.map(|found| found.bool("ran")).transpose()?;
    if tick.is_handled(ran) {
        return Ok(InsertOutcome::Skipped);
    }
    let runs = sqlx::query(RUNS).bind(tick.schedule).fetch_optional(&mut *db).await?;
    let runs: u64 = runs.map(|found| found.number("runs")).transpose()?.unwrap_or(0);
    let unfinished = tick.overlap == Overlap::Skip && has_unfinished(db, tick.schedule).await?;
    if let Some(reason) = tick.reason_to_skip(runs, unfinished) {
        put_skipped(db, tick.schedule, &SkippedTicks::one(tick.at, reason)).await?;
        return Ok(InsertOutcome::TickSkipped(reason));
    }
    let cancelled = match tick.overlap {
        Overlap::Cancel => {
            let found = sqlx::query(OF_SCHEDULE).bind(tick.schedule).fetch_all(&mut *db).await?;
            sqlx::query(ABORT).bind(tick.schedule).execute(&mut *db).await?;
            archive::cancel(db, &found, row.job.created_at).await?
        }
        Overlap::Skip | Overlap::Queue | Overlap::Allow => Vec::new(),
    };
    job_rows::write(db, &[row]).await?;
    put_tick(db, tick, row.job.id).await?;
    Ok(InsertOutcome::stored_instead(&row.job, cancelled))
}

async fn has_unfinished(db: &mut PgConnection, schedule: i64) -> Result<bool, Failure> {
    sqlx::query(UNFINISHED).bind(schedule).fetch_one(db).await?.bool("unfinished")
}

async fn put_tick(db: &mut PgConnection, tick: &Tick, job: JobId) -> Result<(), Failure> {
    let query = sqlx::query(PUT_TICK).bind(tick.schedule).bind(tick.at.0).bind(job.0);
    query.bind(None::<&str>).bind(None::<i64>).bind(None::<i64>).execute(&mut *db).await?;
    let query = sqlx::query(PUT_TICKED).bind(tick.schedule).bind(tick.reached().0).bind(1_i64);
    query.bind(i64::from(tick.again)).bind(0_i64).execute(db).await?;
    Ok(())
}

/// Writes one row for ticks that made no job.
async fn put_skipped(db: &mut PgConnection, schedule: i64, skipped: &SkippedTicks) -> Result<(), Failure> {
    let count = i64::try_from(skipped.count).unwrap_or(i64::MAX);
    let query = sqlx::query(PUT_TICK).bind(schedule).bind(skipped.last.0).bind(None::<uuid::Uuid>);
    query.bind(skipped.reason.as_str()).bind(skipped.first.0).bind(count).execute(&mut *db).await?;
    let query = sqlx::query(PUT_TICKED).bind(schedule).bind(skipped.last.0).bind(0_i64).bind(0_i64);
    query.bind(count).execute(db).await?;
    Ok(())
}

pub(super) const LAST: &str = "SELECT last FROM ticked WHERE schedule = $1";

/// Records that ticks made no job, unless their schedule's progress includes the first of them.
pub(super) struct SkipTicks(pub(super) Vec<(i64, SkippedTicks)>);

#[async_trait]
impl Verb for SkipTicks {
    type Done = Vec<bool>;

    async fn run(&self, db: &mut PgConnection) -> Result<Vec<bool>, Failure> {
        locks::take(db, self.0.iter().map(|(schedule, _)| Name::Schedule(*schedule))).await?;
        let mut written = Vec::with_capacity(self.0.len());
        for (schedule, skipped) in &self.0 {
            let last = sqlx::query(LAST).bind(schedule).fetch_optional(&mut *db).await?;
            let last: Option<i64> = last.map(|row| row.i64("last")).transpose()?;
            let is_new = last.is_none_or(|last| last < skipped.first.0);
            if is_new {
                put_skipped(db, *schedule, skipped).await?;
            }
            written.push(is_new);
        }
        Ok(written)
    }
}

pub(super) const TICKED: &str = "
    SELECT schedule, last, runs, extra, skipped,
        (SELECT reason FROM tick WHERE tick.schedule = ticked.schedule AND tick.at = ticked.last AND tick.job IS NULL) AS reason
    FROM ticked ORDER BY schedule";

/// The same of a list of schedules.
pub(super) const TICKED_OF: &str = "
    SELECT schedule, last, runs, extra, skipped,
        (SELECT reason FROM tick WHERE tick.schedule = ticked.schedule AND tick.at = ticked.last AND tick.job IS NULL) AS reason
    FROM ticked WHERE schedule = ANY($1) ORDER BY schedule";

/// Returns the progress of each schedule, or of these.
pub(super) async fn ticked(db: &mut PgConnection, schedules: Option<Vec<i64>>) -> Result<Vec<Ticked>, Failure> {
    let query = match schedules {
        None => sqlx::query(TICKED),
        Some(schedules) => sqlx::query(TICKED_OF).bind(schedules),
    };
    query.fetch_all(db).await?.iter().map(decode::ticked).collect()
}

/// Ticks before 1970 are runs that were requested by hand.
pub(super) const TICKS: &str = "
    SELECT at, job, reason, skipped_from, skipped_count FROM tick
    WHERE schedule = $1 AND at < $2 AND at >= 0 ORDER BY at DESC LIMIT $3";

/// Returns a page of a schedule's ticks.
pub(super) async fn ticks(db: &mut PgConnection, query: &TicksQuery) -> Result<Vec<TickRecord>, Failure> {
    let query = sqlx::query(TICKS).bind(query.schedule).bind(query.before.0).bind(i64::from(query.limit));
    query.fetch_all(db).await?.iter().map(decode::tick_record).collect()
}
