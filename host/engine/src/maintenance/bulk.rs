//! Bulk changes: change many jobs page by page. Each page is one transaction, and the progress is stored after it.
//!
//! The pages follow the jobs' ids, which never change, and not their states, which do: a job that is tried and retried meanwhile is reached
//! once. After a restart, an acknowledged change continues after the last page whose progress was stored. If a page was changed but its
//! progress was not stored, its jobs are found in another state and count as skipped. Small changes complete before the response.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::cluster::ShareKey;
use crate::services::Services;
use carillon_catalog::{Bulk, BulkAction, CatalogError};
use carillon_core::clock;
use carillon_core::job::{Job, JobId, State, TenantId};
use carillon_core::stable_hash::fnv;
use carillon_store::{ChangeOutcome, JobChange, JobsQuery, StoreError};

/// Number of jobs in a page.
const PAGE: u32 = 500;

/// Largest change that completes before the response, in jobs.
pub const AT_ONCE: u64 = 1_000;

/// Period of the poll for changes that another node has left unfinished.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// The pause after the store has failed.
const STORE_PAUSE: Duration = Duration::from_secs(1);

/// Runs bulk changes.
pub struct BulkRunner {
    services: Services,
}

impl BulkRunner {
    /// Creates a runner of the bulk changes in the catalog.
    #[must_use]
    pub fn new(services: Services) -> Self {
        Self { services }
    }

    /// Returns how many jobs a change would reach now.
    ///
    /// # Errors
    /// Returns the store's error if the query fails.
    pub async fn count(&self, bulk: &Bulk) -> Result<u64, StoreError> {
        self.services.store.count(bulk.filter()).await
    }

    /// Continues all unfinished changes, until `stop`.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        while !stop.is_cancelled() {
            let changed = self.services.catalog.changed().notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let mut unfinished = self.services.catalog.unfinished_bulks();
            unfinished.retain(|bulk| self.is_ours(bulk));
            if unfinished.is_empty() {
                tokio::select! {
                    () = changed => {}
                    () = self.services.clock.sleep_until(self.services.clock.now().plus(POLL_INTERVAL)) => {}
                    () = stop.cancelled() => {}
                }
            }
            for bulk in unfinished {
                if let Err(error) = self.one(&bulk, &stop).await {
                    tracing::error!(bulk = bulk.id, %error, "bulk change failed; retrying");
                    clock::pause_until_stopped(STORE_PAUSE, &stop).await;
                }
            }
        }
    }

    /// Returns whether this node runs the change. One node does; when it leaves, another one continues. A change of a suspended tenant waits.
    fn is_ours(&self, bulk: &Bulk) -> bool {
        self.services.catalog.is_active(bulk.tenant)
            && self.services.cluster.share(ShareKey::Bulk(fnv(bulk.id.bytes()))).part(1) == 1
    }

    async fn one(&self, bulk: &Bulk, stop: &CancellationToken) -> Result<(), CatalogError> {
        let mut bulk = bulk.clone();
        while bulk.doc.finished_at.is_none() && self.is_ours(&bulk) && !stop.is_cancelled() {
            self.page(&mut bulk).await?;
            self.services.catalog.put_bulk(&bulk).await?;
        }
        Ok(())
    }

    /// Completes a small change: changes all of its jobs at once.
    ///
    /// # Errors
    /// Returns the store's error if a page fails.
    pub async fn finish(&self, bulk: &mut Bulk) -> Result<(), StoreError> {
        while bulk.doc.finished_at.is_none() {
            self.page(bulk).await?;
        }
        Ok(())
    }

    async fn page(&self, bulk: &mut Bulk) -> Result<(), StoreError> {
        let now = self.services.clock.now();
        let query = JobsQuery { filter: bulk.filter(), before: bulk.doc.cursor.1, limit: PAGE };
        let jobs = self.services.store.jobs_to_change(query).await?;
        let Some(last) = jobs.last().map(|job| job.id) else {
            bulk.finish(now);
            return Ok(());
        };
        let change = match bulk.doc.action {
            // A request to cancel waiting jobs does not include one that has begun to run since the query.
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

    /// Makes one change of a tenant's jobs in one transaction, publishes the events, and wakes the dispatcher; returns the result for each
    /// job.
    ///
    /// # Errors
    /// Returns the store's error; then no job was changed.
    pub async fn change(
        &self,
        tenant: TenantId,
        jobs: &[Job],
        change: &JobChange,
    ) -> Result<Vec<ChangeOutcome>, StoreError> {
        let (ids, now) = (jobs.iter().map(|job| job.id).collect(), self.services.clock.now());
        let changed = self.services.store.change(tenant, ids, change.clone(), now).await?;
        self.services.telemetry.record_changes(jobs, change, &changed, now);
        self.services.notifier.notify_all_nodes(now);
        Ok(changed)
    }

    /// Removes a stored job that cannot be read, after it was cancelled if it waits.
    ///
    /// [`ChangeOutcome::Requested`] means that an attempt is running: the cancel is recorded, and the job is still stored. No event is
    /// published, because nothing is known of the job but its id.
    ///
    /// # Errors
    /// Returns the store's error; then the job is still stored.
    pub async fn remove_unreadable(&self, tenant: TenantId, id: JobId) -> Result<ChangeOutcome, StoreError> {
        let now = self.services.clock.now();
        let change = async |change| {
            let changed = self.services.store.change(tenant, vec![id], change, now).await?;
            Ok(changed.first().copied().unwrap_or(ChangeOutcome::Unknown))
        };
        let cancelled = change(JobChange::Cancel).await?;
        // The next job of its order key may be due.
        self.services.notifier.notify_all_nodes(now);
        let removed = match cancelled {
            ChangeOutcome::Done | ChangeOutcome::Not(_) => change(JobChange::Purge).await?,
            other => other,
        };
        if removed == ChangeOutcome::Done {
            tracing::warn!(job = %id, "removed an unreadable stored job on request");
        }
        Ok(removed)
    }
}
