//! Tenants, for operators; and who is asking, for everybody.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::super::ApiState;
use super::super::auth::Access;
use super::super::error::Problem;
use super::super::input::{Body, Path, Query};
use super::{Page, Paging, removed};
use carillon_catalog::{AccessRole, SignerInput, Tenant, TenantPatch, TenantUsage};
use carillon_core::json::unique::{self, UniqueValue};
use carillon_core::limits::TenantLimits;
use carillon_policy::binding::{Changes, QuotaInput};

/// Settings of a tenant.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TenantInput {
    /// Settings that its groups inherit, in the form of a group.
    #[serde(default, deserialize_with = "unique::map")]
    #[schema(value_type = Object)]
    defaults: BTreeMap<String, UniqueValue>,
    /// Limits on what its groups use together, besides each group's own.
    #[serde(default)]
    quota: QuotaInput,
    /// Signers of plugins. If there are any, uploads must be signed by one of them. Signers that are not listed are removed.
    #[serde(default)]
    plugin_signers: Vec<SignerInput>,
}

/// Tenant, as the API returns it.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct TenantView {
    /// Name of the tenant.
    name: String,
    /// Settings that its groups inherit.
    #[schema(value_type = Object)]
    defaults: Value,
    /// Limits on what its groups use together.
    quota: QuotaInput,
    /// Signers of plugins; if there are none, uploads need no signature.
    plugin_signers: Vec<SignerInput>,
    /// What it has of what its quota bounds.
    usage: TenantUsage,
    /// Whether it is suspended: its tokens are refused, and nothing is delivered, ticked or leased.
    suspended: bool,
    /// Time of its creation.
    #[schema(format = DateTime)]
    created_at: String,
}

/// Tenant after a change, with the names of the settings that changed.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct ChangedTenantView {
    #[serde(flatten)]
    tenant: TenantView,
    /// Names of the settings, such as `defaults.sign`, `quota.rate` or `plugin_signers.NAME`.
    #[serde(flatten)]
    changes: Changes,
}

fn tenant_view(api: &ApiState, tenant: &Tenant) -> TenantView {
    TenantView {
        usage: api.services.catalog.usage(tenant.id),
        name: tenant.name.clone(),
        defaults: tenant.defaults.clone(),
        quota: tenant.quota.doc.clone(),
        plugin_signers: tenant.signers.docs(),
        suspended: tenant.suspended,
        created_at: tenant.created_at.to_string(),
    }
}

/// Makes a tenant, or replaces all of its settings. The request fails if one of its groups would no longer be valid. The response lists the
/// settings that were removed, added and changed.
#[utoipa::path(put, path = "/v1/tenants/{tenant}", operation_id = "tenants_put", tag = "tenants", request_body = TenantInput,
    responses((status = 200, body = ChangedTenantView), (status = 201, body = ChangedTenantView), (status = "4XX", body = Problem)))]
pub(in super::super) async fn put(
    State(api): State<Arc<ApiState>>,
    Extension(access): Extension<Access>,
    Path(name): Path<String>,
    Body(doc): Body<TenantInput>,
) -> Result<(StatusCode, Json<ChangedTenantView>), Problem> {
    let TenantInput { defaults, quota, plugin_signers } = doc;
    let doc = carillon_catalog::TenantRecord {
        defaults: defaults.into_iter().map(|(name, value)| (name, value.0)).collect(),
        quota,
        plugin_signers,
    };
    let put = api.services.catalog.replace_tenant(&name, doc, &access.origin()).await?;
    api.services.notifier.notify_local();
    let status = if put.is_new { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Json(ChangedTenantView { tenant: tenant_view(&api, &put.tenant), changes: put.changes })))
}

/// Changes some settings of a tenant. Members that the document does not name stay; null removes one.
#[utoipa::path(patch, path = "/v1/tenants/{tenant}", operation_id = "tenants_patch", tag = "tenants", request_body = TenantPatch,
    responses((status = 200, body = ChangedTenantView), (status = "4XX", body = Problem)))]
pub(in super::super) async fn patch(
    State(api): State<Arc<ApiState>>,
    Extension(access): Extension<Access>,
    Path(name): Path<String>,
    Body(patch): Body<TenantPatch>,
) -> Result<Json<ChangedTenantView>, Problem> {
    api.services.catalog.tenant(&name).ok_or_else(|| Problem::unknown("tenant", &name))?;
    let put = api.services.catalog.patch_tenant(&name, &patch, &access.origin()).await?;
    api.services.notifier.notify_local();
    Ok(Json(ChangedTenantView { tenant: tenant_view(&api, &put.tenant), changes: put.changes }))
}

/// Suspends a tenant: its tokens are refused (403), and nothing is delivered, ticked or leased until it is resumed. Its jobs stay.
#[utoipa::path(post, path = "/v1/tenants/{tenant}/suspend", operation_id = "tenants_suspend", tag = "tenants",
    responses((status = 200, body = TenantView), (status = "4XX", body = Problem)))]
pub(in super::super) async fn suspend(
    State(api): State<Arc<ApiState>>,
    Extension(access): Extension<Access>,
    Path(name): Path<String>,
) -> Result<Json<TenantView>, Problem> {
    set_suspended(&api, &access, &name, true).await
}

/// Resumes a suspended tenant. Its waiting jobs are due as they were, and missed runs of its schedules are made up for as after a stop of the
/// server.
#[utoipa::path(post, path = "/v1/tenants/{tenant}/resume", operation_id = "tenants_resume", tag = "tenants",
    responses((status = 200, body = TenantView), (status = "4XX", body = Problem)))]
