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
use super::super::auth::{Access, check_again, until_revoked};
use super::super::client::Client;
use super::super::error::Problem;
use super::super::input::{OptionalBody, Path};
use super::super::pools::RequestPlace;
use super::super::scope::is_visible;
use super::find_group;
use super::handed_over::HandedOver;
use super::job_view::JobView;
use carillon_catalog::{Catalog, Group, TICKET_MAC_LEN};
use carillon_core::clock::UnixMs;
use carillon_core::job::{JobId, LeasedJob, State as JobState, TenantId, Token};
use carillon_core::text::clean_within;
use carillon_engine::dispatch::pull::{ConsumerReport, Handover, LeaseError, LeaseRequest, LeaseTicket};
use carillon_policy::binding::parse_period;

/// The most jobs of one request.
const LEASES: u32 = 1_000;

/// How long a lease lasts if the consumer does not say; at least and at most.
const LEASE: Duration = Duration::from_secs(30);
const MIN_LEASE: Duration = Duration::from_secs(1);
const MAX_LEASE: Duration = Duration::from_secs(12 * 3_600);

/// The longest error that a consumer reports, in bytes; the rest is cut off.
const ERROR_LEN: usize = 4 << 10;

/// Request for leases.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LeaseInput {
    /// Largest number of jobs: 1 to 1000. Default: 1.
    max: u32,
    /// Duration of each lease: `1s` to `12h`. Default: `30s`.
    lease: Option<String>,
    /// Longest wait for the first job if none is due, such as `20s`. Default: no wait.
    wait: Option<String>,
}

impl Default for LeaseInput {
    fn default() -> Self {
        Self { max: 1, lease: None, wait: None }
    }
}

/// Leased jobs.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct LeasesView {
    /// Leased jobs, the most urgent first.
    leases: Vec<LeaseView>,
}

/// Leased job.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct LeaseView {
    /// Token of the lease, for the paths of the requests that extend or end it.
    token: String,
    /// End of the lease, unless it is extended.
    #[schema(format = DateTime)]
    expires_at: String,
    /// Number of the attempt, from 1.
    attempt: u32,
    /// Job that is leased.
    job: JobView,
    /// Payload, if it was given as JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Value>)]
    payload: Option<Box<RawValue>>,
    /// Payload, if it is other text.
    #[serde(skip_serializing_if = "Option::is_none")]
    payload_text: Option<String>,
    /// Payload in base64, if it is not text.
    #[serde(skip_serializing_if = "Option::is_none")]
    payload_base64: Option<String>,
}

impl LeaseView {
    fn new(token: String, leased: LeasedJob, group: &str) -> Self {
        let text = String::from_utf8(leased.body.to_vec());
        let payload_base64 = text.is_err().then(|| STANDARD.encode(&leased.body));
        let raw = |text: &String| RawValue::from_string(text.clone()).ok();
        let payload = text.as_ref().ok().filter(|_| leased.job.spec.is_json).and_then(raw);
        Self {
            token,
            expires_at: leased.until.to_string(),
            attempt: leased.number(),
            payload_text: text.ok().filter(|_| payload.is_none()),
            payload,
            payload_base64,
            job: JobView::new(leased.job, group.to_owned()),
        }
    }
}

/// Length of a ticket without its authentication code, in bytes.
const TICKET_LEN: usize = 32;

