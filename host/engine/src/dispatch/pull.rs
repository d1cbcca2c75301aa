//! Jobs without a target: consumers lease them, work, and say what came of it.
//!
//! The way is that of a delivery with the consumer in the place of the receiver: the same lease with its fencing token, the same retry
//! policy, the same settlements. A lease that ends without a word spends the attempt, and the job is available again. One that does not reach
//! its consumer goes back ([`handover`]).

mod consumers;
mod handover;

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

pub use self::consumers::Consumers;
use self::consumers::Waiter;
pub use self::handover::{Handover, Returns};
use crate::delivery::attempt::AttemptExecutor;
use crate::delivery::follow_ups;
use crate::delivery::settle;
use crate::delivery::settler::Settler;
use crate::dispatch::leases::{EXTENSIONS, Leases};
use crate::dispatch::priorities::{Priorities, Queue};
use crate::notifier::Notifier;
use crate::rollout::RolloutMonitor;
use carillon_catalog::{Catalog, Group};
use carillon_core::clock::{Clock, UnixMs};
use carillon_core::job::{GroupId, JobId, LeasedJob, Settlement, State, TenantId, Token};
use carillon_policy::JudgedOutcome;
use carillon_store::{ClaimDue, SettleOutcome, Store, StoreError};
use carillon_telemetry::{Fact, Telemetry};

/// Leases jobs to consumers.
pub struct PullQueue {
    /// Where jobs are.
    pub store: Arc<dyn Store>,
    /// What is configured.
    pub catalog: Arc<Catalog>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Asks retry policies.
    pub executor: Arc<AttemptExecutor>,
    /// Watches how versions of policies do.
    pub rollouts: Arc<RolloutMonitor>,
    /// Is told what happened.
    pub observer: Arc<Telemetry>,
    /// Those that wait.
    pub consumers: Arc<Consumers>,
    /// What the groups' lower priorities are owed.
    pub priorities: Arc<Priorities>,
    /// The leases that this node holds.
    pub leases: Arc<Leases>,
    /// Writes what becomes of jobs.
    pub settler: Arc<Settler>,
    /// Is woken when there may be something due.
    pub notifier: Arc<Notifier>,
    /// Takes back what does not reach its consumer.
    pub returns: Arc<Returns>,
    /// Ends the waiting of consumers.
    pub stopping: CancellationToken,
}

/// What a consumer asks for.
#[derive(Clone, Copy, Debug)]
pub struct LeaseRequest {
    /// At most so many jobs.
    pub max: u32,
    /// How long each lease lasts.
    pub lease: Duration,
    /// How long to wait for the first job.
    pub wait: Duration,
}

/// What a consumer says of a job under its lease.
#[derive(Clone, Debug)]
pub enum ConsumerReport {
    /// It is done.
    Complete,
    /// It failed.
    Fail {
        /// What went wrong.
        error: String,
        /// Whether no other try can help.
        permanent: bool,
        /// When another try makes sense, at the earliest.
        retry_after: Option<Duration>,
    },
    /// It was not tried: it goes back at once, and the attempt is not spent.
    Release,
}

/// The right of a consumer, as it is handed out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseTicket {
    /// Which job.
    pub job: JobId,
    /// Which of its leases.
    pub token: Token,
    /// When it was taken.
    pub since: UnixMs,
}

/// Why nothing was done under a lease.
#[derive(Debug)]
pub enum LeaseError {
    /// It has ended, or the job has.
    Ended,
    /// There is no such job.
    Unknown,
    /// The store did not answer.
    Store(StoreError),
}

impl From<StoreError> for LeaseError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl PullQueue {
    /// Leases jobs of a group, waiting for the first one if there is none, as long as the consumer has not `gone`.
    ///
    /// # Errors
    /// If the store does not answer.
    pub async fn lease(
        self: &Arc<Self>,
        group: &Group,
        ask: LeaseRequest,
        gone: &CancellationToken,
    ) -> Result<Handover, StoreError> {
        let until = self.clock.now().plus(ask.wait);
        let waiter = self.consumers.enter(group.id);
        loop {
            let woken = waiter.woken();
            tokio::pin!(woken);
            woken.as_mut().enable();
            let handover = self.claimed(group.id, ask, &waiter).await?;
            if !handover.leases().is_empty() {
                return Ok(handover);
            }
            if self.clock.now() >= until || self.stopping.is_cancelled() || gone.is_cancelled() {
                self.observer.tell(Fact::empty(group.tenant.id, group.id, self.clock.now()));
                return Ok(handover);
            }
            tokio::select! {
                () = woken => {}
                () = self.clock.sleep_until(until) => {}
                () = self.stopping.cancelled() => {}
                () = gone.cancelled() => return Ok(handover),
            }
        }
    }

    /// A claim that was begun is carried through, and given back if nobody waits for it any more.
    async fn claimed(
        self: &Arc<Self>,
        group: GroupId,
        ask: LeaseRequest,
        waiter: &Waiter,
    ) -> Result<Handover, StoreError> {
        // Nothing at all while the group is paused.
        if self.catalog.group_by_id(group).is_none_or(|group| group.paused) {
            return Ok(Handover::new(&self.returns, Vec::new(), Vec::new()));
        }
        let puller = Arc::clone(self);
        let claim = self.returns.tasks.spawn(async move { puller.claim(group, ask).await });
        let handover = claim.await.map_err(|error| StoreError::Unavailable(error.to_string()))??;
        if handover.leases().len() >= ask.max as usize {
            waiter.pass_on();
        }
        Ok(handover)
    }

