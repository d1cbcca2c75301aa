//! [`Jobs`]: which verb runs where. Writes go to the writer, reads to the pool; JSON is written and read in the caller's task.

use async_trait::async_trait;
use bytes::Bytes;

use super::{SqliteStore, claim, insert, reads, settle};
use crate::clock::UnixMs;
use crate::job::{AttemptRecord, GroupId, Job, JobId, Leased, NewJob, Settlement, TenantId, Token};
use crate::store::{Cancelled, ClaimDue, CommitStats, Jobs, JobsQuery, Prune, Settled, Stats, StoreError, Waiting};

#[async_trait]
impl Jobs for SqliteStore {
    async fn insert(&self, jobs: Vec<NewJob>) -> Result<(), StoreError> {
        if jobs.is_empty() {
            return Ok(());
        }
        self.writer.insert(insert::rows(jobs)?).await
    }

    async fn waiting(&self) -> Result<Vec<Waiting>, StoreError> {
        Ok(reads::waiting(&self.readers).await?)
    }

    async fn claim_due(&self, claim: ClaimDue) -> Result<Vec<Leased>, StoreError> {
        let work = self.writer.call(move |db| Box::pin(async move { claim::claim_due(db, &claim).await }));
        Ok(claim::leased(&work.await?))
    }

    async fn claim_expired(&self, now: UnixMs, lease_until: UnixMs, limit: u32) -> Result<Vec<Leased>, StoreError> {
        let work = self.writer.call(move |db| Box::pin(claim::claim_expired(db, now, lease_until, limit)));
        Ok(claim::leased(&work.await?))
    }

    async fn extend(&self, leases: Vec<(JobId, Token)>, lease_until: UnixMs) -> Result<Vec<bool>, StoreError> {
        self.writer.call(move |db| Box::pin(async move { claim::extend(db, &leases, lease_until).await })).await
    }

    async fn settle(&self, settlements: Vec<Settlement>) -> Result<Vec<Settled>, StoreError> {
        let rows = settle::rows(settlements)?;
        self.writer.call(move |db| Box::pin(async move { settle::settle(db, &rows).await })).await
    }

    async fn cancel(&self, tenant: TenantId, id: JobId, now: UnixMs) -> Result<Cancelled, StoreError> {
        self.writer.call(move |db| Box::pin(settle::cancel(db, tenant, id, now))).await
    }

    async fn prune(&self, what: Vec<Prune>, limit: u32) -> Result<u32, StoreError> {
        self.writer.call(move |db| Box::pin(async move { settle::prune(db, &what, limit).await })).await
    }

    async fn job(&self, tenant: TenantId, id: JobId) -> Result<Option<Job>, StoreError> {
        Ok(reads::job(&self.readers, tenant, id).await?)
    }

    async fn body(&self, tenant: TenantId, id: JobId) -> Result<Option<Bytes>, StoreError> {
        Ok(reads::body(&self.readers, tenant, id).await?)
    }

    async fn jobs(&self, query: JobsQuery) -> Result<Vec<Job>, StoreError> {
        Ok(reads::jobs(&self.readers, &query).await?)
    }

    async fn attempts(
        &self,
        tenant: TenantId,
        id: JobId,
        after: u32,
        limit: u32,
    ) -> Result<Vec<AttemptRecord>, StoreError> {
        Ok(reads::attempts(&self.readers, tenant, id, after, limit).await?)
    }

    fn commit_stats(&self) -> CommitStats {
        self.writer.stats()
    }

    async fn stats(&self, tenant: TenantId, group: GroupId, now: UnixMs) -> Result<Stats, StoreError> {
        Ok(reads::stats(&self.readers, tenant, group, now).await?)
    }
}
