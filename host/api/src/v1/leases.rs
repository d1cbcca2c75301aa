//! Leases: how consumers get jobs that have no target, and say what came of them.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse as _, Response};
use axum::{Extension, Json};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::super::ApiState;
use super::super::auth::Access;
use super::super::client::Client;
use super::super::error::Problem;
use super::super::input::{OptionalBody, Path};
use super::handed_over::HandedOver;
use super::job_view::JobView;
use carillon_core::clock::UnixMs;
use carillon_core::job::{JobId, LeasedJob, State as JobState, Token};
use carillon_engine::dispatch::pull::{ConsumerReport, LeaseError, LeaseRequest, LeaseTicket};
use carillon_policy::binding::parse_period;

/// The most jobs of one request.
const LEASES: u32 = 1_000;

/// How long a lease lasts if the consumer does not say; at least and at most.
const LEASE: Duration = Duration::from_secs(30);
const MIN_LEASE: Duration = Duration::from_secs(1);
const MAX_LEASE: Duration = Duration::from_secs(12 * 3_600);

/// The longest error that a consumer reports, in bytes; the rest is cut off.
const ERROR_LEN: usize = 4 << 10;

/// What a consumer asks for.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LeaseDoc {
    /// At most so many jobs: 1 to 1000, 1 by default.
    max: u32,
    /// How long each lease lasts: `1s` to `12h`, `30s` by default.
    lease: Option<String>,
    /// How long to wait for the first job if there is none, such as `20s`; not at all by default.
    wait: Option<String>,
}

impl Default for LeaseDoc {
    fn default() -> Self {
        Self { max: 1, lease: None, wait: None }
    }
}

/// Leased jobs.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct LeasesView {
    leases: Vec<LeaseView>,
}

/// A leased job.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct LeaseView {
    /// Names the lease, in the paths of the requests that end it.
    token: String,
    /// When it ends, unless it is extended.
    #[schema(format = DateTime)]
    expires_at: String,
    /// Which try this is, from 1.
    attempt: u32,
    /// The job.
    job: JobView,
    /// The payload, if it was given as JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Value>)]
    payload: Option<Box<RawValue>>,
    /// The payload, if it is other text.
    #[serde(skip_serializing_if = "Option::is_none")]
    payload_text: Option<String>,
    /// The payload, if it is not text.
    #[serde(skip_serializing_if = "Option::is_none")]
    payload_base64: Option<String>,
}

impl LeaseView {
    fn of(ticket: LeaseTicket, leased: LeasedJob, group: &str) -> Self {
        let text = String::from_utf8(leased.body.to_vec());
        let payload_base64 = text.is_err().then(|| STANDARD.encode(&leased.body));
        let raw = |text: &String| RawValue::from_string(text.clone()).ok();
        let payload = text.as_ref().ok().filter(|_| leased.job.spec.is_json).and_then(raw);
        Self {
            token: write_ticket(ticket),
            expires_at: leased.until.to_string(),
            attempt: leased.number(),
            payload_text: text.ok().filter(|_| payload.is_none()),
            payload,
            payload_base64,
            job: JobView::of(leased.job, group.to_owned()),
        }
    }
}

/// The lease as a text that fits into a path.
fn write_ticket(ticket: LeaseTicket) -> String {
    let mut bytes = ticket.job.0.as_bytes().to_vec();
    bytes.extend(ticket.token.0.to_be_bytes());
    bytes.extend(ticket.since.0.to_be_bytes());
    URL_SAFE_NO_PAD.encode(bytes)
}

fn read_ticket(text: &str) -> Option<LeaseTicket> {
    let bytes: [u8; 32] = URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok()?;
    let number = |range| Some(i64::from_be_bytes(bytes.get::<std::ops::Range<usize>>(range)?.try_into().ok()?));
    Some(LeaseTicket {
        job: JobId(uuid::Uuid::from_slice(&bytes[..16]).ok()?),
        token: Token(number(16..24)?),
        since: UnixMs(number(24..32)?),
    })
}

/// Leases jobs that have no target, the most urgent and then the oldest first. Waits if asked to; the list is empty if there is none.
#[utoipa::path(post, path = "/v1/groups/{group}/leases", operation_id = "leases_create", tag = "leases", request_body = Option<LeaseDoc>,
    responses((status = 200, body = LeasesView), (status = "4XX", body = Problem)))]
pub(in super::super) async fn lease(
    State(api): State<Arc<ApiState>>,
    Extension(access): Extension<Access>,
    Extension(client): Extension<Client>,
    Path(group): Path<String>,
    OptionalBody(doc): OptionalBody<LeaseDoc>,
) -> Result<Response, Problem> {
    let group = api.group(&access, &group)?;
    if !(1..=LEASES).contains(&doc.max) {
        return Err(Problem::invalid("/max", format!("1 to {LEASES} jobs can be leased at once")));
    }
    let wait = match doc.wait.as_deref() {
        None | Some("0" | "0s") => Duration::ZERO,
        Some(text) => parse_period("/wait", text)?,
    };
    if wait > api.limits.wait {
        let most = carillon_core::duration::format(api.limits.wait);
        return Err(Problem::invalid("/wait", format!("at most {most}, two thirds of `server.request_timeout`")));
    }
    let ask = LeaseRequest { max: doc.max, lease: lease_time("/lease", doc.lease.as_deref())?, wait };
    let handover = api.pull.lease(&group, ask, &client.gone_token()).await?;
    let view = |(ticket, leased): &(LeaseTicket, LeasedJob)| LeaseView::of(*ticket, leased.clone(), &group.name);
    let answer = serde_json::to_vec(&LeasesView { leases: handover.leases().iter().map(view).collect() });
    let answer = answer.map_err(|error| {
        tracing::error!(%error, "leases cannot be written as JSON");
        Problem::internal()
    })?;
    let body = HandedOver::new(answer, move || handover.done());
    Ok(([(CONTENT_TYPE, "application/json")], Body::new(body)).into_response())
}

