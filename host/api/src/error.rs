//! The one place where an error becomes an HTTP answer: `application/problem+json` (RFC 9457) with a stable `type`, a sentence,
//! and for bad input a JSON pointer (RFC 6901) to the field. What the log says is a separate text.

mod uploads;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use carillon_catalog::CatalogError;
use carillon_core::job::JobId;
use carillon_core::limits::QuotaExceeded;
use carillon_core::text::clean;
use carillon_engine::intake::{Cause, IntakeError};
use carillon_policy::binding::Invalid;
use carillon_policy::{Blame, Fault};
use carillon_store::StoreError;

/// What every `type` begins with.
const TYPE_PREFIX: &str = "urn:carillon:problem:";

/// When there may be room on a full disk, in seconds.
const FULL_AGAIN: u32 = 10;

/// Setting of the bound that a request exceeded; an extension of the response that refuses it.
#[derive(Clone, Copy, Debug)]
pub(super) struct RefusedBound(pub(super) &'static str);

/// Error response (RFC 9457).
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct Problem {
    /// Type of the problem, as a URN, for programs.
    #[serde(rename = "type")]
    kind: Box<str>,
    /// Title, which is the same for all problems of one type.
    title: &'static str,
    /// HTTP status.
    status: u16,
    /// Description of this problem, and what to do about it.
    detail: Box<str>,
    /// JSON pointer to the member of the request's body that is at fault.
    #[serde(skip_serializing_if = "is_whole")]
    pointer: Option<String>,
    /// Name of the query parameter that is at fault.
    #[serde(skip_serializing_if = "Option::is_none")]
    parameter: Option<Box<str>>,
    /// Bound that the tenant has reached.
    #[serde(skip_serializing_if = "Option::is_none")]
    quota: Option<Box<QuotaExceeded>>,
    #[serde(skip)]
    retry_after: Option<u32>,
    /// Setting of the bound that the request exceeds.
    #[serde(skip)]
    bound: Option<Box<RefusedBound>>,
}

/// Texts of policies may be sentences; those of the server are not, and clients put a place behind either.
fn without_full_stop(mut detail: String) -> String {
    if detail.ends_with('.') && !detail.ends_with("..") {
        detail.pop();
    }
    detail
}

/// Whether a pointer means all of the body, which goes without saying.
fn is_whole(pointer: &Option<String>) -> bool {
    pointer.as_deref().is_none_or(str::is_empty)
}

impl Problem {
    pub(super) fn new(status: StatusCode, kind: &str, title: &'static str, detail: impl Into<String>) -> Self {
        Self {
            kind: format!("{TYPE_PREFIX}{kind}").into(),
            title,
            status: status.as_u16(),
            detail: without_full_stop(clean(&detail.into()).into_owned()).into(),
            pointer: None,
            parameter: None,
            quota: None,
            retry_after: None,
            bound: None,
        }
    }

    /// 422: a field makes no sense.
    pub fn invalid(pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        let problem = Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", "Invalid request", detail);
        Self { pointer: Some(pointer.into()), ..problem }
    }

    /// The same problem, counted as a refusal by the bound of this setting.
    #[must_use]
    pub(super) fn of_bound(self, setting: &'static str) -> Self {
        Self { bound: Some(Box::new(RefusedBound(setting))), ..self }
    }

    /// The same problem with the quota that it is about.
    #[must_use]
    pub(super) fn of_quota(self, quota: QuotaExceeded) -> Self {
        Self { quota: Some(Box::new(quota)), ..self }.of_bound(quota.setting)
    }

    /// Returns the setting of the bound that the request exceeds, if it does.
    #[must_use]
    pub fn bound(&self) -> Option<&'static str> {
        self.bound.as_deref().map(|RefusedBound(setting)| *setting)
    }

    /// 400: not JSON, or not of the right shape.
    pub fn malformed(pointer: Option<String>, detail: impl Into<String>) -> Self {
        let problem = Self::new(StatusCode::BAD_REQUEST, "malformed", "Malformed request", detail);
        Self { pointer, ..problem }
    }

    /// 400: a query parameter is not one of the route's, or has a value that is not possible.
    pub fn parameter(name: &str, detail: impl Into<String>) -> Self {
        Self { parameter: Some(name.into()), ..Self::malformed(None, detail) }
    }

    /// 401.
    #[must_use]
    pub fn unauthenticated() -> Self {
        let detail = "the request has no valid token: send `Authorization: Bearer …`";
        Self::new(StatusCode::UNAUTHORIZED, "unauthenticated", "Authentication required", detail)
    }

    /// 403.
    pub fn forbidden(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "forbidden", "Permission denied", detail)
    }

    /// 403: the tenant of the token is suspended.
    pub fn suspended(tenant: &str) -> Self {
        let detail = format!("the tenant `{tenant}` is suspended: its tokens are refused until an operator resumes it");
        Self::new(StatusCode::FORBIDDEN, "suspended", "Tenant suspended", detail)
    }

    /// 403: the tenant does not take such a plugin from anybody.
    pub fn unsigned(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "unsigned", "Plugin signature required", detail)
    }

    /// 404: `what` has no `name`.
    #[must_use]
    pub fn unknown(what: &str, name: &str) -> Self {
        let detail = format!("there is no {what} `{}`", name.escape_debug());
        Self::new(StatusCode::NOT_FOUND, "not-found", "Not found", detail)
    }

    /// 404: no such route.
    #[must_use]
    pub fn no_route(path: &str) -> Self {
        let detail = format!("nothing is served at `{}`; see /openapi.json", path.escape_debug());
        Self::new(StatusCode::NOT_FOUND, "not-found", "Not found", detail)
    }

    /// 405.
    #[must_use]
    pub fn wrong_method(method: &str, path: &str) -> Self {
        let detail = format!("`{}` does not support the method {}", path.escape_debug(), method.escape_debug());
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", "Method not allowed", detail)
    }

    /// 409.
    pub fn conflict(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, "conflict", "Conflict", detail)
    }

    /// 409: the job's stored row cannot be read.
    #[must_use]
    pub fn unreadable_job(id: JobId) -> Self {
        let detail = format!(
            "the stored job `{id}` cannot be read, and the server's log says why: if a newer version of the server has written it, upgrade this node; otherwise remove it with DELETE /v1/jobs/{id}"
        );
        Self::new(StatusCode::CONFLICT, "unreadable-job", "Stored job unreadable", detail)
    }

    /// 409: the job's stored row cannot be read, and an attempt of it runs.
    #[must_use]
    pub fn unreadable_job_runs(id: JobId) -> Self {
        let detail = format!(
            "the stored job `{id}` cannot be read, and an attempt of it is running: its cancellation is recorded; send the request again when the attempt is over"
        );
        Self { detail: detail.into(), ..Self::unreadable_job(id) }
    }

    /// 413.
    pub fn too_large(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", "Request too large", detail)
    }

    /// 415: the body is compressed.
    #[must_use]
    pub fn encoded(encoding: &str) -> Self {
        let detail =
            format!("`Content-Encoding: {}` is not supported: send the body uncompressed", encoding.escape_debug());
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "encoded", "Unsupported content encoding", detail)
    }

    /// 431.
    #[must_use]
    pub fn head_too_large(max_bytes: usize) -> Self {
        let detail = format!("the request's line and headers have more than {max_bytes} bytes");
        Self::new(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "head-too-large", "Request head too large", detail)
    }

    /// 408.
    #[must_use]
    pub fn too_slow() -> Self {
        let detail = "the request was not received and processed within `server.request_timeout`; its changes may still take effect";
        Self::new(StatusCode::REQUEST_TIMEOUT, "timeout", "Request timeout", detail)
    }

    /// 408: the client has hung up, so that nobody reads this.
    #[must_use]
    pub fn client_gone() -> Self {
        let detail = "the client has closed the connection";
        Self::new(StatusCode::REQUEST_TIMEOUT, "timeout", "Request timeout", detail)
    }

    /// 429: the client has failed to authenticate too often.
    #[must_use]
    pub fn too_many_failures() -> Self {
        let detail = "too many requests from this address had no valid token (`auth.failure_rate`)";
        let problem =
            Self::new(StatusCode::TOO_MANY_REQUESTS, "too-many-failures", "Too many failed authentications", detail);
        Self { retry_after: Some(1), ..problem }
    }

    /// 503, try again soon.
    pub fn unavailable(detail: impl Into<String>) -> Self {
        let problem = Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", "Temporarily unavailable", detail);
        Self { retry_after: Some(1), ..problem }
    }

    /// 503, until somebody makes room.
    #[must_use]
    pub fn storage_full() -> Self {
        let detail =
            "the disk of the store is full and nothing was written: free disk space and send the request again";
        let problem = Self::new(StatusCode::SERVICE_UNAVAILABLE, "storage-full", "Storage full", detail);
        Self { retry_after: Some(FULL_AGAIN), ..problem }
    }

    /// 500: a part of the stored data cannot be read.
    #[must_use]
    pub fn storage_damaged() -> Self {
        let detail = "a part of the stored data is damaged and cannot be read; the server's log names the cause";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "storage-damaged", "Storage damaged", detail)
    }

    /// 500; the log says more.
    #[must_use]
    pub fn internal() -> Self {
        let detail = "the server failed; its log has the cause";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "Internal server error", detail)
    }

    /// The HTTP status.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// What is wrong in this case.
    #[must_use]
    pub fn detail(&self) -> &str {
        &self.detail
    }

    /// The same problem of a query parameter, where a field of the same name is read.
    #[must_use]
    pub fn in_query(self) -> Self {
        match self.pointer {
            Some(pointer) => Self::parameter(pointer.trim_start_matches('/'), self.detail),
            None => self,
        }
    }

    /// The same problem in a part of what was sent, which is pointed at even if nothing in it is.
    #[must_use]
    pub fn inside(mut self, prefix: &str) -> Self {
        self.pointer = Some(format!("{prefix}{}", self.pointer.unwrap_or_default()));
        self
    }

    /// The same problem in a part of what was sent.
    #[must_use]
    pub fn within(mut self, prefix: &str) -> Self {
        self.pointer = self.pointer.map(|pointer| format!("{prefix}{pointer}"));
        self
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = self.status();
        // The line break keeps a terminal's prompt out of the answer's line.
        let body = serde_json::to_string(&self).unwrap_or_default() + "\n";
        let mut response = (status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(bound) = self.bound() {
            response.extensions_mut().insert(RefusedBound(bound));
        }
        let headers = response.headers_mut();
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

impl From<Invalid> for Problem {
    fn from(invalid: Invalid) -> Self {
        Self::invalid(invalid.pointer, invalid.message)
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::NoSuchGroup => Self::conflict("the group is being deleted"),
            StoreError::Conflict(text) => Self::conflict(text),
            StoreError::KeyReused => Self::new(
                StatusCode::CONFLICT,
                "idempotency-key-reused",
                "Idempotency key already used",
                "this `Idempotency-Key` was used for a request with another body or path: use a new key",
            ),
            StoreError::Unavailable(text) => {
                tracing::error!(error = text, "request failed: the store is unavailable");
                // It may have been too late only for the answer.
                Self::unavailable(
                    "the store does not respond; the change may have been stored: send the request again with the same `Idempotency-Key`",
                )
            }
            StoreError::Full(text) => {
                tracing::error!(error = text, "request failed: the disk of the store is full");
                Self::storage_full()
            }
            StoreError::ReadTimeout => Self::slow_read(),
            StoreError::Unreadable(id) => Self::unreadable_job(id),
            StoreError::Corrupt(text) => {
                tracing::error!(error = text, "request failed: the store is damaged");
                Self::storage_damaged()
            }
        }
    }
}

impl From<CatalogError> for Problem {
    fn from(rejected: CatalogError) -> Self {
        match rejected {
            CatalogError::Invalid(invalid) => invalid.into(),
            CatalogError::Exceeded(exceeded) => Self::exceeded(&exceeded),
            CatalogError::Quota(exceeded) => Self::quota(exceeded),
            CatalogError::Conflict(text) => Self::conflict(text),
            CatalogError::TooLarge(text) => Self::too_large(text),
            CatalogError::Plugin(error) => error.into(),
            CatalogError::Unsigned(text) => Self::unsigned(text),
            CatalogError::Gone => Self::conflict("another request removed it at the same time"),
            CatalogError::Store(error) => error.into(),
        }
    }
}

impl From<IntakeError> for Problem {
    fn from(IntakeError { pointer, cause }: IntakeError) -> Self {
        let problem = match cause {
            Cause::Malformed(text) => Self::malformed(None, text),
            Cause::Invalid(text) => Self::invalid(String::new(), text),
            Cause::Exceeded(exceeded) => Self::exceeded(&exceeded),
            Cause::Quota(exceeded) => Self::quota(exceeded),
            Cause::Conflict(text) => Self::conflict(text),
            Cause::Catalog(rejected) => rejected.into(),
            Cause::Store(error) => error.into(),
        };
        Self { pointer: pointer.or(problem.pointer), ..problem }
    }
}

impl From<Fault> for Problem {
    fn from(fault: Fault) -> Self {
        match fault.blame {
            Blame::Host => Self::unavailable(fault.message),
            _ => Self::new(StatusCode::UNPROCESSABLE_ENTITY, "policy", "Policy failed", fault.to_string()),
        }
    }
}
