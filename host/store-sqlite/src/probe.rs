//! Checks whether a job could be stored now.

use sqlx::Row as _;

use super::db::Db;
use super::error::Failure;
use super::writer::Writer;
use super::{admit, job_rows};
use carillon_core::clock::UnixMs;
use carillon_core::job::{GroupId, JobId, NewJob, TenantId};
use carillon_store::StoreError;
use carillon_store::documents::{PROBE, PROBE_BYTES};

/// Selects any group: all groups' jobs are stored in the same tables.
const A_GROUP: &str = "SELECT id, tenant FROM entity WHERE kind = 'group' AND deleted_at IS NULL LIMIT 1";

const WRITE: &str = "
    INSERT INTO recent (tenant, kind, key, expires_at, job, doc) VALUES (0, ?1, ?1, ?2, NULL, ?3)
    ON CONFLICT (tenant, kind, key) DO UPDATE SET doc = excluded.doc";

const REMOVE: &str = "DELETE FROM recent WHERE tenant = 0 AND kind = ?1 AND key = ?1";

/// Runs [`carillon_store::Jobs::probe`].
pub(super) async fn run(writer: &Writer, id: JobId, now: UnixMs) -> Result<(), StoreError> {
    let tried = writer.call(move |db| Box::pin(insert_and_fail(db, id, now))).await;
    undone(tried)?;
    let doc = "0".repeat(PROBE_BYTES);
    let write = writer.call(move |db| {
        Box::pin(async move { Ok(db.execute(sqlx::query(WRITE).bind(PROBE).bind(now.0).bind(doc)).await?) })
    });
    write.await?;
    let remove = writer.call(|db| Box::pin(async move { Ok(db.execute(sqlx::query(REMOVE).bind(PROBE)).await?) }));
    remove.await.map(drop)
}

/// Does the work of an insert and fails, so that it is undone.
async fn insert_and_fail(db: &mut Db, id: JobId, now: UnixMs) -> Result<(), Failure> {
    if let Some(row) = db.fetch_optional(sqlx::query(A_GROUP)).await? {
        let (group, tenant) = (GroupId(row.try_get("id")?), TenantId(row.try_get("tenant")?));
        let rows = job_rows::rows(vec![NewJob::plain(id, tenant, group, now)])?;
        admit::place(db, &rows, None).await?;
    }
    Err(Failure(StoreError::Conflict(PROBE.to_owned())))
}

fn undone(tried: Result<(), StoreError>) -> Result<(), StoreError> {
    match tried {
        Err(StoreError::Conflict(text)) if text == PROBE => Ok(()),
        other => other,
    }
}
