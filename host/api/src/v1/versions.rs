//! The versions of a group's policy: made, put in force, taken back.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::super::auth::Access;
use super::super::error::Problem;
use super::super::input::{Body, OptionalBody, Path, Query};
use super::super::{ApiLimits, ApiState};
use super::group_view::changed_group;
use super::views::{ArmView, ByView, ChangedGroupView, UseInput};
use super::{Page, Paging, find_group};
use carillon_catalog::{Action, Author, Binding, BoundPlugin, Canary, Group, Initiator, Move, Written};
use carillon_core::clock::UnixMs;
use carillon_core::json::unique::UniqueValue;
use carillon_core::text::clean;
use carillon_engine::rollout::Arm;
use carillon_policy::binding::Changes;

/// All of the jobs, of a hundred.
const WHOLE: u32 = 100;

/// When a version that some of the jobs follow is taken back, unless it is said.
const MAX_FAULTS: f64 = 0.05;
const MAX_DIFFERENCES: f64 = 0.1;
const MIN_ATTEMPTS: u32 = 20;

/// Version of a policy that is not yet in force.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct VersionInput {
    /// Encoders, in the order of their calls.
    encode: Option<Vec<UseInput>>,
    /// Signer; null removes an inherited one.
    sign: Option<UseInput>,
    /// Judge.
    judge: Option<UseInput>,
    /// Retry policy.
    retry: Option<UseInput>,
    /// Observer; null removes an inherited one.
    observe: Option<UseInput>,
    /// Reason for the version.
    why: Option<String>,
}

/// Version to put in force.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PromoteInput {
    /// Number of the version.
    version: i64,
    /// Reason for the change.
    #[serde(default)]
    why: Option<String>,
    /// Percentage of the jobs that follow the version: 1 to 100. Default: 100. With less, the version is a canary, and the other jobs follow
    /// the version in force.
    #[serde(default)]
    percent: Option<u32>,
    /// Canary only: largest share of its attempts with a fault, 0 to 1. It is reverted when its share is larger. Default: 0.05.
    #[serde(default)]
    max_faults: Option<f64>,
    /// Canary only: largest difference, 0 to 1, between its share of attempts without success and that of the version in force. It is reverted
    /// when the difference is larger. Default: 0.1.
    #[serde(default)]
    max_differences: Option<f64>,
    /// Canary only: number of attempts of each version before they are compared. Default: 20.
    #[serde(default)]
    min_attempts: Option<u32>,
}

/// Options of a rollback.
#[derive(Debug, Default, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RollbackInput {
    /// Version that the caller wants to take back: the canary or, if there is none, the version in force. If it is another one by now, the
    /// response is 409 and nothing changes.
    #[serde(default)]
    version: Option<i64>,
    /// Reason for the change.
    #[serde(default)]
    why: Option<String>,
}

impl From<Arm> for ArmView {
    fn from(Arm { attempts, faults, failures }: Arm) -> Self {
        Self { attempts, faults, failures }
    }
}

/// Version of a group's policy. It never changes.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct VersionView {
    /// Number of the version; attempts name it as `binding_version`.
    version: i64,
    /// Whether the version is in force.
    active: bool,
    /// Time of its creation.
    #[schema(format = DateTime)]
    made_at: String,
    /// Author of the version; null if authentication is disabled, or if the server made it by itself.
    by: Option<ByView>,
    /// Reason given by the author.
    why: Option<String>,
    /// What the version says about the roles; the rest is inherited.
    #[schema(value_type = Object)]
    policy: Value,
    /// Plugins of the merged policy when the version was made, inherited ones included.
    plugins: Vec<BoundPlugin>,
}

/// Change of the version in force.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct MoveView {
    /// Time of the change.
    #[schema(format = DateTime)]
    at: String,
    /// Kind of the change.
    action: Action,
    /// Version in force before; null when the group was made.
    from_version: Option<i64>,
    /// Version in force afterwards.
    to_version: i64,
    /// Author of the change; null if authentication is disabled, or if the server made it by itself.
    by: Option<ByView>,
    /// Reason given by the author.
    why: Option<String>,
    /// Whether the server made the change automatically.
    automatic: bool,
    /// Percentage of the jobs that follow the version, if it is a canary.
    percent: Option<u32>,
}

impl VersionView {
    fn new(group: &Group, binding: &Binding) -> Self {
        Self {
            version: binding.number,
            active: binding.number == group.binding,
            made_at: binding.made_at.to_string(),
            by: binding.by.clone().map(Into::into),
            why: binding.why.clone(),
            policy: binding.policy.value(),
            plugins: binding.plugins.clone(),
        }
    }
}

