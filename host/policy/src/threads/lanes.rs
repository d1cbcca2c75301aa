//! Fair queue of calls: decides whose call runs next. Pure.
//!
//! A tenant whose policies use much CPU time gets its share of the threads and no more. A free thread goes to the tenant with the fewest
//! running calls, and among equals to the one that has used the least time. (Start-time fair queueing, Goyal, Vin and Cheng 1996: a tenant
//! that returns after a pause begins where the others are, and saves up no time.) Within a tenant its groups take turns, so that a group
//! whose policy is slow delays only itself.
//!
//! No thread is kept idle: a tenant without competitors gets all threads.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::Duration;

use carillon_core::job::{GroupId, Job, TenantId};

/// Divisors of the queue's capacity: the part that calls of one group may fill, and the part of one tenant.
const GROUP_SHARE: usize = 4;
const TENANT_SHARE: usize = 2;

/// Key of a queue: the tenant and the group that a call belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueKey {
    /// The tenant.
    pub tenant: TenantId,
    /// One of the tenant's groups.
    pub group: GroupId,
}

impl QueueKey {
    /// Returns the key of a job's calls.
    #[must_use]
    pub fn for_job(job: &Job) -> Self {
        Self { tenant: job.tenant, group: job.group }
    }

    /// Returns the key of work for the tenant itself, such as the examination of an upload. All of it shares one queue, which takes turns
    /// with the tenant's groups.
    #[must_use]
    pub fn of_tenant(tenant: TenantId) -> Self {
        Self { tenant, group: GroupId(0) }
    }
}

/// Waiting work. A tenant is in `order` exactly when it has some.
pub(super) struct FairQueue<W> {
    /// Every tenant that has ever had work: there are few tenants.
    tenants: HashMap<TenantId, Tenant<W>>,
    order: BTreeSet<Rank>,
    /// Time used by the tenant that was served last: a tenant that returns after a pause begins there.
    clock: Duration,
    capacity: usize,
    len: usize,
}

/// Rank of a tenant, lowest first: running calls, then time used.
type Rank = (usize, Duration, TenantId);

/// Waiting work of a tenant. A group is in `turns` exactly when it has some.
struct Tenant<W> {
    work: HashMap<GroupId, VecDeque<W>>,
    turns: VecDeque<GroupId>,
    len: usize,
    running: usize,
    used: Duration,
}

impl<W> Default for Tenant<W> {
    fn default() -> Self {
        Self { work: HashMap::new(), turns: VecDeque::new(), len: 0, running: 0, used: Duration::ZERO }
    }
}

impl<W> Tenant<W> {
    fn rank(&self, id: TenantId) -> Rank {
        (self.running, self.used, id)
    }

    fn push(&mut self, group: GroupId, work: W) {
        let queue = self.work.entry(group).or_default();
        if queue.is_empty() {
            self.turns.push_back(group);
        }
        queue.push_back(work);
        self.len += 1;
    }

    fn pop(&mut self) -> Option<W> {
        let group = self.turns.pop_front()?;
        let queue = self.work.get_mut(&group)?;
        let work = queue.pop_front()?;
        self.len -= 1;
        if queue.is_empty() {
            self.work.remove(&group);
        } else {
            self.turns.push_back(group);
        }
        Some(work)
    }
}

impl<W> FairQueue<W> {
    /// Makes a queue for at most `capacity` pieces of work.
    pub(super) fn new(capacity: usize) -> Self {
        Self { tenants: HashMap::new(), order: BTreeSet::new(), clock: Duration::ZERO, capacity, len: 0 }
    }

    /// Returns the number of waiting pieces of work.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Adds work; returns false if there is no room for it.
    pub(super) fn push(&mut self, lane: QueueKey, work: W) -> bool {
        let share = |part: usize| (self.capacity / part).max(1);
        let tenant = self.tenants.entry(lane.tenant).or_default();
        let of_group = tenant.work.get(&lane.group).map_or(0, VecDeque::len);
        if self.len >= self.capacity || tenant.len >= share(TENANT_SHARE) || of_group >= share(GROUP_SHARE) {
            return false;
        }
        if tenant.len == 0 {
            if tenant.running == 0 {
                tenant.used = tenant.used.max(self.clock);
            }
            self.order.insert(tenant.rank(lane.tenant));
        }
        tenant.push(lane.group, work);
        self.len += 1;
        true
    }

    /// Takes the next piece of work, which counts as running from now on.
    pub(super) fn pop(&mut self) -> Option<(TenantId, W)> {
        let (_, used, id) = self.order.pop_first()?;
        let tenant = self.tenants.get_mut(&id)?;
        let work = tenant.pop()?;
        tenant.running += 1;
        self.len -= 1;
        self.clock = self.clock.max(used);
        if tenant.len > 0 {
            self.order.insert(tenant.rank(id));
        }
        Some((id, work))
    }

