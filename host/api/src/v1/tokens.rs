//! API tokens: shown once, hashed afterwards.
//!
//! The tokens of operators belong to no tenant: only operators see, make, rotate and revoke them.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::{Extension, Json};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::super::ApiState;
use super::super::auth::Access;
use super::super::error::Problem;
use super::super::input::{Body, OptionalBody, Path, Query, time};
use super::{Page, Paging, removed};
use carillon_catalog::{AccessRole, ApiToken, DEFAULT_TENANT, NewToken, Rotation, Tenant, TokenAuthor};
use carillon_core::clock::UnixMs;
use carillon_core::duration;
use carillon_core::job::check_name;
use carillon_engine::intake::TimeInput;
use carillon_policy::binding::parse_period;

/// Largest number of groups, and of networks, of a token.
const MAX_ENTRIES: usize = 100;

/// Longest time for which a replaced secret stays good.
const MAX_OVERLAP: Duration = Duration::from_secs(30 * 86_400);

/// Token to be made.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenInput {
    /// Tenant whose data the token gives access to. Default: the caller's tenant. Another tenant requires an operator's token.
    tenant: Option<String>,
    /// Note on the token's user.
    #[serde(default)]
    name: String,
    /// Role, which bounds the access.
    role: AccessRole,
    /// Whether the token also manages tenants. It requires an operator's token and the role `admin`; such a token belongs to no tenant. Default:
    /// false.
    #[serde(default)]
    operator: bool,
    /// Names of the groups that the token sees and touches: 1 to 100. Default: all groups of the tenant.
    #[schema(min_items = 1, max_items = 100)]
    groups: Option<Vec<String>>,
    /// Networks from which the token is accepted, such as `192.0.2.0/24`: 1 to 100. Default: from everywhere.
    #[schema(min_items = 1, max_items = 100)]
    addresses: Option<Vec<String>>,
    /// Validity: a duration such as `30days`. Default: `auth.max_token_age`, or until the token is revoked. It excludes `expires_at`.
    expires_in: Option<String>,
    /// Expiry: RFC 3339, Unix seconds, or `+30d`. It excludes `expires_in`.
    #[schema(value_type = Option<TimeInput>)]
    expires_at: Option<Value>,
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
    /// Names of the groups that it sees and touches; null for all.
    groups: Option<Vec<String>>,
    /// Networks from which it is accepted; null for all.
    addresses: Option<Vec<String>>,
    /// Time of its creation.
    #[schema(format = DateTime)]
    created_at: String,
    /// Token whose bearer made it; null if the server did, or if authentication was disabled.
    created_by: Option<TokenAuthor>,
    /// Expiry; null if the token is valid until it is revoked.
    expires_at: Option<String>,
    /// Time of the last use, to the minute; null if it was never used.
    last_used_at: Option<String>,
    /// Address of the last use; null if it was never used, or not since the server records it.
    last_used_from: Option<String>,
    /// Whether it was made while authentication was disabled: then it is not valid.
    unauthenticated: bool,
    /// Text of the token; only in the response that creates or rotates it.
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<String>,
}

impl TokenView {
    fn from_token(token: &ApiToken) -> Self {
        let networks = |networks: &[IpNet]| networks.iter().map(ToString::to_string).collect();
        Self {
            id: token.id.clone(),
            name: token.name.clone(),
            role: token.role,
            tenant: token.tenant.name.clone(),
            operator: token.operator,
            groups: token.groups.as_deref().map(<[String]>::to_vec),
            addresses: token.addresses.as_deref().map(networks),
            created_at: token.created_at.to_string(),
            created_by: token.created_by.clone(),
            expires_at: token.expires_at.map(|at| at.to_string()),
            last_used_at: token.last_used_at().map(|at| at.to_string()),
            last_used_from: token.last_used_from().map(|address| address.to_string()),
            unauthenticated: token.unauthenticated,
            token: None,
        }
    }
}

/// Makes a token. Only this response has its text.
#[utoipa::path(post, path = "/v1/tokens", operation_id = "tokens_create", tag = "tokens", request_body = TokenInput,
    responses((status = 201, body = TokenView), (status = "4XX", body = Problem)))]
