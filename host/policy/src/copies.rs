//! A small component once more in the engine of each policy thread that calls it often.
//!
//! An engine's pool of instances, its counters and those of its code are written by each call, so threads that share an engine hand
//! that memory from core to core all the time. A thread with an engine of its own does not wait for another's. What it costs is
//! native code, and the time to make it: so a copy is made for a thread that has called the component a while, and only while there
//! is room for what can be done without.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

use super::code_budget::CodeBudget;
use super::engine::PolicyEngine;
use super::linked_component::LinkedComponent;
use super::threads::seat;

/// How often a thread calls the original first: so many calls gain about what it takes to make a copy, a millisecond.
pub(super) const PATIENCE: u32 = 256;

/// The copies of one component.
pub(super) struct Copies {
    /// The first is the engine of the original.
    engines: Arc<[Arc<PolicyEngine>]>,
    /// One for each of the others.
    copies: Box<[Copy]>,
    room: Arc<CodeBudget>,
}

/// What there is in one engine.
#[derive(Default)]
struct Copy {
    /// Calls that there were none for.
    missed: AtomicU32,
    /// None in it: it could not be made.
    made: OnceLock<Option<LinkedComponent>>,
}

impl Copies {
    /// In so many engines, none so far.
    pub(super) fn new(engines: Arc<[Arc<PolicyEngine>]>, room: Arc<CodeBudget>) -> Self {
        let copies = engines.iter().skip(1).map(|_| Copy::default()).collect();
        Self { engines, copies, room }
    }

    /// The copy of this thread, which is made of the original when it is time. None: the original is the one to call.
    pub(super) fn here(&self, original: &LinkedComponent) -> Option<&LinkedComponent> {
        let index = seat() % self.engines.len();
        let copy = self.copies.get(index.checked_sub(1)?)?;
        if let Some(made) = copy.made.get() {
            return made.as_ref();
        }
        if copy.missed.fetch_add(1, Ordering::Relaxed) < PATIENCE {
            return None;
        }
        let taken = self.room.take_spare(original.code_size())?;
        let made = original.copy(Arc::clone(&self.engines[index]), taken);
        let made = made.inspect_err(|error| tracing::warn!(%error, "a policy thread has no copy of a plugin"));
        copy.made.get_or_init(|| made.ok()).as_ref()
    }
}
