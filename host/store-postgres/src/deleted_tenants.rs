//! What deleted tenants have left: entities and records of producers, a bounded number at a time. The jobs go with their groups.

use async_trait::async_trait;
use sqlx::postgres::PgConnection;

use super::catalog::remove;
use super::error::Failure;
use super::locks;
use super::transaction::Verb;
use carillon_core::clock::UnixMs;
use carillon_store::decode::{Columns as _, entity};

/// Whether there is anything to do; no lock is taken for the answer.
const SOME: &str = "SELECT 1 FROM entity WHERE deleted_at IS NOT NULL AND kind = 'tenant' LIMIT 1";

/// The locks of groups wait for running inserts, and make new ones wait.
pub(super) const OWNED: &str = "
    SELECT owned.id, owned.kind FROM entity AS tenant
    CROSS JOIN LATERAL (
        SELECT id, kind FROM entity WHERE entity.tenant = tenant.id AND entity.deleted_at IS NULL
        LIMIT $1 FOR UPDATE) AS owned
    WHERE tenant.deleted_at IS NOT NULL AND tenant.kind = 'tenant' LIMIT $1";

pub(super) const FORGET_RECENT: &str = "
    WITH old AS MATERIALIZED (
        SELECT one.tenant, one.kind, one.key FROM entity AS tenant
        CROSS JOIN LATERAL (
            SELECT recent.tenant, recent.kind, recent.key FROM recent WHERE recent.tenant = tenant.id
            LIMIT $1 FOR UPDATE SKIP LOCKED) AS one
        WHERE tenant.deleted_at IS NOT NULL AND tenant.kind = 'tenant' LIMIT $1
    )
    DELETE FROM recent USING old WHERE (recent.tenant, recent.kind, recent.key) = (old.tenant, old.kind, old.key)";

/// The row stays for a while, so that no node that does not know of the deletion yet can write below it.
pub(super) const FORGET_TENANTS: &str = "
    DELETE FROM entity
    WHERE deleted_at IS NOT NULL AND deleted_at <= $1 AND kind = 'tenant'
        AND NOT EXISTS (SELECT 1 FROM entity AS owned WHERE owned.tenant = entity.id)
        AND NOT EXISTS (SELECT 1 FROM recent WHERE recent.tenant = entity.id)";

/// Removes at most `limit` entities of deleted tenants.
pub(super) struct RemoveOwned {
    pub(super) now: UnixMs,
    pub(super) limit: i64,
}

#[async_trait]
impl Verb for RemoveOwned {
    type Done = u64;

    async fn run(&self, db: &mut PgConnection) -> Result<u64, Failure> {
        if sqlx::query(SOME).fetch_optional(&mut *db).await?.is_none() {
            return Ok(0);
        }
        locks::take_entities(db).await?;
        let rows = sqlx::query(OWNED).bind(self.limit).fetch_all(&mut *db).await?;
        for row in &rows {
            remove(db, row.number("id")?, entity::kind(row)?, self.now).await?;
        }
        Ok(u64::try_from(rows.len()).unwrap_or(u64::MAX))
    }
}
