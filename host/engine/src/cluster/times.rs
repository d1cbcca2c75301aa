//! Times of the membership, and the relations between them that keep shares apart.

use std::time::Duration;

/// Periods and delays of the cluster's membership.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClusterTimes {
    /// Period of a node's heartbeat.
    pub heartbeat_interval: Duration,
    /// How long a member list stays valid after it was read.
    pub view_ttl: Duration,
    /// Time that a node waits after it has joined before it takes its share.
    pub join_delay: Duration,
    /// Age of the newest heartbeat at which a node counts as dead.
    pub node_ttl: Duration,
}

impl Default for ClusterTimes {
    fn default() -> Self {
        Self {
            heartbeat_interval: Duration::from_secs(1),
            view_ttl: Duration::from_millis(2_500),
            join_delay: Duration::from_secs(3),
            node_ttl: Duration::from_secs(6),
        }
    }
}

impl ClusterTimes {
    /// Asserts the relations without which two nodes could take the same share.
    pub(super) fn check(&self) {
        let Self { heartbeat_interval, view_ttl, join_delay, node_ttl } = *self;
        assert!(heartbeat_interval * 2 < view_ttl, "a list stays valid when one heartbeat is missed: {self:?}");
        assert!(view_ttl < join_delay, "all nodes see a node that joins before it takes its share: {self:?}");
        assert!(view_ttl + heartbeat_interval < node_ttl, "a node stops before others take its share: {self:?}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    #[test]
    fn default_times_keep_shares_apart() {
        ClusterTimes::default().check();
    }

    #[test]
    #[should_panic(expected = "before it takes its share")]
    fn join_delay_of_less_than_the_validity_of_a_list_is_refused() {
        let times = ClusterTimes::default();
        ClusterTimes { join_delay: times.view_ttl, ..times }.check();
    }

    #[test]
    #[should_panic(expected = "before others take its share")]
    fn list_that_outlives_its_node_is_refused() {
        ClusterTimes { view_ttl: Duration::from_secs(6), join_delay: DAY, ..ClusterTimes::default() }.check();
    }

    #[test]
    #[should_panic(expected = "when one heartbeat is missed")]
    fn heartbeat_that_is_rarer_than_lists_expire_is_refused() {
        ClusterTimes { heartbeat_interval: Duration::from_secs(2), ..ClusterTimes::default() }.check();
    }
}
