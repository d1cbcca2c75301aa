//! Reads of single jobs and of counts.
//!
//! Each read is one statement, so that it sees one state of the database: a job that is moving from `job` to `job_done` is seen in exactly
//! one of them.

use bytes::Bytes;
use sqlx::Row as _;
use sqlx::postgres::{PgConnection, PgRow};

use super::error::Failure;
use super::scan_watermarks::{Fronts, Look};
use carillon_core::clock::UnixMs;
use carillon_core::job::{AttemptRecord, GroupId, Job, JobId, TenantId};
use carillon_store::decode::{self, Columns as _};
use carillon_store::unreadable::Page;
use carillon_store::{Backlog, GroupBacklog, Stats, lane};

/// Jumps from lane to lane in the index `job_due`: its cost does not depend on the number of jobs.
pub(super) const WAITING: &str = "
    WITH RECURSIVE waiting (lane) AS (
        SELECT min(lane) FROM job WHERE state = 'scheduled' AND NOT blocked
        UNION ALL
        SELECT (SELECT min(job.lane) FROM job WHERE state = 'scheduled' AND NOT blocked AND job.lane > waiting.lane)
        FROM waiting WHERE waiting.lane IS NOT NULL)
    SELECT lane, (
        SELECT min(run_at) FROM job WHERE state = 'scheduled' AND NOT blocked AND job.lane = waiting.lane) AS earliest
    FROM waiting WHERE lane IS NOT NULL";

/// Reads the first jobs of some lanes, each from its watermark on.
pub(super) const WAITING_IN: &str = "
    SELECT lane, (
        SELECT min(run_at) FROM job
        WHERE state = 'scheduled' AND NOT blocked AND job.lane = known.lane AND run_at >= known.front) AS earliest
    FROM UNNEST($1::BIGINT[], $2::BIGINT[]) AS known (lane, front)
    ORDER BY lane";

pub(super) async fn waiting(db: &mut PgConnection, fronts: &Fronts) -> Result<Vec<GroupBacklog>, Failure> {
    let look = fronts.look();
    let query = match &look {
        Look::Whole { .. } => sqlx::query(WAITING),
        Look::Lanes(lanes, from) => sqlx::query(WAITING_IN).bind(lanes).bind(from),
    };
    let lane = |row: &PgRow| Ok((row.try_get("lane")?, row.try_get("earliest")?));
    let lanes: Vec<(i64, Option<i64>)> =
        query.fetch_all(db).await?.iter().map(lane).collect::<Result<_, sqlx::Error>>()?;
    fronts.found(look, lanes.iter().copied());
    Ok(lane::groups(lanes.into_iter().filter_map(|(lane, earliest)| Some((lane, UnixMs(earliest?))))))
}

pub(super) const JOB: &str = "SELECT * FROM job_shown WHERE id = $1 AND tenant = $2";

/// Reads a job on the connection that may have changed it.
pub(super) async fn job_on(db: &mut PgConnection, tenant: TenantId, id: JobId) -> Result<Option<Job>, Failure> {
    let row = sqlx::query(JOB).bind(id.0).bind(tenant.0).fetch_optional(db).await?;
    row.map(|row| decode::only_job(id, &row)).transpose()
}

pub(super) const BODY: &str = "
    SELECT body FROM job_spec
    WHERE job = $1 AND (
        EXISTS (SELECT 1 FROM job WHERE id = $1 AND tenant = $2)
        OR EXISTS (SELECT 1 FROM job_done WHERE id = $1 AND tenant = $2))";

pub(super) async fn body(db: &mut PgConnection, tenant: TenantId, id: JobId) -> Result<Option<Bytes>, Failure> {
    let row = sqlx::query(BODY).bind(id.0).bind(tenant.0).fetch_optional(db).await?;
    row.as_ref().map(|row| row.bytes("body")).transpose()
}

