//! What can be done to a job that exists: cancel it, move it, run it now, try it again, edit it.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::{Extension, Json};
use serde::Deserialize;
use serde_json::Value;

use super::super::ApiState;
use super::super::auth::Access;
use super::super::error::Problem;
use super::super::input::{Body, Path, Query, run_at};
use super::job_patch::{JobPatch, Patch};
use super::job_view::{JobView, job_view};
use super::jobs::{FoundJob, Named, find_job, find_readable_job};
use carillon_core::clock::UnixMs;
use carillon_core::job::{Job, JobId, Spec, State as JobState};
use carillon_engine::intake::{TimeInput, ValidationCache};
use carillon_store::{ChangeOutcome, Edit, JobChange};

/// Cancels a job. A running job is cancelled when its attempt ends, unless the attempt succeeds; the response is 202 in this case.
/// The response is 204 for a stored job that cannot be read: it is removed.
#[utoipa::path(delete, path = "/v1/jobs/{id}", operation_id = "jobs_cancel", tag = "jobs", params(Named),
    responses((status = 200, body = JobView), (status = 202, body = JobView), (status = 204), (status = "4XX", body = Problem)))]
pub(in super::super) async fn cancel(
    State(api): State<Arc<ApiState>>,
    Extension(access): Extension<Access>,
    Path(id): Path<String>,
    Query(named): Query<Named>,
) -> Result<Response, Problem> {
    let job = match find_job(&api, &access, &id, &named).await? {
        FoundJob::Readable(job) => job,
        FoundJob::Unreadable(id) => return remove_unreadable(&api, &access, id).await,
    };
    let status = match change_job(&api, &access, &job, JobChange::Cancel).await? {
        ChangeOutcome::Done | ChangeOutcome::Not(JobState::Cancelled) => StatusCode::OK,
        ChangeOutcome::Requested => StatusCode::ACCEPTED,
        other => return Err(refused(other, &id)),
    };
    Ok((status, show_job(&api, &access, &job).await?).into_response())
}

/// Makes a waiting job due now.
#[utoipa::path(post, path = "/v1/jobs/{id}/run", operation_id = "jobs_run", tag = "jobs", params(Named),
    responses((status = 200, body = JobView), (status = "4XX", body = Problem)))]
pub(in super::super) async fn run(
    state: State<Arc<ApiState>>,
    access: Extension<Access>,
    id: Path<String>,
    named: Query<Named>,
) -> Result<Json<JobView>, Problem> {
    due_now(state, access, id, named, JobChange::Reschedule).await
}

/// Redrives a dead letter or an expired job: it gets a new series of attempts, from now on.
#[utoipa::path(post, path = "/v1/jobs/{id}/retry", operation_id = "jobs_retry", tag = "jobs", params(Named),
    responses((status = 200, body = JobView), (status = "4XX", body = Problem)))]
pub(in super::super) async fn retry(
    state: State<Arc<ApiState>>,
    access: Extension<Access>,
    id: Path<String>,
    named: Query<Named>,
) -> Result<Json<JobView>, Problem> {
    state.intake.admit(access.tenant.id, 1).await?;
    due_now(state, access, id, named, JobChange::Redrive).await
}

async fn due_now(
    State(api): State<Arc<ApiState>>,
    Extension(access): Extension<Access>,
    Path(id): Path<String>,
    Query(named): Query<Named>,
    change: fn(UnixMs) -> JobChange,
) -> Result<Json<JobView>, Problem> {
    let job = find_readable_job(&api, &access, &id, &named).await?;
    change_and_show(&api, &access, &job, change(api.services.clock.now())).await
}

/// New due time of a job.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RescheduleInput {
    /// Time when the job is due: RFC 3339, Unix seconds, or `+90s`. A time in the past means now.
    #[schema(value_type = TimeInput)]
    run_at: Value,
}

/// Changes the due time of a waiting job.
#[utoipa::path(post, path = "/v1/jobs/{id}/reschedule", operation_id = "jobs_reschedule", tag = "jobs", params(Named), request_body = RescheduleInput,
    responses((status = 200, body = JobView), (status = "4XX", body = Problem)))]
pub(in super::super) async fn reschedule(
    State(api): State<Arc<ApiState>>,
    Extension(access): Extension<Access>,
    Path(id): Path<String>,
    Query(named): Query<Named>,
    Body(doc): Body<RescheduleInput>,
) -> Result<Json<JobView>, Problem> {
    let job = find_readable_job(&api, &access, &id, &named).await?;
    let at = run_at(Some(&doc.run_at), api.services.clock.now(), api.intake.limits.horizon)?;
    if job.deadline.is_some_and(|deadline| at > deadline) {
        return Err(Problem::invalid("/run_at", "the job would expire (`limits.ttl`) before it is due"));
    }
    change_and_show(&api, &access, &job, JobChange::Reschedule(at)).await
}