impl From<&Move> for MoveView {
    fn from(it: &Move) -> Self {
        Self {
            at: it.at.to_string(),
            action: it.action,
            from_version: it.from,
            to_version: it.to,
            by: it.by.clone().map(Into::into),
            why: it.why.clone(),
            automatic: it.automatic,
            percent: it.percent,
        }
    }
}

impl Access {
    /// Returns the caller as the author of a change, with the given reason.
    pub(super) fn author(&self, why: Option<String>, limits: &ApiLimits) -> Result<Author, Problem> {
        let why = why.map(|why| clean(&why).into_owned());
        let len = why.as_ref().map_or(0, String::len);
        limits.parts.note.check("why", "/why", len).map_err(|exceeded| Problem::exceeded(&exceeded))?;
        Ok(Author::new(self.origin(), why))
    }
}

/// Lists the versions of a group's policy, newest first.
#[utoipa::path(get, path = "/v1/groups/{group}/policy/versions", operation_id = "policy_versions_list", tag = "policies", params(Paging),
    responses((status = 200, body = Page<VersionView>), (status = "4XX", body = Problem)))]
pub(in super::super) async fn list(
    State(api): State<Arc<ApiState>>,
    Extension(access): Extension<Access>,
    Path(name): Path<String>,
    Query(paging): Query<Paging>,
) -> Result<Json<Page<VersionView>>, Problem> {
    let group = find_group(&api, &access, &name)?;
    let views = api.services.catalog.bindings(&group).iter().map(|binding| VersionView::new(&group, binding)).collect();
    Ok(Json(Page::of_numbered(views, &paging, |view| view.version)?.within(api.config.limits.answer)))
}

/// Shows a version of a group's policy.
#[utoipa::path(get, path = "/v1/groups/{group}/policy/versions/{version}", operation_id = "policy_versions_get", tag = "policies",
    responses((status = 200, body = VersionView), (status = "4XX", body = Problem)))]
pub(in super::super) async fn get(
    State(api): State<Arc<ApiState>>,
    Extension(access): Extension<Access>,
    Path((name, version)): Path<(String, String)>,
) -> Result<Json<VersionView>, Problem> {
    let group = find_group(&api, &access, &name)?;
    let binding = version.parse().ok().and_then(|number| api.services.catalog.binding(&group, number));
    let binding = binding.ok_or_else(|| Problem::unknown("version", &version))?;
    Ok(Json(VersionView::new(&group, &binding)))
}

/// Base of a new version.
#[derive(Clone, Copy, Debug, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
enum Base {
    /// The version in force.
    Active,
}

/// Options of a new version.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(in super::super) struct Proposal {
    /// Base of the new version. With `active`, roles that the document does not name are those of the version in force. Default: the document
    /// is the whole version.
    #[param(inline)]
    base: Option<Base>,
}

/// New version, with its differences from the version in force.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct ProposedView {
    #[serde(flatten)]
    version: VersionView,
    #[serde(flatten)]
    changes: Changes,
    /// Warnings to consider before the version is put in force.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
}

/// Makes a version of a group's policy that is not in force. It is checked as in a `PUT` of the group. The response lists what it would remove,
/// add and change. If the group's requests are signed, the document must have `sign`; `"sign": null` ends the signing.
#[utoipa::path(post, path = "/v1/groups/{group}/policy/versions", operation_id = "policy_versions_create", tag = "policies", params(Proposal), request_body = VersionInput,
    responses((status = 201, body = ProposedView), (status = "4XX", body = Problem)))]
pub(in super::super) async fn create(
    State(api): State<Arc<ApiState>>,
    Extension(access): Extension<Access>,
    Path(name): Path<String>,
    Query(proposal): Query<Proposal>,
    Body(UniqueValue(mut doc)): Body<UniqueValue>,
) -> Result<(StatusCode, Json<ProposedView>), Problem> {
    let group = find_group(&api, &access, &name)?;
    let why = match doc.as_object_mut().and_then(|fields| fields.remove("why")) {
        None | Some(Value::Null) => None,
        Some(Value::String(why)) => Some(why),
        Some(_) => return Err(Problem::invalid("/why", "`why` must be a string")),
    };
    access.check_policy(&doc)?;
    let written = match proposal.base {
        Some(Base::Active) => Written::Part(doc),
        None => Written::Whole(doc),
    };
    let proposed = api.services.catalog.propose(&group, written, &access.author(why, &api.config.limits)?).await?;
    let version = VersionView::new(&group, &proposed.binding);
    let warnings = api.services.catalog.warnings_of(&group.tenant, &proposed.effective);
    Ok((StatusCode::CREATED, Json(ProposedView { version, changes: proposed.changes, warnings })))
}

/// Puts a version in force. With a `percent` below 100, only some of the jobs follow it, as a canary. A rollback restores the version before.
#[utoipa::path(post, path = "/v1/groups/{group}/policy/promote", operation_id = "policy_versions_promote", tag = "policies", request_body = PromoteInput,
    responses((status = 200, body = ChangedGroupView), (status = "4XX", body = Problem)))]
