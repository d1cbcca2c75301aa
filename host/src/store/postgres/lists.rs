//! Lists of jobs, of those that are over and those that are not, merged.

use sqlx::postgres::{PgArguments, PgConnection};
use sqlx::{AssertSqlSafe, Postgres};
use uuid::Uuid;

use super::error::Failure;
use super::{job_rows, rows};
use crate::job::{Job, JobId, State};
use crate::store::documents::to_json;
use crate::store::{JobFilter, JobsQuery, NamesQuery};

/// A filter's jobs in one state, in the order of the index `job_state` or `job_done_state`.
const IN_STATE: &str = "
    SELECT id FROM {table}
    WHERE grp = $1 AND state = '{state}' AND id < $3 AND ($4::TEXT IS NULL OR state = $4) AND ($5::TEXT IS NULL OR name = $5)
        {filter}";

/// A filter's jobs of one name, in the order of the index `job_name` or `job_done_name`.
const OF_NAME: &str = "
    SELECT id FROM {table}
    WHERE grp = $1 AND name = $5 AND id < $3 AND ($4::TEXT IS NULL OR state = $4) {filter}";

/// The rest of a filter.
const FILTER: &str = "
    AND ($6::TEXT IS NULL OR starts_with(name, $6))
    AND ($7::BIGINT IS NULL OR created_at >= $7) AND ($8::BIGINT IS NULL OR created_at < $8)
    AND ($9::TEXT IS NULL OR EXISTS (SELECT 1 FROM job_spec WHERE job_spec.job = {table}.id AND labels @> $9::JSONB))";

/// The ids of a filter's jobs: by name, in one state, or by merging the lists of all states. `rest` ends each of the lists.
fn ids_sql(state: Option<State>, of_name: bool, rest: &str) -> String {
    let list = |sql: &str, table: &str| {
        let sql = sql.replace("{filter}", FILTER).replace("{table}", table);
        format!("({sql} {rest})")
    };
    let in_state = |state: State| {
        let table = if state.is_final() { "job_done" } else { "job" };
        list(&IN_STATE.replace("{state}", state.as_str()), table)
    };
    match state {
        _ if of_name => ["job", "job_done"].map(|table| list(OF_NAME, table)).join(" UNION ALL "),
        Some(state) => in_state(state),
        None => State::ALL.map(in_state).join(" UNION ALL "),
    }
}

/// The statement for a page: as many of each list as go on a page, and of them the newest. The `OFFSET` keeps the view from being joined
/// as a whole.
pub(super) fn jobs_sql(state: Option<State>, of_name: bool) -> String {
    let ids = ids_sql(state, of_name, "ORDER BY id DESC LIMIT $10");
    format!(
        "SELECT shown.* FROM (SELECT id FROM ({ids}) AS lists ORDER BY id DESC LIMIT $10) AS page
        CROSS JOIN LATERAL (SELECT * FROM job_shown WHERE job_shown.id = page.id OFFSET 0) AS shown
        WHERE EXISTS (SELECT 1 FROM entity WHERE entity.id = $1 AND entity.tenant = $2)"
    )
}

/// The statement that counts.
fn count_sql(state: Option<State>, of_name: bool) -> String {
    let ids = ids_sql(state, of_name, "");
    format!(
        "SELECT count(*) AS jobs FROM ({ids}) AS lists
        WHERE EXISTS (SELECT 1 FROM entity WHERE entity.id = $1 AND entity.tenant = $2)"
    )
}

type Bound<'q> = sqlx::query::Query<'q, Postgres, PgArguments>;

fn bind<'q>(sql: String, filter: &'q JobFilter, before: Option<JobId>) -> Result<Bound<'q>, Failure> {
    let labels: Vec<String> = filter.metadata.iter().map(|(name, value)| job_rows::label(name, value)).collect();
    let labels = if labels.is_empty() { None } else { Some(to_json(&labels)?) };
    Ok(sqlx::query(AssertSqlSafe(sql))
        .bind(filter.group.0)
        .bind(filter.tenant.0)
        .bind(before.map_or(Uuid::max(), |before| before.0))
        .bind(filter.state.map(State::as_str))
        .bind(filter.name.as_deref())
        .bind(filter.name_prefix.as_deref())
        .bind(filter.created_from.map(|at| at.0))
        .bind(filter.created_before.map(|at| at.0))
        .bind(labels))
}

/// Whether it asks for a name that nothing can have: no name has the character zero in it, and PostgreSQL knows no such text.
fn asks_for_nothing(filter: &JobFilter) -> bool {
    [&filter.name, &filter.name_prefix].into_iter().flatten().any(|name| name.contains('\0'))
}

pub(super) async fn jobs(db: &mut PgConnection, query: &JobsQuery) -> Result<Vec<Job>, Failure> {
    if asks_for_nothing(&query.filter) {
        return Ok(Vec::new());
    }
    let sql = jobs_sql(query.filter.state, query.filter.name.is_some());
    let found = bind(sql, &query.filter, query.before)?.bind(i64::from(query.limit)).fetch_all(db).await?;
    let mut jobs = found.iter().map(rows::job).collect::<Result<Vec<_>, _>>()?;
    jobs.sort_by_key(|job| std::cmp::Reverse(job.id));
    Ok(jobs)
}

pub(super) async fn count(db: &mut PgConnection, filter: &JobFilter) -> Result<u64, Failure> {
    if asks_for_nothing(filter) {
        return Ok(0);
    }
    let sql = count_sql(filter.state, filter.name.is_some());
    rows::number(&bind(sql, filter, None)?.fetch_one(db).await?, "jobs")
}

/// Jumps from name to name in the indexes `job_name` and `job_done_name`.
pub(super) const NEWEST_OF_NAMES: &str = "
    WITH RECURSIVE named (name, nth) AS (
        SELECT least(
            (SELECT min(name) FROM job WHERE grp = $1 AND name > $3 AND name >= $4),
            (SELECT min(name) FROM job_done WHERE grp = $1 AND name > $3 AND name >= $4)), 1
        UNION ALL
        SELECT least(
            (SELECT min(job.name) FROM job WHERE grp = $1 AND job.name > named.name),
            (SELECT min(job_done.name) FROM job_done WHERE grp = $1 AND job_done.name > named.name)), nth + 1
        FROM named WHERE starts_with(named.name, $4) AND nth < $5
    ), page AS MATERIALIZED (
        SELECT named.name, greatest(
            (SELECT id FROM job WHERE grp = $1 AND job.name = named.name ORDER BY id DESC LIMIT 1),
            (SELECT id FROM job_done WHERE grp = $1 AND job_done.name = named.name ORDER BY id DESC LIMIT 1)) AS newest
        FROM named WHERE starts_with(named.name, $4)
    )
    SELECT shown.* FROM page
    CROSS JOIN LATERAL (SELECT * FROM job_shown WHERE job_shown.id = page.newest OFFSET 0) AS shown
    WHERE EXISTS (SELECT 1 FROM entity WHERE entity.id = $1 AND entity.tenant = $2)
    ORDER BY page.name";

pub(super) async fn newest_of_names(db: &mut PgConnection, query: &NamesQuery) -> Result<Vec<Job>, Failure> {
    if query.limit == 0 || [&query.prefix, &query.after].iter().any(|text| text.contains('\0')) {
        return Ok(Vec::new());
    }
    let asked = sqlx::query(NEWEST_OF_NAMES).bind(query.group.0).bind(query.tenant.0);
    let asked = asked.bind(&query.after).bind(&query.prefix).bind(i64::from(query.limit));
    asked.fetch_all(db).await?.iter().map(rows::job).collect()
}
