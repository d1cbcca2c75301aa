//! Bounds of a request as a whole: its body and its query string. Those of its parts are checked where the parts are read.

use axum::extract::Request;
use axum::http::StatusCode;

use super::ApiLimits;
use super::error::Problem;
use carillon_core::limits::{Exceeded, QuotaExceeded};

/// Bound of a request's body.
#[derive(Clone, Copy, Debug)]
pub(super) struct BodyLimit {
    /// Largest body, in bytes.
    pub(super) bytes: usize,
    /// Bytes that are read, and not kept, of a body that is too large: many clients read the response only when they have sent everything.
    pub(super) read: usize,
    /// Settings that make the bound.
    pub(super) settings: &'static str,
    /// Setting by which refusals are counted.
    pub(super) bound: &'static str,
}

impl BodyLimit {
    /// Returns the bound of a batch.
    pub(super) fn batch(limits: &ApiLimits) -> Self {
        let setting = "server.body_limit";
        Self { bytes: limits.body, read: limits.body, settings: "`server.body_limit`", bound: setting }
    }

    /// Returns the bound of every other body: one job with its payload in base64.
    pub(super) fn single(limits: &ApiLimits) -> Self {
        let settings = "`server.payload_limit` × 4/3 + `limits.job`";
        Self { bytes: limits.single, read: limits.body, settings, bound: "server.payload_limit" }
    }

    /// Returns the bound of a component. One byte more than is allowed is read, too, and refused with the reason.
    pub(super) fn component(limits: &ApiLimits, component: usize) -> Self {
        let bytes = limits.body.max(component.saturating_add(1));
        Self { bytes, read: bytes, settings: "`server.body_limit`", bound: "server.body_limit" }
    }
}

/// Refuses a query string that is too long.
pub(super) fn check_query(limits: &ApiLimits, request: &Request) -> Result<(), Problem> {
    let len = request.uri().query().map_or(0, str::len);
    if len > limits.query { Err(Problem::long_query(len, limits.query)) } else { Ok(()) }
}

impl Problem {
    /// 422: a field is larger than its bound.
    #[must_use]
    pub fn exceeded(exceeded: &Exceeded) -> Self {
        Self::invalid(exceeded.pointer.clone(), exceeded.to_string()).of_bound(exceeded.limit.setting)
    }

    /// 409: the tenant has as much as its quota allows.
    #[must_use]
    pub fn quota(exceeded: QuotaExceeded) -> Self {
        Self::new(StatusCode::CONFLICT, "quota", "Quota exceeded", exceeded.to_string()).of_quota(exceeded)
    }

    /// 503: a read took too long, or its tenant reads too much at once.
    #[must_use]
    pub(super) fn slow_read() -> Self {
        let detail = "the read took longer than 2 s, or waited that long for other reads of the tenant (`store.reads`): select fewer jobs, by \
                      state, name or time, or try again";
        Self::unavailable(detail).of_bound("store.reads")
    }

    /// 413: the body is larger than its bound.
    #[must_use]
    pub(super) fn large_body(bytes: usize, limit: BodyLimit) -> Self {
        let detail = format!("`body` is {bytes} bytes; the limit is {} ({})", limit.bytes, limit.settings);
        Self::too_large(detail).of_bound(limit.bound)
    }

    /// 414: the query string is longer than its bound.
    #[must_use]
    pub(super) fn long_query(bytes: usize, limit: usize) -> Self {
        let detail = format!("`query` is {bytes} bytes; the limit is {limit} (`limits.query`)");
        Self::new(StatusCode::URI_TOO_LONG, "too-large", "Request too large", detail).of_bound("limits.query")
    }
}