/// Returns the text of a lease's ticket for paths: the lease and an authentication code, so that only the server can make it.
fn write_ticket(catalog: &Catalog, tenant: TenantId, ticket: LeaseTicket) -> String {
    let mut bytes = ticket.job.0.as_bytes().to_vec();
    bytes.extend(ticket.token.0.to_be_bytes());
    bytes.extend(ticket.since.0.to_be_bytes());
    let mac = catalog.ticket_mac(tenant, &bytes);
    bytes.extend(mac);
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Returns the lease of a ticket's text. A text that the server did not make for this tenant is unknown.
fn read_ticket(catalog: &Catalog, tenant: TenantId, text: &str) -> Result<LeaseTicket, Problem> {
    let read = || {
        let bytes: [u8; TICKET_LEN + TICKET_MAC_LEN] = URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok()?;
        let (ticket, mac) = bytes.split_first_chunk::<TICKET_LEN>()?;
        if !catalog.is_ticket_mac(tenant, ticket, mac.try_into().ok()?) {
            return None;
        }
        let number = |range| Some(i64::from_be_bytes(ticket.get::<std::ops::Range<usize>>(range)?.try_into().ok()?));
        Some(LeaseTicket {
            job: JobId(uuid::Uuid::from_slice(&ticket[..16]).ok()?),
            token: Token(number(16..24)?),
            since: UnixMs(number(24..32)?),
        })
    };
    read().ok_or_else(|| Problem::unknown("lease", text))
}

/// Leases jobs that have no URL: the most urgent first, then the oldest. With `wait`, the request waits for a job. The list is empty if there
/// is none.
#[utoipa::path(post, path = "/v1/groups/{group}/leases", operation_id = "leases_create", tag = "leases", request_body = Option<LeaseInput>,
    responses((status = 200, body = LeasesView), (status = "4XX", body = Problem)))]
pub(in super::super) async fn lease(
    State(api): State<Arc<ApiState>>,
    Extension(access): Extension<Access>,
    Extension(client): Extension<Client>,
    Extension(place): Extension<RequestPlace>,
    Path(group): Path<String>,
    OptionalBody(doc): OptionalBody<LeaseInput>,
) -> Result<Response, Problem> {
    let group = find_group(&api, &access, &group)?;
    if !(1..=LEASES).contains(&doc.max) {
        return Err(Problem::invalid("/max", format!("`max` must be from 1 to {LEASES}")));
    }
    let wait = match doc.wait.as_deref() {
        None | Some("0" | "0s") => Duration::ZERO,
        Some(text) => parse_period("/wait", text)?,
    };
    if wait > api.config.limits.wait {
        let most = carillon_core::duration::format(api.config.limits.wait);
        return Err(Problem::invalid(
            "/wait",
            format!("`wait` must be at most {most}, two thirds of `server.request_timeout`"),
        ));
    }
    let ask = LeaseRequest {
        max: doc.max,
        lease: lease_time("/lease", doc.lease.as_deref())?,
        wait,
        bytes: api.config.limits.answer,
    };
    let waiting = if wait.is_zero() { None } else { Some(api.pools.wait(access.tenant.id, &place)?) };
    let handover = lease_while_allowed(&api, &access, &group, ask, &client).await?;
    drop(waiting);
    let view = |(ticket, leased): &(LeaseTicket, LeasedJob)| {
        let token = write_ticket(&api.services.catalog, access.tenant.id, *ticket);
        LeaseView::new(token, leased.clone(), &group.name)
    };
    let answer = serde_json::to_vec(&LeasesView { leases: handover.leases().iter().map(view).collect() });
    let answer = answer.map_err(|error| {
        tracing::error!(%error, "serializing leases failed");
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
    Err(Problem::invalid(pointer, "`lease` must be from 1s to 12h"))
}

/// Leases jobs for a consumer. One whose token is revoked or whose tenant is suspended meanwhile gets none, as one that has hung up.
async fn lease_while_allowed(
    api: &ApiState,
    access: &Access,
    group: &Group,
    ask: LeaseRequest,
    client: &Client,
) -> Result<Handover, Problem> {
    let gone = client.gone_token().child_token();
    let mut leasing = std::pin::pin!(api.pull.lease(group, ask, &gone));
    let handover = tokio::select! {
        biased;
        handover = &mut leasing => handover?,
        () = until_revoked(api, access) => {
            gone.cancel();
            leasing.await?
        }
    };
    // What a claim has leased meanwhile goes back.
    check_again(api, access).map(|()| handover)
}

/// Returns the lease of a text, if the request may touch its job.
async fn find_ticket(api: &ApiState, access: &Access, token: &str) -> Result<LeaseTicket, Problem> {
    let unknown = || Problem::unknown("lease", token);
    let ticket = read_ticket(&api.services.catalog, access.tenant.id, token)?;
    if access.groups.is_some() {
        let job = api.services.store.job(access.tenant.id, ticket.job).await?;
        job.filter(|job| is_visible(api, access, job.group)).ok_or_else(unknown)?;
    }
    Ok(ticket)
}

/// New duration of a lease.
#[derive(Debug, Default, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ExtendInput {
    /// Duration from now: `1s` to `12h`. Default: `30s`.
    lease: Option<String>,
}

/// New end of a lease.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct ExtendedView {
    /// End of the lease.
    #[schema(format = DateTime)]
    expires_at: String,
}

