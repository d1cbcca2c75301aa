//! Intake: turns what clients, schedules and observers post into stored jobs.
//!
//! The way of a job: [`JobInput`] is what a client posts, [`Intake::new_job`] checks it field by field and makes a [`NewJob`] of it, and
//! [`Intake::accept`] stores jobs durably, publishes their events, and wakes the dispatcher. The REST API, the compatibility mounts,
//! schedules and observers all make jobs here. Not here: HTTP, statuses, and how errors are worded for each API.

mod build;
mod condition;
pub mod error;
pub mod headers;
mod input;
mod observer_jobs;
mod quota;
mod schedule_template;
mod sizes;
mod target_url;
pub mod time;

use std::sync::Arc;
use std::time::Duration;

pub use self::build::{Draft, ValidationCache};
pub use self::error::{Cause, IntakeError};
pub use self::input::{JobInput, JobLimits};
pub use self::observer_jobs::make_requested_jobs;
use self::quota::JobCounts;
pub use self::schedule_template::{ScheduleTemplate, TickJob, TickTrigger};
pub use self::target_url::UrlSchemes;
pub use self::time::TimeInput;
use crate::services::Services;
use crate::stored_bytes::bytes_of;
use carillon_catalog::Group;
use carillon_core::clock::UnixMs;
use carillon_core::job::{Admission, NewJob, Overlap, TenantId};
use carillon_core::limits::RequestLimits;
use carillon_store::{Insert, InsertResult, StoreError};
use carillon_telemetry::PendingFacts;

/// Makes jobs.
pub struct Intake {
    pub(crate) services: Services,
    /// Bounds of a job.
    pub limits: IntakeLimits,
    /// Numbers of the tenants' unfinished jobs.
    jobs: JobCounts,
}

/// Bounds of a job.
#[derive(Clone, Copy, Debug)]
pub struct IntakeLimits {
    /// Largest payload of a job, in bytes.
    pub payload: usize,
    /// Bounds of a job's other parts.
    pub parts: RequestLimits,
    /// Longest time by which a job can be scheduled ahead.
    pub horizon: Duration,
}

impl Intake {
    /// Creates an intake that makes jobs within these bounds.
    #[must_use]
    pub fn new(services: Services, limits: IntakeLimits) -> Self {
        Self { services, limits, jobs: JobCounts::default() }
    }

    /// Stores jobs of a tenant durably, publishes their events, and wakes the dispatcher.
    ///
    /// # Errors
    /// Returns [`IntakeError`] if the tenant's quota does not allow them, or if the store fails; then none of them was stored.
    pub async fn accept(&self, tenant: TenantId, insert: Insert) -> Result<InsertResult, IntakeError> {
        self.admit(tenant, insert.jobs.len()).await?;
        self.services.stored_bytes.admit(tenant, bytes_of(&insert.jobs)).await?;
        Ok(self.place(insert).await?)
    }

    /// Checks that a schedule may make `count` more jobs, whose size is not known yet.
    ///
    /// # Errors
    /// Returns [`IntakeError`] if the tenant's quota does not allow them, or if the store fails to count.
    pub async fn admit_ticks(&self, tenant: TenantId, count: usize) -> Result<(), IntakeError> {
        self.admit(tenant, count).await?;
        Ok(self.services.stored_bytes.admit(tenant, 0).await?)
    }

    /// Does the same as [`Intake::accept`] with jobs that [`Intake::admit`] has let in.
    async fn place(&self, insert: Insert) -> Result<InsertResult, StoreError> {
        let told: Vec<PendingFacts> = insert.jobs.iter().map(PendingFacts::from_job).collect();
        let from = insert.jobs.iter().map(may_be_due_from).min().unwrap_or(UnixMs::MAX);
        let aborts = insert.jobs.iter().any(aborts_others);
        let inserted = self.services.store.insert(insert).await?;
        if let InsertResult::Placed(placed) = &inserted {
            self.services.telemetry.record_insertion(told, placed);
            self.services.notifier.notify_all_nodes(from);
            if aborts {
                self.services.notifier.notify_aborts();
            }
        }
        Ok(inserted)
    }

    /// Returns the group that a document names in its field `group`.
    fn named_group(&self, tenant: TenantId, name: &str, checked: &ValidationCache) -> Result<Arc<Group>, IntakeError> {
        let unknown = || IntakeError::invalid("/group", format!("there is no group `{}`", name.escape_debug()));
        self.services.catalog.group(tenant, name).filter(|_| checked.may_name(name)).ok_or_else(unknown)
    }
}

/// Returns whether accepting this job aborts attempts of other jobs.
fn aborts_others(job: &NewJob) -> bool {
    matches!(&job.admission, Admission::Tick(tick) if tick.overlap == Overlap::Cancel)
}

/// Returns the time from which a job may be due because this one was accepted: at once, if that ends other jobs or unblocks them.
fn may_be_due_from(job: &NewJob) -> UnixMs {
    let is_on_its_own = job.admission == Admission::Always && job.order_key.is_none();
    if is_on_its_own { job.run_at } else { job.created_at }
}
