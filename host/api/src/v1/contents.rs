//! What jobs carry: payloads, and the requests that went out. For those who may make jobs; viewers see neither (see [`super::disclosure`]).

use std::sync::Arc;

use axum::extract::State;
use axum::http::HeaderValue;
use axum::http::header::{CONTENT_TYPE, HeaderName, X_CONTENT_TYPE_OPTIONS};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use bytes::Bytes;

use super::super::ApiState;
use super::super::auth::Access;
use super::super::error::Problem;
use super::super::input::{Path, Query};
use super::super::line_break::Verbatim;
use super::super::openapi::Binary;
use super::jobs::{Named, find_readable_job};
use super::replays::load_record;
use super::simulate::RequestView;
use carillon_core::job::Job;
use carillon_engine::delivery::attempt::NotReplayable;

/// Keeps browsers from taking a payload for a page.
const NO_SNIFFING: (HeaderName, HeaderValue) = (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));

/// Downloads the payload of a job, byte for byte.
#[utoipa::path(get, path = "/v1/jobs/{id}/payload", operation_id = "jobs_download_payload", tag = "jobs", params(Named),
    responses((status = 200, content((Value = "application/json"), (String = "text/plain"), (Binary = "application/octet-stream"))),
        (status = "4XX", body = Problem)))]
pub(in super::super) async fn payload(
    State(api): State<Arc<ApiState>>,
    Extension(access): Extension<Access>,
    Path(id): Path<String>,
    Query(named): Query<Named>,
) -> Result<Response, Problem> {
    let job = find_readable_job(&api, &access, &id, &named).await?;
    let body = payload_of(&api, &job).await?;
    let kind = match std::str::from_utf8(&body) {
        _ if job.spec.is_json => "application/json",
        Ok(_) => "text/plain; charset=utf-8",
        Err(_) => "application/octet-stream",
    };
    let headers = [(CONTENT_TYPE, HeaderValue::from_static(kind)), NO_SNIFFING];
    let mut response = (headers, body).into_response();
    response.extensions_mut().insert(Verbatim);
    Ok(response)
}

/// Shows the request of an attempt as it was sent.
///
/// The server makes the request again with the version of the policy that made it, and compares its digest with the recorded one. Values that
/// are keys are hidden. The response is 409 if the request cannot be reproduced, because a key, the job or the policy has changed since.
#[utoipa::path(get, path = "/v1/jobs/{id}/attempts/{number}/request", operation_id = "attempts_get_request", tag = "jobs", params(Named),
    responses((status = 200, body = RequestView), (status = 409, body = Problem), (status = "4XX", body = Problem)))]
pub(in super::super) async fn request(
    State(api): State<Arc<ApiState>>,
    Extension(access): Extension<Access>,
    Path((id, number)): Path<(String, String)>,
    Query(named): Query<Named>,
) -> Result<Json<RequestView>, Problem> {
    let job = find_readable_job(&api, &access, &id, &named).await?;
    let group = api.services.catalog.group_by_id(job.group).ok_or_else(|| Problem::unknown("job", &id))?;
    let record = load_record(&api, job).await?;
    let wanted = number.parse().ok();
    let attempt = record.attempts.iter().find(|attempt| Some(attempt.number) == wanted);
    let number = attempt.ok_or_else(|| Problem::unknown("attempt", &number))?.number;
    let sent = api.rollouts.sent_request(&group, &record, number).await;
    Ok(Json(RequestView::new(&sent.map_err(|NotReplayable(why)| Problem::conflict(why))?)))
}

/// Returns a job's payload, which is stored as long as the job.
pub(super) async fn payload_of(api: &ApiState, job: &Job) -> Result<Bytes, Problem> {
    let body = api.services.store.body(job.tenant, job.id).await?;
    body.ok_or_else(|| Problem::unknown("job", &job.id.to_string()))
}
