//! Inserts: many callers' jobs in few statements.

use std::collections::HashSet;

use sqlx::sqlite::SqliteConnection;
use sqlx::{AssertSqlSafe, Row as _};
use tokio::sync::oneshot;

use super::error::Failure;
use super::rows::{self, Sql};
use super::transaction::Transaction;
use crate::job::NewJob;
use crate::store::{INSERT_LIMIT, StoreError};

/// The groups among a JSON list that take jobs, with their tenants.
pub(super) const LIVE_GROUPS: &str = "
    SELECT id, tenant FROM entity
    WHERE id IN (SELECT value FROM json_each(?)) AND kind = 'group' AND deleted_at IS NULL";

pub(super) const INSERT_JOBS: Sql = Sql {
    columns: 8,
    text: "
    INSERT INTO job (id, tenant, grp, name, run_at, created_at, deadline, seed, state)
    SELECT column1, column2, column3, column4, column5, column6, column7, column8, 'scheduled'
    FROM (VALUES {rows}) WHERE column1 IS NOT NULL",
};

pub(super) const INSERT_SPECS: Sql = Sql {
    columns: 3,
    text: "
    INSERT INTO job_spec (job, spec, body)
    SELECT column1, column2, column3 FROM (VALUES {rows}) WHERE column1 IS NOT NULL",
};

/// A job, with its spec already written as JSON: the caller does that, not the writer.
pub(super) struct Row {
    job: NewJob,
    spec: String,
}

/// Makes the rows, in the caller's task.
pub(super) fn rows(jobs: Vec<NewJob>) -> Result<Vec<Row>, StoreError> {
    if jobs.len() > INSERT_LIMIT {
        return Err(StoreError::Conflict(format!("{} jobs are too many for one insert: {INSERT_LIMIT}", jobs.len())));
    }
    jobs.into_iter().map(|job| Ok(Row { spec: rows::to_json(&job.spec)?, job })).collect()
}

/// One caller's insert.
pub(super) struct InsertCall {
    rows: Vec<Row>,
    done: Result<(), StoreError>,
    reply: oneshot::Sender<Result<(), StoreError>>,
}

impl InsertCall {
    pub(super) fn new(rows: Vec<Row>, reply: oneshot::Sender<Result<(), StoreError>>) -> Self {
        Self { rows, done: Ok(()), reply }
    }

    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    /// Tells the caller.
    pub(super) fn answer(self, committed: Result<(), StoreError>) {
        // A caller that has gone away does not want the answer.
        let _ = self.reply.send(committed.and(self.done));
    }
}

/// Runs all calls together; if that fails, one by one, so that each caller gets its own answer.
pub(super) async fn run(transaction: &mut Transaction<'_>, calls: &mut [InsertCall]) -> Result<(), Failure> {
    refuse_unknown_groups(transaction.begin_call().await?, calls).await?;
    let all: Vec<&Row> = calls.iter().filter(|call| call.done.is_ok()).flat_map(|call| &call.rows).collect();
    if write_call(transaction, &all).await?.is_ok() {
        return Ok(());
    }
    for call in calls.iter_mut().filter(|call| call.done.is_ok()) {
        let own: Vec<&Row> = call.rows.iter().collect();
        call.done = write_call(transaction, &own).await?;
    }
    Ok(())
}

async fn write_call(transaction: &mut Transaction<'_>, rows: &[&Row]) -> Result<Result<(), StoreError>, Failure> {
    let result = write(transaction.begin_call().await?, rows).await;
    transaction.end_call(result).await
}

async fn refuse_unknown_groups(connection: &mut SqliteConnection, calls: &mut [InsertCall]) -> Result<(), Failure> {
    let groups: HashSet<i64> = calls.iter().flat_map(|call| &call.rows).map(|row| row.job.group.0).collect();
    let list = rows::to_json(&groups)?;
    let found = sqlx::query(LIVE_GROUPS).bind(list).fetch_all(connection).await?;
    let live = found
        .iter()
        .map(|row| Ok((row.try_get::<i64, _>("id")?, row.try_get::<i64, _>("tenant")?)))
        .collect::<Result<HashSet<_>, sqlx::Error>>()?;
    for call in calls {
        if !call.rows.iter().all(|row| live.contains(&(row.job.group.0, row.job.tenant.0))) {
            call.done = Err(StoreError::NoSuchGroup);
        }
    }
    Ok(())
}

async fn write(connection: &mut SqliteConnection, rows: &[&Row]) -> Result<(), Failure> {
    for chunk in rows.chunks(rows::PER_STATEMENT) {
        let mut jobs = sqlx::query(AssertSqlSafe(INSERT_JOBS.with_rows(chunk.len())));
        let mut specs = sqlx::query(AssertSqlSafe(INSERT_SPECS.with_rows(chunk.len())));
        for Row { job, spec } in chunk {
            jobs = jobs
                .bind(rows::id(job.id))
                .bind(job.tenant.0)
                .bind(job.group.0)
                .bind(job.name.as_deref())
                .bind(job.run_at.0)
                .bind(job.created_at.0)
                .bind(job.deadline.map(|at| at.0))
                .bind(job.seed);
            specs = specs.bind(rows::id(job.id)).bind(spec.as_str()).bind(job.body.as_ref());
        }
        jobs.execute(&mut *connection).await.map_err(duplicate)?;
        specs.execute(&mut *connection).await?;
    }
    Ok(())
}

fn duplicate(error: sqlx::Error) -> Failure {
    match Failure::from(error) {
        Failure(StoreError::Conflict(_)) => {
            Failure(StoreError::Conflict("a job with this id exists already".to_owned()))
        }
        other => other,
    }
}
