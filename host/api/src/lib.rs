//! The way in: HTTP requests become verbs, and errors become problems.
//!
//! The routes are listed here by who may use them; a route cannot be reached without passing the layer of its list.

mod admission;
mod answer_body;
mod audit;
pub mod auth;
mod auth_failures;
mod bounds;
mod browser_guard;
pub mod client;
pub mod client_address;
mod compat;
pub mod connections;
pub mod door;
mod entrance;
pub mod error;
mod handler;
mod head;
mod http2;
pub mod idempotency;
pub mod input;
mod line_break;
mod openapi;
mod pools;
pub mod port;
mod query;
mod rest_of_request;
mod scope;
pub mod serve;
mod socket;
pub mod tls;
mod v1;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get};
use axum::{Extension, Router};
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use tower_http::catch_panic::CatchPanicLayer;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use self::admission::Admission;
pub use self::audit::{Refusals, RequestIds};
use self::auth::Requirement;
pub use self::auth_failures::AuthFailures;
use self::bounds::BodyLimit;
pub use self::browser_guard::BrowserGuard;
pub use self::compat::{AUTH_KEY, Mount, OwnLimits, presets, without_preset};
use self::error::Problem;
use self::openapi::{Description, Rendered};
pub use self::pools::{PoolSizes, Pools};
use self::query::KnownParameters;
pub use self::v1::health::BacklogCount;
pub use self::v1::keys::KeyInput;
use self::v1::{
    attempts, audit as audit_log, bulk, contents, copies, events, groups, health, job_changes, jobs, keys, leases,
    nodes, plugins, quarantine, replays, schedule_patch, schedule_runs, schedules, shadow, simulate, tenants, tokens,
    versions,
};
use carillon_catalog::AccessRole;
use carillon_config::Compat;
use carillon_core::limits::RequestLimits;
use carillon_engine::delivery::attempt::AttemptExecutor;
use carillon_engine::dispatch::pull::PullQueue;
use carillon_engine::health::Health;
use carillon_engine::intake::Intake;
use carillon_engine::maintenance::bulk::BulkRunner;
use carillon_engine::observers::ObserverRunner;
use carillon_engine::rollout::RolloutMonitor;
use carillon_engine::services::Services;

/// What handlers work with.
pub struct ApiState {
    /// Services of the server.
    pub services: Services,
    /// Makes jobs.
    pub intake: Arc<Intake>,
    /// Leases jobs to consumers.
    pub pull: Arc<PullQueue>,
    /// Changes many jobs.
    pub bulk: Arc<BulkRunner>,
    /// Watches the results of the policies' versions.
    pub rollouts: Arc<RolloutMonitor>,
    /// Calls the tenants' observers.
    pub observers: Arc<ObserverRunner>,
    /// Simulates attempts.
    pub executor: Arc<AttemptExecutor>,
    /// Pools that all tenants share.
    pub pools: Pools,
    /// Bounds and counts the failures to authenticate.
    pub auth_failures: AuthFailures,
    /// Counts refusals for the audit log.
    pub refusals: Refusals,
    /// Makes the ids of requests.
    pub request_ids: RequestIds,
    /// Time of the last count of waiting jobs for the metrics.
    pub backlog: BacklogCount,
    /// Settings of the API.
    pub config: ApiConfig,
    /// Readiness and end of the server.
    pub lifecycle: Lifecycle,
}

/// Settings of the API.
pub struct ApiConfig {
    /// Whether requests need a token.
    pub auth: bool,
    /// Refuses requests of web pages where no token is required.
    pub browser_guard: Option<BrowserGuard>,
    /// Whether the audit log has requests that change single jobs.
    pub audit_jobs: bool,
    /// Whether each request has a line in the log.
    pub log_requests: bool,
    /// Longest validity of a token that is made; `None` if it is unbounded.
    pub max_token_age: Option<Duration>,
    /// Bounds of requests.
    pub limits: ApiLimits,
    /// Names of the tenants of the configuration, which the API cannot delete.
    pub configured_tenants: BTreeSet<String>,
    /// Routes that need no token, besides those for the server's health.
    pub open: OpenRoutes,
    /// Settings of other schedulers' APIs.
    pub compat: Compat,
}

/// Readiness and end of the server.
pub struct Lifecycle {
    /// Knows whether jobs are accepted and delivered.
    pub health: Health,
    /// Ends the event streams when everything else has stopped.
    pub end: CancellationToken,
}

