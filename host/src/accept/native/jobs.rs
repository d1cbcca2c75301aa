//! Jobs: make them, look at them, cancel them.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::{Extension, Json};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::super::Api;
use super::super::auth::Access;
use super::super::error::Problem;
use super::super::input::{Body, Path, Query, parse};
use super::new_job::{Checked, JobDoc};
use super::{Page, Paging};
use crate::clock::UnixMs;
use crate::job::{AttemptDetail, AttemptRecord, Job, JobId, Metadata, NewJob, State as JobState};
use crate::observe::Fact;
use crate::store::{Cancelled, JobsQuery};

/// A job as it is shown.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct JobView {
    /// The job's id, which is also its `Idempotency-Key` with every attempt.
    id: String,
    /// Its group.
    group: String,
    /// The client's own name for it.
    name: Option<String>,
    /// Where it stands.
    state: JobState,
    /// When its next attempt is, or its last one was, due.
    run_at: String,
    /// When it was accepted.
    created_at: String,
    /// When it reached its final state.
    finished_at: Option<String>,
    /// No attempt starts after this.
    deadline: Option<String>,
    /// How many attempts it has spent.
    attempt_count: u32,
    /// The status of the newest answer.
    last_status: Option<u16>,
    /// The code of the newest error.
    last_error: Option<String>,
    /// Whether it will be cancelled instead of retried.
    cancel_requested: bool,
    /// The client's labels.
    metadata: Metadata,
    /// Whether they go out as headers.
    metadata_headers: bool,
    /// The source of its attempts' randomness; a simulation with the same seed foretells the same times.
    seed: u32,
    /// What is to be delivered, before any policy.
    request: RequestView,
}

/// What is to be delivered.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct RequestView {
    method: String,
    url: String,
    headers: Vec<(String, String)>,
    payload_bytes: u64,
}

impl JobView {
    fn of(job: Job, group: String) -> Self {
        let time = |at: UnixMs| at.to_string();
        let target = job.spec.target;
        Self {
            id: job.id.to_string(),
            group,
            name: job.name,
            state: job.state,
            run_at: time(job.run_at),
            created_at: time(job.created_at),
            finished_at: job.finished_at.map(time),
            deadline: job.deadline.map(time),
            attempt_count: job.attempt_count,
            last_status: job.last_status,
            last_error: job.last_error,
            cancel_requested: job.cancel_requested,
            metadata: job.spec.metadata,
            metadata_headers: job.spec.metadata_headers,
            seed: job.seed,
            request: RequestView {
                method: target.method,
                url: target.url,
                headers: target.headers,
                payload_bytes: job.body_len,
            },
        }
    }
}

/// Makes a job. When this has answered 201, the job is safe.
#[utoipa::path(post, path = "/v1/groups/{group}/jobs", tag = "jobs", request_body = JobDoc,
    responses((status = 201, body = JobView), (status = "4XX", body = Problem)))]
pub(in super::super) async fn create(
    State(api): State<Arc<Api>>,
    Extension(access): Extension<Access>,
    Path(group): Path<String>,
    Body(doc): Body<JobDoc>,
) -> Result<(StatusCode, Json<JobView>), Problem> {
    let group = api.group(&access, &group)?;
    let job = api.new_job(&group, doc, api.clock.now(), &mut Checked::default()).await?;
    api.insert(vec![job.clone()]).await?;
    Ok((StatusCode::CREATED, Json(JobView::of(job.shown(), group.name.clone()))))
}

/// Several jobs at once.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BatchDoc {
    /// At most 10,000.
    #[schema(value_type = Vec<JobDoc>)]
    jobs: Vec<Box<RawValue>>,
}

/// The ids of the jobs of a batch, in its order.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct BatchView {
    ids: Vec<String>,
}

/// Makes many jobs, all or none.
#[utoipa::path(post, path = "/v1/groups/{group}/jobs/batch", tag = "jobs", request_body = BatchDoc,
    responses((status = 201, body = BatchView), (status = "4XX", body = Problem)))]
