//! State in memory and its durable copy, which change together.
//!
//! A change is written to the store and then applied to the state, in a task of its own. If the caller stopped waiting in between and the
//! task ended with it, the state would differ from the store until the next start.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use tokio::sync::{Mutex, Notify};

use super::secrets::Vault;
use super::state::CatalogState;
use super::{AuditSink, CatalogError};
use carillon_core::audit::AuditEntry;
use carillon_core::job::TenantId;
use carillon_policy::{Digest, Runtime};
use carillon_store::{Changes, DeleteEntity, Entity, Kind, PutEntity, Recorded, Store, StoreError};

/// State in memory, backed by the store.
pub(super) struct Memory {
    store: Arc<dyn Store>,
    runtime: Arc<Runtime>,
    vault: Arc<Vault>,
    state: RwLock<CatalogState>,
    /// Generation of the store that was loaded last.
    generation: AtomicI64,
    /// Held from a write to the store until it is applied.
    writing: Mutex<()>,
    changed: Notify,
    audit_sink: AuditSink,
}

impl Memory {
    /// Loads all entities of the store.
    pub(super) async fn open(
        store: Arc<dyn Store>,
        runtime: Arc<Runtime>,
        vault: Arc<Vault>,
        mut state: CatalogState,
        audit_sink: AuditSink,
    ) -> Result<Self, StoreError> {
        let (generation, entities) = store.load().await?;
        state.load(entities, &vault);
        Ok(Self {
            store,
            runtime,
            vault,
            state: RwLock::new(state),
            generation: AtomicI64::new(generation),
            writing: Mutex::new(()),
            changed: Notify::new(),
            audit_sink,
        })
    }

    pub(super) fn state(&self) -> RwLockReadGuard<'_, CatalogState> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn state_mut(&self) -> RwLockWriteGuard<'_, CatalogState> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns a generation of the store that the state has reached at least.
    pub(super) fn generation(&self) -> i64 {
        self.generation.load(Ordering::Relaxed)
    }

    /// Returns a notification that fires after each change.
    pub(super) fn changed(&self) -> &Notify {
        &self.changed
    }

    /// Applies an added or changed entity. What takes time in proportion to what its tenant has stored is computed before readers have to wait.
    fn apply(&self, entity: Entity) -> anyhow::Result<()> {
        let prepared = match entity.kind {
            // One that cannot be read is an error of `CatalogState::apply`.
            Kind::Tenant => self.state().prepare_tenant(&entity).ok(),
            _ => None,
        };
        self.state_mut().apply(entity, prepared, &self.vault)
    }

    /// Applies added, changed and removed entities, one after the other. Returns the components that no plugin has any more.
    fn apply_changes(&self, changed: Vec<Entity>, gone: &[i64]) -> Vec<Digest> {
        let (changed, gone) = self.state().order(changed, gone);
        let removed = gone.into_iter().flat_map(|(tenant, kind, name)| self.state_mut().remove(tenant, kind, &name));
        let mut unused: Vec<Digest> = removed.collect();
        for entity in changed {
            // An error is logged; the entity is left out.
            drop(self.apply(entity));
        }
        unused.retain(|digest| !self.state().has_component(digest));
        unused
    }

    /// Announces an entry of the audit log that is stored.
    pub(super) fn announce(&self, entry: &AuditEntry) {
        (self.audit_sink)(entry);
    }

    /// Writes an entity. It is in force when this succeeds; after a failure it comes into force soon if the store has it nevertheless.
    pub(super) async fn put(self: &Arc<Self>, put: PutEntity) -> Result<Entity, CatalogError> {
        let memory = Arc::clone(self);
        to_the_end(async move {
            let _writing = memory.writing.lock().await;
            memory.state().check_quota(&put)?;
            let Recorded { done: entity, entry } = memory.store.put(put).await?;
            entry.iter().for_each(|entry| memory.announce(entry));
            let applied = memory.apply(entity.clone());
            memory.changed.notify_waiters();
            applied.map_err(|error| StoreError::Corrupt(format!("{error:#}")))?;
            Ok(entity)
        })
        .await
    }

    /// Removes an entity; returns false if it does not exist.
    pub(super) async fn delete(self: &Arc<Self>, removal: DeleteEntity) -> Result<bool, CatalogError> {
        let memory = Arc::clone(self);
        to_the_end(async move {
            let (tenant, kind, name) = (TenantId(removal.tenant), removal.kind, removal.name.clone());
            let _writing = memory.writing.lock().await;
            let removed = memory.store.delete(removal).await?;
            if !removed.done {
                return Ok(false);
            }
            removed.entry.iter().for_each(|entry| memory.announce(entry));
            let unused = {
                let mut state = memory.state_mut();
                let mut components = state.remove(tenant, kind, &name);
                components.retain(|component| !state.has_component(component));
                components
            };
            memory.changed.notify_waiters();
            for component in &unused {
                memory.runtime.registry.forget(component).await;
            }
            Ok(true)
        })
        .await
    }

    /// Loads the changes of other nodes; returns false if there are none.
    pub(super) async fn refresh(self: &Arc<Self>) -> Result<bool, StoreError> {
        if self.store.generation().await? == self.generation() {
            return Ok(false);
        }
        let memory = Arc::clone(self);
        to_the_end(async move {
            // A change by this node is either in what is loaded, or is applied after it.
            let _writing = memory.writing.lock().await;
            let (generation, changed, gone) = match memory.store.changes(memory.generation()).await? {
                Some(Changes { generation, changed, gone }) => (generation, changed, gone),
                None => {
                    let (generation, entities) = memory.store.load().await?;
                    let gone = memory.state().gone(&entities);
                    (generation, entities, gone)
                }
            };
            let unused = memory.apply_changes(changed, &gone);
            memory.generation.store(generation, Ordering::Relaxed);
            memory.changed.notify_waiters();
            for component in &unused {
                memory.runtime.registry.forget(component).await;
            }
            Ok(true)
        })
        .await
    }
}

/// Runs work in a task of its own, which continues if the caller stops waiting.
async fn to_the_end<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> T {
    match tokio::spawn(work).await {
        Ok(done) => done,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}
