//! Reads, on connections that cannot write. Each is one statement, so that it sees one state of the database.

use bytes::Bytes;
use sqlx::sqlite::SqlitePool;

use super::error::Failure;
use super::rows;
use crate::clock::UnixMs;
use crate::job::{AttemptRecord, GroupId, Job, JobId, State, TenantId};
use crate::store::{JobsQuery, Stats, Waiting};

/// Jumps from group to group in the index `job_due`: its cost does not depend on the number of jobs.
pub(super) const WAITING: &str = "
    WITH RECURSIVE waiting (grp) AS (
        SELECT min(grp) FROM job WHERE state = 'scheduled'
        UNION ALL
        SELECT (SELECT min(grp) FROM job WHERE state = 'scheduled' AND grp > waiting.grp)
        FROM waiting WHERE waiting.grp IS NOT NULL)
    SELECT grp, (SELECT min(run_at) FROM job WHERE state = 'scheduled' AND grp = waiting.grp) AS earliest
    FROM waiting WHERE grp IS NOT NULL";

pub(super) async fn waiting(pool: &SqlitePool) -> Result<Vec<Waiting>, Failure> {
    let found = sqlx::query(WAITING).fetch_all(pool).await?;
    let waiting = |row| {
        Ok(Waiting { group: GroupId(rows::number(row, "grp")?), earliest: UnixMs(rows::number(row, "earliest")?) })
    };
    found.iter().map(waiting).collect()
}

pub(super) const JOB: &str = "SELECT * FROM job_shown WHERE id = ?1 AND tenant = ?2";

pub(super) async fn job(pool: &SqlitePool, tenant: TenantId, id: JobId) -> Result<Option<Job>, Failure> {
    let row = sqlx::query(JOB).bind(rows::id(id)).bind(tenant.0).fetch_optional(pool).await?;
    row.as_ref().map(rows::job).transpose()
}

pub(super) const BODY: &str = "
    SELECT job_spec.body FROM job JOIN job_spec ON job_spec.job = job.id WHERE job.id = ?1 AND job.tenant = ?2";

pub(super) async fn body(pool: &SqlitePool, tenant: TenantId, id: JobId) -> Result<Option<Bytes>, Failure> {
    let row = sqlx::query(BODY).bind(rows::id(id)).bind(tenant.0).fetch_optional(pool).await?;
    row.as_ref().map(|row| rows::payload(row, "body")).transpose()
}

/// Merges the lists of all states, each of which the index `job_state` has in order.
pub(super) const JOBS: &str = "
    SELECT job_shown.* FROM (
        SELECT id FROM job WHERE grp = ?1 AND state = 'scheduled' AND id < ?3
        UNION ALL SELECT id FROM job WHERE grp = ?1 AND state = 'running' AND id < ?3
        UNION ALL SELECT id FROM job WHERE grp = ?1 AND state = 'succeeded' AND id < ?3
        UNION ALL SELECT id FROM job WHERE grp = ?1 AND state = 'dead' AND id < ?3
        UNION ALL SELECT id FROM job WHERE grp = ?1 AND state = 'expired' AND id < ?3
        UNION ALL SELECT id FROM job WHERE grp = ?1 AND state = 'cancelled' AND id < ?3
        ORDER BY id DESC LIMIT ?4) AS page
    CROSS JOIN job_shown ON job_shown.id = page.id
    WHERE EXISTS (SELECT 1 FROM entity WHERE id = ?1 AND tenant = ?2)";

pub(super) const JOBS_IN_STATE: &str = "
    SELECT job_shown.* FROM (
        SELECT id FROM job WHERE grp = ?1 AND state = ?5 AND id < ?3 ORDER BY id DESC LIMIT ?4) AS page
    CROSS JOIN job_shown ON job_shown.id = page.id
    WHERE EXISTS (SELECT 1 FROM entity WHERE id = ?1 AND tenant = ?2)";

pub(super) const JOBS_OF_NAME: &str = "
    SELECT job_shown.* FROM (
        SELECT id FROM job WHERE grp = ?1 AND name = ?6 AND (?5 IS NULL OR state = ?5) AND id < ?3
        ORDER BY id DESC LIMIT ?4) AS page
    CROSS JOIN job_shown ON job_shown.id = page.id
    WHERE EXISTS (SELECT 1 FROM entity WHERE id = ?1 AND tenant = ?2)";

/// Sorts after the 16 bytes of every id.
const AFTER_EVERY_ID: [u8; 17] = [0xff; 17];

pub(super) async fn jobs(pool: &SqlitePool, query: &JobsQuery) -> Result<Vec<Job>, Failure> {
    let sql = match (&query.name, query.state) {
        (Some(_), _) => JOBS_OF_NAME,
        (None, Some(_)) => JOBS_IN_STATE,
        (None, None) => JOBS,
    };
    let found = sqlx::query(sql)
        .bind(query.group.0)
        .bind(query.tenant.0)
        .bind(query.before.map_or(AFTER_EVERY_ID.to_vec(), rows::id))
        .bind(query.limit)
        .bind(query.state.map(State::as_str))
        .bind(query.name.as_deref())
        .fetch_all(pool)
        .await?;
    let mut jobs = found.iter().map(rows::job).collect::<Result<Vec<_>, _>>()?;
    jobs.sort_by_key(|job| std::cmp::Reverse(job.id));
    Ok(jobs)
}

pub(super) const ATTEMPTS: &str = "
    SELECT attempt.* FROM job CROSS JOIN attempt ON attempt.job = job.id
    WHERE job.id = ?1 AND job.tenant = ?2 AND attempt.number > ?3 ORDER BY attempt.number LIMIT ?4";

pub(super) async fn attempts(
    pool: &SqlitePool,
    tenant: TenantId,
    id: JobId,
    after: u32,
    limit: u32,
) -> Result<Vec<AttemptRecord>, Failure> {
    let query = sqlx::query(ATTEMPTS).bind(rows::id(id)).bind(tenant.0).bind(after).bind(limit);
    query.fetch_all(pool).await?.iter().map(rows::attempt).collect()
}

/// Counts entries of `job_state`, and those of `job_due` that are due; reads no job.
pub(super) const STATS: &str = "
    SELECT state, count(*) AS jobs FROM job
    WHERE grp = ?1 AND EXISTS (SELECT 1 FROM entity WHERE id = ?1 AND tenant = ?2) GROUP BY state
    UNION ALL
    SELECT 'available', count(*) FROM job
    WHERE state = 'scheduled' AND grp = ?1 AND run_at <= ?3
        AND EXISTS (SELECT 1 FROM entity WHERE id = ?1 AND tenant = ?2)";

pub(super) async fn stats(pool: &SqlitePool, tenant: TenantId, group: GroupId, now: UnixMs) -> Result<Stats, Failure> {
    let mut stats = Stats::default();
    for row in sqlx::query(STATS).bind(group.0).bind(tenant.0).bind(now.0).fetch_all(pool).await? {
        let jobs = rows::number(&row, "jobs")?;
        if sqlx::Row::try_get::<&str, _>(&row, "state")? == "available" {
            stats.available = jobs;
            continue;
        }
        match rows::word::<State>(&row, "state")? {
            State::Scheduled => stats.scheduled = jobs,
            State::Running => stats.running = jobs,
            State::Succeeded => stats.succeeded = jobs,
            State::Dead => stats.dead = jobs,
            State::Expired => stats.expired = jobs,
            State::Cancelled => stats.cancelled = jobs,
        }
    }
    stats.in_flight = stats.running;
    stats.delayed = stats.scheduled.saturating_sub(stats.available);
    Ok(stats)
}
