//! A job as it is shown.

use serde::Serialize;

use super::super::ApiState;
use super::disclosure::Disclosure;
use carillon_core::clock::UnixMs;
use carillon_core::error_code::ErrorCode;
use carillon_core::job::{Job, Metadata, NewJob, Priority, State as JobState, Target, shown_url};
use carillon_engine::intake::headers::HeaderView;
use carillon_store::InsertOutcome;

/// Job, as the API returns it.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct JobView {
    /// Id of the job, which is also the `Idempotency-Key` of each of its requests.
    id: String,
    /// Name of its group.
    group: String,
    /// Name that the client gave it.
    name: Option<String>,
    /// State of the job.
    state: JobState,
    /// Time when the next attempt is due, or when the last one was.
    #[schema(format = DateTime)]
    run_at: String,
    /// Priority, 0 to 9: due jobs of priority 9 start first.
    priority: Priority,
    /// Order key: jobs of the group with the same key are tried one at a time.
    order_key: Option<String>,
    /// Time of acceptance.
    #[schema(format = DateTime)]
    created_at: String,
    /// Time when the job reached its final state; null until then.
    #[schema(format = DateTime)]
    finished_at: Option<String>,
    /// Deadline, which follows from `limits.ttl` and `limits.max_delay`: the job ends as `expired` if no attempt has begun by then.
    #[schema(format = DateTime)]
    deadline: Option<String>,
    /// Number of spent attempts.
    attempt_count: u32,
    /// HTTP status of the newest response.
    last_status: Option<u16>,
    /// Code of the newest error.
    #[schema(value_type = Option<String>)]
    last_error: Option<ErrorCode>,
    /// Whether the job will be cancelled instead of retried.
    cancel_requested: bool,
    /// Labels that the client gave it.
    metadata: Metadata,
    /// Whether the labels are sent as headers.
    metadata_headers: bool,
    /// Seed of the randomness of its attempts. A simulation with the same seed returns the same times.
    seed: u32,
    /// Id of the job that it follows, or that it was copied from.
    #[serde(skip_serializing_if = "Option::is_none")]
    parent: Option<String>,
    /// Version of the group's policy that the job keeps; only if the group pins its jobs.
    #[serde(skip_serializing_if = "Option::is_none")]
    binding: Option<i64>,
    /// Request to be delivered, before any policy is applied; null for a job that consumers pull.
    request: Option<RequestView>,
    /// Size of the payload in bytes.
    payload_bytes: u64,
    /// Reason why this is another job than the posted one: `duplicate` or `debounced`.
    #[serde(skip_serializing_if = "Option::is_none")]
    instead: Option<&'static str>,
}

/// Request to be delivered.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct RequestView {
    /// HTTP method.
    method: String,
    /// URL, as the client wrote it. A password in it is shown as `***`.
    url: String,
    /// Headers that the client gave, and the content type of a JSON payload.
    headers: Vec<HeaderView>,
}

/// Returns the view of a job, with the name of its group.
pub(super) fn job_view(api: &ApiState, job: Job) -> JobView {
    let group = api.services.catalog.group_by_id(job.group).map(|group| group.name.clone()).unwrap_or_default();
    JobView::new(job, group)
}

impl JobView {
    pub(super) fn new(job: Job, group: String) -> Self {
        let time = |at: UnixMs| at.to_string();
        let deadline = job.expires_at().map(time);
        let is_json = job.spec.is_json;
        let request = |target: Target| RequestView {
            headers: target.headers_for(is_json).into_iter().map(HeaderView::from).collect(),
            method: target.method,
            url: shown_url(&target.url),
        };
        Self {
            id: job.id.to_string(),
            group,
            name: job.name,
            state: job.state,
            run_at: time(job.run_at),
            priority: job.priority,
            order_key: job.order_key,
            created_at: time(job.created_at),
            finished_at: job.finished_at.map(time),
            deadline,
            attempt_count: job.attempt_count,
            last_status: job.last_status,
            last_error: job.last_error,
            cancel_requested: job.cancel_requested,
            metadata: job.spec.metadata,
            metadata_headers: job.spec.metadata_headers,
            seed: job.seed,
            parent: job.spec.parent.map(|id| id.to_string()),
            binding: job.spec.binding,
            request: job.spec.target.map(request),
            payload_bytes: job.body_len,
            instead: None,
        }
    }

    /// What became of a posted job.
    pub(super) fn placed(job: NewJob, placed: &InsertOutcome, group: String) -> Self {
        match placed {
            InsertOutcome::Stored { run_at, .. } => Self::new(NewJob { run_at: *run_at, ..job }.shown(), group),
            InsertOutcome::Duplicate(other) => {
                Self { instead: Some("duplicate"), ..Self::new((**other).clone(), group) }
            }
            InsertOutcome::Debounced(other) | InsertOutcome::Carried { job: other, .. } => {
                Self { instead: Some("debounced"), ..Self::new((**other).clone(), group) }
            }
            InsertOutcome::Skipped | InsertOutcome::TickSkipped(_) => Self::new(job.shown(), group),
        }
    }

    /// The same as somebody sees it who may see so much.
    pub(super) fn disclosed(mut self, disclosure: Disclosure) -> Self {
        if let Some(request) = &mut self.request {
            request.url = disclosure.url(&request.url);
            let headers = std::mem::take(&mut request.headers).into_iter();
            request.headers = headers.map(|header| disclosure.header((header.name, header.value))).collect();
        }
        self
    }

    /// Its id, as a cursor.
    pub(super) fn cursor(&self) -> String {
        self.id.clone()
    }
}
