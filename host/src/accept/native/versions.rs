//! The versions of a group's policy: made, put in force, taken back.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::super::Api;
use super::super::auth::Access;
use super::super::error::Problem;
use super::super::input::{Body, OptionalBody, Path, Query};
use super::groups::{GroupView, UseDoc};
use super::{Page, Paging};
use crate::catalog::{Action, Author, Binding, BoundPlugin, Group, Move};
use crate::observe::{Fact, Subject};

/// The longest reason, in bytes.
const WHY_LEN: usize = 1 << 10;

/// A version of a policy that is not to be in force yet.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct CandidateDoc {
    /// In order.
    encode: Option<Vec<UseDoc>>,
    /// Null takes an inherited signer away.
    sign: Option<UseDoc>,
    judge: Option<UseDoc>,
    retry: Option<UseDoc>,
    /// Null takes an inherited observer away.
    observe: Option<UseDoc>,
    /// What it is for.
    why: Option<String>,
}

/// Which version is put in force.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PromoteDoc {
    /// Its number.
    version: i64,
    /// Why.
    #[serde(default)]
    why: Option<String>,
}

/// Why the version before is put in force again.
#[derive(Debug, Default, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RollbackDoc {
    /// Why.
    #[serde(default)]
    why: Option<String>,
}

/// A version of a group's policy. It never changes.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct VersionView {
    /// Its number: attempts name it as `binding_version`.
    version: i64,
    /// Whether it is in force.
    active: bool,
    /// When it was made.
    made_at: String,
    /// The name of the token that made it, or the part of the server.
    by: Option<String>,
    /// Why.
    why: Option<String>,
    /// What it says of the roles; the rest is inherited.
    #[schema(value_type = Object)]
    policy: Value,
    /// The plugins that it came to when it was made, inherited ones included.
    plugins: Vec<BoundPlugin>,
}

/// A change of what is in force.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct MoveView {
    /// When.
    at: String,
    /// What was done.
    action: Action,
    /// The version that was in force before; null when the group was made.
    from_version: Option<i64>,
    /// The version that was in force then.
    to_version: i64,
    /// The name of the token that did it, or the part of the server.
    by: Option<String>,
    /// Why.
    why: Option<String>,
    /// Whether the server did it by itself.
    automatic: bool,
}

impl VersionView {
    fn of(group: &Group, binding: &Binding) -> Self {
        Self {
            version: binding.number,
            active: binding.number == group.binding,
            made_at: binding.made_at.to_string(),
            by: binding.by.clone(),
            why: binding.why.clone(),
            policy: binding.policy.clone(),
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
            by: it.by.clone(),
            why: it.why.clone(),
            automatic: it.automatic,
        }
    }
}

impl Access {
    /// Whoever asks, as the author of a change, with what was given as its reason.
    pub(super) fn author(&self, why: Option<String>) -> Result<Author, Problem> {
        if why.as_ref().is_some_and(|why| why.len() > WHY_LEN || why.contains('\0')) {
            let detail = format!("a reason has at most {WHY_LEN} bytes, none of them zero");
            return Err(Problem::invalid("/why", detail));
        }
        Ok(Author { by: self.by.clone(), why })
    }
}

/// Lists the versions of a group's policy, newest first.
#[utoipa::path(get, path = "/v1/groups/{group}/policy/versions", tag = "policies", params(Paging),
    responses((status = 200, body = Page<VersionView>), (status = "4XX", body = Problem)))]
pub(in super::super) async fn list(
    State(api): State<Arc<Api>>,
    Extension(access): Extension<Access>,
    Path(name): Path<String>,
    Query(paging): Query<Paging>,
) -> Result<Json<Page<VersionView>>, Problem> {
    let group = api.group(&access, &name)?;
    let views = api.catalog.bindings(&group).iter().map(|binding| VersionView::of(&group, binding)).collect();
    Ok(Json(Page::of_numbered(views, &paging, |view| view.version)?))
}

/// Shows a version of a group's policy.
#[utoipa::path(get, path = "/v1/groups/{group}/policy/versions/{version}", tag = "policies",
    responses((status = 200, body = VersionView), (status = "4XX", body = Problem)))]
