//! Cluster membership: the other nodes, their state, and this node's share of the limits.
//!
//! Nodes know each other by a list in the database, in which each node renews its entry once in each heartbeat interval ([`ClusterTimes`]).
//! Jobs do not depend on the list: leases and tokens keep them safe, whichever nodes live. Two things depend on it: the limits, of which each
//! node takes its share ([`share`]), and the views of the cluster.
//!
//! The shares never add up to more than the whole, although nodes join and leave:
//! - A node whose heartbeat is older than [`ClusterTimes::node_ttl`] has no share. It stops before the others notice: its member list is valid
//!   for [`ClusterTimes::view_ttl`] only, and without a valid list it takes no share.
//! - The others count a node that joins as soon as they see it, but it takes its share only after [`ClusterTimes::join_delay`], when all have
//!   seen it.
//!
//! A share that shrinks interrupts no attempt: no attempt starts while more run than the share allows. So after a node has joined, a group
//! may exceed its concurrency for the duration of an attempt, by at most that node's share.

mod clock;
mod link;
mod refresh;
mod share;
mod times;

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use uuid::Uuid;

pub use self::clock::{ClockSample, DatabaseClock};
pub use self::link::PeerSync;
pub use self::refresh::CatalogRefresh;
pub use self::share::{LimitShare, Share, ShareKey};
pub use self::times::ClusterTimes;
use carillon_catalog::{Group, Tenant};
use carillon_core::clock::{Clock, UnixMs};
use carillon_core::job::JobId;
use carillon_policy::binding::{GroupLimits, Quota};
use carillon_store::{Heartbeat, Member, MemberList, NodeRecord};

/// Time for which a dead node stays on the list, for the views.
const NODE_RETENTION: Duration = Duration::from_secs(600);

/// Builds the description that a node publishes of itself.
pub type Describe = Box<dyn Fn() -> NodeRecord + Send + Sync>;

/// All nodes, as this one knows them.
pub struct Cluster {
    id: Uuid,
    since: UnixMs,
    clock: Arc<dyn Clock>,
    times: ClusterTimes,
    describe: Describe,
    /// Newest member list; `None` if the node does not share its database.
    view: Option<RwLock<View>>,
}

/// Member list as it was last read.
#[derive(Default)]
struct View {
    members: Vec<Member>,
    /// Nodes that have a share.
    sharing: Vec<Uuid>,
    /// Time until which this node takes its share.
    until: UnixMs,
}

impl Cluster {
    /// Creates the cluster of a node that shares its database with others.
    ///
    /// # Panics
    /// Panics if two nodes could take the same share under these times.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>, times: ClusterTimes, describe: Describe) -> Self {
        times.check();
        Self { times, view: Some(RwLock::default()), ..Self::alone(clock, describe) }
    }

    /// Creates the cluster of a node that has a database of its own.
    #[must_use]
    pub fn alone(clock: Arc<dyn Clock>, describe: Describe) -> Self {
        let (id, since) = (JobId::new(&*clock).0, clock.now());
        Self { id, since, clock, times: ClusterTimes::default(), describe, view: None }
    }

    /// Returns the nodes with a heartbeat in the last ten minutes, each with whether it lives.
    #[must_use]
    pub fn members(&self) -> Vec<(Member, bool)> {
        let now = self.clock.now();
        let Some(view) = self.view() else {
            return vec![(Member { id: self.id, since: self.since, beat_at: now, doc: (self.describe)() }, true)];
        };
        let lives = |member: &Member| now.since(member.beat_at) <= self.times.node_ttl;
        view.members.iter().map(|member| (member.clone(), lives(member))).collect()
    }

    /// Returns this node's share of what is divided.
    #[must_use]
    pub fn share(&self, what: ShareKey) -> Share {
        match self.view() {
            None => Share::WHOLE,
            Some(view) if self.clock.now() > view.until => Share::NONE,
            Some(view) => Share::among_nodes(self.id, &view.sharing, what),
        }
    }

    /// Returns this node's share of a group's limits; `None` if only other nodes have one, or if the group's configuration is broken.
    #[must_use]
    pub fn part_of_group(&self, group: &Group) -> Option<LimitShare> {
        let limits = &group.effective.as_ref().ok()?.limits;
        // Where a tenant's quota is divided, its groups' limits are divided by the same key: a node with a share of one has a share of the
        // other.
        let divided = if group.tenant.quota.is_unbounded() {
            ShareKey::Group(group.id.0)
        } else {
            ShareKey::Tenant(group.tenant.id.0)
        };
        let GroupLimits { concurrency, host_concurrency, rate, .. } = *limits;
        self.share(divided).of(LimitShare { concurrency, host_concurrency, rate })
    }

    /// Returns this node's share of a tenant's quota.
    #[must_use]
    pub fn part_of_tenant(&self, tenant: &Tenant) -> Option<LimitShare> {
        let Quota { concurrency, rate, .. } = tenant.quota;
        let whole = LimitShare { concurrency: concurrency.unwrap_or(u32::MAX), host_concurrency: None, rate };
        if tenant.quota.is_unbounded() { Some(whole) } else { self.share(ShareKey::Tenant(tenant.id.0)).of(whole) }
    }

    fn view(&self) -> Option<RwLockReadGuard<'_, View>> {
        Some(self.view.as_ref()?.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn beat(&self) -> Heartbeat {
        let comes = self.view().is_none_or(|view| self.clock.now() > view.until);
        Heartbeat { node: self.id, doc: (self.describe)(), comes, life: self.times.node_ttl, forget: NODE_RETENTION }
    }

    /// Takes over a member list that was requested at `asked`. Returns whether the shares have changed.
    fn update_view(&self, roll: MemberList, asked: UnixMs) -> bool {
        let Some(view) = &self.view else { return false };
        let sharing = sharing(self.id, &roll, &self.times);
        let mut view = view.write().unwrap_or_else(PoisonError::into_inner);
        let late = asked > view.until;
        let until = asked.plus(self.times.view_ttl);
        let before = std::mem::replace(&mut *view, View { members: roll.members, sharing, until });
        late || before.sharing != view.sharing
    }
}

