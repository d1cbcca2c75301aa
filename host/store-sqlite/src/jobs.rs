//! [`Jobs`]: which verb runs where.
//!
//! Writes go to the writer, reads to the pool; JSON is encoded and decoded in the caller's task.

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::BoxFuture;

use super::claim::Rows;
use super::contents::Reading;
use super::db::Db;
use super::error::Failure;
use super::readers::Readers;
use super::{SqliteStore, change, claim, probe, prune, reads, settle, sizes, ticks};
use carillon_core::clock::UnixMs;
use carillon_core::job::{
    AttemptRecord, GroupId, Job, JobId, Lease, LeasedJob, Settlement, SkippedTicks, TenantId, Token,
};
use carillon_store::unreadable::{Claimed, Claiming};
use carillon_store::{
    Abort, Backlog, ChangeOutcome, ClaimDue, ClaimLost, ClaimOverdue, CommitStats, Extension, GroupBacklog, Insert,
    InsertResult, JobChange, JobFilter, Jobs, JobsQuery, NamesQuery, Prune, SettleOutcome, Stats, StoreError,
    StoreHealth, TickRecord, Ticked, TicksQuery, Work,
};

/// Claims jobs, and reads what belongs to them.
type ClaimWork<C> = fn(&mut Db, C, Reading) -> BoxFuture<'_, Result<Rows, Failure>>;

impl SqliteStore {
    /// Claims jobs; if the database is damaged, once more and each by itself.
    async fn claimed<C: Clone + Send + 'static>(&self, claim: &C, work: ClaimWork<C>) -> Result<Claimed, StoreError> {
        let run = |reading| {
            let claim = claim.clone();
            self.writer.call(move |db: &mut Db| work(db, claim, reading))
        };
        let rows = match run(Reading::Together).await {
            Err(StoreError::Corrupt(error)) => {
                tracing::error!(error, "claiming jobs failed; the jobs that can be read are claimed");
                let mut rows = run(Reading::Apart).await?;
                claim::read_apart(&mut *self.readers.take().await?, &mut rows).await?;
                rows
            }
            rows => rows?,
        };
        Ok(claim::claimed(&rows))
    }
}

#[async_trait]
impl Jobs for SqliteStore {
    async fn insert(&self, insert: Insert) -> Result<InsertResult, StoreError> {
        if insert.jobs.is_empty() {
            return Ok(InsertResult::Placed(Vec::new()));
        }
        self.health.watch(Work::Accept, self.writer.insert(insert)).await
    }

    async fn waiting(&self) -> Result<Vec<GroupBacklog>, StoreError> {
        let look = async {
            let mut lookout = self.lookout.lock().await;
            let db = match &mut *lookout {
                Some(db) => db,
                none => none.insert(self.readers.connection().await?),
            };
            let _reading = self.readers.reading().await;
            Ok(reads::waiting(db).await?)
        };
        self.health.watch(Work::Claim, look).await
    }

    async fn claim_due(&self, claim: ClaimDue) -> Result<Vec<LeasedJob>, StoreError> {
        let mut claiming = Claiming::new(claim);
        loop {
            let claim = claiming.next();
            let work = self.claimed(&claim, |db, claim, reading| Box::pin(claim::claim_due(db, claim, reading)));
            let claimed = self.health.watch(Work::Claim, work).await;
            if let Some(leased) = claiming.add(claimed, self).await? {
                return Ok(leased);
            }
        }
    }

    async fn ending_leases(&self, _now: UnixMs, until: UnixMs, limit: u32) -> Result<Vec<(Lease, UnixMs)>, StoreError> {
        let mut reader = self.readers.take().await?;
        Ok(claim::ending(&mut reader, until, limit).await?)
    }

    async fn claim_lost(&self, claim: ClaimLost) -> Result<Vec<LeasedJob>, StoreError> {
        let now = claim.now;
        let work = self.claimed(&claim, |db, claim, reading| Box::pin(claim::claim_lost(db, claim, reading)));
        Ok(work.await?.without_damage(self, now).await)
    }

    async fn aborts(&self, limit: u32) -> Result<Vec<Abort>, StoreError> {
        let mut reader = self.readers.take().await?;
        Ok(claim::aborts(&mut reader, limit).await?)
    }

    async fn excuse(&self, lost: Vec<Lease>) -> Result<(), StoreError> {
        self.writer.call(move |db| Box::pin(async move { claim::excuse(db, &lost).await })).await
    }

    async fn claim_overdue(&self, claim: ClaimOverdue) -> Result<Vec<LeasedJob>, StoreError> {
        let work = self.claimed(&claim, |db, claim, reading| Box::pin(claim::claim_overdue(db, claim, reading)));
        Ok(work.await?.without_damage(self, claim.now).await)
    }

    async fn held(
        &self,
        tenant: TenantId,
        id: JobId,
        token: Token,
        now: UnixMs,
    ) -> Result<Option<LeasedJob>, StoreError> {
        let mut reader = self.readers.take().await?;
        let rows = claim::held(&mut reader, tenant, id, token, now).await?;
        Ok(claim::claimed(&rows).leased.pop())
    }

