//! Claims due jobs and starts their attempts.
//!
//! The loop sleeps until the earliest `run_at` that it knows. Inserts, changes of groups and the ends of attempts wake it. It also polls the
//! store once in each poll period, so a lost wake-up costs time and never a job. It registers for the wake-up before it queries the store. A
//! job that is due after the next poll does not wake it. While the loop waits for attempts to end, it lets a few of them end before it
//! queries again, so that a claim is worth its transaction.
//!
//! A claim also leases the jobs of the next moments ([`lookahead`]), each of which waits in memory until it is due. So the claim's own
//! duration makes no job late, and many jobs share one claim. Tenants with due jobs share a claim equally, and so do the groups of each
//! tenant ([`fair_share`]). While several tenants exist, none of them takes all places of the node. A claim's size is bounded so that it takes
//! a short time ([`claim_batch_size`]): no backlog delays another tenant's next job.

mod claim_batch_size;
mod claim_plan;
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

use self::claim_batch_size::ClaimBatchSize;
use self::claim_plan::ClaimPlan;
use self::fair_share::{Demand, FreePlaces, GroupDemand, share_pool};
use self::lookahead::Lookahead;
use crate::delivery::attempt::{AttemptExecutor, AttemptResult, Interruption, LeaseEnd};
use crate::delivery::settler::Settler;
use crate::dispatch::lease_keeper::LeaseKeeper;
use crate::dispatch::leases::{Hold, Leases};
use crate::dispatch::limiter::{Capacity, Permit, Scope};
use crate::dispatch::priorities::{Priorities, Queue};
use crate::dispatch::pull::{Consumers, PullQueue, Returns};
use crate::rollout::RolloutMonitor;
use crate::services::Services;
use carillon_catalog::{Group, Tenant};
use carillon_core::clock::{self, Stopwatch, UnixMs};
use carillon_core::job::{DispatchMode, GroupId, Job, LeasedJob, Next, Settlement, TenantId};
use carillon_store::{ClaimDue, GroupBacklog, Owed, SettleOutcome, StoreError};
use carillon_telemetry::Fact;

/// The pause after the store has failed.
const STORE_PAUSE: Duration = Duration::from_millis(500);

/// Pause before the dispatcher uses permits that were returned: many attempts end in it, and one claim fills all their permits.
const COALESCE_DELAY: Duration = Duration::from_millis(1);

/// Time before the next due job at which the dispatcher plans: longer than a claim takes, and much less than its [look-ahead](Lookahead).
const CLAIM_LEAD: Duration = Duration::from_millis(5);

/// Starts the attempts of due jobs.
pub struct Dispatcher {
    services: Services,
    executor: Arc<AttemptExecutor>,
    rollouts: Arc<RolloutMonitor>,
    config: carillon_config::Engine,
    /// Whether due jobs wait for running attempts to end.
    saturated: AtomicBool,
    /// Counter that rises with each plan of a claim, to rotate the order of tenants and groups.
    rotation: AtomicUsize,
    /// Size of the next claim.
    batch_size: ClaimBatchSize,
    /// Starts that are guaranteed to the groups' lower priorities.
    priorities: Arc<Priorities>,
    /// Consumers that wait for jobs to pull.
    consumers: Arc<Consumers>,
    leases: Arc<Leases>,
    lease_keeper: Arc<LeaseKeeper>,
    settler: Arc<Settler>,
    /// Tasks of all running attempts.
    attempts: TaskTracker,
    interrupt: CancellationToken,
}

impl Dispatcher {
    /// Creates a dispatcher whose running attempts `interrupt` interrupts: those whose requests were sent are recorded as interrupted, and
    /// the jobs of the others are released, unspent.
    #[must_use]
    pub fn new(
        services: Services,
        executor: Arc<AttemptExecutor>,
        rollouts: Arc<RolloutMonitor>,
        config: carillon_config::Engine,
        interrupt: CancellationToken,
    ) -> Self {
        let leases = Arc::new(Leases::default());
        let settler = Arc::new(Settler::new(services.clone(), interrupt.clone()));
        let lease_keeper =
            LeaseKeeper::new(services.clone(), Arc::clone(&leases), Arc::clone(&settler), config.lease.get());
        Self {
            services,
            executor,
            rollouts,
            config,
            saturated: AtomicBool::new(false),
            rotation: AtomicUsize::new(0),
            batch_size: ClaimBatchSize::default(),
            priorities: Arc::default(),
            consumers: Arc::default(),
            leases,
            lease_keeper: Arc::new(lease_keeper),
            settler,
            attempts: TaskTracker::new(),
            interrupt,
        }
    }

