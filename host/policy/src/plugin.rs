//! Component that is ready to be called: it is linked, and its exports have the types of `wit/`.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use wasmtime::component::Component;

use super::code_budget::CodeBudget;
use super::component::{Digest, Role};
use super::copies::Copies;
use super::engine::PolicyEngine;
use super::limits::Limits;
use super::linked_component::{Imports, LinkedComponent};
use super::load_error::LoadError;

/// Component that is ready to be called from any thread at any time: it keeps no state of a call.
pub struct Plugin {
    /// Digest of the component, which identifies it.
    pub digest: Digest,
    original: LinkedComponent,
    copies: Copies,
}

impl Plugin {
    /// Links a component that was compiled and was deserialized in the first of these engines; the others may get copies.
    pub(super) fn link(
        engines: Arc<[Arc<PolicyEngine>]>,
        digest: Digest,
        component: &Component,
        imports: &Imports,
        room: &Arc<CodeBudget>,
    ) -> Result<Self, LoadError> {
        let original = LinkedComponent::new(Arc::clone(&engines[0]), component, imports, room)?;
        if !Role::ALL.into_iter().any(|role| original.exports.has(role)) {
            return Err(LoadError::NoRole);
        }
        original.check_types()?;
        Ok(Self { digest, original, copies: Copies::new(engines, Arc::clone(room)) })
    }

    /// Returns the copy in this thread's engine, or the original.
    pub(super) fn component(&self) -> &LinkedComponent {
        self.copies.of_this_thread(&self.original).unwrap_or(&self.original)
    }

    /// Returns whether the component runs in the engine for large policies.
    #[must_use]
    pub fn is_large(&self) -> bool {
        self.original.engine.is_large()
    }

    /// Returns the limits of its calls, where those of a plugin that is not large are `limits`.
    #[must_use]
    pub fn limits<'a>(&self, limits: &'a Limits) -> Cow<'a, Limits> {
        self.original.engine.limits(limits)
    }

    /// Returns the size of its native code in one engine, in bytes.
    #[must_use]
    pub fn code_size(&self) -> usize {
        self.original.code_size()
    }

    /// Returns the roles that its exports allow.
    #[must_use]
    pub fn roles(&self) -> Vec<Role> {
        Role::ALL.into_iter().filter(|role| self.plays(*role)).collect()
    }

    /// Returns whether it imports a function of `keys`, and not only their type.
    #[must_use]
    pub fn uses_keys(&self) -> bool {
        self.original.uses_keys()
    }

    /// Returns whether it can play `role`.
    #[must_use]
    pub fn plays(&self, role: Role) -> bool {
        self.original.exports.has(role)
    }
}

impl fmt::Debug for Plugin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plugin").field("digest", &self.digest).field("roles", &self.roles()).finish_non_exhaustive()
    }
}
