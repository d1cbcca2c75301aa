//! Admission of a request to a route that requires a token: it is authenticated, given a place among those of its tenant, checked against
//! what its token is for, and recorded in the audit log if nothing else records it.
//!
//! All of it is one layer: a request clones every layer below each layer of its route.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

use super::ApiState;
use super::audit::{self, Caller};
use super::auth::{Access, Requirement, Standing, access_of};
use super::error::Problem;
use super::query::KnownParameters;
use super::{idempotency, line_break, query, scope};

/// Admits requests to some routes.
pub(super) struct Admission {
    pub(super) api: Arc<ApiState>,
    pub(super) known: Arc<KnownParameters>,
    pub(super) requirement: Requirement,
}

/// Authenticates a request, gives it a place of the tenant's share, and checks it. The handler behind it can take an `Extension<Access>`.
pub(super) async fn admit(
    State(admission): State<Arc<Admission>>,
    mut request: Request,
    next: Next,
) -> Result<Response, Problem> {
    let api = &admission.api;
    query::check(&admission.known, &request)?;
    let caller = Caller::from_request(&request)?;
    let access = match access_of(api, request.headers(), &caller) {
        Ok(access) => access,
        Err(denied) => return Ok(denied.into_response()),
    };
    let known = access.known();
    request.extensions_mut().insert(Standing::new(api, &access));
    let mut response = match api.pools.admit(access.tenant.id, request) {
        Ok((mut request, guard)) => {
            let response = match admission.check(&access, &mut request).await {
                Ok(()) => {
                    request.extensions_mut().insert(access);
                    next.run(request).await
                }
                Err(problem) => problem.into_response(),
            };
            guard.cut_off().map_or(response, Problem::into_response)
        }
        Err(problem) => problem.into_response(),
    };
    response.extensions_mut().insert(known);
    Ok(line_break::append(response))
}

impl Admission {
    /// Checks the groups of the token, a key that the route would not look at, and what the route requires; and records what nothing else records.
    async fn check(&self, access: &Access, request: &mut Request) -> Result<(), Problem> {
        scope::confine(access, request).await?;
        idempotency::refuse_elsewhere(request)?;
        self.requirement.check(access)?;
        if let Some((verb, object)) = audit::recorded(&self.api, request) {
            audit::requested(&self.api, &access.known(), verb, object).await?;
        }
        Ok(())
    }
}
