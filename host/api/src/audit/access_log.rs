//! The access log: a line for each request, where `log.requests` is set.

use std::time::Duration;

use axum::response::Response;

use super::{Caller, Known, Requested};

/// Writes the line of a request. The path has names and tokens of leases, so the pattern of the route stands for it.
pub(crate) fn log_request(requested: &Requested, caller: &Caller, response: &Response, duration: Duration) {
    let known = response.extensions().get::<Known>();
    let address = caller.address.map(|address| address.to_string());
    tracing::info!(
        target: "carillon::access",
        method = requested.method_name(),
        route = requested.route().unwrap_or("none"),
        status = response.status().as_u16(),
        duration_ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX),
        tenant = known.map(|known| &known.tenant.name),
        token = known.and_then(|known| known.token.as_ref()).map(|token| &token.id),
        address,
        request_id = &*caller.request_id,
        "request"
    );
}
