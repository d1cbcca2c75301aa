//! Builders of jobs: a test names only the fields that it is about.

use std::time::Duration;

use bytes::Bytes;
use uuid::Uuid;

use crate::clock::UnixMs;
use crate::job::{
    AttemptDetail, AttemptRecord, GroupId, Job, JobId, LeasedJob, NewJob, Outcome, Spec, State, Target, TenantId, Token,
};

/// Builds a [`NewJob`].
#[derive(Clone, Debug)]
pub struct NewJobBuilder(NewJob);

/// Returns a job of tenant 1 and group 1 that is accepted and due at 0, without a target.
#[must_use]
pub fn new_job() -> NewJobBuilder {
    NewJobBuilder(NewJob::plain(JobId(Uuid::nil()), TenantId(1), GroupId(1), UnixMs(0)))
}

impl NewJobBuilder {
    /// Sets the id.
    #[must_use]
    pub fn id(self, id: JobId) -> Self {
        Self(NewJob { id, ..self.0 })
    }

    /// Sets the tenant and its group.
    #[must_use]
    pub fn of(self, tenant: TenantId, group: GroupId) -> Self {
        Self(NewJob { tenant, group, ..self.0 })
    }

    /// Sets the due time.
    #[must_use]
    pub fn run_at(self, run_at: UnixMs) -> Self {
        Self(NewJob { run_at, ..self.0 })
    }

    /// Sets the time of acceptance.
    #[must_use]
    pub fn created_at(self, created_at: UnixMs) -> Self {
        Self(NewJob { created_at, ..self.0 })
    }

    /// Sets the seed of its attempts.
    #[must_use]
    pub fn seed(self, seed: u32) -> Self {
        Self(NewJob { seed, ..self.0 })
    }

    /// Sets the receiver.
    #[must_use]
    pub fn target(self, target: Target) -> Self {
        Self(NewJob { spec: Spec { target: Some(target), ..self.0.spec }, ..self.0 })
    }

    /// Sets the payload.
    #[must_use]
    pub fn body(self, body: Bytes) -> Self {
        Self(NewJob { body, ..self.0 })
    }

    /// Returns the job.
    #[must_use]
    pub fn build(self) -> NewJob {
        self.0
    }
}

/// Builds a [`Job`].
#[derive(Clone, Debug)]
pub struct JobBuilder(Job);

/// Returns the stored form of [`new_job`].
#[must_use]
pub fn job() -> JobBuilder {
    JobBuilder(new_job().build().shown())
}

impl JobBuilder {
    /// Sets the state.
    #[must_use]
    pub fn state(self, state: State) -> Self {
        Self(Job { state, ..self.0 })
    }

    /// Sets the due time, in milliseconds.
    #[must_use]
    pub fn run_at(self, run_at: i64) -> Self {
        Self(Job { run_at: UnixMs(run_at), ..self.0 })
    }

    /// Sets the deadline.
    #[must_use]
    pub fn deadline(self, deadline: Option<UnixMs>) -> Self {
        Self(Job { deadline, ..self.0 })
    }

    /// Sets the longest delay.
    #[must_use]
    pub fn max_delay(self, max_delay: Option<Duration>) -> Self {
        Self(Job { max_delay, ..self.0 })
    }

    /// Sets the number of spent attempts.
    #[must_use]
    pub fn attempt_count(self, attempt_count: u32) -> Self {
        Self(Job { attempt_count, ..self.0 })
    }

    /// Sets the URL of the receiver, to which the job is a `GET`.
    #[must_use]
    pub fn url(self, url: &str) -> Self {
        let target = Target { method: "GET".to_owned(), url: url.to_owned(), headers: Vec::new() };
        Self(Job { spec: Spec { target: Some(target), ..self.0.spec }, ..self.0 })
    }

    /// Returns the job.
    #[must_use]
    pub fn build(self) -> Job {
        self.0
    }
}

/// Builds a [`LeasedJob`].
#[derive(Clone, Debug)]
pub struct LeasedBuilder(LeasedJob);

/// Returns the first lease of a job, which never ends. The job is `running`, whatever its builder says.
#[must_use]
pub fn leased(job: JobBuilder) -> LeasedBuilder {
    LeasedBuilder(LeasedJob {
        job: job.state(State::Running).build(),
        token: Token(1),
        body: Bytes::new(),
        lost_leases: 0,
        until: UnixMs::MAX,
        history: Vec::new(),
    })
}

impl LeasedBuilder {
    /// Sets the fencing token, which is the number of the lease.
    #[must_use]
    pub fn token(self, token: i64) -> Self {
        Self(LeasedJob { token: Token(token), ..self.0 })
    }

    /// Sets the number of leases that ended without a settlement.
    #[must_use]
    pub fn lost_leases(self, lost_leases: u32) -> Self {
        Self(LeasedJob { lost_leases, ..self.0 })
    }

    /// Returns the leased job.
    #[must_use]
    pub fn build(self) -> LeasedJob {
        self.0
    }
}

/// Returns the record of a first attempt that was spent and may be repeated, without a response.
#[must_use]
pub fn attempt() -> AttemptRecord {
    AttemptRecord {
        number: 1,
        started_at: UnixMs(0),
        finished_at: UnixMs(0),
        outcome: Outcome::Retryable,
        status: None,
        response_body: Bytes::new(),
        detail: AttemptDetail { spent: true, ..AttemptDetail::default() },
    }
}
