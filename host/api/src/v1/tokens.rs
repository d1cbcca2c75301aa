//! API tokens: shown once, hashed afterwards.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};

use super::super::ApiState;
use super::super::auth::Access;
use super::super::error::Problem;
use super::super::input::{Body, Path, Query};
use super::{Page, Paging};
use carillon_catalog::{AccessRole, ApiToken, NewToken};
use carillon_policy::binding::parse_period;

/// A token to be made.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenDoc {
    /// Whose data it opens; the caller's own tenant by default. Another one takes an operator.
    tenant: Option<String>,
    /// A note on whose it is.
    #[serde(default)]
    name: String,
    /// How far it reaches.
    role: AccessRole,
    /// Whether it manages tenants, too. It takes an operator, and the role `admin`.
    #[serde(default)]
    operator: bool,
    /// How long it is valid: a duration such as `30days`. Without it, until it is revoked.
    expires_in: Option<String>,
}

/// A token as it is shown.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct TokenView {
    id: String,
    name: String,
    role: AccessRole,
    tenant: String,
    /// Whether it manages tenants, too.
    operator: bool,
    #[schema(format = DateTime)]
    created_at: String,
    /// When it ends; null if it is valid until it is revoked.
    expires_at: Option<String>,
    /// When it was last used, to the hour; null if it was not used yet.
    last_used_at: Option<String>,
    /// The token itself: in the answer to its making, and never again.
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<String>,
}

impl TokenView {
    fn of(token: &ApiToken) -> Self {
        Self {
            id: token.id.clone(),
            name: token.name.clone(),
            role: token.role,
            tenant: token.tenant.name.clone(),
            operator: token.operator,
            created_at: token.created_at.to_string(),
            expires_at: token.expires_at.map(|at| at.to_string()),
            last_used_at: token.last_used_at().map(|at| at.to_string()),
            token: None,
        }
    }
}

/// Makes a token.
#[utoipa::path(post, path = "/v1/tokens", operation_id = "tokens_create", tag = "tokens", request_body = TokenDoc,
    responses((status = 201, body = TokenView), (status = "4XX", body = Problem)))]
pub(in super::super) async fn create(
    State(api): State<Arc<ApiState>>,
    Extension(access): Extension<Access>,
    Body(doc): Body<TokenDoc>,
) -> Result<(StatusCode, Json<TokenView>), Problem> {
    let tenant = match doc.tenant {
        Some(name) if name != access.tenant.name => {
            if !access.operator {
                return Err(Problem::forbidden("only an operator makes tokens for another tenant"));
            }
            api.catalog.tenant(&name).ok_or_else(|| Problem::invalid("/tenant", "there is no such tenant"))?
        }
        _ => Arc::clone(&access.tenant),
    };
    if doc.operator && !access.operator {
        return Err(Problem::forbidden("only an operator makes a token of an operator"));
    }
    if doc.operator && doc.role != AccessRole::Admin {
        return Err(Problem::invalid("/role", "the role of an operator's token must be `admin`"));
    }
    let period = doc.expires_in.as_deref().map(|text| parse_period("/expires_in", text)).transpose()?;
    let expires_at = period.map(|period| api.clock.now().plus(period));
    let new = NewToken { name: doc.name, role: doc.role, operator: doc.operator, expires_at };
    let (token, text) = api.catalog.create_token(tenant.id, new).await?;
    Ok((StatusCode::CREATED, Json(TokenView { token: Some(text), ..TokenView::of(&token) })))
}

/// Lists the tenant's tokens, without the tokens themselves.
#[utoipa::path(get, path = "/v1/tokens", operation_id = "tokens_list", tag = "tokens", params(Paging),
    responses((status = 200, body = Page<TokenView>), (status = "4XX", body = Problem)))]
pub(in super::super) async fn list(
    State(api): State<Arc<ApiState>>,
    Extension(access): Extension<Access>,
    Query(paging): Query<Paging>,
) -> Result<Json<Page<TokenView>>, Problem> {
    let tokens = api.catalog.tokens(access.tenant.id).iter().map(|token| TokenView::of(token)).collect();
    Ok(Json(Page::of_sorted(tokens, &paging, |token: &TokenView| token.id.clone())?))
}

/// Revokes a token, at once.
#[utoipa::path(delete, path = "/v1/tokens/{id}", operation_id = "tokens_delete", tag = "tokens", responses((status = 204), (status = "4XX", body = Problem)))]
pub(in super::super) async fn delete(
    State(api): State<Arc<ApiState>>,
    Extension(access): Extension<Access>,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    if api.catalog.delete_token(access.tenant.id, &id).await? {
        return Ok(StatusCode::NO_CONTENT);
    }
    Err(Problem::unknown("token", &id))
}
