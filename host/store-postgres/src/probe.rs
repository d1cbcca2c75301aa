//! Checks whether a job could be stored now.

use async_trait::async_trait;
use sqlx::Row as _;
use sqlx::postgres::PgConnection;

use super::error::Failure;
use super::job_rows;
use super::transaction::{Database, Verb};
use carillon_core::clock::UnixMs;
use carillon_core::job::{GroupId, JobId, NewJob, TenantId};
use carillon_store::StoreError;
use carillon_store::documents::{PROBE, PROBE_BYTES};

/// Selects any group: all groups' jobs are stored in the same tables.
const A_GROUP: &str = "SELECT id, tenant FROM entity WHERE kind = 'group' AND deleted_at IS NULL LIMIT 1";

const WRITE: &str = "
    INSERT INTO recent (tenant, kind, key, expires_at, job, doc) VALUES (0, $1, $1, $2, NULL, $3)
    ON CONFLICT (tenant, kind, key) DO UPDATE SET doc = excluded.doc";

const REMOVE: &str = "DELETE FROM recent WHERE tenant = 0 AND kind = $1 AND key = $1";

/// Runs [`carillon_store::Jobs::probe`].
pub(super) async fn run(database: &Database, id: JobId, now: UnixMs) -> Result<(), StoreError> {
    match database.transact(&InsertAndFail { id, now }).await {
        Err(StoreError::Conflict(text)) if text == PROBE => {}
        other => return other,
    }
    database.transact(&Write { now }).await?;
    database.transact(&Remove).await
}

/// Does the work of an insert in a transaction that fails, so that it is undone.
struct InsertAndFail {
    id: JobId,
    now: UnixMs,
}

#[async_trait]
impl Verb for InsertAndFail {
    type Done = ();

    async fn run(&self, db: &mut PgConnection) -> Result<(), Failure> {
        if let Some(row) = sqlx::query(A_GROUP).fetch_optional(&mut *db).await? {
            let (group, tenant) = (GroupId(row.try_get("id")?), TenantId(row.try_get("tenant")?));
            let rows = job_rows::rows(vec![NewJob::plain(self.id, tenant, group, self.now)])?;
            job_rows::write(db, &rows.iter().collect::<Vec<_>>()).await?;
        }
        Err(StoreError::Conflict(PROBE.to_owned()).into())
    }
}

struct Write {
    now: UnixMs,
}

#[async_trait]
impl Verb for Write {
    type Done = ();

    async fn run(&self, db: &mut PgConnection) -> Result<(), Failure> {
        // Random digits, which cannot be compressed.
        let doc: String = (0..PROBE_BYTES / 16)
            .map(|part| format!("{:016x}", carillon_core::stable_hash::fnv(part.to_be_bytes().into_iter())))
            .collect();
        sqlx::query(WRITE).bind(PROBE).bind(self.now.0).bind(doc).execute(db).await?;
        Ok(())
    }
}

struct Remove;

#[async_trait]
impl Verb for Remove {
    type Done = ();

    async fn run(&self, db: &mut PgConnection) -> Result<(), Failure> {
        sqlx::query(REMOVE).bind(PROBE).execute(db).await?;
        Ok(())
    }
}
