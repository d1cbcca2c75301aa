//! Rows of jobs, and the statements that store them.

use sqlx::postgres::PgConnection;
use uuid::Uuid;

use super::error::Failure;
use super::order_keys;
use carillon_core::clock::UnixMs;
use carillon_core::job::NewJob;
use carillon_store::documents::{millis, to_json};
use carillon_store::labels::labels;
use carillon_store::live_groups::LiveGroups;
use carillon_store::{StoreError, check_count, lane};

/// Selects the groups that accept jobs, with their tenants.
///
/// The lock keeps them from being deleted before the jobs are stored; it blocks neither other inserts nor a change of the group.
pub(super) const LIVE_GROUPS: &str = "
    SELECT id, tenant FROM entity
    WHERE id = ANY($1) AND kind = 'group' AND deleted_at IS NULL
    ORDER BY id FOR KEY SHARE";

/// An id that an ended job has is found in `job_spec`, which has the specs of all jobs.
pub(super) const INSERT: &str = "
    WITH new AS (
        SELECT * FROM UNNEST(
            $1::UUID[], $2::BIGINT[], $3::BIGINT[], $4::BIGINT[], $5::BIGINT[], $6::BIGINT[], $7::BIGINT[], $8::BIGINT[],
            $9::BIGINT[], $10::BIGINT[], $11::TEXT[], $12::TEXT[], $13::TEXT[], $14::TEXT[], $15::BYTEA[])
        AS new (id, tenant, grp, lane, run_at, created_at, deadline, max_delay, seed, schedule, name, order_key, spec, labels, body)
    ), specs AS (
        INSERT INTO job_spec (job, spec, labels, body) SELECT id, spec, labels::JSONB, body FROM new
    )
    INSERT INTO job (id, tenant, grp, lane, run_at, created_at, deadline, max_delay, seed, schedule, name, order_key, state, blocked)
    SELECT id, tenant, grp, lane, run_at, created_at, deadline, max_delay, seed, schedule, name, order_key, 'scheduled',
        order_key IS NOT NULL
    FROM new";

/// A job with its documents already encoded as JSON.
#[derive(Clone)]
pub(super) struct Row {
    pub(super) job: NewJob,
    pub(super) spec: String,
    pub(super) labels: Option<String>,
}

impl Row {
    /// Returns the job's lane and `run_at`.
    pub(super) fn place(&self) -> (i64, UnixMs) {
        (lane::of_new(&self.job), self.job.run_at)
    }
}

impl AsRef<NewJob> for Row {
    fn as_ref(&self) -> &NewJob {
        &self.job
    }
}

/// Encodes jobs as rows, in the caller's task.
pub(super) fn rows(jobs: Vec<NewJob>) -> Result<Vec<Row>, StoreError> {
    check_count(jobs.len())?;
    let row = |job: NewJob| Ok(Row { spec: to_json(&job.spec)?, labels: labels(&job.spec.metadata)?, job });
    jobs.into_iter().map(row).collect()
}

/// Returns the groups of these jobs that accept jobs.
pub(super) async fn live_groups(
    db: &mut PgConnection,
    rows: impl Iterator<Item = &Row>,
) -> Result<LiveGroups, Failure> {
    let groups: Vec<i64> = LiveGroups::wanted(rows).into_iter().collect();
    let found = sqlx::query(LIVE_GROUPS).bind(groups).fetch_all(db).await?;
    LiveGroups::read(&found)
}

/// Inserts jobs, and unblocks the ones whose order key was free.
pub(super) async fn write(db: &mut PgConnection, rows: &[&Row]) -> Result<(), Failure> {
    if rows.is_empty() {
        return Ok(());
    }
    let numbers = |of: fn(&NewJob) -> i64| rows.iter().map(|row| of(&row.job)).collect::<Vec<i64>>();
    let optional = |of: fn(&NewJob) -> Option<i64>| rows.iter().map(|row| of(&row.job)).collect::<Vec<Option<i64>>>();
    let query = sqlx::query(INSERT)
        .bind(rows.iter().map(|row| row.job.id.0).collect::<Vec<Uuid>>())
        .bind(numbers(|job| job.tenant.0))
        .bind(numbers(|job| job.group.0))
        .bind(rows.iter().map(|row| row.place().0).collect::<Vec<i64>>())
        .bind(numbers(|job| job.run_at.0))
        .bind(numbers(|job| job.created_at.0))
        .bind(optional(|job| job.deadline.map(|at| at.0)))
        .bind(optional(|job| job.max_delay.map(millis)))
        .bind(numbers(|job| i64::from(job.seed)))
        .bind(optional(|job| job.admission.schedule()))
        .bind(rows.iter().map(|row| row.job.name.as_deref()).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.job.order_key.as_deref()).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.spec.as_str()).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.labels.as_deref()).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.job.body.as_ref()).collect::<Vec<&[u8]>>());
    query.execute(&mut *db).await.map_err(duplicate)?;
    let keys = rows.iter().filter_map(|row| Some((row.job.group.0, row.job.order_key.clone()?)));
    order_keys::advance(db, keys).await
}

fn duplicate(error: sqlx::Error) -> Failure {
    match Failure::from(error) {
        Failure { error: StoreError::Conflict(_), .. } => {
            StoreError::Conflict("a job with this id exists already".to_owned()).into()
        }
        other => other,
    }
}
