//! callme: calls by name and minute.
//!
//! An entry is identified by its name and the minute at which it runs; the job of an entry is named `name@minute`, and the newest job of that
//! name is the entry, unless it was cancelled. So a put replaces, a move takes its place, and pages go through the names in order.

mod doc;
mod entry;
mod minute;
mod pages;
mod reschedule;

use axum::Json;
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use percent_encoding::percent_decode_str;
use serde::Serialize as _;
use serde_json::{Value, json};

use self::entry::{EntryKey, Which};
use super::refusal::Refusal;
use super::{Call, decoded};
use carillon_core::job::{Admission, Job, State};
use carillon_store::JobChange;

/// How far JSON is indented when it is to be pretty.
const INDENT: &[u8] = b"    ";

/// Answers, refusals as well, are pretty if the client asks for it.
pub(super) async fn answer(call: &Call) -> Response {
    match route(call).await {
        Ok(value) => written(StatusCode::OK, &value, style(&call.query)),
        Err(refusal) => refused(refusal, &call.query),
    }
}

/// A refusal, also of a request that did not come so far as to be a call.
pub(super) fn refused(refusal: Refusal, query: &str) -> Response {
    // callme knows one status for what cannot be understood.
    let refusal = refusal.without_422();
    let mut response = written(refusal.status, &json!({"error": refusal.message}), style(query));
    response.headers_mut().extend(*refusal.headers);
    response
}

/// How JSON is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum JsonStyle {
    Compact,
    Pretty,
}

fn style(query: &str) -> JsonStyle {
    let is_pretty = url::form_urlencoded::parse(query.as_bytes()).any(|(name, _)| name == "pretty");
    if is_pretty { JsonStyle::Pretty } else { JsonStyle::Compact }
}

fn written(status: StatusCode, value: &Value, style: JsonStyle) -> Response {
    if style == JsonStyle::Compact {
        return (status, Json(value)).into_response();
    }
    let mut text = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(INDENT);
    if value.serialize(&mut serde_json::Serializer::with_formatter(&mut text, formatter)).is_err() {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    }
    (status, [(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], text).into_response()
}

async fn route(call: &Call) -> Result<Value, Refusal> {
    let path = call.rest.trim_matches('/');
    let (noun, name) = path.split_once('/').unwrap_or((path, ""));
    let name = percent_decode_str(name.trim_start_matches('/')).decode_utf8();
    let name = name.map_err(|_| Refusal::bad("the name in the path is not UTF-8"))?;
    match (&call.method, noun) {
        (&Method::PUT, "task") => put(call, &name).await,
        (&Method::GET, "task" | "status") => call.status(&name).await,
        (&Method::DELETE, "task") => delete(call, &name).await,
        (&Method::POST, "reschedule") => call.reschedule(&name).await,
        (_, "task" | "status" | "reschedule") => Err(Refusal::bad("unknown method")),
        _ => Err(Refusal::unknown(format!("nothing is served at `{}`", decoded(&call.rest).escape_debug()))),
    }
}

async fn put(call: &Call, name: &str) -> Result<Value, Refusal> {
    let now = call.api.services.clock.now();
    let asked = doc::read(&call.body, now)?;
    let key = EntryKey { name: name.to_owned(), minute: asked.minute };
    key.check()?;
    let group = call.group().await?;
    let job = call.job(&group, asked.job(&key), Admission::Replace { moved: None }).await?;
    call.insert(vec![job]).await?;
    Ok(message("task successfully registered"))
}

fn message(text: &str) -> Value {
    json!({"message": text})
}

/// Removes one entry, or all of a name. One that runs is not tried again; the others never run.
async fn delete(call: &Call, path: &str) -> Result<Value, Refusal> {
    let entries = match call.which(path).await? {
        Which::One(key) => vec![call.entry(&key).await?.ok_or_else(|| key.unknown())?],
        Which::All(name) => call.entries_of(&name).await?,
    };
    if entries.is_empty() {
        return Err(Refusal::unknown("task not found"));
    }
    let (ended, unfinished): (Vec<Job>, Vec<Job>) = entries.into_iter().partition(|job| job.state.is_final());
    call.change(&unfinished, &JobChange::Cancel).await?;
    call.change(&ended, &JobChange::Purge).await?;
    Ok(message("task successfully deleted"))
}

impl Call {
    /// What a path means. A name may have an `@` and digits at its end itself.
    async fn which(&self, path: &str) -> Result<Which, Refusal> {
        match Which::new(path) {
            Which::One(key) if self.entry(&key).await?.is_none() => {
                let whole = path.to_owned();
                let is_name = !self.entries_of(&whole).await?.is_empty();
                Ok(if is_name { Which::All(whole) } else { Which::One(key) })
            }
            which => Ok(which),
        }
    }

    /// The job of an entry.
    async fn entry(&self, key: &EntryKey) -> Result<Option<Job>, Refusal> {
        Ok(self.jobs_named(&key.to_string(), 1).await?.pop().filter(is_entry))
    }
}

/// Whether a job stands for its entry: what was cancelled is gone.
fn is_entry(job: &Job) -> bool {
    job.state != State::Cancelled && !job.cancel_requested
}
