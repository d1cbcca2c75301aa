//! Plugins: the server's own and the tenant's.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::http::header::{CONTENT_TYPE, HeaderName};
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::super::ApiState;
use super::super::auth::Access;
use super::super::bounds::BodyLimit;
use super::super::door::Deadline;
use super::super::error::Problem;
use super::super::input::{self, Body, Path, Query};
use super::super::openapi::Component;
use super::{Page, Paging, foreign_cursor, removed};
use carillon_catalog::{PluginVersion, SHARED, Sharing, Upload};
use carillon_core::job::TenantId;
use carillon_policy::binding::PluginName;
use carillon_policy::{ComponentSource as _, Digest, Role};

/// The header of an upload's signature.
const SIGNATURE: HeaderName = HeaderName::from_static("carillon-signature");

/// State of a version of a plugin.
#[derive(Clone, Copy, Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum PluginState {
    /// The component was compiled, linked and described, and passed its golden tests: it can be bound. A component that fails one of these
    /// steps is not stored.
    Validated,
}

/// Version of a plugin, as the API returns it.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct PluginView {
    /// Name of the plugin.
    name: String,
    /// Semantic version.
    version: String,
    /// SHA-256 of the component.
    digest: Digest,
    /// Roles that the plugin can play.
    roles: Vec<Role>,
    /// Summary that the component states.
    summary: String,
    /// Whether the plugin is one of the server's own.
    builtin: bool,
    /// Whether the server's operator shares the plugin with tenants.
    shared: bool,
    /// Names of the tenants that the plugin is shared with, for operators; absent if it is shared with all.
    #[serde(skip_serializing_if = "Option::is_none")]
    tenants: Option<Vec<String>>,
    /// Size of the component in bytes.
    size: usize,
    /// Time of the upload.
    #[schema(format = DateTime)]
    created_at: String,
    /// State of the version.
    state: PluginState,
    /// Time of the validation; for the server's own plugins, time of the server's start.
    #[schema(format = DateTime)]
    validated_at: String,
    /// Name of the tenant's signer whose signature was verified; absent if the tenant had no signers.
    #[serde(skip_serializing_if = "Option::is_none")]
    signed_by: Option<String>,
    /// Reason why the version should no longer be bound; absent if it is not deprecated.
    #[serde(skip_serializing_if = "Option::is_none")]
    deprecated: Option<String>,
    /// JSON Schema of the config; only in the response about a single plugin.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    config_schema: Option<Value>,
}

impl PluginView {
    /// Shows a plugin with its config schema.
    fn full(plugin: &PluginVersion) -> Self {
        Self { config_schema: Some(plugin.doc.config_schema.clone()), ..Self::summary(plugin) }
    }

    /// Adds the tenants that a shared plugin is shared with, which concern operators only.
    fn for_caller(self, api: &ApiState, access: &Access, plugin: &PluginVersion) -> Self {
        let tenants = access.operator.then(|| api.services.catalog.shared_with(plugin)).flatten();
        Self { tenants, ..self }
    }

    fn summary(plugin: &PluginVersion) -> Self {
        Self {
            name: plugin.name.clone(),
            version: plugin.version.to_string(),
            digest: plugin.doc.digest.clone(),
            roles: plugin.doc.roles.clone(),
            summary: plugin.doc.summary.clone(),
            builtin: plugin.builtin,
            shared: plugin.shared,
            tenants: None,
            size: plugin.doc.size,
            created_at: plugin.created_at.to_string(),
            state: PluginState::Validated,
            validated_at: plugin.created_at.to_string(),
            signed_by: plugin.doc.signed_by.clone(),
            deprecated: plugin.doc.deprecated.clone(),
            config_schema: None,
        }
    }
}

/// Choice between the plugins of the tenant and those that are shared.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(in super::super) struct SharedParams {
    /// Whether the plugins that operators share with tenants are meant, and no others; it requires an operator's token. Default: false.
    #[serde(default)]
    shared: bool,
}

