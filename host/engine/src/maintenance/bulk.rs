//! Changes of many jobs: page by page, each page one transaction, with the progress written down after it.
//!
//! The pages go by the jobs' ids, which never change, and not by their states, which do: a job that is tried and retried meanwhile is
//! reached once, whatever it does. What has been acknowledged goes on after a restart from the last page that was written down; a page
//! that was done but not written down finds its jobs in another state, and they count as skipped. Small changes are made before the
//! request is answered.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::cluster::{Cluster, ShareKey};
use crate::notifier::Notifier;
use carillon_catalog::{Bulk, BulkAction, Catalog, CatalogError};
use carillon_core::clock::{self, Clock};
use carillon_core::job::{Job, State, TenantId};
use carillon_core::stable_hash::fnv;
use carillon_store::{ChangeOutcome, JobChange, JobsQuery, Store, StoreError};
use carillon_telemetry::Telemetry;

/// How many jobs are changed in one transaction.
const PAGE: u32 = 500;

/// How many jobs are changed before the request is answered.
pub const AT_ONCE: u64 = 1_000;

/// How often it is looked whether there is one that another node has left.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// The pause after the store has failed.
const STORE_PAUSE: Duration = Duration::from_secs(1);

/// Makes changes of many jobs.
pub struct BulkRunner {
    /// Where jobs are.
    pub store: Arc<dyn Store>,
    /// Knows what is asked for.
    pub catalog: Arc<Catalog>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Is told what happened.
    pub observer: Arc<Telemetry>,
    /// Is woken when jobs may be due.
    pub notifier: Arc<Notifier>,
    /// The other nodes.
    pub cluster: Arc<Cluster>,
}

impl BulkRunner {
    /// How many jobs a change is for, now.
    ///
    /// # Errors
    /// If the store does not answer.
    pub async fn count(&self, bulk: &Bulk) -> Result<u64, StoreError> {
        self.store.count(bulk.filter()).await
    }

    /// Goes on with all that is unfinished, until `stop`.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        while !stop.is_cancelled() {
            let changed = self.catalog.changed().notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let mut unfinished = self.catalog.unfinished_bulks();
            unfinished.retain(|bulk| self.is_ours(bulk));
            if unfinished.is_empty() {
                tokio::select! {
                    () = changed => {}
                    () = self.clock.sleep_until(self.clock.now().plus(POLL_INTERVAL)) => {}
                    () = stop.cancelled() => {}
                }
            }
            for bulk in unfinished {
                if let Err(error) = self.one(&bulk, &stop).await {
                    tracing::error!(bulk = bulk.id, %error, "a change of many jobs stopped; it goes on soon");
                    clock::pause_until_stopped(STORE_PAUSE, &stop).await;
                }
            }
        }
    }

    /// One node makes a change; when it goes, another one goes on.
    fn is_ours(&self, bulk: &Bulk) -> bool {
        self.cluster.share(ShareKey::Bulk(fnv(bulk.id.bytes()))).part(1) == 1
    }

    async fn one(&self, bulk: &Bulk, stop: &CancellationToken) -> Result<(), CatalogError> {
        let mut bulk = bulk.clone();
        while bulk.doc.finished_at.is_none() && self.is_ours(&bulk) && !stop.is_cancelled() {
            self.page(&mut bulk).await?;
            self.catalog.put_bulk(&bulk).await?;
        }
        Ok(())
    }

    /// Changes all jobs at once; for those that are few.
    ///
    /// # Errors
    /// If the store does not answer.
    pub async fn finish(&self, bulk: &mut Bulk) -> Result<(), StoreError> {
        while bulk.doc.finished_at.is_none() {
            self.page(bulk).await?;
        }
        Ok(())
    }

    async fn page(&self, bulk: &mut Bulk) -> Result<(), StoreError> {
        let now = self.clock.now();
        let query = JobsQuery { filter: bulk.filter(), before: bulk.doc.cursor.1, limit: PAGE };
        let jobs = self.store.jobs(query).await?;
        let Some(last) = jobs.last().map(|job| job.id) else {
            bulk.finish(now);
            return Ok(());
        };
        let change = match bulk.doc.action {
            // Who asks for jobs that wait does not mean one that has begun to run since they were looked at.
            BulkAction::Cancel if bulk.doc.filter.state == Some(State::Scheduled) => JobChange::Withdraw,
            BulkAction::Cancel => JobChange::Cancel,
            BulkAction::Reschedule { at } => JobChange::Reschedule(at),
            BulkAction::Redrive => JobChange::Redrive(now),
            BulkAction::Purge => JobChange::Purge,
        };
        let changed = self.change(bulk.tenant, &jobs, &change).await?;
        let done =
            changed.iter().filter(|changed| matches!(changed, ChangeOutcome::Done | ChangeOutcome::Requested)).count();
        bulk.doc.done += u64::try_from(done).unwrap_or(u64::MAX);
        bulk.doc.skipped += u64::try_from(changed.len() - done).unwrap_or(u64::MAX);
        bulk.doc.cursor = (0, Some(last));
        Ok(())
    }

    /// Does the same to a tenant's jobs in one transaction, and says for each what came of it. When it returns, that is safe, listeners
    /// are told, and who waits for due jobs is woken.
    ///
    /// # Errors
    /// If the store does not answer; then nothing was done.
    pub async fn change(
        &self,
        tenant: TenantId,
        jobs: &[Job],
        change: &JobChange,
    ) -> Result<Vec<ChangeOutcome>, StoreError> {
        let (ids, now) = (jobs.iter().map(|job| job.id).collect(), self.clock.now());
        let changed = self.store.change(tenant, ids, change.clone(), now).await?;
        self.observer.changed(jobs, change, &changed, now);
        self.notifier.everywhere(now);
        Ok(changed)
    }
}
