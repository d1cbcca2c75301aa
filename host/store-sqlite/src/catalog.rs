//! [`Entities`]: verbs on configured entities.
//!
//! There are few entities and they change seldom, so the statements are plain and handle one row at a time.

use async_trait::async_trait;
use bytes::Bytes;
use sqlx::Row as _;
use sqlx::sqlite::SqliteConnection;

use super::SqliteStore;
use super::audit::record;
use super::db::Db;
use super::error::Failure;
use carillon_core::audit::AuditEntry;
use carillon_core::clock::UnixMs;
use carillon_store::audit::entry_of_put;
use carillon_store::decode::{Columns as _, entity};
use carillon_store::documents::{digest_of, to_json};
use carillon_store::entities::{
    RecentChanges, check_generation, check_owner, check_proof, check_unfinished, no_plugin,
};
use carillon_store::{Audit, Changes, DeleteEntity, Entities, Entity, Kind, PutEntity, Recorded, Reseal, StoreError};

#[async_trait]
impl Entities for SqliteStore {
    async fn load(&self) -> Result<(i64, Vec<Entity>), StoreError> {
        let rows = sqlx::query(LOAD).fetch_all(&mut *self.readers.take().await?).await.map_err(Failure::from)?;
        Ok(entity::loaded(&rows, "number")?)
    }

    async fn changes(&self, since: i64) -> Result<Option<Changes>, StoreError> {
        let mut reader = self.readers.take().await?;
        Ok(changes(&mut reader, since).await?)
    }

    async fn generation(&self) -> Result<i64, StoreError> {
        let row = sqlx::query(GENERATION).fetch_one(&mut *self.readers.take().await?).await.map_err(Failure::from)?;
        Ok(row.number("number")?)
    }

    async fn put(&self, put: PutEntity) -> Result<Recorded<Entity>, StoreError> {
        self.writer.call(move |db| Box::pin(async move { write(db, &put).await })).await
    }

    async fn delete(&self, removal: DeleteEntity) -> Result<Recorded<bool>, StoreError> {
        self.writer.call(move |db| Box::pin(async move { delete(db, &removal).await })).await
    }

    async fn sealed_proof(&self) -> Result<Option<String>, StoreError> {
        let row = sqlx::query(PROOF).fetch_optional(&mut *self.readers.take().await?).await.map_err(Failure::from)?;
        Ok(row.map(|row| row.try_get("sealed")).transpose().map_err(Failure::from)?)
    }

    async fn keep_proof(&self, sealed: String, instead_of: Option<String>) -> Result<String, StoreError> {
        self.writer.call(move |db| Box::pin(async move { keep_proof(db, sealed, instead_of).await })).await
    }

    /// No other server can have the file open, so none is looked for.
    async fn reseal(&self, reseal: Reseal) -> Result<(), StoreError> {
        let work = self.writer.call(move |db| {
            Box::pin(async move {
                for put in &reseal.entities {
                    write(db, put).await?;
                }
                let kept = keep_proof(db, reseal.proof.clone(), Some(reseal.instead_of)).await?;
                Ok(check_proof(&kept, &reseal.proof)?)
            })
        });
        work.await
    }

    async fn component(&self, digest: &str) -> Result<Option<Bytes>, StoreError> {
        let row = sqlx::query(COMPONENT)
            .bind(digest)
            .fetch_optional(&mut *self.readers.take().await?)
            .await
            .map_err(Failure::from)?;
        Ok(row.as_ref().map(|row| row.bytes("bytes")).transpose()?)
    }
}

/// Returns one row even if there is no entity: then its columns are NULL.
const LOAD: &str = "
    SELECT generation.number, entity.* FROM generation LEFT JOIN entity ON entity.deleted_at IS NULL
    ORDER BY entity.id";

const GENERATION: &str = "SELECT number FROM generation";

const NEXT_GENERATION: &str = "UPDATE generation SET number = number + 1 RETURNING number, recent";

const PUT_RECENT: &str = "UPDATE generation SET recent = ?1";

