//! [`Jobs`] of a store that encrypts.
//!
//! A payload of ordinary size is encrypted in some tens of microseconds, in the caller's task.

use std::pin::Pin;

use async_trait::async_trait;
use bytes::Bytes;

use super::cipher::may_be_sealed;
use super::{Encryption, SealedStore, forms};
use carillon_core::clock::UnixMs;
use carillon_core::job::{
    AttemptRecord, GroupId, Job, JobId, Lease, LeasedJob, Settlement, SkippedTicks, TenantId, Token,
};
use carillon_store::unreadable::{Claiming, Page, note, note_attempt};
use carillon_store::{
    Abort, Backlog, ChangeOutcome, ClaimDue, ClaimLost, ClaimOverdue, CommitStats, Extension, GroupBacklog, Insert,
    InsertResult, JobChange, JobFilter, Jobs, JobsQuery, NamesQuery, Prune, SettleOutcome, Stats, Store, StoreError,
    StoreHealth, TickRecord, Ticked, TicksQuery,
};

/// A list of the inner store.
type List =
    for<'s> fn(&'s dyn Store, JobsQuery) -> Pin<Box<dyn Future<Output = Result<Vec<Job>, StoreError>> + Send + 's>>;

impl SealedStore {
    /// Reads a page of a list, filled up in place of jobs that cannot be decrypted.
    async fn page(&self, query: JobsQuery, list: List) -> Result<Vec<Job>, StoreError> {
        let mut page = Page::new(query.before, query.limit);
        while let Some((before, limit)) = page.wanted() {
            let found = list(&*self.inner, JobsQuery { before, limit, ..query.clone() }).await?;
            let (count, last) = (found.len(), found.last().map(|job| Some(job.id)));
            page.add(count, last, self.listed(found).await?.into_iter());
        }
        Ok(page.items())
    }
}

#[async_trait]
impl Jobs for SealedStore {
    async fn insert(&self, insert: Insert) -> Result<InsertResult, StoreError> {
        let tenant = insert.once.as_ref().map(|once| once.tenant);
        let insert = match self.encryption {
            Encryption::Off => insert,
            Encryption::Payloads => {
                let once = match insert.once {
                    Some(once) => Some(self.sealed_request(once).await?),
                    None => None,
                };
                Insert { jobs: self.sealed_jobs(insert.jobs).await?, once }
            }
        };
        match self.inner.insert(insert).await? {
            InsertResult::Placed(outcomes) => {
                let mut opened = Vec::with_capacity(outcomes.len());
                for outcome in outcomes {
                    opened.push(self.opened_outcome(outcome).await);
                }
                Ok(InsertResult::Placed(opened))
            }
            InsertResult::Replayed(answer) => match (forms::sealed_answer(&answer), tenant) {
                (Some(sealed), Some(tenant)) => {
                    let cipher = self.keys.for_stored(tenant).await?;
                    Ok(InsertResult::Replayed(forms::open_answer(sealed, &cipher)?))
                }
                _ => Ok(InsertResult::Replayed(answer)),
            },
        }
    }

    async fn waiting(&self) -> Result<Vec<GroupBacklog>, StoreError> {
        self.inner.waiting().await
    }

    async fn claim_due(&self, claim: ClaimDue) -> Result<Vec<LeasedJob>, StoreError> {
        let mut claiming = Claiming::new(claim);
        loop {
            let claimed = match self.inner.claim_due(claiming.next()).await {
                Ok(leased) => self.claimed(leased).await,
                Err(error) => Err(error),
            };
            if let Some(leased) = claiming.add(claimed, &*self.inner).await? {
                return Ok(leased);
            }
        }
    }

    async fn ending_leases(&self, now: UnixMs, until: UnixMs, limit: u32) -> Result<Vec<(Lease, UnixMs)>, StoreError> {
        self.inner.ending_leases(now, until, limit).await
    }

