//! Changes of many jobs of a group.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::super::ApiState;
use super::super::auth::Access;
use super::super::error::Problem;
use super::super::input::{Body, OptionalBody, Path, Query, run_at};
use super::jobs::FilterDoc;
use super::{Page, Paging};
use carillon_catalog::{Bulk, BulkAction, BulkDoc, Group};
use carillon_core::job::JobId;
use carillon_engine::intake::TimeInput;
use carillon_engine::maintenance::bulk::AT_ONCE;

/// What can be done to many jobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
enum ActionDoc {
    /// Waiting and running jobs are cancelled.
    Cancel,
    /// Waiting jobs become due now.
    Run,
    /// Waiting jobs become due at `run_at`.
    Reschedule,
    /// Dead letters and expired jobs are tried again.
    Redrive,
    /// Dead letters, or with `state` other jobs that have ended, are removed.
    Purge,
}

/// A change of many jobs.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangeDoc {
    action: ActionDoc,
    /// Which jobs: all that the action is for by default.
    #[serde(default)]
    filter: FilterDoc,
    /// With `reschedule`: RFC 3339, Unix seconds, or `+90s`.
    #[serde(default)]
    #[schema(value_type = Option<TimeInput>)]
    run_at: Option<Value>,
    /// Only count.
    #[serde(default)]
    dry_run: bool,
}

/// Which jobs.
#[derive(Debug, Default, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SomeDoc {
    /// All by default.
    filter: FilterDoc,
    /// Only count.
    dry_run: bool,
}

/// How far a change of many jobs has come.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct BulkView {
    /// Names it in `/v1/bulk/{id}`; null for a dry run.
    id: Option<String>,
    /// What is done: `cancel`, `reschedule`, `redrive` or `purge`.
    action: &'static str,
    /// The group.
    group: String,
    /// How many jobs there were when it was asked for. When it is over: `done` and `skipped` together.
    total: u64,
    /// How many were changed so far.
    done: u64,
    /// How many were in another state when they were reached, or not there any more.
    skipped: u64,
    /// Whether it is over.
    finished: bool,
    /// When it was asked for.
    #[schema(format = DateTime)]
    created_at: String,
    /// When it was over.
    #[schema(format = DateTime)]
    finished_at: Option<String>,
}

impl ApiState {
    fn bulk_view(&self, bulk: &Bulk) -> BulkView {
        let doc = &bulk.doc;
        BulkView {
            id: Some(bulk.id.clone()),
            action: match doc.action {
                BulkAction::Cancel => "cancel",
                BulkAction::Reschedule { .. } => "reschedule",
                BulkAction::Redrive => "redrive",
                BulkAction::Purge => "purge",
            },
            group: self.catalog.group_by_id(doc.filter.group).map(|group| group.name.clone()).unwrap_or_default(),
            total: doc.total,
            done: doc.done,
            skipped: doc.skipped,
            finished: doc.finished_at.is_some(),
            created_at: bulk.created_at.to_string(),
            finished_at: doc.finished_at.map(|at| at.to_string()),
        }
    }

    /// Makes a change at once if it is for few jobs; else it goes on in the background (202).
    async fn change_many(
        &self,
        access: &Access,
        group: &Group,
        action: BulkAction,
        filter: FilterDoc,
        dry_run: bool,
    ) -> Result<(StatusCode, Json<BulkView>), Problem> {
        let filter = filter.of(access, group.id).map_err(|problem| problem.within("/filter"))?;
        if let Some(state) = filter.state.filter(|state| !action.fits(*state)) {
            return Err(Problem::invalid("/filter/state", format!("this cannot be done to jobs that are {state}")));
        }
        // The id is above those of all jobs that were accepted so far.
        let id = JobId::new(&*self.clock);
        let mut bulk = Bulk {
            id: id.to_string(),
            tenant: access.tenant.id,
            created_at: self.clock.now(),
            doc: BulkDoc {
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
        bulk.doc.total = self.bulks.count(&bulk).await?;
        if dry_run {
            return Ok((StatusCode::OK, Json(BulkView { id: None, ..self.bulk_view(&bulk) })));
        }
        if bulk.doc.total <= AT_ONCE {
            self.bulks.finish(&mut bulk).await?;
        }
        self.catalog.put_bulk(&bulk).await?;
        let status = if bulk.doc.finished_at.is_some() { StatusCode::OK } else { StatusCode::ACCEPTED };
        Ok((status, Json(self.bulk_view(&bulk))))
    }
}

/// Changes all jobs of a group that fit a filter. Up to 1,000 are changed before this answers 200; with 202 it goes on in the
/// background, and its id says how far it has come.
#[utoipa::path(post, path = "/v1/groups/{group}/bulk", operation_id = "bulk_changes_create", tag = "bulk", request_body = ChangeDoc,
    responses((status = 200, body = BulkView), (status = 202, body = BulkView), (status = "4XX", body = Problem)))]