pub(in super::super) async fn create(
    State(api): State<Arc<ApiState>>,
    Extension(access): Extension<Access>,
    Body(doc): Body<TokenInput>,
) -> Result<(StatusCode, Json<TokenView>), Problem> {
    let tenant = tenant_of_token(&api, &access, &doc)?;
    if doc.operator && !access.operator {
        return Err(Problem::forbidden("only an operator's token can make a token with `operator`"));
    }
    if doc.operator && doc.role != AccessRole::Admin {
        return Err(Problem::invalid("/role", "the role of an operator's token must be `admin`"));
    }
    if doc.operator && doc.groups.is_some() {
        return Err(Problem::invalid("/groups", "an operator's token belongs to no tenant and cannot have `groups`"));
    }
    let expires_at = expiry(&api, doc.expires_in.as_deref(), doc.expires_at.as_ref())?;
    let new = NewToken {
        operator: doc.operator,
        expires_at: expires_at.or_else(|| api.config.max_token_age.map(|age| api.services.clock.now().plus(age))),
        groups: doc.groups.map(groups).transpose()?,
        addresses: doc.addresses.map(|addresses| networks(&addresses)).transpose()?,
        created_by: access.token_author(),
        unauthenticated: !api.config.auth,
        ..NewToken::new(&doc.name, doc.role)
    };
    let (token, text) = api.services.catalog.create_token(tenant.id, new, &access.origin()).await?;
    Ok((StatusCode::CREATED, Json(TokenView { token: Some(text), ..TokenView::from_token(&token) })))
}

/// Checks the names of groups, each of which counts once.
fn groups(names: Vec<String>) -> Result<Vec<String>, Problem> {
    check_count("groups", names.len())?;
    for (index, name) in names.iter().enumerate() {
        check_name("group", name).map_err(|detail| Problem::invalid(format!("/groups/{index}"), detail))?;
    }
    Ok(names.into_iter().collect::<BTreeSet<_>>().into_iter().collect())
}

/// Reads networks. An address stands for itself.
fn networks(texts: &[String]) -> Result<Vec<IpNet>, Problem> {
    check_count("addresses", texts.len())?;
    let network = |(index, text): (usize, &String)| {
        let network = text.parse().or_else(|_| text.parse().map(|address: IpAddr| address.to_canonical().into()));
        network.map(|network: IpNet| network.trunc()).map_err(|_| {
            let detail = format!("`{}` is not a network such as `192.0.2.0/24`, or an address", text.escape_debug());
            Problem::invalid(format!("/addresses/{index}"), detail)
        })
    };
    texts.iter().enumerate().map(network).collect()
}

fn check_count(member: &str, count: usize) -> Result<(), Problem> {
    if (1..=MAX_ENTRIES).contains(&count) {
        return Ok(());
    }
    let detail = format!("`{member}` must have 1 to {MAX_ENTRIES} entries, or be absent for all");
    Err(Problem::invalid(format!("/{member}"), detail))
}

/// Choice of tokens.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(in super::super) struct Listed {
    /// Whether to list the tokens of operators, which belong to no tenant; it requires an operator's token. Default: false.
    #[serde(default)]
    operator: bool,
}

/// Lists the tenant's tokens, or those of operators, without their texts.
#[utoipa::path(get, path = "/v1/tokens", operation_id = "tokens_list", tag = "tokens", params(Listed, Paging),
    responses((status = 200, body = Page<TokenView>), (status = "4XX", body = Problem)))]
pub(in super::super) async fn list(
    State(api): State<Arc<ApiState>>,
    Extension(access): Extension<Access>,
    Query(listed): Query<Listed>,
    Query(paging): Query<Paging>,
) -> Result<Json<Page<TokenView>>, Problem> {
    let mut tokens = if !listed.operator {
        api.services.catalog.tokens(access.tenant.id)
    } else if access.operator {
        api.services.catalog.operator_tokens()
    } else {
        return Err(Problem::forbidden("only an operator's token can list the tokens of operators"));
    };
    tokens.retain(|token| token.operator == listed.operator);
    let mut views: Vec<_> = tokens.iter().map(|token| TokenView::from_token(token)).collect();
    views.sort_by(|one, other| one.id.cmp(&other.id));
    Ok(Json(Page::of_sorted(views, &paging, |token: &TokenView| token.id.clone())?.within(api.config.limits.answer)))
}

/// Rotation of a token.
#[derive(Debug, Default, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RotateInput {
    /// Time for which the present text stays valid, such as `1h`; at most `30d`. Default: it ends at once.
    overlap: Option<String>,
    /// New validity of the token: a duration such as `30days`. Default: the expiry stays. It excludes `expires_at`.
    expires_in: Option<String>,
    /// New expiry of the token: RFC 3339, Unix seconds, or `+30d`. It excludes `expires_in`.
    #[schema(value_type = Option<TimeInput>)]
    expires_at: Option<Value>,
}