/// Changes the end of a lease.
#[utoipa::path(post, path = "/v1/leases/{token}/extend", operation_id = "leases_extend", tag = "leases", request_body = Option<ExtendInput>,
    responses((status = 200, body = ExtendedView), (status = "4XX", body = Problem)))]
pub(in super::super) async fn extend(
    State(api): State<Arc<ApiState>>,
    Extension(access): Extension<Access>,
    Path(token): Path<String>,
    OptionalBody(doc): OptionalBody<ExtendInput>,
) -> Result<Json<ExtendedView>, Problem> {
    let ticket = find_ticket(&api, &access, &token).await?;
    let lease = lease_time("/lease", doc.lease.as_deref())?;
    let until = api.pull.extend(access.tenant.id, ticket, lease).await.map_err(|lost| problem(lost, &token))?;
    Ok(Json(ExtendedView { expires_at: until.to_string() }))
}

/// Job after the end of its lease.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct EndedView {
    /// State of the job.
    state: JobState,
    /// Time when the job is due again; null if it is not tried again.
    #[schema(format = DateTime)]
    next_run_at: Option<String>,
}

/// Completes a leased job, which has succeeded, and ends its lease.
#[utoipa::path(post, path = "/v1/leases/{token}/complete", operation_id = "leases_complete", tag = "leases",
    responses((status = 200, body = EndedView), (status = "4XX", body = Problem)))]
pub(in super::super) async fn complete(
    State(api): State<Arc<ApiState>>,
    Extension(access): Extension<Access>,
    Path(token): Path<String>,
) -> Result<Json<EndedView>, Problem> {
    end(&api, &access, &token, ConsumerReport::Complete).await
}

/// Failure of a leased job.
#[derive(Debug, Default, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct FailInput {
    /// Description of the error; the first 4 KiB are kept.
    error: Option<String>,
    /// Whether no further attempt can help: the job becomes a dead letter. Default: false.
    permanent: bool,
    /// Shortest delay of the next attempt, such as `30s`, as a hint to the retry policy.
    retry_after: Option<String>,
}

/// Reports that a leased job failed, and ends its lease. The group's retry policy decides whether and when the job is tried again.
#[utoipa::path(post, path = "/v1/leases/{token}/fail", operation_id = "leases_fail", tag = "leases", request_body = Option<FailInput>,
    responses((status = 200, body = EndedView), (status = "4XX", body = Problem)))]
pub(in super::super) async fn fail(
    State(api): State<Arc<ApiState>>,
    Extension(access): Extension<Access>,
    Path(token): Path<String>,
    OptionalBody(doc): OptionalBody<FailInput>,
) -> Result<Json<EndedView>, Problem> {
    let retry_after = doc.retry_after.as_deref().map(|text| parse_period("/retry_after", text)).transpose()?;
    let error = doc.error.unwrap_or_else(|| "the consumer reported a failure".to_owned());
    let error = clean_within(&error, ERROR_LEN);
    end(&api, &access, &token, ConsumerReport::Fail { error, permanent: doc.permanent, retry_after }).await
}

/// Returns a leased job that was not tried, and ends its lease. The job is due at once, and no attempt is spent.
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
    let ticket = find_ticket(api, access, token).await?;
    let ended = api.pull.end(access.tenant.id, ticket, said).await;
    let (state, next_run_at) = ended.map_err(|lost| problem(lost, token))?;
    Ok(Json(EndedView { state, next_run_at: next_run_at.map(|at| at.to_string()) }))
}

fn problem(lost: LeaseError, token: &str) -> Problem {
    match lost {
        LeaseError::Ended => Problem::conflict("the lease has ended; the job may have been leased again"),
        LeaseError::Unknown => Problem::unknown("lease", token),
        LeaseError::Store(error) => error.into(),
    }
}
