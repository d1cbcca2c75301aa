//! Guaranteed starts of a group's lower priorities.
//!
//! Within a group the most urgent jobs start first. If they arrive as fast as they are done, less urgent jobs would wait for ever. So each
//! lower priority with due jobs gets at least one of sixteen of the group's starts. The node keeps an account for each priority: it rises
//! with every start of the group and falls with each start of its own.
//!
//! The accounts are the node's own memory and count its own starts only. Deliveries and leases to consumers have separate accounts.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use carillon_core::clock::UnixMs;
use carillon_core::job::{DispatchMode, GroupId, LeasedJob, Priority};
use carillon_store::Owed;

/// Number of priorities.
pub const PRIORITIES: usize = 10;

/// Number of starts of which a lower priority is owed one.
///
/// It is a little smaller than sixteen: if nine priorities are owed a start at the same time, the last is served eight starts later.
const OWED_ONE_OF: u32 = 14;

/// Largest number of starts that a priority is owed, so that starts which it could not use do not come back as a burst.
const MAX_OWED: u32 = 2;

/// The priority accounts of a node.
#[derive(Default)]
pub struct Priorities(Mutex<HashMap<Queue, Accounts>>);

/// A group's jobs with one mode of dispatch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Queue {
    /// The group.
    pub group: GroupId,
    /// Dispatch mode of the jobs.
    pub mode: DispatchMode,
}

impl Queue {
    /// Returns the queue of a group's delivered jobs.
    #[must_use]
    pub fn to_deliver(group: GroupId) -> Self {
        Self { group, mode: DispatchMode::Push }
    }
}

/// Starts that each priority is owed, in fractions of a start; `None` for a priority without due jobs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Accounts([Option<u32>; PRIORITIES]);

