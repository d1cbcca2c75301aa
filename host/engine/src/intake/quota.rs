//! Quota of unfinished jobs.
//!
//! A tenant's jobs are counted by the store when the quota may be reached, and not with each job: between two counts, every accepted job is
//! added, and none that ends is taken off. So the number in memory is never too low on one node, and a refusal follows a fresh count.
//! Other nodes' jobs are seen with the next count.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::Intake;
use super::error::IntakeError;
use carillon_core::clock::Stopwatch;
use carillon_core::job::TenantId;

/// Longest count that is repeated as often as a refusal depends on it.
const CHEAP_COUNT: Duration = Duration::from_millis(50);

/// A longer count is repeated after this many times its own duration at the earliest.
const COUNT_PAUSE: u32 = 4;

/// Longest time for which a count of a busy tenant stands.
const MAX_PAUSE: Duration = Duration::from_secs(5);

/// Number of unfinished jobs of a tenant, or more.
#[derive(Clone, Copy)]
struct Count {
    jobs: u64,
    counted: Stopwatch,
    took: Duration,
}

impl Count {
    fn is_fresh(&self) -> bool {
        self.took > CHEAP_COUNT && self.counted.elapsed() < (self.took * COUNT_PAUSE).min(MAX_PAUSE)
    }
}

/// Numbers of the tenants' unfinished jobs.
#[derive(Default)]
pub(super) struct JobCounts(Mutex<HashMap<TenantId, Count>>);

impl JobCounts {
    fn lock(&self) -> MutexGuard<'_, HashMap<TenantId, Count>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Intake {
    /// Checks that a tenant may have `added` more unfinished jobs, and counts them.
    ///
    /// # Errors
    /// Returns [`IntakeError`] if its quota does not allow it, or if the store fails to count.
    pub async fn admit(&self, tenant: TenantId, added: usize) -> Result<(), IntakeError> {
        let added = u64::try_from(added).unwrap_or(u64::MAX);
        let known = self.jobs.lock().get(&tenant).copied();
        if let Some(known) = known {
            let fits = self.services.catalog.check_jobs(tenant, known.jobs, added);
            if fits.is_ok() || known.is_fresh() {
                fits?;
                self.add(tenant, added);
                return Ok(());
            }
        }
        let watch = Stopwatch::start();
        let jobs = self.services.store.unfinished(tenant).await?;
        self.jobs.lock().insert(tenant, Count { jobs, counted: Stopwatch::start(), took: watch.elapsed() });
        self.services.catalog.check_jobs(tenant, jobs, added)?;
        self.add(tenant, added);
        Ok(())
    }

    fn add(&self, tenant: TenantId, added: u64) {
        if let Some(count) = self.jobs.lock().get_mut(&tenant) {
            count.jobs = count.jobs.saturating_add(added);
        }
    }
}
