//! [`Entities`]: verbs on configured entities.
//!
//! There are few entities and they change seldom, so the statements are plain and make one change at a time.

use async_trait::async_trait;
use bytes::Bytes;
use sqlx::Row as _;
use sqlx::postgres::PgConnection;

use super::audit::record;
use super::error::Failure;
use super::transaction::Verb;
use super::{PostgresStore, locks, peers};
use carillon_core::audit::AuditEntry;
use carillon_core::clock::UnixMs;
use carillon_store::audit::entry_of_put;
use carillon_store::decode::{Columns as _, entity};
use carillon_store::documents::{digest_of, to_json};
use carillon_store::entities::{
    RecentChanges, check_generation, check_owner, check_proof, check_unfinished, no_plugin, servers_run,
};
use carillon_store::{Audit, Changes, DeleteEntity, Entities, Entity, Kind, PutEntity, Recorded, Reseal, StoreError};

#[async_trait]
impl Entities for PostgresStore {
    async fn load(&self) -> Result<(i64, Vec<Entity>), StoreError> {
        let mut db = self.database.connections.take().await?;
        Ok(self.database.connections.bounded(load(&mut db)).await?)
    }

    async fn changes(&self, since: i64) -> Result<Option<Changes>, StoreError> {
        let mut db = self.database.connections.take().await?;
        Ok(self.database.connections.bounded(changes(&mut db, since)).await?)
    }

    async fn generation(&self) -> Result<i64, StoreError> {
        let mut db = self.database.connections.take().await?;
        Ok(self.database.connections.bounded(generation(&mut db)).await?)
    }

    async fn put(&self, put: PutEntity) -> Result<Recorded<Entity>, StoreError> {
        self.database.call(&put).await
    }

    async fn delete(&self, delete: DeleteEntity) -> Result<Recorded<bool>, StoreError> {
        self.database.call(&delete).await
    }

    async fn sealed_proof(&self) -> Result<Option<String>, StoreError> {
        let mut db = self.database.connections.take().await?;
        Ok(self.database.connections.bounded(sealed_proof(&mut db)).await?)
    }

    async fn keep_proof(&self, sealed: String, instead_of: Option<String>) -> Result<String, StoreError> {
        self.database.call(&KeepProof { sealed, instead_of }).await
    }

    async fn reseal(&self, reseal: Reseal) -> Result<(), StoreError> {
        self.database.call(&reseal).await
    }

    async fn component(&self, digest: &str) -> Result<Option<Bytes>, StoreError> {
        let mut db = self.database.connections.take().await?;
        Ok(self.database.connections.bounded(component(&mut db, digest)).await?)
    }
}

/// Returns one row even if there is no entity: then its columns are NULL.
const LOAD: &str = "
    SELECT generation, id, tenant, kind, name, version, doc, created_at, updated_at
    FROM carillon LEFT JOIN entity ON entity.deleted_at IS NULL
    ORDER BY entity.id";

async fn load(db: &mut PgConnection) -> Result<(i64, Vec<Entity>), Failure> {
    entity::loaded(&sqlx::query(LOAD).fetch_all(db).await?, "generation")
}

const GENERATION: &str = "SELECT generation FROM carillon";

async fn generation(db: &mut PgConnection) -> Result<i64, Failure> {
    sqlx::query(GENERATION).fetch_one(db).await?.i64("generation")
}

const NEXT_GENERATION: &str = "UPDATE carillon SET generation = generation + 1 RETURNING generation, recent";

const PUT_RECENT: &str = "UPDATE carillon SET recent = $1";

/// Notifies the other nodes that an entity has changed; the lock of entities is held.
async fn changed(db: &mut PgConnection, entity: i64) -> Result<(), Failure> {
    let row = sqlx::query(NEXT_GENERATION).fetch_one(&mut *db).await?;
    let mut recent = RecentChanges::read(row.text("recent")?);
    recent.record(row.number("generation")?, entity);
    sqlx::query(PUT_RECENT).bind(to_json(&recent)?).execute(&mut *db).await?;
    peers::notify_catalog(db).await
}

const RECENT: &str = "SELECT generation, recent FROM carillon";

const LOAD_SOME: &str = "
    SELECT id, tenant, kind, name, version, doc, created_at, updated_at FROM entity
    WHERE id = ANY($1) AND deleted_at IS NULL";

async fn changes(db: &mut PgConnection, since: i64) -> Result<Option<Changes>, Failure> {
    let row = sqlx::query(RECENT).fetch_one(&mut *db).await?;
    let generation = row.number("generation")?;
    let Some(ids) = RecentChanges::read(row.text("recent")?).between(since, generation) else { return Ok(None) };
    let wanted: Vec<i64> = ids.iter().copied().collect();
    let found = sqlx::query(LOAD_SOME).bind(wanted).fetch_all(db).await?;
    Ok(Some(entity::changes(generation, ids, &found)?))
}