/// Routes of the API's port that everybody who reaches it can read, besides those for its health.
#[derive(Clone, Copy, Debug)]
pub struct OpenRoutes {
    /// `/metrics`, unless a port of its own serves it.
    pub metrics: bool,
    /// The description of the API.
    pub openapi: bool,
}

/// Bounds of what the API takes.
#[derive(Clone, Copy, Debug)]
pub struct ApiLimits {
    /// Bytes of a batch.
    pub body: usize,
    /// Bytes of any other request's body, and of each job of a batch.
    pub single: usize,
    /// Bytes of a query string.
    pub query: usize,
    /// Labels of a filter.
    pub label_filters: usize,
    /// Bytes of a response that lists or leases.
    pub answer: usize,
    /// Bounds of the parts of a request.
    pub parts: RequestLimits,
    /// Jobs of a batch.
    pub batch: usize,
    /// How long a consumer can wait for a job.
    pub wait: Duration,
}

/// The whole API as a service.
pub fn router(api: &Arc<ApiState>) -> Router {
    let mut open = health_routes();
    if api.config.open.metrics {
        open = open.routes(routes!(health::metrics));
    }
    let (open, mut document) = open.split_for_parts();
    let closed = closed_routes(&api.config.limits).map(|(requirement, routes)| {
        let (routes, described) = routes.split_for_parts();
        document.merge(described);
        (requirement, routes)
    });
    let known = Arc::new(KnownParameters::from_description(&document));
    let mut open = Router::new().merge(open);
    if api.config.open.openapi {
        let Description { v3_1, v3_0 } = Description::from_routes(&document);
        open = open.route("/openapi.json", get_document(&v3_1)).route("/openapi-3.0.json", get_document(&v3_0));
    }
    let open = open.route_layer(from_fn_with_state(Arc::clone(&known), check_open));
    let routes = closed.into_iter().fold(open, |all, (requirement, routes)| {
        let admission = Arc::new(Admission { api: Arc::clone(api), known: Arc::clone(&known), requirement });
        all.merge(routes.route_layer(from_fn_with_state(admission, admission::admit)))
    });
    let routes = Mount::ALL.into_iter().fold(routes, |routes, mount| routes.merge(compat::below_its_path(mount, api)));
    layered(with_fallbacks(routes), api)
}

fn with_fallbacks(routes: Router<Arc<ApiState>>) -> Router<Arc<ApiState>> {
    routes
        .fallback(|request: Request| async move { Problem::no_route(request.uri().path()) })
        .method_not_allowed_fallback(|request: Request| async move {
            Problem::wrong_method(request.method().as_str(), request.uri().path())
        })
}

fn health_routes() -> OpenApiRouter<Arc<ApiState>> {
    OpenApiRouter::with_openapi(openapi::start()).routes(routes!(health::healthz)).routes(routes!(health::readyz))
}

fn get_document(document: &Value) -> MethodRouter<Arc<ApiState>> {
    let document = Rendered::new(document);
    get(move |headers: HeaderMap| async move { document.answer(&headers) })
}

/// The metrics and the server's health by themselves.
pub fn metrics_router(api: &Arc<ApiState>) -> Router {
    let (routes, _) = health_routes().routes(routes!(health::metrics)).split_for_parts();
    layered(with_fallbacks(routes), api)
}

/// Another scheduler's API by itself, without a path in front.
pub fn mount_router(mount: Mount, api: &Arc<ApiState>) -> Router {
    layered(compat::at_the_root(mount), api)
}

/// What holds for every request.
///
/// A request clones all layers below each layer of its route, so that checks are functions that few layers call, and not layers.
fn layered(routes: Router<Arc<ApiState>>, api: &Arc<ApiState>) -> Router {
    routes
        .layer(from_fn_with_state(Arc::clone(api), entrance::enter))
        .layer(CatchPanicLayer::custom(|_| Problem::internal().into_response()))
        .with_state(Arc::clone(api))
}

/// Returns the routes that require a token, by what they require of it.
fn closed_routes(limits: &ApiLimits) -> [(Requirement, OpenApiRouter<Arc<ApiState>>); 4] {
    [
        (Requirement::Role(AccessRole::Viewer), viewers_routes()),
        (Requirement::Role(AccessRole::Producer), producers_routes(limits)),
        (Requirement::Role(AccessRole::Admin), admins_routes()),
        (Requirement::Operator, operators_routes()),
    ]
}