    /// Jobs whose time has run out end here instead of being handed out.
    async fn claim(&self, group: GroupId, ask: LeaseRequest) -> Result<Handover, StoreError> {
        let queue = Queue { group, pull: true };
        loop {
            let now = self.clock.now();
            let owed = self.priorities.owed(queue, ask.max);
            let claim = ClaimDue {
                now,
                lease_until: now.plus(ask.lease),
                pull: true,
                quotas: vec![(group, ask.max)],
                owed: owed.clone(),
            };
            let claiming = self.leases.claiming().await;
            let claimed = self.store.claim_due(claim).await?;
            self.priorities.started(queue, &owed, claimed.iter());
            let holds = claimed.iter().map(|leased| self.leases.guard(leased.lease())).collect();
            drop(claiming);
            let ticket = |leased: &LeasedJob| LeaseTicket { job: leased.job.id, token: leased.token, since: now };
            let (late, leased): (Vec<_>, Vec<_>) = claimed.into_iter().partition(|leased| settle::is_late(leased, now));
            let leased = leased.into_iter().map(|leased| (ticket(&leased), leased)).collect();
            let mut handover = Handover::new(&self.returns, leased, holds);
            self.settler.settle_all(&late, |leased| Settlement::expired(leased, now, None)).await;
            self.renew(&mut handover, now, ask.lease).await?;
            for (_, leased) in handover.leases() {
                self.observer.tell(Fact::pop(leased, now));
            }
            if late.is_empty() || !handover.leases().is_empty() {
                return Ok(handover);
            }
        }
    }

    /// A lease lasts from when it was written, not from when it was asked for: after a slow claim it is extended before it is handed over.
    async fn renew(&self, handover: &mut Handover, asked: UnixMs, lease: Duration) -> Result<(), StoreError> {
        let mut asked = asked;
        while !handover.leases().is_empty() && self.clock.now().since(asked) >= lease / EXTENSIONS {
            asked = self.clock.now();
            let until = asked.plus(lease);
            let leases = handover.leases().iter().map(|(_, leased)| leased.lease()).collect();
            let mut ours = self.store.extend(leases, until).await?.into_iter();
            handover.leases_mut().retain_mut(|(_, leased)| {
                leased.until = until;
                ours.next() == Some(true)
            });
        }
        Ok(())
    }

    /// Moves the end of a lease to `lease` from now; returns that time.
    ///
    /// # Errors
    /// If the lease has ended.
    pub async fn extend(&self, tenant: TenantId, ticket: LeaseTicket, lease: Duration) -> Result<UnixMs, LeaseError> {
        self.held(tenant, ticket).await?;
        let _hold = self.leases.guard((ticket.job, ticket.token));
        loop {
            let asked = self.clock.now();
            let until = asked.plus(lease);
            if self.store.extend(vec![(ticket.job, ticket.token)], until).await?.first() != Some(&true) {
                return Err(LeaseError::Ended);
            }
            // A lease lasts from when it was written, not from when it was asked for.
            if self.clock.now().since(asked) < lease / EXTENSIONS {
                return Ok(until);
            }
        }
    }

    /// Ends a lease as the consumer says; returns the job's state after it, and when it is tried again if it is.
    ///
    /// # Errors
    /// If the lease has ended.
    pub async fn end(
        &self,
        tenant: TenantId,
        ticket: LeaseTicket,
        said: ConsumerReport,
    ) -> Result<(State, Option<UnixMs>), LeaseError> {
        let leased = self.held(tenant, ticket).await?;
        let _hold = self.leases.guard(leased.lease());
        let settlement = match said {
            ConsumerReport::Release => Settlement::released(&leased, self.clock.now()),
            ConsumerReport::Complete => {
                let said = (JudgedOutcome::Success, "the consumer completed it".to_owned());
                self.executor.consumed(&leased, ticket.since, said, None).await
            }
            ConsumerReport::Fail { error, permanent, retry_after } => {
                let outcome = if permanent { JudgedOutcome::Permanent } else { JudgedOutcome::Retryable };
                self.executor.consumed(&leased, ticket.since, (outcome, error), retry_after).await
            }
        };
        let next_run_at = settlement.next().run_at();
        match self.settle(&leased, settlement).await? {
            SettleOutcome::Applied(state) => Ok((state, next_run_at.filter(|_| !state.is_final()))),
            SettleOutcome::LeaseLost => Err(LeaseError::Ended),
        }
    }

    async fn held(&self, tenant: TenantId, ticket: LeaseTicket) -> Result<LeasedJob, LeaseError> {
        let now = self.clock.now();
        if let Some(leased) = self.store.held(tenant, ticket.job, ticket.token, now).await?
            && leased.job.spec.target.is_none()
        {
            return Ok(leased);
        }
        match self.store.job(tenant, ticket.job).await? {
            Some(job) if job.spec.target.is_none() => Err(LeaseError::Ended),
            _ => Err(LeaseError::Unknown),
        }
    }

    async fn settle(&self, leased: &LeasedJob, settlement: Settlement) -> Result<SettleOutcome, StoreError> {
        let attempt = self.rollouts.interest(leased.job.group, &settlement);
        let settlement = follow_ups::with_follow_ups(&self.catalog, &*self.clock, leased, settlement);
        let settled = self.store.settle(vec![settlement.clone()]).await?;
        let settled = settled.first().copied().unwrap_or(SettleOutcome::LeaseLost);
        self.observer.settled(leased, &settlement, settled);
        self.rollouts.settled(leased.job.group, attempt, None);
        self.notifier.everywhere(self.clock.now());
        Ok(settled)
    }
}