const FIND: &str = "
    SELECT id, version FROM entity WHERE tenant = $1 AND kind = $2 AND name = $3 AND deleted_at IS NULL";

/// The lock waits for running inserts into the group, and makes new ones wait.
const FIND_TO_DELETE: &str = "
    SELECT id, version FROM entity WHERE tenant = $1 AND kind = $2 AND name = $3 AND deleted_at IS NULL FOR UPDATE";

const CREATE: &str = "
    INSERT INTO entity (tenant, kind, name, version, doc, created_at, updated_at)
    VALUES ($1, $2, $3, 1, $4, $5, $5) RETURNING *";

const REPLACE: &str = "
    UPDATE entity SET version = version + 1, doc = $2, updated_at = $3 WHERE id = $1 RETURNING *";

const IS_DELETED: &str = "SELECT EXISTS (SELECT 1 FROM entity WHERE id = $1 AND deleted_at IS NOT NULL) AS found";

/// Checks that the tenant was not deleted: another node may not know it yet. The lock of entities is held.
async fn check_tenant(db: &mut PgConnection, tenant: i64) -> Result<(), Failure> {
    let row = sqlx::query(IS_DELETED).bind(tenant).fetch_one(db).await?;
    Ok(check_owner(row.try_get("found")?)?)
}

async fn find(
    db: &mut PgConnection,
    sql: &'static str,
    tenant: i64,
    kind: Kind,
    name: &str,
) -> Result<Option<(i64, i64)>, Failure> {
    if name.contains('\0') {
        // PostgreSQL cannot store this text, so no entity has this name.
        return Ok(None);
    }
    let found = sqlx::query(sql).bind(tenant).bind(kind.as_str()).bind(name).fetch_optional(db).await?;
    found.as_ref().map(entity::id_and_version).transpose()
}

const DOCUMENT: &str = "SELECT doc FROM entity WHERE id = $1";

/// Returns a stored document; `None` if it cannot be read.
async fn document(db: &mut PgConnection, id: i64) -> Result<Option<serde_json::Value>, Failure> {
    Ok(sqlx::query(DOCUMENT).bind(id).fetch_one(db).await?.document("doc").ok())
}

#[async_trait]
impl Verb for PutEntity {
    type Done = Recorded<Entity>;

    async fn run(&self, db: &mut PgConnection) -> Result<Recorded<Entity>, Failure> {
        locks::take_entities(db).await?;
        let (kind, name) = (self.kind.as_str(), self.name.as_str());
        check_tenant(db, self.tenant).await?;
        let found = find(db, FIND, self.tenant, self.kind, name).await?;
        self.check(found.map(|(_, version)| version))?;
        for (tenant, plugin) in &self.needs {
            if find(db, FIND, *tenant, Kind::Plugin, plugin).await?.is_none() {
                return Err(no_plugin(plugin).into());
            }
        }
        if let Some((digest, component)) = &self.component {
            sqlx::query(PUT_COMPONENT).bind(digest).bind(component.as_ref()).execute(&mut *db).await?;
        }
        let doc = to_json(&self.doc)?;
        let before = match (&self.audit, found) {
            (Audit::Recorded(_), Some((id, _))) => document(db, id).await?,
            _ => None,
        };
        let row = match found {
            Some((id, _)) => sqlx::query(REPLACE).bind(id).bind(doc).bind(self.now.0).fetch_one(&mut *db).await?,
            None => {
                let query = sqlx::query(CREATE).bind(self.tenant).bind(kind).bind(name).bind(doc).bind(self.now.0);
                query.fetch_one(&mut *db).await?
            }
        };
        let entity = entity::entity(&row)?;
        changed(db, entity.id).await?;
        let entry = entry_of_put(&self.audit, before.as_ref(), &entity);
        if let Some(entry) = &entry {
            record(db, entry).await?;
        }
        Ok(Recorded { done: entity, entry })
    }
}

const UNFINISHED: &str = "SELECT count(*) AS jobs FROM job WHERE grp = $1";

/// Frees the name; what belongs to a group or a tenant is removed by the housekeeping.
const MARK_DELETED: &str = "UPDATE entity SET deleted_at = $2, updated_at = $2 WHERE id = $1";

/// Documents come from tenants, and PostgreSQL does not accept all of them as JSON: they are never cast.
const DELETE: &str = "DELETE FROM entity WHERE id = $1 RETURNING doc";

