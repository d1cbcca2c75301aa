//! Changes of many jobs in the catalog: what is asked for, and how far it has come.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Catalog, CatalogError, document};
use carillon_core::clock::UnixMs;
use carillon_core::job::{JobId, State, TenantId};
use carillon_store::{JobFilter, Kind, Precondition};

/// How long finished bulk changes are remembered.
pub const BULK_RETENTION: Duration = Duration::from_secs(7 * 86_400);

/// What is done to each job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "action")]
pub enum BulkAction {
    /// Waiting and running jobs are cancelled.
    Cancel,
    /// Waiting jobs become due at this time.
    Reschedule {
        /// When.
        at: UnixMs,
    },
    /// Dead letters and expired jobs are tried again.
    Redrive,
    /// Dead letters, or jobs that have ended otherwise, are removed.
    Purge,
}

impl BulkAction {
    /// The states of the jobs that it is for if nothing is said of states.
    #[must_use]
    pub fn states(self) -> &'static [State] {
        match self {
            Self::Cancel => &[State::Scheduled, State::Running],
            Self::Reschedule { .. } => &[State::Scheduled],
            Self::Redrive => &[State::Dead, State::Expired],
            Self::Purge => &[State::Dead],
        }
    }

    /// Whether it can be done to jobs in this state.
    #[must_use]
    pub fn fits(self, state: State) -> bool {
        self.states().contains(&state) || (self == Self::Purge && state.is_final())
    }
}

/// What is stored of a change of many jobs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BulkDoc {
    /// What is done.
    #[serde(flatten)]
    pub action: BulkAction,
    /// Which jobs.
    pub filter: JobFilter,
    /// Only jobs that were accepted before this one.
    pub before: JobId,
    /// How many there were when it was asked for; when it is over, how many were changed or skipped.
    pub total: u64,
    /// How many were changed so far.
    pub done: u64,
    /// How many were in another state by the time they were reached.
    pub skipped: u64,
    /// The last job that was reached. The number before it is always 0, and kept for older programs, which went from state to state.
    pub cursor: (usize, Option<JobId>),
    /// When it was over.
    pub finished_at: Option<UnixMs>,
}

/// A change of many jobs.
#[derive(Clone, Debug)]
pub struct Bulk {
    /// Its public id.
    pub id: String,
    /// Whose.
    pub tenant: TenantId,
    /// When it was asked for.
    pub created_at: UnixMs,
    /// The rest.
    pub doc: BulkDoc,
}

impl Bulk {
    /// Its jobs, in whichever of the action's states each of them is.
    #[must_use]
    pub fn filter(&self) -> JobFilter {
        let (states, accepted_before) = (self.doc.action.states().to_vec(), Some(self.doc.before));
        JobFilter { states, accepted_before, ..self.doc.filter.clone() }
    }

    /// Ends it. Jobs that were there in the beginning and were in no state for the action any more when they were reached, count as
    /// skipped; jobs that came into one meanwhile, count as well. So each job is counted once.
    pub fn finish(&mut self, now: UnixMs) {
        let doc = &mut self.doc;
        doc.skipped = doc.skipped.max(doc.total.saturating_sub(doc.done));
        doc.total = doc.done + doc.skipped;
        doc.finished_at = Some(now);
    }
}

impl Catalog {
    /// A tenant's change of many jobs.
    #[must_use]
    pub fn bulk(&self, tenant: TenantId, id: &str) -> Option<Arc<Bulk>> {
        self.state().bulk(tenant, id).cloned()
    }

    /// A tenant's, in the order of their ids, which is that of their time.
    #[must_use]
    pub fn bulks(&self, tenant: TenantId) -> Vec<Arc<Bulk>> {
        self.state().bulks().filter(|bulk| bulk.tenant == tenant).cloned().collect()
    }

    /// Those of all tenants that are not over.
    #[must_use]
    pub fn unfinished_bulks(&self) -> Vec<Arc<Bulk>> {
        self.state().bulks().filter(|bulk| bulk.doc.finished_at.is_none()).cloned().collect()
    }

    /// Writes down how far one has come.
    ///
    /// # Errors
    /// If the store does not take it.
    pub async fn put_bulk(&self, bulk: &Bulk) -> Result<(), CatalogError> {
        let entity = self.entity(bulk.tenant, Kind::Bulk, &bulk.id, document(&bulk.doc), Precondition::Anything);
        self.put(entity).await.map(drop)
    }

    /// Removes what was kept for a while, and what a deleted group has left: changes of many jobs that were over before this time, and
    /// versions of policies whose group has gone.
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
            self.delete(bulk.tenant, Kind::Bulk, &bulk.id).await?;
        }
        Ok(())
    }
}