impl SharedParams {
    /// Returns the owner of the plugins that are meant.
    fn owner(&self, access: &Access) -> Result<TenantId, Problem> {
        if !self.shared {
            Ok(access.tenant.id)
        } else if access.operator {
            Ok(SHARED)
        } else {
            Err(Problem::forbidden("only an operator's token can manage the plugins that are shared with tenants"))
        }
    }
}

/// Sharing of an upload.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(in super::super) struct UploadParams {
    /// Names of the tenants to share the version with, separated by commas; `*` shares it with all. It requires an operator's token. Default:
    /// the version is the tenant's own.
    tenants: Option<String>,
}

impl UploadParams {
    fn sharing(&self, access: &Access) -> Result<Option<Sharing>, Problem> {
        let Some(tenants) = &self.tenants else { return Ok(None) };
        if !access.operator {
            return Err(Problem::forbidden("only an operator's token can share plugins with tenants"));
        }
        if tenants == "*" {
            return Ok(Some(Sharing::All));
        }
        let names = tenants.split(',').map(str::trim).filter(|name| !name.is_empty());
        Ok(Some(Sharing::With(names.map(str::to_owned).collect())))
    }
}

/// Lists the plugins that the tenant can bind, or those that are shared.
#[utoipa::path(get, path = "/v1/plugins", operation_id = "plugins_list", tag = "plugins", params(SharedParams, Paging),
    responses((status = 200, body = Page<PluginView>), (status = "4XX", body = Problem)))]
pub(in super::super) async fn list(
    State(api): State<Arc<ApiState>>,
    Extension(access): Extension<Access>,
    Query(choice): Query<SharedParams>,
    Query(paging): Query<Paging>,
) -> Result<Json<Page<PluginView>>, Problem> {
    let catalog = &api.services.catalog;
    let plugins = match choice.owner(&access)? {
        SHARED => catalog.shared_plugins(),
        tenant => catalog.plugins(tenant),
    };
    let mut plugins: Vec<_> =
        plugins.iter().map(|plugin| PluginView::summary(plugin).for_caller(&api, &access, plugin)).collect();
    let name = |plugin: &PluginView| format!("{}@{}", plugin.name, plugin.version);
    plugins.sort_by_key(name);
    Ok(Json(Page::of_sorted(plugins, &paging, name)?.within(api.config.limits.answer)))
}

/// Shows the newest version of a plugin, with the schema of its config.
#[utoipa::path(get, path = "/v1/plugins/{plugin}", operation_id = "plugins_get", tag = "plugins", params(SharedParams),
    responses((status = 200, body = PluginView), (status = "4XX", body = Problem)))]
pub(in super::super) async fn get(
    State(api): State<Arc<ApiState>>,
    Extension(access): Extension<Access>,
    Path(name): Path<String>,
    Query(choice): Query<SharedParams>,
) -> Result<Json<PluginView>, Problem> {
    plugin_view(&api, &access, &choice, &PluginName { name, version: None })
}

/// Lists the versions of a plugin, newest first.
#[utoipa::path(get, path = "/v1/plugins/{plugin}/versions", operation_id = "plugin_versions_list", tag = "plugins", params(SharedParams, Paging),
    responses((status = 200, body = Page<PluginView>), (status = "4XX", body = Problem)))]
pub(in super::super) async fn list_versions(
    State(api): State<Arc<ApiState>>,
    Extension(access): Extension<Access>,
    Path(name): Path<String>,
    Query(choice): Query<SharedParams>,
    Query(paging): Query<Paging>,
) -> Result<Json<Page<PluginView>>, Problem> {
    let versions = api.services.catalog.plugin_versions(choice.owner(&access)?, &name);
    if versions.is_empty() {
        return Err(Problem::unknown("plugin", &name));
    }
    let before = paging.cursor.as_deref().map(str::parse::<semver::Version>).transpose();
    let before = before.map_err(|_| foreign_cursor())?;
    let limit = paging.limit()?;
    let rest = versions.iter().rev().filter(|plugin| before.as_ref().is_none_or(|before| plugin.version < *before));
    let rest = rest.take(usize::try_from(limit).unwrap_or(usize::MAX).saturating_add(1));
    let views = rest.map(|plugin| PluginView::summary(plugin).for_caller(&api, &access, plugin)).collect();
    Ok(Json(Page::cut(views, limit, |plugin: &PluginView| plugin.version.clone()).within(api.config.limits.answer)))
}

