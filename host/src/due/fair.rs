//! Who gets how much of a claim: first each tenant its part, within its quota, then each of its groups a part of that. So neither the
//! backlog of a group nor the number of a tenant's groups delays another tenant's next job.

use std::collections::BTreeMap;

use crate::job::{GroupId, TenantId};

/// A group that may start jobs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Open {
    pub(super) tenant: TenantId,
    pub(super) group: GroupId,
    /// How many at most.
    pub(super) most: u32,
}

/// Divides `batch` among groups, none of which gets more than it may start, and none of whose tenants more than its `quota`. With each
/// turn another tenant comes first, and when all have, another group of each, so that a batch, or a quota, that is smaller than their
/// number reaches all of them.
pub(super) fn share(open: &[Open], quota: impl Fn(TenantId) -> u32, batch: u32, turn: usize) -> Vec<(GroupId, u32)> {
    let mut tenants: BTreeMap<TenantId, Vec<&Open>> = BTreeMap::new();
    for open in open {
        tenants.entry(open.tenant).or_default().push(open);
    }
    let sum = |groups: &[&Open]| groups.iter().fold(0, |sum: u32, open| sum.saturating_add(open.most));
    let wanted = tenants.iter().map(|(tenant, groups)| sum(groups).min(quota(*tenant)));
    let parts = divide(&wanted.collect::<Vec<_>>(), batch, turn);
    let turn = turn / tenants.len().max(1);
    let of_tenant = |(groups, part): (&Vec<&Open>, u32)| {
        let most: Vec<u32> = groups.iter().map(|open| open.most).collect();
        let parts = divide(&most, part, turn);
        groups.iter().zip(parts).map(|(open, part)| (open.group, part)).collect::<Vec<_>>()
    };
    tenants.values().zip(parts).flat_map(of_tenant).filter(|(_, part)| *part > 0).collect()
}

/// Divides `whole` equally among those who want some, none of whom gets more than it wants. What is left over goes to those who come
/// first in this turn.
fn divide(wanted: &[u32], whole: u32, turn: usize) -> Vec<u32> {
    let mut parts = vec![0; wanted.len()];
    let first = first(turn, wanted.len());
    let order = || (first..wanted.len()).chain(0..first);
    let mut left = whole;
    while left > 0 {
        let hungry: Vec<usize> = order().filter(|index| parts[*index] < wanted[*index]).collect();
        let Ok(count @ 1..) = u32::try_from(hungry.len()) else { break };
        let each = (left / count).max(1);
        for index in hungry {
            let more = each.min(wanted[index] - parts[index]).min(left);
            parts[index] += more;
            left -= more;
        }
    }
    parts
}

/// Which of `count` comes first in a turn. Multiples of the golden ratio's fraction are spread evenly over 0 to 1, and so are those of
/// every second turn, or every third: where only these have something to give, a remainder would give it to the same ones always.
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

    fn open(tenant: i64, group: i64, most: u32) -> Open {
        Open { tenant: TenantId(tenant), group: GroupId(group), most }
    }

    fn shares(open: &[Open], batch: u32, turn: usize) -> HashMap<i64, u32> {
        share(open, |_| u32::MAX, batch, turn).into_iter().map(|(group, part)| (group.0, part)).collect()
    }

    #[test]
    fn a_backlog_leaves_the_others_their_part() {
        assert_eq!(shares(&[open(1, 1, 1_000), open(1, 2, 1)], 100, 0), HashMap::from([(1, 99), (2, 1)]));
        assert_eq!(shares(&[open(1, 1, 1_000), open(1, 2, 1_000)], 100, 0), HashMap::from([(1, 50), (2, 50)]));
    }

    #[test]
    fn a_tenant_gets_no_more_than_its_quota_and_the_others_the_rest() {
        let open = [open(1, 1, 50), open(1, 2, 50), open(2, 3, 90)];
        let quota = |tenant| if tenant == TenantId(1) { 10 } else { u32::MAX };
        let shares: HashMap<_, _> = share(&open, quota, 64, 0).into_iter().collect();
        assert_eq!(shares, HashMap::from([(GroupId(1), 5), (GroupId(2), 5), (GroupId(3), 54)]));
        assert_eq!(share(&open, |_| 0, 64, 0), []);
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
    fn many_groups_of_a_tenant_are_no_more_than_one_of_another() {
        let mut groups: Vec<Open> = (1..=100).map(|group| open(1, group, 32)).collect();
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

    proptest! {
        #[test]
        fn parts_are_fair_and_use_what_there_is(
            wanted in prop::collection::vec(1_u32..50, 1..20), whole in 0_u32..300, turn in any::<usize>(),
        ) {
            let parts = divide(&wanted, whole, turn);
            prop_assert_eq!(parts.iter().sum::<u32>(), wanted.iter().sum::<u32>().min(whole));
            let starved = wanted.iter().zip(&parts).filter(|(wanted, part)| part < wanted);
            let least = starved.map(|(_, part)| *part).min();
            let largest = parts.iter().max().copied().unwrap_or(0);
            prop_assert!(least.is_none_or(|least| largest <= least + 1), "nobody waits for somebody who has more");
        }
    }
}
