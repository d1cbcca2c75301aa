//! All engines: the small engine of each policy thread, and the one for large components.
//!
//! Most policies are small, and the pool that makes their fresh instances fast is sized for that. A component is large if it imports WASI,
//! has more bytes, or starts with more memory or tables than a small guest may have: it brings a language runtime of its own. Large
//! components get a pool of their own under limits of their own. It is made when the first of them is loaded, so a server without large
//! components does not pay for it.

use std::sync::{Arc, Mutex, PoisonError};

use wasmtime::Engine;

use super::code_budget::CodeBudget;
use super::component::Digest;
use super::engine::PolicyEngine;
use super::limits::{LargeLimits, Limits};
use super::linked_component::Imports;
use super::load_error::LoadError;
use super::plugin::Plugin;

/// All engines; the large one is made when it is needed.
pub(super) struct Engines {
    small: Arc<[Arc<PolicyEngine>]>,
    large: Mutex<Option<Arc<PolicyEngine>>>,
    limits: Limits,
    large_limits: LargeLimits,
    threads: usize,
    /// Maximum size of a component that is not large, in bytes.
    small_component: usize,
    /// Budget for the native code of all loaded components.
    room: Arc<CodeBudget>,
}

impl Engines {
    pub(super) fn new(
        limits: &Limits,
        large_limits: LargeLimits,
        threads: usize,
        small_component: usize,
        room: Arc<CodeBudget>,
    ) -> wasmtime::Result<Self> {
        Ok(Self {
            small: PolicyEngine::several(limits, threads)?,
            large: Mutex::default(),
            limits: limits.clone(),
            large_limits,
            threads,
            small_component,
            room,
        })
    }

    /// Returns an engine that stands for all where only the settings of the compiler matter.
    pub(super) fn compatible(&self) -> &Engine {
        self.small[0].engine()
    }

    /// Returns the size of the native code of all loaded components, in bytes.
    pub(super) fn loaded_bytes(&self) -> usize {
        self.room.taken()
    }

    /// Returns the maximum size of a component, in bytes.
    pub(super) fn component_limit(&self) -> usize {
        self.small_component.max(self.large_limits.component)
    }

    /// Makes a plugin from a compiled component of `size` bytes.
    pub(super) fn load(&self, digest: Digest, size: usize, artefact: &[u8]) -> Result<Plugin, LoadError> {
        let small = &self.small[0];
        if size <= self.small_component
            && let Ok(component) = small.deserialize(artefact)
        {
            let imports = Imports::new(small, &component)?;
            if imports.wasi.is_empty() {
                return Plugin::link(Arc::clone(&self.small), digest, &component, &imports, &self.room);
            }
        }
        let failed = |error: wasmtime::Error| LoadError::Compile(format!("{error:#}"));
        let engine = self.large().map_err(failed)?;
        let component = engine.deserialize(artefact).map_err(failed)?;
        let imports = Imports::new(&engine, &component)?;
        Plugin::link(Arc::new([engine]), digest, &component, &imports, &self.room)
    }

    fn large(&self) -> wasmtime::Result<Arc<PolicyEngine>> {
        let mut large = self.large.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(engine) = &*large {
            return Ok(Arc::clone(engine));
        }
        let engine = Arc::new(PolicyEngine::new(&self.limits, self.threads, Some(self.large_limits.clone()))?);
        tracing::info!(memory = self.large_limits.memory, "started the engine for large policies");
        Ok(Arc::clone(large.insert(engine)))
    }
}
