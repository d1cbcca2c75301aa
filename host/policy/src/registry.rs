//! Registry of components by digest: compiled once, linked once, and shared by all bindings that use them.

use std::collections::HashMap;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::{OnceCell, Semaphore};
use tokio::time::Sleep;

use super::cache::Cache;
use super::compile::Compiler;
use super::compile_budget::{CompileBudget, CompileUse};
use super::compile_queue::CompileQueue;
use super::component::{Digest, check_bytes};
use super::engines::Engines;
use super::load_error::LoadError;
use super::plugin::Plugin;
use super::preflight;
use carillon_core::clock::{Stopwatch, UnixMs};
use carillon_core::job::TenantId;

/// Source of components' bytes.
#[async_trait]
pub trait ComponentSource: Send + Sync {
    /// Returns the bytes with this digest, or `None` if the source does not have them.
    ///
    /// # Errors
    /// Returns a sentence if the source could not be read.
    async fn component(&self, digest: &Digest) -> Result<Option<Bytes>, String>;
}

/// Number of bound components that are compiled at once, and of uploaded ones, which never delay those.
const AT_ONCE: usize = 2;

/// Time that an upload waits for others, in times of the longest compilation.
const MAX_COMPILATIONS_WAITED: u32 = 2;

/// Registry that makes plugins of components, and keeps them.
pub struct Registry {
    engines: Arc<Engines>,
    compiler: Compiler,
    cache: Option<Cache>,
    loaded: Mutex<HashMap<Digest, Arc<OnceCell<Arc<Plugin>>>>>,
    uses: Semaphore,
    compile_queue: CompileQueue,
    compile_use: CompileUse,
    /// Pending admissions; each is kept as long as a caller waits for it.
    flights: Mutex<HashMap<Digest, Weak<PendingAdmission>>>,
}

/// Admission of a component, shared by all callers that upload it at the same time. If a caller stops waiting, the others continue.
type PendingAdmission = OnceCell<Result<Admitted, LoadError>>;

/// Component that loads. Its native code is not stored until the caller calls [`Registry::keep`].
#[derive(Clone)]
pub struct Admitted {
    /// The loaded plugin.
    pub plugin: Arc<Plugin>,
    /// Native code; `None` if it is stored already.
    artefact: Option<Arc<Vec<u8>>>,
}

/// Compilation under way, which is added to the tenant's use when it ends, also if the request that it belongs to is dropped.
struct Charge<'a> {
    usage: &'a CompileUse,
    tenant: TenantId,
    at: UnixMs,
    started: Stopwatch,
}

impl Drop for Charge<'_> {
    fn drop(&mut self) {
        self.usage.add(self.tenant, self.at, self.started.elapsed());
    }
}

impl Registry {
    pub(super) fn new(engines: Engines, compiler: Compiler, cache: Option<Cache>) -> Self {
        Self {
            engines: Arc::new(engines),
            compiler,
            cache,
            loaded: Mutex::default(),
            uses: Semaphore::new(AT_ONCE),
            compile_queue: CompileQueue::new(AT_ONCE),
            compile_use: CompileUse::default(),
            flights: Mutex::default(),
        }
    }

    /// Returns the maximum size of a component, in bytes.
    #[must_use]
    pub fn component_limit(&self) -> usize {
        self.engines.component_limit()
    }

    /// Returns the plugin with this digest if it is loaded.
    #[must_use]
    pub fn loaded(&self, digest: &Digest) -> Option<Arc<Plugin>> {
        let loaded = self.lock();
        loaded.get(digest)?.get().cloned()
    }