    /// Records that a piece of this tenant's work has ended after `time`.
    pub(super) fn done(&mut self, id: TenantId, time: Duration) {
        let Some(tenant) = self.tenants.get_mut(&id) else { return };
        let is_waiting = self.order.remove(&tenant.rank(id));
        tenant.running = tenant.running.saturating_sub(1);
        tenant.used = tenant.used.saturating_add(time);
        if is_waiting {
            self.order.insert(tenant.rank(id));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn lane(tenant: i64, group: i64) -> QueueKey {
        QueueKey { tenant: TenantId(tenant), group: GroupId(group) }
    }

    #[test]
    fn the_groups_of_a_tenant_take_turns() {
        let mut lanes = FairQueue::new(100);
        for (group, label) in [(1, "a1"), (1, "a2"), (1, "a3"), (2, "b1"), (3, "c1")] {
            assert!(lanes.push(lane(1, group), label));
        }
        let order: Vec<_> = std::iter::from_fn(|| lanes.pop()).map(|(_, label)| label).collect();
        assert_eq!(order, ["a1", "b1", "c1", "a2", "a3"]);
        assert!(lanes.len() == 0 && lanes.order.is_empty());
    }

    #[test]
    fn a_free_thread_goes_to_whom_the_fewest_calls_run_for() {
        let mut lanes = FairQueue::new(100);
        (0..4).for_each(|group| assert!(lanes.push(lane(1, group), "burner")));
        assert_eq!(lanes.pop().unwrap().1, "burner");
        assert_eq!(lanes.pop().unwrap().1, "burner", "nothing is kept idle");
        assert!(lanes.push(lane(2, 9), "other"));
        lanes.done(TenantId(1), 500 * MS);
        assert_eq!(lanes.pop().unwrap().1, "other");
        lanes.done(TenantId(1), 500 * MS);
        assert!(lanes.push(lane(2, 9), "other"));
        assert_eq!(lanes.pop().unwrap().1, "burner", "none of its calls runs");
    }

    /// One thread: however many groups the busy tenant has and however long its calls take, the other tenant gets half of the time.
    #[test]
    fn time_is_shared_between_tenants() {
        let mut lanes = FairQueue::new(4_096);
        let (burner, other) = (TenantId(1), TenantId(2));
        let (mut used, mut waits) = ([Duration::ZERO; 2], false);
        for turn in 0..10_000_i64 {
            assert!((0..2).all(|more| lanes.push(lane(1, (turn + more) % 50), ())) || lanes.len() > 1_000);
            if !waits {
                assert!(lanes.push(lane(2, 1), ()));
            }
            let (id, ()) = lanes.pop().unwrap();
            waits = id == burner;
            let time = if id == burner { 100 * MS } else { MS };
            used[usize::from(id == other)] += time;
            lanes.done(id, time);
        }
        let [burned, others] = used.map(|time| time.as_millis());
        assert!(burned.abs_diff(others) <= 200, "{burned} ms against {others} ms");
    }

    #[test]
    fn who_comes_back_begins_where_the_others_are() {
        let mut lanes = FairQueue::new(100);
        assert!(lanes.push(lane(2, 1), "late"));
        lanes.pop().unwrap();
        lanes.done(TenantId(2), MS);
        for _ in 0..10 {
            assert!(lanes.push(lane(1, 1), "steady"));
            lanes.pop().unwrap();
            lanes.done(TenantId(1), 100 * MS);
        }
        assert!(lanes.push(lane(1, 1), "steady") && lanes.push(lane(2, 1), "late") && lanes.push(lane(2, 1), "late"));
        let mut order = Vec::new();
        while let Some((id, label)) = lanes.pop() {
            order.push(label);
            lanes.done(id, 100 * MS);
        }
        assert_eq!(order, ["late", "steady", "late"], "it has no second of credit");
    }

    #[test]
    fn neither_group_nor_tenant_fills_the_queue() {
        let mut lanes = FairQueue::new(40);
        let pushed = |lanes: &mut FairQueue<()>, lane: QueueKey| (0..100).filter(|_| lanes.push(lane, ())).count();
        assert_eq!(pushed(&mut lanes, lane(1, 1)), 10);
        assert_eq!((2..9).map(|group| pushed(&mut lanes, lane(1, group))).sum::<usize>(), 10);
        assert!(lanes.push(lane(2, 1), ()));
        assert_eq!(lanes.len(), 21);
    }
}
