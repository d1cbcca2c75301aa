//! Is it alive, is it ready, how is it doing. Open to everybody who reaches the port.

use std::sync::Arc;

use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;

use super::super::Api;
use super::super::error::Problem;

/// What `/metrics` is.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The process runs.
#[utoipa::path(get, path = "/healthz", tag = "health", security(()), responses((status = 200, body = String)))]
pub(in super::super) async fn healthz() -> &'static str {
    "ok\n"
}

/// Jobs are accepted and delivered: the last job was stored, due jobs are leased and attempts settled, no background loop is down, and the
/// server is not stopping. The second line says how many nodes live.
#[utoipa::path(get, path = "/readyz", tag = "health", security(()),
    responses((status = 200, body = String), (status = 503, body = Problem)))]
pub(in super::super) async fn readyz(State(api): State<Arc<Api>>) -> Result<String, Problem> {
    if let Some(reason) = api.health.trouble().await {
        return Err(Problem::unavailable(reason));
    }
    let alive = api.cluster.members().into_iter().filter(|(_, alive)| *alive).count();
    Ok(format!("ready\nnodes {alive}\n"))
}

/// The server's numbers in the OpenMetrics text format.
#[utoipa::path(get, path = "/metrics", tag = "health", security(()), responses((status = 200, body = String)))]
pub(in super::super) async fn metrics(State(api): State<Arc<Api>>) -> impl IntoResponse {
    let metrics = &api.observer.metrics;
    let commits = api.store.commit_stats();
    metrics.store(commits.commits, commits.calls);
    metrics.health(api.health.known_trouble().is_none(), api.health.loop_restarts());
    let streams = api.event_streams - api.streams.available_permits();
    metrics.now(api.gates.running(), api.runtime.threads.waiting(), streams, api.attempter.left_alone());
    metrics.quarantined(api.quarantine_count());
    metrics.plugins(api.runtime.registry.count(), api.runtime.registry.bytes());
    ([(header::CONTENT_TYPE, OPEN_METRICS)], metrics.render())
}
