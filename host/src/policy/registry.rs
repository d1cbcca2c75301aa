//! Components by digest: compiled once, linked once, shared by everybody who binds them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::OnceCell;

use super::cache::Cache;
use super::compile::Compiler;
use super::engines::Engines;
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
    loaded: Mutex<HashMap<Digest, Arc<OnceCell<Arc<Plugin>>>>>,
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
        self.slot(digest).get().cloned()
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
            self.load(digest, &component).await
        };
        slot.get_or_try_init(load).await.cloned()
    }

    /// Checks and loads a component that is not yet known to any store.
    ///
    /// # Errors
    /// Whatever keeps it from being a plugin.
    pub async fn admit(&self, component: &Bytes) -> Result<Arc<Plugin>, LoadError> {
        check_bytes(component, self.component_limit())?;
        self.load(&Digest::of(component), component).await
    }

    async fn load(&self, digest: &Digest, component: &Bytes) -> Result<Arc<Plugin>, LoadError> {
        let artefact = match self.cached(digest).await {
            Some(artefact) => artefact,
            None => {
                let artefact = self.compiler.compile(component).await?;
                if let Some(cache) = &self.cache {
                    cache.put(digest, &artefact).await;
                }
                artefact
            }
        };
        let (engines, digest, size) = (Arc::clone(&self.engines), digest.clone(), component.len());
        // How long this takes is up to the component's author, so it is done beside the threads that serve.
        let link = tokio::task::spawn_blocking(move || engines.load(digest, size, &artefact).map(Arc::new));
        link.await.map_err(|error| LoadError::Compile(error.to_string()))?
    }

    async fn cached(&self, digest: &Digest) -> Option<Vec<u8>> {
        self.cache.as_ref()?.get(digest).await
    }

    fn slot(&self, digest: &Digest) -> Arc<OnceCell<Arc<Plugin>>> {
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(loaded.entry(digest.clone()).or_default())
    }
}