/// Edits a waiting job with a JSON merge patch (RFC 7396): a member of the document replaces that of the job, and null removes it. The time to
/// live, the order key and the conditions cannot be edited.
#[utoipa::path(patch, path = "/v1/jobs/{id}", operation_id = "jobs_edit", tag = "jobs", params(Named), request_body = JobPatch,
    responses((status = 200, body = JobView), (status = "4XX", body = Problem)))]
pub(in super::super) async fn edit(
    State(api): State<Arc<ApiState>>,
    Extension(access): Extension<Access>,
    Path(id): Path<String>,
    Query(named): Query<Named>,
    Body(patch): Body<Patch>,
) -> Result<Json<JobView>, Problem> {
    let job = find_readable_job(&api, &access, &id, &named).await?;
    let edit = edit_of(&api, &job, patch).await?;
    change_and_show(&api, &access, &job, JobChange::Edit(Box::new(edit))).await
}

/// Returns the edit that a patch means: the job as it could have been posted, patched, and checked like a new one.
async fn edit_of(api: &ApiState, job: &Job, patch: Patch) -> Result<Edit, Problem> {
    let group = api
        .services
        .catalog
        .group_by_id(job.group)
        .ok_or_else(|| Problem::conflict("the group of the job was deleted"))?;
    let (has_payload, has_run_at) = (patch.has_payload(), patch.has("run_at"));
    let doc = patch.applied_to(job)?;
    let draft = api.intake.draft(&group, &doc, &mut ValidationCache::default(), 0).await?;
    let at = if has_run_at {
        run_at(doc.run_at.as_ref(), api.services.clock.now(), api.intake.limits.horizon)?
    } else {
        job.run_at
    };
    if job.deadline.is_some_and(|deadline| at > deadline) {
        return Err(Problem::invalid("/run_at", "the job would expire (`limits.ttl`) before it is due"));
    }
    Ok(Edit {
        revision: job.revision,
        name: doc.name,
        run_at: at,
        priority: doc.priority.unwrap_or_default(),
        spec: Spec {
            on_success: job.spec.on_success.clone(),
            on_failure: job.spec.on_failure.clone(),
            parent: job.spec.parent,
            binding: job.spec.binding,
            is_json: if has_payload { draft.spec.is_json } else { job.spec.is_json },
            ..draft.spec
        },
        body: has_payload.then_some(draft.body),
    })
}

/// Removes a job that cannot be read.
async fn remove_unreadable(api: &ApiState, access: &Access, id: JobId) -> Result<Response, Problem> {
    match api.bulk.remove_unreadable(access.tenant.id, id).await? {
        ChangeOutcome::Done => Ok(StatusCode::NO_CONTENT.into_response()),
        ChangeOutcome::Requested => Err(Problem::unreadable_job_runs(id)),
        other => Err(refused(other, &id.to_string())),
    }
}

/// Makes one change in the store.
async fn change_job(api: &ApiState, access: &Access, job: &Job, change: JobChange) -> Result<ChangeOutcome, Problem> {
    let changed = api.bulk.change(access.tenant.id, std::slice::from_ref(job), &change).await?;
    Ok(changed.first().copied().unwrap_or(ChangeOutcome::Unknown))
}

/// Makes a change and returns the job after it.
async fn change_and_show(
    api: &ApiState,
    access: &Access,
    job: &Job,
    change: JobChange,
) -> Result<Json<JobView>, Problem> {
    match change_job(api, access, job, change).await? {
        ChangeOutcome::Done => show_job(api, access, job).await,
        other => Err(refused(other, &job.id.to_string())),
    }
}

async fn show_job(api: &ApiState, access: &Access, job: &Job) -> Result<Json<JobView>, Problem> {
    let id = job.id.to_string();
    let job = api.services.store.job(access.tenant.id, job.id).await?.ok_or_else(|| Problem::unknown("job", &id))?;
    Ok(Json(job_view(api, job)))
}

/// Returns the reason why a job in this state cannot be changed.
fn standing(state: JobState) -> &'static str {
    match state {
        JobState::Scheduled => "the job is scheduled, and has not ended yet",
        JobState::Running => "the job is running",
        JobState::Succeeded => "the job has already succeeded",
        JobState::Dead => "the job has already ended as a dead letter",
        JobState::Expired => "the job has already expired",
        JobState::Cancelled => "the job has already been cancelled",
    }
}

fn refused(changed: ChangeOutcome, id: &str) -> Problem {
    match changed {
        ChangeOutcome::Unknown => Problem::unknown("job", id),
        ChangeOutcome::Stale => {
            Problem::conflict("another request edited the job at the same time: read it and send the edit again")
        }
        ChangeOutcome::Not(state) => Problem::conflict(standing(state)),
        ChangeOutcome::Done | ChangeOutcome::Requested => Problem::conflict("the job is running"),
    }
}
