//! Finds the jobs that are due, leases them and lets them run.
//!
//! The loop sleeps until the earliest `run_at` that it knows, is woken by inserts, by changes of groups and by attempts that end,
//! and looks at the store at least once a poll period all the same: a wake-up that is lost costs time, never a job. It registers
//! for the wake-up before it looks. Jobs that are due after its next look do not wake it. Where attempts that end are what it waits for, it
//! lets a few end before it looks again, so that a claim is worth its transaction. A claim takes the jobs of the next moment along
//! ([`lookahead`]), each of which then waits in memory for its time: so a job is not late by the time that its claim takes, and many share one.
//! Tenants that have jobs due share a claim equally, and so do the groups of each ([`fair_share`]), and it takes no more than it can take in a
//! short time ([`claim_batch_size`]), so that no backlog delays another's next job.

mod claim_batch_size;
mod fair_share;
mod lookahead;

use std::collections::{BTreeMap, HashMap};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use futures_util::poll;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use self::claim_batch_size::ClaimBatchSize;
use self::fair_share::{Demand, GroupDemand, share};
use self::lookahead::Lookahead;
use crate::cluster::Cluster;
use crate::delivery::attempt::{AttemptExecutor, AttemptResult, Interruption};
use crate::delivery::settler::Settler;
use crate::dispatch::leases::{EXTENSIONS, Hold, Leases};
use crate::dispatch::limiter::{Capacity, Limiter, Permit, Scope};
use crate::dispatch::priorities::{Priorities, Queue};
use crate::dispatch::pull::Consumers;
use crate::notifier::Notifier;
use crate::rollout::RolloutMonitor;
use carillon_catalog::{Catalog, Group, Tenant};
use carillon_core::clock::{self, Clock, Stopwatch, UnixMs};
use carillon_core::job::{GroupId, Job, LeasedJob, Next, Settlement, TenantId};
use carillon_store::{ClaimDue, GroupBacklog, Owed, SettleOutcome, Store, StoreError};
use carillon_telemetry::{Fact, Telemetry};

/// The pause after the store has failed.
const STORE_PAUSE: Duration = Duration::from_millis(500);

/// The pause before the places of attempts that ended are filled: many end in it, and one claim fills them all.
const COALESCE_DELAY: Duration = Duration::from_millis(1);

/// How long before the next job is due the loop looks: longer than a claim takes, and much less than it looks [ahead](Lookahead).
const CLAIM_LEAD: Duration = Duration::from_millis(5);

/// What the loops work with.
pub struct Dispatcher {
    /// Where jobs are.
    pub store: Arc<dyn Store>,
    /// What is configured.
    pub catalog: Arc<Catalog>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Makes attempts.
    pub executor: Arc<AttemptExecutor>,
    /// Watches how versions of policies do.
    pub rollouts: Arc<RolloutMonitor>,
    /// Is told what happened.
    pub observer: Arc<Telemetry>,
    /// The bounds of the loops.
    pub config: carillon_config::Engine,
    /// What runs.
    pub limiter: Arc<Limiter>,
    /// The other nodes.
    pub cluster: Arc<Cluster>,
    /// Whether due jobs wait for attempts to end.
    pub saturated: AtomicBool,
    /// Rises with each look at the store.
    pub turn: AtomicUsize,
    /// How much a claim takes.
    pub pace: ClaimBatchSize,
    /// What the groups' lower priorities are owed.
    pub priorities: Arc<Priorities>,
    /// The leases that this node holds.
    pub leases: Arc<Leases>,
    /// Writes what becomes of jobs.
    pub settler: Arc<Settler>,
    /// Wakes [`Dispatcher::run_due`].
    pub notifier: Arc<Notifier>,
    /// The consumers that wait for jobs to pull.
    pub consumers: Arc<Consumers>,
    /// Every attempt that runs.
    pub attempts: TaskTracker,
    /// Ends the attempts that run: those that were sent are recorded as interrupted, and the jobs of the others go back untouched.
    pub interrupt: CancellationToken,
}

/// What a look at the store says.
struct ClaimPlan {
    /// How much may be claimed.
    quotas: Vec<(GroupId, u32)>,
    /// Of the jobs that become due within this time.
    ahead: Duration,
    /// Whether that is something of every group that has jobs due and may start some.
    of_all: bool,
    /// When there may be more, unless the loop is woken.
    next: UnixMs,
    /// Some jobs are due, but as many attempts run as may.
    saturated: bool,
}

