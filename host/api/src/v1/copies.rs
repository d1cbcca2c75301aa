//! Copies of jobs: what was delivered, or was given up, is delivered again by a job of its own.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::{Extension, Json};
use serde::Deserialize;
use serde_json::Value;

use super::super::ApiState;
use super::super::auth::Access;
use super::super::error::Problem;
use super::super::input::{OptionalBody, Path, Query, run_at};
use super::contents::payload_of;
use super::job_view::JobView;
use super::jobs::{Named, find_readable_job};
use carillon_core::job::{Admission, JobId, NewJob, Spec, new_seed};
use carillon_engine::intake::TimeInput;

/// Options of a copy.
#[derive(Debug, Default, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CopyInput {
    /// Time when the copy is due: RFC 3339, Unix seconds, or `+90s`. Default: now.
    #[schema(value_type = Option<TimeInput>)]
    run_at: Option<Value>,
}

/// Copies a job: makes a new job with the same request, whatever the state of the original. The copy has its own id and attempts, its time to
/// live starts anew, and its `parent` is the original.
#[utoipa::path(post, path = "/v1/jobs/{id}/copy", operation_id = "jobs_copy", tag = "jobs", params(Named), request_body = Option<CopyInput>,
    responses((status = 201, body = JobView), (status = "4XX", body = Problem)))]
pub(in super::super) async fn copy(
    State(api): State<Arc<ApiState>>,
    Extension(access): Extension<Access>,
    Path(id): Path<String>,
    Query(named): Query<Named>,
    OptionalBody(doc): OptionalBody<CopyInput>,
) -> Result<(StatusCode, Json<JobView>), Problem> {
    let job = find_readable_job(&api, &access, &id, &named).await?;
    let group = api.services.catalog.group_by_id(job.group).ok_or_else(|| Problem::unknown("job", &id))?;
    let now = api.services.clock.now();
    let run_at = run_at(doc.run_at.as_ref(), now, api.intake.limits.horizon)?;
    let deadline = job.deadline.map(|deadline| now.plus(deadline.since(job.created_at)));
    if deadline.is_some_and(|deadline| run_at > deadline) {
        return Err(Problem::invalid("/run_at", "the job would expire (`limits.ttl`) before it is due"));
    }
    let (body, id) = (payload_of(&api, &job).await?, JobId::new(&*api.services.clock));
    let copy = NewJob {
        id,
        tenant: job.tenant,
        group: job.group,
        name: job.name,
        run_at,
        created_at: now,
        deadline,
        max_delay: job.max_delay,
        priority: job.priority,
        order_key: job.order_key,
        admission: Admission::Always,
        seed: new_seed(&*api.services.clock),
        spec: Spec { parent: Some(job.id), binding: api.services.catalog.pinned(group.id, id), ..job.spec },
        body,
    };
    let shown = copy.clone().shown();
    api.intake.accept(access.tenant.id, vec![copy].into()).await?;
    Ok((StatusCode::CREATED, Json(JobView::new(shown, group.name.clone()))))
}