/// Shows a version of a plugin, with the schema of its config.
#[utoipa::path(get, path = "/v1/plugins/{plugin}/versions/{version}", operation_id = "plugin_versions_get", tag = "plugins", params(SharedParams),
    responses((status = 200, body = PluginView), (status = "4XX", body = Problem)))]
pub(in super::super) async fn get_version(
    State(api): State<Arc<ApiState>>,
    Extension(access): Extension<Access>,
    Path((name, version)): Path<(String, String)>,
    Query(choice): Query<SharedParams>,
) -> Result<Json<PluginView>, Problem> {
    plugin_view(&api, &access, &choice, &PluginName { name, version: Some(version) })
}

/// Uploads a version of a plugin; the body is the component.
///
/// The component is compiled, linked, asked for its description and run against its golden tests before it is accepted. A version never
/// changes: other bytes under the same version are refused. A component that states the version `0.1.0` may also be uploaded as a draft of it,
/// such as `0.1.0-dev.3`. If the tenant has signers, `Carillon-Signature` must be an Ed25519 signature of the body by one of them, in base64.
///
/// With `tenants`, an operator shares the version with tenants, which can bind it and neither change nor delete it. No quota counts it. The same
/// bytes again with other `tenants` share the version with these.
///
/// Uploads of a tenant are compiled one after the other. If too many are pending, or if an upload waits too long, the response is 503 with
/// `Retry-After`.
#[utoipa::path(put, path = "/v1/plugins/{plugin}/versions/{version}", operation_id = "plugin_versions_put", tag = "plugins",
    params(UploadParams, ("Carillon-Signature" = Option<String>, Header, description = "Ed25519 signature of the body, in base64.")),
    request_body(content = Component, content_type = "application/wasm"),
    responses((status = 200, body = PluginView), (status = 201, body = PluginView), (status = "4XX", body = Problem), (status = 503, body = Problem)))]
pub(in super::super) async fn put_version(
    State(api): State<Arc<ApiState>>,
    Extension(access): Extension<Access>,
    Path((name, version)): Path<(String, String)>,
    Query(params): Query<UploadParams>,
    mut request: Request,
) -> Result<(StatusCode, Json<PluginView>), Problem> {
    let sharing = params.sharing(&access)?;
    request
        .extensions_mut()
        .insert(BodyLimit::component(&api.config.limits, api.services.runtime.registry.component_limit()));
    let signature =
        request.headers().get(SIGNATURE).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    let deadline = request.extensions().get::<Deadline>().cloned();
    let component: Bytes = input::read(request).await?;
    // It has arrived in time. What is done with it now is bounded by itself, and the author is told which bound it was.
    if let Some(deadline) = deadline {
        deadline.extend(api.services.catalog.upload_time());
    }
    let upload = Upload { name, version, component, signature, sharing };
    let (plugin, is_new) = api.services.catalog.put_plugin(&access.tenant, upload, &access.origin()).await?;
    let status = if is_new { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Json(PluginView::full(&plugin).for_caller(&api, &access, &plugin))))
}

/// Downloads the component of a version, as it was uploaded.
#[utoipa::path(get, path = "/v1/plugins/{plugin}/versions/{version}/component", operation_id = "plugin_versions_download", tag = "plugins", params(SharedParams),
    responses((status = 200, content_type = "application/wasm", body = Component), (status = "4XX", body = Problem)))]
