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
pub use self::handover::Handover;
pub(super) use self::handover::Returns;
use crate::delivery::attempt::AttemptExecutor;
use crate::delivery::follow_ups;
use crate::delivery::settle;
use crate::delivery::settler::Settler;
use crate::dispatch::leases::{EXTENSIONS, Leases};
use crate::dispatch::priorities::{Priorities, Queue};
use crate::rollout::RolloutMonitor;
use crate::services::Services;
use carillon_catalog::Group;
use carillon_core::clock::UnixMs;
use carillon_core::job::{DispatchMode, GroupId, JobId, LeasedJob, Settlement, State, TenantId, Token};
use carillon_policy::JudgedOutcome;
use carillon_store::{ClaimDue, Extension, SettleOutcome, StoreError};
use carillon_telemetry::Fact;

/// Number of jobs of one claim, with their payloads.
const SLICE: u32 = 48;

/// Leases jobs to consumers and settles their reports.
///
/// [`Dispatcher::pull_queue`](crate::dispatch::dispatcher::Dispatcher::pull_queue) makes it: both lease the jobs of one node.
pub struct PullQueue {
    pub(super) services: Services,
    /// Calls the retry policies.
    pub(super) executor: Arc<AttemptExecutor>,
    pub(super) rollouts: Arc<RolloutMonitor>,
    pub(super) consumers: Arc<Consumers>,
    pub(super) priorities: Arc<Priorities>,
    pub(super) leases: Arc<Leases>,
    pub(super) settler: Arc<Settler>,
    pub(super) returns: Arc<Returns>,
    /// Cancels the waits of consumers when the server stops.
    pub(super) stopping: CancellationToken,
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
    /// Size of the jobs at which the response ends, after one job at least, in bytes.
    pub bytes: usize,
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
    /// Returns the number of consumers that wait for jobs.
    #[must_use]
    pub fn waiting_consumers(&self) -> usize {
        self.consumers.count()
    }

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
        let until = self.services.clock.now().plus(ask.wait);
        let waiter = self.consumers.enter(group.id);
        loop {
            let woken = waiter.woken();
            tokio::pin!(woken);
            woken.as_mut().enable();
            let handover = self.claimed(group.id, ask, &waiter).await?;
            if !handover.leases().is_empty() {
                return Ok(handover);
            }
            if self.services.clock.now() >= until || self.stopping.is_cancelled() || gone.is_cancelled() {
                self.services.telemetry.record(Fact::empty(group.tenant.id, group.id, self.services.clock.now()));
                return Ok(handover);
            }
            tokio::select! {
                () = woken => {}
                () = self.services.clock.sleep_until(until) => {}
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
        // A paused group leases nothing, nor does one of a suspended tenant.
        if self.services.catalog.group_by_id(group).is_none_or(|group| group.is_held()) {
            return Ok(Handover::new(&self.returns, Vec::new(), Vec::new()));
        }
        let puller = Arc::clone(self);
        let claim = self.returns.tasks.spawn(async move { puller.claim_within(group, ask).await });
        let handover = claim.await.map_err(|error| StoreError::Unavailable(error.to_string()))??;
        if handover.leases().len() >= ask.max as usize {
            waiter.pass_on();
        }
        Ok(handover)
    }

    /// Leases jobs slice by slice, until there are enough or they fill a response. Those that do not fit into it are available again at once.
    async fn claim_within(&self, group: GroupId, ask: LeaseRequest) -> Result<Handover, StoreError> {
        let mut wanted = ask.max.min(SLICE);
        let mut all = self.claim(group, LeaseRequest { max: wanted, ..ask }).await?;
        loop {
            let claimed = u32::try_from(all.leases().len()).unwrap_or(u32::MAX);
            if claimed < wanted || claimed >= ask.max || all.bytes() >= ask.bytes {
                break;
            }
            let slice = (ask.max - claimed).min(SLICE);
            wanted = claimed + slice;
            all.append(self.claim(group, LeaseRequest { max: slice, ..ask }).await?);
        }
        all.shrink(ask.bytes);
        for (ticket, leased) in all.leases() {
            self.services.telemetry.record(Fact::pop(leased, ticket.since));
        }
        Ok(all)
    }

    /// Leases jobs. Those that have expired are settled instead of being handed out.
    async fn claim(&self, group: GroupId, ask: LeaseRequest) -> Result<Handover, StoreError> {
        let queue = Queue { group, mode: DispatchMode::Pull };
        loop {
            let now = self.services.clock.now();
            let owed = self.priorities.owed(queue, ask.max);
            let claim = ClaimDue {
                due_by: now,
                lease_until: now.plus(ask.lease),
                mode: DispatchMode::Pull,
                quotas: vec![(group, ask.max)],
                owed: owed.clone(),
            };
            let claiming = self.leases.claiming().await;
            let claimed = self.services.store.claim_due(claim).await?;
            self.priorities.started(queue, &owed, claimed.iter());
            let holds = claimed.iter().map(|leased| self.leases.guard(leased.lease())).collect();
            drop(claiming);
            let ticket = |leased: &LeasedJob| LeaseTicket { job: leased.job.id, token: leased.token, since: now };
            let (late, leased): (Vec<_>, Vec<_>) = claimed.into_iter().partition(|leased| settle::is_late(leased, now));
            let leased = leased.into_iter().map(|leased| (ticket(&leased), leased)).collect();
            let mut handover = Handover::new(&self.returns, leased, holds);
            self.settler.settle_all(&late, |leased| Settlement::expired(leased, now, None)).await;
            self.renew(&mut handover, now, ask.lease).await?;
            if late.is_empty() || !handover.leases().is_empty() {
                return Ok(handover);
            }
        }
    }

    /// Extends the leases after a slow claim, because a lease counts from when it was written, not from when it was requested.
    async fn renew(&self, handover: &mut Handover, asked: UnixMs, lease: Duration) -> Result<(), StoreError> {
        let mut asked = asked;
        while !handover.leases().is_empty() && self.services.clock.now().since(asked) >= lease / EXTENSIONS {
            asked = self.services.clock.now();
            let until = asked.plus(lease);
            let leases = handover.leases().iter().map(|(_, leased)| leased.lease()).collect();
            let mut ours = self.services.store.extend(leases, Extension::AtLeast(until)).await?.into_iter();
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
            let asked = self.services.clock.now();
            let until = asked.plus(lease);
            let leases = vec![(ticket.job, ticket.token)];
            if self.services.store.extend(leases, Extension::Exactly(until)).await?.first() != Some(&true) {
                return Err(LeaseError::Ended);
            }
            // A lease counts from when it was written, not from when it was requested.
            if self.services.clock.now().since(asked) < lease / EXTENSIONS {
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
            ConsumerReport::Release => Settlement::released(&leased, self.services.clock.now()),
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
        let now = self.services.clock.now();
        if let Some(leased) = self.services.store.held(tenant, ticket.job, ticket.token, now).await?
            && leased.job.spec.dispatch_mode() == DispatchMode::Pull
        {
            return Ok(leased);
        }
        match self.services.store.job(tenant, ticket.job).await? {
            Some(job) if job.spec.dispatch_mode() == DispatchMode::Pull => Err(LeaseError::Ended),
            _ => Err(LeaseError::Unknown),
        }
    }

    async fn settle(&self, leased: &LeasedJob, settlement: Settlement) -> Result<SettleOutcome, StoreError> {
        let attempt = self.rollouts.attempt_to_watch(leased.job.group, &settlement);
        let settlement = follow_ups::with_follow_ups(&self.services.catalog, &*self.services.clock, leased, settlement);
        let settled = self.services.store.settle(vec![settlement.clone()]).await?;
        let settled = settled.first().copied().unwrap_or(SettleOutcome::LeaseLost);
        self.services.telemetry.record_settlement(leased, &settlement, settled);
        self.services.stored_bytes.add_settled(leased.job.tenant, &settlement);
        self.rollouts.settled(leased.job.group, attempt, None);
        self.services.notifier.notify_all_nodes(self.services.clock.now());
        Ok(settled)
    }
}
