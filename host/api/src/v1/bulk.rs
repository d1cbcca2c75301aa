//! Changes of many jobs of a group.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::super::ApiState;
use super::super::audit::requested;
use super::super::auth::Access;
use super::super::error::Problem;
use super::super::input::{Body, OptionalBody, Path, Query, run_at};
use super::super::scope::is_visible;
use super::job_filter::FilterInput;
use super::{Page, Paging, find_group};
use carillon_catalog::{Bulk, BulkAction, BulkRecord, Group};
use carillon_core::audit::AuditObject;
use carillon_core::job::JobId;
use carillon_engine::intake::TimeInput;
use carillon_engine::maintenance::bulk::AT_ONCE;

/// Action on many jobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
enum ActionInput {
    /// Cancels waiting and running jobs.
    Cancel,
    /// Makes waiting jobs due now.
    Run,
    /// Makes waiting jobs due at `run_at`.
    Reschedule,
    /// Redrives dead letters and expired jobs: each gets a new series of attempts.
    Redrive,
    /// Removes dead letters, or the ended jobs in the filter's `state`.
    Purge,
}

/// Change of many jobs of a group.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangeInput {
    /// Action on each of the jobs.
    action: ActionInput,
    /// Filter that selects the jobs. Default: all jobs in a state that the action applies to.
    #[serde(default)]
    filter: FilterInput,
    /// New due time, with `reschedule` only: RFC 3339, Unix seconds, or `+90s`.
    #[serde(default)]
    #[schema(value_type = Option<TimeInput>)]
    run_at: Option<Value>,
    /// Whether to count the jobs without changing them. Default: false.
    #[serde(default)]
    dry_run: bool,
}

/// Selection of a group's jobs.
#[derive(Debug, Default, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SelectionInput {
    /// Filter that selects the jobs. Default: all jobs in a state that the action applies to.
    filter: FilterInput,
    /// Whether to count the jobs without changing them. Default: false.
    dry_run: bool,
}

/// Change of many jobs, with its progress.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct BulkView {
    /// Id for `GET /v1/bulk/{id}`; null for a dry run.
    id: Option<String>,
    /// Action: `cancel`, `reschedule`, `redrive` or `purge`.
    action: &'static str,
    /// Name of the group.
    group: String,
    /// Number of jobs at the time of the request; after the end, the sum of `done` and `skipped`.
    total: u64,
    /// Number of jobs that were changed so far.
    done: u64,
    /// Number of jobs that were removed or in another state when the change reached them.
    skipped: u64,
    /// Whether the change has ended.
    finished: bool,
    /// Time of the request.
    #[schema(format = DateTime)]
    created_at: String,
    /// Time of the end; null until then.
    #[schema(format = DateTime)]
    finished_at: Option<String>,
}

fn bulk_view(api: &ApiState, bulk: &Bulk) -> BulkView {
    let doc = &bulk.doc;
    BulkView {
        id: Some(bulk.id.clone()),
        action: match doc.action {
            BulkAction::Cancel => "cancel",
            BulkAction::Reschedule { .. } => "reschedule",
            BulkAction::Redrive => "redrive",
            BulkAction::Purge => "purge",
        },
        group: api.services.catalog.group_by_id(doc.filter.group).map(|group| group.name.clone()).unwrap_or_default(),
        total: doc.total,
        done: doc.done,
        skipped: doc.skipped,
        finished: doc.finished_at.is_some(),
        created_at: bulk.created_at.to_string(),
        finished_at: doc.finished_at.map(|at| at.to_string()),
    }
}

/// Makes a change at once if it concerns few jobs (200); else starts it in the background (202).
async fn change_many(
    api: &ApiState,
    access: &Access,
    group: &Group,
    action: BulkAction,
    filter: FilterInput,
    dry_run: bool,
) -> Result<(StatusCode, Json<BulkView>), Problem> {
    let filter =
        filter.into_filter(access, group.id, &api.config.limits).map_err(|problem| problem.within("/filter"))?;
    if let Some(state) = filter.state.filter(|state| !action.fits(*state)) {
        return Err(Problem::invalid(
            "/filter/state",
            format!("the action does not apply to jobs in the state `{state}`"),
        ));
    }
    // The id is above those of all jobs that were accepted so far.
    let id = JobId::new(&*api.services.clock);
    let mut bulk = Bulk {
        id: id.to_string(),
        tenant: access.tenant.id,
        created_at: api.services.clock.now(),
        doc: BulkRecord {
            action,
            filter,
            before: id,
            total: 0,
            done: 0,
            skipped: 0,
            cursor: (0, None),
            finished_at: None,
        },
    };
    bulk.doc.total = api.bulk.count(&bulk).await?;
    if action == BulkAction::Redrive && !dry_run {
        api.intake.admit(access.tenant.id, usize::try_from(bulk.doc.total).unwrap_or(usize::MAX)).await?;
    }
    if dry_run {
        return Ok((StatusCode::OK, Json(BulkView { id: None, ..bulk_view(api, &bulk) })));
    }
    if bulk.doc.total <= AT_ONCE {
        // The jobs change before the bulk change is stored, so the entry of the audit log comes first.
        requested(api, &access.known(), action.verb(), AuditObject::new("bulk", Some(bulk.id.clone()))).await?;
        api.bulk.finish(&mut bulk).await?;
        api.services.catalog.put_bulk(&bulk).await?;
    } else {
        api.services.catalog.add_bulk(&bulk, &access.origin()).await?;
    }
    let status = if bulk.doc.finished_at.is_some() { StatusCode::OK } else { StatusCode::ACCEPTED };
    Ok((status, Json(bulk_view(api, &bulk))))
}

