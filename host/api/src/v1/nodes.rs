//! The nodes that share the database. For operators.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Serialize;

use super::super::ApiState;
use super::super::error::Problem;
use super::super::input::Query;
use super::{Page, Paging};
use carillon_store::{Member, NodeRecord};

/// Node, as the API returns it.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct NodeView {
    /// Id of the node, which is new at each start.
    id: String,
    #[serde(flatten)]
    doc: NodeRecord,
    /// Whether the node reported recently. A node that did not may have stopped, or lost its connection to the database.
    alive: bool,
    /// Time when the node started, or joined again after it was considered dead.
    #[schema(format = DateTime)]
    since: String,
    /// Time of its last report.
    #[schema(format = DateTime)]
    last_seen_at: String,
}

/// Lists the nodes that reported in the last ten minutes and have not left.
#[utoipa::path(get, path = "/v1/nodes", operation_id = "nodes_list", tag = "nodes", params(Paging),
    responses((status = 200, body = Page<NodeView>), (status = "4XX", body = Problem)))]
pub(in super::super) async fn list(
    State(api): State<Arc<ApiState>>,
    Query(paging): Query<Paging>,
) -> Result<Json<Page<NodeView>>, Problem> {
    let view = |(member, alive): (Member, bool)| NodeView {
        id: member.id.to_string(),
        doc: member.doc,
        alive,
        since: member.since.to_string(),
        last_seen_at: member.beat_at.to_string(),
    };
    let nodes = api.services.cluster.members().into_iter().map(view).collect();
    Ok(Json(Page::of_sorted(nodes, &paging, |node: &NodeView| node.id.clone())?.within(api.config.limits.answer)))
}
