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
use super::views::{ChangedGroupView, GroupDoc, GroupView};
use super::{Page, Paging, removed};
use carillon_catalog::{Group, Written};
use carillon_core::json::unique::UniqueValue;
use carillon_policy::binding::Changes;
use carillon_store::Stats;

impl ApiState {
    /// Shows a group with the policy that it has stored.
    pub(super) fn group_view(&self, group: &Group) -> GroupView {
        GroupView {
            name: group.name.clone(),
            version: group.version,
            binding: group.binding,
            paused: group.paused,
            created_at: group.created_at.to_string(),
            updated_at: group.updated_at.to_string(),
            policy: group.own.clone(),
            sources: None,
            quota: None,
            broken: group.effective.as_ref().err().map(ToString::to_string),
            quarantined: self.quarantined(group),
            warnings: self.services.catalog.warnings(group),
            canary: self.canary_view(group),
            observer: group.has_observer().then(|| self.observers.report(group.id).into()),
        }
    }

    /// Shows a group with the policy that is in force, merged from all layers.
    fn effective_group_view(&self, group: &Group) -> GroupView {
        let in_force = group.effective.as_ref().map(|effective| &effective.doc);
        GroupView {
            policy: in_force.unwrap_or(&group.own).clone(),
            sources: Some(self.services.catalog.provenance(group)),
            quota: Some(group.tenant.quota.doc.clone()),
            ..self.group_view(group)
        }
    }
}

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
#[utoipa::path(put, path = "/v1/groups/{group}", operation_id = "groups_put", tag = "groups", params(Reason), request_body = GroupDoc,
    responses((status = 200, body = ChangedGroupView), (status = 201, body = ChangedGroupView), (status = "4XX", body = Problem)))]
pub(in super::super) async fn put(
    State(api): State<Arc<ApiState>>,
    Extension(access): Extension<Access>,
    Path(name): Path<String>,
    Query(reason): Query<Reason>,
    Body(UniqueValue(doc)): Body<UniqueValue>,
) -> Result<(StatusCode, Json<ChangedGroupView>), Problem> {
    api.write_group(&access, &name, reason, doc, Written::Whole).await
}

/// Changes some of a group's own settings. Members that the document does not name stay. Objects are merged, and so is a config if the plugin
/// stays the same; lists are replaced; null removes a value, own or inherited.
#[utoipa::path(patch, path = "/v1/groups/{group}", operation_id = "groups_patch", tag = "groups", params(Reason), request_body = GroupDoc,
    responses((status = 200, body = ChangedGroupView), (status = "4XX", body = Problem)))]
pub(in super::super) async fn patch(
    State(api): State<Arc<ApiState>>,
    Extension(access): Extension<Access>,
    Path(name): Path<String>,
    Query(reason): Query<Reason>,
    Body(UniqueValue(doc)): Body<UniqueValue>,
) -> Result<(StatusCode, Json<ChangedGroupView>), Problem> {
    api.group(&access, &name)?;
    api.write_group(&access, &name, reason, doc, Written::Part).await
}

impl ApiState {
    async fn write_group(
        &self,
        access: &Access,
        name: &str,
        reason: Reason,
        doc: Value,
        written: fn(Value) -> Written,
    ) -> Result<(StatusCode, Json<ChangedGroupView>), Problem> {
        let before = self.services.catalog.group(access.tenant.id, name).map(|group| group.binding);
        let author = access.author(reason.why)?;
        let put = self.services.catalog.put_group(&access.tenant, name, written(doc), &author).await?;
        if before.is_some_and(|before| before != put.group.binding) {
            self.moved(&put.group);
        }
        self.services.notifier.notify_local();
        let status = if put.is_new { StatusCode::CREATED } else { StatusCode::OK };
        let group = self.group_view(&put.group);
        Ok((status, Json(ChangedGroupView { group, changes: put.changes })))
    }

    /// A group under another version of its policy than before.
    pub(super) fn changed_group(&self, before: &Group, after: &Group) -> ChangedGroupView {
        let policy = |group: &Group| group.effective.as_ref().map_or_else(|_| group.own.clone(), |it| it.doc.clone());
        let changes = Changes::between(&policy(before), &policy(after));
        ChangedGroupView { group: self.group_view(after), changes }
    }
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
    let group = api.group(&access, &name)?;
    Ok(Json(if shown.effective { api.effective_group_view(&group) } else { api.group_view(&group) }))
}

/// Lists the tenant's groups by name.
#[utoipa::path(get, path = "/v1/groups", operation_id = "groups_list", tag = "groups", params(Paging),
    responses((status = 200, body = Page<GroupView>), (status = "4XX", body = Problem)))]
pub(in super::super) async fn list(
    State(api): State<Arc<ApiState>>,
    Extension(access): Extension<Access>,
    Query(paging): Query<Paging>,
) -> Result<Json<Page<GroupView>>, Problem> {
    let page = Page::of_sorted(api.services.catalog.groups(access.tenant.id), &paging, |group| group.name.clone())?;
    page.shown(|group| Ok(api.group_view(&group))).map(Json)
}

/// Removes a group and its finished jobs. The response is 409 while the group has unfinished jobs.
#[utoipa::path(delete, path = "/v1/groups/{group}", operation_id = "groups_delete", tag = "groups",
    responses((status = 204), (status = "4XX", body = Problem)))]
pub(in super::super) async fn delete(
    State(api): State<Arc<ApiState>>,
    Extension(access): Extension<Access>,
    Path(name): Path<String>,
) -> Result<StatusCode, Problem> {
    removed(api.services.catalog.delete_group(access.tenant.id, &name).await?, "group", &name)
}

/// Pauses a group: its jobs wait. Running attempts finish.
#[utoipa::path(post, path = "/v1/groups/{group}/pause", operation_id = "groups_pause", tag = "groups",
    responses((status = 200, body = GroupView), (status = "4XX", body = Problem)))]
pub(in super::super) async fn pause(
    State(api): State<Arc<ApiState>>,
    Extension(access): Extension<Access>,
    Path(name): Path<String>,
) -> Result<Json<GroupView>, Problem> {
    api.pause_group(&access, &name, true).await
}

/// Resumes a paused group.
#[utoipa::path(post, path = "/v1/groups/{group}/resume", operation_id = "groups_resume", tag = "groups",
    responses((status = 200, body = GroupView), (status = "4XX", body = Problem)))]
pub(in super::super) async fn resume(
    State(api): State<Arc<ApiState>>,
    Extension(access): Extension<Access>,
    Path(name): Path<String>,
) -> Result<Json<GroupView>, Problem> {
    api.pause_group(&access, &name, false).await
}

impl ApiState {
    async fn pause_group(&self, access: &Access, name: &str, paused: bool) -> Result<Json<GroupView>, Problem> {
        let group = self.group(access, name)?;
        if group.paused != paused {
            self.services.catalog.set_paused(&group, paused).await?;
            self.services.notifier.notify_local();
        }
        let group = self.group(access, name)?;
        Ok(Json(self.group_view(&group)))
    }
}

/// Returns the exact number of a group's jobs in each state.
#[utoipa::path(get, path = "/v1/groups/{group}/stats", operation_id = "groups_count_jobs", tag = "groups",
    responses((status = 200, body = Stats), (status = "4XX", body = Problem)))]
pub(in super::super) async fn stats(
    State(api): State<Arc<ApiState>>,
    Extension(access): Extension<Access>,
    Path(name): Path<String>,
) -> Result<Json<Stats>, Problem> {
    let group = api.group(&access, &name)?;
    Ok(Json(api.services.store.stats(access.tenant.id, group.id, api.services.clock.now()).await?))
}
