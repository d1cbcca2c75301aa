//! Jobs: make them and look at them.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::super::ApiState;
use super::super::auth::Access;
use super::super::error::Problem;
use super::super::idempotency::{Answer, Idempotent};
use super::super::input::{Path, Query, parse_body};
use super::super::query::labels;
use super::super::scope::is_visible;
use super::disclosure::Disclosure;
use super::job_filter::FilterInput;
use super::job_lists::{Scope, job_len, job_page, read_jobs};
use super::job_view::{JobView, job_view};
use super::{Page, Paging, find_group, foreign_cursor, page_size};
use carillon_core::job::{Admission, GroupId, Job, JobId, NewJob};
use carillon_core::limits::ByteLimit;
use carillon_engine::intake::JobInput;
use carillon_store::{Insert, InsertOutcome, InsertResult, JobFilter, JobsQuery, StoreError};

/// In the filter of a list over all groups.
const NO_GROUP: GroupId = GroupId(0);

/// Makes a job.
///
/// The job is stored durably when the server responds with 201. The status 200 means that another job stands for it (`dedupe_key`,
/// `debounce_seconds`). A repetition with the same `Idempotency-Key` within 24 hours returns the same response and makes no job.
#[utoipa::path(post, path = "/v1/groups/{group}/jobs", operation_id = "jobs_create", tag = "jobs", request_body = JobInput,
    params(("Idempotency-Key" = Option<String>, Header, description = "Key that makes the request safe to repeat: 1 to 255 visible ASCII characters, kept for 24 hours.")),
    responses((status = 201, body = JobView), (status = 200, body = JobView), (status = "4XX", body = Problem)))]
pub(in super::super) async fn create(
    State(api): State<Arc<ApiState>>,
    Extension(access): Extension<Access>,
    Path(group): Path<String>,
    request: Idempotent<JobInput>,
) -> Result<Response, Problem> {
    let group = find_group(&api, &access, &group)?;
    let job = api.intake.new_job(&group, request.doc, api.services.clock.now(), &mut access.validation()).await?;
    let (name, posted) = (group.name.clone(), job.clone());
    let answer = move |placed: &[InsertOutcome]| {
        let stored = placed.iter().all(|placed| matches!(placed, InsertOutcome::Stored { .. }));
        let view = placed.first().map(|placed| JobView::placed(posted.clone(), placed, name.clone()));
        Answer::new(if stored { StatusCode::CREATED } else { StatusCode::OK }, &view)
    };
    insert_jobs(&api, &access, vec![job], request.key, answer).await
}

/// Batch of jobs.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BatchInput {
    /// Jobs: 1 to 10,000, if `server.batch_limit` has its default.
    #[schema(value_type = Vec<JobInput>, min_items = 1, max_items = 10_000)]
    jobs: Vec<Box<RawValue>>,
}

/// Jobs of a batch that are compared with others before they are stored. A batch is one transaction, in which every other caller waits:
/// such a job takes about 70 µs of it, any other 3.
const MAX_CONDITIONAL_JOBS: usize = 1_000;

/// Ids of the jobs of a batch, in its order.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct BatchView {
    /// Ids of the jobs.
    ids: Vec<String>,
    /// Number of ids that belong to other jobs, which stand for the posted ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    instead: Option<usize>,
}

impl BatchView {
    fn new(posted: &[JobId], placed: &[InsertOutcome]) -> Self {
        let id = |(posted, placed): (&JobId, &InsertOutcome)| match placed {
            InsertOutcome::Stored { .. } | InsertOutcome::Skipped | InsertOutcome::TickSkipped(_) => posted.to_string(),
            InsertOutcome::Duplicate(other)
            | InsertOutcome::Debounced(other)
            | InsertOutcome::Carried { job: other, .. } => other.id.to_string(),
        };
        let instead = placed.iter().filter(|placed| !matches!(placed, InsertOutcome::Stored { .. })).count();
        Self { ids: posted.iter().zip(placed).map(id).collect(), instead: (instead > 0).then_some(instead) }
    }
}

/// Makes many jobs: all of them or none. `Idempotency-Key` applies to the whole batch.
#[utoipa::path(post, path = "/v1/groups/{group}/jobs/batch", operation_id = "jobs_create_batch", tag = "jobs", request_body = BatchInput,
    params(("Idempotency-Key" = Option<String>, Header, description = "Key that makes the request safe to repeat: 1 to 255 visible ASCII characters, kept for 24 hours.")),
    responses((status = 201, body = BatchView), (status = "4XX", body = Problem)))]
