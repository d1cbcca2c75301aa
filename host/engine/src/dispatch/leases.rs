//! The leases that this node holds.
//!
//! An entry is a job and a token, as a lease is. An attempt that ends late removes only its own entry, never that of a later lease of the
//! same job.
//!
//! Invariants:
//!
//! - A node never rescues a lease that it holds, however long ago the lease has expired by the store's time: it extends the lease instead. So
//!   a node that stood still and is the only one repeats no attempt.
//! - A claim's leases are registered before any check whether they are held: [`Leases::sort`] waits for the claims that are under way.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, RwLock, RwLockReadGuard};
use tokio_util::sync::CancellationToken;

use crate::delivery::attempt::LeaseEnd;
use carillon_core::clock::UnixMs;
use carillon_core::job::Lease;

/// Number of extensions within the duration of a lease.
pub const EXTENSIONS: u32 = 3;

/// The leases that one node holds.
#[derive(Default)]
pub struct Leases {
    held: Mutex<HashMap<Lease, Held>>,
    claims: RwLock<()>,
    overdue: Notify,
}

/// State of one held lease.
struct Held {
    /// Number of attempts and requests that work under the lease.
    holds: u32,
    /// Number of holds that want the lease to be extended.
    kept: u32,
    /// End of the lease, as far as this node knows.
    end: LeaseEnd,
    /// Aborts the attempt.
    abort: CancellationToken,
}

/// How a held lease's expiry is treated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Until {
    /// It is extended again and again, until the hold is dropped.
    Released,
    /// It stays at the time that the consumer has set.
    Given,
}

/// A hold on a lease. Dropping it ends the hold.
pub struct Hold {
    leases: Arc<Leases>,
    lease: Lease,
    until: Until,
    end: LeaseEnd,
    abort: CancellationToken,
}

/// Expired leases, sorted by whether this node holds them.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Sorted {
    /// Leases that this node still holds.
    pub held: Vec<Lease>,
    /// Leases that nothing on this node holds.
    pub lost: Vec<Lease>,
}

impl Leases {
    /// Holds the lease of an attempt, which ends at `end`, and has it extended until the hold is dropped.
    #[must_use]
    pub fn keep(self: &Arc<Self>, lease: Lease, end: UnixMs) -> Hold {
        self.hold(lease, Until::Released, end)
    }

    /// Holds a consumer's lease during a request about it.
    ///
    /// The lease expires at the time that the consumer has set, but this node does not rescue it before the request is answered.
    #[must_use]
    pub fn guard(self: &Arc<Self>, lease: Lease) -> Hold {
        self.hold(lease, Until::Given, UnixMs::MAX)
    }

    fn hold(self: &Arc<Self>, lease: Lease, until: Until, end: UnixMs) -> Hold {
        let mut all = self.lock();
        let held = all.entry(lease).or_insert_with(|| Held {
            holds: 0,
            kept: 0,
            end: LeaseEnd::new(end),
            abort: CancellationToken::new(),
        });
        held.holds += 1;
        held.kept += u32::from(until == Until::Released);
        Hold { leases: Arc::clone(self), lease, until, end: held.end.clone(), abort: held.abort.clone() }
    }

    /// Records that the store has extended these leases until `end`.
    pub fn extended(&self, leases: impl IntoIterator<Item = Lease>, end: UnixMs) {
        let all = self.lock();
        leases.into_iter().filter_map(|lease| all.get(&lease)).for_each(|held| held.end.extend(end));
    }

    /// Announces a claim. The caller keeps the guard until the claim's leases are held.
    pub async fn claiming(&self) -> RwLockReadGuard<'_, ()> {
        self.claims.read().await
    }

    /// Returns the leases to extend.
    #[must_use]
    pub fn kept(&self) -> Vec<Lease> {
        self.lock().iter().filter(|(_, held)| held.kept > 0).map(|(lease, _)| *lease).collect()
    }

    /// Sorts these leases by whether this node holds them. The caller has read them from the store before this call.
    pub async fn sort(&self, seen: Vec<Lease>) -> Sorted {
        let _no_claim_is_under_way = self.claims.write().await;
        let all = self.lock();
        let (held, lost) = seen.into_iter().partition(|lease| all.contains_key(lease));
        Sorted { held, lost }
    }

    /// Aborts the attempts under these leases, where they can be aborted.
    pub fn abort(&self, leases: &[Lease]) {
        let all = self.lock();
        leases.iter().filter_map(|lease| all.get(lease)).for_each(|held| held.abort.cancel());
    }

    /// Requests an early extension: a write took so long that leases may be about to expire.
    pub fn request_extension(&self) {
        self.overdue.notify_one();
    }

    /// Waits for a request for an early extension.
    pub async fn extension_requested(&self) {
        self.overdue.notified().await;
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Lease, Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Hold {
    /// Returns the end of the lease, which extensions move.
    #[must_use]
    pub fn end(&self) -> &LeaseEnd {
        &self.end
    }

    /// Returns the token that is cancelled when the attempt is to be aborted.
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

    const END: UnixMs = UnixMs(1_000);

    fn lease(token: i64) -> Lease {
        (JobId(uuid::Uuid::nil()), Token(token))
    }

    #[test]
    fn an_attempt_that_ends_late_takes_nothing_of_the_next_lease_of_its_job() {
        let leases = Arc::new(Leases::default());
        let (late, next) = (leases.keep(lease(1), END), leases.keep(lease(2), END));
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
        let sorted = || leases.sort(vec![lease(1), lease(2)]).now_or_never().unwrap();
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
        let mut sorted = Box::pin(leases.sort(vec![lease(1)]));
        assert!(sorted.as_mut().now_or_never().is_none(), "the claim may have leased it");
        let _hold = leases.keep(lease(1), END);
        drop(claiming);
        assert_eq!(sorted.now_or_never().unwrap(), Sorted { held: vec![lease(1)], lost: vec![] });
    }

    #[test]
    fn an_abort_reaches_the_lease_it_names_and_no_other() {
        let leases = Arc::new(Leases::default());
        let (old, new) = (leases.keep(lease(1), END), leases.keep(lease(2), END));
        leases.abort(&[lease(1), lease(7)]);
        assert!(old.abort().is_cancelled() && !new.abort().is_cancelled());
    }

    #[test]
    fn extension_moves_the_end_of_the_leases_that_it_names_and_never_back() {
        let leases = Arc::new(Leases::default());
        let (extended, other) = (leases.keep(lease(1), END), leases.keep(lease(2), END));
        assert!(!extended.end().has_passed(UnixMs(999)) && extended.end().has_passed(END));
        leases.extended([lease(1), lease(7)], UnixMs(2_000));
        leases.extended([lease(1)], UnixMs(1_500));
        assert!(!extended.end().has_passed(UnixMs(1_999)) && extended.end().has_passed(UnixMs(2_000)));
        assert!(other.end().has_passed(END));
    }
}
