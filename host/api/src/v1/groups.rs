//! Groups: what policy and which limits their jobs have.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::{Extension, Json};
use serde::Deserialize;
use serde_json::Value;

use super::super::ApiState;
use super::super::auth::Access;
use super::super::error::Problem;
use super::super::input::{Body, Path, Query};
use super::group_view::{effective_group_view, group_view};
use super::versions::announce_move;
use super::views::{ChangedGroupView, GroupInput, GroupView};
use super::{Page, Paging, find_group, removed};
use carillon_catalog::Written;
use carillon_core::json::unique::UniqueValue;
use carillon_store::Stats;

/// Reason for a change.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(in super::super) struct Reason {
    /// Reason for the change; stored with the new version of the policy.
    why: Option<String>,
}

/// Makes a group, or replaces all of its own settings. Every plugin of the policy checks its config. A policy that differs from the present one
/// becomes a new version, in force at once. The response lists the settings that were removed, added and changed. If the group's requests are
/// signed, the document must have `sign`; `"sign": null` ends the signing.
#[utoipa::path(put, path = "/v1/groups/{group}", operation_id = "groups_put", tag = "groups", params(Reason), request_body = GroupInput,
    responses((status = 200, body = ChangedGroupView), (status = 201, body = ChangedGroupView), (status = "4XX", body = Problem)))]
pub(in super::super) async fn put(
    State(api): State<Arc<ApiState>>,
    Extension(access): Extension<Access>,
    Path(name): Path<String>,
    Query(reason): Query<Reason>,
    Body(UniqueValue(doc)): Body<UniqueValue>,
) -> Result<(StatusCode, Json<ChangedGroupView>), Problem> {
    write_group(&api, &access, &name, reason, doc, Written::Whole).await
}

/// Changes some of a group's own settings. Members that the document does not name stay. Objects are merged, and so is a config if the plugin
/// stays the same; lists are replaced; null removes a value, own or inherited.
#[utoipa::path(patch, path = "/v1/groups/{group}", operation_id = "groups_patch", tag = "groups", params(Reason), request_body = GroupInput,
    responses((status = 200, body = ChangedGroupView), (status = "4XX", body = Problem)))]
pub(in super::super) async fn patch(
    State(api): State<Arc<ApiState>>,
    Extension(access): Extension<Access>,
    Path(name): Path<String>,
    Query(reason): Query<Reason>,
    Body(UniqueValue(doc)): Body<UniqueValue>,
) -> Result<(StatusCode, Json<ChangedGroupView>), Problem> {
    find_group(&api, &access, &name)?;
    write_group(&api, &access, &name, reason, doc, Written::Part).await
}

async fn write_group(
    api: &ApiState,
    access: &Access,
    name: &str,
    reason: Reason,
    doc: Value,
    written: fn(Value) -> Written,
) -> Result<(StatusCode, Json<ChangedGroupView>), Problem> {
    let before = api.services.catalog.group(access.tenant.id, name).map(|group| group.binding);
    let author = access.author(reason.why, &api.config.limits)?;
    access.check_policy(&doc)?;
    let put = api.services.catalog.put_group(&access.tenant, name, written(doc), &author).await?;
    if before.is_some_and(|before| before != put.group.binding) {
        announce_move(api, &put.group);
    }
    api.services.notifier.notify_local();
    let status = if put.is_new { StatusCode::CREATED } else { StatusCode::OK };
    let group = group_view(api, &put.group);
    Ok((status, Json(ChangedGroupView { group, changes: put.changes })))
}

/// Options of the view of a group.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(in super::super) struct Shown {
    /// Whether to return the merged settings that are in force, with the layer that each value comes from. Default: false.
    #[serde(default)]
    effective: bool,
}

/// Shows a group.
#[utoipa::path(get, path = "/v1/groups/{group}", operation_id = "groups_get", tag = "groups", params(Shown),
    responses((status = 200, body = GroupView), (status = "4XX", body = Problem)))]