impl ClaimPlan {
    /// When to look again after a claim of the jobs that are due up to `ahead`; none if at once. Where every group had fewer of them than
    /// it might start, all are taken, and there is no need to look before that time is nearly over. Nor is there where nothing was
    /// taken: what is due is in other hands, as rows are that another node has locked.
    fn after_claim(&self, taken: &HashMap<GroupId, u32>, ahead: UnixMs) -> Option<UnixMs> {
        let is_empty = |(group, quota): &(GroupId, u32)| taken.get(group).is_none_or(|taken| taken < quota);
        let are_empty = self.of_all && self.quotas.iter().all(is_empty);
        (are_empty || taken.is_empty()).then(|| self.next.min(ahead.minus(CLAIM_LEAD)))
    }
}

impl Dispatcher {
    /// Lets jobs run as they become due, until `stop`.
    pub async fn run_due(self: Arc<Self>, stop: CancellationToken) {
        while !stop.is_cancelled() {
            let woken = self.notifier.woken();
            tokio::pin!(woken);
            woken.as_mut().enable();
            // What is accepted and what ends while the store is asked counts, too.
            self.notifier.foresee(UnixMs::MAX);
            self.saturated.store(true, Ordering::Relaxed);
            let next = match self.look_and_claim().await {
                Ok(Some(next)) => next,
                Ok(None) => continue,
                Err(error) => {
                    tracing::error!(%error, "cannot look for due jobs");
                    clock::pause_until_stopped(STORE_PAUSE, &stop).await;
                    continue;
                }
            };
            self.notifier.foresee(next.plus(CLAIM_LEAD));
            let gathered = async {
                woken.await;
                if self.saturated.load(Ordering::Relaxed) {
                    // No decision depends on this pause, so it is not the clock's.
                    tokio::time::sleep(COALESCE_DELAY).await;
                }
            };
            tokio::select! {
                () = gathered => {}
                () = self.clock.sleep_until(next) => {}
                () = stop.cancelled() => {}
            }
        }
    }

    /// Starts what is due, and says when to look again: none if there may be more at once.
    async fn look_and_claim(self: &Arc<Self>) -> Result<Option<UnixMs>, StoreError> {
        let outlook = self.look().await?;
        let next = if outlook.quotas.is_empty() { Some(outlook.next) } else { self.claim(&outlook).await? };
        if next.is_some() {
            self.saturated.store(outlook.saturated, Ordering::Relaxed);
        }
        Ok(next)
    }

    async fn look(&self) -> Result<ClaimPlan, StoreError> {
        let waiting = self.store.waiting().await?;
        let now = self.clock.now();
        let mut next = now.plus(self.config.poll.get());
        let (mut open, mut tenants, mut openings, mut late) = (Vec::new(), BTreeMap::new(), Vec::new(), false);
        let queue = |waiting: &GroupBacklog| Queue { group: waiting.group, pull: waiting.pull };
        self.priorities.see(waiting.iter().map(|waiting| (queue(waiting), &waiting.by_priority)), now);
        for GroupBacklog { group, pull, earliest, .. } in waiting {
            if pull {
                match earliest > now {
                    true => next = next.min(earliest),
                    false => self.consumers.wake_one(group),
                }
                continue;
            }
            if earliest > now.plus(CLAIM_LEAD) {
                next = next.min(earliest.minus(CLAIM_LEAD));
                continue;
            }
            let Some((group, opening)) = self.opening(group, now) else { continue };
            late |= earliest <= now;
            match opening {
                Capacity::Now(most) => {
                    let tenant = group.tenant.id;
                    tenants.entry(tenant).or_insert_with(|| {
                        let opening = self.opening_of_tenant(&group.tenant, now);
                        openings.push(opening);
                        Demand { most: opening.most(), weight: group.tenant.quota.weight() }
                    });
                    open.push(GroupDemand { tenant, group: group.id, wanted: Demand { most, weight: group.weight() } });
                }
                closed => openings.push(closed),
            }
        }
        let not_before = |opening: &Capacity| if let Capacity::NotBefore(at) = opening { Some(*at) } else { None };
        next = openings.iter().filter_map(not_before).fold(next, UnixMs::min);
        let full = openings.contains(&Capacity::Full);
        let free = u32::try_from(self.limiter.free()).unwrap_or(u32::MAX);
        let saturated = full || (free == 0 && !open.is_empty());
        let count = open.len();
        let (ahead, quotas) = self.quotas(open, tenants, late, free);
        Ok(ClaimPlan { of_all: quotas.len() == count, quotas, ahead, next, saturated })
    }

