//! Turns of reads: tenants share the connections for lists, counts and single jobs.
//!
//! A tenant may begin a read if more places are free than it holds: it takes half of what the others leave. So neither one tenant nor two or
//! three together hold all places, and a place that nobody else wants is not kept empty for long. A read that waits gets the next place that
//! its tenant may have; those whose tenants hold the least come first, then those that wait the longest.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::timeout;

use super::error::StoreError;
use carillon_core::job::TenantId;

/// Number of places, and so of connections for reads.
pub const READ_PLACES: u32 = 8;

/// Longest time that a read for a client waits for its turn, and then takes.
pub const READ_TIME: Duration = Duration::from_secs(2);

/// See the module.
#[derive(Debug)]
pub struct ReadTurns(Arc<Mutex<Places>>);

#[derive(Debug)]
struct Places {
    free: usize,
    /// Number of places of each tenant that has one.
    held: HashMap<TenantId, usize>,
    /// Reads that wait, in the order in which they came.
    waiting: VecDeque<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    tenant: TenantId,
    turn: oneshot::Sender<ReadTurn>,
}

/// Place of a read. Dropping it gives it to the next one.
#[derive(Debug)]
pub struct ReadTurn {
    places: Arc<Mutex<Places>>,
    tenant: TenantId,
}

impl ReadTurns {
    /// Creates this number of free places.
    #[must_use]
    pub fn new(places: u32) -> Self {
        let free = usize::try_from(places).unwrap_or(usize::MAX);
        Self(Arc::new(Mutex::new(Places { free, held: HashMap::new(), waiting: VecDeque::new() })))
    }

    /// Waits for a place for a tenant, for `time` at most.
    ///
    /// # Errors
    /// Returns [`StoreError::ReadTimeout`] if the tenant gets none in that time.
    pub async fn take(&self, tenant: TenantId, time: Duration) -> Result<ReadTurn, StoreError> {
        let waiting = {
            let mut places = lock(&self.0);
            if places.take(tenant) {
                return Ok(ReadTurn { places: Arc::clone(&self.0), tenant });
            }
            let (turn, waiting) = oneshot::channel();
            places.waiting.push_back(Waiting { tenant, turn });
            waiting
        };
        let turn = timeout(time, waiting).await;
        turn.ok().and_then(Result::ok).ok_or(StoreError::ReadTimeout)
    }
}

impl Places {
    fn held(&self, tenant: TenantId) -> usize {
        self.held.get(&tenant).copied().unwrap_or(0)
    }

    /// Takes a place for a tenant, if it may have one.
    fn take(&mut self, tenant: TenantId) -> bool {
        if self.held(tenant) >= self.free {
            return false;
        }
        self.free -= 1;
        *self.held.entry(tenant).or_default() += 1;
        true
    }

    fn give_back(&mut self, tenant: TenantId) {
        self.free += 1;
        if let Some(held) = self.held.get_mut(&tenant) {
            *held -= 1;
            if *held == 0 {
                self.held.remove(&tenant);
            }
        }
    }

    /// Takes a place for the next read that waits; `None` if none may begin.
    fn next(&mut self) -> Option<Waiting> {
        self.waiting.retain(|waiting| !waiting.turn.is_closed());
        let all = self.waiting.iter().enumerate();
        let (first, waiting) = all.min_by_key(|(number, waiting)| (self.held(waiting.tenant), *number))?;
        let tenant = waiting.tenant;
        if self.take(tenant) { self.waiting.remove(first) } else { None }
    }
}

impl Drop for ReadTurn {
    fn drop(&mut self) {
        lock(&self.places).give_back(self.tenant);
        loop {
            let Some(Waiting { tenant, turn }) = lock(&self.places).next() else { return };
            // A read that no longer waits drops its turn, which begins the next one.
            drop(turn.send(Self { places: Arc::clone(&self.places), tenant }));
        }
    }
}

fn lock(places: &Mutex<Places>) -> MutexGuard<'_, Places> {
    places.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(60);

    async fn take_all(turns: &ReadTurns, tenant: i64) -> Vec<ReadTurn> {
        let mut taken = Vec::new();
        while let Ok(turn) = turns.take(TenantId(tenant), Duration::ZERO).await {
            taken.push(turn);
        }
        taken
    }

    #[tokio::test]
    async fn three_tenants_leave_a_place() {
        let turns = ReadTurns::new(READ_PLACES);
        let mut held = Vec::new();
        for (tenant, share) in [(1, 4), (2, 2), (3, 1), (4, 1), (5, 0)] {
            let own = take_all(&turns, tenant).await;
            assert_eq!(own.len(), share, "{tenant}");
            held.extend(own);
        }
        drop(held);
        assert_eq!(take_all(&turns, 1).await.len(), 4, "all places are free again");
    }

    #[tokio::test]
    async fn free_place_goes_to_the_tenant_that_holds_the_least() {
        let turns = Arc::new(ReadTurns::new(2));
        let mut held = take_all(&turns, 1).await;
        held.extend(take_all(&turns, 2).await);
        assert_eq!(held.len(), 2);
        let order = Arc::new(Mutex::new(Vec::new()));
        let mut reads = tokio::task::JoinSet::new();
        for tenant in [1, 1, 3] {
            let (turns, order) = (Arc::clone(&turns), Arc::clone(&order));
            reads.spawn(async move {
                let turn = turns.take(TenantId(tenant), SOON).await.unwrap();
                order.lock().unwrap().push(tenant);
                drop(turn);
            });
            tokio::task::yield_now().await;
        }
        held.pop();
        while reads.join_next().await.is_some() {
            held.pop();
        }
        assert_eq!(*order.lock().unwrap(), [3, 1, 1]);
    }

    #[tokio::test]
    async fn read_that_no_longer_waits_keeps_no_place() {
        let turns = ReadTurns::new(1);
        let held = turns.take(TenantId(1), SOON).await.unwrap();
        assert_eq!(turns.take(TenantId(2), Duration::from_millis(1)).await.err(), Some(StoreError::ReadTimeout));
        drop(held);
        assert!(turns.take(TenantId(3), Duration::ZERO).await.is_ok());
    }
}
