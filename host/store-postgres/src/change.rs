//! Changes that people make to jobs: cancel, reschedule, redrive, purge, edit.

use std::collections::HashMap;

use async_trait::async_trait;
use sqlx::postgres::{PgConnection, PgRow};
use uuid::Uuid;

use super::archive;
use super::error::Failure;
use super::order_keys;
use super::transaction::Verb;
use carillon_core::clock::UnixMs;
use carillon_core::job::{GroupId, JobId, SEALED_BODY, State, TenantId};
use carillon_store::decode::{self, Columns as _};
use carillon_store::documents::to_json;
use carillon_store::labels::labels;
use carillon_store::{ChangeOutcome, Edit, JobChange, lane};

/// Selects a tenant's unfinished jobs, and locks them so that they do not change before the transaction changes them.
pub(super) const LOCK: &str = "
    SELECT id, state, grp, order_key FROM job WHERE id = ANY($1) AND tenant = $2 ORDER BY id FOR UPDATE";

pub(super) const RESCHEDULE: &str = "UPDATE job SET run_at = $2 WHERE id = ANY($1)";

pub(super) const REDRIVE: &str = "
    WITH back AS (
        DELETE FROM job_done WHERE id = ANY($1) AND tenant = $2 AND state IN ('dead', 'expired') RETURNING *
    )
    INSERT INTO job (id, tenant, grp, lane, run_at, state, blocked, token, attempt_count, attempt_base, revision, seed, created_at,
        deadline, ttl, max_delay, schedule, last_status, name, order_key, last_error)
    SELECT id, tenant, grp, lane, $3, 'scheduled', order_key IS NOT NULL, token, attempt_count, attempt_count, revision, seed,
        created_at, $3 + coalesce(ttl, deadline - created_at), coalesce(ttl, deadline - created_at), max_delay, schedule, last_status, name, order_key, last_error
    FROM back
    RETURNING id, state, grp, order_key";

pub(super) const PURGE: &str = "
    WITH gone AS (
        DELETE FROM job_done WHERE id = ANY($1) AND tenant = $2 RETURNING id, state, grp, order_key
    ), specs AS (
        DELETE FROM job_spec USING gone WHERE job_spec.job = gone.id
    ), attempts AS (
        DELETE FROM attempt USING gone WHERE attempt.job = gone.id
    )
    SELECT * FROM gone";

pub(super) const EDIT: &str = "
    UPDATE job SET name = $4, run_at = $5, lane = grp * 20 + $6, revision = revision + 1
    WHERE id = $1 AND tenant = $2 AND revision = $3 AND state = 'scheduled'
    RETURNING id, state, grp, order_key";

/// A payload that stays keeps its mark: then the spec is `$5`, which has the mark, if the present one ends with `$6`.
pub(super) const EDIT_SPEC: &str = "
    UPDATE job_spec SET
        spec = CASE WHEN $4::BYTEA IS NULL AND right(spec, length($6)) = $6 THEN $5 ELSE $2 END,
        labels = $3::JSONB,
        body = coalesce($4, body)
    WHERE job = $1";

pub(super) const STATES: &str = "
    SELECT id, state FROM job WHERE id = ANY($1) AND tenant = $2
    UNION ALL
    SELECT id, state FROM job_done WHERE id = ANY($1) AND tenant = $2";

/// A change of several of a tenant's jobs.
pub(super) struct ChangeJobs {
    pub(super) tenant: TenantId,
    pub(super) ids: Vec<JobId>,
    pub(super) change: JobChange,
    pub(super) now: UnixMs,
}

#[async_trait]
impl Verb for ChangeJobs {
    type Done = Vec<ChangeOutcome>;

    async fn run(&self, db: &mut PgConnection) -> Result<Vec<ChangeOutcome>, Failure> {
        change(db, self.tenant, &self.ids, &self.change, self.now).await
    }
}

