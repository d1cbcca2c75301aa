//! Ticks of schedules that made no job, and the history of ticks.

use super::db::Db;
use super::error::Failure;
use super::readers::Readers;
use carillon_core::job::SkippedTicks;
use carillon_store::decode::{self, Columns as _};
use carillon_store::documents::to_json;
use carillon_store::{TickRecord, Ticked, TicksQuery};

pub(super) const PUT_TICK: &str = "
    INSERT INTO tick (schedule, at, job, reason, skipped_from, skipped_count) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
    ON CONFLICT (schedule, at) DO UPDATE SET job = excluded.job";

pub(super) const PUT_TICKED: &str = "
    INSERT INTO ticked (schedule, last, runs, extra, skipped) VALUES (?1, ?2, ?3, ?4, ?5)
    ON CONFLICT (schedule) DO UPDATE SET
        last = max(last, excluded.last), runs = runs + excluded.runs, extra = extra + excluded.extra,
        skipped = skipped + excluded.skipped";

pub(super) const LAST: &str = "SELECT last FROM ticked WHERE schedule = ?1";

/// Records that ticks made no job, unless their schedule's progress includes the first of them.
pub(super) async fn skip(db: &mut Db, all: &[(i64, SkippedTicks)]) -> Result<Vec<bool>, Failure> {
    let mut written = Vec::with_capacity(all.len());
    for (schedule, skipped) in all {
        let last = db.fetch_optional(sqlx::query(LAST).bind(schedule)).await?;
        let last: Option<i64> = last.map(|row| row.i64("last")).transpose()?;
        let is_new = last.is_none_or(|last| last < skipped.first.0);
        if is_new {
            put(db, *schedule, skipped).await?;
        }
        written.push(is_new);
    }
    Ok(written)
}

/// Writes one row for ticks that made no job.
pub(super) async fn put(db: &mut Db, schedule: i64, skipped: &SkippedTicks) -> Result<(), Failure> {
    let count = i64::try_from(skipped.count).unwrap_or(i64::MAX);
    let tick = sqlx::query(PUT_TICK).bind(schedule).bind(skipped.last.0).bind(None::<&[u8]>);
    db.execute(tick.bind(skipped.reason.as_str()).bind(skipped.first.0).bind(count)).await?;
    let ticked = sqlx::query(PUT_TICKED).bind(schedule).bind(skipped.last.0).bind(0).bind(0).bind(count);
    db.execute(ticked).await?;
    Ok(())
}

pub(super) const TICKED: &str = "
    SELECT schedule, last, runs, extra, skipped,
        (SELECT reason FROM tick WHERE tick.schedule = ticked.schedule AND tick.at = ticked.last AND tick.job IS NULL) AS reason
    FROM ticked";

/// The same of a JSON list of schedules.
pub(super) const TICKED_OF: &str = "
    SELECT schedule, last, runs, extra, skipped,
        (SELECT reason FROM tick WHERE tick.schedule = ticked.schedule AND tick.at = ticked.last AND tick.job IS NULL) AS reason
    FROM ticked WHERE schedule IN (SELECT value FROM json_each(?1))";

/// Returns the progress of each schedule, or of these.
pub(super) async fn ticked(readers: &Readers, schedules: Option<&[i64]>) -> Result<Vec<Ticked>, Failure> {
    let query = match schedules {
        None => sqlx::query(TICKED),
        Some(schedules) => sqlx::query(TICKED_OF).bind(to_json(&schedules)?),
    };
    query.fetch_all(&mut *readers.take().await?).await?.iter().map(decode::ticked).collect()
}

/// Ticks before 1970 are runs that were requested by hand.
pub(super) const TICKS: &str = "
    SELECT at, job, reason, skipped_from, skipped_count FROM tick
    WHERE schedule = ?1 AND at < ?2 AND at >= 0 ORDER BY at DESC LIMIT ?3";

/// Returns a page of a schedule's ticks.
pub(super) async fn ticks(readers: &Readers, query: &TicksQuery) -> Result<Vec<TickRecord>, Failure> {
    let query = sqlx::query(TICKS).bind(query.schedule).bind(query.before.0).bind(query.limit);
    query.fetch_all(&mut *readers.take().await?).await?.iter().map(decode::tick_record).collect()
}
