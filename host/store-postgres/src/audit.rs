//! [`AuditLog`]: entries of the audit log, each in the chain of its node.

use async_trait::async_trait;
use sqlx::Row as _;
use sqlx::postgres::{PgConnection, PgRow};
use uuid::Uuid;

use super::PostgresStore;
use super::error::Failure;
use super::transaction::Verb;
use carillon_core::audit::AuditEntry;
use carillon_core::job::TenantId;
use carillon_store::decode::Columns as _;
use carillon_store::{AuditLog, AuditQuery, ChainHead, Chained, StoreError, StoredEntry};

#[async_trait]
impl AuditLog for PostgresStore {
    async fn append(&self, entry: AuditEntry) -> Result<(), StoreError> {
        self.database.call(&Append { entry }).await
    }

    async fn audit(&self, query: AuditQuery) -> Result<Vec<Chained>, StoreError> {
        let mut viewing = self.viewers.take(TenantId(query.tenant.unwrap_or(NO_TENANT))).await?;
        self.viewers.bounded(page(&mut viewing.db, query)).await
    }

    async fn audit_chain(&self, (node, number): (String, i64), limit: u32) -> Result<Vec<StoredEntry>, StoreError> {
        let mut viewing = self.viewers.take(TenantId(NO_TENANT)).await?;
        let query = sqlx::query(CHAIN).bind(node).bind(number).bind(i64::from(limit));
        let found = async { Ok(query.fetch_all(&mut *viewing.db).await?) };
        let found: Vec<PgRow> = self.viewers.bounded(found).await?;
        Ok(found.iter().map(StoredEntry::read).collect::<Result<_, Failure>>()?)
    }

    async fn audit_heads(&self) -> Result<Vec<ChainHead>, StoreError> {
        let mut db = self.database.connections.take().await?;
        let found = async { Ok(sqlx::query(HEADS).fetch_all(&mut *db).await?) };
        let found: Vec<PgRow> = self.database.connections.bounded(found).await?;
        Ok(found.iter().map(head).collect::<Result<_, Failure>>()?)
    }
}

/// Number of no tenant, whose turn those readers have who see all entries.
const NO_TENANT: i64 = 0;

pub(super) const PAGE: &str = "
    SELECT * FROM audit WHERE id < $1 AND ($3::BIGINT IS NULL OR tenant = $3)
        AND ($4::TEXT IS NULL OR actor = $4) AND ($5::TEXT IS NULL OR verb = $5) AND ($6::TEXT IS NULL OR kind = $6)
        AND ($7::TEXT IS NULL OR name = $7) AND ($8::BIGINT IS NULL OR at >= $8) AND ($9::BIGINT IS NULL OR at < $9)
    ORDER BY id DESC LIMIT $2";

pub(super) const PAGE_OF_TENANT: &str = "
    SELECT * FROM audit WHERE id < $1 AND tenant = $3
        AND ($4::TEXT IS NULL OR actor = $4) AND ($5::TEXT IS NULL OR verb = $5) AND ($6::TEXT IS NULL OR kind = $6)
        AND ($7::TEXT IS NULL OR name = $7) AND ($8::BIGINT IS NULL OR at >= $8) AND ($9::BIGINT IS NULL OR at < $9)
    ORDER BY id DESC LIMIT $2";

async fn page(db: &mut PgConnection, query: AuditQuery) -> Result<Vec<Chained>, Failure> {
    let AuditQuery { tenant, actor, verb, kind, name, from, to, before, limit } = query;
    // PostgreSQL cannot store this text, so no entry has it.
    if [&actor, &verb, &kind, &name].into_iter().flatten().any(|text| text.contains('\0')) {
        return Ok(Vec::new());
    }
    let sql = if tenant.is_some() { PAGE_OF_TENANT } else { PAGE };
    let before = before.map_or(Uuid::max(), |id| id.0);
    let query = sqlx::query(sql).bind(before).bind(i64::from(limit)).bind(tenant).bind(actor).bind(verb).bind(kind);
    let query = query.bind(name).bind(from.map(|at| at.0)).bind(to.map(|at| at.0));
    let rows = query.fetch_all(db).await?.iter().map(StoredEntry::read).collect::<Result<Vec<_>, Failure>>()?;
    Ok(rows.into_iter().filter_map(StoredEntry::entry).collect())
}

pub(super) const CHAIN: &str = "
    SELECT * FROM audit WHERE (node, number) > ($1, $2) ORDER BY node, number LIMIT $3";

const HEADS: &str = "SELECT node, number, digest FROM audit_chain ORDER BY node";

fn head(row: &PgRow) -> Result<ChainHead, Failure> {
    Ok(ChainHead { node: row.try_get("node")?, number: row.i64("number")?, digest: row.try_get("digest")? })
}

/// Locks the chain: other transactions that add to it wait until this one has ended.
const HEAD: &str = "
    INSERT INTO audit_chain (node, number, digest, at) VALUES ($1, 0, '', $2)
    ON CONFLICT (node) DO UPDATE SET at = excluded.at RETURNING node, number, digest";

const PUT_HEAD: &str = "UPDATE audit_chain SET number = $2, digest = $3 WHERE node = $1";

const PUT_ENTRY: &str = "
    INSERT INTO audit (id, at, node, number, tenant, actor, verb, kind, name, previous, digest, doc)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)";

/// Writes an entry at the end of its node's chain, in the caller's transaction: the only place where one is written.
pub(super) async fn record(db: &mut PgConnection, entry: &AuditEntry) -> Result<(), Failure> {
    let head = head(&sqlx::query(HEAD).bind(&entry.node).bind(entry.at.0).fetch_one(&mut *db).await?)?;
    let row = StoredEntry::after(&head, entry)?;
    sqlx::query(PUT_HEAD).bind(&row.node).bind(row.number).bind(&row.digest).execute(&mut *db).await?;
    let query = sqlx::query(PUT_ENTRY).bind(row.id.0).bind(row.at.0).bind(row.node).bind(row.number).bind(row.tenant);
    let query = query.bind(row.actor).bind(row.verb).bind(row.kind).bind(row.name);
    query.bind(row.previous).bind(row.digest).bind(row.doc).execute(db).await?;
    Ok(())
}

/// Call of [`AuditLog::append`].
struct Append {
    entry: AuditEntry,
}

#[async_trait]
impl Verb for Append {
    type Done = ();

    async fn run(&self, db: &mut PgConnection) -> Result<(), Failure> {
        record(db, &self.entry).await
    }
}
