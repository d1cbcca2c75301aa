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
use super::{Page, Paging, removed};
use carillon_catalog::{AccessRole, ApiToken, NewToken};
use carillon_policy::binding::parse_period;

/// Token to be made.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenDoc {
    /// Tenant whose data the token gives access to. Default: the caller's tenant. Another tenant requires an operator's token.
    tenant: Option<String>,
    /// Note on the token's user.
    #[serde(default)]
    name: String,
    /// Role, which bounds the access.
    role: AccessRole,
    /// Whether the token also manages tenants. It requires an operator's token and the role `admin`. Default: false.
    #[serde(default)]
    operator: bool,
    /// Validity: a duration such as `30days`. Default: until the token is revoked.
    expires_in: Option<String>,
}

/// Token, as the API returns it.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct TokenView {
    /// Id of the token.
    id: String,
    /// Note on the token's user.
    name: String,
    /// Role of the token.
    role: AccessRole,
    /// Name of the tenant whose data it gives access to.
    tenant: String,
    /// Whether the token also manages tenants.
    operator: bool,
    /// Time of its creation.
    #[schema(format = DateTime)]
    created_at: String,
    /// Expiry; null if the token is valid until it is revoked.
    expires_at: Option<String>,
    /// Time of the last use, to the hour; null if it was never used.
    last_used_at: Option<String>,
    /// Text of the token; only in the response that creates it.
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

/// Makes a token. Only this response has its text.
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
                return Err(Problem::forbidden("only an operator's token can make tokens for another tenant"));
            }
            let unknown = || Problem::invalid("/tenant", format!("there is no tenant `{}`", name.escape_debug()));
            api.services.catalog.tenant(&name).ok_or_else(unknown)?
        }
        _ => Arc::clone(&access.tenant),
    };
    if doc.operator && !access.operator {
        return Err(Problem::forbidden("only an operator's token can make a token with `operator`"));
    }
    if doc.operator && doc.role != AccessRole::Admin {
        return Err(Problem::invalid("/role", "the role of an operator's token must be `admin`"));
    }
    let period = doc.expires_in.as_deref().map(|text| parse_period("/expires_in", text)).transpose()?;
    let expires_at = period.map(|period| api.services.clock.now().plus(period));
    let new = NewToken { name: doc.name, role: doc.role, operator: doc.operator, expires_at };
    let (token, text) = api.services.catalog.create_token(tenant.id, new).await?;
    Ok((StatusCode::CREATED, Json(TokenView { token: Some(text), ..TokenView::of(&token) })))
}

/// Lists the tenant's tokens, without their texts.
#[utoipa::path(get, path = "/v1/tokens", operation_id = "tokens_list", tag = "tokens", params(Paging),
    responses((status = 200, body = Page<TokenView>), (status = "4XX", body = Problem)))]
pub(in super::super) async fn list(
    State(api): State<Arc<ApiState>>,
    Extension(access): Extension<Access>,
    Query(paging): Query<Paging>,
) -> Result<Json<Page<TokenView>>, Problem> {
    let tokens = api.services.catalog.tokens(access.tenant.id).iter().map(|token| TokenView::of(token)).collect();
    Ok(Json(Page::of_sorted(tokens, &paging, |token: &TokenView| token.id.clone())?))
}

/// Revokes a token at once.
#[utoipa::path(delete, path = "/v1/tokens/{id}", operation_id = "tokens_delete", tag = "tokens", responses((status = 204), (status = "4XX", body = Problem)))]
pub(in super::super) async fn delete(
    State(api): State<Arc<ApiState>>,
    Extension(access): Extension<Access>,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    removed(api.services.catalog.delete_token(access.tenant.id, &id).await?, "token", &id)
}
