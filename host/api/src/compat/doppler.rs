//! Doppler: callbacks of Flask applications, each scheduled once, with a constant pause between tries.
//!
//! `POST /` schedules, `GET /<id>` shows, `DELETE /<id>` cancels. The id is a random UUID, because who knows it may cancel; it is the name of
//! the job. Retries are overrides of the group's `backoff`, and what is left of them is read from there.

use axum::Json;
use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::{Map, Value, json};
use url::Url;

use super::refusal::Refusal;
use super::{Call, max_attempts};
use carillon_catalog::Group;
use carillon_core::clock::UnixMs;
use carillon_core::job::{Admission, Job, State};
use carillon_engine::intake::JobInput;
use carillon_engine::intake::UrlSchemes;
use carillon_store::{ChangeOutcome, JobChange};

/// What a client gets if it does not say.
const RETRY_DELAY: i64 = 10;

pub(super) async fn answer(call: &Call) -> Result<Response, Refusal> {
    match (&call.method, call.path()) {
        (&Method::POST, "") => schedule(call).await,
        (&Method::GET, id) if !id.is_empty() => {
            let (job, group) = call.named(id).await?.ok_or_else(|| unknown(id))?;
            Ok(Json(call.view(&job, &group).await?).into_response())
        }
        (&Method::DELETE, id) if !id.is_empty() => {
            let was_cancelled = cancel(call, id).await?;
            Ok(Json(json!({"was_cancelled": was_cancelled})).into_response())
        }
        _ => Err(call.wrong_method()),
    }
}

fn unknown(id: &str) -> Refusal {
    Refusal::unknown(format!("there is no job `{}`", id.escape_debug()))
}

/// A job as Doppler shows it.
#[derive(Serialize)]
struct View {
    request_id: String,
    status: &'static str,
    run_at: Value,
    scheduled_at: Option<i64>,
    last_retry: Option<i64>,
    retries_left: u32,
}

async fn schedule(call: &Call) -> Result<Response, Refusal> {
    let asked = Asked::read(call)?;
    let now = call.api.services.clock.now();
    let run_at = asked.run_at.map_or(now, |seconds| UnixMs(seconds.saturating_mul(1_000)));
    if run_at > now.plus(call.api.intake.limits.horizon) {
        return Err(wrong("`run_at` is too far ahead"));
    }
    let group = call.group().await?;
    let mut doc = JobInput {
        url: Some(asked.callback_url),
        schemes: UrlSchemes::Any,
        payload_text: Some(asked.message),
        name: Some(random_id(call)),
        run_at: asked.run_at.map(Value::from),
        ..JobInput::default()
    };
    let attempts = asked.max_retries.saturating_add(1);
    doc.policy = Some(json!({"retry": {"max_attempts": attempts, "base": asked.retry_delay}}));
    let job = call.job(&group, doc, Admission::Always).await?;
    let shown = job.clone().shown();
    call.insert(vec![job]).await?;
    let view =
        View { run_at: asked.given.unwrap_or_else(|| Value::from(seconds(now))), ..call.view(&shown, &group).await? };
    Ok(Json(View { scheduled_at: Some(seconds(now)), ..view }).into_response())
}

fn random_id(call: &Call) -> String {
    let mut random = [0; 16];
    call.api.services.clock.fill_random(&mut random);
    uuid::Builder::from_random_bytes(random).into_uuid().to_string()
}

/// True only if it waited. A callback that is under way goes on, and is tried again if it fails.
async fn cancel(call: &Call, id: &str) -> Result<bool, Refusal> {
    let Some((job, _)) = call.named(id).await? else { return Ok(false) };
    Ok(call.change(&[job], &JobChange::Withdraw).await? == [ChangeOutcome::Done])
}

impl Call {
    /// The job with this id.
    async fn named(&self, id: &str) -> Result<Option<(Job, std::sync::Arc<Group>)>, Refusal> {
        let found = self.jobs_named(id, 1).await?.pop();
        Ok(found.zip(self.known_group()))
    }

