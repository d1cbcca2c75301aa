//! The lists: tasks that wait, that succeeded, that are dead, and crons. Times are nanoseconds since 1970.
//!
//! A list ends at `limits.answer`: each task holds a payload and an answer, and all of them together may not fit into memory. The format has no
//! cursor, so a list that is cut off says so in a header.

use std::collections::{BTreeMap, HashSet};
use std::convert::Infallible;
use std::sync::Arc;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde::Serialize;
use serde_json::{Value, json};

use super::super::refusal::Refusal;
use super::super::{Call, answered, configured};
use super::crons::is_id;
use super::{BASE64, EXPECTED, NAMESPACE, PLANNED, SCHEDULE};
use crate::error::Problem;
use crate::v1::job_lists::{Scope, Slices, job_with_payload_len, read_jobs};
use base64::Engine as _;
use carillon_catalog::{Group, Schedule};
use carillon_core::clock::{UnixMs, rfc3339};
use carillon_core::job::{Job, Label, Outcome, State, shown_url};
use carillon_store::{JobFilter, JobsQuery};

/// How many of the newest tasks that succeeded are listed, as many as the original keeps, and how many of the others.
const SUCCESSES: u32 = 1_000;
const OTHERS: u32 = 10_000;

/// Header of a list that was cut off.
const TRUNCATED: HeaderName = HeaderName::from_static("carillon-truncated");

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

/// A task of a list.
enum Entry {
    /// Of a job, which is read further when its turn comes.
    Job(Box<Job>),
    /// A cron none of whose runs waits, with its next time, and the end of its last run.
    Cron(Arc<Schedule>, i64, Option<UnixMs>),
}

impl Entry {
    fn next_run(&self) -> i64 {
        match self {
            Self::Job(job) => nanos(job.run_at),
            Self::Cron(_, next, _) => *next,
        }
    }
}

