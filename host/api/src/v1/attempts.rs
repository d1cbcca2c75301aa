//! The attempts of a job.

use std::sync::Arc;

use axum::extract::State;
use axum::{Extension, Json};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;

use super::super::ApiState;
use super::super::auth::Access;
use super::super::error::Problem;
use super::super::input::{Path, Query};
use super::disclosure::Disclosure;
use super::job_lists::read_attempts;
use super::jobs::{Named, find_job};
use super::{Page, Paging, foreign_cursor, page_size};
use carillon_core::job::{AttemptDetail, AttemptRecord, State as JobState};
use carillon_engine::intake::headers::HeaderView;

/// Attempt, as the API returns it.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct AttemptView {
    /// Number of the attempt, from 1.
    number: u32,
    /// Time when the attempt began.
    #[schema(format = DateTime)]
    started_at: String,
    /// Time when the attempt ended.
    #[schema(format = DateTime)]
    finished_at: String,
    /// HTTP status of the response; null if there was no response.
    status: Option<u16>,
    /// Recorded part of the response's body, if it is text.
    response_body: Option<String>,
    /// Recorded part of the response's body in base64, if it is not text.
    #[serde(skip_serializing_if = "Option::is_none")]
    response_body_base64: Option<String>,
    /// Headers of the response.
    response_headers: Vec<HeaderView>,
    /// Rest of the record.
    #[serde(flatten)]
    detail: AttemptDetail,
    /// Decision about the job after the attempt.
    decision: Option<DecisionView>,
}

/// Decision about the job after an attempt.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct DecisionView {
    /// State of the job after the attempt.
    state: JobState,
    /// Time when the next attempt is due; null if there is none.
    #[schema(format = DateTime)]
    next_run_at: Option<String>,
    /// Reason for the decision.
    reason: String,
}

impl AttemptView {
    fn from_record(mut attempt: AttemptRecord) -> Self {
        let text = kept_text(&attempt.response_body, attempt.detail.response_truncated);
        let base64 = text.is_none().then(|| STANDARD.encode(&attempt.response_body));
        let headers = std::mem::take(&mut attempt.detail.response_headers);
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
            response_body: text.map(str::to_owned),
            response_body_base64: base64,
            response_headers: headers.into_iter().map(HeaderView::from).collect(),
            detail: attempt.detail,
            decision,
        }
    }

    /// Returns the attempt as a reader with this access sees it.
    fn disclosed(mut self, disclosure: Disclosure) -> Self {
        for url in &mut self.detail.redirects {
            *url = disclosure.url(url);
        }
        let headers = std::mem::take(&mut self.response_headers).into_iter();
        self.response_headers = headers.map(|header| disclosure.response_header(header)).collect();
        self
    }
}

/// Returns the text of a body. If only its first bytes were kept, its last character may be incomplete, and is left out then.
fn kept_text(body: &[u8], is_cut: bool) -> Option<&str> {
    match std::str::from_utf8(body) {
        Ok(text) => Some(text),
        Err(error) if is_cut && error.error_len().is_none() => std::str::from_utf8(&body[..error.valid_up_to()]).ok(),
        Err(_) => None,
    }
}

/// Lists a job's attempts, oldest first.
#[utoipa::path(get, path = "/v1/jobs/{id}/attempts", operation_id = "attempts_list", tag = "jobs", params(Named, Paging),
    responses((status = 200, body = Page<AttemptView>), (status = "4XX", body = Problem)))]
pub(in super::super) async fn list(
    State(api): State<Arc<ApiState>>,
    Extension(access): Extension<Access>,
    Path(id): Path<String>,
    Query(named): Query<Named>,
    Query(paging): Query<Paging>,
) -> Result<Json<Page<AttemptView>>, Problem> {
    let job = find_job(&api, &access, &id, &named).await?;
    let size = page_size(&api, &paging)?;
    let after = paging.cursor.as_deref().map(str::parse).transpose();
    let after = after.map_err(|_| foreign_cursor())?;
    let attempts = read_attempts(&api, &access, job.id(), after.unwrap_or(0), size.count + 1).await?;
    let disclosure = Disclosure::from(&access);
    let views =
        attempts.items.into_iter().map(|attempt| AttemptView::from_record(attempt).disclosed(disclosure)).collect();
    let page = Page::cut(views, size.count, |attempt: &AttemptView| attempt.number.to_string());
    Ok(Json(page.continued(attempts.is_cut).within(size.bytes)))
}

#[cfg(test)]
mod tests {
    use super::kept_text;

    #[test]
    fn text_that_was_cut_within_a_character_is_text_up_to_it() {
        let text = "日本語".repeat(10);
        for kept in 0..text.len() {
            let shown = kept_text(&text.as_bytes()[..kept], true).unwrap();
            assert!(text.starts_with(shown) && kept - shown.len() < 3, "{kept} bytes");
        }
        assert_eq!(kept_text(text.as_bytes(), false), Some(text.as_str()));
    }

    #[test]
    fn bytes_that_are_no_text_stay_bytes() {
        assert_eq!(kept_text(b"a\xff", true), None, "no character begins so");
        assert_eq!(kept_text(b"\xffabc", true), None);
        assert_eq!(
            kept_text("日".as_bytes().get(..2).unwrap(), false),
            None,
            "the receiver sent a part of a character"
        );
    }
}
