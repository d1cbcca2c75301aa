//! Components by digest: compiled once, linked once, shared by everybody who binds them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::OnceCell;

use super::cache::Cache;
use super::compile::{Compiler, Purpose};
use super::engines::Engines;
use super::outline;
use super::plugin::{Digest, LoadError, Plugin, check_bytes};

/// Where a component's bytes are kept.
#[async_trait]
pub trait ComponentSource: Send + Sync {
    /// The bytes with this digest.
    async fn component(&self, digest: &Digest) -> Option<Bytes>;
}

/// Makes plugins of components, and keeps them.
pub struct Registry {
    engines: Arc<Engines>,
    compiler: Compiler,
    cache: Option<Cache>,
    loaded: Mutex<HashMap<Digest, Arc<OnceCell<Loaded>>>>,
}

/// A plugin, and how much room its code takes.
#[derive(Clone)]
struct Loaded {
    plugin: Arc<Plugin>,
    /// Of the compiled component.
    bytes: usize,
}

impl Registry {
    pub(super) fn new(engines: Engines, compiler: Compiler, cache: Option<Cache>) -> Self {
        Self { engines: Arc::new(engines), compiler, cache, loaded: Mutex::default() }
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
        loaded.get(digest)?.get().map(|loaded| Arc::clone(&loaded.plugin))
    }

    /// How much room the code of all loaded plugins takes, in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.lock().values().filter_map(|slot| slot.get()).map(|loaded| loaded.bytes).sum()
    }

    /// How many plugins are loaded.
    #[must_use]
    pub fn count(&self) -> usize {
        self.lock().values().filter(|slot| slot.initialized()).count()
    }

    /// Unloads the plugins that nobody has. Those that are being loaded stay.
    pub fn forget_unused(&self) {
        self.lock().retain(|_, slot| match slot.get() {
            Some(loaded) => Arc::strong_count(&loaded.plugin) > 1,
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
            let component = source.component(digest).await;
            let component =
                component.ok_or_else(|| LoadError::NotAComponent(format!("no component has the digest {digest}")))?;
            self.load(digest, &component, Purpose::Use).await
        };
        slot.get_or_try_init(load).await.map(|loaded| Arc::clone(&loaded.plugin))
    }

    /// Checks and loads a component that is not yet known to any store.
    ///
    /// # Errors
    /// Whatever keeps it from being a plugin.
    pub async fn admit(&self, component: &Bytes) -> Result<Arc<Plugin>, LoadError> {
        check_bytes(component, self.component_limit())?;
        outline::check(component)?;
        Ok(self.load(&Digest::of(component), component, Purpose::Upload).await?.plugin)
    }

    async fn load(&self, digest: &Digest, component: &Bytes, purpose: Purpose) -> Result<Loaded, LoadError> {
        let artefact = match self.cached(digest).await {
            Some(artefact) => artefact,
            None => {
                let artefact = self.compiler.compile(component, purpose).await?;
                if let Some(cache) = &self.cache {
                    cache.put(digest, &artefact).await;
                }
                artefact
            }
        };
        let (engines, digest, size) = (Arc::clone(&self.engines), digest.clone(), component.len());
        // How long this takes is up to the component's author, so it is done beside the threads that serve.
        let link = tokio::task::spawn_blocking(move || {
            let plugin = Arc::new(engines.load(digest, size, &artefact)?);
            Ok(Loaded { plugin, bytes: artefact.len() })
        });
        link.await.map_err(|error| LoadError::Compile(error.to_string()))?
    }

    async fn cached(&self, digest: &Digest) -> Option<Vec<u8>> {
        self.cache.as_ref()?.get(digest).await
    }

    fn slot(&self, digest: &Digest) -> Arc<OnceCell<Loaded>> {
        Arc::clone(self.lock().entry(digest.clone()).or_default())
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Digest, Arc<OnceCell<Loaded>>>> {
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
