//! [`Entities`]: verbs on configured entities.
//!
//! There are few entities and they change seldom, so the statements are plain and handle one row at a time.

use async_trait::async_trait;
use bytes::Bytes;
use sqlx::Row as _;
use sqlx::sqlite::{SqliteConnection, SqliteRow};

use super::SqliteStore;
use super::db::Db;
use super::error::Failure;
use super::rows;
use carillon_core::clock::UnixMs;
use carillon_store::documents::{digest_of, to_json};
use carillon_store::entities::{RecentChanges, check_generation, no_plugin};
use carillon_store::{Changes, Entities, Entity, Kind, PutEntity, StoreError};

#[async_trait]
impl Entities for SqliteStore {
    async fn load(&self) -> Result<(i64, Vec<Entity>), StoreError> {
        let rows = sqlx::query(LOAD).fetch_all(&mut *self.readers.take().await?).await.map_err(Failure::from)?;
        Ok(loaded(&rows)?)
    }

    async fn changes(&self, since: i64) -> Result<Option<Changes>, StoreError> {
        let mut reader = self.readers.take().await?;
        Ok(changes(&mut reader, since).await?)
    }

    async fn generation(&self) -> Result<i64, StoreError> {
        let row = sqlx::query(GENERATION).fetch_one(&mut *self.readers.take().await?).await.map_err(Failure::from)?;
        Ok(rows::number(&row, "number")?)
    }

    async fn put(&self, put: PutEntity) -> Result<Entity, StoreError> {
        self.writer.call(move |db| Box::pin(async move { write(db, &put).await })).await
    }

    async fn delete(
        &self,
        tenant: i64,
        kind: Kind,
        name: String,
        now: UnixMs,
        generation: Option<i64>,
    ) -> Result<bool, StoreError> {
        let delete = Delete { tenant, kind, name, now, generation };
        self.writer.call(move |db| Box::pin(async move { delete.run(db).await })).await
    }

    async fn sealed_proof(&self) -> Result<Option<String>, StoreError> {
        let row = sqlx::query(PROOF).fetch_optional(&mut *self.readers.take().await?).await.map_err(Failure::from)?;
        Ok(row.map(|row| row.try_get("sealed")).transpose().map_err(Failure::from)?)
    }

    async fn keep_proof(&self, sealed: String, instead_of: Option<String>) -> Result<String, StoreError> {
        self.writer.call(move |db| Box::pin(async move { keep_proof(db, sealed, instead_of).await })).await
    }

    async fn component(&self, digest: &str) -> Result<Option<Bytes>, StoreError> {
        let row = sqlx::query(COMPONENT)
            .bind(digest)
            .fetch_optional(&mut *self.readers.take().await?)
            .await
            .map_err(Failure::from)?;
        Ok(row.as_ref().map(|row| rows::payload(row, "bytes")).transpose()?)
    }
}

/// Returns one row even if there is no entity: then its columns are NULL.
const LOAD: &str = "
    SELECT generation.number, entity.* FROM generation LEFT JOIN entity ON entity.deleted_at IS NULL
    ORDER BY entity.id";

fn loaded(found: &[SqliteRow]) -> Result<(i64, Vec<Entity>), Failure> {
    let first = found.first().ok_or_else(|| StoreError::Corrupt("the table `generation` is empty".to_owned()))?;
    let mut entities = Vec::with_capacity(found.len());
    for row in found {
        if row.try_get::<Option<i64>, _>("id")?.is_some() {
            entities.extend(readable(row)?);
        }
    }
    Ok((rows::number(first, "number")?, entities))
}

/// Reads an entity, whatever its document is.
///
/// A document that is not JSON becomes null, from which nothing is read. An entity of a kind that this program does not know is left out.
/// Neither keeps the server from starting.
fn readable(row: &SqliteRow) -> Result<Option<Entity>, Failure> {
    let kind: &str = row.try_get("kind")?;
    if !Kind::ALL.iter().any(|known| known.as_str() == kind) {
        tracing::error!(kind, "ignored a stored entity of an unknown kind");
        return Ok(None);
    }
    let doc = rows::document(row, "doc").unwrap_or(serde_json::Value::Null);
    entity_with(row, doc).map(Some)
}

fn entity(row: &SqliteRow) -> Result<Entity, Failure> {
    entity_with(row, rows::document(row, "doc")?)
}

fn entity_with(row: &SqliteRow, doc: serde_json::Value) -> Result<Entity, Failure> {
    let kind: &str = row.try_get("kind")?;
    let kind = Kind::ALL
        .into_iter()
        .find(|known| known.as_str() == kind)
        .ok_or_else(|| StoreError::Corrupt(format!("`{kind}` is not a kind of entity")))?;
    Ok(Entity {
        id: row.try_get("id")?,
        tenant: row.try_get("tenant")?,
        kind,
        name: row.try_get("name")?,
        version: row.try_get("version")?,
        doc,
        created_at: UnixMs(row.try_get("created_at")?),
        updated_at: UnixMs(row.try_get("updated_at")?),
    })
}

const GENERATION: &str = "SELECT number FROM generation";

const NEXT_GENERATION: &str = "UPDATE generation SET number = number + 1 RETURNING number, recent";

const PUT_RECENT: &str = "UPDATE generation SET recent = ?1";

