//! [`AuditLog`]: entries of the audit log, each in the chain of its node.

use async_trait::async_trait;
use sqlx::Row as _;

use super::SqliteStore;
use super::db::Db;
use super::error::Failure;
use super::readers::Readers;
use super::rows;
use carillon_core::audit::AuditEntry;
use carillon_core::job::{JobId, TenantId};
use carillon_store::decode::Columns as _;
use carillon_store::{AuditLog, AuditQuery, ChainHead, Chained, StoreError, StoredEntry};

#[async_trait]
impl AuditLog for SqliteStore {
    async fn append(&self, entry: AuditEntry) -> Result<(), StoreError> {
        self.writer.call(move |db| Box::pin(async move { record(db, &entry).await })).await
    }

    async fn audit(&self, query: AuditQuery) -> Result<Vec<Chained>, StoreError> {
        let AuditQuery { tenant, actor, verb, kind, name, from, to, before, limit } = query;
        let sql = if tenant.is_some() { PAGE_OF_TENANT } else { PAGE };
        // Sorts after the 16 bytes of every id.
        let before = before.map_or_else(|| vec![0xff; 17], |id| rows::id(JobId(id.0)));
        let statement = sqlx::query(sql).bind(before).bind(limit).bind(tenant).bind(actor).bind(verb).bind(kind);
        let statement = statement.bind(name).bind(from.map(|at| at.0)).bind(to.map(|at| at.0));
        let mut db = self.readers.view(TenantId(tenant.unwrap_or(NO_TENANT))).await?;
        let found = Readers::bounded(async { Ok(statement.fetch_all(&mut *db).await?) }).await?;
        let rows = found.iter().map(StoredEntry::read).collect::<Result<Vec<_>, Failure>>()?;
        Ok(rows.into_iter().filter_map(StoredEntry::entry).collect())
    }

    async fn audit_chain(&self, (node, number): (String, i64), limit: u32) -> Result<Vec<StoredEntry>, StoreError> {
        let statement = sqlx::query(CHAIN).bind(node).bind(number).bind(limit);
        let mut db = self.readers.view(TenantId(NO_TENANT)).await?;
        let found = Readers::bounded(async { Ok(statement.fetch_all(&mut *db).await?) }).await?;
        Ok(found.iter().map(StoredEntry::read).collect::<Result<_, Failure>>()?)
    }

    async fn audit_heads(&self) -> Result<Vec<ChainHead>, StoreError> {
        let found = sqlx::query(HEADS).fetch_all(&mut *self.readers.take().await?).await.map_err(Failure::from)?;
        let head = |row: &sqlx::sqlite::SqliteRow| {
            Ok(ChainHead { node: row.try_get("node")?, number: row.i64("number")?, digest: row.try_get("digest")? })
        };
        Ok(found.iter().map(head).collect::<Result<_, Failure>>()?)
    }
}

/// Number of no tenant, whose turn those readers have who see all entries.
const NO_TENANT: i64 = 0;

/// The `+` keeps SQLite from other indexes than that of the order.
pub(super) const PAGE: &str = "
    SELECT * FROM audit WHERE id < ?1 AND (?3 IS NULL OR +tenant = ?3)
        AND (?4 IS NULL OR actor = ?4) AND (?5 IS NULL OR verb = ?5) AND (?6 IS NULL OR kind = ?6)
        AND (?7 IS NULL OR name = ?7) AND (?8 IS NULL OR +at >= ?8) AND (?9 IS NULL OR +at < ?9)
    ORDER BY id DESC LIMIT ?2";

pub(super) const PAGE_OF_TENANT: &str = "
    SELECT * FROM audit WHERE id < ?1 AND tenant = ?3
        AND (?4 IS NULL OR actor = ?4) AND (?5 IS NULL OR verb = ?5) AND (?6 IS NULL OR kind = ?6)
        AND (?7 IS NULL OR name = ?7) AND (?8 IS NULL OR +at >= ?8) AND (?9 IS NULL OR +at < ?9)
    ORDER BY id DESC LIMIT ?2";

pub(super) const CHAIN: &str = "
    SELECT * FROM audit WHERE (node, number) > (?1, ?2) ORDER BY node, number LIMIT ?3";

const HEADS: &str = "SELECT node, number, digest FROM audit_chain ORDER BY node";

const HEAD: &str = "SELECT number, digest FROM audit_chain WHERE node = ?1";

const PUT_HEAD: &str = "
    INSERT INTO audit_chain (node, number, digest, at) VALUES (?1, ?2, ?3, ?4)
    ON CONFLICT (node) DO UPDATE SET number = excluded.number, digest = excluded.digest, at = excluded.at";

const PUT_ENTRY: &str = "
    INSERT INTO audit (id, at, node, number, tenant, actor, verb, kind, name, previous, digest, doc)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)";

/// Writes an entry at the end of its node's chain, in the caller's transaction: the only place where one is written.
pub(super) async fn record(db: &mut Db, entry: &AuditEntry) -> Result<(), Failure> {
    let node = &entry.node;
    let head = match db.fetch_optional(sqlx::query(HEAD).bind(node)).await? {
        Some(row) => ChainHead { node: node.clone(), number: row.i64("number")?, digest: row.try_get("digest")? },
        None => ChainHead::empty(node),
    };
    let row = StoredEntry::after(&head, entry)?;
    let head = sqlx::query(PUT_HEAD).bind(&row.node).bind(row.number).bind(&row.digest).bind(row.at.0);
    db.execute(head).await?;
    let statement = sqlx::query(PUT_ENTRY).bind(rows::id(JobId(row.id.0))).bind(row.at.0).bind(row.node);
    let statement = statement.bind(row.number).bind(row.tenant).bind(row.actor).bind(row.verb).bind(row.kind);
    let statement = statement.bind(row.name).bind(row.previous).bind(row.digest).bind(row.doc);
    db.execute(statement).await?;
    Ok(())
}
