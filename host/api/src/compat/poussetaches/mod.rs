//! poussetaches: tasks that are pushed to an endpoint until it answers with the right status, and crons.
//!
//! A task is a job, and its id is the job's. A cron is a schedule whose runs wait for each other; its id, which is the schedule's name and that
//! of its jobs, is a digest of what it does, so that putting it again changes nothing. Pausing pauses the group.

mod crons;
mod robfig;
mod task;

use std::collections::BTreeMap;

use axum::Json;
use axum::http::{HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::alphabet;
use base64::engine::{GeneralPurpose, GeneralPurposeConfig};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Call;
use super::refusal::Refusal;
use crate::error::Problem;
use crate::input::parse;
use carillon_core::job::{Admission, Label, State};
use carillon_engine::intake::JobInput;
use carillon_store::JobFilter;

/// Tells the client the id of its task.
const TASK_ID: &str = "poussetaches-task-id";

/// What a client gets if it does not say, or says 0.
const EXPECTED: u16 = 200;

/// The namespace of a job's metadata for what only this API shows.
const NAMESPACE: &str = "poussetaches";

/// The first time that a task was to run, in milliseconds since 1970; the expression of a cron, as it was sent.
const PLANNED: &str = "planned";
const SCHEDULE: &str = "schedule";

/// Go's standard encoding: padded, and whatever the unused bits of the last character are.
const BASE64: GeneralPurpose =
    GeneralPurpose::new(&alphabet::STANDARD, GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true));

/// How often a pause is tried when the group is changed at the same moment.
const PAUSE_TRIES: u32 = 10;

pub(super) async fn answer(call: &Call) -> Result<Response, Refusal> {
    route(call).await.map_err(Refusal::without_422)
}

async fn route(call: &Call) -> Result<Response, Refusal> {
    let path = call.path();
    match (&call.method, path) {
        (&Method::GET, "") => status(call).await,
        (&Method::POST, "") => push(call).await,
        (&Method::POST, "pause") => set_paused(call, true).await,
        (&Method::POST, "resume") => set_paused(call, false).await,
        (&Method::GET, "waiting") => Ok(call.waiting().await?),
        (&Method::GET, "success") => Ok(call.ended(State::Succeeded).await?),
        (&Method::GET, "dead") => Ok(call.ended(State::Dead).await?),
        (&Method::GET, "cron") => Ok(call.crons().await?),
        (&Method::DELETE, "cron") => call.drop_crons().await,
        // As the original: nothing but the status.
        (_, "" | "pause" | "resume" | "waiting" | "success" | "dead" | "cron") => {
            Ok(StatusCode::METHOD_NOT_ALLOWED.into_response())
        }
        _ => Err(Problem::no_route(path).into()),
    }
}

async fn status(call: &Call) -> Result<Response, Refusal> {
    let Some(group) = call.known_group() else {
        return Ok(Json(json!({"paused": false, "in_flight": 0})).into_response());
    };
    let running = JobFilter { state: Some(State::Running), ..JobFilter::all(call.access.tenant.id, group.id) };
    let in_flight = call.api.services.store.count(running).await?;
    Ok(Json(json!({"paused": group.paused, "in_flight": in_flight})).into_response())
}

async fn set_paused(call: &Call, paused: bool) -> Result<Response, Refusal> {
    let mut tries = 0;
    loop {
        let group = call.group().await?;
        if group.paused == paused {
            return Ok(StatusCode::OK.into_response());
        }
        match call.api.services.catalog.set_paused(&group, paused, &call.access.origin()).await.map_err(Problem::from) {
            Err(problem) if problem.status() == StatusCode::CONFLICT && tries < PAUSE_TRIES => tries += 1,
            changed => {
                changed?;
                call.api.services.notifier.notify_local();
            }
        }
    }
}

/// A task as a client pushes it.
#[derive(Deserialize)]
struct TaskInput {
    url: Option<String>,
    payload: Option<String>,
    expected: Option<u16>,
    schedule: Option<String>,
    /// In minutes; less than none is none.
    delay: Option<i64>,
}

/// A task that is to be made.
struct Asked {
    url: String,
    payload: Vec<u8>,
    expected: u16,
    /// Empty if it runs once.
    schedule: String,
    delay_minutes: u32,
}

impl Asked {
    fn read(body: &[u8]) -> Result<Self, Refusal> {
        let doc: TaskInput = parse(body)?;
        let encoded: String = doc.payload.unwrap_or_default().chars().filter(|c| !['\r', '\n'].contains(c)).collect();
        let payload =
            BASE64.decode(encoded).map_err(|error| Refusal::bad(format!("`payload` is not base64: {error}")))?;
        let expected = doc.expected.filter(|status| *status != 0).unwrap_or(EXPECTED);
        if !(100..=599).contains(&expected) {
            return Err(Refusal::bad("`expected` is not an HTTP status"));
        }
        let delay_minutes = u32::try_from(doc.delay.unwrap_or(0).max(0));
        Ok(Self {
            url: doc.url.ok_or_else(|| Refusal::bad("`url` is missing"))?,
            payload,
            expected,
            schedule: doc.schedule.unwrap_or_default(),
            delay_minutes: delay_minutes.map_err(|_| Refusal::bad("`delay` is too long"))?,
        })
    }

    /// The job as a client of the native API would post it.
    fn job(&self, labels: Value) -> Value {
        json!({
            "url": self.url,
            "payload_base64": BASE64.encode(&self.payload),
            "policy": {"judge": {"expect": self.expected}},
            "metadata": {NAMESPACE: labels},
        })
    }
}

async fn push(call: &Call) -> Result<Response, Refusal> {
    let asked = Asked::read(&call.body)?;
    let id = if asked.schedule.is_empty() { push_task(call, &asked).await? } else { call.push_cron(&asked).await? };
    let id = HeaderValue::from_str(&id).map_err(|_| Refusal::from(Problem::internal()))?;
    Ok((StatusCode::CREATED, [(TASK_ID, id)]).into_response())
}

async fn push_task(call: &Call, asked: &Asked) -> Result<String, Refusal> {
    let group = call.group().await?;
    let mut doc: JobInput = parse(asked.job(json!({})).to_string().as_bytes())?;
    doc.run_at = (asked.delay_minutes > 0).then(|| format!("+{}m", asked.delay_minutes).into());
    let mut job = call.job(&group, doc, Admission::Always).await?;
    let planned = BTreeMap::from([(PLANNED.to_owned(), job.run_at.0.to_string())]);
    job.spec.metadata.0.insert(NAMESPACE.to_owned(), Label::Namespace(planned));
    let id = job.id.0.simple().to_string();
    call.insert(vec![job]).await?;
    Ok(id)
}
