//! The attempts of a job.

use std::sync::Arc;

use axum::extract::State;
use axum::{Extension, Json};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;

use super::super::Api;
use super::super::auth::Access;
use super::super::error::Problem;
use super::super::input::{Path, Query};
use super::jobs::Named;
use super::{Page, Paging};
use crate::job::{AttemptDetail, AttemptRecord, State as JobState};

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
        // For replays.
        attempt.detail.inputs = None;
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
#[utoipa::path(get, path = "/v1/jobs/{id}/attempts", tag = "jobs", params(Named, Paging),
    responses((status = 200, body = Page<AttemptView>), (status = "4XX", body = Problem)))]
pub(in super::super) async fn list(
    State(api): State<Arc<Api>>,
    Extension(access): Extension<Access>,
    Path(id): Path<String>,
    Query(named): Query<Named>,
    Query(paging): Query<Paging>,
) -> Result<Json<Page<AttemptView>>, Problem> {
    let job = api.job(&access, &id, &named).await?;
    let limit = paging.limit()?;
    let after = paging.cursor.as_deref().map(str::parse).transpose();
    let after = after.map_err(|_| Problem::malformed(None, "`cursor` is not one that this server gave"))?;
    let attempts = api.store.attempts(access.tenant.id, job.id, after.unwrap_or(0), limit + 1).await?;
    let views = attempts.into_iter().map(AttemptView::of).collect();
    Ok(Json(Page::cut(views, limit, |attempt| attempt.number.to_string())))
}
