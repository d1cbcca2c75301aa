//! Partitions: the rows of jobs are partitioned by the time of acceptance, so that old ones are dropped as a whole.
//!
//! An era is a span of time and has a partition of each of [`TABLES`]. Removing rows one by one would cost as much as writing them did, and
//! leave vacuum work for the database; dropping a table costs nothing. So an old row of an era stays for a while (see [`spared`]), until
//! everything in its era is old, and then the era is dropped as a whole. If a few of its jobs are not old (they were accepted long before
//! they were due, or had to be repeated, or are kept for longer), they move to the default partitions, and the era is dropped without them.
//!
//! There are never more than [`MAX_ERAS`], however many jobs wait and however old the database is: each era costs every statement that looks
//! for a job a little, and locks. Eras save work only; nothing else depends on them: rows without an era are in the default partitions, and
//! rows that were spared long enough are removed one by one. So work that needs a lock that it does not get soon, or would hold one for long
//! ([`BOUNDS`]), is left for the next time.

use std::time::Duration;

use async_trait::async_trait;
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Row as _};

use super::error::Failure;
use super::locks;
use super::transaction::{Database, Verb};
use carillon_core::clock::UnixMs;
use carillon_core::job::State;
use carillon_store::StoreError;
use carillon_store::housekeeping::Housekeeping;

/// Partitioned tables, each by its job's id.
const TABLES: [&str; 3] = ["job_done", "job_spec", "attempt"];

/// Number of eras in the longest time for which a job is kept.
const ERAS_KEPT: u32 = 32;

/// Largest number of eras.
///
/// If all of them are kept by more than [`MAX_ROWS_TO_REINSERT`] jobs each, no new era begins before one of them is dropped.
const MAX_ERAS: usize = 64;

/// Number of eras that are made before they begin: they cover the time in which a backup, or another long transaction, prevents new ones.
const ERAS_AHEAD: u32 = 4;

/// Shortest length of an era.
const SHORTEST: Duration = Duration::from_secs(60);

/// Time from now until the first era begins; jobs that are being accepted now already have a partition.
const BEGINS_IN: Duration = Duration::from_secs(10);

/// Number of old jobs at which an era is dropped before all of its jobs have reached the longest age.
const MIN_ROWS_TO_TRUNCATE: i64 = 1_000;

/// Largest number of jobs that move to the default partitions so that their era can be dropped.
const MAX_ROWS_TO_REINSERT: i64 = 1_000;

/// Time limits, because all other sessions wait while a lock is requested, and while a statement that holds one runs.
///
/// To make a partition, PostgreSQL searches the default partition for rows that belong to the new one.
const BOUNDS: &str = "SET LOCAL lock_timeout = '100ms'; SET LOCAL statement_timeout = '500ms'";

/// Returns the length of an era, if a job is kept for at most `longest`.
fn length(longest: Duration) -> Duration {
    (longest / ERAS_KEPT).max(SHORTEST)
}

/// Returns how much longer than its retention an old job stays in its era, which will be dropped soon.
///
/// Zero where that is more than half of the retention.
pub(super) fn spared(ended: &[(State, UnixMs)], now: UnixMs, before: UnixMs) -> Duration {
    let spared = length(longest(ended, now)).saturating_mul(5) / 4;
    if spared <= now.since(before) / 2 { spared } else { Duration::ZERO }
}

fn longest(ended: &[(State, UnixMs)], now: UnixMs) -> Duration {
    ended.iter().map(|(_, before)| now.since(*before)).max().unwrap_or_default()
}

/// A span of time, from `from` (included) to `until` (excluded).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Era {
    from: UnixMs,
    until: UnixMs,
}

impl Era {
    /// Returns the next era.
    ///
    /// It ends at a multiple of the length, so that all nodes agree.
    fn next(from: UnixMs, length: Duration) -> Self {
        let length = i64::try_from(length.as_millis()).unwrap_or(i64::MAX).max(1);
        let end = from.0.div_euclid(length).saturating_add(1).saturating_mul(length);
        let until = if end - from.0 < length / 2 { end.saturating_add(length) } else { end };
        Self { from, until: UnixMs(until) }
    }

    fn partition(self, table: &str) -> String {
        format!("{table}_{}", self.from.0)
    }

    fn partitions(self) -> String {
        TABLES.map(|table| self.partition(table)).join(", ")
    }

    /// Returns the bounds as quoted ids: the first 48 bits of an id are its time (RFC 9562, section 5.7).
    fn ids(self) -> (String, String) {
        (first_id(self.from), first_id(self.until))
    }
}

fn first_id(at: UnixMs) -> String {
    let hex = format!("{:012x}", at.0.max(0));
    format!("'{}-{}-0000-0000-000000000000'", &hex[..8], &hex[8..12])
}

