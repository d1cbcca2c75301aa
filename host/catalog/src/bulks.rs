//! Bulk changes of jobs in the catalog: the request, and its progress.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::audit::Cause;
use super::{Catalog, CatalogError, document};
use carillon_core::audit::{Origin, Verb};
use carillon_core::clock::UnixMs;
use carillon_core::job::{JobId, State, TenantId};
use carillon_store::{JobFilter, Kind, Precondition};

/// How long finished bulk changes are kept.
pub const BULK_RETENTION: Duration = Duration::from_secs(7 * 86_400);

/// Change of each job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "action")]
pub enum BulkAction {
    /// Waiting and running jobs are cancelled.
    Cancel,
    /// Waiting jobs become due at this time.
    Reschedule {
        /// The new due time.
        at: UnixMs,
    },
    /// Dead letters and expired jobs are tried again.
    Redrive,
    /// Dead letters, or jobs that have ended otherwise, are removed.
    Purge,
}

impl BulkAction {
    /// Returns the states of the jobs that the action changes if the request names none.
    #[must_use]
    pub fn states(self) -> &'static [State] {
        match self {
            Self::Cancel => &[State::Scheduled, State::Running],
            Self::Reschedule { .. } => &[State::Scheduled],
            Self::Redrive => &[State::Dead, State::Expired],
            Self::Purge => &[State::Dead],
        }
    }

    /// Returns the action's verb in the audit log.
    #[must_use]
    pub fn verb(self) -> Verb {
        match self {
            Self::Cancel => Verb::BULK_CANCEL,
            Self::Reschedule { .. } => Verb::BULK_RESCHEDULE,
            Self::Redrive => Verb::BULK_REDRIVE,
            Self::Purge => Verb::BULK_PURGE,
        }
    }

    /// Returns whether the action applies to jobs in this state.
    #[must_use]
    pub fn fits(self, state: State) -> bool {
        self.states().contains(&state) || (self == Self::Purge && state.is_final())
    }
}

/// Stored form of a bulk change.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BulkRecord {
    /// Action on each job.
    #[serde(flatten)]
    pub action: BulkAction,
    /// Filter that selects the jobs.
    pub filter: JobFilter,
    /// Only jobs that were accepted before this one are changed.
    pub before: JobId,
    /// Number of jobs at the time of the request; after the end, number of jobs that were changed or skipped.
    pub total: u64,
    /// Number of jobs that were changed so far.
    pub done: u64,
    /// Number of jobs that were in another state when they were reached.
    pub skipped: u64,
    /// Last job that was reached. The number before it is always 0, and kept for older programs, which went from state to state.
    pub cursor: (usize, Option<JobId>),
    /// Time of the end.
    pub finished_at: Option<UnixMs>,
}

/// Bulk change of jobs.
#[derive(Clone, Debug)]
pub struct Bulk {
    /// Public id.
    pub id: String,
    /// Owning tenant.
    pub tenant: TenantId,
    /// Time of the request.
    pub created_at: UnixMs,
    /// Stored form, with the progress.
    pub doc: BulkRecord,
}

impl Bulk {
    /// Returns the filter for its jobs, in all of the action's states.
    #[must_use]
    pub fn filter(&self) -> JobFilter {
        let (states, accepted_before) = (self.doc.action.states().to_vec(), Some(self.doc.before));
        JobFilter { states, accepted_before, ..self.doc.filter.clone() }
    }

    /// Ends the change. Jobs that were there in the beginning, and had left the action's states when they were reached, count as skipped.
    /// Jobs that came into one of the states meanwhile count as well. So each job is counted once.
    pub fn finish(&mut self, now: UnixMs) {
        let doc = &mut self.doc;
        doc.skipped = doc.skipped.max(doc.total.saturating_sub(doc.done));
        doc.total = doc.done + doc.skipped;
        doc.finished_at = Some(now);
    }
}

impl Catalog {
    /// Returns a bulk change of the tenant.
    #[must_use]
    pub fn bulk(&self, tenant: TenantId, id: &str) -> Option<Arc<Bulk>> {
        self.state().bulk(tenant, id).cloned()
    }

    /// Returns the tenant's bulk changes, in the order of their ids, which is that of their time.
    #[must_use]
    pub fn bulks(&self, tenant: TenantId) -> Vec<Arc<Bulk>> {
        self.state().bulks().filter(|bulk| bulk.tenant == tenant).cloned().collect()
    }

    /// Returns the unfinished bulk changes of all tenants.
    #[must_use]
    pub fn unfinished_bulks(&self) -> Vec<Arc<Bulk>> {
        self.state().bulks().filter(|bulk| bulk.doc.finished_at.is_none()).cloned().collect()
    }

    /// Stores a bulk change that a client has requested.
    ///
    /// # Errors
    /// Returns the store's error.
    pub async fn add_bulk(&self, bulk: &Bulk, origin: &Origin) -> Result<(), CatalogError> {
        self.write_bulk(bulk, &Cause::change(origin, bulk.doc.action.verb())).await
    }

    /// Stores the progress of a bulk change.
    ///
    /// # Errors
    /// Returns the store's error.
    pub async fn put_bulk(&self, bulk: &Bulk) -> Result<(), CatalogError> {
        self.write_bulk(bulk, &Cause::Upkeep).await
    }

    async fn write_bulk(&self, bulk: &Bulk, cause: &Cause<'_>) -> Result<(), CatalogError> {
        let doc = document(&bulk.doc);
        self.put(self.entity(cause, bulk.tenant, Kind::Bulk, &bulk.id, doc, Precondition::Anything)).await.map(drop)
    }

    /// Removes what is kept for a limited time, and what a deleted group has left: bulk changes that ended before this time, and versions of
    /// policies whose group is gone.
    ///
    /// # Errors
    /// Returns the store's error. What was removed before it stays removed.
    pub async fn tidy(&self, before: UnixMs) -> Result<(), CatalogError> {
        self.forget_bulks(before).await?;
        let _changing = self.changing.lock().await;
        self.forget_orphans().await
    }

    async fn forget_bulks(&self, before: UnixMs) -> Result<(), CatalogError> {
        let is_old = |bulk: &&Arc<Bulk>| bulk.doc.finished_at.is_some_and(|at| at <= before);
        let old: Vec<_> = self.state().bulks().filter(is_old).cloned().collect();
        for bulk in old {
            self.delete(&Cause::Upkeep, bulk.tenant, Kind::Bulk, &bulk.id).await?;
        }
        Ok(())
    }
}
