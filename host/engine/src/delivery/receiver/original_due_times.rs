//! Original due times of postponed jobs: a job's `max_delay` counts from then, however often it is postponed.
//!
//! The store keeps only the newest `run_at`, so without this module each postponement would extend the job's time. An entry that is lost, at
//! a restart or for lack of room, is lost in the job's favour.

use super::IDLE_RETENTION;
use super::tenant_table::{OfTenant, TenantTable};
use crate::delivery::settle::Postponement;
use carillon_core::clock::UnixMs;
use carillon_core::job::{Job, JobId, TenantId};

/// Largest number of jobs that are kept. Beyond it, the tenant that has the most loses those that come back first.
const MAX_JOBS: usize = 100_000;

/// Postponed jobs with a `max_delay`.
pub(super) struct OriginalDueTimes {
    jobs: TenantTable<Key, Wait>,
    /// Time before which no sweep runs.
    sweep_at: UnixMs,
}

impl Default for OriginalDueTimes {
    fn default() -> Self {
        Self { jobs: TenantTable::new(MAX_JOBS), sweep_at: UnixMs::default() }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    tenant: TenantId,
    job: JobId,
}

impl OfTenant for Key {
    fn tenant(&self) -> TenantId {
        self.tenant
    }
}

impl From<&Job> for Key {
    fn from(job: &Job) -> Self {
        Self { tenant: job.tenant, job: job.id }
    }
}

#[derive(Clone, Copy)]
struct Wait {
    due: UnixMs,
    /// Time to which the job was postponed.
    run_at: UnixMs,
}

impl OriginalDueTimes {
    /// Returns when a job was due before it was postponed, unless it was rescheduled since.
    pub(super) fn due(&self, job: &Job) -> UnixMs {
        let wait = self.jobs.get(&Key::from(job)).filter(|wait| wait.run_at == job.run_at);
        wait.map_or(job.run_at, |wait| wait.due)
    }

    /// Records that a job is postponed.
    pub(super) fn record(&mut self, job: &Job, Postponement { due, decided_at: now, retry_at }: Postponement) {
        if job.max_delay.is_none() {
            return;
        }
        let (key, wait) = (Key::from(job), Wait { due, run_at: retry_at });
        if self.jobs.is_full() && now >= self.sweep_at {
            self.jobs.retain(|wait| now.since(wait.run_at) < IDLE_RETENTION);
            self.sweep_at = now.plus(IDLE_RETENTION);
        }
        if self.jobs.is_full() && !self.jobs.contains(&key) {
            self.jobs.make_room(|wait| Some(wait.run_at));
        }
        *self.jobs.entry(key, || wait) = wait;
    }

    /// Forgets a job that waits no more.
    pub(super) fn forget(&mut self, job: &Job) {
        self.jobs.remove(&Key::from(job));
    }
}
