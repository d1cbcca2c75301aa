//! Rows of jobs, and the statements that store them.

use sqlx::AssertSqlSafe;

use super::db::{Db, with_nulls};
use super::error::Failure;
use super::order_keys;
use super::rows::{self, Sql};
use carillon_core::job::NewJob;
use carillon_store::documents::{millis, to_json};
use carillon_store::live_groups::LiveGroups;
use carillon_store::{StoreError, check_count, lane};

/// Selects the groups of a JSON list that accept jobs, with their tenants.
pub(super) const LIVE_GROUPS: &str = "
    SELECT id, tenant FROM entity
    WHERE id IN (SELECT value FROM json_each(?)) AND kind = 'group' AND deleted_at IS NULL";

pub(super) const INSERT_JOBS: Sql = Sql {
    columns: 12,
    text: "
    INSERT INTO job (id, tenant, grp, name, run_at, created_at, deadline, seed, lane, order_key, max_delay, schedule, blocked,
        state)
    SELECT column1, column2, column3, column4, column5, column6, column7, column8, column9, column10, column11, column12,
        column10 IS NOT NULL, 'scheduled'
    FROM (VALUES {rows}) WHERE column1 IS NOT NULL",
};

pub(super) const INSERT_SPECS: Sql = Sql {
    columns: 3,
    text: "
    INSERT INTO job_spec (job, spec, body)
    SELECT column1, column2, column3 FROM (VALUES {rows}) WHERE column1 IS NOT NULL",
};

/// A job with its spec already encoded as JSON, which is done in the caller's task and not in the writer.
#[derive(Clone)]
pub(super) struct Row {
    pub(super) job: NewJob,
    pub(super) spec: String,
}

impl AsRef<NewJob> for Row {
    fn as_ref(&self) -> &NewJob {
        &self.job
    }
}

/// Encodes jobs as rows, in the caller's task.
pub(super) fn rows(jobs: Vec<NewJob>) -> Result<Vec<Row>, StoreError> {
    check_count(jobs.len())?;
    jobs.into_iter().map(|job| Ok(Row { spec: to_json(&job.spec)?, job })).collect()
}

/// Returns the groups of these jobs that accept jobs.
pub(super) async fn live_groups(db: &mut Db, rows: impl Iterator<Item = &Row>) -> Result<LiveGroups, Failure> {
    let list = to_json(&LiveGroups::wanted(rows))?;
    let found = db.fetch_all(sqlx::query(LIVE_GROUPS).bind(list)).await?;
    LiveGroups::read(&found)
}

/// Inserts jobs, and unblocks the ones whose order key was free.
pub(super) async fn write(db: &mut Db, rows: &[&Row]) -> Result<(), Failure> {
    for chunk in rows.chunks(rows::PER_STATEMENT) {
        // Two statements in one message: the parameters of the second begin after all of the first.
        let sql = format!("{}; {}", INSERT_JOBS.with_rows(chunk.len()), INSERT_SPECS.with_rows(chunk.len()));
        let mut query = sqlx::query(AssertSqlSafe(sql));
        for Row { job, .. } in chunk {
            query = query
                .bind(rows::id(job.id))
                .bind(job.tenant.0)
                .bind(job.group.0)
                .bind(job.name.as_deref())
                .bind(job.run_at.0)
                .bind(job.created_at.0)
                .bind(job.deadline.map(|at| at.0))
                .bind(job.seed)
                .bind(lane::of_new(job))
                .bind(job.order_key.as_deref())
                .bind(job.max_delay.map(millis))
                .bind(job.admission.schedule());
        }
        query = with_nulls(query, INSERT_JOBS.padding(chunk.len()));
        for Row { job, spec } in chunk {
            query = query.bind(rows::id(job.id)).bind(spec.as_str()).bind(job.body.as_ref());
        }
        db.execute(query).await.map_err(duplicate)?;
    }
    let keys = rows.iter().filter_map(|row| Some((row.job.group.0, row.job.order_key.clone()?)));
    order_keys::advance(db, keys).await
}

fn duplicate(error: sqlx::Error) -> Failure {
    match Failure::from(error) {
        Failure(StoreError::Conflict(_)) => {
            Failure(StoreError::Conflict("a job with this id exists already".to_owned()))
        }
        other => other,
    }
}