pub(in super::super) async fn promote(
    State(api): State<Arc<ApiState>>,
    Extension(access): Extension<Access>,
    Path(name): Path<String>,
    Body(doc): Body<PromoteInput>,
) -> Result<Json<ChangedGroupView>, Problem> {
    let group = find_group(&api, &access, &name)?;
    let author = access.author(doc.why.clone(), &api.config.limits)?;
    let moved = match canary(&doc, &author)? {
        Some(canary) => api.services.catalog.begin_canary(&group, canary, &author.origin).await?,
        None => api.services.catalog.promote(&group, doc.version, &author).await?,
    };
    announce_move(&api, &moved);
    Ok(Json(changed_group(&api, &group, &moved)))
}

/// Returns the canary that a document requests; none if all jobs are to follow the version.
fn canary(doc: &PromoteInput, author: &Author) -> Result<Option<Canary>, Problem> {
    let PromoteInput { version, percent, max_faults, max_differences, min_attempts, .. } = *doc;
    let percent = percent.unwrap_or(WHOLE);
    let bounds = [
        ("/max_faults", max_faults.is_some()),
        ("/max_differences", max_differences.is_some()),
        ("/min_attempts", min_attempts.is_some()),
    ];
    if percent != WHOLE {
        return Ok(Some(Canary {
            version,
            percent,
            since: UnixMs(0),
            by: author.by.clone(),
            why: author.why.clone(),
            max_faults: max_faults.unwrap_or(MAX_FAULTS),
            max_differences: max_differences.unwrap_or(MAX_DIFFERENCES),
            min_attempts: min_attempts.unwrap_or(MIN_ATTEMPTS),
        }));
    }
    match bounds.into_iter().find(|(_, is_given)| *is_given) {
        Some((pointer, _)) => {
            let detail = format!("`{}` is allowed only with a `percent` below 100", pointer.trim_start_matches('/'));
            Err(Problem::invalid(pointer, detail))
        }
        None => Ok(None),
    }
}

/// Rolls back a policy: ends the canary or, if there is none, puts the previous version in force again. Each further rollback goes one version
/// further back, never forward.
#[utoipa::path(post, path = "/v1/groups/{group}/policy/rollback", operation_id = "policy_versions_rollback", tag = "policies", request_body = Option<RollbackInput>,
    responses((status = 200, body = ChangedGroupView), (status = "4XX", body = Problem)))]
pub(in super::super) async fn rollback(
    State(api): State<Arc<ApiState>>,
    Extension(access): Extension<Access>,
    Path(name): Path<String>,
    OptionalBody(doc): OptionalBody<RollbackInput>,
) -> Result<Json<ChangedGroupView>, Problem> {
    let group = find_group(&api, &access, &name)?;
    let author = access.author(doc.why, &api.config.limits)?;
    let taken = group.rollout.canary.as_ref().map_or(group.rollout.active.number, |canary| canary.version);
    if doc.version.is_some_and(|version| version != taken) {
        return Err(Problem::conflict(format!("the rollback would take back version {taken}")));
    }
    let moved = match &group.rollout.canary {
        Some(canary) => api.services.catalog.end_canary(&group, canary, &author, Initiator::Operator).await?,
        None => api.services.catalog.roll_back(&group, &author, Initiator::Operator).await?,
    };
    announce_move(&api, &moved);
    Ok(Json(changed_group(&api, &group, &moved)))
}

/// Lists the last 100 changes of the version in force, newest first, with their authors and reasons.
#[utoipa::path(get, path = "/v1/groups/{group}/policy/history", operation_id = "policy_changes_list", tag = "policies", params(Paging),
    responses((status = 200, body = Page<MoveView>), (status = "4XX", body = Problem)))]
pub(in super::super) async fn history(
    State(api): State<Arc<ApiState>>,
    Extension(access): Extension<Access>,
    Path(name): Path<String>,
    Query(paging): Query<Paging>,
) -> Result<Json<Page<MoveView>>, Problem> {
    let group = find_group(&api, &access, &name)?;
    let rollout = &group.rollout;
    let mut moves: Vec<_> =
        rollout.history.iter().zip(rollout.forgotten..).map(|(it, n)| (n, MoveView::from(it))).collect();
    moves.reverse();
    let page = Page::of_numbered(moves, &paging, |(number, _)| *number)?;
    Ok(Json(page.shown(|(_, it)| Ok(it))?.within(api.config.limits.answer)))
}

/// What follows when another version of a group's policy is in force.
pub(super) fn announce_move(api: &ApiState, group: &Group) {
    api.rollouts.publish(group);
    api.services.notifier.notify_local();
}
