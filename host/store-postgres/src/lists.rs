//! Lists of jobs, merged from the tables of ended and of unfinished jobs.

use sqlx::postgres::{PgArguments, PgConnection};
use sqlx::{AssertSqlSafe, Postgres, Row as _};
use uuid::Uuid;

use super::error::Failure;
use carillon_core::job::{Job, JobId, State};
use carillon_store::decode::{self, Columns as _};
use carillon_store::documents::to_json;
use carillon_store::labels::label;
use carillon_store::unreadable::Page;
use carillon_store::{JobFilter, JobsQuery, NameFilter, NamesQuery};

/// Selects a group's jobs in one state, in the order of the index `job_state` or `job_done_state`.
const IN_STATE: &str = "SELECT id FROM {table} WHERE grp = $1 AND state = '{state}' AND id < $3";

/// Selects a group's jobs of one name, in the order of the index `job_name` or `job_done_name`.
const OF_NAME: &str = "SELECT id FROM {table} WHERE grp = $1 AND name = $5 AND state IN ({states}) AND id < $3";

/// Further conditions of a filter.
///
/// A spec begins with the target, as JSON that this program wrote. It is not parsed, because it may contain the character zero, which
/// PostgreSQL refuses. $12 and $13 are written as in JSON.
const FILTER: &str = r#"
    AND ($5::TEXT IS NULL OR name = $5) AND ($6::TEXT IS NULL OR starts_with(name, $6))
    AND ($7::BIGINT IS NULL OR created_at >= $7) AND ($8::BIGINT IS NULL OR created_at < $8)
    AND ($9::TEXT IS NULL OR EXISTS (SELECT 1 FROM job_spec WHERE job_spec.job = {table}.id AND labels @> $9::JSONB))
    AND ($4::BIGINT IS NULL OR run_at >= $4) AND ($10::BIGINT IS NULL OR run_at < $10)
    AND ($11::TEXT IS NULL OR order_key = $11)
    AND (coalesce($12::TEXT, $13::TEXT) IS NULL OR EXISTS (
        SELECT 1 FROM (
            SELECT substring(spec FROM '^\{"target":\{"method":"[^"]*","url":"((?:[^"\\]|\\.)*)"') AS url FROM job_spec
            WHERE job_spec.job = {table}.id) AS target
        WHERE ($12 IS NULL OR url = $12) AND ($13 IS NULL OR starts_with(url, $13))))"#;

/// Returns the lists of ids that a filter selects: by name, or in each of these states.
///
/// `rest` ends each of them.
fn ids_sql(states: &[State], name: NameFilter, rest: &str) -> String {
    let list = |sql: &str, table: &str| format!("({sql} {rest})").replace("{table}", table);
    let lists: Vec<String> = match name {
        NameFilter::Exact => {
            let states = states.iter().map(|state| format!("'{}'", state.as_str())).collect::<Vec<_>>().join(", ");
            let sql = OF_NAME.replace("{states}", &states);
            ["job", "job_done"].map(|table| list(&sql, table)).into()
        }
        NameFilter::Any => {
            let in_state = |state: &State| {
                let table = if state.is_final() { "job_done" } else { "job" };
                list(&IN_STATE.replace("{state}", state.as_str()), table)
            };
            states.iter().map(in_state).collect()
        }
    };
    lists.join(" UNION ALL ")
}

/// Returns the statement for a page: a page of each list, and of these jobs the newest.
///
/// The `OFFSET` keeps PostgreSQL from joining the whole view.
pub(super) fn jobs_sql(states: &[State], name: NameFilter) -> String {
    let ids = ids_sql(states, name, &format!("{FILTER} ORDER BY id DESC LIMIT $14"));
    format!(
        "SELECT shown.* FROM (SELECT id FROM ({ids}) AS lists ORDER BY id DESC LIMIT $14) AS page
        CROSS JOIN LATERAL (SELECT * FROM job_shown WHERE job_shown.id = page.id OFFSET 0) AS shown
        WHERE EXISTS (SELECT 1 FROM entity WHERE entity.id = $1 AND entity.tenant = $2)"
    )
}

/// Returns the statement for a page over all groups of a tenant: a page of each group, and of these jobs the newest.
pub(super) fn jobs_of_tenant_sql(states: &[State], name: NameFilter) -> String {
    let ids =
        ids_sql(states, name, &format!("{FILTER} ORDER BY id DESC LIMIT $14")).replace("grp = $1", "grp = groups.id");
    format!(
        "SELECT shown.* FROM (
            SELECT found.id FROM entity AS groups
            CROSS JOIN LATERAL (SELECT id FROM ({ids}) AS lists ORDER BY id DESC LIMIT $14) AS found
            WHERE groups.tenant = $2 AND groups.kind = 'group' AND groups.deleted_at IS NULL AND $1::BIGINT IS NOT NULL
            ORDER BY found.id DESC LIMIT $14) AS page
        CROSS JOIN LATERAL (SELECT * FROM job_shown WHERE job_shown.id = page.id OFFSET 0) AS shown"
    )
}

/// Number of jobs that one counting statement reads, whether they match the filter or not.
const COUNT_WINDOW: i64 = 20_000;

/// Returns the statement that finds the end of a window: the id of its last job, if the window is full.
fn window_sql(states: &[State], name: NameFilter) -> String {
    let ids = ids_sql(states, name, "ORDER BY id DESC LIMIT $4").replace("$5", "$2");
    let unused = match name {
        NameFilter::Exact => "",
        NameFilter::Any => "WHERE $2::TEXT IS NULL",
    };
    format!("SELECT id FROM ({ids}) AS lists {unused} ORDER BY id DESC LIMIT 1 OFFSET $4 - 1")
}

