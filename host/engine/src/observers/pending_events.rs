//! Events that wait for observers: bounded in sum, and for each group.
//!
//! When there is no room, the tenant that has the most waiting events loses its own oldest one: no tenant loses one to another that has more.

use std::collections::{HashMap, HashSet, VecDeque};

use carillon_core::job::{GroupId, TenantId};
use carillon_telemetry::Event;

/// Largest number of events in one call.
const BATCH: usize = 100;

/// Divides the waiting events: one group may have at most 1/`GROUP_SHARE` of them.
const GROUP_SHARE: usize = 4;

/// See the module.
pub(super) struct PendingEvents {
    /// Waiting events of each group, oldest first.
    queues: HashMap<GroupId, Queue>,
    /// Numbers of waiting events, of tenants that have one.
    tenants: HashMap<TenantId, usize>,
    len: usize,
    capacity: usize,
    /// Groups whose observer is being called.
    busy: HashSet<GroupId>,
}

struct Queue {
    tenant: TenantId,
    events: VecDeque<Event>,
}

impl PendingEvents {
    /// At most `capacity` events wait.
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            queues: HashMap::new(),
            tenants: HashMap::new(),
            len: 0,
            capacity: capacity.max(1),
            busy: HashSet::new(),
        }
    }

    /// Adds an event. Returns the group of the event that was dropped, if there was no room for all.
    pub(super) fn push(&mut self, event: Event) -> Option<GroupId> {
        let (tenant, group) = (event.fact.about.tenant, event.fact.about.group);
        let most = (self.capacity / GROUP_SHARE).max(1);
        if self.queues.get(&group).is_some_and(|queue| queue.events.len() >= most) {
            return Some(group);
        }
        let dropped = if self.len >= self.capacity { self.drop_oldest() } else { None };
        let queue = self.queues.entry(group).or_insert_with(|| Queue { tenant, events: VecDeque::new() });
        queue.events.push_back(event);
        *self.tenants.entry(queue.tenant).or_default() += 1;
        self.len += 1;
        dropped
    }

    /// Takes a batch from each group whose observer is not being called.
    pub(super) fn batches(&mut self) -> Vec<(GroupId, Vec<Event>)> {
        self.queues.retain(|_, queue| !queue.events.is_empty());
        let mut batches = Vec::new();
        for (group, queue) in self.queues.iter_mut().filter(|(group, _)| !self.busy.contains(group)) {
            let batch: Vec<_> = queue.events.drain(..queue.events.len().min(BATCH)).collect();
            self.len -= batch.len();
            discount(&mut self.tenants, queue.tenant, batch.len());
            batches.push((*group, batch));
        }
        self.busy.extend(batches.iter().map(|(group, _)| *group));
        batches
    }

    /// Ends a call of the group's observer.
    pub(super) fn called(&mut self, group: GroupId) {
        self.busy.remove(&group);
    }

    /// Drops the oldest event of the longest queue of the tenant that has the most events.
    fn drop_oldest(&mut self) -> Option<GroupId> {
        let (tenant, _) = self.tenants.iter().max_by_key(|(tenant, count)| (**count, **tenant))?;
        let own = self.queues.iter_mut().filter(|(_, queue)| queue.tenant == *tenant);
        let (group, queue) = own.max_by_key(|(_, queue)| queue.events.len())?;
        let (group, tenant) = (*group, queue.tenant);
        queue.events.pop_front()?;
        self.len -= 1;
        discount(&mut self.tenants, tenant, 1);
        Some(group)
    }
}

fn discount(tenants: &mut HashMap<TenantId, usize>, tenant: TenantId, events: usize) {
    if let Some(count) = tenants.get_mut(&tenant) {
        *count -= events;
        if *count == 0 {
            tenants.remove(&tenant);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use carillon_core::clock::UnixMs;
    use carillon_telemetry::Fact;

    fn event(tenant: i64, group: i64, id: u64) -> Event {
        Event { id, fact: Fact::empty(TenantId(tenant), GroupId(group), UnixMs(0)) }
    }

    #[test]
    fn group_has_a_part_and_its_further_events_are_dropped() {
        let mut pending = PendingEvents::new(40);
        let dropped: Vec<_> = (0..12).filter_map(|id| pending.push(event(1, 1, id))).collect();
        assert_eq!(dropped, [GroupId(1); 2]);
        let batches = pending.batches();
        assert_eq!((batches.len(), batches[0].1.len()), (1, 10));
        assert_eq!(pending.push(event(1, 1, 12)), None, "there is room again");
        assert!(pending.batches().is_empty(), "the observer is being called");
        pending.called(GroupId(1));
        assert_eq!(pending.batches()[0].1[0].id, 12);
        assert!(pending.tenants.is_empty() && pending.len == 0);
    }

    #[test]
    fn tenant_with_the_most_waiting_events_loses_its_oldest() {
        let mut pending = PendingEvents::new(40);
        for id in 0..5 {
            assert_eq!(pending.push(event(2, 20, id)), None);
        }
        for (group, id) in (100..200).flat_map(|id| [1, 2, 3, 4, 5, 6].map(|group| (group, id))) {
            assert!(pending.push(event(1, group, id)).is_none_or(|group| group != GroupId(20)));
            assert!(pending.len <= 40);
        }
        let batches: HashMap<_, _> = pending.batches().into_iter().collect();
        assert_eq!(batches[&GroupId(20)].len(), 5, "it has less");
        assert!(batches[&GroupId(1)].last().is_some_and(|event| event.id > 100), "the newest are kept");
    }
}
