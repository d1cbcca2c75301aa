//! Entrance of requests: what holds for every one, whatever its route.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

use super::audit::{self, Caller, Known, REQUEST_ID, Requested, log_request};
use super::bounds::{self, BodyLimit};
use super::error::{Problem, RefusedBound};
use super::{ApiConfig, ApiState};
use carillon_core::audit::Outcome;
use carillon_telemetry::RequestLabels;

/// Prefix of the routes that need a token.
const CLOSED: &str = "/v1/";

/// Checks, counts and records a request.
///
/// It is counted by route, not by path, so that the numbers stay few. One that is refused before its client is known has no route: strangers could
/// make a series of each otherwise.
pub(super) async fn enter(State(api): State<Arc<ApiState>>, mut request: Request, next: Next) -> Response {
    let (requested, began) = (Requested::from_request(&request), api.services.clock.now());
    let caller = Caller::enter(&api.request_ids, &mut request);
    let mut response = match check(&api.config, &request) {
        Ok(()) => {
            request.extensions_mut().insert(BodyLimit::single(&api.config.limits));
            next.run(request).await
        }
        Err(problem) => problem.into_response(),
    };
    let known = response.extensions().get::<Known>().cloned();
    let is_known = known.is_some();
    let is_refused = matches!(response.status(), StatusCode::UNAUTHORIZED | StatusCode::METHOD_NOT_ALLOWED);
    let counts = |route: &&str| is_known || !(is_refused || route.starts_with(CLOSED));
    let route = requested.route().filter(counts).unwrap_or("none");
    if let Some(RefusedBound(bound)) = response.extensions().get() {
        api.services.telemetry.metrics.refused(bound);
    }
    api.services.telemetry.metrics.request(&RequestLabels::new(
        requested.method().as_str(),
        route,
        response.status().as_u16(),
    ));
    if let Some(outcome) = refusal(response.status()) {
        audit::refused(&api, &requested, &caller, known.as_ref(), outcome).await;
    }
    if api.config.log_requests {
        log_request(&requested, &caller, &response, api.services.clock.now().since(began));
    }
    caller.header().map(|id| response.headers_mut().insert(REQUEST_ID, id));
    response
}

/// Returns the outcome in the audit log of a request that is answered with this status; `None` if it is no refusal of access.
fn refusal(status: StatusCode) -> Option<Outcome> {
    match status {
        StatusCode::UNAUTHORIZED => Some(Outcome::Unauthenticated),
        StatusCode::FORBIDDEN => Some(Outcome::Forbidden),
        _ => None,
    }
}

/// Checks what does not depend on the route.
fn check(config: &ApiConfig, request: &Request) -> Result<(), Problem> {
    if let Some(guard) = &config.browser_guard {
        guard.check(request)?;
    }
    bounds::check_query(&config.limits, request)
}