/// Makes `change` to each job whose state allows it.
pub(super) async fn change(
    db: &mut PgConnection,
    tenant: TenantId,
    ids: &[JobId],
    change: &JobChange,
    now: UnixMs,
) -> Result<Vec<ChangeOutcome>, Failure> {
    let uuids: Vec<Uuid> = ids.iter().map(|id| id.0).collect();
    let done = match change {
        JobChange::Cancel => {
            let found = lock(db, tenant, &uuids).await?;
            archive::cancel(db, &found, now).await?;
            answers(&found)?
        }
        JobChange::Withdraw => {
            let found = waiting(db, tenant, &uuids).await?;
            archive::cancel(db, &found, now).await?;
            answers(&found)?
        }
        JobChange::Reschedule(at) => {
            let found = waiting(db, tenant, &uuids).await?;
            let ids = found.iter().map(|row| Ok(row.job_id("id")?.0)).collect::<Result<Vec<Uuid>, Failure>>()?;
            sqlx::query(RESCHEDULE).bind(ids).bind(at.0).execute(&mut *db).await?;
            answers(&found)?
        }
        JobChange::Redrive(at) => {
            let back = sqlx::query(REDRIVE).bind(&uuids).bind(tenant.0).bind(at.0).fetch_all(&mut *db).await?;
            let keys = back.iter().map(decode::order_key).collect::<Result<Vec<_>, _>>()?;
            order_keys::advance(db, keys.into_iter().flatten()).await?;
            answers(&back)?
        }
        JobChange::Purge => answers(&sqlx::query(PURGE).bind(&uuids).bind(tenant.0).fetch_all(&mut *db).await?)?,
        JobChange::Edit(edit) => edit_all(db, tenant, ids, edit).await?,
    };
    let unchanged: Vec<Uuid> = ids.iter().filter(|id| !done.contains_key(id)).map(|id| id.0).collect();
    let why = why_not(db, tenant, unchanged, change).await?;
    let answer = |id| done.get(id).or_else(|| why.get(id)).copied().unwrap_or(ChangeOutcome::Unknown);
    Ok(ids.iter().map(answer).collect())
}

async fn lock(db: &mut PgConnection, tenant: TenantId, ids: &[Uuid]) -> Result<Vec<PgRow>, Failure> {
    Ok(sqlx::query(LOCK).bind(ids).bind(tenant.0).fetch_all(db).await?)
}

/// Returns the waiting ones of the jobs; all are locked.
async fn waiting(db: &mut PgConnection, tenant: TenantId, ids: &[Uuid]) -> Result<Vec<PgRow>, Failure> {
    let mut waiting = Vec::new();
    for row in lock(db, tenant, ids).await? {
        if row.word::<State>("state")? == State::Scheduled {
            waiting.push(row);
        }
    }
    Ok(waiting)
}

/// Returns the outcomes of changed jobs.
fn answers(rows: &[PgRow]) -> Result<HashMap<JobId, ChangeOutcome>, Failure> {
    let answer = |row: &PgRow| Ok((row.job_id("id")?, ChangeOutcome::changed(row.word("state")?)));
    rows.iter().map(answer).collect()
}

async fn edit_all(
    db: &mut PgConnection,
    tenant: TenantId,
    ids: &[JobId],
    edit: &Edit,
) -> Result<HashMap<JobId, ChangeOutcome>, Failure> {
    let (spec, labels) = (to_json(&edit.spec)?, labels(&edit.spec.metadata)?);
    let beside_sealed = edit.beside_sealed().as_ref().map(to_json).transpose()?;
    let mut edited = HashMap::new();
    for id in ids {
        let lane = lane::of(GroupId(0), edit.spec.dispatch_mode(), edit.priority);
        let query = sqlx::query(EDIT).bind(id.0).bind(tenant.0).bind(edit.revision);
        let query = query.bind(edit.name.as_deref()).bind(edit.run_at.0).bind(lane);
        if query.fetch_optional(&mut *db).await?.is_some() {
            let query = sqlx::query(EDIT_SPEC).bind(id.0).bind(&spec).bind(labels.as_deref());
            let query = query.bind(edit.body.as_deref()).bind(beside_sealed.as_deref()).bind(SEALED_BODY);
            query.execute(&mut *db).await?;
            edited.insert(*id, ChangeOutcome::Done);
        }
    }
    Ok(edited)
}

/// Returns the reasons why jobs were not changed, without jobs that do not exist.
async fn why_not(
    db: &mut PgConnection,
    tenant: TenantId,
    ids: Vec<Uuid>,
    change: &JobChange,
) -> Result<HashMap<JobId, ChangeOutcome>, Failure> {
    let mut why = HashMap::new();
    if ids.is_empty() {
        return Ok(why);
    }
    for row in sqlx::query(STATES).bind(ids).bind(tenant.0).fetch_all(db).await? {
        why.insert(row.job_id("id")?, ChangeOutcome::unchanged(row.word("state")?, change));
    }
    Ok(why)
}