pub(in super::super) async fn get(
    State(api): State<Arc<Api>>,
    Extension(access): Extension<Access>,
    Path((name, version)): Path<(String, String)>,
) -> Result<Json<VersionView>, Problem> {
    let group = api.group(&access, &name)?;
    let binding = version.parse().ok().and_then(|number| api.catalog.binding(&group, number));
    let binding = binding.ok_or_else(|| Problem::unknown("version", &version))?;
    Ok(Json(VersionView::of(&group, &binding)))
}

/// Makes a version of a group's policy that is not in force. It is checked as one that is put.
#[utoipa::path(post, path = "/v1/groups/{group}/policy/versions", tag = "policies", request_body = CandidateDoc,
    responses((status = 201, body = VersionView), (status = "4XX", body = Problem)))]
pub(in super::super) async fn create(
    State(api): State<Arc<Api>>,
    Extension(access): Extension<Access>,
    Path(name): Path<String>,
    Body(mut doc): Body<Value>,
) -> Result<(StatusCode, Json<VersionView>), Problem> {
    let group = api.group(&access, &name)?;
    let why = match doc.as_object_mut().and_then(|fields| fields.remove("why")) {
        None | Some(Value::Null) => None,
        Some(Value::String(why)) => Some(why),
        Some(_) => return Err(Problem::invalid("/why", "a text is needed")),
    };
    let binding = api.catalog.propose(&group, doc, &access.author(why)?).await?;
    Ok((StatusCode::CREATED, Json(VersionView::of(&group, &binding))))
}

/// Puts a version in force. What was in force can be rolled back to.
#[utoipa::path(post, path = "/v1/groups/{group}/policy/promote", tag = "policies", request_body = PromoteDoc,
    responses((status = 200, body = GroupView), (status = "4XX", body = Problem)))]
pub(in super::super) async fn promote(
    State(api): State<Arc<Api>>,
    Extension(access): Extension<Access>,
    Path(name): Path<String>,
    Body(doc): Body<PromoteDoc>,
) -> Result<Json<GroupView>, Problem> {
    let group = api.group(&access, &name)?;
    let group = api.catalog.promote(&group, doc.version, &access.author(doc.why)?).await?;
    api.moved(&group);
    Ok(Json(api.group_view(&group, false)))
}

/// Puts the version in force again that was before the present one. Once more, and it is the one before that: never forward.
#[utoipa::path(post, path = "/v1/groups/{group}/policy/rollback", tag = "policies", request_body = Option<RollbackDoc>,
    responses((status = 200, body = GroupView), (status = "4XX", body = Problem)))]
pub(in super::super) async fn rollback(
    State(api): State<Arc<Api>>,
    Extension(access): Extension<Access>,
    Path(name): Path<String>,
    OptionalBody(doc): OptionalBody<RollbackDoc>,
) -> Result<Json<GroupView>, Problem> {
    let group = api.group(&access, &name)?;
    let group = api.catalog.roll_back(&group, &access.author(doc.why)?, false).await?;
    api.moved(&group);
    Ok(Json(api.group_view(&group, false)))
}

/// Lists who put which version in force, when and why, newest first: the last 100.
#[utoipa::path(get, path = "/v1/groups/{group}/policy/history", tag = "policies", params(Paging),
    responses((status = 200, body = Page<MoveView>), (status = "4XX", body = Problem)))]
pub(in super::super) async fn history(
    State(api): State<Arc<Api>>,
    Extension(access): Extension<Access>,
    Path(name): Path<String>,
    Query(paging): Query<Paging>,
) -> Result<Json<Page<MoveView>>, Problem> {
    let group = api.group(&access, &name)?;
    let rollout = &group.rollout;
    let mut moves: Vec<_> =
        rollout.history.iter().zip(rollout.forgotten..).map(|(it, n)| (n, MoveView::from(it))).collect();
    moves.reverse();
    let page = Page::of_numbered(moves, &paging, |(number, _)| *number)?;
    Ok(Json(Page { items: page.items.into_iter().map(|(_, it)| it).collect(), next_cursor: page.next_cursor }))
}

impl Api {
    /// What follows when another version of a group's policy is in force.
    pub(super) fn moved(&self, group: &Group) {
        let Some(it) = group.rollout.history.last() else { return };
        let about = Subject::group(group.tenant.id, group.id);
        self.observer.tell(match it.action {
            Action::Rollback => Fact::rollback(about, it.at, it.to, it.why.clone()),
            Action::Bind | Action::Promote => Fact::promote(about, it.at, it.to, it.why.clone()),
        });
        self.wake.here();
    }
}