pub(in super::super) async fn resume(
    State(api): State<Arc<ApiState>>,
    Extension(access): Extension<Access>,
    Path(name): Path<String>,
) -> Result<Json<TenantView>, Problem> {
    set_suspended(&api, &access, &name, false).await
}

async fn set_suspended(
    api: &ApiState,
    access: &Access,
    name: &str,
    suspended: bool,
) -> Result<Json<TenantView>, Problem> {
    let mut tenant = api.services.catalog.tenant(name).ok_or_else(|| Problem::unknown("tenant", name))?;
    if tenant.suspended != suspended {
        tenant = api.services.catalog.set_suspended(name, suspended, &access.origin()).await?;
        tracing::warn!(tenant = name, suspended, "suspension of a tenant changed");
        api.services.notifier.notify_local();
    }
    Ok(Json(tenant_view(api, &tenant)))
}

/// Removes a tenant with all that belongs to it: jobs, groups, schedules, keys, tokens and plugins. It is gone at once; its data leave the
/// database in the background. The response is 409 for the default tenant and for those of the configuration.
#[utoipa::path(delete, path = "/v1/tenants/{tenant}", operation_id = "tenants_delete", tag = "tenants",
    responses((status = 204), (status = "4XX", body = Problem)))]
pub(in super::super) async fn delete(
    State(api): State<Arc<ApiState>>,
    Extension(access): Extension<Access>,
    Path(name): Path<String>,
) -> Result<StatusCode, Problem> {
    if api.config.configured_tenants.contains(&name) {
        let detail =
            format!("the tenant `{}` is one of the configuration: remove `[tenants.{}]` there first", name, name);
        return Err(Problem::conflict(detail));
    }
    let removed = removed(api.services.catalog.delete_tenant(&name, &access.origin()).await?, "tenant", &name)?;
    tracing::warn!(tenant = name, "tenant deleted");
    api.services.notifier.notify_local();
    Ok(removed)
}

/// Shows a tenant.
#[utoipa::path(get, path = "/v1/tenants/{tenant}", operation_id = "tenants_get", tag = "tenants",
    responses((status = 200, body = TenantView), (status = "4XX", body = Problem)))]
pub(in super::super) async fn get(
    State(api): State<Arc<ApiState>>,
    Path(name): Path<String>,
) -> Result<Json<TenantView>, Problem> {
    let tenant = api.services.catalog.tenant(&name).ok_or_else(|| Problem::unknown("tenant", &name))?;
    Ok(Json(tenant_view(&api, &tenant)))
}

/// Lists the tenants by name.
#[utoipa::path(get, path = "/v1/tenants", operation_id = "tenants_list", tag = "tenants", params(Paging),
    responses((status = 200, body = Page<TenantView>), (status = "4XX", body = Problem)))]
pub(in super::super) async fn list(
    State(api): State<Arc<ApiState>>,
    Query(paging): Query<Paging>,
) -> Result<Json<Page<TenantView>>, Problem> {
    let tenants = api.services.catalog.tenants().iter().map(|tenant| tenant_view(&api, tenant)).collect();
    Ok(Json(
        Page::of_sorted(tenants, &paging, |tenant: &TenantView| tenant.name.clone())?.within(api.config.limits.answer),
    ))
}

/// Token of the request, and the tenant that the request is about.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct WhoamiView {
    /// Name of the token, or its id if it has no name; null if authentication is disabled.
    token: Option<String>,
    /// Role of the token.
    role: AccessRole,
    /// Whether the token also manages tenants.
    operator: bool,
    /// Names of the groups that the token sees and touches; null for all.
    groups: Option<Vec<String>>,
    /// Name of the tenant.
    tenant: String,
    /// Limits on what the tenant's groups use together.
    quota: QuotaInput,
    /// Largest use that the tenant may make: its quota, and the server's defaults for the rest.
    limits: TenantLimits,
    /// What the tenant has of what its limits bound.
    usage: UsageView,
    /// Settings that the tenant's groups inherit.
    #[schema(value_type = Object)]
    defaults: Value,
}

/// What a tenant has of what its limits bound.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct UsageView {
    /// Number of unfinished jobs.
    jobs: u64,
    /// Size of the payloads, documents and attempts of all stored jobs together, in bytes; null while they are counted for the first time after a
    /// start.
    stored_bytes: Option<u64>,
    #[serde(flatten)]
    configured: TenantUsage,
}

/// Shows the role and the tenant of the request's token, with the tenant's quota and defaults.
#[utoipa::path(get, path = "/v1/whoami", operation_id = "tokens_whoami", tag = "tokens",
    responses((status = 200, body = WhoamiView), (status = "4XX", body = Problem)))]
pub(in super::super) async fn whoami(
    State(api): State<Arc<ApiState>>,
    Extension(access): Extension<Access>,
) -> Result<Json<WhoamiView>, Problem> {
    let token = access.by();
    let Access { tenant, role, operator, groups, .. } = access;
    let jobs = api.services.store.unfinished(tenant.id).await?;
    let stored_bytes = api.services.stored_bytes.used(tenant.id).await;
    Ok(Json(WhoamiView {
        token,
        role,
        operator,
        groups: groups.as_deref().map(<[String]>::to_vec),
        tenant: tenant.name.clone(),
        quota: tenant.quota.doc.clone(),
        limits: api.services.catalog.tenant_limits(tenant.id),
        usage: UsageView { jobs, stored_bytes, configured: api.services.catalog.usage(tenant.id) },
        defaults: tenant.defaults.clone(),
    }))
}
