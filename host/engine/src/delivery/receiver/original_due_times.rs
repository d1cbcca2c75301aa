//! Original due times of postponed jobs: a job's `max_delay` counts from then, however often it is postponed.
//!
//! The store keeps only the newest `run_at`, so without this module each postponement would extend the job's time. An entry that is lost, at
//! a restart or for lack of room, is lost in the job's favour.

use std::collections::HashMap;

use super::IDLE_RETENTION;
use crate::delivery::settle::Postponement;
use carillon_core::clock::UnixMs;
use carillon_core::job::{Job, JobId};

/// Largest number of jobs that are kept.
const MOST: usize = 100_000;

/// Postponed jobs with a `max_delay`.
#[derive(Default)]
pub(super) struct OriginalDueTimes {
    jobs: HashMap<JobId, Wait>,
    /// Time before which no sweep runs.
    sweep_at: UnixMs,
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
        let wait = self.jobs.get(&job.id).filter(|wait| wait.run_at == job.run_at);
        wait.map_or(job.run_at, |wait| wait.due)
    }

    /// Records that a job is postponed.
    pub(super) fn record(&mut self, job: &Job, Postponement { due, decided_at: now, retry_at }: Postponement) {
        if job.max_delay.is_none() {
            return;
        }
        if self.jobs.len() >= MOST && now >= self.sweep_at {
            self.jobs.retain(|_, wait| now.since(wait.run_at) < IDLE_RETENTION);
            self.sweep_at = now.plus(IDLE_RETENTION);
        }
        if self.jobs.len() < MOST || self.jobs.contains_key(&job.id) {
            self.jobs.insert(job.id, Wait { due, run_at: retry_at });
        }
    }

    /// Forgets a job that waits no more.
    pub(super) fn forget(&mut self, job: &Job) {
        self.jobs.remove(&job.id);
    }
}