    async fn claim_lost(&self, claim: ClaimLost) -> Result<Vec<LeasedJob>, StoreError> {
        let now = claim.now;
        let claimed = self.claimed(self.inner.claim_lost(claim).await?).await?;
        Ok(claimed.without_damage(&*self.inner, now).await)
    }

    async fn aborts(&self, limit: u32) -> Result<Vec<Abort>, StoreError> {
        self.inner.aborts(limit).await
    }

    async fn excuse(&self, lost: Vec<Lease>) -> Result<(), StoreError> {
        self.inner.excuse(lost).await
    }

    async fn claim_overdue(&self, claim: ClaimOverdue) -> Result<Vec<LeasedJob>, StoreError> {
        let now = claim.now;
        let claimed = self.claimed(self.inner.claim_overdue(claim).await?).await?;
        Ok(claimed.without_damage(&*self.inner, now).await)
    }

    async fn held(
        &self,
        tenant: TenantId,
        id: JobId,
        token: Token,
        now: UnixMs,
    ) -> Result<Option<LeasedJob>, StoreError> {
        let held = self.inner.held(tenant, id, token, now).await?;
        Ok(self.claimed(held.into_iter().collect()).await?.leased.pop())
    }

    async fn extend(&self, leases: Vec<Lease>, extension: Extension) -> Result<Vec<bool>, StoreError> {
        self.inner.extend(leases, extension).await
    }

    async fn settle(&self, settlements: Vec<Settlement>) -> Result<Vec<SettleOutcome>, StoreError> {
        if self.encryption == Encryption::Off {
            return self.inner.settle(settlements).await;
        }
        let mut sealed = Vec::with_capacity(settlements.len());
        for settlement in settlements {
            sealed.push(self.sealed_settlement(settlement).await?);
        }
        self.inner.settle(sealed).await
    }

    fn keeps_order(&self) -> bool {
        self.inner.keeps_order()
    }

    async fn change(
        &self,
        tenant: TenantId,
        ids: Vec<JobId>,
        change: JobChange,
        now: UnixMs,
    ) -> Result<Vec<ChangeOutcome>, StoreError> {
        let change = match change {
            JobChange::Edit(edit) if self.encryption == Encryption::Payloads => {
                let cipher = self.keys.for_new(tenant).await?;
                JobChange::Edit(Box::new(forms::seal_edit(*edit, &cipher, &*self.clock)?))
            }
            other => other,
        };
        self.inner.change(tenant, ids, change, now).await
    }

    async fn prune(&self, what: Prune) -> Result<u32, StoreError> {
        self.inner.prune(what).await
    }

    async fn job(&self, tenant: TenantId, id: JobId) -> Result<Option<Job>, StoreError> {
        match self.inner.job(tenant, id).await? {
            Some(job) => Ok(Some(self.only(job).await?)),
            None => Ok(None),
        }
    }

    async fn body(&self, tenant: TenantId, id: JobId) -> Result<Option<Bytes>, StoreError> {
        let Some(body) = self.inner.body(tenant, id).await? else { return Ok(None) };
        if !may_be_sealed(&body) && self.keys.known(tenant).is_none() {
            return Ok(Some(body));
        }
        // The mark of the payload is in the spec. An edit between the two reads raises the revision.
        loop {
            let Some(before) = self.inner.job(tenant, id).await? else { return Ok(None) };
            let Some(body) = self.inner.body(tenant, id).await? else { return Ok(None) };
            let after = self.inner.job(tenant, id).await?;
            if after.is_none_or(|after| after.revision != before.revision) {
                continue;
            }
            if !before.spec.sealed_body {
                return Ok(Some(body));
            }
            let opened = match self.keys.for_stored(tenant).await {
                Ok(cipher) => forms::open_body(&before.spec, body, &cipher),
                Err(error) => Err(error),
            };
            return match opened {
                Err(error @ StoreError::Corrupt(_)) => {
                    note(Some(id), &error);
                    Err(StoreError::Unreadable(id))
                }
                opened => opened.map(Some),
            };
        }
    }