/// Records that an entity has changed.
async fn changed(db: &mut Db, entity: i64) -> Result<(), Failure> {
    let row = db.fetch_one(sqlx::query(NEXT_GENERATION)).await?;
    let mut recent = RecentChanges::read(row.text("recent")?);
    recent.record(row.number("number")?, entity);
    db.execute(sqlx::query(PUT_RECENT).bind(to_json(&recent)?)).await?;
    Ok(())
}

const RECENT: &str = "SELECT number, recent FROM generation";

/// Selects the existing entities of a JSON list of ids.
pub(super) const LOAD_SOME: &str = "
    SELECT * FROM entity WHERE id IN (SELECT value FROM json_each(?)) AND deleted_at IS NULL";

async fn changes(db: &mut SqliteConnection, since: i64) -> Result<Option<Changes>, Failure> {
    let row = sqlx::query(RECENT).fetch_one(&mut *db).await?;
    let generation = row.number("number")?;
    let Some(ids) = RecentChanges::read(row.text("recent")?).between(since, generation) else { return Ok(None) };
    let found = sqlx::query(LOAD_SOME).bind(to_json(&ids)?).fetch_all(db).await?;
    Ok(Some(entity::changes(generation, ids, &found)?))
}

const FIND: &str = "
    SELECT id, version FROM entity WHERE tenant = ?1 AND kind = ?2 AND name = ?3 AND deleted_at IS NULL";

const CREATE: &str = "
    INSERT INTO entity (tenant, kind, name, version, doc, created_at, updated_at)
    VALUES (?1, ?2, ?3, 1, ?4, ?5, ?5) RETURNING *";

const REPLACE: &str = "
    UPDATE entity SET version = version + 1, doc = ?2, updated_at = ?3 WHERE id = ?1 RETURNING *";

pub(super) const IS_DELETED: &str = "
    SELECT EXISTS (SELECT 1 FROM entity WHERE id = ?1 AND deleted_at IS NOT NULL) AS found";

/// Checks that the tenant was not deleted: another node may not know it yet.
async fn check_tenant(db: &mut Db, tenant: i64) -> Result<(), Failure> {
    let row = db.fetch_one(sqlx::query(IS_DELETED).bind(tenant)).await?;
    Ok(check_owner(row.i64("found")? != 0)?)
}

const DOCUMENT: &str = "SELECT doc FROM entity WHERE id = ?1";

/// Returns a stored document; `None` if it cannot be read.
async fn document(db: &mut Db, id: i64) -> Result<Option<serde_json::Value>, Failure> {
    Ok(db.fetch_one(sqlx::query(DOCUMENT).bind(id)).await?.document("doc").ok())
}

async fn find(db: &mut Db, tenant: i64, kind: Kind, name: &str) -> Result<Option<(i64, i64)>, Failure> {
    let query = sqlx::query(FIND).bind(tenant).bind(kind.as_str()).bind(name);
    let found = db.fetch_optional(query).await?;
    found.as_ref().map(entity::id_and_version).transpose()
}

async fn write(db: &mut Db, put: &PutEntity) -> Result<Recorded<Entity>, Failure> {
    let (kind, name) = (put.kind.as_str(), put.name.as_str());
    check_tenant(db, put.tenant).await?;
    let found = find(db, put.tenant, put.kind, name).await?;
    put.check(found.map(|(_, version)| version))?;
    for (tenant, plugin) in &put.needs {
        if find(db, *tenant, Kind::Plugin, plugin).await?.is_none() {
            return Err(no_plugin(plugin).into());
        }
    }
    if let Some((digest, component)) = &put.component {
        db.execute(sqlx::query(PUT_COMPONENT).bind(digest).bind(component.as_ref())).await?;
    }
    let doc = to_json(&put.doc)?;
    let before = match (&put.audit, found) {
        (Audit::Recorded(_), Some((id, _))) => document(db, id).await?,
        _ => None,
    };
    let row = match found {
        Some((id, _)) => db.fetch_one(sqlx::query(REPLACE).bind(id).bind(doc).bind(put.now.0)).await?,
        None => {
            let query = sqlx::query(CREATE).bind(put.tenant).bind(kind).bind(name).bind(doc).bind(put.now.0);
            db.fetch_one(query).await?
        }
    };
    let entity = entity::entity(&row)?;
    changed(db, entity.id).await?;
    let entry = entry_of_put(&put.audit, before.as_ref(), &entity);
    if let Some(entry) = &entry {
        record(db, entry).await?;
    }
    Ok(Recorded { done: entity, entry })
}