/// Gives a token another text under the same id. Only this response has it. The present text stays valid for `overlap`.
#[utoipa::path(post, path = "/v1/tokens/{id}/rotate", operation_id = "tokens_rotate", tag = "tokens", request_body = Option<RotateInput>,
    responses((status = 200, body = TokenView), (status = "4XX", body = Problem)))]
pub(in super::super) async fn rotate(
    State(api): State<Arc<ApiState>>,
    Extension(access): Extension<Access>,
    Path(id): Path<String>,
    OptionalBody(doc): OptionalBody<RotateInput>,
) -> Result<Json<TokenView>, Problem> {
    let token = find_token(&api, &access, &id)?;
    let overlap = match doc.overlap.as_deref() {
        None | Some("0" | "0s") => Duration::ZERO,
        Some(text) => parse_period("/overlap", text)?,
    };
    if overlap > MAX_OVERLAP {
        return Err(Problem::invalid("/overlap", "`overlap` must be at most `30d`"));
    }
    let expires_at = expiry(&api, doc.expires_in.as_deref(), doc.expires_at.as_ref())?;
    if !api.config.auth {
        return Err(Problem::conflict("authentication is disabled, and a text from now on would not be valid"));
    }
    let (token, text) =
        api.services.catalog.rotate_token(&token, Rotation { overlap, expires_at }, &access.origin()).await?;
    Ok(Json(TokenView { token: Some(text), ..TokenView::from_token(&token) }))
}

/// Revokes a token. What it has opened ends within a second. The response is 409 if it is the last one of an operator.
#[utoipa::path(delete, path = "/v1/tokens/{id}", operation_id = "tokens_delete", tag = "tokens", responses((status = 204), (status = "4XX", body = Problem)))]
pub(in super::super) async fn delete(
    State(api): State<Arc<ApiState>>,
    Extension(access): Extension<Access>,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    let token = find_token(&api, &access, &id)?;
    removed(api.services.catalog.revoke_token(&token, &access.origin()).await?, "token", &id)
}

/// Returns the tenant with which a new token is stored.
fn tenant_of_token(api: &ApiState, access: &Access, doc: &TokenInput) -> Result<Arc<Tenant>, Problem> {
    if doc.operator {
        if doc.tenant.as_ref().is_some_and(|name| name != DEFAULT_TENANT) {
            return Err(Problem::invalid("/tenant", "an operator's token belongs to no tenant"));
        }
        return api.services.catalog.tenant(DEFAULT_TENANT).ok_or_else(Problem::internal);
    }
    let Some(name) = doc.tenant.as_ref().filter(|name| **name != access.tenant.name) else {
        return Ok(Arc::clone(&access.tenant));
    };
    if !access.operator {
        return Err(Problem::forbidden("only an operator's token can make tokens for another tenant"));
    }
    let unknown = || Problem::invalid("/tenant", format!("there is no tenant `{}`", name.escape_debug()));
    api.services.catalog.tenant(name).ok_or_else(unknown)
}

/// Returns a token that the request may change: one of its tenant, or an operator's if it is an operator's itself.
fn find_token(api: &ApiState, access: &Access, id: &str) -> Result<Arc<ApiToken>, Problem> {
    let own = api.services.catalog.token(access.tenant.id, id).filter(|token| !token.operator);
    let found = own.or_else(|| {
        let operators = if access.operator { api.services.catalog.operator_tokens() } else { Vec::new() };
        operators.into_iter().find(|token| token.id == id)
    });
    found.ok_or_else(|| Problem::unknown("token", id))
}

/// Reads the expiry of a token, within `auth.max_token_age`.
fn expiry(api: &ApiState, period: Option<&str>, at: Option<&Value>) -> Result<Option<UnixMs>, Problem> {
    let (now, at) = (api.services.clock.now(), at.filter(|at| !at.is_null()));
    let (pointer, end) = match (period, at) {
        (Some(_), Some(_)) => {
            return Err(Problem::invalid("/expires_at", "`expires_at` and `expires_in` exclude each other"));
        }
        (Some(period), None) => ("/expires_in", now.plus(parse_period("/expires_in", period)?)),
        (None, Some(at)) => {
            let end = time(at, now).map_err(|detail| Problem::invalid("/expires_at", detail))?;
            ("/expires_at", end)
        }
        (None, None) => return Ok(None),
    };
    if end <= now {
        return Err(Problem::invalid(pointer, "the expiry must be in the future"));
    }
    let Some(most) = api.config.max_token_age.filter(|most| end > now.plus(*most)) else { return Ok(Some(end)) };
    let detail = format!("a token is valid for at most {} (`auth.max_token_age`)", duration::format(most));
    Err(Problem::invalid(pointer, detail))
}