pub(in super::super) async fn get(
    State(api): State<Arc<ApiState>>,
    Extension(access): Extension<Access>,
    Path(name): Path<String>,
    Query(shown): Query<Shown>,
) -> Result<Json<GroupView>, Problem> {
    let group = find_group(&api, &access, &name)?;
    Ok(Json(if shown.effective { effective_group_view(&api, &group) } else { group_view(&api, &group) }))
}

/// Lists the tenant's groups by name.
#[utoipa::path(get, path = "/v1/groups", operation_id = "groups_list", tag = "groups", params(Paging),
    responses((status = 200, body = Page<GroupView>), (status = "4XX", body = Problem)))]
pub(in super::super) async fn list(
    State(api): State<Arc<ApiState>>,
    Extension(access): Extension<Access>,
    Query(paging): Query<Paging>,
) -> Result<Json<Page<GroupView>>, Problem> {
    let mut groups = api.services.catalog.groups(access.tenant.id);
    groups.retain(|group| access.sees(&group.name));
    let page = Page::of_sorted(groups, &paging, |group| group.name.clone())?;
    Ok(Json(page.shown(|group| Ok(group_view(&api, &group)))?.within(api.config.limits.answer)))
}

/// Removes a group and its finished jobs. The response is 409 while the group has unfinished jobs.
#[utoipa::path(delete, path = "/v1/groups/{group}", operation_id = "groups_delete", tag = "groups",
    responses((status = 204), (status = "4XX", body = Problem)))]
pub(in super::super) async fn delete(
    State(api): State<Arc<ApiState>>,
    Extension(access): Extension<Access>,
    Path(name): Path<String>,
) -> Result<StatusCode, Problem> {
    removed(api.services.catalog.delete_group(access.tenant.id, &name, &access.origin()).await?, "group", &name)
}

/// Pauses a group: its jobs wait. Running attempts finish.
#[utoipa::path(post, path = "/v1/groups/{group}/pause", operation_id = "groups_pause", tag = "groups",
    responses((status = 200, body = GroupView), (status = "4XX", body = Problem)))]
pub(in super::super) async fn pause(
    State(api): State<Arc<ApiState>>,
    Extension(access): Extension<Access>,
    Path(name): Path<String>,
) -> Result<Json<GroupView>, Problem> {
    pause_group(&api, &access, &name, true).await
}

/// Resumes a paused group.
#[utoipa::path(post, path = "/v1/groups/{group}/resume", operation_id = "groups_resume", tag = "groups",
    responses((status = 200, body = GroupView), (status = "4XX", body = Problem)))]
pub(in super::super) async fn resume(
    State(api): State<Arc<ApiState>>,
    Extension(access): Extension<Access>,
    Path(name): Path<String>,
) -> Result<Json<GroupView>, Problem> {
    pause_group(&api, &access, &name, false).await
}

async fn pause_group(api: &ApiState, access: &Access, name: &str, paused: bool) -> Result<Json<GroupView>, Problem> {
    let group = find_group(api, access, name)?;
    if group.paused != paused {
        api.services.catalog.set_paused(&group, paused, &access.origin()).await?;
        api.services.notifier.notify_local();
    }
    let group = find_group(api, access, name)?;
    Ok(Json(group_view(api, &group)))
}

/// Returns the exact number of a group's jobs in each state.
#[utoipa::path(get, path = "/v1/groups/{group}/stats", operation_id = "groups_count_jobs", tag = "groups",
    responses((status = 200, body = Stats), (status = "4XX", body = Problem)))]
pub(in super::super) async fn stats(
    State(api): State<Arc<ApiState>>,
    Extension(access): Extension<Access>,
    Path(name): Path<String>,
) -> Result<Json<Stats>, Problem> {
    let group = find_group(&api, &access, &name)?;
    Ok(Json(api.services.store.stats(access.tenant.id, group.id, api.services.clock.now()).await?))
}
