//! Keys of tenants' payloads: one for each tenant, random, encrypted under the master key, and stored as an entity.
//!
//! A key is made when the tenant's first value is encrypted, and deleted with the tenant: what is still stored of the tenant's values cannot be
//! read from then on, except with an older copy of the database and the master key.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, PoisonError, RwLock};

use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;
use zeroize::Zeroizing;

use super::cipher::{KEY_LEN, TenantCipher};
use crate::secrets::{Sealed, Vault};
use carillon_core::clock::Clock;
use carillon_core::job::TenantId;
use carillon_store::{Audit, Entity, Kind, Precondition, PutEntity, Store, StoreError};

/// Name of the one entity that a tenant has.
pub(crate) const DATA_KEY: &str = "payloads";

/// Stored form of a key.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct DataKeyDoc {
    pub(crate) sealed: Sealed,
}

/// Returns the owner of a sealed key. Owners of the tenant's other keys have no such beginning.
pub(crate) fn data_key_owner(tenant: TenantId) -> String {
    format!("payloads of {}", tenant.0)
}

/// Keys in memory, and the way to make one.
pub(super) struct DataKeys {
    store: Arc<dyn Store>,
    vault: Vault,
    clock: Arc<dyn Clock>,
    known: RwLock<HashMap<TenantId, Known>>,
    /// Held while a key is made or looked for.
    making: Mutex<Looked>,
}

/// A key, with the entity that it comes from.
struct Known {
    entity: i64,
    cipher: Arc<TenantCipher>,
}

/// Generation of the store at which a key was last looked for in vain.
#[derive(Default)]
struct Looked(Option<i64>);

impl DataKeys {
    pub(super) fn new(store: Arc<dyn Store>, vault: Vault, clock: Arc<dyn Clock>) -> Self {
        Self { store, vault, clock, known: RwLock::default(), making: Mutex::default() }
    }

    /// Returns the tenant's key, if it is in memory.
    pub(super) fn known(&self, tenant: TenantId) -> Option<Arc<TenantCipher>> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.get(&tenant).map(|known| Arc::clone(&known.cipher))
    }

    /// Returns the key for values that are stored: another node may have made it a moment ago.
    pub(super) async fn for_stored(&self, tenant: TenantId) -> Result<Arc<TenantCipher>, StoreError> {
        if let Some(cipher) = self.known(tenant) {
            return Ok(cipher);
        }
        let mut looked = self.making.lock().await;
        let generation = self.store.generation().await?;
        if looked.0 != Some(generation) && self.known(tenant).is_none() {
            self.load().await?;
            looked.0 = Some(generation);
        }
        let missing =
            || StoreError::Corrupt("the key of the tenant's payloads is missing, or cannot be decrypted".to_owned());
        self.known(tenant).ok_or_else(missing)
    }

    /// Returns the key for a new value, and makes it if the tenant has none. Fails with [`StoreError::Conflict`] if the tenant was deleted.
    pub(super) async fn for_new(&self, tenant: TenantId) -> Result<Arc<TenantCipher>, StoreError> {
        if let Some(cipher) = self.known(tenant) {
            return Ok(cipher);
        }
        let _making = self.making.lock().await;
        if self.known(tenant).is_none() {
            match self.make(tenant).await {
                Ok(entity) => self.apply(&entity),
                Err(conflict @ StoreError::Conflict(_)) => {
                    // Another node was faster; else the tenant was deleted.
                    if !self.load().await?.contains(&tenant) {
                        return Err(conflict);
                    }
                }
                Err(error) => return Err(error),
            }
        }
        let unusable = || StoreError::Corrupt("the key of the tenant's payloads cannot be decrypted".to_owned());
        self.known(tenant).ok_or_else(unusable)
    }

    async fn make(&self, tenant: TenantId) -> Result<Entity, StoreError> {
        let mut key = Zeroizing::new([0; KEY_LEN]);
        self.clock.fill_random(key.as_mut_slice());
        let sealed = self.vault.seal(&data_key_owner(tenant), key.as_slice(), &*self.clock);
        let sealed = sealed.map_err(|error| StoreError::Corrupt(error.to_string()))?;
        let put = PutEntity {
            tenant: tenant.0,
            kind: Kind::DataKey,
            name: DATA_KEY.to_owned(),
            doc: crate::document(&DataKeyDoc { sealed }),
            now: self.clock.now(),
            expect: Precondition::Nothing,
            needs: Vec::new(),
            component: None,
            // It belongs to the write that needs it.
            audit: Audit::Upkeep,
        };
        Ok(self.store.put(put).await?.done)
    }

    /// Takes all keys into memory, and returns the tenants that have one.
    async fn load(&self) -> Result<HashSet<TenantId>, StoreError> {
        let (_, entities) = self.store.load().await?;
        let keys = || entities.iter().filter(|entity| entity.kind == Kind::DataKey);
        keys().for_each(|entity| self.apply(entity));
        Ok(keys().map(|entity| TenantId(entity.tenant)).collect())
    }

    /// Takes a key into memory. One that cannot be decrypted is logged and left out.
    pub(super) fn apply(&self, entity: &Entity) {
        let tenant = TenantId(entity.tenant);
        let cipher = serde_json::from_value::<DataKeyDoc>(entity.doc.clone())
            .map_err(anyhow::Error::from)
            .and_then(|doc| self.vault.open(&data_key_owner(tenant), &doc.sealed))
            .and_then(|key| Ok(TenantCipher::new(tenant, key.as_slice().try_into()?)));
        match cipher {
            Ok(cipher) => {
                let known = Known { entity: entity.id, cipher: Arc::new(cipher) };
                self.known.write().unwrap_or_else(PoisonError::into_inner).insert(tenant, known);
            }
            Err(error) => {
                let error = format!("{error:#}");
                tracing::error!(tenant = tenant.0, error, "key of a tenant's payloads is unusable");
            }
        }
    }

    /// Forgets the keys of these entities, which are gone.
    pub(super) fn forget(&self, is_gone: impl Fn(i64) -> bool) {
        self.known.write().unwrap_or_else(PoisonError::into_inner).retain(|_, known| !is_gone(known.entity));
    }

    /// Forgets the key of a tenant that is gone.
    pub(super) fn forget_of(&self, tenant: TenantId) {
        self.known.write().unwrap_or_else(PoisonError::into_inner).remove(&tenant);
    }
}