    /// Returns a queue from which consumers pull this node's jobs until `stopping`.
    #[must_use]
    pub fn pull_queue(&self, stopping: CancellationToken) -> PullQueue {
        let returns = Returns::new(self.services.clone(), Arc::clone(&self.settler), self.attempts.clone());
        PullQueue {
            services: self.services.clone(),
            executor: Arc::clone(&self.executor),
            rollouts: Arc::clone(&self.rollouts),
            consumers: Arc::clone(&self.consumers),
            priorities: Arc::clone(&self.priorities),
            leases: Arc::clone(&self.leases),
            settler: Arc::clone(&self.settler),
            returns: Arc::new(returns),
            stopping,
        }
    }

    /// Returns the keeper of this node's leases.
    #[must_use]
    pub fn lease_keeper(&self) -> Arc<LeaseKeeper> {
        Arc::clone(&self.lease_keeper)
    }

    /// Returns the token that interrupts the running attempts.
    #[must_use]
    pub fn interrupt(&self) -> &CancellationToken {
        &self.interrupt
    }

    /// Waits until all running attempts have ended.
    pub async fn drain(&self) {
        self.attempts.close();
        self.attempts.wait().await;
    }

    /// Claims jobs as they become due and starts their attempts, until `stop`.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        while !stop.is_cancelled() {
            let woken = self.services.notifier.notified_local();
            tokio::pin!(woken);
            woken.as_mut().enable();
            // A job that is accepted, or an attempt that ends, during the query must wake the loop, too.
            self.services.notifier.expect_poll_at(UnixMs::MAX);
            self.saturated.store(true, Ordering::Relaxed);
            let next = match self.plan_and_claim().await {
                Ok(Some(next)) => next,
                Ok(None) => continue,
                Err(error) => {
                    tracing::error!(%error, "claiming due jobs failed");
                    clock::pause_until_stopped(STORE_PAUSE, &stop).await;
                    continue;
                }
            };
            self.services.notifier.expect_poll_at(next.plus(CLAIM_LEAD));
            let gathered = async {
                woken.await;
                if self.saturated.load(Ordering::Relaxed) {
                    // No decision depends on this pause, so it is not the clock's.
                    tokio::time::sleep(COALESCE_DELAY).await;
                }
            };
            tokio::select! {
                () = gathered => {}
                () = self.services.clock.sleep_until(next) => {}
                () = stop.cancelled() => {}
            }
        }
    }

    /// Claims due jobs and returns when to plan again; `None` means at once.
    async fn plan_and_claim(self: &Arc<Self>) -> Result<Option<UnixMs>, StoreError> {
        let plan = self.plan_claim().await?;
        let next = if plan.quotas.is_empty() { Some(plan.next) } else { self.claim(&plan).await? };
        if next.is_some() {
            self.saturated.store(plan.saturated, Ordering::Relaxed);
        }
        Ok(next)
    }

    async fn plan_claim(&self) -> Result<ClaimPlan, StoreError> {
        let waiting = self.services.store.waiting().await?;
        let now = self.services.clock.now();
        let mut next = now.plus(self.config.poll.get());
        let (mut open, mut tenants, mut capacities, mut is_late) = (Vec::new(), BTreeMap::new(), Vec::new(), false);
        let (tenancy, mut rooms) = (self.services.catalog.tenancy(), BTreeMap::new());
        let queue = |waiting: &GroupBacklog| Queue { group: waiting.group, mode: waiting.mode };
        self.priorities.update(waiting.iter().map(|waiting| (queue(waiting), &waiting.by_priority)), now);
        for GroupBacklog { group, mode, earliest, .. } in waiting {
            if mode == DispatchMode::Pull {
                if earliest > now {
                    next = next.min(earliest);
                } else {
                    self.consumers.wake_one(group);
                }
                continue;
            }
            if earliest > now.plus(CLAIM_LEAD) {
                next = next.min(earliest.minus(CLAIM_LEAD));
                continue;
            }
            let Some((group, capacity)) = self.capacity_of_group(group, now) else { continue };
            is_late |= earliest <= now;
            match capacity {
                Capacity::Now(most) => {
                    let tenant = group.tenant.id;
                    tenants.entry(tenant).or_insert_with(|| {
                        let capacity = self.capacity_of_tenant(&group.tenant, now);
                        capacities.push(capacity);
                        let room = self.services.limiter.share_of(tenant, tenancy);
                        if room.most == 0 {
                            capacities.push(Capacity::Full);
                            self.services.telemetry.metrics.refused("engine.concurrency");
                        }
                        rooms.insert(tenant, room);
                        Demand { most: capacity.most().min(room.most), weight: group.tenant.quota.weight() }
                    });
                    open.push(GroupDemand { tenant, group: group.id, wanted: Demand { most, weight: group.weight() } });
                }
                closed => capacities.push(closed),
            }
        }
        let not_before = |capacity: &Capacity| if let Capacity::NotBefore(at) = capacity { Some(*at) } else { None };
        next = capacities.iter().filter_map(not_before).fold(next, UnixMs::min);
        let full = capacities.contains(&Capacity::Full);
        let free = FreePlaces {
            all: u32::try_from(self.services.limiter.free()).unwrap_or(u32::MAX),
            unreserved: self.services.limiter.unreserved(tenancy),
            rooms,
        };
        let count = open.len();
        let (ahead, quotas) = self.quotas(open, tenants, is_late, &free);
        // Also where places are free, but kept for other tenants.
        let saturated = full || (quotas.is_empty() && count > 0);
        Ok(ClaimPlan { has_all_groups: quotas.len() == count, quotas, ahead, next, saturated })
    }

    /// Divides a claim among the groups and tenants that may start jobs: returns its look-ahead, and the quota of each group.
    fn quotas(
        &self,
        mut open: Vec<GroupDemand>,
        mut tenants: BTreeMap<TenantId, Demand>,
        is_late: bool,
        free: &FreePlaces,
    ) -> (Duration, Vec<(GroupId, u32)>) {
        let permits = open.iter().map(|open| &open.wanted).chain(tenants.values()).map(|wanted| wanted.most);
        let ahead = Lookahead::new(is_late, permits.chain([free.all]));
        let all = open.iter_mut().map(|open| &mut open.wanted).chain(tenants.values_mut());
        all.for_each(|wanted| wanted.most = ahead.part(wanted.most));
        let quota = |tenant| tenants.get(&tenant).copied().unwrap_or(Demand { most: 0, weight: 1 });
        let batch = self.batch_size.up_to(ahead.part(free.all).min(self.config.claim_batch));
        let turn = self.rotation.fetch_add(1, Ordering::Relaxed);
        (ahead.window, share_pool(&open, quota, free, batch, turn))
    }

    /// Returns how many attempts of a group may start on this node.
    ///
    /// Returns `None` if the group was deleted, is paused or its tenant suspended, has a broken configuration, or runs only on other nodes. A change of that wakes
    /// the loop.
    fn capacity_of_group(&self, group: GroupId, now: UnixMs) -> Option<(Arc<Group>, Capacity)> {
        let group = self.services.catalog.group_by_id(group).filter(|group| !group.is_held())?;
        let part = self.services.cluster.part_of_group(&group)?;
        let capacity = self.services.limiter.capacity_of(Scope::Group(group.id), part.concurrency, part.rate, now);
        Some((group, capacity))
    }

    /// Returns how many attempts of all groups of a tenant together may start on this node.
    fn capacity_of_tenant(&self, tenant: &Tenant, now: UnixMs) -> Capacity {
        match self.services.cluster.part_of_tenant(tenant) {
            Some(part) => self.services.limiter.capacity_of(Scope::Tenant(tenant.id), part.concurrency, part.rate, now),
            None => Capacity::Now(0),
        }
    }

    /// Leases jobs and starts their attempts; returns when to plan again, and `None` for at once.
    async fn claim(self: &Arc<Self>, plan: &ClaimPlan) -> Result<Option<UnixMs>, StoreError> {
        let now = self.services.clock.now();
        let (due_by, lease_until) = (now.plus(plan.ahead), now.plus(self.config.lease.get()));
        let asked = plan.quotas.iter().map(|(_, quota)| quota).sum();
        let owed = self.owed(&plan.quotas);
        let claim = ClaimDue { due_by, lease_until, mode: DispatchMode::Push, quotas: plan.quotas.clone(), owed };
        let owed = claim.owed.clone();
        let stopwatch = Stopwatch::start();
        let claiming = self.leases.claiming().await;
        let leased = self.services.store.claim_due(claim).await?;
        if !leased.is_empty() {
            self.services.telemetry.metrics.claimed();
        }
        self.batch_size.took(asked, u32::try_from(leased.len()).unwrap_or(u32::MAX), stopwatch.elapsed());
        for (group, _) in &plan.quotas {
            self.priorities.started(Queue::to_deliver(*group), &owed, leased.iter());
        }
        let mut taken: HashMap<GroupId, u32> = HashMap::new();
        for leased in leased {
            *taken.entry(leased.job.group).or_default() += 1;
            self.start(leased, now);
        }
        drop(claiming);
        if self.services.clock.now().since(now) >= self.lease_keeper.extension_period() {
            self.leases.request_extension();
        }
        Ok(plan.after_claim(&taken, due_by))
    }

    /// Returns the part of the quotas that is guaranteed to the groups' lower priorities.
    fn owed(&self, quotas: &[(GroupId, u32)]) -> Vec<Owed> {
        let of_group = |(group, quota): &(GroupId, u32)| self.priorities.owed(Queue::to_deliver(*group), *quota);
        quotas.iter().flat_map(of_group).collect()
    }

    fn start(self: &Arc<Self>, leased: LeasedJob, now: UnixMs) {
        let permit = self.services.limiter.enter(
            leased.job.tenant,
            leased.job.group,
            leased.job.body_len,
            now.max(leased.job.run_at),
        );
        let hold = self.leases.keep(leased.lease(), leased.until);
        self.attempts.spawn(Arc::clone(self).run_attempt(leased, permit, hold));
    }

    /// Makes an attempt and settles it. At its end it removes only what belongs to its own lease.
    async fn run_attempt(self: Arc<Self>, leased: LeasedJob, permit: Permit, hold: Hold) {
        let interruption = Interruption::new(self.interrupt.clone(), hold.abort().clone());
        let AttemptResult { settlement, trial } = self.attempt(&leased, hold.end(), &interruption).await;
        let comes_back = matches!(settlement.next(), Next::Scheduled(_)) || wakes_others(&leased.job);
        let permit = if settlement.spends() { permit } else { permit.unused(self.services.clock.now()) };
        let attempt = self.rollouts.attempt_to_watch(leased.job.group, &settlement);
        let settle = self.settler.settle(&leased, settlement);
        let settled = if self.services.store.keeps_order() {
            // Any later claim is made after this settlement.
            poll_then(settle, || self.leave(permit)).await
        } else {
            let settled = settle.await;
            self.leave(permit);
            settled
        };
        drop(hold);
        // An attempt whose lease was lost is made again, and counts then.
        if let Some(SettleOutcome::Applied(_)) = settled {
            self.rollouts.settled(leased.job.group, attempt, trial);
        }
        if comes_back {
            self.services.notifier.notify_local();
        }
    }

    async fn attempt(&self, leased: &LeasedJob, lease_end: &LeaseEnd, interruption: &Interruption) -> AttemptResult {
        tokio::select! {
            () = self.services.clock.sleep_until_nearly(leased.job.run_at) => {}
            _ = interruption.cause() => return Settlement::released(leased, self.services.clock.now()).into(),
        }
        let now = self.services.clock.now().max(leased.job.run_at);
        if lease_end.has_passed(now) {
            // The claim took long, or this node stood still: another node may hold the job by now.
            return Settlement::released(leased, now).into();
        }
        self.services.telemetry.record(Fact::pop(leased, now));
        self.executor.execute(leased, lease_end, interruption).await
    }

    /// Returns a permit, and wakes the dispatcher if due jobs wait for one.
    fn leave(&self, permit: Permit) {
        drop(permit);
        if self.saturated.load(Ordering::Relaxed) {
            self.services.notifier.notify_local();
        }
    }
}

/// Returns whether the end of this job may make another job due: the next of its order key, or a follow-up job.
fn wakes_others(job: &Job) -> bool {
    job.order_key.is_some() || job.spec.on_success.is_some() || job.spec.on_failure.is_some()
}

/// Polls `future` once, calls `then`, and waits for the rest of `future`.
async fn poll_then<F: Future>(future: F, then: impl FnOnce()) -> F::Output {
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
        let plan = |has_all_groups, next| ClaimPlan {
            quotas: vec![(a, 2), (b, 1)],
            ahead: Duration::ZERO,
            has_all_groups,
            next: UnixMs(next),
            saturated: false,
        };
        let after = |has_all_groups, next, taken: &[(GroupId, u32)]| {
            plan(has_all_groups, next).after_claim(&taken.iter().copied().collect(), UnixMs(1_025)).map(|at| at.0)
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
