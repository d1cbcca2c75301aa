//! Reads on connections that cannot write.
//!
//! Each read is one statement, so that it sees one state of the database.

use bytes::Bytes;
use sqlx::sqlite::{SqliteArguments, SqliteConnection, SqliteRow};
use sqlx::{AssertSqlSafe, Row as _, Sqlite};

use super::db::{Db, Statement};
use super::error::Failure;
use super::readers::Readers;
use super::rows;
use carillon_core::clock::UnixMs;
use carillon_core::job::{AttemptRecord, GroupId, Job, JobId, State, TenantId};
use carillon_store::decode::{self, Columns as _};
use carillon_store::unreadable::Page;
use carillon_store::{Backlog, GroupBacklog, JobFilter, JobsQuery, NameFilter, NamesQuery, Stats, lane};

/// Jumps from lane to lane in the index `job_due`: its cost does not depend on the number of jobs.
pub(super) const WAITING: &str = "
    WITH RECURSIVE waiting (lane) AS (
        SELECT min(lane) FROM job WHERE state = 'scheduled' AND blocked = 0
        UNION ALL
        SELECT (SELECT min(lane) FROM job WHERE state = 'scheduled' AND blocked = 0 AND lane > waiting.lane)
        FROM waiting WHERE waiting.lane IS NOT NULL)
    SELECT lane, (SELECT min(run_at) FROM job WHERE state = 'scheduled' AND blocked = 0 AND lane = waiting.lane) AS earliest
    FROM waiting WHERE lane IS NOT NULL";

pub(super) async fn waiting(db: &mut SqliteConnection) -> Result<Vec<GroupBacklog>, Failure> {
    let lane = |row: &SqliteRow| Ok((row.try_get("lane")?, UnixMs(row.try_get("earliest")?)));
    let lanes = sqlx::query(WAITING).fetch_all(db).await?.iter().map(lane).collect::<Result<Vec<_>, Failure>>()?;
    Ok(lane::groups(lanes.into_iter()))
}

/// Reads the index `job_due` from end to end.
pub(super) const BACKLOG: &str = "
    SELECT count(*) AS waiting, count(*) FILTER (WHERE run_at <= ?1) AS due, min(run_at) AS earliest,
        (SELECT page_count FROM pragma_page_count) * (SELECT page_size FROM pragma_page_size) AS bytes
    FROM job WHERE state = 'scheduled' AND blocked = 0";

pub(super) async fn backlog(readers: &Readers, now: UnixMs) -> Result<Backlog, Failure> {
    let row = sqlx::query(BACKLOG).bind(now.0).fetch_one(&mut *readers.take().await?).await?;
    decode::backlog(&row)
}

pub(super) const JOB: &str = "SELECT * FROM job_shown WHERE id = ?1 AND tenant = ?2";

pub(super) async fn job(db: &mut SqliteConnection, tenant: TenantId, id: JobId) -> Result<Option<Job>, Failure> {
    let row = job_statement(tenant, id).fetch_optional(&mut *db).await?;
    row.map(|row| decode::only_job(id, &row)).transpose()
}

/// Reads a job on the connection that may have changed it.
pub(super) async fn job_on(db: &mut Db, tenant: TenantId, id: JobId) -> Result<Option<Job>, Failure> {
    let row = db.fetch_optional(job_statement(tenant, id)).await?;
    row.map(|row| decode::only_job(id, &row)).transpose()
}

fn job_statement(tenant: TenantId, id: JobId) -> Statement<'static> {
    sqlx::query(JOB).bind(rows::id(id)).bind(tenant.0)
}

pub(super) const BODY: &str = "
    SELECT job_spec.body FROM job JOIN job_spec ON job_spec.job = job.id WHERE job.id = ?1 AND job.tenant = ?2";

