//! Components by digest: compiled once, linked once, shared by everybody who binds them.

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
use super::compile_queue::CompileQueue;
use super::component::{Digest, check_bytes};
use super::engines::Engines;
use super::load_error::LoadError;
use super::plugin::Plugin;
use super::preflight;
use carillon_core::job::TenantId;

/// Where a component's bytes are kept.
#[async_trait]
pub trait ComponentSource: Send + Sync {
    /// The bytes with this digest; none if there are none.
    ///
    /// # Errors
    /// If it cannot be said, as a sentence.
    async fn component(&self, digest: &Digest) -> Result<Option<Bytes>, String>;
}

/// How many components that are bound already are compiled at once; and how many that are uploaded, which are never in front of those.
const AT_ONCE: usize = 2;

/// How long an upload waits for others, in times of the longest compilation.
const PATIENCE: u32 = 2;

/// Makes plugins of components, and keeps them.
pub struct Registry {
    engines: Arc<Engines>,
    compiler: Compiler,
    cache: Option<Cache>,
    loaded: Mutex<HashMap<Digest, Arc<OnceCell<Arc<Plugin>>>>>,
    uses: Semaphore,
    turns: CompileQueue,
    /// What is being admitted, as long as somebody waits for it.
    flights: Mutex<HashMap<Digest, Weak<PendingAdmission>>>,
}

/// One look at a component, for all who upload it at the same time. Who gives up leaves it to the others.
type PendingAdmission = OnceCell<Result<Admitted, LoadError>>;

/// A component that loads. What it was compiled to is not kept unless somebody says so.
#[derive(Clone)]
pub struct Admitted {
    /// What it is.
    pub plugin: Arc<Plugin>,
    /// None if it is kept already.
    artefact: Option<Arc<Vec<u8>>>,
}

impl Registry {
    pub(super) fn new(engines: Engines, compiler: Compiler, cache: Option<Cache>) -> Self {
        Self {
            engines: Arc::new(engines),
            compiler,
            cache,
            loaded: Mutex::default(),
            uses: Semaphore::new(AT_ONCE),
            turns: CompileQueue::new(AT_ONCE),
            flights: Mutex::default(),
        }
    }

    /// Bytes of the largest component.
    #[must_use]
    pub fn component_limit(&self) -> usize {
        self.engines.component_limit()
    }

    /// The plugin with this digest if it has been loaded already.
    #[must_use]
    pub fn loaded(&self, digest: &Digest) -> Option<Arc<Plugin>> {
        let loaded = self.lock();
        loaded.get(digest)?.get().cloned()
    }

    /// How much room the native code of all plugins takes that are loaded, their copies in the engines of policy threads included, in
    /// bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.engines.loaded_bytes()
    }

    /// How many plugins are loaded.
    #[must_use]
    pub fn count(&self) -> usize {
        self.lock().values().filter(|slot| slot.initialized()).count()
    }

    /// Unloads the plugins that nobody has. Those that are being loaded stay.
    pub fn forget_unused(&self) {
        self.lock().retain(|_, slot| match slot.get() {
            Some(plugin) => Arc::strong_count(plugin) > 1,
            None => Arc::strong_count(slot) > 1,
        });
    }

    /// The plugin with this digest. However many ask at once, it is compiled once.
    ///
    /// # Errors
    /// If `source` does not have it, or it does not load.
    pub async fn get(&self, digest: &Digest, source: &dyn ComponentSource) -> Result<Arc<Plugin>, LoadError> {
        let slot = self.slot(digest);
        let load = || async {
            let component = source.component(digest).await.map_err(LoadError::Source)?;
            let component =
                component.ok_or_else(|| LoadError::NotAComponent(format!("no component has the digest {digest}")))?;
            self.load(digest, &component).await
        };
        slot.get_or_try_init(load).await.cloned()
    }

    /// The longest that [`Self::admit`] takes.
    #[must_use]
    pub fn admission_time(&self) -> Duration {
        self.compiler.timeout() * (PATIENCE + 1)
    }

    /// Checks and loads a component that a tenant uploads, when it is the tenant's turn. However many upload the same at once, it is
    /// compiled once.
    ///
    /// # Errors
    /// Whatever keeps it from being a plugin; [`LoadError::Busy`] if nobody had the time to find out.
    pub async fn admit(&self, tenant: TenantId, component: &Bytes) -> Result<Admitted, LoadError> {
        check_bytes(component, self.component_limit())?;
        preflight::check(component)?;
        let digest = Digest::of(component);
        let (flight, line) = (self.flight(&digest), self.turns.line(tenant));
        let mut patience = pin!(tokio::time::sleep(self.compiler.timeout() * PATIENCE));
        let _turn = line.first(patience.as_mut()).await?;
        let admitted = flight.get_or_try_init(|| self.look(&digest, component, patience)).await?;
        admitted.clone()
    }

    /// Keeps what a component was compiled to, for the next time that it is loaded.
    pub async fn keep(&self, admitted: &Admitted) {
        if let (Some(cache), Some(artefact)) = (&self.cache, &admitted.artefact) {
            cache.put(&admitted.plugin.digest, artefact).await;
        }
    }

    /// Forgets a component that nobody can use any more.
    pub async fn forget(&self, digest: &Digest) {
        self.lock().remove(digest);
        if let Some(cache) = &self.cache {
            cache.remove(digest).await;
        }
    }

    /// The inner error is what is wrong with the component, the outer one that nobody looked.
    async fn look(
        &self,
        digest: &Digest,
        component: &Bytes,
        patience: Pin<&mut Sleep>,
    ) -> Result<Result<Admitted, LoadError>, LoadError> {
        let cached = self.cached(digest).await;
        let is_kept = cached.is_some();
        let artefact = match cached {
            Some(artefact) => Ok(artefact),
            None => {
                let _slot = self.turns.slot(patience).await?;
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

    /// How long this takes is up to the component's author, so it is done beside the threads that serve.
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