pub(in super::super) async fn change(
    State(api): State<Arc<ApiState>>,
    Extension(access): Extension<Access>,
    Path(group): Path<String>,
    Body(doc): Body<ChangeDoc>,
) -> Result<(StatusCode, Json<BulkView>), Problem> {
    let group = api.group(&access, &group)?;
    let now = api.clock.now();
    if doc.run_at.is_some() != (doc.action == ActionDoc::Reschedule) {
        return Err(Problem::invalid("/run_at", "it goes with `reschedule`, which needs it"));
    }
    let action = match doc.action {
        ActionDoc::Cancel => BulkAction::Cancel,
        ActionDoc::Run => BulkAction::Reschedule { at: now },
        ActionDoc::Reschedule => {
            BulkAction::Reschedule { at: run_at(doc.run_at.as_ref(), now, api.intake.limits.horizon)? }
        }
        ActionDoc::Redrive => BulkAction::Redrive,
        ActionDoc::Purge => BulkAction::Purge,
    };
    api.change_many(&access, &group, action, doc.filter, doc.dry_run).await
}

/// Tries a group's dead letters and expired jobs again.
#[utoipa::path(post, path = "/v1/groups/{group}/redrive", operation_id = "jobs_redrive", tag = "bulk", request_body = Option<SomeDoc>,
    responses((status = 200, body = BulkView), (status = 202, body = BulkView), (status = "4XX", body = Problem)))]
pub(in super::super) async fn redrive(
    state: State<Arc<ApiState>>,
    access: Extension<Access>,
    group: Path<String>,
    doc: OptionalBody<SomeDoc>,
) -> Result<(StatusCode, Json<BulkView>), Problem> {
    change_some(state, access, group, doc, BulkAction::Redrive).await
}

/// Removes a group's dead letters, or with a filter's `state` other jobs that have ended.
#[utoipa::path(post, path = "/v1/groups/{group}/purge", operation_id = "jobs_purge", tag = "bulk", request_body = Option<SomeDoc>,
    responses((status = 200, body = BulkView), (status = 202, body = BulkView), (status = "4XX", body = Problem)))]
pub(in super::super) async fn purge(
    state: State<Arc<ApiState>>,
    access: Extension<Access>,
    group: Path<String>,
    doc: OptionalBody<SomeDoc>,
) -> Result<(StatusCode, Json<BulkView>), Problem> {
    change_some(state, access, group, doc, BulkAction::Purge).await
}

/// Cancels everything of a group that waits, whether it is due or not. What is being worked on is cancelled unless it succeeds.
#[utoipa::path(post, path = "/v1/groups/{group}/flush", operation_id = "jobs_flush", tag = "bulk", request_body = Option<SomeDoc>,
    responses((status = 200, body = BulkView), (status = 202, body = BulkView), (status = "4XX", body = Problem)))]
pub(in super::super) async fn flush(
    state: State<Arc<ApiState>>,
    access: Extension<Access>,
    group: Path<String>,
    doc: OptionalBody<SomeDoc>,
) -> Result<(StatusCode, Json<BulkView>), Problem> {
    change_some(state, access, group, doc, BulkAction::Cancel).await
}

async fn change_some(
    State(api): State<Arc<ApiState>>,
    Extension(access): Extension<Access>,
    Path(group): Path<String>,
    OptionalBody(doc): OptionalBody<SomeDoc>,
    action: BulkAction,
) -> Result<(StatusCode, Json<BulkView>), Problem> {
    let group = api.group(&access, &group)?;
    api.change_many(&access, &group, action, doc.filter, doc.dry_run).await
}

/// Says how far a change of many jobs has come. It is remembered for a week after its end.
#[utoipa::path(get, path = "/v1/bulk/{id}", operation_id = "bulk_changes_get", tag = "bulk",
    responses((status = 200, body = BulkView), (status = "4XX", body = Problem)))]
pub(in super::super) async fn get(
    State(api): State<Arc<ApiState>>,
    Extension(access): Extension<Access>,
    Path(id): Path<String>,
) -> Result<Json<BulkView>, Problem> {
    let bulk = api.catalog.bulk(access.tenant.id, &id).ok_or_else(|| Problem::unknown("bulk change", &id))?;
    Ok(Json(api.bulk_view(&bulk)))
}

/// Lists the tenant's changes of many jobs, newest first.
#[utoipa::path(get, path = "/v1/bulk", operation_id = "bulk_changes_list", tag = "bulk", params(Paging),
    responses((status = 200, body = Page<BulkView>), (status = "4XX", body = Problem)))]
pub(in super::super) async fn list(
    State(api): State<Arc<ApiState>>,
    Extension(access): Extension<Access>,
    Query(paging): Query<Paging>,
) -> Result<Json<Page<BulkView>>, Problem> {
    let page = Page::of_newest(api.catalog.bulks(access.tenant.id), &paging, |bulk| bulk.id.clone())?;
    let items = page.items.iter().map(|bulk| api.bulk_view(bulk)).collect();
    Ok(Json(Page { items, next_cursor: page.next_cursor }))
}