    /// Of a job that is under way, or over, Doppler forgets all but the state.
    async fn view(&self, job: &Job, group: &Group) -> Result<View, Refusal> {
        let request_id = job.name.clone().unwrap_or_default();
        let status = status(job, group.paused, self.api.services.clock.now());
        if job.state != State::Scheduled {
            let run_at = Value::Null;
            return Ok(View { request_id, status, run_at, scheduled_at: None, last_retry: None, retries_left: 0 });
        }
        let last = self.newest_attempts(job, 1).await?.pop();
        // A redrive begins a new series.
        let in_series = job.attempt_count.saturating_sub(job.attempt_base);
        Ok(View {
            request_id,
            status,
            run_at: Value::from(job.run_at.0 as f64 / 1_000.0),
            scheduled_at: Some(seconds(job.created_at)),
            last_retry: last.map(|attempt| seconds(attempt.finished_at)),
            retries_left: max_attempts(job, group).saturating_sub(1).saturating_sub(in_series),
        })
    }
}

/// Where a job stands, in Doppler's words.
fn status(job: &Job, paused: bool, now: UnixMs) -> &'static str {
    match job.state {
        State::Scheduled if job.run_at > now => "early",
        State::Scheduled if paused => "late",
        State::Scheduled => "waiting",
        State::Running => "started",
        State::Succeeded | State::Dead | State::Expired | State::Cancelled => "done",
    }
}

fn seconds(at: UnixMs) -> i64 {
    at.0.div_euclid(1_000)
}

/// What a client asks for.
struct Asked {
    callback_url: String,
    message: String,
    run_at: Option<i64>,
    /// `run_at` as it was written.
    given: Option<Value>,
    max_retries: u32,
    retry_delay: i64,
}

impl Asked {
    /// Types are checked before it is asked what is missing. Unknown fields are ignored.
    fn read(call: &Call) -> Result<Self, Refusal> {
        let fields = object(call)?;
        let callback_url = text(&fields, "callback_url")?;
        let message = text(&fields, "message")?;
        let given = fields.get("run_at").filter(|at| !at.is_null()).cloned();
        let run_at = given.as_ref().map(|at| integer("run_at", at)).transpose()?;
        let or = |name: &str, default| fields.get(name).map_or(Ok(default), |value| integer(name, value));
        let (max_retries, retry_delay) = (or("max_retries", 0)?, or("retry_delay", RETRY_DELAY)?);
        let missing = |name: &str| Refusal::bad(format!("`{name}` is missing"));
        let callback_url = callback_url.ok_or_else(|| missing("callback_url"))?;
        let message = message.ok_or_else(|| missing("message"))?;
        check_url(&callback_url)?;
        // Less than none is none.
        let max_retries = u32::try_from(max_retries.max(0)).ok().filter(|count| *count < u32::MAX);
        let max_retries = max_retries.ok_or_else(|| wrong("`max_retries` is too large"))?;
        let retry_delay = retry_delay.max(0);
        if i128::from(retry_delay) * 1_000 > call.api.intake.limits.horizon.as_millis() as i128 {
            return Err(wrong("`retry_delay` is too large"));
        }
        Ok(Self { callback_url, message, run_at, given, max_retries, retry_delay })
    }
}

fn wrong(message: impl Into<String>) -> Refusal {
    Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, message)
}

/// The fields of the body: of a JSON type, and a JSON object.
fn object(call: &Call) -> Result<Map<String, Value>, Refusal> {
    let no_json = |message| Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, message);
    let content_type = call.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let suffixed = essence.strip_prefix("application/").is_some_and(|kind| kind.ends_with("+json"));
    if essence != "application/json" && !suffixed {
        return Err(no_json("the content type must be application/json"));
    }
    match serde_json::from_slice(&call.body) {
        Ok(Value::Object(fields)) => Ok(fields),
        Ok(Value::Null) => Err(no_json("the body is null")),
        Ok(_) => Err(wrong("the body must be a JSON object")),
        Err(error) => Err(Refusal::bad(format!("the body is not JSON: {error}"))),
    }
}

fn text(fields: &Map<String, Value>, name: &str) -> Result<Option<String>, Refusal> {
    match fields.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(wrong(format!("`{name}` must be a string"))),
    }
}

/// A whole number. True is one and false is zero, as in Python.
fn integer(name: &str, value: &Value) -> Result<i64, Refusal> {
    let number = match value {
        Value::Bool(flag) => Some(i64::from(*flag)),
        Value::Number(number) => number.as_i64(),
        _ => None,
    };
    number.ok_or_else(|| wrong(format!("`{name}` must be an integer of at most 63 bits")))
}

/// A scheme and a host are asked for, and nothing else: whether it can be delivered to is seen when it is due.
fn check_url(text: &str) -> Result<(), Refusal> {
    match Url::parse(text) {
        Ok(url) if url.has_host() => Ok(()),
        _ => Err(wrong("`callback_url` must be a URL with a scheme and a host")),
    }
}