    async fn jobs(&self, query: JobsQuery) -> Result<Vec<Job>, StoreError> {
        self.page(query, |store, query| store.jobs(query)).await
    }

    async fn jobs_to_change(&self, query: JobsQuery) -> Result<Vec<Job>, StoreError> {
        self.page(query, |store, query| store.jobs_to_change(query)).await
    }

    async fn jobs_of_tenant(&self, query: JobsQuery) -> Result<Vec<Job>, StoreError> {
        self.page(query, |store, query| store.jobs_of_tenant(query)).await
    }

    async fn newest_of_names(&self, query: NamesQuery) -> Result<Vec<Job>, StoreError> {
        let mut page = Page::new(query.after.clone(), query.limit);
        while let Some((after, limit)) = page.wanted() {
            let found = self.inner.newest_of_names(NamesQuery { after, limit, ..query.clone() }).await?;
            let (count, last) = (found.len(), found.last().and_then(|job| job.name.clone()));
            page.add(count, last, self.listed(found).await?.into_iter());
        }
        Ok(page.items())
    }

    async fn count(&self, filter: JobFilter) -> Result<u64, StoreError> {
        self.inner.count(filter).await
    }

    async fn job_bytes(&self, ids: Vec<JobId>) -> Result<u64, StoreError> {
        self.inner.job_bytes(ids).await
    }

    async fn unfinished(&self, tenant: TenantId) -> Result<u64, StoreError> {
        self.inner.unfinished(tenant).await
    }

    async fn ticked(&self, schedules: Option<Vec<i64>>) -> Result<Vec<Ticked>, StoreError> {
        self.inner.ticked(schedules).await
    }

    async fn skip_ticks(&self, skipped: Vec<(i64, SkippedTicks)>) -> Result<Vec<bool>, StoreError> {
        self.inner.skip_ticks(skipped).await
    }

    async fn ticks(&self, query: TicksQuery) -> Result<Vec<TickRecord>, StoreError> {
        self.inner.ticks(query).await
    }

    async fn attempts(
        &self,
        tenant: TenantId,
        id: JobId,
        after: u32,
        limit: u32,
    ) -> Result<Vec<AttemptRecord>, StoreError> {
        let mut page = Page::new(after, limit);
        while let Some((after, limit)) = page.wanted() {
            let found = self.inner.attempts(tenant, id, after, limit).await?;
            let (count, last) = (found.len(), found.last().map(|attempt| attempt.number));
            let mut readable = Vec::with_capacity(count);
            for attempt in found {
                let number = attempt.number;
                if attempt.detail.sealed.is_none() {
                    readable.push(attempt);
                    continue;
                }
                let opened = match self.keys.for_stored(tenant).await {
                    Ok(cipher) => forms::open_attempt(attempt, &cipher),
                    Err(error) => Err(error),
                };
                match opened {
                    Err(error @ StoreError::Corrupt(_)) => note_attempt(Some((id, number)), &error),
                    opened => readable.push(opened?),
                }
            }
            page.add(count, last, readable.into_iter());
        }
        Ok(page.items())
    }

    fn commit_stats(&self) -> CommitStats {
        self.inner.commit_stats()
    }

    fn health(&self) -> &StoreHealth {
        self.inner.health()
    }

    async fn probe(&self, id: JobId, now: UnixMs) -> Result<(), StoreError> {
        self.inner.probe(id, now).await
    }

    async fn backlog(&self, now: UnixMs) -> Result<Backlog, StoreError> {
        self.inner.backlog(now).await
    }

    async fn stats(&self, tenant: TenantId, group: GroupId, now: UnixMs) -> Result<Stats, StoreError> {
        self.inner.stats(tenant, group, now).await
    }

    async fn close(&self) {
        self.inner.close().await;
    }
}
