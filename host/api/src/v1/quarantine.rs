//! Policies that failed too often: which, why, until when, and that they are called again.

use std::sync::Arc;

use axum::extract::State;
use axum::{Extension, Json};
use serde::Deserialize;

use super::super::ApiState;
use super::super::auth::Access;
use super::super::error::Problem;
use super::super::input::{OptionalBody, Path};
use super::find_group;
use super::group_view::group_view;
use super::versions::announce_move;
use super::views::GroupView;

/// End of a group's quarantines.
#[derive(Debug, Default, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UnquarantineInput {
    /// Reason for the change.
    #[serde(default)]
    why: Option<String>,
}

/// Ends the quarantines of a group's policies on all nodes: of the version in force, of the canary and of the shadow. Later faults can lead to
/// quarantine again.
#[utoipa::path(post, path = "/v1/groups/{group}/policy/unquarantine", operation_id = "policies_unquarantine", tag = "policies",
    request_body = Option<UnquarantineInput>,
    responses((status = 200, body = GroupView), (status = "4XX", body = Problem)))]
pub(in super::super) async fn unquarantine(
    State(api): State<Arc<ApiState>>,
    Extension(access): Extension<Access>,
    Path(name): Path<String>,
    OptionalBody(doc): OptionalBody<UnquarantineInput>,
) -> Result<Json<GroupView>, Problem> {
    let group = find_group(&api, &access, &name)?;
    let group = api.services.catalog.lift_quarantine(&group, &access.author(doc.why, &api.config.limits)?).await?;
    announce_move(&api, &group);
    Ok(Json(group_view(&api, &group)))
}
