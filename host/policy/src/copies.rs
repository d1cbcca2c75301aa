//! Copies of a small component in the engines of the policy threads that call it often.
//!
//! Each call writes to its engine's pool of instances, to the engine's counters and to those of its code, so threads that share an engine
//! pass that memory from core to core all the time. A thread with an engine of its own does not wait for another. A copy costs native code
//! and the time to make it. So it is made only for a thread that has called the component for a while, and only while the code budget has
//! room for dispensable code.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

use super::code_budget::CodeBudget;
use super::engine::PolicyEngine;
use super::linked_component::LinkedComponent;
use super::threads::thread_index;

/// Calls of the original by a thread before it makes a copy: that many calls gain about as much as a copy costs, a millisecond.
pub(super) const MIN_CALLS: u32 = 256;

/// Copies of one component.
pub(super) struct Copies {
    /// Engines; the first is the original's.
    engines: Arc<[Arc<PolicyEngine>]>,
    /// One copy for each of the other engines.
    copies: Box<[Copy]>,
    room: Arc<CodeBudget>,
}

/// Copy in one engine.
#[derive(Default)]
struct Copy {
    /// Calls that found no copy.
    missed: AtomicU32,
    /// The copy; `Some(None)` if it could not be made.
    made: OnceLock<Option<LinkedComponent>>,
}

impl Copies {
    /// Makes an empty set of copies for these engines.
    pub(super) fn new(engines: Arc<[Arc<PolicyEngine>]>, room: Arc<CodeBudget>) -> Self {
        let copies = engines.iter().skip(1).map(|_| Copy::default()).collect();
        Self { engines, copies, room }
    }

    /// Returns this thread's copy, which is made from the original when it is due. `None` means: call the original.
    pub(super) fn of_this_thread(&self, original: &LinkedComponent) -> Option<&LinkedComponent> {
        let index = thread_index() % self.engines.len();
        let copy = self.copies.get(index.checked_sub(1)?)?;
        if let Some(made) = copy.made.get() {
            return made.as_ref();
        }
        if copy.missed.fetch_add(1, Ordering::Relaxed) < MIN_CALLS {
            return None;
        }
        let taken = self.room.take_spare(original.code_size())?;
        let made = original.copy(Arc::clone(&self.engines[index]), taken);
        let made = made.inspect_err(|error| tracing::warn!(%error, "copying a plugin for a policy thread failed"));
        copy.made.get_or_init(|| made.ok()).as_ref()
    }
}
