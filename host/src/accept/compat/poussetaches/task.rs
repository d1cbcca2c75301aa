//! The lists: tasks that wait, that succeeded, that are dead, and crons. Times are nanoseconds since 1970.

use std::collections::{BTreeMap, HashSet};

use axum::Json;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::{Value, json};

use super::super::refusal::Refusal;
use super::super::{Call, answered, configured};
use super::crons::is_id;
use super::{BASE64, EXPECTED, NAMESPACE, PLANNED, SCHEDULE};
use crate::catalog::{Group, Schedule};
use crate::clock::UnixMs;
use crate::job::{Job, Label, Outcome, State};
use crate::store::{JobFilter, JobsQuery};
use base64::Engine as _;

/// How many of the newest tasks that succeeded are listed, as many as the original keeps, and how many of the others.
const SUCCESSES: u32 = 1_000;
const OTHERS: u32 = 10_000;

/// What stands for the status where there was no answer.
const NO_ANSWER: i32 = -1;

/// A task as poussetaches shows it; every field is always there.
#[derive(Debug, Serialize)]
struct Task {
    id: String,
    url: String,
    payload: Option<String>,
    expected: u64,
    schedule: String,
    next_scheduled_run: i64,
    next_run: i64,
    tries: u32,
    last_run: i64,
    last_error_body: Option<String>,
    last_error_status_code: i32,
}

fn nanos(at: UnixMs) -> i64 {
    at.0.saturating_mul(1_000_000)
}

/// What a job's metadata say of it here.
fn label<'a>(job: &'a Job, name: &str) -> Option<&'a str> {
    match job.spec.metadata.0.get(NAMESPACE)? {
        Label::Namespace(labels) => labels.get(name).map(String::as_str),
        Label::Text(_) => None,
    }
}

/// The id of the cron that a job is a run of.
fn cron_of(job: &Job) -> Option<&str> {
    job.name.as_deref().filter(|name| is_id(name) && label(job, SCHEDULE).is_some())
}

fn listed(mut tasks: Vec<Task>) -> Response {
    tasks.sort_by_key(|task| task.next_run);
    Json(json!({"tasks": tasks})).into_response()
}

impl Call {
    /// Tasks that wait or run, and crons.
    pub(super) async fn waiting(&self) -> Result<Response, Refusal> {
        let Some(group) = self.known_group() else { return Ok(listed(Vec::new())) };
        let (runs, once): (Vec<Job>, Vec<Job>) =
            self.unfinished(&group).await?.into_iter().partition(|job| cron_of(job).is_some());
        let mut tasks = self.cron_tasks(&group, runs).await?;
        for job in once {
            tasks.push(self.task(&group, &job).await?);
        }
        Ok(listed(tasks))
    }

    /// Crons.
    pub(super) async fn crons(&self) -> Result<Response, Refusal> {
        let Some(group) = self.known_group() else { return Ok(listed(Vec::new())) };
        let runs = self.unfinished(&group).await?;
        Ok(listed(self.cron_tasks(&group, runs).await?))
    }

    /// Tasks that have ended so. Of a cron only the last run is listed.
    pub(super) async fn ended(&self, state: State) -> Result<Response, Refusal> {
        let Some(group) = self.known_group() else { return Ok(listed(Vec::new())) };
        let limit = if state == State::Succeeded { SUCCESSES } else { OTHERS };
        let (mut tasks, mut crons) = (Vec::new(), HashSet::new());
        for job in self.jobs_in(&group, state, limit).await? {
            if cron_of(&job).is_none_or(|id| crons.insert(id.to_owned())) {
                tasks.push(self.task(&group, &job).await?);
            }
        }
        Ok(listed(tasks))
    }

    /// The newest jobs in a state, newest first.
    async fn jobs_in(&self, group: &Group, state: State, limit: u32) -> Result<Vec<Job>, Refusal> {
        let filter = JobFilter { state: Some(state), ..JobFilter::all(self.access.tenant.id, group.id) };
        Ok(self.api.store.jobs(JobsQuery { filter, before: None, limit }).await?)
    }

