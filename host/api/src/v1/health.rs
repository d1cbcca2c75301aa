//! Is it alive, is it ready, how is it doing. Open to everybody who reaches the port.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;

use super::super::ApiState;
use super::super::error::Problem;
use super::quarantine_view::quarantine_count;
use carillon_core::clock::UnixMs;
use carillon_store::failure_count;

/// What `/metrics` is.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// How long what waits stays counted: to count it takes time in proportion to it.
const BACKLOG_PERIOD: Duration = Duration::from_secs(10);

/// Longest time that the backlog may take to count.
const BACKLOG_WAIT: Duration = Duration::from_secs(2);

/// Time of the last count of waiting jobs for the metrics.
#[derive(Default)]
pub struct BacklogCount(tokio::sync::Mutex<Option<UnixMs>>);

/// Reports that the process is running.
#[utoipa::path(get, path = "/healthz", operation_id = "health_check", tag = "health", security(()), responses((status = 200, content_type = "text/plain", body = String)))]
pub(in super::super) async fn healthz() -> &'static str {
    "ok\n"
}

/// Reports that jobs are accepted and delivered.
///
/// The response is 503 if the last try to store a job, to lease due jobs or to settle an attempt failed, if a background loop is down, or if
/// the server is stopping. The second line of the body is the number of live nodes.
#[utoipa::path(get, path = "/readyz", operation_id = "readiness_check", tag = "health", security(()),
    responses((status = 200, content_type = "text/plain", body = String), (status = 503, body = Problem)))]
pub(in super::super) async fn readyz(State(api): State<Arc<ApiState>>) -> Result<String, Problem> {
    if let Some(reason) = api.lifecycle.health.trouble().await {
        return Err(Problem::unavailable(reason));
    }
    let alive = api.services.cluster.members().into_iter().filter(|(_, alive)| *alive).count();
    Ok(format!("ready\nnodes {alive}\n"))
}

/// Shows the server's metrics in the OpenMetrics text format.
#[utoipa::path(get, path = "/metrics", operation_id = "metrics_read", tag = "health", security(()), responses((status = 200, content_type = "application/openmetrics-text", body = String)))]
pub(in super::super) async fn metrics(State(api): State<Arc<ApiState>>) -> impl IntoResponse {
    let metrics = &api.services.telemetry.metrics;
    let commits = api.services.store.commit_stats();
    metrics.store(commits.commits, commits.calls, failure_count());
    metrics.health(api.lifecycle.health.known_trouble().is_none(), api.lifecycle.health.loop_restarts());
    note_backlog(&api).await;
    metrics.now(
        api.services.limiter.running(),
        api.services.runtime.threads.waiting(),
        api.pools.open_streams(),
        api.executor.open_breakers(),
    );
    metrics.waiting_consumers(api.pull.waiting_consumers());
    metrics.quarantined(quarantine_count(&api));
    metrics.plugins(api.services.runtime.registry.count(), api.services.runtime.registry.bytes());
    ([(header::CONTENT_TYPE, OPEN_METRICS)], metrics.render())
}

/// Counts what waits, unless it was counted a moment ago. Where the store does not answer, the numbers stay as they were.
async fn note_backlog(api: &ApiState) {
    let now = api.services.clock.now();
    let mut counted_at = api.backlog.0.lock().await;
    if counted_at.is_some_and(|at| now < at.plus(BACKLOG_PERIOD)) {
        return;
    }
    match tokio::time::timeout(BACKLOG_WAIT, api.services.store.backlog(now)).await {
        Ok(Ok(backlog)) => api.services.telemetry.metrics.backlog(&backlog, now),
        Ok(Err(error)) => tracing::warn!(%error, "counting jobs for the metrics failed"),
        Err(_) => tracing::warn!("counting jobs for the metrics timed out"),
    }
    *counted_at = Some(now);
}
