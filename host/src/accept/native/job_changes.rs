//! What can be done to a job that exists: cancel it, move it, run it now, try it again, edit it.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::{Extension, Json};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::super::Api;
use super::super::auth::Access;
use super::super::error::Problem;
use super::super::input::{Body, Path, Query, parse, run_at};
use super::job_doc::JobDoc;
use super::job_view::JobView;
use super::jobs::Named;
use super::new_job::Checked;
use crate::clock::UnixMs;
use crate::job::{Job, Spec, State as JobState, Target};
use crate::policy::binding::pointer_to;
use crate::store::{Change, Changed, Edit};

/// Cancels a job. One that runs is cancelled when its attempt is over, unless that succeeds: then the answer is 202.
#[utoipa::path(delete, path = "/v1/jobs/{id}", tag = "jobs", params(Named),
    responses((status = 200, body = JobView), (status = 202, body = JobView), (status = "4XX", body = Problem)))]
pub(in super::super) async fn cancel(
    State(api): State<Arc<Api>>,
    Extension(access): Extension<Access>,
    Path(id): Path<String>,
    Query(named): Query<Named>,
) -> Result<(StatusCode, Json<JobView>), Problem> {
    let job = api.job(&access, &id, &named).await?;
    let status = match api.change(&access, &job, Change::Cancel).await? {
        Changed::Done | Changed::Not(JobState::Cancelled) => StatusCode::OK,
        Changed::Requested => StatusCode::ACCEPTED,
        other => return Err(refused(other, &id)),
    };
    Ok((status, api.shown(&access, &job).await?))
}

/// Lets a waiting job run now.
#[utoipa::path(post, path = "/v1/jobs/{id}/run", tag = "jobs", params(Named),
    responses((status = 200, body = JobView), (status = "4XX", body = Problem)))]
pub(in super::super) async fn run(
    state: State<Arc<Api>>,
    access: Extension<Access>,
    id: Path<String>,
    named: Query<Named>,
) -> Result<Json<JobView>, Problem> {
    due_now(state, access, id, named, Change::Reschedule).await
}

/// Redrives a dead letter or an expired job: it is tried again from now on, with a fresh series of attempts.
#[utoipa::path(post, path = "/v1/jobs/{id}/retry", tag = "jobs", params(Named),
    responses((status = 200, body = JobView), (status = "4XX", body = Problem)))]
pub(in super::super) async fn retry(
    state: State<Arc<Api>>,
    access: Extension<Access>,
    id: Path<String>,
    named: Query<Named>,
) -> Result<Json<JobView>, Problem> {
    due_now(state, access, id, named, Change::Redrive).await
}

async fn due_now(
    State(api): State<Arc<Api>>,
    Extension(access): Extension<Access>,
    Path(id): Path<String>,
    Query(named): Query<Named>,
    change: fn(UnixMs) -> Change,
) -> Result<Json<JobView>, Problem> {
    let job = api.job(&access, &id, &named).await?;
    api.changed(&access, &job, change(api.clock.now())).await
}

/// When a job is to be due.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RescheduleDoc {
    /// RFC 3339, Unix seconds, or `+90s`; now if it is past.
    #[schema(value_type = String)]
    run_at: Value,
}

/// Moves a waiting job to another time.
#[utoipa::path(post, path = "/v1/jobs/{id}/reschedule", tag = "jobs", params(Named), request_body = RescheduleDoc,
    responses((status = 200, body = JobView), (status = "4XX", body = Problem)))]
pub(in super::super) async fn reschedule(
    State(api): State<Arc<Api>>,
    Extension(access): Extension<Access>,
    Path(id): Path<String>,
    Query(named): Query<Named>,
    Body(doc): Body<RescheduleDoc>,
) -> Result<Json<JobView>, Problem> {
    let job = api.job(&access, &id, &named).await?;
    let at = run_at(Some(&doc.run_at), api.clock.now(), api.limits.horizon)?;
    if job.deadline.is_some_and(|deadline| at > deadline) {
        return Err(Problem::invalid("/run_at", "the job would expire (`limits.ttl`) before it is due"));
    }
    api.changed(&access, &job, Change::Reschedule(at)).await
}

/// Changes a waiting job: what is in the document replaces what the job has, and null takes it away (RFC 7396). Its time to live, its
/// order key and its conditions stay as they are.
#[utoipa::path(patch, path = "/v1/jobs/{id}", tag = "jobs", params(Named), request_body = JobDoc,
    responses((status = 200, body = JobView), (status = "4XX", body = Problem)))]
pub(in super::super) async fn edit(
    State(api): State<Arc<Api>>,
    Extension(access): Extension<Access>,
    Path(id): Path<String>,
    Query(named): Query<Named>,
    Body(patch): Body<Patch>,
) -> Result<Json<JobView>, Problem> {
    let job = api.job(&access, &id, &named).await?;
    let edit = api.edit(&job, &patch).await?;
    api.changed(&access, &job, Change::Edit(Box::new(edit))).await
}

