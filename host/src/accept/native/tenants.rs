//! Tenants. For operators.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::super::Api;
use super::super::error::Problem;
use super::super::input::{Body, Path, Query};
use super::{Page, Paging};
use crate::catalog::{self, SignerDoc, Tenant};
use crate::policy::binding::QuotaDoc;

/// A tenant's own settings.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TenantDoc {
    /// What its groups inherit, in the form of a group.
    #[serde(default)]
    #[schema(value_type = Object)]
    defaults: Map<String, Value>,
    /// What all of its groups may use together, next to what each may.
    #[serde(default)]
    quota: QuotaDoc,
    /// Whose plugins it takes: if there is one, uploads must be signed. Those that are not named any more are forgotten.
    #[serde(default)]
    plugin_signers: Vec<SignerDoc>,
}

/// A tenant as it is shown.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct TenantView {
    name: String,
    /// What its groups inherit.
    #[schema(value_type = Object)]
    defaults: Value,
    /// What they may use together.
    quota: QuotaDoc,
    /// Whose plugins it takes; anybody's who may upload, if there is none.
    plugin_signers: Vec<SignerDoc>,
    created_at: String,
}

impl From<Arc<Tenant>> for TenantView {
    fn from(tenant: Arc<Tenant>) -> Self {
        Self {
            name: tenant.name.clone(),
            defaults: tenant.defaults.clone(),
            quota: tenant.quota.doc.clone(),
            plugin_signers: tenant.signers.docs(),
            created_at: tenant.created_at.to_string(),
        }
    }
}

/// Makes or changes a tenant. Refused if one of its groups would no longer make sense.
#[utoipa::path(put, path = "/v1/tenants/{tenant}", tag = "tenants", request_body = TenantDoc,
    responses((status = 200, body = TenantView), (status = 201, body = TenantView), (status = "4XX", body = Problem)))]
pub(in super::super) async fn put(
    State(api): State<Arc<Api>>,
    Path(name): Path<String>,
    Body(doc): Body<TenantDoc>,
) -> Result<(StatusCode, Json<TenantView>), Problem> {
    let status = if api.catalog.tenant(&name).is_some() { StatusCode::OK } else { StatusCode::CREATED };
    let TenantDoc { defaults, quota, plugin_signers } = doc;
    let doc = catalog::TenantDoc { defaults: Value::Object(defaults), quota, plugin_signers };
    let tenant = api.catalog.put_tenant(&name, doc).await?;
    api.wake.here();
    Ok((status, Json(tenant.into())))
}

/// Shows a tenant.
#[utoipa::path(get, path = "/v1/tenants/{tenant}", tag = "tenants",
    responses((status = 200, body = TenantView), (status = "4XX", body = Problem)))]
pub(in super::super) async fn get(
    State(api): State<Arc<Api>>,
    Path(name): Path<String>,
) -> Result<Json<TenantView>, Problem> {
    let tenant = api.catalog.tenant(&name).ok_or_else(|| Problem::unknown("tenant", &name))?;
    Ok(Json(tenant.into()))
}

/// Lists the tenants by name.
#[utoipa::path(get, path = "/v1/tenants", tag = "tenants", params(Paging),
    responses((status = 200, body = Page<TenantView>), (status = "4XX", body = Problem)))]
pub(in super::super) async fn list(
    State(api): State<Arc<Api>>,
    Query(paging): Query<Paging>,
) -> Result<Json<Page<TenantView>>, Problem> {
    let tenants = api.catalog.tenants().into_iter().map(TenantView::from).collect();
    Ok(Json(Page::of_sorted(tenants, &paging, |tenant: &TenantView| tenant.name.clone())?))
}