fn operators_routes() -> OpenApiRouter<Arc<ApiState>> {
    OpenApiRouter::new()
        .routes(routes!(tenants::list))
        .routes(routes!(tenants::get))
        .routes(routes!(tenants::put))
        .routes(routes!(tenants::patch))
        .routes(routes!(tenants::delete))
        .routes(routes!(tenants::suspend))
        .routes(routes!(tenants::resume))
        .routes(routes!(nodes::list))
        .routes(routes!(audit_log::verify))
}

fn viewers_routes() -> OpenApiRouter<Arc<ApiState>> {
    OpenApiRouter::new()
        .routes(routes!(groups::list))
        .routes(routes!(groups::get))
        .routes(routes!(groups::stats))
        .routes(routes!(jobs::list))
        .routes(routes!(jobs::list_all))
        .routes(routes!(jobs::get))
        .routes(routes!(attempts::list))
        .routes(routes!(bulk::list))
        .routes(routes!(bulk::get))
        .routes(routes!(events::events))
        .routes(routes!(schedules::list))
        .routes(routes!(schedules::get))
        .routes(routes!(schedules::history))
        .routes(routes!(schedule_runs::of_schedule))
        .routes(routes!(schedule_runs::of_expression))
        .routes(routes!(plugins::list))
        .routes(routes!(plugins::get))
        .routes(routes!(plugins::list_versions))
        .routes(routes!(plugins::get_version))
        .routes(routes!(plugins::component))
        .routes(routes!(versions::list))
        .routes(routes!(versions::get))
        .routes(routes!(versions::history))
        .routes(routes!(shadow::get))
        .routes(routes!(tenants::whoami))
}

fn producers_routes(limits: &ApiLimits) -> OpenApiRouter<Arc<ApiState>> {
    let batches =
        OpenApiRouter::new().routes(routes!(jobs::create_batch)).route_layer(Extension(BodyLimit::batch(limits)));
    OpenApiRouter::new()
        .merge(batches)
        .routes(routes!(contents::payload))
        .routes(routes!(contents::request))
        .routes(routes!(copies::copy))
        .routes(routes!(jobs::create))
        .routes(routes!(job_changes::cancel))
        .routes(routes!(job_changes::edit))
        .routes(routes!(job_changes::run))
        .routes(routes!(job_changes::retry))
        .routes(routes!(job_changes::reschedule))
        .routes(routes!(bulk::change))
        .routes(routes!(bulk::redrive))
        .routes(routes!(bulk::purge))
        .routes(routes!(bulk::flush))
        .routes(routes!(leases::lease))
        .routes(routes!(leases::extend))
        .routes(routes!(leases::complete))
        .routes(routes!(leases::fail))
        .routes(routes!(leases::release))
        .routes(routes!(schedules::put))
        .routes(routes!(schedule_patch::patch))
        .routes(routes!(schedules::delete))
        .routes(routes!(schedules::pause))
        .routes(routes!(schedules::resume))
        .routes(routes!(schedules::run))
        .routes(routes!(schedules::backfill))
        .routes(routes!(simulate::simulate))
        .routes(routes!(replays::replay))
        .routes(routes!(replays::backtest))
}

fn admins_routes() -> OpenApiRouter<Arc<ApiState>> {
    OpenApiRouter::new()
        .routes(routes!(groups::put))
        .routes(routes!(groups::patch))
        .routes(routes!(groups::delete))
        .routes(routes!(groups::pause))
        .routes(routes!(groups::resume))
        .routes(routes!(keys::list))
        .routes(routes!(keys::get))
        .routes(routes!(keys::put))
        .routes(routes!(keys::grant))
        .routes(routes!(keys::delete))
        .routes(routes!(keys::delete_version))
        .routes(routes!(plugins::put_version))
        .routes(routes!(plugins::deprecate))
        .routes(routes!(plugins::delete_version))
        .routes(routes!(versions::create))
        .routes(routes!(versions::promote))
        .routes(routes!(versions::rollback))
        .routes(routes!(quarantine::unquarantine))
        .routes(routes!(shadow::put))
        .routes(routes!(shadow::delete))
        .routes(routes!(audit_log::list))
        .routes(routes!(tokens::create))
        .routes(routes!(tokens::list))
        .routes(routes!(tokens::delete))
        .routes(routes!(tokens::rotate))
}

/// Checks the parameters of a request to a route that requires no token, and ends a response in JSON with a line break.
async fn check_open(
    State(known): State<Arc<KnownParameters>>,
    request: Request,
    next: Next,
) -> Result<Response, Problem> {
    query::check(&known, &request)?;
    Ok(line_break::append(next.run(request).await))
}