/// Changes all jobs of a group that match a filter. A change of up to 1,000 jobs is complete when the response (200) is sent. A larger one
/// continues in the background (202); `GET /v1/bulk/{id}` shows its progress.
#[utoipa::path(post, path = "/v1/groups/{group}/bulk", operation_id = "bulk_changes_create", tag = "bulk", request_body = ChangeInput,
    responses((status = 200, body = BulkView), (status = 202, body = BulkView), (status = "4XX", body = Problem)))]
pub(in super::super) async fn change(
    State(api): State<Arc<ApiState>>,
    Extension(access): Extension<Access>,
    Path(group): Path<String>,
    Body(doc): Body<ChangeInput>,
) -> Result<(StatusCode, Json<BulkView>), Problem> {
    let group = find_group(&api, &access, &group)?;
    let now = api.services.clock.now();
    if doc.run_at.is_some() != (doc.action == ActionInput::Reschedule) {
        return Err(Problem::invalid(
            "/run_at",
            "`run_at` is required with `reschedule`, and allowed with no other action",
        ));
    }
    let action = match doc.action {
        ActionInput::Cancel => BulkAction::Cancel,
        ActionInput::Run => BulkAction::Reschedule { at: now },
        ActionInput::Reschedule => {
            BulkAction::Reschedule { at: run_at(doc.run_at.as_ref(), now, api.intake.limits.horizon)? }
        }
        ActionInput::Redrive => BulkAction::Redrive,
        ActionInput::Purge => BulkAction::Purge,
    };
    change_many(&api, &access, &group, action, doc.filter, doc.dry_run).await
}

/// Redrives a group's dead letters and expired jobs: each gets a new series of attempts.
#[utoipa::path(post, path = "/v1/groups/{group}/redrive", operation_id = "jobs_redrive", tag = "bulk", request_body = Option<SelectionInput>,
    responses((status = 200, body = BulkView), (status = 202, body = BulkView), (status = "4XX", body = Problem)))]
pub(in super::super) async fn redrive(
    state: State<Arc<ApiState>>,
    access: Extension<Access>,
    group: Path<String>,
    doc: OptionalBody<SelectionInput>,
) -> Result<(StatusCode, Json<BulkView>), Problem> {
    change_some(state, access, group, doc, BulkAction::Redrive).await
}

/// Removes a group's dead letters, or the ended jobs in the filter's `state`.
#[utoipa::path(post, path = "/v1/groups/{group}/purge", operation_id = "jobs_purge", tag = "bulk", request_body = Option<SelectionInput>,
    responses((status = 200, body = BulkView), (status = 202, body = BulkView), (status = "4XX", body = Problem)))]
pub(in super::super) async fn purge(
    state: State<Arc<ApiState>>,
    access: Extension<Access>,
    group: Path<String>,
    doc: OptionalBody<SelectionInput>,
) -> Result<(StatusCode, Json<BulkView>), Problem> {
    change_some(state, access, group, doc, BulkAction::Purge).await
}

/// Cancels all waiting jobs of a group, due or not. Running jobs are cancelled when their attempt ends, unless it succeeds.
#[utoipa::path(post, path = "/v1/groups/{group}/flush", operation_id = "jobs_flush", tag = "bulk", request_body = Option<SelectionInput>,
    responses((status = 200, body = BulkView), (status = 202, body = BulkView), (status = "4XX", body = Problem)))]
pub(in super::super) async fn flush(
    state: State<Arc<ApiState>>,
    access: Extension<Access>,
    group: Path<String>,
    doc: OptionalBody<SelectionInput>,
) -> Result<(StatusCode, Json<BulkView>), Problem> {
    change_some(state, access, group, doc, BulkAction::Cancel).await
}

async fn change_some(
    State(api): State<Arc<ApiState>>,
    Extension(access): Extension<Access>,
    Path(group): Path<String>,
    OptionalBody(doc): OptionalBody<SelectionInput>,
    action: BulkAction,
) -> Result<(StatusCode, Json<BulkView>), Problem> {
    let group = find_group(&api, &access, &group)?;
    change_many(&api, &access, &group, action, doc.filter, doc.dry_run).await
}

/// Shows the progress of a change of many jobs. It is kept for a week after its end.
#[utoipa::path(get, path = "/v1/bulk/{id}", operation_id = "bulk_changes_get", tag = "bulk",
    responses((status = 200, body = BulkView), (status = "4XX", body = Problem)))]
pub(in super::super) async fn get(
    State(api): State<Arc<ApiState>>,
    Extension(access): Extension<Access>,
    Path(id): Path<String>,
) -> Result<Json<BulkView>, Problem> {
    let bulk = api.services.catalog.bulk(access.tenant.id, &id);
    let visible = bulk.filter(|bulk| is_visible(&api, &access, bulk.doc.filter.group));
    let bulk = visible.ok_or_else(|| Problem::unknown("bulk change", &id))?;
    Ok(Json(bulk_view(&api, &bulk)))
}

/// Lists the tenant's changes of many jobs, newest first.
#[utoipa::path(get, path = "/v1/bulk", operation_id = "bulk_changes_list", tag = "bulk", params(Paging),
    responses((status = 200, body = Page<BulkView>), (status = "4XX", body = Problem)))]
pub(in super::super) async fn list(
    State(api): State<Arc<ApiState>>,
    Extension(access): Extension<Access>,
    Query(paging): Query<Paging>,
) -> Result<Json<Page<BulkView>>, Problem> {
    let mut bulks = api.services.catalog.bulks(access.tenant.id);
    bulks.retain(|bulk| is_visible(&api, &access, bulk.doc.filter.group));
    let page = Page::of_newest(bulks, &paging, |bulk| bulk.id.clone())?;
    Ok(Json(page.shown(|bulk| Ok(bulk_view(&api, &bulk)))?.within(api.config.limits.answer)))
}