pub(super) async fn body(db: &mut SqliteConnection, tenant: TenantId, id: JobId) -> Result<Option<Bytes>, Failure> {
    let row = sqlx::query(BODY).bind(rows::id(id)).bind(tenant.0).fetch_optional(&mut *db).await?;
    row.as_ref().map(|row| row.bytes("body")).transpose()
}

/// Selects a filter's jobs in one state, in the order of the index `job_state`.
const IN_STATE: &str = "
    SELECT id FROM job
    WHERE grp = ?1 AND state = '{state}' AND id < ?3 {filter}";

const OF_NAME: &str = "
    SELECT id FROM job
    WHERE grp = ?1 AND name = ?5 AND state IN ({states}) AND id < ?3 {filter}";

/// Further conditions of a filter.
///
/// The labels are given as a list of paths into the spec, with values.
const FILTER: &str = "
    AND (?6 IS NULL OR substr(name, 1, length(?6)) = ?6)
    AND (?7 IS NULL OR created_at >= ?7) AND (?8 IS NULL OR created_at < ?8)
    AND (?4 IS NULL OR run_at >= ?4) AND (?10 IS NULL OR run_at < ?10) AND (?11 IS NULL OR order_key = ?11)
    AND (?12 IS NULL OR ?12 = (SELECT spec ->> '$.target.url' FROM job_spec WHERE job_spec.job = job.id))
    AND (?13 IS NULL OR ?13 = (
        SELECT substr(spec ->> '$.target.url', 1, length(?13)) FROM job_spec WHERE job_spec.job = job.id))
    AND (?9 IS NULL OR NOT EXISTS (
        SELECT 1 FROM json_each(?9) AS wanted CROSS JOIN job_spec ON job_spec.job = job.id
        WHERE wanted.value ->> 'value' IS NOT coalesce(
            spec ->> (wanted.value ->> 'path'), spec ->> (wanted.value ->> 'nested'))))";

/// Returns the statement for the ids of a filter's jobs: by name, or by merging the lists of these states.
fn ids_sql(states: &[State], name: NameFilter) -> String {
    let sql = match name {
        NameFilter::Exact => {
            let states = states.iter().map(|state| format!("'{}'", state.as_str())).collect::<Vec<_>>().join(", ");
            OF_NAME.replace("{states}", &states)
        }
        NameFilter::Any => {
            let in_state = |state: &State| IN_STATE.replace("{state}", state.as_str());
            states.iter().map(in_state).collect::<Vec<_>>().join(" UNION ALL ")
        }
    };
    sql.replace("{filter}", FILTER)
}

/// Returns the statement for a page.
pub(super) fn jobs_sql(states: &[State], name: NameFilter) -> String {
    let ids = ids_sql(states, name);
    format!(
        "SELECT job_shown.* FROM ({ids} ORDER BY id DESC LIMIT ?14) AS page
        CROSS JOIN job_shown ON job_shown.id = page.id
        WHERE EXISTS (SELECT 1 FROM entity WHERE id = ?1 AND tenant = ?2)"
    )
}

/// Returns the statement for a page over all groups of a tenant: a page of each group, and of these jobs the newest.
pub(super) fn jobs_of_tenant_sql(states: &[State], name: NameFilter) -> String {
    let ids = ids_sql(states, name).replace("grp = ?1", "grp = groups.id");
    format!(
        "SELECT job_shown.* FROM (
            SELECT job.id FROM entity AS groups CROSS JOIN job
            WHERE groups.tenant = ?2 AND groups.kind = 'group' AND groups.deleted_at IS NULL AND ?1 IS NOT NULL
                AND job.id IN (SELECT id FROM ({ids} ORDER BY id DESC LIMIT ?14))
            ORDER BY job.id DESC LIMIT ?14) AS page
        CROSS JOIN job_shown ON job_shown.id = page.id"
    )
}

