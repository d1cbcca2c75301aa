//! Shares of limits: how the limits of groups and tenants are divided among nodes.
//!
//! Every node computes the same division from the same member list, and the parts add up to the whole. Where there is less to divide than
//! there are nodes, some nodes get nothing; the key decides which ones (rendezvous hashing: Thaler and Ravishankar, "Using name-based
//! mappings to increase hit rates", 1998), so a thousand groups with a concurrency of one are spread evenly.

use std::num::NonZeroU32;

use uuid::Uuid;

use carillon_core::stable_hash::fnv;
use carillon_policy::binding::Rate;

/// Key of a division.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShareKey {
    /// A group's limits.
    Group(i64),
    /// A tenant's quota.
    Tenant(i64),
    /// A bulk change, by a hash of its id. One node runs it.
    Bulk(u64),
}

impl ShareKey {
    fn bytes(self) -> impl Iterator<Item = u8> {
        let (kind, id) = match self {
            Self::Group(id) => (0, id.to_le_bytes()),
            Self::Tenant(id) => (1, id.to_le_bytes()),
            Self::Bulk(hash) => (2, hash.to_le_bytes()),
        };
        std::iter::once(kind).chain(id)
    }
}

/// Rank of one node among those that share a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    rank: u32,
    nodes: u32,
}

impl Share {
    /// Share of a node that is alone.
    pub const WHOLE: Self = Self { rank: 0, nodes: 1 };

    /// Share of a node that gets nothing.
    pub const NONE: Self = Self { rank: 0, nodes: 0 };

    /// Returns the share of `own` among `nodes`; [`Share::NONE`] if it is not among them.
    #[must_use]
    pub fn among_nodes(own: Uuid, nodes: &[Uuid], what: ShareKey) -> Self {
        if !nodes.contains(&own) {
            return Self::NONE;
        }
        let weight = |node: &Uuid| (fnv(what.bytes().chain(node.into_bytes())), *node);
        let rank = nodes.iter().filter(|node| weight(node) > weight(&own)).count();
        let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        Self { rank: count(rank), nodes: count(nodes.len()) }
    }

    /// Returns this node's part of a number. The parts of all nodes add up to it, and differ by one at most.
    #[must_use]
    pub fn part(self, whole: u32) -> u32 {
        match self.nodes {
            0 => 0,
            nodes => whole / nodes + u32::from(self.rank < whole % nodes),
        }
    }

    /// Returns the share among at most `most` nodes.
    fn among(self, most: u32) -> Self {
        if self.rank < most { Self { nodes: self.nodes.min(most), ..self } } else { Self::NONE }
    }

    /// Returns this node's part of limits; `None` if only other nodes have one.
    ///
    /// As many nodes take part as can have at least one attempt, one start of the rate and one receiver slot each, so that no node has one
    /// without the others.
    #[must_use]
    pub fn of(self, whole: LimitShare) -> Option<LimitShare> {
        let most = [whole.rate.map(|rate| rate.burst.get()), whole.host_concurrency].into_iter().flatten();
        let share = self.among(most.fold(whole.concurrency, u32::min));
        let of_rate = |rate: Rate| {
            let burst = NonZeroU32::new(share.part(rate.burst.get()))?;
            let period = rate.period.saturating_mul(rate.burst.get()) / burst.get();
            Some(Rate { burst, period, ..rate })
        };
        (share.part(whole.concurrency) > 0).then(|| LimitShare {
            concurrency: share.part(whole.concurrency),
            host_concurrency: whole.host_concurrency.map(|count| share.part(count)),
            rate: whole.rate.and_then(of_rate),
        })
    }
}

