//! Who is asking, and what they may do.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::ApiState;
use super::error::Problem;
use carillon_catalog::{AccessRole, DEFAULT_TENANT, Tenant};

/// Lets an operator act for another tenant.
const TENANT_HEADER: &str = "carillon-tenant";

/// What a request may do.
#[derive(Clone, Debug)]
pub struct Access {
    /// Whose data it sees.
    pub tenant: Arc<Tenant>,
    /// How far.
    pub role: AccessRole,
    /// Whether it may manage tenants.
    pub operator: bool,
    /// The name of the token, if one was asked for.
    pub by: Option<String>,
}

/// Marks the answer to a client that has shown who it is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Authenticated;

/// Finds out who is asking, and gives the request a place of the tenant's share. The routes behind it can take an `Extension<Access>`.
pub(super) async fn authenticate(
    State(api): State<Arc<ApiState>>,
    mut request: Request,
    next: Next,
) -> Result<Response, Problem> {
    let access = access_of(&api, request.headers())?;
    let tenant = access.tenant.id;
    request.extensions_mut().insert(access);
    let mut response = match api.pools.admit(tenant, request) {
        Ok((request, guard)) => {
            let response = next.run(request).await;
            guard.cut_off().map_or(response, Problem::into_response)
        }
        Err(problem) => problem.into_response(),
    };
    response.extensions_mut().insert(Authenticated);
    Ok(response)
}

/// Lets requests pass that may do what `role` may.
pub(super) async fn require(State(role): State<AccessRole>, request: Request, next: Next) -> Result<Response, Problem> {
    let access = request.extensions().get::<Access>().ok_or_else(Problem::unauthenticated)?;
    if access.role < role {
        let (has, needs) = (format!("{:?}", access.role).to_lowercase(), format!("{role:?}").to_lowercase());
        return Err(Problem::forbidden(format!("the token's role is {has}; the request requires {needs}")));
    }
    Ok(next.run(request).await)
}

/// Lets requests pass that may manage tenants.
pub(super) async fn require_operator(request: Request, next: Next) -> Result<Response, Problem> {
    if request.extensions().get::<Access>().is_some_and(|access| access.operator) {
        return Ok(next.run(request).await);
    }
    Err(Problem::forbidden("only an operator's token, such as the one of the first start, can manage tenants"))
}

/// What a request with these headers may do.
pub(super) fn access_of(api: &ApiState, headers: &HeaderMap) -> Result<Access, Problem> {
    let access = if api.config.auth {
        let token = token_of(headers).and_then(|token| api.services.catalog.token(&token));
        let token = token.ok_or_else(Problem::unauthenticated)?;
        api.services.catalog.note_use(&token);
        Access {
            tenant: Arc::clone(&token.tenant),
            role: token.role,
            operator: token.operator,
            by: Some(if token.name.is_empty() { &token.id } else { &token.name }.clone()),
        }
    } else {
        let tenant = api.services.catalog.tenant(DEFAULT_TENANT).ok_or_else(Problem::internal)?;
        Access { tenant, role: AccessRole::Admin, operator: true, by: None }
    };
    let Some(name) = headers.get(TENANT_HEADER).and_then(|name| name.to_str().ok()) else { return Ok(access) };
    if name == access.tenant.name {
        return Ok(access);
    }
    if !access.operator {
        return Err(Problem::forbidden("only an operator's token can act for another tenant (`Carillon-Tenant`)"));
    }
    let tenant = api.services.catalog.tenant(name).ok_or_else(|| Problem::unknown("tenant", name))?;
    Ok(Access { tenant, ..access })
}

/// The token of a `Bearer` or a `Basic` header; in the latter it is the password, or the user if there is no password.
fn token_of(headers: &HeaderMap) -> Option<String> {
    let (scheme, value) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(value.trim().to_owned());
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let text = String::from_utf8(STANDARD.decode(value.trim()).ok()?).ok()?;
    let (user, password) = text.split_once(':')?;
    Some(if password.is_empty() { user } else { password }.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(authorization: &str) -> Option<String> {
        token_of(&HeaderMap::from_iter([(header::AUTHORIZATION, authorization.parse().unwrap())]))
    }

    #[test]
    fn tokens_come_as_bearer_or_as_basic() {
        assert_eq!(token("Bearer abc").as_deref(), Some("abc"));
        assert_eq!(token("bearer  abc ").as_deref(), Some("abc"));
        assert_eq!(token(&format!("Basic {}", STANDARD.encode(":abc"))).as_deref(), Some("abc"));
        assert_eq!(token(&format!("Basic {}", STANDARD.encode("abc:"))).as_deref(), Some("abc"));
        assert_eq!(token("Digest abc"), None);
        assert_eq!(token("Basic !!!"), None);
    }
}
