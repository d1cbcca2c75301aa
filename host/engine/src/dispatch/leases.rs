//! The leases that this node holds.
//!
//! A lease is a job and a token, and so is every entry here: an attempt that ends late takes away what is its own, and nothing of a later
//! lease of the same job. Invariants:
//!
//! - A node never takes back a lease that it holds, however long ago the lease has ended by the store's time: it extends it instead. So a
//!   node that stood still, and is the only one, repeats nothing.
//! - What a claim has leased is held before anybody asks whether it is: [`Leases::sorted`] waits for the claims that are under way.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, RwLock, RwLockReadGuard};
use tokio_util::sync::CancellationToken;

use carillon_core::job::Lease;

/// How often a lease is extended within its own length.
pub const EXTENSIONS: u32 = 3;

/// The leases of one node.
#[derive(Default)]
pub struct Leases {
    held: Mutex<HashMap<Lease, Held>>,
    claims: RwLock<()>,
    overdue: Notify,
}

/// A lease of this node.
#[derive(Default)]
struct Held {
    /// How many attempts and requests work under it.
    holds: u32,
    /// How many of them want it to be extended.
    kept: u32,
    /// Cuts off the attempt.
    abort: CancellationToken,
}

/// What is done about the end of a lease while it is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Until {
    /// It is moved on and on.
    Released,
    /// It stays where its consumer has put it.
    Given,
}

/// A lease is held until this is dropped.
pub struct Hold {
    leases: Arc<Leases>,
    lease: Lease,
    until: Until,
    abort: CancellationToken,
}

/// Leases that have ended by the store's time.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Sorted {
    /// Held by this node all the same.
    pub held: Vec<Lease>,
    /// Held by nobody here.
    pub lost: Vec<Lease>,
}

impl Leases {
    /// Holds the lease of an attempt: it is extended until the hold is dropped.
    #[must_use]
    pub fn keep(self: &Arc<Self>, lease: Lease) -> Hold {
        self.hold(lease, Until::Released)
    }

    /// Holds a consumer's lease during a request about it: it ends when the consumer has said, but this node does not take it back
    /// before the request is answered.
    #[must_use]
    pub fn guard(self: &Arc<Self>, lease: Lease) -> Hold {
        self.hold(lease, Until::Given)
    }

    fn hold(self: &Arc<Self>, lease: Lease, until: Until) -> Hold {
        let mut all = self.lock();
        let held = all.entry(lease).or_default();
        held.holds += 1;
        held.kept += u32::from(until == Until::Released);
        Hold { leases: Arc::clone(self), lease, until, abort: held.abort.clone() }
    }

    /// Announces a claim. To be kept until what was claimed is held.
    pub async fn claiming(&self) -> RwLockReadGuard<'_, ()> {
        self.claims.read().await
    }

    /// The leases that are to be extended.
    #[must_use]
    pub fn kept(&self) -> Vec<Lease> {
        self.lock().iter().filter(|(_, held)| held.kept > 0).map(|(lease, _)| *lease).collect()
    }

    /// Which of these leases are held. They were seen in the store before this is called.
    pub async fn sorted(&self, seen: Vec<Lease>) -> Sorted {
        let _no_claim_is_under_way = self.claims.write().await;
        let all = self.lock();
        let (held, lost) = seen.into_iter().partition(|lease| all.contains_key(lease));
        Sorted { held, lost }
    }

    /// Cuts off what works under these leases, where it can be.
    pub fn abort(&self, leases: &[Lease]) {
        let all = self.lock();
        leases.iter().filter_map(|lease| all.get(lease)).for_each(|held| held.abort.cancel());
    }

    /// Asks for an extension before its time: a write took so long that leases may be about to end.
    pub fn hurry(&self) {
        self.overdue.notify_one();
    }

    /// Waits until somebody hurries.
    pub async fn hurried(&self) {
        self.overdue.notified().await;
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Lease, Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Hold {
    /// Cancelled when the attempt is to be cut off.
    #[must_use]
    pub fn abort(&self) -> &CancellationToken {
        &self.abort
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut all = self.leases.lock();
        let Some(held) = all.get_mut(&self.lease) else { return };
        held.holds -= 1;
        held.kept -= u32::from(self.until == Until::Released);
        if held.holds == 0 {
            all.remove(&self.lease);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;
    use carillon_core::job::{JobId, Token};

    fn lease(token: i64) -> Lease {
        (JobId(uuid::Uuid::nil()), Token(token))
    }

    #[test]
    fn an_attempt_that_ends_late_takes_nothing_of_the_next_lease_of_its_job() {
        let leases = Arc::new(Leases::default());
        let (late, next) = (leases.keep(lease(1)), leases.keep(lease(2)));
        drop(late);
        assert_eq!(leases.kept(), [lease(2)]);
        drop(next);
        assert_eq!(leases.kept(), []);
        assert!(leases.lock().is_empty());
    }

    #[test]
    fn a_consumers_lease_is_held_during_requests_and_not_extended() {
        let leases = Arc::new(Leases::default());
        let holds = [leases.guard(lease(1)), leases.guard(lease(1))];
        let sorted = || leases.sorted(vec![lease(1), lease(2)]).now_or_never().unwrap();
        assert_eq!((leases.kept(), sorted().held, sorted().lost), (vec![], vec![lease(1)], vec![lease(2)]));
        let [first, second] = holds;
        drop(first);
        assert_eq!(sorted().held, [lease(1)]);
        drop(second);
        assert_eq!(sorted().lost, [lease(1), lease(2)]);
    }

    #[test]
    fn what_a_claim_under_way_has_leased_is_not_lost() {
        let leases = Arc::new(Leases::default());
        let claiming = leases.claiming().now_or_never().unwrap();
        let mut sorted = Box::pin(leases.sorted(vec![lease(1)]));
        assert!(sorted.as_mut().now_or_never().is_none(), "the claim may have leased it");
        let _hold = leases.keep(lease(1));
        drop(claiming);
        assert_eq!(sorted.now_or_never().unwrap(), Sorted { held: vec![lease(1)], lost: vec![] });
    }

    #[test]
    fn an_abort_reaches_the_lease_it_names_and_no_other() {
        let leases = Arc::new(Leases::default());
        let (old, new) = (leases.keep(lease(1)), leases.keep(lease(2)));
        leases.abort(&[lease(1), lease(7)]);
        assert!(old.abort().is_cancelled() && !new.abort().is_cancelled());
    }
}
