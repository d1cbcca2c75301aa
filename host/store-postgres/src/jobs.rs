//! [`Jobs`]: which verb runs where.
//!
//! JSON is encoded and decoded in the caller's task, outside the transaction.

use std::collections::HashSet;

use async_trait::async_trait;
use bytes::Bytes;

use super::claim::{Aborts, ClaimFrom, ClaimOverdueFrom, Ending, Excuse, Extend, Held};
use super::insert::{Conditional, Plain};
use super::job_rows::Row;
use super::settle::Settle;
use super::{PostgresStore, change, claim, insert, job_rows, lists, probe, prune, reads, settle, ticks};
use carillon_core::clock::UnixMs;
use carillon_core::job::{
    AttemptRecord, GroupId, Job, JobId, Lease, LeasedJob, Settlement, SkippedTicks, TenantId, Token,
};
use carillon_store::unreadable::Claiming;
use carillon_store::{
    Abort, Backlog, ChangeOutcome, ClaimDue, ClaimLost, ClaimOverdue, CommitStats, Extension, GroupBacklog, Insert,
    InsertResult, JobChange, JobFilter, Jobs, JobsQuery, NamesQuery, Prune, SettleOutcome, Stats, StoreError,
    StoreHealth, TickRecord, Ticked, TicksQuery, Work, lane,
};

#[async_trait]
impl Jobs for PostgresStore {
    async fn insert(&self, insert: Insert) -> Result<InsertResult, StoreError> {
        if insert.jobs.is_empty() {
            return Ok(InsertResult::Placed(Vec::new()));
        }
        let rows = job_rows::rows(insert.jobs)?;
        let places: HashSet<(i64, UnixMs)> = rows.iter().map(Row::place).collect();
        let insert = async {
            if insert::is_plain(&rows, insert.once.as_ref()) {
                self.inserts.call(Plain(rows)).await
            } else {
                self.database.call(&Conditional { rows, once: insert.once }).await
            }
        };
        let inserted = self.health.watch(Work::Accept, insert).await;
        // Also after an error: the connection may have broken after the commit.
        places.into_iter().for_each(|(lane, run_at)| self.fronts.written(lane, run_at));
        inserted
    }

    async fn waiting(&self) -> Result<Vec<GroupBacklog>, StoreError> {
        let look = async {
            let mut db = self.database.connections.take().await?;
            Ok(self.database.connections.bounded(reads::waiting(&mut db, &self.fronts)).await?)
        };
        self.health.watch(Work::Claim, look).await
    }

    async fn claim_due(&self, claim: ClaimDue) -> Result<Vec<LeasedJob>, StoreError> {
        if claim.quotas.is_empty() {
            return Ok(Vec::new());
        }
        self.fronts.claim(claim.due_by);
        let mut claiming = Claiming::new(claim);
        loop {
            let claim = claiming.next();
            let fronts = claim.quotas.iter().flat_map(|(group, _)| self.fronts.of(lane::first(*group, claim.mode)));
            let fronts = fronts.collect();
            let fronts_of_owed = claim.owed.iter().map(|owed| self.fronts.of(lane::owed(owed, claim.mode))[0]);
            let fronts_of_owed = fronts_of_owed.collect();
            let claim = ClaimFrom { fronts, fronts_of_owed, claim };
            let rows = self.health.watch(Work::Claim, self.database.call(&claim)).await;
            if let Some(leased) = claiming.add(rows.map(|rows| claim::claimed(&rows)), self).await? {
                return Ok(leased);
            }
        }
    }

    async fn ending_leases(&self, now: UnixMs, until: UnixMs, limit: u32) -> Result<Vec<(Lease, UnixMs)>, StoreError> {
        let (front, whole) = self.lost.look(now);
        let ending = self.database.call(&Ending { front, until, limit }).await?;
        // Leases that have ended are still stored: they are found again until a claim has taken them back.
        if ending.iter().all(|(_, end)| *end > now) {
            self.lost.found_all(whole, now);
        }
        Ok(ending)
    }

    async fn claim_lost(&self, claim: ClaimLost) -> Result<Vec<LeasedJob>, StoreError> {
        if claim.lost.is_empty() {
            return Ok(Vec::new());
        }
        let rows = self.database.call(&claim).await?;
        Ok(claim::claimed(&rows).without_damage(self, claim.now).await)
    }

    async fn aborts(&self, limit: u32) -> Result<Vec<Abort>, StoreError> {
        self.database.call(&Aborts(limit)).await
    }

    async fn excuse(&self, lost: Vec<Lease>) -> Result<(), StoreError> {
        self.database.call(&Excuse(lost)).await
    }

    async fn claim_overdue(&self, claim: ClaimOverdue) -> Result<Vec<LeasedJob>, StoreError> {
        let (front, whole) = self.overdue.look(claim.now);
        let rows = self.database.call(&ClaimOverdueFrom { front, claim }).await?;
        if rows.len() < claim.limit as usize {
            self.overdue.found_all(whole, claim.now);
        }
        Ok(claim::claimed(&rows).without_damage(self, claim.now).await)
    }

    async fn held(
        &self,
        tenant: TenantId,
        id: JobId,
        token: Token,
        now: UnixMs,
    ) -> Result<Option<LeasedJob>, StoreError> {
        let rows = self.database.call(&Held { tenant, id, token, now }).await?;
        Ok(claim::claimed(&rows).leased.pop())
    }

    async fn extend(&self, leases: Vec<Lease>, extension: Extension) -> Result<Vec<bool>, StoreError> {
        if leases.is_empty() {
            return Ok(Vec::new());
        }
        self.database.call(&Extend { leases, extension }).await
    }