/// Records that an entity has changed.
async fn changed(db: &mut Db, entity: i64) -> Result<(), Failure> {
    let row = db.fetch_one(sqlx::query(NEXT_GENERATION)).await?;
    let mut recent = RecentChanges::read(row.try_get("recent")?);
    recent.record(rows::number(&row, "number")?, entity);
    db.execute(sqlx::query(PUT_RECENT).bind(to_json(&recent)?)).await?;
    Ok(())
}

const RECENT: &str = "SELECT number, recent FROM generation";

/// Selects the existing entities of a JSON list of ids.
pub(super) const LOAD_SOME: &str = "
    SELECT * FROM entity WHERE id IN (SELECT value FROM json_each(?)) AND deleted_at IS NULL";

async fn changes(db: &mut SqliteConnection, since: i64) -> Result<Option<Changes>, Failure> {
    let row = sqlx::query(RECENT).fetch_one(&mut *db).await?;
    let generation = rows::number(&row, "number")?;
    let Some(mut ids) = RecentChanges::read(row.try_get("recent")?).between(since, generation) else { return Ok(None) };
    let found = sqlx::query(LOAD_SOME).bind(to_json(&ids)?).fetch_all(db).await?;
    let changed: Vec<_> = found.iter().filter_map(|row| readable(row).transpose()).collect::<Result<_, _>>()?;
    for entity in &changed {
        ids.remove(&entity.id);
    }
    Ok(Some(Changes { generation, changed, gone: ids.into_iter().collect() }))
}

const FIND: &str = "
    SELECT id, version FROM entity WHERE tenant = ?1 AND kind = ?2 AND name = ?3 AND deleted_at IS NULL";

const CREATE: &str = "
    INSERT INTO entity (tenant, kind, name, version, doc, created_at, updated_at)
    VALUES (?1, ?2, ?3, 1, ?4, ?5, ?5) RETURNING *";

const REPLACE: &str = "
    UPDATE entity SET version = version + 1, doc = ?2, updated_at = ?3 WHERE id = ?1 RETURNING *";

async fn find(db: &mut Db, tenant: i64, kind: Kind, name: &str) -> Result<Option<(i64, i64)>, Failure> {
    let query = sqlx::query(FIND).bind(tenant).bind(kind.as_str()).bind(name);
    let found = db.fetch_optional(query).await?;
    Ok(found.map(|row| Ok::<_, sqlx::Error>((row.try_get("id")?, row.try_get("version")?))).transpose()?)
}

async fn write(db: &mut Db, put: &PutEntity) -> Result<Entity, Failure> {
    let (kind, name) = (put.kind.as_str(), put.name.as_str());
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
    let row = match found {
        Some((id, _)) => db.fetch_one(sqlx::query(REPLACE).bind(id).bind(doc).bind(put.now.0)).await?,
        None => {
            let query = sqlx::query(CREATE).bind(put.tenant).bind(kind).bind(name).bind(doc).bind(put.now.0);
            db.fetch_one(query).await?
        }
    };
    let entity = entity(&row)?;
    changed(db, entity.id).await?;
    Ok(entity)
}

fn conflict(text: String) -> Result<(), Failure> {
    Err(Failure(StoreError::Conflict(text)))
}

pub(super) const UNFINISHED: &str = "
    SELECT count(*) AS jobs FROM job WHERE grp = ?1 AND state IN ('scheduled', 'running')";

const DELETE_GROUP: &str = "UPDATE entity SET deleted_at = ?2, updated_at = ?2 WHERE id = ?1";

const DELETE: &str = "DELETE FROM entity WHERE id = ?1 RETURNING doc";

/// Keeps the component if another version, of any tenant, is the same component.
///
/// A document that has the member `?2` anywhere keeps the component.
const DELETE_COMPONENT: &str = "
    DELETE FROM component WHERE digest = ?1
        AND NOT EXISTS (SELECT 1 FROM entity WHERE kind = 'plugin' AND instr(doc, ?2) > 0)";

/// The schedule's ticks are removed by the housekeeping: there may be millions.
const DELETE_TICKED: &str = "DELETE FROM ticked WHERE schedule = ?1";

/// Call of [`Entities::delete`].
struct Delete {
    tenant: i64,
    kind: Kind,
    name: String,
    now: UnixMs,
    generation: Option<i64>,
}

impl Delete {
    async fn run(&self, db: &mut Db) -> Result<bool, Failure> {
        let (kind, name) = (self.kind, &self.name);
        if self.generation.is_some() {
            let row = db.fetch_one(sqlx::query(GENERATION)).await?;
            check_generation(self.generation, rows::number(&row, "number")?)?;
        }
        let Some((id, _)) = find(db, self.tenant, kind, name).await? else {
            return Ok(false);
        };
        if kind == Kind::Group {
            let row = db.fetch_one(sqlx::query(UNFINISHED).bind(id)).await?;
            let jobs: u64 = rows::number(&row, "jobs")?;
            if jobs > 0 {
                conflict(format!("the group `{name}` has {jobs} waiting or running jobs"))?;
            }
            db.execute(sqlx::query(DELETE_GROUP).bind(id).bind(self.now.0)).await?;
        } else {
            let row = db.fetch_one(sqlx::query(DELETE).bind(id)).await?;
            if kind == Kind::Plugin
                && let Some((digest, member)) = digest_of(row.try_get("doc")?)
            {
                db.execute(sqlx::query(DELETE_COMPONENT).bind(digest).bind(member)).await?;
            }
        }
        if kind == Kind::Schedule {
            db.execute(sqlx::query(DELETE_TICKED).bind(id)).await?;
        }
        changed(db, id).await?;
        Ok(true)
    }
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
