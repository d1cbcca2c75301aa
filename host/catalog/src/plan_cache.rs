//! Cache of the groups' plans, bounded by the size of the plugins in them.
//!
//! A plan keeps its plugins loaded. When the loaded plugins exceed the limit, the least recently used plans are dropped, and with them the
//! plugins that no other plan has. They are made again when they are needed: a plugin is loaded from the cache of compiled components in a
//! fraction of a millisecond. A plan in use stays alive until its use ends, so the limit bounds what is cached, not what runs.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use carillon_policy::{Plan, Registry};

/// Share of the limit that one eviction frees, in percent: to find the least recently used plans, it must read the whole list.
const LESS: usize = 10;

/// The list is cleaned when it has this many more entries than after the last time.
const GROWTH: usize = 64;

/// Slot for a group's plan.
#[derive(Debug, Default)]
pub struct PlanCell {
    plan: Mutex<Option<MadePlan>>,
    used: AtomicU64,
}

/// Plan, and the state of the tenant's keys that it was made from ([`super::state::CatalogState::keys_epoch`]).
#[derive(Clone, Debug)]
struct MadePlan {
    plan: Arc<Plan>,
    keys_epoch: u64,
}

impl PlanCell {
    fn lock(&self) -> MutexGuard<'_, Option<MadePlan>> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All cached plans. A cell is listed once, as long as it has a plan; a deleted group's cell is dropped with it.
#[derive(Debug)]
pub(super) struct Plans {
    kept: Mutex<Kept>,
    /// Counter that rises with each use.
    uses: AtomicU64,
    /// Limit in bytes of compiled code.
    limit: usize,
}

#[derive(Debug, Default)]
struct Kept {
    cells: Vec<Weak<PlanCell>>,
    tidy_at: usize,
}

impl Plans {
    pub(super) fn new(limit: usize) -> Self {
        Self { kept: Mutex::default(), uses: AtomicU64::new(1), limit }
    }

    /// Returns the plan in a cell and marks it as used now; `None` if keys have changed since it was made.
    pub(super) fn get(&self, cell: &PlanCell, keys_epoch: u64) -> Option<Arc<Plan>> {
        let made = cell.lock().clone().filter(|made| made.keys_epoch == keys_epoch)?;
        let plan = made.plan;
        cell.used.store(self.uses.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
        Some(plan)
    }

    /// Stores a plan in its group's cell.
    pub(super) fn put(&self, cell: &Arc<PlanCell>, plan: &Arc<Plan>, keys_epoch: u64) {
        cell.used.store(self.uses.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
        if cell.lock().replace(MadePlan { plan: Arc::clone(plan), keys_epoch }).is_none() {
            let mut kept = self.lock();
            kept.cells.push(Arc::downgrade(cell));
            if kept.cells.len() > kept.tidy_at {
                kept.cells.retain(|cell| cell.strong_count() > 0);
                kept.tidy_at = kept.cells.len() * 2 + GROWTH;
            }
        }
    }

    /// Drops plans until the loaded plugins fit the limit, if that is possible.
    pub(super) fn shed(&self, registry: &Registry) {
        if registry.bytes() <= self.limit {
            return;
        }
        let least = self.limit - self.limit / 100 * LESS;
        // It may be enough to unload the plugins that no plan has.
        registry.forget_unused();
        let mut kept = self.lock();
        let mut cells: Vec<Arc<PlanCell>> = kept.cells.iter().filter_map(Weak::upgrade).collect();
        cells.sort_by_key(|cell| cell.used.load(Ordering::Relaxed));
        let mut oldest = cells.into_iter();
        while registry.bytes() > least
            && let Some(cell) = oldest.next()
        {
            cell.lock().take();
            registry.forget_unused();
        }
        kept.cells = oldest.map(|cell| Arc::downgrade(&cell)).collect();
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