pub(super) const ATTEMPTS: &str = "
    SELECT number, started_at, finished_at, outcome, status, detail, response_body FROM attempt
    WHERE job = $1 AND number > $3 AND (
        EXISTS (SELECT 1 FROM job WHERE id = $1 AND tenant = $2)
        OR EXISTS (SELECT 1 FROM job_done WHERE id = $1 AND tenant = $2))
    ORDER BY number LIMIT $4";

pub(super) async fn attempts(
    db: &mut PgConnection,
    tenant: TenantId,
    id: JobId,
    after: u32,
    limit: u32,
) -> Result<Vec<AttemptRecord>, Failure> {
    let mut page = Page::new(after, limit);
    while let Some((after, limit)) = page.wanted() {
        let query = sqlx::query(ATTEMPTS).bind(id.0).bind(tenant.0).bind(i64::from(after)).bind(i64::from(limit));
        let found = query.fetch_all(&mut *db).await?;
        let number = |row: &PgRow| row.number("number").ok();
        let readable = found.iter().filter_map(|row| decode::listed_attempt(id, row));
        page.add(found.len(), found.last().and_then(number), readable);
    }
    Ok(page.items())
}

/// Reads the entries of two states of each group in the index `job_state`.
pub(super) const UNFINISHED: &str = "
    SELECT count(*) AS jobs FROM entity AS groups JOIN job ON job.grp = groups.id
    WHERE groups.tenant = $1 AND groups.kind = 'group' AND groups.deleted_at IS NULL
        AND job.state IN ('scheduled', 'running')";

pub(super) async fn unfinished(db: &mut PgConnection, tenant: TenantId) -> Result<u64, Failure> {
    sqlx::query(UNFINISHED).bind(tenant.0).fetch_one(db).await?.number("jobs")
}

/// The lengths of large values are known without reading them.
pub(super) const JOB_BYTES: &str = "
    SELECT ((SELECT coalesce(sum(octet_length(spec)::BIGINT + octet_length(body)), 0) FROM job_spec WHERE job = ANY($1))
        + (SELECT coalesce(sum(octet_length(detail)::BIGINT + octet_length(response_body)), 0)
            FROM attempt WHERE job = ANY($1)))::BIGINT AS bytes";

pub(super) async fn job_bytes(db: &mut PgConnection, ids: &[JobId]) -> Result<u64, Failure> {
    let ids: Vec<_> = ids.iter().map(|id| id.0).collect();
    sqlx::query(JOB_BYTES).bind(ids).fetch_one(db).await?.number("bytes")
}

/// Counts entries of `job_state` and `job_done_state`, and those of `job_due` that are due; reads no job.
pub(super) const STATS: &str = "
    WITH mine AS (SELECT id FROM entity WHERE id = $1 AND tenant = $2)
    SELECT job.state, count(*) AS jobs FROM job JOIN mine ON job.grp = mine.id GROUP BY job.state
    UNION ALL
    SELECT job_done.state, count(*) FROM job_done JOIN mine ON job_done.grp = mine.id GROUP BY job_done.state
    UNION ALL
    SELECT 'available', count(*) FROM mine CROSS JOIN generate_series(0, 19) AS level (number)
    JOIN job ON job.lane = mine.id * 20 + level.number
    WHERE job.state = 'scheduled' AND NOT job.blocked AND job.run_at <= $3";

/// Reads the index `job_due` from end to end.
pub(super) const BACKLOG: &str = "
    SELECT count(*) AS waiting, count(*) FILTER (WHERE run_at <= $1) AS due, min(run_at) AS earliest,
        pg_database_size(current_database()) AS bytes
    FROM job WHERE state = 'scheduled' AND NOT blocked";

pub(super) async fn backlog(db: &mut PgConnection, now: UnixMs) -> Result<Backlog, Failure> {
    let row = sqlx::query(BACKLOG).bind(now.0).fetch_one(db).await?;
    decode::backlog(&row)
}

pub(super) async fn stats(
    db: &mut PgConnection,
    tenant: TenantId,
    group: GroupId,
    now: UnixMs,
) -> Result<Stats, Failure> {
    decode::stats(&sqlx::query(STATS).bind(group.0).bind(tenant.0).bind(now.0).fetch_all(db).await?)
}