    /// Shares a claim among the groups and tenants that may start some: how far ahead it looks, and how much of each it takes.
    fn quotas(
        &self,
        mut open: Vec<GroupDemand>,
        mut tenants: BTreeMap<TenantId, Demand>,
        late: bool,
        free: u32,
    ) -> (Duration, Vec<(GroupId, u32)>) {
        let places = open.iter().map(|open| &open.wanted).chain(tenants.values()).map(|wanted| wanted.most);
        let ahead = Lookahead::new(late, places.chain([free]));
        let all = open.iter_mut().map(|open| &mut open.wanted).chain(tenants.values_mut());
        all.for_each(|wanted| wanted.most = ahead.part(wanted.most));
        let quota = |tenant| tenants.get(&tenant).copied().unwrap_or(Demand { most: 0, weight: 1 });
        let batch = self.pace.of(ahead.part(free).min(self.config.claim_batch));
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        (ahead.time, share(&open, quota, batch, turn))
    }

    /// How much a group may start here; nothing at all if it is gone, paused or broken in its config, or if it is others that start its
    /// jobs, until a change of that wakes the loop.
    fn opening(&self, group: GroupId, now: UnixMs) -> Option<(Arc<Group>, Capacity)> {
        let group = self.catalog.group_by_id(group).filter(|group| !group.paused)?;
        let part = self.cluster.part_of_group(&group)?;
        let opening = self.limiter.opening(Scope::Group(group.id), part.concurrency, part.rate, now);
        Some((group, opening))
    }

    /// How much all groups of a tenant may start here together.
    fn opening_of_tenant(&self, tenant: &Tenant, now: UnixMs) -> Capacity {
        match self.cluster.part_of_tenant(tenant) {
            Some(part) => self.limiter.opening(Scope::Tenant(tenant.id), part.concurrency, part.rate, now),
            None => Capacity::Now(0),
        }
    }

    /// Leases jobs and lets them run; says when to look again, none if at once.
    async fn claim(self: &Arc<Self>, outlook: &ClaimPlan) -> Result<Option<UnixMs>, StoreError> {
        let now = self.clock.now();
        let (ahead, lease_until) = (now.plus(outlook.ahead), now.plus(self.config.lease.get()));
        let asked = outlook.quotas.iter().map(|(_, quota)| quota).sum();
        let owed = self.owed(&outlook.quotas);
        let claim = ClaimDue { now: ahead, lease_until, pull: false, quotas: outlook.quotas.clone(), owed };
        let owed = claim.owed.clone();
        let stopwatch = Stopwatch::start();
        let claiming = self.leases.claiming().await;
        let leased = self.store.claim_due(claim).await?;
        if !leased.is_empty() {
            self.observer.metrics.claimed();
        }
        self.pace.took(asked, u32::try_from(leased.len()).unwrap_or(u32::MAX), stopwatch.elapsed());
        for (group, _) in &outlook.quotas {
            self.priorities.started(Queue::to_deliver(*group), &owed, leased.iter());
        }
        let mut taken: HashMap<GroupId, u32> = HashMap::new();
        for leased in leased {
            *taken.entry(leased.job.group).or_default() += 1;
            self.start(leased, now);
        }
        drop(claiming);
        if self.clock.now().since(now) >= self.extension_period() {
            self.leases.hurry();
        }
        Ok(outlook.after_claim(&taken, ahead))
    }

    /// What the lower priorities of these groups are owed of their quotas.
    fn owed(&self, quotas: &[(GroupId, u32)]) -> Vec<Owed> {
        let of_group = |(group, quota): &(GroupId, u32)| self.priorities.owed(Queue::to_deliver(*group), *quota);
        quotas.iter().flat_map(of_group).collect()
    }

    fn start(self: &Arc<Self>, leased: LeasedJob, now: UnixMs) {
        let slot =
            self.limiter.enter(leased.job.tenant, leased.job.group, leased.job.body_len, now.max(leased.job.run_at));
        let hold = self.leases.keep(leased.lease());
        self.attempts.spawn(Arc::clone(self).run_attempt(leased, slot, hold));
    }

    /// Makes an attempt and settles it. Whatever this takes away when it ends is of its own lease.
    async fn run_attempt(self: Arc<Self>, leased: LeasedJob, slot: Permit, hold: Hold) {
        let interruption = Interruption::new(self.interrupt.clone(), hold.abort().clone());
        let AttemptResult { settlement, trial } = self.attempt(&leased, &interruption).await;
        let comes_back = matches!(settlement.next(), Next::Scheduled(_)) || wakes_others(&leased.job);
        let slot = match settlement.spends() {
            true => slot,
            false => slot.unused(self.clock.now()),
        };
        let attempt = self.rollouts.interest(leased.job.group, &settlement);
        let settle = self.settler.settle(&leased, settlement);
        let settled = match self.store.keeps_order() {
            // Whatever is claimed from now on is claimed after this.
            true => begun(settle, || self.leave(slot)).await,
            false => {
                let settled = settle.await;
                self.leave(slot);
                settled
            }
        };
        drop(hold);
        // An attempt whose lease was lost is made once more, and counts then.
        if let Some(SettleOutcome::Applied(_)) = settled {
            self.rollouts.settled(leased.job.group, attempt, trial);
        }
        if comes_back {
            self.notifier.here();
        }
    }