/// Limits of one node, or of all together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LimitShare {
    /// Attempts that run at once.
    pub concurrency: u32,
    /// Attempts that are on their way to one receiver.
    pub host_concurrency: Option<u32>,
    /// Starts in a period.
    pub rate: Option<Rate>,
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use proptest::prelude::*;

    fn nodes(count: usize) -> Vec<Uuid> {
        // Ids of nodes that started a second apart.
        let id = |number: usize| {
            Uuid::from_u128(0x0193_0000_0000_7000_8000_0000_0000_0000 + ((number as u128 * 1_000) << 80))
        };
        (1..=count).map(id).collect()
    }

    proptest! {
        #[test]
        fn parts_add_up_to_the_whole(whole in 0_u32..2_000, count in 1_usize..12, group in any::<i64>()) {
            let nodes = nodes(count);
            let parts: Vec<u32> = nodes.iter().map(|own| Share::among_nodes(*own, &nodes, ShareKey::Group(group)).part(whole)).collect();
            prop_assert_eq!(parts.iter().sum::<u32>(), whole);
            prop_assert!(parts.iter().max().unwrap() - parts.iter().min().unwrap() <= 1);
        }
    }

    proptest! {
        #[test]
        fn parts_of_limits_are_together_what_is_allowed(
            concurrency in 1_u32..100, hosts in prop::option::of(1_u32..50), count in 1_u32..1_000, burst in 1_u32..100,
            nodes in 1_usize..8, group in any::<i64>(),
        ) {
            let all = self::nodes(nodes);
            let nonzero = |number| NonZeroU32::new(number).unwrap();
            let rate = Rate { count: nonzero(count), period: Duration::from_secs(1), burst: nonzero(burst) };
            let whole = LimitShare { concurrency, host_concurrency: hosts, rate: Some(rate) };
            let share = |own: &Uuid| Share::among_nodes(*own, &all, ShareKey::Group(group)).of(whole);
            let parts: Vec<LimitShare> = all.iter().filter_map(share).collect();
            let rates = || parts.iter().filter_map(|part| part.rate);
            prop_assert_eq!(parts.iter().map(|part| part.concurrency).sum::<u32>(), concurrency);
            prop_assert_eq!(parts.iter().filter_map(|part| part.host_concurrency).sum::<u32>(), hosts.unwrap_or(0));
            prop_assert_eq!(rates().map(|rate| rate.burst.get()).sum::<u32>(), burst);
            let per_second: f64 = rates().map(|rate| f64::from(rate.count.get()) / rate.period.as_secs_f64()).sum();
            prop_assert!((per_second - f64::from(count)).abs() < 0.001 * f64::from(count), "{}", per_second);
            prop_assert!(parts.iter().all(|part| part.concurrency > 0 && part.host_concurrency != Some(0)));
        }
    }

    #[test]
    fn what_cannot_be_divided_is_spread_evenly() {
        let nodes = nodes(3);
        let mut have = [0; 3];
        for group in 0..3_000 {
            for (own, have) in nodes.iter().zip(&mut have) {
                *have += Share::among_nodes(*own, &nodes, ShareKey::Group(group)).part(1);
            }
        }
        assert_eq!(have.iter().sum::<u32>(), 3_000);
        assert!(have.iter().all(|have| (800..1_200).contains(have)), "{have:?}");
    }

    #[test]
    fn who_goes_leaves_the_others_what_they_have() {
        let nodes = nodes(4);
        for group in 0..200 {
            let owner = |nodes: &[Uuid]| {
                nodes.iter().find(|own| Share::among_nodes(**own, nodes, ShareKey::Group(group)).part(1) == 1).copied()
            };
            if owner(&nodes) != Some(nodes[3]) {
                assert_eq!(owner(&nodes[..3]), owner(&nodes));
            }
        }
    }

    #[test]
    fn who_is_not_on_the_list_has_nothing() {
        let nodes = nodes(2);
        assert_eq!(Share::among_nodes(Uuid::nil(), &nodes, ShareKey::Tenant(1)).part(100), 0);
        assert_eq!(Share::WHOLE.part(7), 7);
    }
}
