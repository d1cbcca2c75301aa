//! What deleted tenants have left: entities and records of producers, a bounded number at a time. The jobs go with their groups.

use super::SqliteStore;
use super::catalog::remove;
use super::db::Db;
use super::error::Failure;
use carillon_core::clock::UnixMs;
use carillon_store::decode::{Columns as _, entity};
use carillon_store::housekeeping::{Housekeeping, TENANT_KEPT};
use carillon_store::{Prune, StoreError};

pub(super) const OWNED: &str = "
    SELECT owned.id, owned.kind FROM entity AS tenant
    CROSS JOIN entity AS owned ON owned.tenant = tenant.id
    WHERE tenant.deleted_at IS NOT NULL AND tenant.kind = 'tenant' AND owned.deleted_at IS NULL LIMIT ?1";

pub(super) const FORGET_RECENT: &str = "
    DELETE FROM recent WHERE rowid IN (
        SELECT recent.rowid FROM entity AS tenant CROSS JOIN recent ON recent.tenant = tenant.id
        WHERE tenant.deleted_at IS NOT NULL AND tenant.kind = 'tenant' LIMIT ?1)";

/// The row stays for a while, so that no node that does not know of the deletion yet can write below it.
pub(super) const FORGET_TENANTS: &str = "
    DELETE FROM entity
    WHERE deleted_at IS NOT NULL AND deleted_at <= ?1 AND kind = 'tenant'
        AND NOT EXISTS (SELECT 1 FROM entity AS owned WHERE owned.tenant = entity.id AND owned.deleted_at IS NULL)
        AND NOT EXISTS (SELECT 1 FROM entity AS owned WHERE owned.tenant = entity.id AND owned.deleted_at IS NOT NULL)
        AND NOT EXISTS (SELECT 1 FROM recent WHERE recent.tenant = entity.id)";

/// Removes a part of what deleted tenants have left.
pub(super) async fn prune(store: &SqliteStore, what: &Prune, done: &mut Housekeeping) {
    let (now, limit) = (what.now, i64::from(what.limit));
    let owned = store.writer.call(move |db| Box::pin(async move { remove_owned(db, now, limit).await })).await;
    done.rest("entities of deleted tenants", owned);
    done.rest("records of deleted tenants", execute(store, FORGET_RECENT, limit).await);
    done.rest("deleted tenants", execute(store, FORGET_TENANTS, now.minus(TENANT_KEPT).0).await.map(|_| 0));
}

async fn execute(store: &SqliteStore, sql: &'static str, number: i64) -> Result<u64, StoreError> {
    let query = sqlx::query(sql).bind(number);
    store.writer.call(move |db| Box::pin(async move { Ok(db.execute(query).await?) })).await
}

async fn remove_owned(db: &mut Db, now: UnixMs, limit: i64) -> Result<u64, Failure> {
    let rows = db.fetch_all(sqlx::query(OWNED).bind(limit)).await?;
    for row in &rows {
        remove(db, row.number("id")?, entity::kind(row)?, now).await?;
    }
    Ok(u64::try_from(rows.len()).unwrap_or(u64::MAX))
}