    /// Returns the size in bytes of the native code of all loaded plugins, with their copies in the engines of policy threads.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.engines.loaded_bytes()
    }

    /// Returns the number of loaded plugins.
    #[must_use]
    pub fn count(&self) -> usize {
        self.lock().values().filter(|slot| slot.initialized()).count()
    }

    /// Unloads the plugins that nothing refers to. Those that are being loaded stay.
    pub fn forget_unused(&self) {
        self.lock().retain(|_, slot| match slot.get() {
            Some(plugin) => Arc::strong_count(plugin) > 1,
            None => Arc::strong_count(slot) > 1,
        });
    }

    /// Returns the plugin with this digest. Concurrent callers share one compilation.
    ///
    /// # Errors
    /// Returns an error if `source` does not have the component, or if the component does not load.
    pub async fn get(&self, digest: &Digest, source: &dyn ComponentSource) -> Result<Arc<Plugin>, LoadError> {
        let slot = self.slot(digest);
        let load = || async {
            let component = source.component(digest).await.map_err(LoadError::Source)?;
            let component =
                component.ok_or_else(|| LoadError::NotAComponent(format!("no component has the digest {digest}")))?;
            self.load(digest, &component).await.map_err(LoadError::cleaned)
        };
        slot.get_or_try_init(load).await.cloned()
    }

    /// Returns the maximum duration of [`Self::admit`].
    #[must_use]
    pub fn admission_time(&self) -> Duration {
        self.compiler.timeout() * (MAX_COMPILATIONS_WAITED + 1)
    }

    /// Returns how long the compiler ran for the tenant's uploads within the last hour, on this node.
    #[must_use]
    pub fn compile_time(&self, tenant: TenantId, now: UnixMs) -> Duration {
        self.compile_use.used(tenant, now)
    }

    /// Checks and loads a component that a tenant uploads, when it is the tenant's turn. Concurrent uploads of the same component share one
    /// compilation, which counts for the tenant that came first.
    ///
    /// # Errors
    /// Returns the reason why the component is not accepted; [`LoadError::Busy`] if it was not examined in time, and
    /// [`LoadError::OverBudget`] if the tenant's budget is used up.
    pub async fn admit(
        &self,
        tenant: TenantId,
        budget: CompileBudget,
        component: &Bytes,
    ) -> Result<Admitted, LoadError> {
        self.admit_in_turn(tenant, budget, component).await.map_err(LoadError::cleaned)
    }

    async fn admit_in_turn(
        &self,
        tenant: TenantId,
        budget: CompileBudget,
        component: &Bytes,
    ) -> Result<Admitted, LoadError> {
        check_bytes(component, self.component_limit())?;
        preflight::check(component)?;
        let digest = Digest::from_bytes(component);
        let (flight, queue) = (self.flight(&digest), self.compile_queue.of_tenant(tenant));
        let mut deadline = pin!(tokio::time::sleep(self.compiler.timeout() * MAX_COMPILATIONS_WAITED));
        let _turn = queue.turn(deadline.as_mut()).await?;
        let admitted = flight.get_or_try_init(|| self.look(tenant, budget, &digest, component, deadline)).await?;
        admitted.clone()
    }

    /// Stores the native code of a component, for the next time that it is loaded.
    pub async fn keep(&self, admitted: &Admitted) {
        if let (Some(cache), Some(artefact)) = (&self.cache, &admitted.artefact) {
            cache.put(&admitted.plugin.digest, artefact).await;
        }
    }

    /// Removes a component that can no longer be used.
    pub async fn forget(&self, digest: &Digest) {
        self.lock().remove(digest);
        if let Some(cache) = &self.cache {
            cache.remove(digest).await;
        }
    }

    /// Examines a component. The inner error is about the component; the outer one says that it was not examined.
    async fn look(
        &self,
        tenant: TenantId,
        budget: CompileBudget,
        digest: &Digest,
        component: &Bytes,
        deadline: Pin<&mut Sleep>,
    ) -> Result<Result<Admitted, LoadError>, LoadError> {
        let cached = self.cached(digest).await;
        let is_kept = cached.is_some();
        let artefact = match cached {
            Some(artefact) => Ok(artefact),
            None => {
                self.compile_use.check(tenant, budget)?;
                let _slot = self.compile_queue.compiler(deadline).await?;
                let _charge = Charge { usage: &self.compile_use, tenant, at: budget.now, started: Stopwatch::start() };
                self.compiler.compile(component).await
            }
        };
        let artefact = match artefact {
            Ok(artefact) => Arc::new(artefact),
            Err(error) => return Ok(Err(error)),
        };
        let loaded = self.link(digest, component.len(), Arc::clone(&artefact)).await;
        let artefact = (!is_kept).then_some(artefact);
        Ok(loaded.map(|plugin| Admitted { plugin, artefact }))
    }

    async fn load(&self, digest: &Digest, component: &Bytes) -> Result<Arc<Plugin>, LoadError> {
        let artefact = match self.cached(digest).await {
            Some(artefact) => artefact,
            None => {
                let _slot = self.uses.acquire().await.map_err(|error| LoadError::Busy(error.to_string()))?;
                let artefact = self.compiler.compile(component).await?;
                if let Some(cache) = &self.cache {
                    cache.put(digest, &artefact).await;
                }
                artefact
            }
        };
        self.link(digest, component.len(), Arc::new(artefact)).await
    }

    /// Links a component. The component's author determines the duration, so this runs beside the threads that serve.
    async fn link(&self, digest: &Digest, size: usize, artefact: Arc<Vec<u8>>) -> Result<Arc<Plugin>, LoadError> {
        let (engines, digest) = (Arc::clone(&self.engines), digest.clone());
        let link = tokio::task::spawn_blocking(move || engines.load(digest, size, &artefact).map(Arc::new));
        link.await.map_err(|error| LoadError::Compile(error.to_string()))?
    }

    async fn cached(&self, digest: &Digest) -> Option<Vec<u8>> {
        self.cache.as_ref()?.get(digest).await
    }

    fn flight(&self, digest: &Digest) -> Arc<PendingAdmission> {
        let mut flights = self.flights.lock().unwrap_or_else(PoisonError::into_inner);
        flights.retain(|_, flight| flight.strong_count() > 0);
        let flight = flights.get(digest).and_then(Weak::upgrade).unwrap_or_default();
        flights.insert(digest.clone(), Arc::downgrade(&flight));
        flight
    }

    fn slot(&self, digest: &Digest) -> Arc<OnceCell<Arc<Plugin>>> {
        Arc::clone(self.lock().entry(digest.clone()).or_default())
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Digest, Arc<OnceCell<Arc<Plugin>>>>> {
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