    async fn settle(&self, settlements: Vec<Settlement>) -> Result<Vec<SettleOutcome>, StoreError> {
        if settlements.is_empty() {
            return Ok(Vec::new());
        }
        let settle = self.settlements.call(Settle(settle::rows(settlements)?));
        let settled = self.health.watch(Work::Settle, settle).await?;
        if settled.lets_others_go {
            self.fronts.forget();
        }
        Ok(settled.settled)
    }

    fn keeps_order(&self) -> bool {
        false
    }

    async fn change(
        &self,
        tenant: TenantId,
        ids: Vec<JobId>,
        change: JobChange,
        now: UnixMs,
    ) -> Result<Vec<ChangeOutcome>, StoreError> {
        let changed = self.database.call(&change::ChangeJobs { tenant, ids, change, now }).await;
        self.fronts.forget();
        changed
    }

    async fn prune(&self, what: Prune) -> Result<u32, StoreError> {
        prune::prune(&self.database, &what).await
    }

    async fn job(&self, tenant: TenantId, id: JobId) -> Result<Option<Job>, StoreError> {
        let mut viewing = self.viewers.take(tenant).await?;
        self.viewers.bounded(reads::job_on(&mut viewing.db, tenant, id)).await
    }

    async fn body(&self, tenant: TenantId, id: JobId) -> Result<Option<Bytes>, StoreError> {
        let mut viewing = self.viewers.take(tenant).await?;
        self.viewers.bounded(reads::body(&mut viewing.db, tenant, id)).await
    }

    async fn jobs(&self, query: JobsQuery) -> Result<Vec<Job>, StoreError> {
        let mut viewing = self.viewers.take(query.filter.tenant).await?;
        self.viewers.bounded(lists::jobs(&mut viewing.db, &query)).await
    }

    async fn jobs_to_change(&self, query: JobsQuery) -> Result<Vec<Job>, StoreError> {
        let mut db = self.database.connections.take().await?;
        Ok(self.database.connections.bounded(lists::jobs(&mut db, &query)).await?)
    }

    async fn jobs_of_tenant(&self, query: JobsQuery) -> Result<Vec<Job>, StoreError> {
        let mut viewing = self.viewers.take(query.filter.tenant).await?;
        self.viewers.bounded(lists::jobs_of_tenant(&mut viewing.db, &query)).await
    }

    async fn newest_of_names(&self, query: NamesQuery) -> Result<Vec<Job>, StoreError> {
        let mut viewing = self.viewers.take(query.tenant).await?;
        self.viewers.bounded(lists::newest_of_names(&mut viewing.db, &query)).await
    }

    async fn count(&self, filter: JobFilter) -> Result<u64, StoreError> {
        let mut viewing = self.viewers.take(filter.tenant).await?;
        let mut count = lists::Count::new(&filter);
        loop {
            if let Some(jobs) = self.viewers.bounded(count.window(&mut viewing.db)).await? {
                return Ok(jobs);
            }
        }
    }

    async fn job_bytes(&self, ids: Vec<JobId>) -> Result<u64, StoreError> {
        let mut db = self.database.connections.take().await?;
        Ok(self.database.connections.bounded(reads::job_bytes(&mut db, &ids)).await?)
    }

    async fn unfinished(&self, tenant: TenantId) -> Result<u64, StoreError> {
        let mut viewing = self.viewers.take(tenant).await?;
        self.viewers.bounded(reads::unfinished(&mut viewing.db, tenant)).await
    }

    async fn ticked(&self, schedules: Option<Vec<i64>>) -> Result<Vec<Ticked>, StoreError> {
        let mut db = self.database.connections.take().await?;
        Ok(self.database.connections.bounded(ticks::ticked(&mut db, schedules)).await?)
    }

    async fn skip_ticks(&self, skipped: Vec<(i64, SkippedTicks)>) -> Result<Vec<bool>, StoreError> {
        if skipped.is_empty() {
            return Ok(Vec::new());
        }
        self.database.call(&ticks::SkipTicks(skipped)).await
    }

    async fn ticks(&self, query: TicksQuery) -> Result<Vec<TickRecord>, StoreError> {
        let mut db = self.database.connections.take().await?;
        Ok(self.database.connections.bounded(ticks::ticks(&mut db, &query)).await?)
    }

    async fn attempts(
        &self,
        tenant: TenantId,
        id: JobId,
        after: u32,
        limit: u32,
    ) -> Result<Vec<AttemptRecord>, StoreError> {
        let mut viewing = self.viewers.take(tenant).await?;
        self.viewers.bounded(reads::attempts(&mut viewing.db, tenant, id, after, limit)).await
    }

    fn commit_stats(&self) -> CommitStats {
        self.database.stats()
    }

    fn health(&self) -> &StoreHealth {
        &self.health
    }

    async fn probe(&self, id: JobId, now: UnixMs) -> Result<(), StoreError> {
        self.health.watch(Work::Accept, probe::run(&self.database, id, now)).await
    }

    async fn backlog(&self, now: UnixMs) -> Result<Backlog, StoreError> {
        let mut db = self.database.connections.take().await?;
        Ok(self.database.connections.bounded(reads::backlog(&mut db, now)).await?)
    }

    async fn stats(&self, tenant: TenantId, group: GroupId, now: UnixMs) -> Result<Stats, StoreError> {
        let mut viewing = self.viewers.take(tenant).await?;
        self.viewers.bounded(reads::stats(&mut viewing.db, tenant, group, now)).await
    }

    async fn close(&self) {
        self.inserts.close().await;
        self.settlements.close().await;
        self.viewers.close().await;
        self.database.connections.close().await;
    }
}