/// Makes eras for the time to come, and drops eras in which no job, or few jobs, must be kept.
pub(super) async fn tend(database: &Database, ended: &[(State, UnixMs)], now: UnixMs, done: &mut Housekeeping) {
    let longest = longest(ended, now);
    if longest.is_zero() {
        return;
    }
    // The youngest job of an era ends when the era does, or later.
    let may_be_old = |era: &&Era| ended.iter().any(|(_, before)| era.until <= *before);
    let eras = match database.transact(&List).await {
        Ok(eras) => eras,
        Err(error) => return done.rest("partitions", ignore_lock_timeout(Err(error))),
    };
    let mut left = eras.len();
    for era in eras.iter().filter(may_be_old) {
        let ended = database.transact(&End { era: *era, ended }).await;
        left -= usize::from(ended == Ok(true));
        done.rest("old partitions", ignore_lock_timeout(ended.map(drop)));
    }
    for _ in left..MAX_ERAS {
        match database.transact(&Begin { length: length(longest), now }).await {
            Ok(true) => {}
            begun => return done.rest("new partitions", ignore_lock_timeout(begun.map(drop))),
        }
    }
}

/// Ignores a lock that was not acquired in time: the work is done the next time.
fn ignore_lock_timeout(done: Result<(), StoreError>) -> Result<u64, StoreError> {
    match done {
        Err(StoreError::Unavailable(why)) => {
            tracing::debug!(why, "postponed a change of partitions");
            Ok(0)
        }
        done => done.map(|()| 0),
    }
}

const ERAS: &str = "SELECT from_ms, until_ms FROM era ORDER BY from_ms";

fn era(row: &sqlx::postgres::PgRow) -> Result<Era, Failure> {
    Ok(Era { from: UnixMs(row.try_get("from_ms")?), until: UnixMs(row.try_get("until_ms")?) })
}

/// Lists all eras, the oldest first.
struct List;

#[async_trait]
impl Verb for List {
    type Done = Vec<Era>;

    async fn run(&self, db: &mut PgConnection) -> Result<Vec<Era>, Failure> {
        sqlx::query(ERAS).fetch_all(db).await?.iter().map(era).collect()
    }
}

const NEWEST: &str = "SELECT from_ms, until_ms FROM era ORDER BY from_ms DESC LIMIT 1";

const PUT: &str = "INSERT INTO era (from_ms, until_ms) VALUES ($1, $2)";

/// Makes the next era, if one is missing from now on.
struct Begin {
    length: Duration,
    now: UnixMs,
}

#[async_trait]
impl Verb for Begin {
    /// Whether an era was made.
    type Done = bool;

    async fn run(&self, db: &mut PgConnection) -> Result<bool, Failure> {
        if !locks::try_eras(&mut *db).await? {
            return Ok(false);
        }
        let newest = sqlx::query(NEWEST).fetch_optional(&mut *db).await?.as_ref().map(era).transpose()?;
        let newest = newest.map(|newest| newest.until).filter(|until| *until > self.now);
        if newest.is_some_and(|until| until >= self.now.plus(self.length * ERAS_AHEAD)) {
            return Ok(false);
        }
        let era = Era::next(newest.unwrap_or(self.now.plus(BEGINS_IN)), self.length);
        let (first, last) = era.ids();
        sqlx::raw_sql(BOUNDS).execute(&mut *db).await?;
        for table in TABLES {
            let partition = era.partition(table);
            let sql = format!("CREATE TABLE {partition} PARTITION OF {table} FOR VALUES FROM ({first}) TO ({last})");
            sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut *db).await?;
        }
        sqlx::query(PUT).bind(era.from.0).bind(era.until.0).execute(db).await?;
        Ok(true)
    }
}

/// Drops an era, if all of its jobs are old, or all but a few.
struct End<'a> {
    era: Era,
    ended: &'a [(State, UnixMs)],
}

/// Numbers of an era's jobs, each up to a limit.
struct Count {
    /// Jobs to keep, at most one more than [`MAX_ROWS_TO_REINSERT`].
    kept: i64,
    /// Old jobs, at most [`MIN_ROWS_TO_TRUNCATE`].
    old: i64,
}