    async fn extend(&self, leases: Vec<Lease>, extension: Extension) -> Result<Vec<bool>, StoreError> {
        self.writer.call(move |db| Box::pin(async move { claim::extend(db, &leases, extension).await })).await
    }

    async fn settle(&self, settlements: Vec<Settlement>) -> Result<Vec<SettleOutcome>, StoreError> {
        self.health.watch(Work::Settle, self.writer.settle(settle::rows(settlements)?)).await
    }

    fn keeps_order(&self) -> bool {
        true
    }

    async fn change(
        &self,
        tenant: TenantId,
        ids: Vec<JobId>,
        change: JobChange,
        now: UnixMs,
    ) -> Result<Vec<ChangeOutcome>, StoreError> {
        let work =
            self.writer.call(move |db| Box::pin(async move { change::change(db, tenant, &ids, &change, now).await }));
        work.await
    }

    async fn prune(&self, what: Prune) -> Result<u32, StoreError> {
        prune::prune(self, &what).await
    }

    async fn job(&self, tenant: TenantId, id: JobId) -> Result<Option<Job>, StoreError> {
        let mut db = self.readers.view(tenant).await?;
        Readers::bounded(reads::job(&mut db, tenant, id)).await
    }

    async fn body(&self, tenant: TenantId, id: JobId) -> Result<Option<Bytes>, StoreError> {
        let mut db = self.readers.view(tenant).await?;
        Readers::bounded(reads::body(&mut db, tenant, id)).await
    }

    async fn jobs(&self, query: JobsQuery) -> Result<Vec<Job>, StoreError> {
        let mut db = self.readers.view(query.filter.tenant).await?;
        Readers::bounded(reads::jobs(&mut db, &query)).await
    }

    async fn jobs_to_change(&self, query: JobsQuery) -> Result<Vec<Job>, StoreError> {
        let mut db = self.readers.take().await?;
        Ok(reads::jobs(&mut db, &query).await?)
    }

    async fn jobs_of_tenant(&self, query: JobsQuery) -> Result<Vec<Job>, StoreError> {
        let mut db = self.readers.view(query.filter.tenant).await?;
        Readers::bounded(reads::jobs_of_tenant(&mut db, &query)).await
    }

    async fn newest_of_names(&self, query: NamesQuery) -> Result<Vec<Job>, StoreError> {
        let mut db = self.readers.view(query.tenant).await?;
        Readers::bounded(reads::newest_of_names(&mut db, &query)).await
    }

    async fn count(&self, filter: JobFilter) -> Result<u64, StoreError> {
        let mut db = self.readers.view(filter.tenant).await?;
        Readers::bounded(reads::count(&mut db, &filter)).await
    }

    async fn job_bytes(&self, ids: Vec<JobId>) -> Result<u64, StoreError> {
        Ok(sizes::job_bytes(&self.readers, &ids).await?)
    }

    async fn unfinished(&self, tenant: TenantId) -> Result<u64, StoreError> {
        let mut db = self.readers.view(tenant).await?;
        Readers::bounded(reads::unfinished(&mut db, tenant)).await
    }

    async fn ticked(&self, schedules: Option<Vec<i64>>) -> Result<Vec<Ticked>, StoreError> {
        Ok(ticks::ticked(&self.readers, schedules.as_deref()).await?)
    }

    async fn skip_ticks(&self, skipped: Vec<(i64, SkippedTicks)>) -> Result<Vec<bool>, StoreError> {
        self.writer.call(move |db| Box::pin(async move { ticks::skip(db, &skipped).await })).await
    }

    async fn ticks(&self, query: TicksQuery) -> Result<Vec<TickRecord>, StoreError> {
        Ok(ticks::ticks(&self.readers, &query).await?)
    }

    async fn attempts(
        &self,
        tenant: TenantId,
        id: JobId,
        after: u32,
        limit: u32,
    ) -> Result<Vec<AttemptRecord>, StoreError> {
        let mut db = self.readers.view(tenant).await?;
        Readers::bounded(reads::attempts(&mut db, tenant, id, after, limit)).await
    }

    fn commit_stats(&self) -> CommitStats {
        self.writer.stats()
    }

    fn health(&self) -> &StoreHealth {
        &self.health
    }

    async fn probe(&self, id: JobId, now: UnixMs) -> Result<(), StoreError> {
        self.health.watch(Work::Accept, probe::run(&self.writer, id, now)).await
    }

    async fn backlog(&self, now: UnixMs) -> Result<Backlog, StoreError> {
        Ok(reads::backlog(&self.readers, now).await?)
    }

    async fn stats(&self, tenant: TenantId, group: GroupId, now: UnixMs) -> Result<Stats, StoreError> {
        let mut db = self.readers.view(tenant).await?;
        Readers::bounded(reads::stats(&mut db, tenant, group, now)).await
    }

    /// Also empties the write-ahead log.
    async fn close(&self) {
        // From now on no connection is given out.
        let closed = self.readers.close();
        drop(self.lookout.lock().await.take());
        closed.await;
        self.writer.close().await;
    }
}
