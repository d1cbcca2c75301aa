//! Fair shares of a claim. Each tenant gets a part within its quota, and each of its groups gets a part of that; both by weight.
//!
//! Neither the backlog of a group nor the number of a tenant's groups delays another tenant's next job.

use std::collections::BTreeMap;

use carillon_core::job::{GroupId, TenantId};

use crate::dispatch::limiter::TenantRoom;

/// A group that may start jobs, with its demand.
#[derive(Clone, Copy, Debug)]
pub(super) struct GroupDemand {
    pub(super) tenant: TenantId,
    pub(super) group: GroupId,
    pub(super) wanted: Demand,
}

/// Demand of a group or tenant.
#[derive(Clone, Copy, Debug)]
pub(super) struct Demand {
    /// Largest number of jobs that it may start.
    pub(super) most: u32,
    /// Weight against the others while its demand is not met. At least 1.
    pub(super) weight: u32,
}

/// Free places of a node, as tenants share them.
pub(super) struct FreePlaces {
    /// Number of all free places.
    pub(super) all: u32,
    /// Number of those that are not kept for tenants with few running attempts.
    pub(super) unreserved: u32,
    /// Share of each tenant that has due jobs.
    pub(super) rooms: BTreeMap<TenantId, TenantRoom>,
}

/// Divides `batch` among groups, as [`share`] does; what is kept for tenants with few running attempts goes to them alone.
pub(super) fn share_pool(
    open: &[GroupDemand],
    quota: impl Fn(TenantId) -> Demand,
    free: &FreePlaces,
    batch: u32,
    turn: usize,
) -> Vec<(GroupId, u32)> {
    let mut parts = share(open, &quota, batch.min(free.unreserved), turn);
    let left = batch - parts.iter().map(|(_, part)| *part).sum::<u32>();
    if left == 0 {
        return parts;
    }
    let part_of: BTreeMap<GroupId, u32> = parts.iter().copied().collect();
    let taken = |group: &GroupDemand| part_of.get(&group.group).copied().unwrap_or(0);
    let mut taken_by: BTreeMap<TenantId, u32> = BTreeMap::new();
    let rest: Vec<GroupDemand> = open
        .iter()
        .map(|group| {
            let taken = taken(group);
            *taken_by.entry(group.tenant).or_default() += taken;
            GroupDemand { wanted: Demand { most: group.wanted.most.saturating_sub(taken), ..group.wanted }, ..*group }
        })
        .collect();
    let small = |tenant| {
        let (quota, taken) = (quota(tenant), taken_by.get(&tenant).copied().unwrap_or(0));
        let small = free.rooms.get(&tenant).map_or(0, |room| room.small);
        Demand { most: quota.most.min(small).saturating_sub(taken), ..quota }
    };
    for (group, more) in share(&rest, small, left, turn) {
        match parts.iter_mut().find(|(known, _)| *known == group) {
            Some((_, part)) => *part += more,
            None => parts.push((group, more)),
        }
    }
    parts
}

/// Divides `batch` among groups. No group gets more than it may start, and no tenant's groups together more than the tenant's `quota`.
///
/// The first tenant rotates with each turn, and after a full round the first group of each tenant does. So a batch, or a quota, that is
/// smaller than their number reaches all of them in time.
fn share(open: &[GroupDemand], quota: impl Fn(TenantId) -> Demand, batch: u32, turn: usize) -> Vec<(GroupId, u32)> {
    let mut tenants: BTreeMap<TenantId, Vec<&GroupDemand>> = BTreeMap::new();
    for open in open {
        tenants.entry(open.tenant).or_default().push(open);
    }
    let sum = |groups: &[&GroupDemand]| groups.iter().fold(0, |sum: u32, open| sum.saturating_add(open.wanted.most));
    let wanted = tenants.iter().map(|(tenant, groups)| {
        let quota = quota(*tenant);
        Demand { most: quota.most.min(sum(groups)), ..quota }
    });
    let parts = divide(&wanted.collect::<Vec<_>>(), batch, turn);
    let turn = turn / tenants.len().max(1);
    let of_tenant = |(groups, part): (&Vec<&GroupDemand>, u32)| {
        let wanted: Vec<Demand> = groups.iter().map(|open| open.wanted).collect();
        let parts = divide(&wanted, part, turn);
        groups.iter().zip(parts).map(|(open, part)| (open.group, part)).collect::<Vec<_>>()
    };
    tenants.values().zip(parts).flat_map(of_tenant).filter(|(_, part)| *part > 0).collect()
}