/// Returns the statement that counts.
pub(super) fn count_sql(states: &[State], name: NameFilter) -> String {
    let ids = ids_sql(states, name);
    format!("SELECT count(*) AS jobs FROM ({ids}) WHERE EXISTS (SELECT 1 FROM entity WHERE id = ?1 AND tenant = ?2)")
}

/// Bytes that sort after the 16 bytes of every id.
const AFTER_EVERY_ID: [u8; 17] = [0xff; 17];

type Bound<'q> = sqlx::query::Query<'q, Sqlite, SqliteArguments>;

fn bind<'q>(sql: String, filter: &'q JobFilter, before: Option<JobId>) -> Bound<'q> {
    let before = before.into_iter().chain(filter.accepted_before).min();
    sqlx::query(AssertSqlSafe(sql))
        .bind(filter.group.0)
        .bind(filter.tenant.0)
        .bind(before.map_or(AFTER_EVERY_ID.to_vec(), rows::id))
        .bind(filter.due_from.map(|at| at.0))
        .bind(filter.name.as_deref())
        .bind(filter.name_prefix.as_deref())
        .bind(filter.created_from.map(|at| at.0))
        .bind(filter.created_before.map(|at| at.0))
        .bind(wanted(filter))
        .bind(filter.due_before.map(|at| at.0))
        .bind(filter.order_key.as_deref())
        .bind(filter.url.as_deref())
        .bind(filter.url_prefix.as_deref())
}

/// Returns the labels as paths into the spec: a label `a.b` is a key of that name, or `b` in the namespace `a`.
fn wanted(filter: &JobFilter) -> Option<String> {
    let path = |key: &str, value: &str| {
        let nested = key.split_once('.').map(|(space, key)| format!("$.metadata.\"{space}\".\"{key}\""));
        let path = format!("$.metadata.\"{key}\"");
        serde_json::json!({"nested": nested.unwrap_or_else(|| path.clone()), "path": path, "value": value})
    };
    let paths: Vec<_> = filter.metadata.iter().map(|(key, value)| path(key, value)).collect();
    (!paths.is_empty()).then(|| serde_json::Value::from(paths).to_string())
}

pub(super) async fn jobs(db: &mut SqliteConnection, query: &JobsQuery) -> Result<Vec<Job>, Failure> {
    page(db, query, jobs_sql(query.filter.among(), query.filter.name_filter())).await
}

pub(super) async fn jobs_of_tenant(db: &mut SqliteConnection, query: &JobsQuery) -> Result<Vec<Job>, Failure> {
    page(db, query, jobs_of_tenant_sql(query.filter.among(), query.filter.name_filter())).await
}

async fn page(db: &mut SqliteConnection, query: &JobsQuery, sql: String) -> Result<Vec<Job>, Failure> {
    let mut page = Page::new(query.before, query.limit);
    while let Some((before, limit)) = page.wanted() {
        let asked = bind(sql.clone(), &query.filter, before).bind(limit);
        let found = asked.fetch_all(&mut *db).await?;
        let last = found.iter().filter_map(|row| row.job_id("id").ok()).min();
        page.add(found.len(), last.map(Some), found.iter().filter_map(decode::listed_job));
    }
    let mut jobs = page.items();
    jobs.sort_by_key(|job| std::cmp::Reverse(job.id));
    Ok(jobs)
}

pub(super) async fn count(db: &mut SqliteConnection, filter: &JobFilter) -> Result<u64, Failure> {
    let sql = count_sql(filter.among(), filter.name_filter());
    bind(sql, filter, None).fetch_one(&mut *db).await?.number("jobs")
}

/// Reads the entries of two states of each group in the index `job_state`.
pub(super) const UNFINISHED: &str = "
    SELECT count(*) AS jobs FROM entity AS groups CROSS JOIN job ON job.grp = groups.id
    WHERE groups.tenant = ?1 AND groups.kind = 'group' AND groups.deleted_at IS NULL
        AND job.state IN ('scheduled', 'running')";