/// The fields of a patch, as they are written: a payload is sent byte for byte.
type Patch = BTreeMap<String, Box<RawValue>>;

/// The parts of a job that can be edited.
const EDITABLE: [&str; 13] = [
    "url",
    "method",
    "headers",
    "payload",
    "payload_text",
    "payload_base64",
    "run_at",
    "name",
    "metadata",
    "metadata_headers",
    "policy",
    "priority",
    "limits",
];

/// The three forms of a payload, of which a job has one.
const PAYLOADS: [&str; 3] = ["payload", "payload_text", "payload_base64"];

impl Api {
    /// The edit that a patch means: the job's own document, patched, and checked as a new one is.
    async fn edit(&self, job: &Job, fields: &Patch) -> Result<Edit, Problem> {
        let patch: Value = parse(&serde_json::to_vec(fields).unwrap_or_default())?;
        if let Some(field) = fields.keys().find(|field| !EDITABLE.contains(&field.as_str())) {
            let detail = format!("this cannot be edited; {} can", EDITABLE.join(", "));
            return Err(Problem::invalid(pointer_to(field), detail));
        }
        if let Some(limit) = ["ttl", "max_delay"].into_iter().find(|limit| !patch["limits"][limit].is_null()) {
            return Err(Problem::invalid(format!("/limits/{limit}"), "of the limits, only `timeout` can be edited"));
        }
        let group = self.catalog.group_by_id(job.group).ok_or_else(|| Problem::conflict("its group was deleted"))?;
        let mut doc = document(job);
        json_patch::merge(&mut doc, &patch);
        let doc: JobDoc = parse(doc.to_string().as_bytes())?;
        let draft = self.draft(&group, &doc, &mut Checked::default(), 0).await?;
        let at = match patch.get("run_at") {
            Some(at) => run_at(Some(at), self.clock.now(), self.limits.horizon)?,
            None => job.run_at,
        };
        if job.deadline.is_some_and(|deadline| at > deadline) {
            return Err(Problem::invalid("/run_at", "the job would expire (`limits.ttl`) before it is due"));
        }
        let has_payload = fields.keys().any(|field| PAYLOADS.contains(&field.as_str()));
        let as_written = fields.get("payload").filter(|payload| payload.get() != "null" && draft.spec.is_json);
        let body = as_written.map_or(draft.body, |payload| Bytes::copy_from_slice(payload.get().as_bytes()));
        if body.len() > self.limits.payload {
            return Err(Problem::invalid("/payload", format!("this server takes {} bytes", self.limits.payload)));
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
            body: has_payload.then_some(body),
        })
    }

    /// Asks the store for one change.
    async fn change(&self, access: &Access, job: &Job, change: Change) -> Result<Changed, Problem> {
        let changed = self.bulks.change(access.tenant.id, std::slice::from_ref(job), &change).await?;
        Ok(changed.first().copied().unwrap_or(Changed::Unknown))
    }

    /// Makes a change, and shows the job after it.
    async fn changed(&self, access: &Access, job: &Job, change: Change) -> Result<Json<JobView>, Problem> {
        match self.change(access, job, change).await? {
            Changed::Done => self.shown(access, job).await,
            other => Err(refused(other, &job.id.to_string())),
        }
    }

    async fn shown(&self, access: &Access, job: &Job) -> Result<Json<JobView>, Problem> {
        let id = job.id.to_string();
        let job = self.store.job(access.tenant.id, job.id).await?.ok_or_else(|| Problem::unknown("job", &id))?;
        Ok(Json(self.job_view(job)))
    }
}

fn refused(changed: Changed, id: &str) -> Problem {
    match changed {
        Changed::Unknown => Problem::unknown("job", id),
        Changed::Stale => Problem::conflict("the job was edited in the same moment; look at it and try again"),
        Changed::Not(state) => Problem::conflict(format!("the job is {state}")),
        Changed::Done | Changed::Requested => Problem::conflict("the job is running"),
    }
}

/// A job as it could have been posted, but for its payload.
fn document(job: &Job) -> Value {
    let spec = &job.spec;
    let timeout = spec.timeout_ms.map(|ms| format!("{ms}ms"));
    let mut doc = serde_json::json!({
        "name": job.name,
        "metadata": spec.metadata,
        "metadata_headers": spec.metadata_headers,
        "policy": spec.policy,
        "priority": u8::from(job.priority),
        "limits": {"timeout": timeout},
    });
    if let Some(Target { method, url, headers }) = &spec.target {
        doc["url"] = url.clone().into();
        doc["method"] = method.clone().into();
        doc["headers"] = headers.iter().map(|(name, value)| (name.clone(), Value::from(value.clone()))).collect();
    }
    doc
}
