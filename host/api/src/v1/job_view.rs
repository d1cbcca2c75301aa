//! A job as it is shown.

use serde::Serialize;

use super::disclosure::Disclosure;
use carillon_core::clock::UnixMs;
use carillon_core::job::{Job, Metadata, NewJob, Priority, State as JobState, Target, shown_url};
use carillon_engine::intake::headers::HeaderView;
use carillon_store::InsertOutcome;

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
    #[schema(format = DateTime)]
    run_at: String,
    /// Which of the group's due jobs go first: 9 before 0.
    priority: Priority,
    /// The group's jobs of one key are tried one at a time.
    order_key: Option<String>,
    /// When it was accepted.
    #[schema(format = DateTime)]
    created_at: String,
    /// When it reached its final state.
    #[schema(format = DateTime)]
    finished_at: Option<String>,
    /// It ends as `expired` if no attempt has begun by then: its time to live is over, or it is too long after `run_at`.
    #[schema(format = DateTime)]
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
    /// The job that it follows, or that it was copied from.
    #[serde(skip_serializing_if = "Option::is_none")]
    parent: Option<String>,
    /// The version of its group's policy that it keeps, if its group pins its jobs.
    #[serde(skip_serializing_if = "Option::is_none")]
    binding: Option<i64>,
    /// What is to be delivered, before any policy; null for a job to be pulled.
    request: Option<RequestView>,
    /// The length of its payload.
    payload_bytes: u64,
    /// Whether this is another job than the posted one, and why: `duplicate` or `debounced`.
    #[serde(skip_serializing_if = "Option::is_none")]
    instead: Option<&'static str>,
}

/// What is to be delivered.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct RequestView {
    /// The method.
    method: String,
    /// The URL, in the client's spelling. Its password, if it has one, is shown as `***`.
    url: String,
    /// The headers that the client gave, and the type of a JSON payload.
    headers: Vec<HeaderView>,
}

impl JobView {
    pub(super) fn of(job: Job, group: String) -> Self {
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
            InsertOutcome::Stored { run_at, .. } => Self::of(NewJob { run_at: *run_at, ..job }.shown(), group),
            InsertOutcome::Duplicate(other) => {
                Self { instead: Some("duplicate"), ..Self::of((**other).clone(), group) }
            }
            InsertOutcome::Debounced(other) | InsertOutcome::Carried { job: other, .. } => {
                Self { instead: Some("debounced"), ..Self::of((**other).clone(), group) }
            }
            InsertOutcome::Skipped | InsertOutcome::TickSkipped(_) => Self::of(job.shown(), group),
        }
    }

    /// The same as somebody sees it who may see so much.
    pub(super) fn disclosed(mut self, disclosure: Disclosure) -> Self {
        if let Some(request) = &mut self.request {
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