/// Divides `whole` by weight among the demands; none gets more than its demand. The remainder goes one by one to those that are first in this
/// turn.
fn divide(wanted: &[Demand], whole: u32, turn: usize) -> Vec<u32> {
    let mut parts = vec![0; wanted.len()];
    let first = first(turn, wanted.len());
    let order = || (first..wanted.len()).chain(0..first);
    let mut left = whole;
    while left > 0 {
        let hungry: Vec<usize> = order().filter(|index| parts[*index] < wanted[*index].most).collect();
        if hungry.is_empty() {
            break;
        }
        let weights: u64 = hungry.iter().map(|index| u64::from(wanted[*index].weight)).sum();
        let by_weight = |index: usize| u64::from(left) * u64::from(wanted[index].weight) / weights.max(1);
        let fair: Vec<u32> = hungry.iter().map(|index| u32::try_from(by_weight(*index)).unwrap_or(left)).collect();
        let least = u32::from(fair.iter().all(|part| *part == 0));
        for (index, fair) in hungry.into_iter().zip(fair) {
            let more = fair.max(least).min(wanted[index].most - parts[index]).min(left);
            parts[index] += more;
            left -= more;
        }
    }
    parts
}

/// Returns which of `count` entries is first in a turn.
///
/// Multiples of the golden ratio's fraction are spread evenly over 0 to 1, and so are those of every second turn, or every third. A remainder
/// of the turn would favour the same entries where only every second or third turn has something to divide.
fn first(turn: usize, count: usize) -> usize {
    let turn = u64::try_from(turn).unwrap_or(u64::MAX);
    let fraction = turn.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let first = (u128::from(fraction) * count as u128) >> u64::BITS;
    usize::try_from(first).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    fn equally(most: u32) -> Demand {
        Demand { most, weight: 1 }
    }

    fn open(tenant: i64, group: i64, most: u32) -> GroupDemand {
        GroupDemand { tenant: TenantId(tenant), group: GroupId(group), wanted: equally(most) }
    }

    fn shares(open: &[GroupDemand], batch: u32, turn: usize) -> HashMap<i64, u32> {
        share(open, |_| equally(u32::MAX), batch, turn).into_iter().map(|(group, part)| (group.0, part)).collect()
    }

    #[test]
    fn a_backlog_leaves_the_others_their_part() {
        assert_eq!(shares(&[open(1, 1, 1_000), open(1, 2, 1)], 100, 0), HashMap::from([(1, 99), (2, 1)]));
        assert_eq!(shares(&[open(1, 1, 1_000), open(1, 2, 1_000)], 100, 0), HashMap::from([(1, 50), (2, 50)]));
    }

    #[test]
    fn a_tenant_gets_no_more_than_its_quota_and_the_others_the_rest() {
        let open = [open(1, 1, 50), open(1, 2, 50), open(2, 3, 90)];
        let quota = |tenant| equally(if tenant == TenantId(1) { 10 } else { u32::MAX });
        let shares: HashMap<_, _> = share(&open, quota, 64, 0).into_iter().collect();
        assert_eq!(shares, HashMap::from([(GroupId(1), 5), (GroupId(2), 5), (GroupId(3), 54)]));
        assert_eq!(share(&open, |_| equally(0), 64, 0), []);
    }

    #[test]
    fn everybody_comes_first_as_often_whatever_the_turns() {
        for (count, every) in [(2, 2), (3, 3), (10, 1), (10, 5), (7, 14)] {
            let mut firsts = vec![0_usize; count];
            (0..1_000).for_each(|turn| firsts[first(turn * every, count)] += 1);
            assert!(firsts.iter().all(|times| times.abs_diff(1_000 / count) <= 5), "{count} {every}: {firsts:?}");
        }
    }

    #[test]
    fn kept_places_go_to_tenants_with_few_attempts_only() {
        let groups = [open(1, 1, 100), open(2, 2, 100), open(3, 3, 100)];
        let room = |most, small| TenantRoom { most, small };
        let rooms =
            BTreeMap::from([(TenantId(1), room(10, 0)), (TenantId(2), room(32, 4)), (TenantId(3), room(32, 1))]);
        let quota = |tenant: TenantId| equally(rooms[&tenant].most);
        let parts = |all, unreserved| -> HashMap<i64, u32> {
            let free = FreePlaces { all, unreserved, rooms: rooms.clone() };
            share_pool(&groups, quota, &free, all, 0).into_iter().map(|(group, part)| (group.0, part)).collect()
        };
        assert_eq!(parts(8, 0), HashMap::from([(2, 4), (3, 1)]), "the others' places stay free");
        assert_eq!(parts(38, 30), HashMap::from([(1, 10), (2, 10), (3, 10)]));
        assert_eq!(parts(7, 3), HashMap::from([(1, 1), (2, 4), (3, 1)]));
    }

    #[test]
    fn many_groups_of_a_tenant_are_no_more_than_one_of_another() {
        let mut groups: Vec<GroupDemand> = (1..=100).map(|group| open(1, group, 32)).collect();
        groups.push(open(2, 200, 32));
        let shares = shares(&groups, 64, 0);
        assert_eq!(shares[&200], 32);
        assert_eq!(shares.len(), 33);
    }

    #[test]
    fn a_single_place_reaches_everybody_in_turn() {
        let groups = [open(1, 1, 9), open(1, 2, 9), open(2, 3, 9), open(2, 4, 9)];
        let mut reached: Vec<i64> = (0..4).flat_map(|turn| shares(&groups, 1, turn).into_keys()).collect();
        reached.sort_unstable();
        assert_eq!(reached, [1, 2, 3, 4]);
    }

    #[test]
    fn who_weighs_more_gets_more_while_all_want_more() {
        let wanted = [(90, 3), (90, 1), (2, 1)].map(|(most, weight)| Demand { most, weight });
        assert_eq!(divide(&wanted, 50, 0), [36, 12, 2]);
        assert_eq!(divide(&wanted, 182, 0), [90, 90, 2]);
        let mut got = [0, 0];
        for turn in 0..400 {
            divide(&wanted[..2], 2, turn).iter().zip(&mut got).for_each(|(part, got)| *got += part);
        }
        assert!(got[1] > 0, "whoever weighs little is not forgotten: {got:?}");
    }

    proptest! {
        #[test]
        fn parts_are_fair_and_use_what_there_is(
            wanted in prop::collection::vec(1_u32..50, 1..20), whole in 0_u32..300, turn in any::<usize>(),
        ) {
            let parts = divide(&wanted.iter().map(|most| equally(*most)).collect::<Vec<_>>(), whole, turn);
            prop_assert_eq!(parts.iter().sum::<u32>(), wanted.iter().sum::<u32>().min(whole));
            let starved = wanted.iter().zip(&parts).filter(|(wanted, part)| part < wanted);
            let least = starved.map(|(_, part)| *part).min();
            let largest = parts.iter().max().copied().unwrap_or(0);
            prop_assert!(least.is_none_or(|least| largest <= least + 1), "nobody waits for somebody who has more");
        }
    }
}