impl Priorities {
    /// Updates the accounts from the backlog: every queue with jobs, each with the time of the first job of each priority.
    pub fn update<'w>(&self, waiting: impl Iterator<Item = (Queue, &'w [UnixMs; PRIORITIES])>, now: UnixMs) {
        let mut all = self.lock();
        let mut seen: HashMap<Queue, Accounts> = HashMap::new();
        for (queue, earliest) in waiting {
            let is_due = earliest.map(|at| at <= now);
            if is_due.iter().filter(|is_due| **is_due).count() > 1 {
                let known = all.get(&queue).copied().unwrap_or_default();
                seen.insert(queue, known.seen(is_due));
            }
        }
        *all = seen;
    }

    /// Returns how many of the `most` starts of a queue go to which priority before all others.
    #[must_use]
    pub fn owed(&self, queue: Queue, most: u32) -> Vec<Owed> {
        let owed = self.lock().get(&queue).map(|accounts| accounts.owed(most)).unwrap_or_default();
        owed.into_iter().map(|(priority, count)| Owed { group: queue.group, priority, count }).collect()
    }

    /// Books the starts of a claim whose guaranteed part was `owed`. Jobs of other groups do not count.
    pub fn started<'l>(&self, queue: Queue, owed: &[Owed], leased: impl Iterator<Item = &'l LeasedJob>) {
        let mut all = self.lock();
        let Some(accounts) = all.get_mut(&queue) else { return };
        let mut started = [0; PRIORITIES];
        let own = leased.filter(|leased| leased.job.group == queue.group);
        own.for_each(|leased| started[index(leased.job.priority)] += 1);
        let owed: Vec<_> =
            owed.iter().filter(|owed| owed.group == queue.group).map(|owed| (owed.priority, owed.count)).collect();
        accounts.settle(&owed, &started);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Queue, Accounts>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Accounts {
    fn seen(self, is_due: [bool; PRIORITIES]) -> Self {
        let mut accounts = self.0;
        for (account, is_due) in accounts.iter_mut().zip(is_due) {
            *account = if is_due { Some(account.unwrap_or(0)) } else { None };
        }
        Self(accounts)
    }

    /// Returns the starts owed to each priority, the largest debt first, then the most urgent. The most urgent priority is owed nothing.
    fn owed(&self, most: u32) -> Vec<(Priority, u32)> {
        let lower = self.waiting().rev().skip(1);
        let mut owed: Vec<(usize, u32)> = lower.filter(|(_, parts)| parts + most >= OWED_ONE_OF).collect();
        owed.sort_by_key(|(_, parts)| std::cmp::Reverse(*parts));
        let mut left = most;
        let starts = |(priority, parts): (usize, u32)| {
            let count = ((parts + most) / OWED_ONE_OF).min(left);
            left -= count;
            let priority = u8::try_from(priority).ok().and_then(Priority::new)?;
            (count > 0).then_some((priority, count))
        };
        owed.into_iter().filter_map(starts).collect()
    }

    fn settle(&mut self, owed: &[(Priority, u32)], started: &[u32; PRIORITIES]) {
        let all: u32 = started.iter().sum();
        for (account, started) in self.0.iter_mut().zip(started) {
            if let Some(parts) = account {
                *parts = (*parts + all).saturating_sub(started * OWED_ONE_OF).min(MAX_OWED * OWED_ONE_OF);
            }
        }
        for (priority, count) in owed {
            // The priority had no more due jobs.
            if started[index(*priority)] < *count {
                self.0[index(*priority)] = None;
            }
        }
    }

    /// Returns the priorities with due jobs and what each is owed, from the lowest on.
    fn waiting(&self) -> impl DoubleEndedIterator<Item = (usize, u32)> {
        self.0.iter().enumerate().filter_map(|(priority, parts)| Some((priority, (*parts)?)))
    }
}

fn index(priority: Priority) -> usize {
    usize::from(u8::from(priority))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Starts `quota` jobs as the store does: the owed ones first, then the most urgent.
    fn start(accounts: &mut Accounts, waiting: &mut [u32; PRIORITIES], quota: u32) -> [u32; PRIORITIES] {
        let owed = accounts.owed(quota);
        let mut started = [0; PRIORITIES];
        let mut take = |priority: usize, most: u32| {
            let count = waiting[priority].min(most);
            waiting[priority] -= count;
            started[priority] += count;
            count
        };
        let mut left = quota;
        for (priority, count) in &owed {
            left -= take(index(*priority), *count);
        }
        for priority in (0..PRIORITIES).rev() {
            left -= take(priority, left);
        }
        accounts.settle(&owed, &started);
        started
    }

    #[test]
    fn one_low_job_starts_within_sixteen() {
        let mut waiting = [0; PRIORITIES];
        (waiting[0], waiting[9]) = (1, u32::MAX);
        let mut accounts = Accounts::default().seen(waiting.map(|count| count > 0));
        let first = (1..).find(|_| start(&mut accounts, &mut waiting, 1)[0] == 1);
        assert_eq!(first, Some(OWED_ONE_OF));
        assert_eq!(accounts.0[0], Some(0));
    }

    #[test]
    fn nobody_is_owed_where_one_priority_waits() {
        let priorities = Priorities::default();
        let queue = Queue { group: GroupId(1), mode: DispatchMode::Push };
        let mut earliest = [UnixMs::MAX; PRIORITIES];
        earliest[3] = UnixMs(5);
        priorities.update([(queue, &earliest)].into_iter(), UnixMs(9));
        assert!(priorities.lock().is_empty(), "and nothing is remembered");
        earliest[7] = UnixMs(9);
        priorities.update([(queue, &earliest)].into_iter(), UnixMs(9));
        assert_eq!(priorities.lock().len(), 1);
        let owed = Owed { group: GroupId(1), priority: Priority::new(3).unwrap(), count: 2 };
        assert_eq!(priorities.owed(queue, 28), [owed]);
        priorities.update(std::iter::empty(), UnixMs(9));
        assert_eq!(priorities.owed(queue, 28), []);
    }

    proptest! {
        #[test]
        fn every_priority_gets_a_sixteenth_as_long_as_it_waits(
            waits in prop::array::uniform10(any::<bool>()), quotas in prop::collection::vec(1_u32..40, 100..200),
        ) {
            let mut waiting = waits.map(|waits| if waits { u32::MAX } else { 0 });
            let mut accounts = Accounts::default().seen(waits);
            let (mut all, mut got) = (0, [0; PRIORITIES]);
            for quota in quotas {
                let started = start(&mut accounts, &mut waiting, quota);
                prop_assert_eq!(started.iter().sum::<u32>(), if waits.contains(&true) { quota } else { 0 });
                all += started.iter().sum::<u32>();
                got.iter_mut().zip(started).for_each(|(got, started)| *got += started);
            }
            for priority in (0..PRIORITIES).filter(|priority| waits[*priority]) {
                prop_assert!(got[priority] >= all / 16, "{priority}: {} of {all}", got[priority]);
            }
            let top = waits.iter().rposition(|waits| *waits).map_or(0, |top| got[top]);
            prop_assert!(got.iter().all(|got| *got <= top), "the most urgent gets most: {got:?}");
        }
    }
}
