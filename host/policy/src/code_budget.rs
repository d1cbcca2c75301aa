//! Account of the memory that the native code of loaded components takes, with its bound.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Budget for native code, in bytes.
#[derive(Debug)]
pub(super) struct CodeBudget {
    taken: AtomicUsize,
    limit: usize,
}

/// Reserved part of the budget, which is returned when this is dropped.
#[derive(Debug)]
pub(super) struct CodeReservation {
    room: Arc<CodeBudget>,
    bytes: usize,
}

impl CodeBudget {
    pub(super) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { taken: AtomicUsize::new(0), limit })
    }

    /// Returns the bytes that are reserved.
    pub(super) fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }

    /// Reserves `bytes` for code that must be loaded, even beyond the bound.
    pub(super) fn take(self: &Arc<Self>, bytes: usize) -> CodeReservation {
        self.taken.fetch_add(bytes, Ordering::Relaxed);
        CodeReservation { room: Arc::clone(self), bytes }
    }

    /// Reserves `bytes` for code that is dispensable; `None` if they do not fit.
    pub(super) fn take_spare(self: &Arc<Self>, bytes: usize) -> Option<CodeReservation> {
        let more = |taken: usize| taken.checked_add(bytes).filter(|sum| *sum <= self.limit);
        self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        Some(CodeReservation { room: Arc::clone(self), bytes })
    }
}

impl Drop for CodeReservation {
    fn drop(&mut self) {
        self.room.taken.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_done_without_has_only_what_is_left() {
        let room = CodeBudget::new(10);
        let first = room.take(8);
        assert!(room.take_spare(3).is_none());
        let second = room.take_spare(2).unwrap();
        let third = room.take(5);
        assert_eq!(room.taken(), 15);
        drop((first, second, third));
        assert_eq!(room.taken(), 0);
        assert!(room.take_spare(usize::MAX).is_none());
    }
}
