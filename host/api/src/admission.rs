//! Admission of a request to a route that requires a token: it is authenticated, given a place among those of its tenant, and checked against
//! what its token is for.
//!
//! All of it is one layer: a request clones every layer below each layer of its route.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

use super::ApiState;
use super::auth::{Access, Authenticated, Requirement, Standing, access_of};
use super::error::Problem;
use super::query::KnownParameters;
use super::serve::Peer;
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
    let access = access_of(api, request.headers(), Peer::of(request.extensions()))?;
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
    response.extensions_mut().insert(Authenticated);
    Ok(line_break::append(response))
}

impl Admission {
    /// Checks the groups of the token, a key that the route would not look at, and what the route requires.
    async fn check(&self, access: &Access, request: &mut Request) -> Result<(), Problem> {
        scope::confine(access, request).await?;
        idempotency::refuse_elsewhere(request)?;
        self.requirement.check(access)
    }
}
