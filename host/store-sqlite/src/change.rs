//! Changes that people make to jobs: cancel, reschedule, redrive, purge, edit.

use std::collections::{HashMap, HashSet};

use sqlx::AssertSqlSafe;
use sqlx::sqlite::SqliteRow;

use super::db::Db;
use super::error::Failure;
use super::order_keys;
use super::rows::{self, Sql};
use carillon_core::clock::UnixMs;
use carillon_core::job::{GroupId, JobId, SEALED_BODY, TenantId};
use carillon_store::decode::{self, Columns as _};
use carillon_store::documents::to_json;
use carillon_store::{ChangeOutcome, Edit, JobChange, lane};

pub(super) const CANCEL: Sql = Sql {
    columns: 3,
    text: "
    UPDATE job SET
        state            = CASE state WHEN 'scheduled' THEN 'cancelled' ELSE state END,
        finished_at      = CASE state WHEN 'scheduled' THEN c.at END,
        cancel_requested = (state = 'running')
    FROM (SELECT column1 AS id, column2 AS tenant, column3 AS at FROM (VALUES {rows})) AS c
    WHERE job.id = c.id AND job.tenant = c.tenant AND +job.state IN ('scheduled', 'running')
    RETURNING id, state, grp, order_key",
};

pub(super) const WITHDRAW: Sql = Sql {
    columns: 3,
    text: "
    UPDATE job SET state = 'cancelled', finished_at = c.at
    FROM (SELECT column1 AS id, column2 AS tenant, column3 AS at FROM (VALUES {rows})) AS c
    WHERE job.id = c.id AND job.tenant = c.tenant AND +job.state = 'scheduled'
    RETURNING id, state, grp, order_key",
};

pub(super) const RESCHEDULE: Sql = Sql {
    columns: 3,
    text: "
    UPDATE job SET run_at = c.at
    FROM (SELECT column1 AS id, column2 AS tenant, column3 AS at FROM (VALUES {rows})) AS c
    WHERE job.id = c.id AND job.tenant = c.tenant AND +job.state = 'scheduled'
    RETURNING id, state, grp, order_key",
};

pub(super) const REDRIVE: Sql = Sql {
    columns: 3,
    text: "
    UPDATE job SET
        state            = 'scheduled',
        run_at           = c.at,
        finished_at      = NULL,
        deadline         = c.at + coalesce(ttl, deadline - created_at),
        ttl              = coalesce(ttl, deadline - created_at),
        attempt_base     = attempt_count,
        lost_leases      = 0,
        cancel_requested = 0,
        abort_requested  = 0,
        blocked          = order_key IS NOT NULL
    FROM (SELECT column1 AS id, column2 AS tenant, column3 AS at FROM (VALUES {rows})) AS c
    WHERE job.id = c.id AND job.tenant = c.tenant AND +job.state IN ('dead', 'expired')
    RETURNING id, state, grp, order_key",
};

/// The spec and the attempts of a job are removed with it (`ON DELETE CASCADE`).
pub(super) const PURGE: Sql = Sql {
    columns: 3,
    text: "
    DELETE FROM job
    WHERE (id, tenant) IN (SELECT column1, column2 FROM (VALUES {rows})) AND finished_at IS NOT NULL
    RETURNING id, state, grp, order_key",
};

pub(super) const EDIT: &str = "
    UPDATE job SET name = ?4, run_at = ?5, lane = grp * 20 + ?6, revision = revision + 1
    WHERE id = ?1 AND tenant = ?2 AND revision = ?3 AND state = 'scheduled'
    RETURNING id, state, grp, order_key";

/// A payload that stays keeps its mark: then the spec is `?4`, which has the mark, if the present one ends with `?5`.
pub(super) const EDIT_SPEC: &str = "
    UPDATE job_spec SET
        spec = CASE WHEN ?3 IS NULL AND substr(spec, -length(?5)) = ?5 THEN ?4 ELSE ?2 END,
        body = coalesce(?3, body)
    WHERE job = ?1";

pub(super) const STATE_OF: &str = "SELECT state FROM job WHERE id = ?1 AND tenant = ?2";

/// Makes `change` to each job whose state allows it.
pub(super) async fn change(
    db: &mut Db,
    tenant: TenantId,
    ids: &[JobId],
    change: &JobChange,
    now: UnixMs,
) -> Result<Vec<ChangeOutcome>, Failure> {
    let mut changed = Vec::new();
    for chunk in ids.chunks(rows::PER_STATEMENT) {
        changed.extend(match change {
            JobChange::Cancel => many(db, &CANCEL, tenant, chunk, now).await?,
            JobChange::Withdraw => many(db, &WITHDRAW, tenant, chunk, now).await?,
            JobChange::Reschedule(at) => many(db, &RESCHEDULE, tenant, chunk, *at).await?,
            JobChange::Redrive(at) => many(db, &REDRIVE, tenant, chunk, *at).await?,
            JobChange::Purge => many(db, &PURGE, tenant, chunk, now).await?,
            JobChange::Edit(edit) => edit_all(db, tenant, chunk, edit).await?,
        });
    }
    let keys = changed.iter().map(decode::order_key).collect::<Result<Vec<_>, _>>()?;
    order_keys::advance(db, keys.into_iter().flatten()).await?;
    let mut done = HashMap::new();
    for row in &changed {
        done.insert(row.job_id("id")?, ChangeOutcome::changed(row.word("state")?));
    }
    let mut answers = Vec::with_capacity(ids.len());
    for id in ids {
        answers.push(match done.get(id) {
            Some(changed) => *changed,
            None => unchanged(db, tenant, *id, change).await?,
        });
    }
    Ok(answers)
}

async fn many(db: &mut Db, sql: &Sql, tenant: TenantId, ids: &[JobId], at: UnixMs) -> Result<Vec<SqliteRow>, Failure> {
    let mut query = sqlx::query(AssertSqlSafe(sql.with_rows(ids.len())));
    for id in ids.iter().collect::<HashSet<_>>() {
        query = query.bind(rows::id(*id)).bind(tenant.0).bind(at.0);
    }
    Ok(db.fetch_all(query).await?)
}

async fn edit_all(db: &mut Db, tenant: TenantId, ids: &[JobId], edit: &Edit) -> Result<Vec<SqliteRow>, Failure> {
    let (spec, beside_sealed) = (to_json(&edit.spec)?, edit.beside_sealed().as_ref().map(to_json).transpose()?);
    let mut edited = Vec::new();
    for id in ids {
        let query = sqlx::query(EDIT).bind(rows::id(*id)).bind(tenant.0).bind(edit.revision);
        let lane = lane::of(GroupId(0), edit.spec.dispatch_mode(), edit.priority);
        let query = query.bind(edit.name.as_deref()).bind(edit.run_at.0).bind(lane);
        let Some(row) = db.fetch_optional(query).await? else { continue };
        let query = sqlx::query(EDIT_SPEC).bind(rows::id(*id)).bind(&spec).bind(edit.body.as_deref());
        db.execute(query.bind(beside_sealed.as_deref()).bind(SEALED_BODY)).await?;
        edited.push(row);
    }
    Ok(edited)
}

/// Returns the reason why a job was not changed.
async fn unchanged(db: &mut Db, tenant: TenantId, id: JobId, change: &JobChange) -> Result<ChangeOutcome, Failure> {
    let row = db.fetch_optional(sqlx::query(STATE_OF).bind(rows::id(id)).bind(tenant.0)).await?;
    let Some(row) = row else { return Ok(ChangeOutcome::Unknown) };
    Ok(ChangeOutcome::unchanged(row.word("state")?, change))
}