pub(super) const UNFINISHED: &str = "
    SELECT count(*) AS jobs FROM job WHERE grp = ?1 AND state IN ('scheduled', 'running')";

/// Frees the name; what belongs to a group or a tenant is removed by the housekeeping.
pub(super) const MARK_DELETED: &str = "UPDATE entity SET deleted_at = ?2, updated_at = ?2 WHERE id = ?1";

pub(super) const DELETE: &str = "DELETE FROM entity WHERE id = ?1 RETURNING doc";

/// Keeps the component if another version, of any tenant, is the same component.
///
/// A document that has the member `?2` anywhere keeps the component.
const DELETE_COMPONENT: &str = "
    DELETE FROM component WHERE digest = ?1
        AND NOT EXISTS (SELECT 1 FROM entity WHERE kind = 'plugin' AND instr(doc, ?2) > 0)";

/// The schedule's ticks are removed by the housekeeping: there may be millions.
const DELETE_TICKED: &str = "DELETE FROM ticked WHERE schedule = ?1";

/// Does what [`Entities::delete`] does.
async fn delete(db: &mut Db, removal: &DeleteEntity) -> Result<Recorded<bool>, Failure> {
    let (kind, name) = (removal.kind, &removal.name);
    if removal.generation.is_some() {
        let row = db.fetch_one(sqlx::query(GENERATION)).await?;
        check_generation(removal.generation, row.number("number")?)?;
    }
    let Some((id, _)) = find(db, removal.tenant, kind, name).await? else {
        return Ok(Recorded { done: false, entry: None });
    };
    if kind == Kind::Group {
        let row = db.fetch_one(sqlx::query(UNFINISHED).bind(id)).await?;
        check_unfinished(name, row.number("jobs")?)?;
    }
    remove(db, id, Some(kind), removal.now).await?;
    changed(db, id).await?;
    let Audit::Recorded(entry) = &removal.audit else { return Ok(Recorded { done: true, entry: None }) };
    record(db, entry).await?;
    Ok(Recorded { done: true, entry: Some(AuditEntry::clone(entry)) })
}

/// Removes an entity. Of a group or a tenant, the row stays until what belongs to it is gone.
pub(super) async fn remove(db: &mut Db, id: i64, kind: Option<Kind>, now: UnixMs) -> Result<(), Failure> {
    if matches!(kind, Some(Kind::Group | Kind::Tenant)) {
        db.execute(sqlx::query(MARK_DELETED).bind(id).bind(now.0)).await?;
        return Ok(());
    }
    let row = db.fetch_one(sqlx::query(DELETE).bind(id)).await?;
    if kind == Some(Kind::Plugin)
        && let Some((digest, member)) = digest_of(row.text("doc")?)
    {
        db.execute(sqlx::query(DELETE_COMPONENT).bind(digest).bind(member)).await?;
    }
    if kind == Some(Kind::Schedule) {
        db.execute(sqlx::query(DELETE_TICKED).bind(id)).await?;
    }
    Ok(())
}

const PROOF: &str = "SELECT sealed FROM master_key";

const KEEP_PROOF: &str = "
    INSERT INTO master_key (id, sealed) VALUES (1, ?1)
    ON CONFLICT (id) DO UPDATE SET sealed = excluded.sealed WHERE master_key.sealed = ?2";

async fn keep_proof(db: &mut Db, sealed: String, instead_of: Option<String>) -> Result<String, Failure> {
    db.execute(sqlx::query(KEEP_PROOF).bind(sealed).bind(instead_of)).await?;
    Ok(db.fetch_one(sqlx::query(PROOF)).await?.try_get("sealed")?)
}

const PUT_COMPONENT: &str = "INSERT INTO component (digest, bytes) VALUES (?1, ?2) ON CONFLICT (digest) DO NOTHING";

const COMPONENT: &str = "SELECT bytes FROM component WHERE digest = ?1";