pub(in super::super) async fn create_batch(
    State(api): State<Arc<Api>>,
    Extension(access): Extension<Access>,
    Path(group): Path<String>,
    Body(batch): Body<BatchDoc>,
) -> Result<(StatusCode, Json<BatchView>), Problem> {
    let group = api.group(&access, &group)?;
    if batch.jobs.is_empty() || batch.jobs.len() > api.limits.batch {
        return Err(Problem::invalid("/jobs", format!("a batch has 1 to {} jobs", api.limits.batch)));
    }
    let (now, mut checked) = (api.clock.now(), Checked::default());
    let mut jobs = Vec::with_capacity(batch.jobs.len());
    for (index, doc) in batch.jobs.iter().enumerate() {
        let place = format!("/jobs/{index}");
        let doc = parse(doc.get().as_bytes()).map_err(|problem| problem.within(&place))?;
        jobs.push(api.new_job(&group, doc, now, &mut checked).await.map_err(|problem| problem.within(&place))?);
    }
    let ids = jobs.iter().map(|job| job.id.to_string()).collect();
    api.insert(jobs).await?;
    Ok((StatusCode::CREATED, Json(BatchView { ids })))
}

/// Which jobs of a group.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(in super::super) struct Filter {
    /// Only those in this state.
    state: Option<String>,
    /// Only those of exactly this name.
    name: Option<String>,
}

/// Lists a group's jobs, newest first.
#[utoipa::path(get, path = "/v1/groups/{group}/jobs", tag = "jobs", params(Filter, Paging),
    responses((status = 200, body = Page<JobView>), (status = "4XX", body = Problem)))]
pub(in super::super) async fn list(
    State(api): State<Arc<Api>>,
    Extension(access): Extension<Access>,
    Path(group): Path<String>,
    Query(filter): Query<Filter>,
    Query(paging): Query<Paging>,
) -> Result<Json<Page<JobView>>, Problem> {
    let group = api.group(&access, &group)?;
    let limit = paging.limit()?;
    let state = filter.state.as_deref().map(str::parse).transpose();
    let before = paging.cursor.as_deref().map(str::parse::<JobId>).transpose();
    let query = JobsQuery {
        tenant: access.tenant.id,
        group: group.id,
        state: state.map_err(|error| Problem::malformed(None, error))?,
        name: filter.name,
        before: before.map_err(|_| Problem::malformed(None, "`cursor` is not one that this server gave"))?,
        limit: limit + 1,
    };
    let jobs = api.store.jobs(query).await?;
    let views = jobs.into_iter().map(|job| JobView::of(job, group.name.clone())).collect();
    Ok(Json(Page::cut(views, limit, |job| job.id.clone())))
}

/// Shows a job.
#[utoipa::path(get, path = "/v1/jobs/{id}", tag = "jobs",
    responses((status = 200, body = JobView), (status = "4XX", body = Problem)))]
pub(in super::super) async fn get(
    State(api): State<Arc<Api>>,
    Extension(access): Extension<Access>,
    Path(id): Path<String>,
) -> Result<Json<JobView>, Problem> {
    let job = api.job(&access, &id).await?;
    let group = api.catalog.group_by_id(job.group).map(|group| group.name.clone()).unwrap_or_default();
    Ok(Json(JobView::of(job, group)))
}

/// Cancels a job. One that runs is cancelled when its attempt is over, unless that succeeds: then the answer is 202.
#[utoipa::path(delete, path = "/v1/jobs/{id}", tag = "jobs",
    responses((status = 200, body = JobView), (status = 202, body = JobView), (status = "4XX", body = Problem)))]