    /// The jobs that wait or run, oldest first. One that begins between the two looks runs.
    async fn unfinished(&self, group: &Group) -> Result<Vec<Job>, Refusal> {
        let mut jobs = BTreeMap::new();
        for state in [State::Scheduled, State::Running] {
            jobs.extend(self.jobs_in(group, state, OTHERS).await?.into_iter().map(|job| (job.id, job)));
        }
        Ok(jobs.into_values().collect())
    }

    /// Each cron as its run that waits or is under way, else as its next one.
    async fn cron_tasks(&self, group: &Group, runs: Vec<Job>) -> Result<Vec<Task>, Refusal> {
        let mut unfinished: BTreeMap<String, Job> = BTreeMap::new();
        for job in runs {
            // The others wait for the one that runs, or else for the oldest.
            if let Some(id) = cron_of(&job).filter(|id| job.state == State::Running || !unfinished.contains_key(*id)) {
                unfinished.insert(id.to_owned(), job);
            }
        }
        let ticked = self.api.store.ticked().await?;
        let mut tasks = Vec::new();
        for schedule in self.cron_schedules() {
            tasks.push(match unfinished.remove(&schedule.name) {
                Some(job) => self.task(group, &job).await?,
                None => {
                    let known = ticked.iter().find(|ticked| ticked.schedule == schedule.id);
                    let handled = known.map_or(schedule.since, |ticked| ticked.last.max(schedule.since));
                    let last = self.jobs_named(&schedule.name, 1).await?.pop().and_then(|job| job.finished_at);
                    next_run(&schedule, handled, last)
                }
            });
        }
        // Runs whose cron was dropped while they were under way.
        for job in unfinished.values() {
            tasks.push(self.task(group, job).await?);
        }
        Ok(tasks)
    }

    async fn task(&self, group: &Group, job: &Job) -> Result<Task, Refusal> {
        // The newest try that failed is the newest of all, or the one before a success.
        let newest = self.newest_attempts(job, 2).await?;
        let failed = newest.iter().rev().find(|attempt| attempt.outcome != Outcome::Success);
        let tick = job.spec.metadata.texts().find(|text| text.namespace == Some("schedule") && text.name == "tick");
        let tick =
            tick.and_then(|text| text.value.parse::<jiff::Timestamp>().ok()).map(|at| UnixMs(at.as_millisecond()));
        let planned = label(job, PLANNED).and_then(|ms| ms.parse().ok()).map(UnixMs).or(tick);
        Ok(Task {
            id: cron_of(job).map_or_else(|| job.id.0.simple().to_string(), str::to_owned),
            url: job.spec.target.as_ref().map(|target| target.url.clone()).unwrap_or_default(),
            payload: self.payload(job).await?.map(|payload| BASE64.encode(payload)),
            expected: configured(job, group, "judge", "expect").and_then(Value::as_u64).unwrap_or(EXPECTED.into()),
            schedule: label(job, SCHEDULE).unwrap_or_default().to_owned(),
            next_scheduled_run: nanos(planned.unwrap_or(job.run_at)),
            next_run: nanos(job.run_at),
            tries: job.attempt_count,
            last_run: newest.last().map_or(0, |attempt| nanos(attempt.finished_at)),
            last_error_body: failed.map(|attempt| BASE64.encode(answered(attempt))),
            last_error_status_code: failed.map_or(0, |attempt| attempt.status.map_or(NO_ANSWER, i32::from)),
        })
    }
}

/// A cron none of whose runs waits: as if its next one did.
fn next_run(schedule: &Schedule, handled: UnixMs, last: Option<UnixMs>) -> Task {
    let doc: Value = serde_json::from_str(&schedule.spec.job).unwrap_or_default();
    let text = |pointer: &str| doc.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
    let next = schedule.timetable.as_ref().ok().and_then(|timetable| timetable.after(handled).next());
    let next = next.map_or(0, nanos);
    Task {
        id: schedule.name.clone(),
        url: text("/url"),
        payload: Some(text("/payload_base64")).filter(|payload| !payload.is_empty()),
        expected: doc.pointer("/policy/judge/expect").and_then(Value::as_u64).unwrap_or(EXPECTED.into()),
        schedule: text(&format!("/metadata/{NAMESPACE}/{SCHEDULE}")),
        next_scheduled_run: next,
        next_run: next,
        tries: 0,
        last_run: last.map_or(0, nanos),
        last_error_body: None,
        last_error_status_code: 0,
    }
}