impl End<'_> {
    /// Returns the era's ended jobs, joined with the retention of their states.
    fn done(&self) -> String {
        let states = self.ended.iter().map(|(state, before)| format!("('{}', {}::BIGINT)", state.as_str(), before.0));
        let states = states.collect::<Vec<_>>().join(", ");
        let table = self.era.partition("job_done");
        format!(
            "(VALUES {states}) AS kept (state, before) JOIN {table} AS done ON done.state = kept.state AND done.finished_at"
        )
    }

    /// Returns the era's unfinished jobs.
    fn unfinished(&self) -> String {
        let (first, last) = self.era.ids();
        format!("job WHERE id >= {first} AND id < {last}")
    }

    async fn count(&self, db: &mut PgConnection) -> Result<Count, Failure> {
        let (done, unfinished, enough) = (self.done(), self.unfinished(), MAX_ROWS_TO_REINSERT + 1);
        let sql = format!(
            "SELECT
                (SELECT count(*) FROM (SELECT 1 FROM {unfinished} LIMIT {enough}) AS unfinished)
                + (SELECT count(*) FROM (SELECT 1 FROM {done} > before LIMIT {enough}) AS young) AS kept,
                (SELECT count(*) FROM (SELECT 1 FROM {done} <= before LIMIT {MIN_ROWS_TO_TRUNCATE}) AS old) AS old"
        );
        let row = sqlx::query(AssertSqlSafe(sql)).persistent(false).fetch_one(db).await?;
        Ok(Count { kept: row.try_get("kept")?, old: row.try_get("old")? })
    }

    /// Drops the era; jobs that are not old move to the default partitions.
    async fn drop(&self, db: &mut PgConnection) -> Result<bool, Failure> {
        self.lock(&mut *db).await?;
        let Count { kept, .. } = self.count(&mut *db).await?;
        if kept > MAX_ROWS_TO_REINSERT {
            return Ok(false);
        }
        let [_, spec, attempt] = TABLES.map(|table| self.era.partition(table));
        let (ended, unfinished, partitions) = (self.done(), self.unfinished(), self.era.partitions());
        let from = self.era.from.0;
        let sql = format!(
            "CREATE TEMPORARY TABLE kept_done ON COMMIT DROP AS SELECT done.* FROM {ended} > before;
            CREATE TEMPORARY TABLE kept_job ON COMMIT DROP AS SELECT id FROM kept_done UNION ALL SELECT id FROM {unfinished};
            CREATE TEMPORARY TABLE kept_spec ON COMMIT DROP AS
                SELECT kept.* FROM kept_job JOIN {spec} AS kept ON kept.job = kept_job.id;
            CREATE TEMPORARY TABLE kept_attempt ON COMMIT DROP AS
                SELECT kept.* FROM kept_job JOIN {attempt} AS kept ON kept.job = kept_job.id;
            DROP TABLE {partitions};
            DELETE FROM era WHERE from_ms = {from};
            INSERT INTO job_done SELECT * FROM kept_done;
            INSERT INTO job_spec SELECT * FROM kept_spec;
            INSERT INTO attempt SELECT * FROM kept_attempt"
        );
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(db).await?;
        tracing::info!(era = %self.era.from, kept, "dropped the partitions of old jobs");
        Ok(true)
    }

    /// Locks the era's tables.
    ///
    /// From here on no other session reads or writes them, and the next statement sees all that other sessions have written. The tables are
    /// locked before their partitions, as in all other sessions.
    async fn lock(&self, db: &mut PgConnection) -> Result<(), Failure> {
        let parents = TABLES.map(|table| format!("ONLY {table}")).join(", ");
        let sql = format!("{BOUNDS}; LOCK TABLE {parents}, {} IN ACCESS EXCLUSIVE MODE", self.era.partitions());
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(db).await?;
        Ok(())
    }

    /// Returns whether every job that ended with the era is old, whatever its final state is.
    fn is_past(&self) -> bool {
        self.ended.iter().all(|(_, before)| self.era.until <= *before)
    }
}

#[async_trait]
impl Verb for End<'_> {
    /// Whether the era was dropped.
    type Done = bool;

    async fn run(&self, db: &mut PgConnection) -> Result<bool, Failure> {
        if !locks::try_eras(&mut *db).await? {
            return Ok(false);
        }
        match self.count(&mut *db).await? {
            Count { kept: 0, .. } => self.drop(db).await,
            Count { kept, old } if kept <= MAX_ROWS_TO_REINSERT && (old >= MIN_ROWS_TO_TRUNCATE || self.is_past()) => {
                self.drop(db).await
            }
            _ => Ok(false),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    #[test]
    fn eras_follow_each_other_and_none_is_short() {
        let length = Duration::from_millis(1_000);
        let first = Era::next(UnixMs(1_400), length);
        assert_eq!(first, Era { from: UnixMs(1_400), until: UnixMs(2_000) });
        assert_eq!(Era::next(first.until, length).until, UnixMs(3_000));
        assert_eq!(Era::next(UnixMs(1_600), length).until, UnixMs(3_000));
    }

    #[test]
    fn ids_begin_with_the_time() {
        assert_eq!(first_id(UnixMs(0x0190_abcd_ef01)), "'0190abcd-ef01-0000-0000-000000000000'");
    }

    #[test]
    fn nothing_is_kept_half_as_long_again() {
        let now = UnixMs(1_000_000_000_000);
        let days = |days: u32| now.minus(DAY * days);
        let ended = [(State::Dead, days(30)), (State::Succeeded, days(3))];
        assert_eq!(spared(&ended, now, days(3)), DAY * 30 / 32 * 5 / 4);
        let hour = now.minus(DAY / 24);
        assert_eq!(spared(&[(State::Dead, days(30)), (State::Succeeded, hour)], now, hour), Duration::ZERO);
    }
}