fn lease_time(pointer: &str, text: Option<&str>) -> Result<Duration, Problem> {
    let lease = text.map_or(Ok(LEASE), |text| parse_period(pointer, text))?;
    if (MIN_LEASE..=MAX_LEASE).contains(&lease) {
        return Ok(lease);
    }
    Err(Problem::invalid(pointer, "a lease lasts from 1s to 12h"))
}

/// How long a lease is to last.
#[derive(Debug, Default, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ExtendDoc {
    /// From now: `1s` to `12h`, `30s` by default.
    lease: Option<String>,
}

/// When a lease ends.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct ExtendedView {
    #[schema(format = DateTime)]
    expires_at: String,
}

/// Moves the end of a lease.
#[utoipa::path(post, path = "/v1/leases/{token}/extend", operation_id = "leases_extend", tag = "leases", request_body = Option<ExtendDoc>,
    responses((status = 200, body = ExtendedView), (status = "4XX", body = Problem)))]
pub(in super::super) async fn extend(
    State(api): State<Arc<ApiState>>,
    Extension(access): Extension<Access>,
    Path(token): Path<String>,
    OptionalBody(doc): OptionalBody<ExtendDoc>,
) -> Result<Json<ExtendedView>, Problem> {
    let ticket = read_ticket(&token).ok_or_else(|| Problem::unknown("lease", &token))?;
    let lease = lease_time("/lease", doc.lease.as_deref())?;
    let until = api.pull.extend(access.tenant.id, ticket, lease).await.map_err(|lost| problem(lost, &token))?;
    Ok(Json(ExtendedView { expires_at: until.to_string() }))
}

/// What became of a job.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct EndedView {
    /// Where the job stands now.
    state: JobState,
    /// When it is tried again, if it is.
    #[schema(format = DateTime)]
    next_run_at: Option<String>,
}

/// Ends a lease: the job is done.
#[utoipa::path(post, path = "/v1/leases/{token}/complete", operation_id = "leases_complete", tag = "leases",
    responses((status = 200, body = EndedView), (status = "4XX", body = Problem)))]
pub(in super::super) async fn complete(
    State(api): State<Arc<ApiState>>,
    Extension(access): Extension<Access>,
    Path(token): Path<String>,
) -> Result<Json<EndedView>, Problem> {
    end(&api, &access, &token, ConsumerReport::Complete).await
}

/// Why a job failed.
#[derive(Debug, Default, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct FailDoc {
    /// What went wrong; the first 4 KiB are kept.
    error: Option<String>,
    /// Whether no other try can help: the job becomes a dead letter.
    permanent: bool,
    /// When another try makes sense at the earliest, such as `30s`; the retry policy is told.
    retry_after: Option<String>,
}

/// Ends a lease: the job failed, and the group's retry policy decides whether and when it is tried again.
#[utoipa::path(post, path = "/v1/leases/{token}/fail", operation_id = "leases_fail", tag = "leases", request_body = Option<FailDoc>,
    responses((status = 200, body = EndedView), (status = "4XX", body = Problem)))]
pub(in super::super) async fn fail(
    State(api): State<Arc<ApiState>>,
    Extension(access): Extension<Access>,
    Path(token): Path<String>,
    OptionalBody(doc): OptionalBody<FailDoc>,
) -> Result<Json<EndedView>, Problem> {
    let retry_after = doc.retry_after.as_deref().map(|text| parse_period("/retry_after", text)).transpose()?;
    let mut error = doc.error.unwrap_or_else(|| "the consumer failed".to_owned());
    error.truncate(error.floor_char_boundary(ERROR_LEN));
    end(&api, &access, &token, ConsumerReport::Fail { error, permanent: doc.permanent, retry_after }).await
}

/// Gives a job back that was not tried: it is available again at once, and the attempt is not spent.
#[utoipa::path(post, path = "/v1/leases/{token}/release", operation_id = "leases_release", tag = "leases",
    responses((status = 200, body = EndedView), (status = "4XX", body = Problem)))]
pub(in super::super) async fn release(
    State(api): State<Arc<ApiState>>,
    Extension(access): Extension<Access>,
    Path(token): Path<String>,
) -> Result<Json<EndedView>, Problem> {
    end(&api, &access, &token, ConsumerReport::Release).await
}

async fn end(api: &ApiState, access: &Access, token: &str, said: ConsumerReport) -> Result<Json<EndedView>, Problem> {
    let ticket = read_ticket(token).ok_or_else(|| Problem::unknown("lease", token))?;
    let ended = api.pull.end(access.tenant.id, ticket, said).await;
    let (state, next_run_at) = ended.map_err(|lost| problem(lost, token))?;
    Ok(Json(EndedView { state, next_run_at: next_run_at.map(|at| at.to_string()) }))
}

fn problem(lost: LeaseError, token: &str) -> Problem {
    match lost {
        LeaseError::Ended => Problem::conflict("the lease has ended: the job is, or was, somebody else's"),
        LeaseError::Unknown => Problem::unknown("lease", token),
        LeaseError::Store(error) => error.into(),
    }
}
