//! Encryption of payloads in the store (`store.encrypt`): a store around another one that encrypts what it is given to keep, and decrypts what
//! it returns.
//!
//! Encrypted are the payload and the spec of a job (its headers, the credentials and the query of its URL, its override, its follow-ups), the
//! record of an attempt with the stored part of the response, the document of a schedule, and the recorded response to a request with an
//! idempotency key. Names, labels, order keys, dedupe keys, times and states stay readable, because the databases select by them.
//!
//! Not: a rule about jobs, or SQL.
//!
//! Invariants: every value says itself whether it is encrypted, so values from before and after a change of the setting are read alike. Without
//! the setting, nothing is encrypted, and a value that is not encrypted costs a look at its mark. A value that cannot be decrypted is
//! treated as a damaged row is: lists leave it out, and its job ends as dead.

mod cipher;
mod conversions;
mod data_keys;
mod forms;
mod jobs;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use serde_json::Value;

use self::data_keys::DataKeys;
pub(crate) use self::data_keys::{DATA_KEY, DataKeyDoc, data_key_owner};
use super::secrets::Vault;
use super::{Catalog, CatalogError};
use carillon_core::audit::AuditEntry;
use carillon_core::clock::Clock;
use carillon_core::job::TenantId;
use carillon_store::{
    Audit, AuditLog, AuditQuery, ChainHead, Chained, Changes, DeleteEntity, Entities, Entity, Kind, PutEntity,
    Recorded, Reseal, Store, StoreError, StoredEntry,
};

/// Values that a store encrypts from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encryption {
    /// None; what is encrypted already is read.
    Off,
    /// Payloads, and whatever else of a job may hold secrets.
    Payloads,
}

impl Catalog {
    /// Deletes the key of a tenant's payloads: nothing that was encrypted with it can be read any more. Returns false if there is none.
    ///
    /// # Errors
    /// Returns the store's error.
    pub async fn delete_data_key(&self, tenant: TenantId) -> Result<bool, CatalogError> {
        let (name, now) = (DATA_KEY.to_owned(), self.now());
        // It belongs to the deletion of the tenant, which has an entry.
        let (generation, audit) = (None, Audit::Upkeep);
        let delete = DeleteEntity { tenant: tenant.0, kind: Kind::DataKey, name, now, generation, audit };
        Ok(self.store.delete(delete).await?.done)
    }
}

/// A store that encrypts what another one keeps.
pub struct SealedStore {
    inner: Arc<dyn Store>,
    keys: DataKeys,
    encryption: Encryption,
    clock: Arc<dyn Clock>,
}

impl SealedStore {
    /// Makes a store around `inner`. The vault decrypts the tenants' keys.
    #[must_use]
    pub fn new(inner: Arc<dyn Store>, vault: &Vault, encryption: Encryption, clock: Arc<dyn Clock>) -> Self {
        let keys = DataKeys::new(Arc::clone(&inner), vault.clone(), Arc::clone(&clock));
        Self { inner, keys, encryption, clock }
    }

    /// Takes the keys among these entities into memory, and decrypts the documents of the others.
    async fn shown(&self, entities: Vec<Entity>) -> Result<Vec<Entity>, StoreError> {
        entities.iter().filter(|entity| entity.kind == Kind::DataKey).for_each(|entity| self.keys.apply(entity));
        let mut shown = Vec::with_capacity(entities.len());
        for entity in entities.into_iter().filter(|entity| entity.kind != Kind::DataKey) {
            shown.push(self.shown_entity(entity).await?);
        }
        Ok(shown)
    }

    /// Decrypts the document of an entity. One that cannot be decrypted becomes null, as one that is not JSON does.
    async fn shown_entity(&self, entity: Entity) -> Result<Entity, StoreError> {
        let sealed = forms::sealed_document(&entity.doc).filter(|_| entity.kind == Kind::Schedule);
        let Some(sealed) = sealed else { return Ok(entity) };
        let opened = match self.keys.for_stored(TenantId(entity.tenant)).await {
            Ok(cipher) => forms::open_document(sealed, &cipher),
            Err(error) => Err(error),
        };
        let doc = match opened {
            Err(error @ StoreError::Corrupt(_)) => {
                let (tenant, kind, name) = (entity.tenant, entity.kind.as_str(), &entity.name);
                tracing::error!(tenant, kind, name, %error, "stored document cannot be decrypted");
                Value::Null
            }
            opened => opened?,
        };
        Ok(Entity { doc, ..entity })
    }
}

#[async_trait]
impl Entities for SealedStore {
    async fn load(&self) -> Result<(i64, Vec<Entity>), StoreError> {
        let (generation, entities) = self.inner.load().await?;
        let there: HashSet<i64> = entities.iter().map(|entity| entity.id).collect();
        self.keys.forget(|id| !there.contains(&id));
        Ok((generation, self.shown(entities).await?))
    }

    async fn changes(&self, since: i64) -> Result<Option<Changes>, StoreError> {
        let Some(Changes { generation, changed, gone }) = self.inner.changes(since).await? else { return Ok(None) };
        self.keys.forget(|id| gone.contains(&id));
        Ok(Some(Changes { generation, changed: self.shown(changed).await?, gone }))
    }

    async fn generation(&self) -> Result<i64, StoreError> {
        self.inner.generation().await
    }

    async fn put(&self, put: PutEntity) -> Result<Recorded<Entity>, StoreError> {
        if put.kind != Kind::Schedule || self.encryption == Encryption::Off {
            return self.inner.put(put).await;
        }
        let cipher = self.keys.for_new(TenantId(put.tenant)).await?;
        let doc = put.doc.clone();
        let sealed = forms::seal_document(&doc, &cipher, &*self.clock)?;
        let Recorded { done, entry } = self.inner.put(PutEntity { doc: sealed, ..put }).await?;
        Ok(Recorded { done: Entity { doc, ..done }, entry })
    }

    async fn delete(&self, delete: DeleteEntity) -> Result<Recorded<bool>, StoreError> {
        let (tenant, kind) = (TenantId(delete.tenant), delete.kind);
        let deleted = self.inner.delete(delete).await?;
        if deleted.done && kind == Kind::DataKey {
            self.keys.forget_of(tenant);
        }
        Ok(deleted)
    }

    async fn sealed_proof(&self) -> Result<Option<String>, StoreError> {
        self.inner.sealed_proof().await
    }

    async fn keep_proof(&self, sealed: String, instead_of: Option<String>) -> Result<String, StoreError> {
        self.inner.keep_proof(sealed, instead_of).await
    }

    async fn reseal(&self, reseal: Reseal) -> Result<(), StoreError> {
        self.inner.reseal(reseal).await
    }

    async fn component(&self, digest: &str) -> Result<Option<Bytes>, StoreError> {
        self.inner.component(digest).await
    }
}

#[async_trait]
impl AuditLog for SealedStore {
    async fn append(&self, entry: AuditEntry) -> Result<(), StoreError> {
        self.inner.append(entry).await
    }

    async fn audit(&self, query: AuditQuery) -> Result<Vec<Chained>, StoreError> {
        self.inner.audit(query).await
    }

    async fn audit_chain(&self, after: (String, i64), limit: u32) -> Result<Vec<StoredEntry>, StoreError> {
        self.inner.audit_chain(after, limit).await
    }

    async fn audit_heads(&self) -> Result<Vec<ChainHead>, StoreError> {
        self.inner.audit_heads().await
    }
}
