//! Pull: consumers lease jobs without a URL, work on them, and report the result.
//!
//! A pulled job takes the way of a delivery with the consumer in the role of the receiver: the same lease with its fencing token, the same
//! retry policy, the same settlements. A lease that expires without a report spends the attempt, and the job is available again. A lease that
//! does not reach its consumer is released ([`handover`]).

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
use carillon_core::job::{DispatchMode, GroupId, JobId, LeasedJob, Settlement, State, TenantId, Token};
use carillon_policy::JudgedOutcome;
use carillon_store::{ClaimDue, SettleOutcome, Store, StoreError};
use carillon_telemetry::{Fact, Telemetry};

/// Leases jobs to consumers and settles their reports.
pub struct PullQueue {
    /// Store of jobs.
    pub store: Arc<dyn Store>,
    /// Configuration of groups and tenants.
    pub catalog: Arc<Catalog>,
    /// Clock of leases and settlements.
    pub clock: Arc<dyn Clock>,
    /// Calls the retry policies.
    pub executor: Arc<AttemptExecutor>,
    /// Watches the results of the policies' versions.
    pub rollouts: Arc<RolloutMonitor>,
    /// Receives facts after the commit.
    pub telemetry: Arc<Telemetry>,
    /// Consumers that wait for jobs.
    pub consumers: Arc<Consumers>,
    /// Starts that are guaranteed to the groups' lower priorities.
    pub priorities: Arc<Priorities>,
    /// Leases that this node holds.
    pub leases: Arc<Leases>,
    /// Writes settlements.
    pub settler: Arc<Settler>,
    /// Woken when jobs may be due.
    pub notifier: Arc<Notifier>,
    /// Releases leases that do not reach their consumer.
    pub returns: Arc<Returns>,
    /// Cancels the waits of consumers when the server stops.
    pub stopping: CancellationToken,
}

/// A consumer's request for leases.
#[derive(Clone, Copy, Debug)]
pub struct LeaseRequest {
    /// Largest number of jobs to lease.
    pub max: u32,
    /// Duration of each lease.
    pub lease: Duration,
    /// Longest wait for the first job.
    pub wait: Duration,
}

/// A consumer's report on a job under its lease.
#[derive(Clone, Debug)]
pub enum ConsumerReport {
    /// The job is done.
    Complete,
    /// The attempt failed.
    Fail {
        /// Error text of the consumer.
        error: String,
        /// Whether no other attempt can succeed.
        permanent: bool,
        /// Shortest delay until the next attempt.
        retry_after: Option<Duration>,
    },
    /// The consumer did not try the job: it is available again at once, and the attempt is not spent.
    Release,
}

/// Identifies a consumer's lease, as the API hands it out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseTicket {
    /// Leased job.
    pub job: JobId,
    /// Fencing token of the lease.
    pub token: Token,
    /// Time at which the lease was taken.
    pub since: UnixMs,
}

/// Reason for which nothing was done under a lease.
#[derive(Debug)]
pub enum LeaseError {
    /// The lease has expired, or the job has ended.
    Ended,
    /// No such job exists.
    Unknown,
    /// The store failed.
    Store(StoreError),
}

impl From<StoreError> for LeaseError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl PullQueue {
    /// Leases jobs of a group. Waits for the first one if there is none, until the consumer has `gone`.
    ///
    /// # Errors
    /// Returns the store's error if the claim fails.
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
                self.telemetry.record(Fact::empty(group.tenant.id, group.id, self.clock.now()));
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

    /// Completes a claim that has begun, and releases its leases if the consumer does not wait any more.
    async fn claimed(
        self: &Arc<Self>,
        group: GroupId,
        ask: LeaseRequest,
        waiter: &Waiter,
    ) -> Result<Handover, StoreError> {
        // A paused group leases nothing.
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

    /// Leases jobs. Those that have expired are settled instead of being handed out.
    async fn claim(&self, group: GroupId, ask: LeaseRequest) -> Result<Handover, StoreError> {
        let queue = Queue { group, mode: DispatchMode::Pull };
        loop {
            let now = self.clock.now();
            let owed = self.priorities.owed(queue, ask.max);
            let claim = ClaimDue {
                due_by: now,
                lease_until: now.plus(ask.lease),
                mode: DispatchMode::Pull,
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
                self.telemetry.record(Fact::pop(leased, now));
            }
            if late.is_empty() || !handover.leases().is_empty() {
                return Ok(handover);
            }
        }
    }

    /// Extends the leases after a slow claim, because a lease counts from when it was written, not from when it was requested.
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

    /// Sets the lease's expiry to `lease` from now; returns the new expiry.
    ///
    /// # Errors
    /// Returns [`LeaseError::Ended`] if the lease has expired.
    pub async fn extend(&self, tenant: TenantId, ticket: LeaseTicket, lease: Duration) -> Result<UnixMs, LeaseError> {
        self.held(tenant, ticket).await?;
        let _hold = self.leases.guard((ticket.job, ticket.token));
        loop {
            let asked = self.clock.now();
            let until = asked.plus(lease);
            if self.store.extend(vec![(ticket.job, ticket.token)], until).await?.first() != Some(&true) {
                return Err(LeaseError::Ended);
            }
            // A lease counts from when it was written, not from when it was requested.
            if self.clock.now().since(asked) < lease / EXTENSIONS {
                return Ok(until);
            }
        }
    }

    /// Settles a job by the consumer's report; returns the job's new state, and when it is tried again if it is.
    ///
    /// # Errors
    /// Returns [`LeaseError::Ended`] if the lease has expired.
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
                let said = (JudgedOutcome::Success, "the consumer completed the job".to_owned());
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
            && leased.job.spec.dispatch_mode() == DispatchMode::Pull
        {
            return Ok(leased);
        }
        match self.store.job(tenant, ticket.job).await? {
            Some(job) if job.spec.dispatch_mode() == DispatchMode::Pull => Err(LeaseError::Ended),
            _ => Err(LeaseError::Unknown),
        }
    }

    async fn settle(&self, leased: &LeasedJob, settlement: Settlement) -> Result<SettleOutcome, StoreError> {
        let attempt = self.rollouts.attempt_to_watch(leased.job.group, &settlement);
        let settlement = follow_ups::with_follow_ups(&self.catalog, &*self.clock, leased, settlement);
        let settled = self.store.settle(vec![settlement.clone()]).await?;
        let settled = settled.first().copied().unwrap_or(SettleOutcome::LeaseLost);
        self.telemetry.record_settlement(leased, &settlement, settled);
        self.rollouts.settled(leased.job.group, attempt, None);
        self.notifier.notify_all_nodes(self.clock.now());
        Ok(settled)
    }
}
