//! Which engine a component runs in: the small one of each policy thread, or the large one.
//!
//! Most policies are small, and the pool that makes a fresh instance of them quick is sized for that. A component that imports WASI,
//! has more bytes, or needs more memory or tables to begin with than a small guest may have, brings a runtime of its own along. Such
//! ones get a pool of their own under limits of their own, which is made when the first of them is loaded: who has none does not pay.

use std::sync::{Arc, Mutex, PoisonError};

use wasmtime::Engine;

use super::code_budget::CodeBudget;
use super::component::Digest;
use super::engine::PolicyEngine;
use super::limits::{LargeLimits, Limits};
use super::linked_component::Imports;
use super::load_error::LoadError;
use super::plugin::Plugin;

/// All of them, the large one when it is needed.
pub(super) struct Engines {
    small: Arc<[Arc<PolicyEngine>]>,
    large: Mutex<Option<Arc<PolicyEngine>>>,
    limits: Limits,
    large_limits: LargeLimits,
    threads: usize,
    /// Bytes of a component that is not large.
    small_component: usize,
    /// For the native code of all that are loaded.
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

    /// What stands for all where only settings of the compiler matter.
    pub(super) fn compatible(&self) -> &Engine {
        self.small[0].engine()
    }

    /// Bytes that the native code of what is loaded takes.
    pub(super) fn loaded_bytes(&self) -> usize {
        self.room.taken()
    }

    /// Bytes of the largest component.
    pub(super) fn component_limit(&self) -> usize {
        self.small_component.max(self.large_limits.component)
    }

    /// Makes a plugin of a component of so many bytes, which has been compiled.
    pub(super) fn load(&self, digest: Digest, size: usize, artefact: &[u8]) -> Result<Plugin, LoadError> {
        let small = &self.small[0];
        if size <= self.small_component
            && let Ok(component) = small.deserialize(artefact)
        {
            let imports = Imports::of(small, &component)?;
            if imports.wasi.is_empty() {
                return Plugin::link(Arc::clone(&self.small), digest, &component, &imports, &self.room);
            }
        }
        let failed = |error: wasmtime::Error| LoadError::Compile(format!("{error:#}"));
        let engine = self.large().map_err(failed)?;
        let component = engine.deserialize(artefact).map_err(failed)?;
        let imports = Imports::of(&engine, &component)?;
        Plugin::link(Arc::new([engine]), digest, &component, &imports, &self.room)
    }

    fn large(&self) -> wasmtime::Result<Arc<PolicyEngine>> {
        let mut large = self.large.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(engine) = &*large {
            return Ok(Arc::clone(engine));
        }
        let engine = Arc::new(PolicyEngine::new(&self.limits, self.threads, Some(self.large_limits.clone()))?);
        tracing::info!(memory = self.large_limits.memory, "the engine for large policies is started");
        Ok(Arc::clone(large.insert(engine)))
    }
}
