//! What is removed row by row because it is old, and does not go with its partition ([`super::eras`]). Several nodes may do it at once:
//! each passes over the rows that another one is removing.

use async_trait::async_trait;
use sqlx::postgres::PgConnection;

use super::eras;
use super::error::Failure;
use super::transaction::Verb;
use crate::store::{Prune, StoreError};

pub(super) const PRUNE_FINISHED: &str = "
    WITH old AS MATERIALIZED (
        SELECT id FROM job_done WHERE state = $1 AND finished_at <= $2
        ORDER BY finished_at LIMIT $3 FOR UPDATE SKIP LOCKED
    ), specs AS (
        DELETE FROM job_spec WHERE job = ANY (ARRAY (SELECT old.id FROM old))
    ), attempts AS (
        DELETE FROM attempt WHERE job = ANY (ARRAY (SELECT old.id FROM old))
    )
    DELETE FROM job_done WHERE id = ANY (ARRAY (SELECT old.id FROM old))";

/// A group that was deleted has no job that is not over, unless one was redriven since.
pub(super) const PRUNE_DELETED_GROUPS: &str = "
    WITH old AS MATERIALIZED (
        SELECT inside.id FROM entity
        CROSS JOIN LATERAL (
            SELECT id FROM job_done WHERE job_done.grp = entity.id LIMIT $1 FOR UPDATE SKIP LOCKED) AS inside
        WHERE entity.deleted_at IS NOT NULL LIMIT $1
    ), specs AS (
        DELETE FROM job_spec WHERE job = ANY (ARRAY (SELECT old.id FROM old))
    ), attempts AS (
        DELETE FROM attempt WHERE job = ANY (ARRAY (SELECT old.id FROM old))
    )
    DELETE FROM job_done WHERE id = ANY (ARRAY (SELECT old.id FROM old))";

pub(super) const PRUNE_REDRIVEN_IN_DELETED_GROUPS: &str = "
    WITH old AS MATERIALIZED (
        SELECT inside.id FROM entity
        CROSS JOIN LATERAL (SELECT id FROM job WHERE job.grp = entity.id LIMIT $1 FOR UPDATE SKIP LOCKED) AS inside
        WHERE entity.deleted_at IS NOT NULL LIMIT $1
    ), specs AS (
        DELETE FROM job_spec WHERE job = ANY (ARRAY (SELECT old.id FROM old))
    ), attempts AS (
        DELETE FROM attempt WHERE job = ANY (ARRAY (SELECT old.id FROM old))
    )
    DELETE FROM job WHERE id = ANY (ARRAY (SELECT old.id FROM old))";

pub(super) const FORGET_EMPTY_GROUPS: &str = "
    DELETE FROM entity
    WHERE deleted_at IS NOT NULL AND NOT EXISTS (SELECT 1 FROM job_done WHERE job_done.grp = entity.id)
        AND NOT EXISTS (SELECT 1 FROM job WHERE job.grp = entity.id)";

pub(super) const PRUNE_RECENT: &str = "
    WITH old AS MATERIALIZED (
        SELECT tenant, kind, key FROM recent WHERE expires_at <= $1 LIMIT $2 FOR UPDATE SKIP LOCKED
    )
    DELETE FROM recent USING old WHERE (recent.tenant, recent.kind, recent.key) = (old.tenant, old.kind, old.key)";

pub(super) const PRUNE_TICKS: &str = "
    WITH old AS MATERIALIZED (
        SELECT one.schedule, one.at FROM ticked
        CROSS JOIN LATERAL (
            SELECT schedule, at FROM tick WHERE tick.schedule = ticked.schedule AND at <= $1
            LIMIT $2 FOR UPDATE SKIP LOCKED) AS one
        LIMIT $2
    )
    DELETE FROM tick USING old WHERE (tick.schedule, tick.at) = (old.schedule, old.at)";

pub(super) const FORGET_DELETED_SCHEDULES: &str = "
    DELETE FROM ticked
    WHERE NOT EXISTS (SELECT 1 FROM entity WHERE entity.id = ticked.schedule)
        AND NOT EXISTS (SELECT 1 FROM tick WHERE tick.schedule = ticked.schedule)";

#[async_trait]
impl Verb for Prune {
    type Done = u32;

    async fn run(&self, db: &mut PgConnection) -> Result<u32, Failure> {
        let limit = u64::from(self.limit);
        let left = |gone: u64| i64::try_from(limit.saturating_sub(gone)).unwrap_or(i64::MAX);
        let mut gone = 0;
        // What is unfinished is in another table, whatever is asked for.
        for (state, before) in &self.ended {
            let before = before.minus(eras::spared(&self.ended, self.now, *before));
            let query = sqlx::query(PRUNE_FINISHED).bind(state.as_str()).bind(before.0).bind(left(gone));
            gone += query.execute(&mut *db).await?.rows_affected();
        }
        for sql in [PRUNE_DELETED_GROUPS, PRUNE_REDRIVEN_IN_DELETED_GROUPS] {
            gone += sqlx::query(sql).bind(left(gone)).execute(&mut *db).await?.rows_affected();
        }
        sqlx::query(FORGET_EMPTY_GROUPS).execute(&mut *db).await?;
        let limit_of_rest = i64::from(self.limit);
        let recent = sqlx::query(PRUNE_RECENT).bind(self.now.0).bind(limit_of_rest).execute(&mut *db).await?;
        let ticks = sqlx::query(PRUNE_TICKS).bind(self.ticks.0).bind(limit_of_rest).execute(&mut *db).await?;
        sqlx::query(FORGET_DELETED_SCHEDULES).execute(&mut *db).await?;
        gone += recent.rows_affected() + ticks.rows_affected();
        let too_many = |_| StoreError::Corrupt(format!("{gone} rows were removed; asked for {limit} of a kind"));
        Ok(u32::try_from(gone).map_err(too_many)?)
    }
}