pub(super) async fn unfinished(db: &mut SqliteConnection, tenant: TenantId) -> Result<u64, Failure> {
    sqlx::query(UNFINISHED).bind(tenant.0).fetch_one(&mut *db).await?.number("jobs")
}

/// Length of the longest name.
const LAST_CHARACTERS: usize = 64;

/// Jumps from name to name in the index `job_name`.
pub(super) const NEWEST_OF_NAMES: &str = "
    SELECT job_shown.* FROM (
        SELECT name, max(id) AS id FROM job
        WHERE grp = ?1 AND name > ?3 AND name >= ?4 AND name <= ?5 GROUP BY name ORDER BY name LIMIT ?6) AS page
    CROSS JOIN job_shown ON job_shown.id = page.id
    WHERE EXISTS (SELECT 1 FROM entity WHERE id = ?1 AND tenant = ?2)
    ORDER BY page.name";

pub(super) async fn newest_of_names(db: &mut SqliteConnection, query: &NamesQuery) -> Result<Vec<Job>, Failure> {
    // The upper bound sorts after every name with the prefix: no name is longer, and no character sorts after this one.
    let end = query.prefix.clone() + &"\u{10ffff}".repeat(LAST_CHARACTERS);
    let mut page = Page::new(query.after.clone(), query.limit);
    while let Some((after, limit)) = page.wanted() {
        let asked = sqlx::query(NEWEST_OF_NAMES).bind(query.group.0).bind(query.tenant.0);
        let asked = asked.bind(after).bind(&query.prefix).bind(&end).bind(limit);
        let found = asked.fetch_all(&mut *db).await?;
        let last = found.last().and_then(|row| row.try_get("name").ok());
        page.add(found.len(), last, found.iter().filter_map(decode::listed_job));
    }
    Ok(page.items())
}

pub(super) const ATTEMPTS: &str = "
    SELECT attempt.* FROM job CROSS JOIN attempt ON attempt.job = job.id
    WHERE job.id = ?1 AND job.tenant = ?2 AND attempt.number > ?3 ORDER BY attempt.number LIMIT ?4";

pub(super) async fn attempts(
    db: &mut SqliteConnection,
    tenant: TenantId,
    id: JobId,
    after: u32,
    limit: u32,
) -> Result<Vec<AttemptRecord>, Failure> {
    let mut page = Page::new(after, limit);
    while let Some((after, limit)) = page.wanted() {
        let query = sqlx::query(ATTEMPTS).bind(rows::id(id)).bind(tenant.0).bind(after).bind(limit);
        let found = query.fetch_all(&mut *db).await?;
        let number = |row: &SqliteRow| row.number("number").ok();
        let readable = found.iter().filter_map(|row| decode::listed_attempt(id, row));
        page.add(found.len(), found.last().and_then(number), readable);
    }
    Ok(page.items())
}

/// Counts entries of `job_state`, and those of `job_due` that are due; reads no job.
pub(super) const STATS: &str = "
    SELECT state, count(*) AS jobs FROM job
    WHERE grp = ?1 AND EXISTS (SELECT 1 FROM entity WHERE id = ?1 AND tenant = ?2) GROUP BY state
    UNION ALL
    SELECT 'available', count(*) FROM level CROSS JOIN job ON job.lane IN (?1 * 20 + level.number, ?1 * 20 + 10 + level.number)
    WHERE state = 'scheduled' AND blocked = 0 AND run_at <= ?3
        AND EXISTS (SELECT 1 FROM entity WHERE id = ?1 AND tenant = ?2)";

pub(super) async fn stats(
    db: &mut SqliteConnection,
    tenant: TenantId,
    group: GroupId,
    now: UnixMs,
) -> Result<Stats, Failure> {
    let query = sqlx::query(STATS).bind(group.0).bind(tenant.0).bind(now.0);
    decode::stats(&query.fetch_all(&mut *db).await?)
}
