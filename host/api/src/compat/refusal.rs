//! Why a request is refused, in the words of these APIs: a status, and one sentence in `error`.

use axum::Json;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::super::error::{Problem, RefusedBound};
use carillon_core::text::clean;
use carillon_engine::intake::IntakeError;
use carillon_store::StoreError;

/// The challenge for clients that know user names and passwords only.
const BASIC: &str = "Basic realm=\"carillon\", charset=\"UTF-8\"";

/// Why a request is refused.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    pub(super) message: String,
    /// What a client is told besides: who may ask, when to come back.
    pub(super) headers: Box<HeaderMap>,
    /// Setting of the bound that the request exceeds, if it does.
    bound: Option<&'static str>,
}

impl Refusal {
    pub(super) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: clean(&message.into()).into_owned(), headers: Box::default(), bound: None }
    }

    /// 400.
    pub(super) fn bad(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    /// 404.
    pub(super) fn unknown(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, message)
    }

    /// The same as a 400 if it is a 422, for APIs that know no other.
    pub(super) fn without_422(self) -> Self {
        let status =
            if self.status == StatusCode::UNPROCESSABLE_ENTITY { StatusCode::BAD_REQUEST } else { self.status };
        Self { status, ..self }
    }
}

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        let (status, message, bound) = (problem.status(), problem.detail().to_owned(), problem.bound());
        let mut headers = problem.into_response().headers().clone();
        headers.remove(header::CONTENT_TYPE);
        headers.remove(header::CONTENT_LENGTH);
        if status == StatusCode::UNAUTHORIZED {
            // Clients that are given a URL with user info send it when they are asked (RFC 9110, 11.6.1).
            headers.append(header::WWW_AUTHENTICATE, HeaderValue::from_static(BASIC));
        }
        Self { status, message, headers: Box::new(headers), bound }
    }
}

impl From<IntakeError> for Refusal {
    fn from(error: IntakeError) -> Self {
        Problem::from(error).into()
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        Problem::from(error).into()
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = (self.status, *self.headers, Json(json!({"error": self.message}))).into_response();
        if let Some(bound) = self.bound {
            response.extensions_mut().insert(RefusedBound(bound));
        }
        response
    }
}
