//! The ticks of schedules: each makes one job, on whichever node it is noticed first.

use sqlx::Row as _;
use sqlx::postgres::{PgConnection, PgRow};

use super::error::Failure;
use super::job_rows::{self, Row};
use super::{done, rows};
use crate::clock::UnixMs;
use crate::job::{JobId, Overlap, Tick};
use crate::store::{Placed, Ticked};

pub(super) const TICK: &str = "SELECT job IS NOT NULL AS ran FROM tick WHERE schedule = $1 AND at = $2";

pub(super) const RUNS: &str = "SELECT runs FROM ticked WHERE schedule = $1";

pub(super) const UNFINISHED: &str = "SELECT EXISTS (SELECT 1 FROM job WHERE schedule = $1) AS unfinished";

/// The lock keeps them as they are until they are dealt with.
pub(super) const OF_SCHEDULE: &str = "
    SELECT id, state, grp, order_key FROM job WHERE schedule = $1 ORDER BY id FOR UPDATE";

pub(super) const PUT_TICK: &str = "
    INSERT INTO tick (schedule, at, job) VALUES ($1, $2, $3)
    ON CONFLICT (schedule, at) DO UPDATE SET job = excluded.job";

pub(super) const PUT_TICKED: &str = "
    INSERT INTO ticked (schedule, last, runs) VALUES ($1, $2, $3)
    ON CONFLICT (schedule) DO UPDATE SET
        last = greatest(ticked.last, excluded.last), runs = ticked.runs + excluded.runs";

/// Stores the job of a tick, or not. The schedule is locked.
pub(super) async fn place(db: &mut PgConnection, row: &Row, tick: &Tick) -> Result<Placed, Failure> {
    let found = sqlx::query(TICK).bind(tick.schedule).bind(tick.at.0).fetch_optional(&mut *db).await?;
    let ran = found.map(|found| found.try_get::<bool, _>("ran")).transpose()?;
    if ran.is_some_and(|ran| ran || !tick.again) {
        return Ok(Placed::Skipped);
    }
    let runs = sqlx::query(RUNS).bind(tick.schedule).fetch_optional(&mut *db).await?;
    let runs: u64 = runs.map(|found| rows::number(&found, "runs")).transpose()?.unwrap_or(0);
    let exhausted = tick.max_runs.is_some_and(|most| runs >= most);
    if exhausted || (tick.overlap == Overlap::Skip && has_unfinished(db, tick.schedule).await?) {
        put_tick(db, tick, None).await?;
        return Ok(Placed::Skipped);
    }
    let cancelled = match tick.overlap {
        Overlap::Cancel => {
            let found = sqlx::query(OF_SCHEDULE).bind(tick.schedule).fetch_all(&mut *db).await?;
            done::cancel(db, &found, row.job.created_at).await?
        }
        Overlap::Skip | Overlap::Queue | Overlap::Allow => Vec::new(),
    };
    job_rows::write(db, &[row]).await?;
    put_tick(db, tick, Some(row.job.id)).await?;
    Ok(Placed::Stored { run_at: row.job.run_at, forgotten: false, cancelled })
}

async fn has_unfinished(db: &mut PgConnection, schedule: i64) -> Result<bool, Failure> {
    Ok(sqlx::query(UNFINISHED).bind(schedule).fetch_one(db).await?.try_get("unfinished")?)
}

async fn put_tick(db: &mut PgConnection, tick: &Tick, job: Option<JobId>) -> Result<(), Failure> {
    let query = sqlx::query(PUT_TICK).bind(tick.schedule).bind(tick.at.0).bind(job.map(|job| job.0));
    query.execute(&mut *db).await?;
    let query = sqlx::query(PUT_TICKED).bind(tick.schedule).bind(tick.at.0).bind(i64::from(job.is_some()));
    query.execute(db).await?;
    Ok(())
}

pub(super) const TICKED: &str = "SELECT schedule, last, runs FROM ticked ORDER BY schedule";

/// How far each schedule has come.
pub(super) async fn ticked(db: &mut PgConnection) -> Result<Vec<Ticked>, Failure> {
    let ticked = |row: &PgRow| {
        let (schedule, last) = (row.try_get("schedule")?, UnixMs(row.try_get("last")?));
        Ok(Ticked { schedule, last, runs: rows::number(row, "runs")? })
    };
    sqlx::query(TICKED).fetch_all(db).await?.iter().map(ticked).collect()
}