pub(in super::super) async fn cancel(
    State(api): State<Arc<Api>>,
    Extension(access): Extension<Access>,
    Path(id): Path<String>,
) -> Result<(StatusCode, Json<JobView>), Problem> {
    let parsed = id.parse().map_err(|_| Problem::unknown("job", &id))?;
    let now = api.clock.now();
    let cancelled = api.store.cancel(access.tenant.id, parsed, now).await?;
    if cancelled == Cancelled::Now {
        api.observer.tell(Fact::cancel(&api.job(&access, &id).await?, now));
    }
    let status = match cancelled {
        Cancelled::Now | Cancelled::Already(JobState::Cancelled) => StatusCode::OK,
        Cancelled::Requested => StatusCode::ACCEPTED,
        Cancelled::Already(state) => {
            return Err(Problem::conflict(format!("the job has ended already: it is {state}")));
        }
        Cancelled::Unknown => return Err(Problem::unknown("job", &id)),
    };
    let Json(view) = get(State(api), Extension(access), Path(id)).await?;
    Ok((status, Json(view)))
}

/// An attempt as it is shown.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct AttemptView {
    /// From 1.
    number: u32,
    /// When it began.
    started_at: String,
    /// When it was over.
    finished_at: String,
    /// The answer's status, if there was an answer.
    status: Option<u16>,
    /// The first bytes of the answer's body, if they are text.
    response_body: Option<String>,
    /// The same as base64, if they are not.
    #[serde(skip_serializing_if = "Option::is_none")]
    response_body_base64: Option<String>,
    /// The rest of what is known of it.
    #[serde(flatten)]
    detail: AttemptDetail,
    /// What became of the job, with the time of the next attempt.
    decision: Option<DecisionView>,
}

/// What became of the job after the attempt.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct DecisionView {
    /// The state that the job went to.
    state: JobState,
    /// When the next attempt is due.
    next_run_at: Option<String>,
    /// Why.
    reason: String,
}

impl AttemptView {
    fn of(mut attempt: AttemptRecord) -> Self {
        let text = String::from_utf8(attempt.response_body.to_vec());
        let base64 = text.is_err().then(|| STANDARD.encode(&attempt.response_body));
        let decision = attempt.detail.decision.take().map(|decision| DecisionView {
            state: decision.state,
            next_run_at: decision.next_run_at.map(|at| at.to_string()),
            reason: decision.reason,
        });
        Self {
            number: attempt.number,
            started_at: attempt.started_at.to_string(),
            finished_at: attempt.finished_at.to_string(),
            status: attempt.status,
            response_body: text.ok(),
            response_body_base64: base64,
            detail: attempt.detail,
            decision,
        }
    }
}

/// Lists a job's attempts, oldest first.
#[utoipa::path(get, path = "/v1/jobs/{id}/attempts", tag = "jobs", params(Paging),
    responses((status = 200, body = Page<AttemptView>), (status = "4XX", body = Problem)))]
pub(in super::super) async fn attempts(
    State(api): State<Arc<Api>>,
    Extension(access): Extension<Access>,
    Path(id): Path<String>,
    Query(paging): Query<Paging>,
) -> Result<Json<Page<AttemptView>>, Problem> {
    let job = api.job(&access, &id).await?;
    let limit = paging.limit()?;
    let after = paging.cursor.as_deref().map(str::parse).transpose();
    let after = after.map_err(|_| Problem::malformed(None, "`cursor` is not one that this server gave"))?;
    let attempts = api.store.attempts(access.tenant.id, job.id, after.unwrap_or(0), limit + 1).await?;
    let views = attempts.into_iter().map(AttemptView::of).collect();
    Ok(Json(Page::cut(views, limit, |attempt| attempt.number.to_string())))
}

impl Api {
    async fn job(&self, access: &Access, id: &str) -> Result<Job, Problem> {
        let unknown = || Problem::unknown("job", id);
        let parsed = id.parse().map_err(|_| unknown())?;
        self.store.job(access.tenant.id, parsed).await?.ok_or_else(unknown)
    }

    async fn insert(&self, jobs: Vec<NewJob>) -> Result<(), Problem> {
        let pushed = jobs.iter().map(Fact::push).collect();
        self.store.insert(jobs).await?;
        self.observer.accepted(pushed);
        self.wake.notify_one();
        Ok(())
    }
}
