//! Jobs without a target: consumers lease them, work, and say what came of it.
//!
//! The way is that of a delivery with the consumer in the place of the receiver: the same lease with its fencing token, the same retry
//! policy, the same settlements. A lease that ends without a word spends the attempt, and the job is available again.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::attempt::Attempter;
use crate::catalog::{Catalog, Group};
use crate::clock::{Clock, UnixMs};
use crate::flow;
use crate::job::{JobId, Leased, Settlement, State, TenantId, Token};
use crate::leases::{EXTENSIONS, Leases};
use crate::observe::{Fact, Observer};
use crate::policy::JudgedOutcome;
use crate::rollout::Rollouts;
use crate::settle;
use crate::store::{ClaimDue, Settled, Store, StoreError};
use crate::wake::Wake;

/// Leases jobs to consumers.
pub struct Puller {
    /// Where jobs are.
    pub store: Arc<dyn Store>,
    /// What is configured.
    pub catalog: Arc<Catalog>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Asks retry policies.
    pub attempter: Arc<Attempter>,
    /// Watches how versions of policies do.
    pub rollouts: Arc<Rollouts>,
    /// Is told what happened.
    pub observer: Arc<Observer>,
    /// Says that there may be something to pull.
    pub pulled: Arc<Notify>,
    /// The leases that this node holds.
    pub leases: Arc<Leases>,
    /// Is woken when there may be something due.
    pub wake: Arc<Wake>,
    /// Ends the waiting of consumers.
    pub stopping: CancellationToken,
}

/// What a consumer asks for.
#[derive(Clone, Copy, Debug)]
pub struct Ask {
    /// At most so many jobs.
    pub max: u32,
    /// How long each lease lasts.
    pub lease: Duration,
    /// How long to wait for the first job.
    pub wait: Duration,
}

/// What a consumer says of a job under its lease.
#[derive(Clone, Debug)]
pub enum Said {
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
pub struct Ticket {
    /// Which job.
    pub job: JobId,
    /// Which of its leases.
    pub token: Token,
    /// When it was taken.
    pub since: UnixMs,
}

/// Why nothing was done under a lease.
#[derive(Debug)]
pub enum Lost {
    /// It has ended, or the job has.
    Ended,
    /// There is no such job.
    Unknown,
    /// The store did not answer.
    Store(StoreError),
}

impl From<StoreError> for Lost {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl Puller {
    /// Leases jobs of a group, waiting for the first one if there is none.
    ///
    /// # Errors
    /// If the store does not answer.
    pub async fn lease(&self, group: &Group, ask: Ask) -> Result<Vec<(Ticket, Leased)>, StoreError> {
        let until = self.clock.now().plus(ask.wait);
        loop {
            let woken = self.pulled.notified();
            tokio::pin!(woken);
            woken.as_mut().enable();
            let leased = self.claim(group, ask).await?;
            if !leased.is_empty() {
                return Ok(leased);
            }
            if self.clock.now() >= until || self.stopping.is_cancelled() {
                self.observer.tell(Fact::empty(group.tenant.id, group.id, self.clock.now()));
                return Ok(leased);
            }
            tokio::select! {
                () = woken => {}
                () = self.clock.sleep_until(until) => {}
                () = self.stopping.cancelled() => {}
            }
        }
    }

    /// Nothing at all while the group is paused. Jobs whose time has run out end here instead of being handed out.
    async fn claim(&self, group: &Group, ask: Ask) -> Result<Vec<(Ticket, Leased)>, StoreError> {
        if self.catalog.group_by_id(group.id).is_none_or(|group| group.paused) {
            return Ok(Vec::new());
        }
        let now = self.clock.now();
        let (lease_until, quotas) = (now.plus(ask.lease), vec![(group.id, ask.max)]);
        let leased = loop {
            let claim = ClaimDue { now, lease_until, pull: true, quotas: quotas.clone() };
            let claiming = self.leases.claiming().await;
            let claimed = self.store.claim_due(claim).await?;
            drop(claiming);
            let (late, leased): (Vec<_>, Vec<_>) = claimed.into_iter().partition(|leased| settle::is_late(leased, now));
            for leased in &late {
                self.settle(leased, Settlement::expired(leased, now, None)).await?;
            }
            if late.is_empty() || !leased.is_empty() {
                break leased;
            }
        };
        for leased in &leased {
            self.observer.tell(Fact::pop(leased, now));
        }
        let ticket = |leased: &Leased| Ticket { job: leased.job.id, token: leased.token, since: now };
        Ok(leased.into_iter().map(|leased| (ticket(&leased), leased)).collect())
    }

    /// Moves the end of a lease to `lease` from now; returns that time.
    ///
    /// # Errors
    /// If the lease has ended.
    pub async fn extend(&self, tenant: TenantId, ticket: Ticket, lease: Duration) -> Result<UnixMs, Lost> {
        let _hold = self.leases.guard((ticket.job, ticket.token));
        self.held(tenant, ticket).await?;
        loop {
            let asked = self.clock.now();
            let until = asked.plus(lease);
            if self.store.extend(vec![(ticket.job, ticket.token)], until).await?.first() != Some(&true) {
                return Err(Lost::Ended);
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
    pub async fn end(&self, tenant: TenantId, ticket: Ticket, said: Said) -> Result<(State, Option<UnixMs>), Lost> {
        let _hold = self.leases.guard((ticket.job, ticket.token));
        let leased = self.held(tenant, ticket).await?;
        let settlement = match said {
            Said::Release => Settlement::released(&leased, self.clock.now()),
            Said::Complete => {
                let said = (JudgedOutcome::Success, "the consumer completed it".to_owned());
                self.attempter.consumed(&leased, ticket.since, said, None).await
            }
            Said::Fail { error, permanent, retry_after } => {
                let outcome = if permanent { JudgedOutcome::Permanent } else { JudgedOutcome::Retryable };
                self.attempter.consumed(&leased, ticket.since, (outcome, error), retry_after).await
            }
        };
        let next_run_at = settlement.next().run_at();
        match self.settle(&leased, settlement).await? {
            Settled::Applied(state) => Ok((state, next_run_at.filter(|_| !state.is_final()))),
            Settled::LeaseLost => Err(Lost::Ended),
        }
    }

    async fn held(&self, tenant: TenantId, ticket: Ticket) -> Result<Leased, Lost> {
        let now = self.clock.now();
        if let Some(leased) = self.store.held(tenant, ticket.job, ticket.token, now).await?
            && leased.job.spec.target.is_none()
        {
            return Ok(leased);
        }
        match self.store.job(tenant, ticket.job).await? {
            Some(job) if job.spec.target.is_none() => Err(Lost::Ended),
            _ => Err(Lost::Unknown),
        }
    }

    async fn settle(&self, leased: &Leased, settlement: Settlement) -> Result<Settled, StoreError> {
        let attempt = self.rollouts.interest(leased.job.group, &settlement);
        let settlement = flow::with_follow_ups(&self.catalog, &*self.clock, leased, settlement);
        let settled = self.store.settle(vec![settlement.clone()]).await?;
        let settled = settled.first().copied().unwrap_or(Settled::LeaseLost);
        self.observer.settled(leased, &settlement, settled);
        self.rollouts.settled(leased.job.group, attempt, None);
        self.wake.everywhere(self.clock.now());
        Ok(settled)
    }
}