/// Returns the statement that counts the jobs of a window.
fn count_sql(states: &[State], name: NameFilter) -> String {
    let ids = ids_sql(states, name, &format!("{FILTER} AND id >= $14"));
    format!(
        "SELECT count(*) AS jobs FROM ({ids}) AS lists
        WHERE EXISTS (SELECT 1 FROM entity WHERE entity.id = $1 AND entity.tenant = $2)"
    )
}

type Bound<'q> = sqlx::query::Query<'q, Postgres, PgArguments>;

fn bind<'q>(sql: String, filter: &'q JobFilter, before: Option<JobId>) -> Result<Bound<'q>, Failure> {
    let labels: Vec<String> = filter.metadata.iter().map(|(name, value)| label(name, value)).collect();
    let labels = if labels.is_empty() { None } else { Some(to_json(&labels)?) };
    let before = before.into_iter().chain(filter.accepted_before).min();
    Ok(sqlx::query(AssertSqlSafe(sql))
        .bind(filter.group.0)
        .bind(filter.tenant.0)
        .bind(before.map_or(Uuid::max(), |before| before.0))
        .bind(filter.due_from.map(|at| at.0))
        .bind(filter.name.as_deref())
        .bind(filter.name_prefix.as_deref())
        .bind(filter.created_from.map(|at| at.0))
        .bind(filter.created_before.map(|at| at.0))
        .bind(labels)
        .bind(filter.due_before.map(|at| at.0))
        .bind(filter.order_key.as_deref())
        .bind(filter.url.as_deref().map(in_json).transpose()?)
        .bind(filter.url_prefix.as_deref().map(in_json).transpose()?))
}

/// Returns a text as it is written between the quotes of JSON.
fn in_json(text: &str) -> Result<String, Failure> {
    let quoted = to_json(&text)?;
    Ok(quoted[1..quoted.len() - 1].to_owned())
}

/// Returns whether the filter names a name or a key with the character zero, which no stored job has: PostgreSQL cannot store such texts.
fn asks_for_nothing(filter: &JobFilter) -> bool {
    [&filter.name, &filter.name_prefix, &filter.order_key].into_iter().flatten().any(|name| name.contains('\0'))
}

pub(super) async fn jobs(db: &mut PgConnection, query: &JobsQuery) -> Result<Vec<Job>, Failure> {
    page(db, query, jobs_sql(query.filter.among(), query.filter.name_filter())).await
}

pub(super) async fn jobs_of_tenant(db: &mut PgConnection, query: &JobsQuery) -> Result<Vec<Job>, Failure> {
    page(db, query, jobs_of_tenant_sql(query.filter.among(), query.filter.name_filter())).await
}

async fn page(db: &mut PgConnection, query: &JobsQuery, sql: String) -> Result<Vec<Job>, Failure> {
    if asks_for_nothing(&query.filter) {
        return Ok(Vec::new());
    }
    let mut page = Page::new(query.before, query.limit);
    while let Some((before, limit)) = page.wanted() {
        let asked = bind(sql.clone(), &query.filter, before)?.bind(i64::from(limit));
        let found = asked.fetch_all(&mut *db).await?;
        let last = found.iter().filter_map(|row| row.job_id("id").ok()).min();
        page.add(found.len(), last.map(Some), found.iter().filter_map(decode::listed_job));
    }
    let mut jobs = page.items();
    jobs.sort_by_key(|job| std::cmp::Reverse(job.id));
    Ok(jobs)
}

/// Counts jobs window by window, each with statements of a bounded duration, so that a large group takes long and does not fail.
pub(super) struct Count<'f> {
    filter: &'f JobFilter,
    before: Uuid,
    jobs: u64,
}

impl<'f> Count<'f> {
    /// Begins to count a filter's jobs.
    pub(super) fn new(filter: &'f JobFilter) -> Self {
        Self { filter, before: filter.accepted_before.map_or(Uuid::max(), |before| before.0), jobs: 0 }
    }

    /// Counts the next window; returns the total if it was the last one.
    pub(super) async fn window(&mut self, db: &mut PgConnection) -> Result<Option<u64>, Failure> {
        let filter = self.filter;
        if asks_for_nothing(filter) {
            return Ok(Some(0));
        }
        let name = filter.name_filter();
        let window = sqlx::query_scalar::<_, Uuid>(AssertSqlSafe(window_sql(filter.among(), name)));
        let window = window.bind(filter.group.0).bind(filter.name.as_deref()).bind(self.before).bind(COUNT_WINDOW);
        let first = window.fetch_optional(&mut *db).await?;
        let sql = count_sql(filter.among(), name);
        let query = bind(sql, filter, Some(JobId(self.before)))?.bind(first.unwrap_or(Uuid::nil()));
        self.jobs += query.fetch_one(db).await?.number::<u64>("jobs")?;
        let Some(first) = first else { return Ok(Some(self.jobs)) };
        self.before = first;
        Ok(None)
    }
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
    let mut page = Page::new(query.after.clone(), query.limit);
    while let Some((after, limit)) = page.wanted() {
        let asked = sqlx::query(NEWEST_OF_NAMES).bind(query.group.0).bind(query.tenant.0);
        let asked = asked.bind(after).bind(&query.prefix).bind(i64::from(limit));
        let found = asked.fetch_all(&mut *db).await?;
        let last = found.last().and_then(|row| row.try_get("name").ok());
        page.add(found.len(), last, found.iter().filter_map(decode::listed_job));
    }
    Ok(page.items())
}