/// Keeps the component if another version, of any tenant, is the same component.
///
/// The lock of entities prevents a concurrent write of one. A document that has the member `$2` anywhere keeps the component.
const DELETE_COMPONENT: &str = "
    DELETE FROM component WHERE digest = $1
        AND NOT EXISTS (SELECT 1 FROM entity WHERE kind = 'plugin' AND strpos(doc, $2) > 0)";

/// The schedule's ticks are removed by the housekeeping: there may be millions.
const DELETE_TICKED: &str = "DELETE FROM ticked WHERE schedule = $1";

#[async_trait]
impl Verb for DeleteEntity {
    type Done = Recorded<bool>;

    async fn run(&self, db: &mut PgConnection) -> Result<Recorded<bool>, Failure> {
        locks::take_entities(db).await?;
        if self.generation.is_some() {
            check_generation(self.generation, generation(db).await?)?;
        }
        let Some((id, _)) = find(db, FIND_TO_DELETE, self.tenant, self.kind, &self.name).await? else {
            return Ok(Recorded { done: false, entry: None });
        };
        if self.kind == Kind::Group {
            let row = sqlx::query(UNFINISHED).bind(id).fetch_one(&mut *db).await?;
            check_unfinished(&self.name, row.number("jobs")?)?;
        }
        remove(db, id, Some(self.kind), self.now).await?;
        changed(db, id).await?;
        let Audit::Recorded(entry) = &self.audit else { return Ok(Recorded { done: true, entry: None }) };
        record(db, entry).await?;
        Ok(Recorded { done: true, entry: Some(AuditEntry::clone(entry)) })
    }
}

/// Removes an entity. Of a group or a tenant, the row stays until what belongs to it is gone. The lock of entities is held.
pub(super) async fn remove(db: &mut PgConnection, id: i64, kind: Option<Kind>, now: UnixMs) -> Result<(), Failure> {
    if matches!(kind, Some(Kind::Group | Kind::Tenant)) {
        sqlx::query(MARK_DELETED).bind(id).bind(now.0).execute(db).await?;
        return Ok(());
    }
    let row = sqlx::query(DELETE).bind(id).fetch_one(&mut *db).await?;
    if kind == Some(Kind::Plugin)
        && let Some((digest, member)) = digest_of(row.text("doc")?)
    {
        sqlx::query(DELETE_COMPONENT).bind(digest).bind(member).execute(&mut *db).await?;
    }
    if kind == Some(Kind::Schedule) {
        sqlx::query(DELETE_TICKED).bind(id).execute(&mut *db).await?;
    }
    Ok(())
}

const PROOF: &str = "SELECT sealed FROM master_key";

async fn sealed_proof(db: &mut PgConnection) -> Result<Option<String>, Failure> {
    let row = sqlx::query(PROOF).fetch_optional(db).await?;
    Ok(row.map(|row| row.try_get("sealed")).transpose()?)
}

/// Of nodes that start at the same time, one writes; the others wait for it and read its proof.
const KEEP_PROOF: &str = "
    INSERT INTO master_key (id, sealed) VALUES (1, $1)
    ON CONFLICT (id) DO UPDATE SET sealed = excluded.sealed WHERE master_key.sealed = $2";

/// Call of [`Entities::keep_proof`].
struct KeepProof {
    sealed: String,
    instead_of: Option<String>,
}

#[async_trait]
impl Verb for KeepProof {
    type Done = String;

    async fn run(&self, db: &mut PgConnection) -> Result<String, Failure> {
        sqlx::query(KEEP_PROOF).bind(&self.sealed).bind(self.instead_of.as_ref()).execute(&mut *db).await?;
        Ok(sqlx::query(PROOF).fetch_one(db).await?.try_get("sealed")?)
    }
}

#[async_trait]
impl Verb for Reseal {
    type Done = ();

    async fn run(&self, db: &mut PgConnection) -> Result<(), Failure> {
        if let Some(silence) = self.without_servers {
            let servers = peers::servers(db, silence).await?;
            if servers > 0 {
                return Err(servers_run(servers).into());
            }
        }
        for put in &self.entities {
            put.run(db).await?;
        }
        let proof = KeepProof { sealed: self.proof.clone(), instead_of: Some(self.instead_of.clone()) };
        Ok(check_proof(&proof.run(db).await?, &self.proof)?)
    }
}

const PUT_COMPONENT: &str = "INSERT INTO component (digest, bytes) VALUES ($1, $2) ON CONFLICT (digest) DO NOTHING";

const COMPONENT: &str = "SELECT bytes FROM component WHERE digest = $1";

async fn component(db: &mut PgConnection, digest: &str) -> Result<Option<Bytes>, Failure> {
    let row = sqlx::query(COMPONENT).bind(digest).fetch_optional(db).await?;
    row.as_ref().map(|row| row.bytes("bytes")).transpose()
}