pub(in super::super) async fn component(
    State(api): State<Arc<ApiState>>,
    Extension(access): Extension<Access>,
    Path((name, version)): Path<(String, String)>,
    Query(choice): Query<SharedParams>,
) -> Result<([(HeaderName, &'static str); 1], Bytes), Problem> {
    let name = PluginName { name, version: Some(version) };
    let plugin = api.services.catalog.plugin(choice.owner(&access)?, &name);
    let plugin = plugin.ok_or_else(|| Problem::unknown("plugin", &name.to_string()))?;
    let bytes = api.services.catalog.component(&plugin.doc.digest).await.map_err(Problem::unavailable)?;
    let bytes = bytes.ok_or_else(Problem::internal)?;
    Ok(([(CONTENT_TYPE, "application/wasm")], bytes))
}

/// Change of a version of a plugin: its deprecation, or the tenants that it is shared with.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PluginPatch {
    /// Reason why the version should no longer be bound; null ends the deprecation. Default: it stays as it is.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<String>)]
    deprecated: Option<Option<String>>,
    /// Names of the tenants to share a shared version with; null shares it with all. It requires `shared=true`. Default: they stay as they are.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<Vec<String>>)]
    tenants: Option<Option<Vec<String>>>,
}

/// Reads a member that is there, and may be null.
fn given<'de, D: serde::Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Option<Option<T>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

/// Deprecates a version or ends its deprecation, or shares a shared version with other tenants. Groups that bind a deprecated version continue,
/// with a warning. The response is 409 if a group of a tenant that would lose the version uses it.
#[utoipa::path(patch, path = "/v1/plugins/{plugin}/versions/{version}", operation_id = "plugin_versions_deprecate", tag = "plugins", params(SharedParams), request_body = PluginPatch,
    responses((status = 200, body = PluginView), (status = "4XX", body = Problem)))]
pub(in super::super) async fn deprecate(
    State(api): State<Arc<ApiState>>,
    Extension(access): Extension<Access>,
    Path((name, version)): Path<(String, String)>,
    Query(choice): Query<SharedParams>,
    Body(patch): Body<PluginPatch>,
) -> Result<Json<PluginView>, Problem> {
    let (owner, catalog) = (choice.owner(&access)?, &api.services.catalog);
    let name = PluginName { name, version: Some(version) };
    let unknown = || Problem::unknown("plugin", &name.to_string());
    let plugin = match (patch.deprecated, patch.tenants) {
        (None, None) => return Err(Problem::invalid("", "the document must have `deprecated` or `tenants`")),
        (Some(_), Some(_)) => {
            return Err(Problem::invalid(
                "/tenants",
                "`deprecated` and `tenants` are changed in requests of their own",
            ));
        }
        (Some(deprecated), None) => catalog.deprecate_plugin(owner, &name, deprecated, &access.origin()).await?,
        (None, Some(_)) if !choice.shared => {
            return Err(Problem::invalid(
                "/tenants",
                "only a shared version has `tenants`: add `shared=true` to the query",
            ));
        }
        (None, Some(tenants)) => {
            let sharing = tenants.map_or(Sharing::All, Sharing::With);
            catalog.share_plugin(&name, &sharing, &access.origin()).await?
        }
    };
    let plugin = plugin.ok_or_else(unknown)?;
    Ok(Json(PluginView::full(&plugin).for_caller(&api, &access, &plugin)))
}

/// Removes a version. The response is 409 while a version of a group's policy, or the tenant's defaults, use it.
#[utoipa::path(delete, path = "/v1/plugins/{plugin}/versions/{version}", operation_id = "plugin_versions_delete", tag = "plugins", params(SharedParams),
    responses((status = 204), (status = "4XX", body = Problem)))]
pub(in super::super) async fn delete_version(
    State(api): State<Arc<ApiState>>,
    Extension(access): Extension<Access>,
    Path((name, version)): Path<(String, String)>,
    Query(choice): Query<SharedParams>,
) -> Result<StatusCode, Problem> {
    let name = PluginName { name, version: Some(version) };
    let (owner, origin) = (choice.owner(&access)?, access.origin());
    removed(api.services.catalog.delete_plugin(owner, &name, &origin).await?, "plugin", &name.to_string())
}

fn plugin_view(
    api: &ApiState,
    access: &Access,
    choice: &SharedParams,
    name: &PluginName,
) -> Result<Json<PluginView>, Problem> {
    let plugin = api.services.catalog.plugin(choice.owner(access)?, name);
    let plugin = plugin.ok_or_else(|| Problem::unknown("plugin", &name.to_string()))?;
    Ok(Json(PluginView::full(&plugin).for_caller(api, access, &plugin)))
}