pub(in super::super) async fn create_batch(
    State(api): State<Arc<ApiState>>,
    Extension(access): Extension<Access>,
    Path(group): Path<String>,
    request: Idempotent<BatchInput>,
) -> Result<Response, Problem> {
    let (group, batch) = (find_group(&api, &access, &group)?, request.doc);
    if batch.jobs.is_empty() || batch.jobs.len() > api.config.limits.batch {
        return Err(Problem::invalid(
            "/jobs",
            format!("`jobs` must have 1 to {} entries (`server.batch_limit`)", api.config.limits.batch),
        ));
    }
    let (now, mut checked) = (api.services.clock.now(), access.validation());
    let single = ByteLimit { bytes: api.config.limits.single, setting: "server.payload_limit" };
    let mut jobs = Vec::with_capacity(batch.jobs.len());
    for (index, doc) in batch.jobs.iter().enumerate() {
        let (place, text) = (format!("/jobs/{index}"), doc.get().as_bytes());
        single.check("job", &place, text.len()).map_err(|exceeded| Problem::exceeded(&exceeded))?;
        // Other requests come in between.
        tokio::task::consume_budget().await;
        let doc = parse_body(Bytes::copy_from_slice(text)).await.map_err(|error| error.inside(&place))?;
        jobs.push(api.intake.new_job(&group, doc, now, &mut checked).await.map_err(|error| error.inside(&place))?);
    }
    let conditional = jobs.iter().filter(|job| job.admission != Admission::Always).count();
    if conditional > MAX_CONDITIONAL_JOBS {
        let detail = format!(
            "a batch must have at most {MAX_CONDITIONAL_JOBS} jobs with `dedupe_key`, `debounce_seconds` or `replace`, not {conditional}: send \
             several batches"
        );
        return Err(Problem::invalid("/jobs", detail));
    }
    let posted: Vec<JobId> = jobs.iter().map(|job| job.id).collect();
    let answer = move |placed: &[InsertOutcome]| Answer::new(StatusCode::CREATED, &BatchView::new(&posted, placed));
    insert_jobs(&api, &access, jobs, request.key, answer).await
}

/// Filter of jobs.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(in super::super) struct FilterParams {
    /// Only jobs in this state.
    #[param(value_type = Option<carillon_core::job::State>)]
    state: Option<String>,
    /// Only jobs with exactly this name.
    name: Option<String>,
    /// Only jobs whose name begins with this text.
    name_prefix: Option<String>,
    /// Only jobs that were accepted at this time (RFC 3339) or later.
    #[param(format = DateTime)]
    created_from: Option<String>,
    /// Only jobs that were accepted before this time (RFC 3339).
    #[param(format = DateTime)]
    created_before: Option<String>,
    /// Only jobs that are, or last were, due at this time (RFC 3339) or later.
    #[param(format = DateTime)]
    due_from: Option<String>,
    /// Only jobs that are, or last were, due before this time (RFC 3339).
    #[param(format = DateTime)]
    due_before: Option<String>,
    /// Only jobs with exactly this URL.
    url: Option<String>,
    /// Only jobs whose URL begins with this text.
    url_prefix: Option<String>,
    /// Only jobs with exactly this order key.
    order_key: Option<String>,
}

/// Filter of jobs by labels, as query parameters.
#[derive(Debug, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "only described: its members are read by their names")]
pub(in super::super) struct LabelParams {
    /// Only jobs with all of these labels: `metadata[KEY]=VALUE` or `metadata.KEY=VALUE`. `a.b` means the label `b` in the namespace `a`.
    #[param(style = DeepObject, explode)]
    metadata: Option<BTreeMap<String, String>>,
}

/// Lists a group's jobs, newest first.
#[utoipa::path(get, path = "/v1/groups/{group}/jobs", operation_id = "jobs_list", tag = "jobs", params(FilterParams, LabelParams, Paging),
    responses((status = 200, body = Page<JobView>), (status = "4XX", body = Problem)))]
pub(in super::super) async fn list(
    State(api): State<Arc<ApiState>>,
    Extension(access): Extension<Access>,
    Path(group): Path<String>,
    Query(params): Query<FilterParams>,
    Query(all): Query<Vec<(String, String)>>,
    Query(paging): Query<Paging>,
) -> Result<Json<Page<JobView>>, Problem> {
    let group = find_group(&api, &access, &group)?;
    let size = page_size(&api, &paging)?;
    let filter = params.filter(&all)?.into_filter(&access, group.id, &api.config.limits).map_err(Problem::in_query)?;
    let query = JobsQuery { filter, before: before(&paging)?, limit: size.count + 1 };
    let jobs = read_jobs(&api, query, Scope::Group, job_len).await?;
    Ok(Json(job_page(&api, &access, jobs, size)))
}

/// Lists the jobs of all groups of the tenant, newest first.
#[utoipa::path(get, path = "/v1/jobs", operation_id = "jobs_list_all", tag = "jobs", params(FilterParams, LabelParams, Paging),
    responses((status = 200, body = Page<JobView>), (status = "4XX", body = Problem)))]
pub(in super::super) async fn list_all(
    State(api): State<Arc<ApiState>>,
    Extension(access): Extension<Access>,
    Query(params): Query<FilterParams>,
    Query(all): Query<Vec<(String, String)>>,
    Query(paging): Query<Paging>,
) -> Result<Json<Page<JobView>>, Problem> {
    let size = page_size(&api, &paging)?;
    let filter = params.filter(&all)?.into_filter(&access, NO_GROUP, &api.config.limits).map_err(Problem::in_query)?;
    let query = JobsQuery { filter, before: before(&paging)?, limit: size.count + 1 };
    let jobs = read_jobs(&api, query, Scope::Visible(&access), job_len).await?;
    Ok(Json(job_page(&api, &access, jobs, size)))
}

