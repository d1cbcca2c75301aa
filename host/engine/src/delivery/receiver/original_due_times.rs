//! When the jobs that were put off had been due: a job's `max_delay` counts from then, however often it is put off.
//!
//! A store that knows only the newest `run_at` gives such a job its time anew each time. What is forgotten here, at a restart or for
//! want of room, is forgotten in the job's favour.

use std::collections::HashMap;

use super::IDLE_RETENTION;
use carillon_core::clock::UnixMs;
use carillon_core::job::{Job, JobId};

/// The most jobs that something is known of.
const MOST: usize = 100_000;

/// The jobs with a `max_delay` that wait.
#[derive(Default)]
pub(super) struct OriginalDueTimes {
    jobs: HashMap<JobId, Wait>,
    /// No sweep before this.
    sweep_at: UnixMs,
}

#[derive(Clone, Copy)]
struct Wait {
    due: UnixMs,
    /// What it was put off to.
    run_at: UnixMs,
}

impl OriginalDueTimes {
    /// When a job was due before it was put off, if it was, and nobody has moved it since.
    pub(super) fn due(&self, job: &Job) -> UnixMs {
        let wait = self.jobs.get(&job.id).filter(|wait| wait.run_at == job.run_at);
        wait.map_or(job.run_at, |wait| wait.due)
    }

    /// A job that was due at `due` is put off to `run_at`.
    pub(super) fn put_off(&mut self, job: &Job, due: UnixMs, run_at: UnixMs, now: UnixMs) {
        if job.max_delay.is_none() {
            return;
        }
        if self.jobs.len() >= MOST && now >= self.sweep_at {
            self.jobs.retain(|_, wait| now.since(wait.run_at) < IDLE_RETENTION);
            self.sweep_at = now.plus(IDLE_RETENTION);
        }
        if self.jobs.len() < MOST || self.jobs.contains_key(&job.id) {
            self.jobs.insert(job.id, Wait { due, run_at });
        }
    }

    /// A job waits no more.
    pub(super) fn forget(&mut self, job: &Job) {
        self.jobs.remove(&job.id);
    }
}