    async fn attempt(&self, leased: &LeasedJob, interruption: &Interruption) -> AttemptResult {
        tokio::select! {
            () = self.clock.sleep_until_nearly(leased.job.run_at) => {}
            _ = interruption.cause() => return Settlement::released(leased, self.clock.now()).into(),
        }
        let now = self.clock.now().max(leased.job.run_at);
        if now >= leased.until {
            // The claim was long on its way, or this node stood still: somebody else may have the job by now.
            return Settlement::released(leased, now).into();
        }
        self.observer.tell(Fact::pop(leased, now));
        self.executor.make(leased, interruption).await
    }

    /// Gives a place back to those that wait for one.
    fn leave(&self, slot: Permit) {
        drop(slot);
        if self.saturated.load(Ordering::Relaxed) {
            self.notifier.here();
        }
    }

    fn extension_period(&self) -> Duration {
        self.config.lease.get() / EXTENSIONS
    }

    /// Keeps the leases of running attempts from ending, until `stop`.
    pub async fn run_leases(self: Arc<Self>, stop: CancellationToken) {
        let period = self.extension_period();
        let mut next = self.clock.now().plus(period);
        loop {
            tokio::select! {
                () = self.clock.sleep_until(next) => {}
                () = self.leases.hurried() => {}
                () = stop.cancelled() => return,
            }
            next = match self.extend_leases().await {
                Ok(asked) => asked.plus(period),
                Err(error) => {
                    tracing::error!(%error, "cannot extend leases");
                    clock::pause_until_stopped(period.min(STORE_PAUSE), &stop).await;
                    self.clock.now()
                }
            };
        }
    }

    /// Extends the leases that are held, and once more if that took so long that little is left of them; says since when they last.
    pub(crate) async fn extend_leases(&self) -> Result<UnixMs, StoreError> {
        loop {
            let (asked, leases) = (self.clock.now(), self.leases.kept());
            if leases.is_empty() {
                return Ok(asked);
            }
            let ours = self.store.extend(leases, asked.plus(self.config.lease.get())).await?;
            let lost = ours.iter().filter(|ours| !**ours).count();
            if lost > 0 {
                tracing::debug!(lost, "leases ended before they could be extended");
            }
            if self.clock.now().since(asked) < self.extension_period() {
                return Ok(asked);
            }
        }
    }
}

/// Whether the end of this job may let another one go: the next of its key, or one that follows.
fn wakes_others(job: &Job) -> bool {
    job.order_key.is_some() || job.spec.on_success.is_some() || job.spec.on_failure.is_some()
}

/// Lets `future` begin, calls `then`, and waits for the rest.
async fn begun<F: Future>(future: F, then: impl FnOnce()) -> F::Output {
    let mut future = pin!(future);
    let first = poll!(&mut future);
    then();
    match first {
        Poll::Ready(output) => output,
        Poll::Pending => future.await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_a_claim_the_loop_looks_at_once_only_where_more_may_be_due() {
        let (a, b) = (GroupId(1), GroupId(2));
        let outlook = |of_all, next| ClaimPlan {
            quotas: vec![(a, 2), (b, 1)],
            ahead: Duration::ZERO,
            of_all,
            next: UnixMs(next),
            saturated: false,
        };
        let after = |of_all, next, taken: &[(GroupId, u32)]| {
            outlook(of_all, next).after_claim(&taken.iter().copied().collect(), UnixMs(1_025)).map(|at| at.0)
        };
        assert_eq!(after(true, 2_000, &[(a, 1)]), Some(1_020), "all that was due");
        assert_eq!(after(true, 1_007, &[(a, 1)]), Some(1_007), "others are due before that");
        assert_eq!(after(true, 2_000, &[(a, 2)]), None, "as many as it might start");
        assert_eq!(after(true, 2_000, &[(a, 1), (b, 1)]), None);
        assert_eq!(after(false, 2_000, &[(a, 1)]), None, "a group was left out");
        assert_eq!(after(false, 2_000, &[]), Some(1_020), "what cannot be taken is not asked for without end");
        assert_eq!(after(true, 2_000, &[]), Some(1_020));
    }
}