/// Writes a list, in the order in which the tasks run, until it fills a response. It `is_cut` already if jobs of it were left out.
async fn listed(
    call: &Call,
    group: &Arc<Group>,
    mut entries: Vec<Entry>,
    mut is_cut: bool,
) -> Result<Response, Refusal> {
    entries.sort_by_key(Entry::next_run);
    let (mut parts, mut len) = (vec![Bytes::from_static(br#"{"tasks":["#)], 0_usize);
    for (index, entry) in entries.into_iter().enumerate() {
        let task = match entry {
            Entry::Job(job) => call.task(group, &job).await?,
            Entry::Cron(schedule, next, last) => next_run(&schedule, next, last),
        };
        let mut text = if index == 0 { Vec::new() } else { vec![b','] };
        serde_json::to_writer(&mut text, &task).map_err(|_| Problem::internal())?;
        len = len.saturating_add(text.len());
        if index > 0 && len > call.api.config.limits.answer {
            is_cut = true;
            break;
        }
        parts.push(Bytes::from(text));
    }
    parts.push(Bytes::from_static(b"]}"));
    // Each part leaves the memory when it is written.
    let body = Body::from_stream(stream::iter(parts.into_iter().map(Ok::<_, Infallible>)));
    let mut response = ([(header::CONTENT_TYPE, "application/json")], body).into_response();
    if is_cut {
        response.headers_mut().insert(TRUNCATED, HeaderValue::from_static("true"));
    }
    Ok(response)
}

fn empty() -> Response {
    Json(json!({"tasks": []})).into_response()
}

impl Call {
    /// Tasks that wait or run, and crons.
    pub(super) async fn waiting(&self) -> Result<Response, Refusal> {
        let Some(group) = self.known_group() else { return Ok(empty()) };
        let (unfinished, is_cut) = self.unfinished(&group).await?;
        let (runs, once): (Vec<Job>, Vec<Job>) = unfinished.into_iter().partition(|job| cron_of(job).is_some());
        let mut tasks = self.cron_tasks(runs).await?;
        tasks.extend(once.into_iter().map(|job| Entry::Job(Box::new(job))));
        listed(self, &group, tasks, is_cut).await
    }

    /// Crons.
    pub(super) async fn crons(&self) -> Result<Response, Refusal> {
        let Some(group) = self.known_group() else { return Ok(empty()) };
        let (runs, is_cut) = self.unfinished(&group).await?;
        let tasks = self.cron_tasks(runs).await?;
        listed(self, &group, tasks, is_cut).await
    }

    /// Tasks that have ended so. Of a cron only the last run is listed.
    pub(super) async fn ended(&self, state: State) -> Result<Response, Refusal> {
        let Some(group) = self.known_group() else { return Ok(empty()) };
        let limit = if state == State::Succeeded { SUCCESSES } else { OTHERS };
        let (mut tasks, mut crons) = (Vec::new(), HashSet::new());
        let jobs = self.jobs_in(&group, state, limit).await?;
        for job in jobs.items {
            if cron_of(&job).is_none_or(|id| crons.insert(id.to_owned())) {
                tasks.push(Entry::Job(Box::new(job)));
            }
        }
        listed(self, &group, tasks, jobs.is_cut).await
    }

    /// The newest jobs in a state, newest first.
    async fn jobs_in(&self, group: &Group, state: State, limit: u32) -> Result<Slices<Job>, Refusal> {
        let filter = JobFilter { state: Some(state), ..JobFilter::all(self.access.tenant.id, group.id) };
        let query = JobsQuery { filter, before: None, limit };
        Ok(read_jobs(&self.api, query, Scope::Group, job_with_payload_len).await?)
    }

    /// The jobs that wait or run, oldest first. One that begins between the two looks runs.
    async fn unfinished(&self, group: &Group) -> Result<(Vec<Job>, bool), Refusal> {
        let (mut jobs, mut is_cut) = (BTreeMap::new(), false);
        for state in [State::Scheduled, State::Running] {
            let found = self.jobs_in(group, state, OTHERS).await?;
            is_cut |= found.is_cut;
            jobs.extend(found.items.into_iter().map(|job| (job.id, job)));
        }
        Ok((jobs.into_values().collect(), is_cut))
    }

    /// Each cron as its run that waits or is under way, else as its next one.
    async fn cron_tasks(&self, runs: Vec<Job>) -> Result<Vec<Entry>, Refusal> {
        let mut unfinished: BTreeMap<String, Job> = BTreeMap::new();
        for job in runs {
            // The others wait for the one that runs, or else for the oldest.
            if let Some(id) = cron_of(&job).filter(|id| job.state == State::Running || !unfinished.contains_key(*id)) {
                unfinished.insert(id.to_owned(), job);
            }
        }
        let ids = self.cron_schedules().iter().map(|schedule| schedule.id).collect();
        let ticked = self.api.services.store.ticked(Some(ids)).await?;
        let mut tasks = Vec::new();
        for schedule in self.cron_schedules() {
            tasks.push(match unfinished.remove(&schedule.name) {
                Some(job) => Entry::Job(Box::new(job)),
                None => {
                    let known = ticked.iter().find(|ticked| ticked.schedule == schedule.id);
                    let handled = known.map_or(schedule.since, |ticked| ticked.last.max(schedule.since));
                    let last = match self.jobs_named(&schedule.name, 1).await?.pop() {
                        Some(job) => self.newest_attempts(&job, 1).await?.pop().map(|attempt| attempt.started_at),
                        None => None,
                    };
                    let next = schedule.timetable.as_ref().ok().and_then(|timetable| timetable.after(handled).next());
                    Entry::Cron(schedule, next.map_or(0, nanos), last)
                }
            });
        }
        // Runs whose cron was dropped while they were under way.
        tasks.extend(unfinished.into_values().map(|job| Entry::Job(Box::new(job))));
        Ok(tasks)
    }

    async fn task(&self, group: &Group, job: &Job) -> Result<Task, Refusal> {
        // The newest try that failed is the newest of all, or the one before a success.
        let newest = self.newest_attempts(job, 2).await?;
        let failed = newest.iter().rev().find(|attempt| attempt.outcome != Outcome::Success);
        let tick = job.spec.metadata.texts().find(|text| text.namespace == Some("schedule") && text.name == "tick");
        let tick = tick.and_then(|text| rfc3339::parse(text.value).ok());
        let planned = label(job, PLANNED).and_then(|ms| ms.parse().ok()).map(UnixMs).or(tick);
        Ok(Task {
            id: cron_of(job).map_or_else(|| job.id.0.simple().to_string(), str::to_owned),
            url: job.spec.target.as_ref().map(|target| shown_url(&target.url)).unwrap_or_default(),
            payload: self.payload(job).await?.map(|payload| BASE64.encode(payload)),
            expected: configured(job, group, "judge", "expect").unwrap_or(EXPECTED.into()),
            schedule: label(job, SCHEDULE).unwrap_or_default().to_owned(),
            next_scheduled_run: nanos(planned.unwrap_or(job.run_at)),
            next_run: nanos(job.run_at),
            tries: job.attempt_count,
            last_run: newest.last().map_or(0, |attempt| nanos(attempt.started_at)),
            last_error_body: failed.map(|attempt| BASE64.encode(answered(attempt))),
            last_error_status_code: failed.map_or(0, |attempt| attempt.status.map_or(NO_ANSWER, i32::from)),
        })
    }
}

/// A cron none of whose runs waits: as if its next one did.
fn next_run(schedule: &Schedule, next: i64, last: Option<UnixMs>) -> Task {
    let doc: Value = serde_json::from_str(&schedule.spec.job).unwrap_or_default();
    let text = |pointer: &str| doc.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
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