/// The job that a page ended with.
fn before(paging: &Paging) -> Result<Option<JobId>, Problem> {
    paging.cursor.as_deref().map(str::parse).transpose().map_err(|_| foreign_cursor())
}

impl FilterParams {
    fn filter(self, query: &[(String, String)]) -> Result<FilterInput, Problem> {
        let state = self.state.as_deref().map(str::parse).transpose();
        Ok(FilterInput {
            state: state.map_err(|error: String| Problem::parameter("state", error))?,
            name: self.name,
            name_prefix: self.name_prefix,
            created_from: self.created_from,
            created_before: self.created_before,
            due_from: self.due_from,
            due_before: self.due_before,
            url: self.url,
            url_prefix: self.url_prefix,
            order_key: self.order_key,
            metadata: labels(query).collect(),
        })
    }
}

/// Reading of the id in a path.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(in super::super) struct Named {
    /// Name of a group. If it is given, the path has a job's name in place of its id: the newest job of that name in the group is meant, an
    /// unfinished one first.
    group: Option<String>,
}

/// A stored job that a path means.
pub(super) enum FoundJob {
    Readable(Box<Job>),
    Unreadable(JobId),
}

impl FoundJob {
    pub(super) fn id(&self) -> JobId {
        match self {
            Self::Readable(job) => job.id,
            Self::Unreadable(id) => *id,
        }
    }
}

/// Shows a job. One that is stored and cannot be read is a 409 (`unreadable-job`).
#[utoipa::path(get, path = "/v1/jobs/{id}", operation_id = "jobs_get", tag = "jobs", params(Named),
    responses((status = 200, body = JobView), (status = "4XX", body = Problem)))]
pub(in super::super) async fn get(
    State(api): State<Arc<ApiState>>,
    Extension(access): Extension<Access>,
    Path(id): Path<String>,
    Query(named): Query<Named>,
) -> Result<Json<JobView>, Problem> {
    let job = find_readable_job(&api, &access, &id, &named).await?;
    Ok(Json(job_view(&api, job).disclosed(Disclosure::from(&access))))
}

/// The job that a path means.
pub(super) async fn find_readable_job(
    api: &ApiState,
    access: &Access,
    id: &str,
    named: &Named,
) -> Result<Job, Problem> {
    match find_job(api, access, id, named).await? {
        FoundJob::Readable(job) => Ok(*job),
        FoundJob::Unreadable(id) => Err(Problem::unreadable_job(id)),
    }
}

/// The job that a path means, also if it cannot be read.
pub(super) async fn find_job(api: &ApiState, access: &Access, id: &str, named: &Named) -> Result<FoundJob, Problem> {
    let unknown = || Problem::unknown("job", id);
    let Some(group) = &named.group else {
        let parsed = id.parse().map_err(|_| unknown())?;
        return match api.services.store.job(access.tenant.id, parsed).await {
            // Its group cannot be read either.
            Err(StoreError::Unreadable(_)) if access.groups.is_some() => Err(unknown()),
            Err(StoreError::Unreadable(id)) => Ok(FoundJob::Unreadable(id)),
            found => {
                let visible = found?.filter(|job| is_visible(api, access, job.group));
                Ok(FoundJob::Readable(Box::new(visible.ok_or_else(unknown)?)))
            }
        };
    };
    let group = find_group(api, access, group)?;
    let all = JobFilter { name: Some(id.to_owned()), ..JobFilter::all(access.tenant.id, group.id) };
    use carillon_core::job::State::{Running, Scheduled};
    for state in [Some(Running), Some(Scheduled), None] {
        let filter = JobFilter { state, ..all.clone() };
        if let Some(job) = api.services.store.jobs(JobsQuery { filter, before: None, limit: 1 }).await?.pop() {
            return Ok(FoundJob::Readable(Box::new(job)));
        }
    }
    Err(unknown())
}

/// Stores the jobs of one request, and answers it.
pub(super) async fn insert_jobs(
    api: &ApiState,
    access: &Access,
    jobs: Vec<NewJob>,
    key: Option<super::super::idempotency::Key>,
    answer: impl Fn(&[InsertOutcome]) -> Answer + Send + Sync + 'static,
) -> Result<Response, Problem> {
    let now = api.services.clock.now();
    let answer = Arc::new(answer);
    let kept = Arc::clone(&answer);
    let once = key.map(|key| key.once(access.tenant.id, now, move |placed| kept(placed).to_string()));
    match api.intake.accept(access.tenant.id, Insert { jobs, once }).await? {
        InsertResult::Placed(placed) => Ok(answer(&placed).into_response()),
        InsertResult::Replayed(kept) => Answer::replay(&kept),
    }
}
