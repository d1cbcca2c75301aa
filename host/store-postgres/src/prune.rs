//! Removes old rows one by one, where they are not dropped with their partition ([`super::partitions`]).
//!
//! Several nodes may prune at once: each skips the rows that another one is removing.

use async_trait::async_trait;
use sqlx::postgres::PgConnection;

use super::deleted_tenants::{FORGET_RECENT, FORGET_TENANTS, RemoveOwned};
use super::error::Failure;
use super::partitions;
use super::transaction::{Database, Verb};
use carillon_store::housekeeping::{Housekeeping, TENANT_KEPT};
use carillon_store::{Prune, StoreError};

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

/// A deleted group has no unfinished job, unless one was redriven since, or the tenant was deleted.
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
    WHERE deleted_at IS NOT NULL AND kind = 'group'
        AND NOT EXISTS (SELECT 1 FROM job_done WHERE job_done.grp = entity.id)
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

/// Jumps from schedule to schedule in the key of `tick`: no other row names the deleted schedules.
pub(super) const PRUNE_TICKS_OF_DELETED: &str = "
    WITH RECURSIVE known (schedule) AS (
        (SELECT schedule FROM tick WHERE schedule > 0 ORDER BY schedule LIMIT 1)
        UNION ALL
        SELECT (SELECT tick.schedule FROM tick WHERE tick.schedule > known.schedule ORDER BY tick.schedule LIMIT 1)
        FROM known WHERE known.schedule IS NOT NULL
    ), old AS MATERIALIZED (
        SELECT one.schedule, one.at FROM known
        CROSS JOIN LATERAL (
            SELECT schedule, at FROM tick WHERE tick.schedule = known.schedule LIMIT $1 FOR UPDATE SKIP LOCKED) AS one
        WHERE NOT EXISTS (SELECT 1 FROM entity WHERE entity.id = known.schedule)
        LIMIT $1
    )
    DELETE FROM tick USING old WHERE (tick.schedule, tick.at) = (old.schedule, old.at)";

pub(super) const PRUNE_AUDIT: &str = "
    WITH old AS MATERIALIZED (
        SELECT id FROM audit WHERE at <= $1 ORDER BY at LIMIT $2 FOR UPDATE SKIP LOCKED
    )
    DELETE FROM audit WHERE id = ANY (ARRAY (SELECT old.id FROM old))";

/// A chain that grows meanwhile has a newer time by then, and stays.
pub(super) const FORGET_AUDIT_CHAINS: &str = "
    DELETE FROM audit_chain
    WHERE at <= $1 AND NOT EXISTS (SELECT 1 FROM audit WHERE audit.node = audit_chain.node)";

/// One statement, with at most two numbers and a word before them.
struct Step {
    sql: &'static str,
    state: Option<&'static str>,
    numbers: Vec<i64>,
}

impl Step {
    fn new(sql: &'static str, numbers: impl Into<Vec<i64>>) -> Self {
        Self { sql, state: None, numbers: numbers.into() }
    }
}

#[async_trait]
impl Verb for Step {
    type Done = u64;

    async fn run(&self, db: &mut PgConnection) -> Result<u64, Failure> {
        let mut query = sqlx::query(self.sql);
        if let Some(state) = self.state {
            query = query.bind(state);
        }
        let query = self.numbers.iter().fold(query, |query, number| query.bind(*number));
        Ok(query.execute(db).await?.rows_affected())
    }
}

/// Runs one step after the other, each as a transaction of its own: a step that fails does not prevent the others.
pub(super) async fn prune(database: &Database, what: &Prune) -> Result<u32, StoreError> {
    let mut done = Housekeeping::new(what.limit);
    partitions::tend(database, &what.ended, what.now, &mut done).await;
    // Unfinished jobs are in another table, whatever states are requested.
    for (state, before) in &what.ended {
        let before = before.minus(partitions::spared(&what.ended, what.now, *before));
        let step = Step { state: Some(state.as_str()), ..Step::new(PRUNE_FINISHED, [before.0, done.left()]) };
        done.jobs("jobs that ended", database.call(&step).await);
    }
    let limit = i64::from(what.limit);
    let owned = database.transact(&RemoveOwned { now: what.now, limit }).await;
    done.rest("entities of deleted tenants", owned);
    for sql in [PRUNE_DELETED_GROUPS, PRUNE_REDRIVEN_IN_DELETED_GROUPS] {
        let step = Step::new(sql, [done.left()]);
        done.jobs("jobs of deleted groups", database.transact(&step).await);
    }
    let rest = [
        ("deleted groups", Step::new(FORGET_EMPTY_GROUPS, [])),
        ("records of deleted tenants", Step::new(FORGET_RECENT, [limit])),
        ("records of producers", Step::new(PRUNE_RECENT, [what.now.0, limit])),
        ("ticks", Step::new(PRUNE_TICKS, [what.ticks.0, limit])),
        ("ticks of deleted schedules", Step::new(PRUNE_TICKS_OF_DELETED, [limit])),
        ("audit entries", Step::new(PRUNE_AUDIT, [what.audit.0, limit])),
        ("deleted schedules", Step::new(FORGET_DELETED_SCHEDULES, [])),
    ];
    for (name, step) in rest {
        let removed = database.transact(&step).await;
        // Steps for groups and schedules do not count towards the limit: each round handles all of them.
        done.rest(name, if step.numbers.is_empty() { removed.map(|_| 0) } else { removed });
    }
    let forget = Step::new(FORGET_TENANTS, [what.now.minus(TENANT_KEPT).0]);
    done.rest("deleted tenants", database.transact(&forget).await.map(|_| 0));
    let chains = database.transact(&Step::new(FORGET_AUDIT_CHAINS, [what.audit.0])).await;
    done.rest("audit chains of former nodes", chains.map(|_| 0));
    done.finish()
}
