//! Consumers that wait for a job, by group.
//!
//! A wake-up goes to one consumer of the group whose jobs are due. One that then gets as many jobs as it asked for passes it on to two others,
//! because there may be more: so the work follows the jobs that are there, and not the consumers that wait.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::sync::futures::Notified;

use carillon_core::job::GroupId;

/// The consumers of one node that wait.
#[derive(Default)]
pub struct Consumers(Mutex<HashMap<GroupId, OfGroup>>);

#[derive(Default)]
struct OfGroup {
    count: usize,
    woken: Arc<Notify>,
}

/// A consumer that waits, until this is dropped.
pub struct Waiter {
    consumers: Arc<Consumers>,
    group: GroupId,
    woken: Arc<Notify>,
}

impl Consumers {
    /// Counts a consumer among those that wait for jobs of `group`.
    #[must_use]
    pub fn enter(self: &Arc<Self>, group: GroupId) -> Waiter {
        let mut all = self.lock();
        let of_group = all.entry(group).or_default();
        of_group.count += 1;
        Waiter { consumers: Arc::clone(self), group, woken: Arc::clone(&of_group.woken) }
    }

    /// Jobs of `group` may be there: wakes one of those that wait for them, if any does.
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
    /// Waits for a wake-up. One that comes to a future which is dropped goes to another consumer of the group.
    pub fn woken(&self) -> Notified<'_> {
        self.woken.notified()
    }

    /// There may be more jobs than this consumer took.
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
        drop([consumers.enter(GroupId(1)), consumers.enter(GroupId(1))]);
        assert!(consumers.lock().is_empty());
    }
}
