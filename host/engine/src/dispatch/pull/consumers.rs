//! Waiting consumers, by group.
//!
//! A wake-up goes to one consumer of a group with due jobs. A consumer that then gets as many jobs as it requested wakes two others, because
//! there may be more jobs. So the work grows with the number of jobs, not with the number of waiting consumers.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::sync::futures::Notified;

use carillon_core::job::GroupId;

/// The consumers that wait on one node.
#[derive(Default)]
pub struct Consumers(Mutex<HashMap<GroupId, OfGroup>>);

#[derive(Default)]
struct OfGroup {
    count: usize,
    woken: Arc<Notify>,
}

/// A waiting consumer. Dropping it ends the wait.
pub struct Waiter {
    consumers: Arc<Consumers>,
    group: GroupId,
    woken: Arc<Notify>,
}

impl Consumers {
    /// Registers a consumer that waits for jobs of `group`.
    #[must_use]
    pub fn enter(self: &Arc<Self>, group: GroupId) -> Waiter {
        let mut all = self.lock();
        let of_group = all.entry(group).or_default();
        of_group.count += 1;
        Waiter { consumers: Arc::clone(self), group, woken: Arc::clone(&of_group.woken) }
    }

    /// Returns the number of waiting consumers of all groups.
    #[must_use]
    pub fn count(&self) -> usize {
        self.lock().values().map(|of_group| of_group.count).sum()
    }

    /// Wakes one of the consumers that wait for jobs of `group`, if there is one.
    pub fn wake_one(&self, group: GroupId) {
        if let Some(of_group) = self.lock().get(&group) {
            of_group.woken.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<GroupId, OfGroup>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiter {
    /// Waits for a wake-up. If the future is dropped after it was woken, another consumer of the group gets the wake-up.
    pub fn woken(&self) -> Notified<'_> {
        self.woken.notified()
    }

    /// Wakes others, because there may be more jobs than this consumer leased.
    pub fn pass_on(&self) {
        self.consumers.wake_one(self.group);
        self.consumers.wake_one(self.group);
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let mut all = self.consumers.lock();
        let Some(of_group) = all.get_mut(&self.group) else { return };
        of_group.count -= 1;
        if of_group.count == 0 {
            all.remove(&self.group);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn a_wake_up_goes_to_one_consumer_of_its_group() {
        let consumers = Arc::new(Consumers::default());
        let [first, second, other] = [1, 1, 2].map(|group| consumers.enter(GroupId(group)));
        let mut waits = [&first, &second, &other].map(|waiter| Box::pin(waiter.woken()));
        let mut woken = || waits.each_mut().map(|wait| wait.as_mut().now_or_never().is_some());
        assert_eq!(woken(), [false; 3]);
        consumers.wake_one(GroupId(1));
        consumers.wake_one(GroupId(7));
        assert_eq!(woken(), [true, false, false]);
    }

    #[test]
    fn a_wake_up_of_a_consumer_that_goes_away_is_not_lost() {
        let consumers = Arc::new(Consumers::default());
        let [first, second] = [1, 1].map(|group| consumers.enter(GroupId(group)));
        let (mut gone, mut stays) = (Box::pin(first.woken()), Box::pin(second.woken()));
        assert!(gone.as_mut().now_or_never().is_none() && stays.as_mut().now_or_never().is_none());
        consumers.wake_one(GroupId(1));
        drop(gone);
        assert!(stays.as_mut().now_or_never().is_some());
    }

    #[test]
    fn groups_that_nobody_waits_for_take_no_memory() {
        let consumers = Arc::new(Consumers::default());
        let waiters = [1, 1, 2].map(|group| consumers.enter(GroupId(group)));
        assert_eq!(consumers.count(), 3);
        drop(waiters);
        assert_eq!(consumers.count(), 0);
        assert!(consumers.lock().is_empty());
    }
}