/// Returns the living nodes. A node that has just joined does not count itself yet, unless it is alone.
fn sharing(own: Uuid, roll: &MemberList, times: &ClusterTimes) -> Vec<Uuid> {
    let living: Vec<&Member> =
        roll.members.iter().filter(|member| roll.now.since(member.beat_at) <= times.node_ttl).collect();
    let settled = |member: &Member| member.id != own || roll.now.since(member.since) >= times.join_delay;
    let alone = living.len() == 1;
    living.into_iter().filter(|member| alone || settled(member)).map(|member| member.id).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use carillon_core::test_util::ManualClock;

    const OWN: Uuid = Uuid::from_u128(1);
    const OTHER: Uuid = Uuid::from_u128(2);

    fn member(id: Uuid, since: i64, beat_at: i64) -> Member {
        let doc = NodeRecord {
            name: "n".to_owned(),
            address: "127.0.0.1:1".to_owned(),
            version: "1.0.0".to_owned(),
            process: 1,
            running: 0,
            capacity: 1,
            stopping: false,
        };
        Member { id, since: UnixMs(since), beat_at: UnixMs(beat_at), doc }
    }

    fn times() -> ClusterTimes {
        ClusterTimes::default()
    }

    fn roll(now: i64, members: &[Member]) -> MemberList {
        MemberList { members: members.to_vec(), now: UnixMs(now) }
    }

    #[test]
    fn who_comes_takes_its_part_when_all_have_seen_it() {
        let members = [member(OWN, 10_000, 10_500), member(OTHER, 0, 10_200)];
        assert_eq!(
            sharing(OTHER, &roll(10_500, &members), &times()),
            [OWN, OTHER],
            "the other leaves it its part at once"
        );
        assert_eq!(sharing(OWN, &roll(10_500, &members), &times()), [OTHER], "which it does not take yet");
        assert_eq!(sharing(OWN, &roll(13_000, &members), &times()), [OWN, OTHER]);
        assert_eq!(sharing(OWN, &roll(10_500, &members[..1]), &times()), [OWN], "who is alone has nobody to wait for");
    }

    #[test]
    fn who_is_silent_has_no_part() {
        let members = [member(OWN, 0, 60_000), member(OTHER, 0, 54_000)];
        assert_eq!(sharing(OWN, &roll(60_000, &members), &times()), [OWN, OTHER]);
        assert_eq!(sharing(OWN, &roll(60_001, &members), &times()), [OWN]);
    }

    #[test]
    fn node_without_a_valid_list_has_no_share_before_the_others_take_it() {
        let clock = ManualClock::new();
        let describe: Describe = Box::new(|| member(OWN, 0, 0).doc);
        let times = ClusterTimes::default();
        let cluster = Cluster::new(Arc::clone(&clock) as _, times, describe);
        let share = || cluster.share(ShareKey::Group(1));
        assert_eq!(share(), Share::NONE, "it has seen no list yet");
        let asked = clock.now();
        let alone = Member { id: cluster.id, ..member(OWN, asked.0, asked.0) };
        cluster.update_view(MemberList { members: vec![alone], now: asked }, asked);
        assert_eq!(share(), Share::WHOLE);
        clock.advance(times.view_ttl);
        assert_eq!(share(), Share::WHOLE);
        clock.advance(Duration::from_millis(1));
        assert_eq!(share(), Share::NONE);
        assert!(clock.now() < asked.plus(times.node_ttl), "the others count it among the living for longer");
    }
}
