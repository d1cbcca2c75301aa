//! Removes rows that are old, or whose owner was removed.
//!
//! Each step is a transaction of its own: a step that fails does not prevent the others.

use sqlx::{AssertSqlSafe, Row as _};

use super::db::Statement;
use super::{SqliteStore, deleted_tenants};
use carillon_store::housekeeping::Housekeeping;
use carillon_store::{Prune, StoreError};

pub(super) const PRUNE_FINISHED: &str = "
    DELETE FROM job WHERE id IN (
        SELECT id FROM job WHERE state = ?1 AND finished_at <= ?2 ORDER BY finished_at LIMIT ?3)";

pub(super) const PRUNE_DELETED_GROUPS: &str = "
    DELETE FROM job WHERE id IN (
        SELECT job.id FROM entity CROSS JOIN job ON job.grp = entity.id
        WHERE entity.deleted_at IS NOT NULL LIMIT ?1)";

pub(super) const FORGET_EMPTY_GROUPS: &str = "
    DELETE FROM entity
    WHERE deleted_at IS NOT NULL AND kind = 'group' AND NOT EXISTS (SELECT 1 FROM job WHERE job.grp = entity.id)";

pub(super) const PRUNE_RECENT: &str = "
    DELETE FROM recent WHERE rowid IN (SELECT rowid FROM recent WHERE expires_at <= ?1 LIMIT ?2)";

pub(super) const PRUNE_TICKS: &str = "
    DELETE FROM tick WHERE (schedule, at) IN (
        SELECT tick.schedule, tick.at FROM ticked CROSS JOIN tick ON tick.schedule = ticked.schedule
        WHERE tick.at <= ?1 LIMIT ?2)";

/// Jumps from schedule to schedule in the key of `tick`: no other row names the deleted schedules.
pub(super) const PRUNE_TICKS_OF_DELETED: &str = "
    DELETE FROM tick WHERE (schedule, at) IN (
        WITH RECURSIVE known (schedule) AS (
            SELECT min(schedule) FROM tick
            UNION ALL
            SELECT (SELECT min(tick.schedule) FROM tick WHERE tick.schedule > known.schedule)
            FROM known WHERE known.schedule IS NOT NULL)
        SELECT tick.schedule, tick.at FROM known CROSS JOIN tick ON tick.schedule = known.schedule
        WHERE NOT EXISTS (SELECT 1 FROM entity WHERE entity.id = known.schedule) LIMIT ?1)";

pub(super) const FORGET_DELETED_SCHEDULES: &str = "
    DELETE FROM ticked
    WHERE NOT EXISTS (SELECT 1 FROM entity WHERE entity.id = ticked.schedule)
        AND NOT EXISTS (SELECT 1 FROM tick WHERE tick.schedule = ticked.schedule)";

pub(super) const PRUNE_AUDIT: &str = "
    DELETE FROM audit WHERE id IN (SELECT id FROM audit WHERE at <= ?1 ORDER BY at LIMIT ?2)";

pub(super) const FORGET_AUDIT_CHAINS: &str = "
    DELETE FROM audit_chain
    WHERE at <= ?1 AND NOT EXISTS (SELECT 1 FROM audit WHERE audit.node = audit_chain.node)";

/// Runs one step after the other.
pub(super) async fn prune(store: &SqliteStore, what: &Prune) -> Result<u32, StoreError> {
    let mut done = Housekeeping::new(what.limit);
    for (state, before) in &what.ended {
        let query = sqlx::query(PRUNE_FINISHED).bind(state.as_str()).bind(before.0).bind(done.left());
        done.jobs("jobs that ended", step(store, query).await);
    }
    deleted_tenants::prune(store, what, &mut done).await;
    let query = sqlx::query(PRUNE_DELETED_GROUPS).bind(done.left());
    done.jobs("jobs of deleted groups", step(store, query).await);
    done.rest("deleted groups", step(store, sqlx::query(FORGET_EMPTY_GROUPS)).await.map(|_| 0));
    let query = sqlx::query(PRUNE_RECENT).bind(what.now.0).bind(what.limit);
    done.rest("records of producers", step(store, query).await);
    let query = sqlx::query(PRUNE_TICKS).bind(what.ticks.0).bind(what.limit);
    done.rest("ticks", step(store, query).await);
    let query = sqlx::query(PRUNE_TICKS_OF_DELETED).bind(what.limit);
    done.rest("ticks of deleted schedules", step(store, query).await);
    done.rest("deleted schedules", step(store, sqlx::query(FORGET_DELETED_SCHEDULES)).await.map(|_| 0));
    let query = sqlx::query(PRUNE_AUDIT).bind(what.audit.0).bind(what.limit);
    done.rest("audit entries", step(store, query).await);
    let query = sqlx::query(FORGET_AUDIT_CHAINS).bind(what.audit.0);
    done.rest("audit chains of former nodes", step(store, query).await.map(|_| 0));
    done.rest("free pages", give_back(store).await);
    done.finish()
}

/// Number of free pages (of 4 KiB) that stay in the file, because they are soon used again.
const FREE_PAGES_KEPT: i64 = 2_048;

/// Number of pages that are returned at a time, so that other writes do not wait for long.
const PAGES_AT_ONCE: i64 = 512;

/// Returns free pages to the disk.
///
/// The result is 0: no row was removed.
async fn give_back(store: &SqliteStore) -> Result<u64, StoreError> {
    let mut left = free_pages(store).await?;
    let gives_back = left > FREE_PAGES_KEPT;
    while left > FREE_PAGES_KEPT {
        let pages = PAGES_AT_ONCE.min(left - FREE_PAGES_KEPT);
        let sql = AssertSqlSafe(format!("PRAGMA incremental_vacuum({pages})"));
        step(store, sqlx::query(sql)).await?;
        let before = std::mem::replace(&mut left, free_pages(store).await?);
        if left >= before {
            // A file of an older program that cannot shrink.
            return Ok(0);
        }
    }
    if gives_back {
        store.writer.shorten_log().await;
    }
    Ok(0)
}

async fn step(store: &SqliteStore, query: Statement<'static>) -> Result<u64, StoreError> {
    store.writer.call(move |db| Box::pin(async move { Ok(db.execute(query).await?) })).await
}

async fn free_pages(store: &SqliteStore) -> Result<i64, StoreError> {
    let count = store.writer.call(move |db| {
        Box::pin(async move { Ok(db.fetch_one(sqlx::query("PRAGMA freelist_count")).await?.try_get(0)?) })
    });
    count.await
}
