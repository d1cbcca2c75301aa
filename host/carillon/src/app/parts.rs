//! Parts of a server, put together.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::VERSION;
use super::zone::with_local_zone;
use carillon_api::{
    ApiConfig, ApiLimits, ApiState, AuthFailures, BacklogCount, BrowserGuard, Lifecycle, OpenRoutes, PoolSizes, Pools,
    Refusals, RequestIds,
};
use carillon_config::{Config, Period, Size};
use carillon_core::clock::Clock;
use carillon_engine::cluster::Describe;
use carillon_engine::delivery::attempt::AttemptExecutor;
use carillon_engine::delivery::send::Sender;
use carillon_engine::delivery::settle::RetryBounds;
use carillon_engine::dispatch::dispatcher::Dispatcher;
use carillon_engine::dispatch::limiter::{Limiter, Payloads};
use carillon_engine::files::FileShares;
use carillon_engine::intake::{Intake, IntakeLimits};
use carillon_engine::maintenance::bulk::BulkRunner;
use carillon_engine::observers::ObserverRunner;
use carillon_engine::rollout::RolloutMonitor;
use carillon_engine::services::Services;
use carillon_store::NodeRecord;
use carillon_telemetry::RingCapacity as EventBounds;

/// Parts that loops and handlers work with.
pub(super) struct Parts {
    pub(super) dispatcher: Arc<Dispatcher>,
    pub(super) api: Arc<ApiState>,
}

impl Parts {
    /// Puts the parts together. The queue of consumers ends with `stop`.
    pub(super) fn new(
        config: &Config,
        files: FileShares,
        services: &Services,
        sender: Sender,
        stop: &CancellationToken,
        lifecycle: Lifecycle,
    ) -> Self {
        let bounds = RetryBounds::new(&config.limits);
        let executor = Arc::new(AttemptExecutor::new(services.clone(), sender, config.delivery.clone(), bounds));
        let interrupt = CancellationToken::new();
        let rollouts = RolloutMonitor::new(services.clone(), Arc::clone(&executor), interrupt.clone());
        let rollouts = Arc::new(rollouts);
        let dispatcher = Arc::new(Dispatcher::new(
            services.clone(),
            Arc::clone(&executor),
            Arc::clone(&rollouts),
            config.engine.clone(),
            interrupt,
        ));
        let observers = ObserverRunner::new(services.clone(), config.policy.observer_queue);
        let api = Arc::new(ApiState {
            intake: Arc::new(Intake::new(services.clone(), intake_limits(config))),
            pull: Arc::new(dispatcher.pull_queue(stop.clone())),
            bulk: Arc::new(BulkRunner::new(services.clone())),
            rollouts,
            observers: Arc::new(observers),
            executor,
            pools: pools(config, files, services),
            auth_failures: auth_failures(config, &services.clock),
            refusals: Refusals::new(Arc::clone(&services.clock), lifecycle.end.clone()),
            request_ids: RequestIds::new(&*services.clock),
            backlog: BacklogCount::default(),
            config: api_config(config),
            lifecycle,
            services: services.clone(),
        });
        Self { dispatcher, api }
    }
}

/// Makes the pools that all tenants share. Streams leave connections for requests.
fn pools(config: &Config, files: FileShares, services: &Services) -> Pools {
    let sizes = PoolSizes {
        requests: config.server.concurrent_requests,
        streams: config.events.streams.min(files.streams()),
        body_bytes: config.limits.bodies.get(),
        tenant_share: config.limits.tenant_share,
    };
    Pools::new(sizes, Arc::clone(&services.catalog), Arc::clone(&services.telemetry))
}

/// Describes this node for the other nodes, and for people.
pub(super) fn describe(
    config: &Config,
    capacity: usize,
    address: SocketAddr,
    limiter: &Arc<Limiter>,
    stop: &CancellationToken,
) -> Describe {
    let name = config.server.name();
    let (limiter, stop) = (Arc::clone(limiter), stop.clone());
    Box::new(move || NodeRecord {
        name: name.clone(),
        address: address.to_string(),
        version: VERSION.to_owned(),
        process: std::process::id(),
        running: limiter.running(),
        capacity,
        stopping: stop.is_cancelled(),
    })
}

/// Returns the maximum number of concurrent attempts: each needs a connection, so a low limit of open files slows deliveries down.
pub(super) fn concurrency(config: &Config, files: FileShares) -> usize {
    config.engine.concurrency.min(files.receivers)
}

/// Returns the budget for the payloads of all attempts together.
pub(super) fn payloads(config: &Config) -> Payloads {
    let bytes = |size: Size| u64::try_from(size.get()).unwrap_or(u64::MAX);
    Payloads { max_bytes: bytes(config.engine.payload_memory), largest_bytes: bytes(config.server.payload_limit) }
}

fn auth_failures(config: &Config, clock: &Arc<dyn Clock>) -> AuthFailures {
    AuthFailures::new(config.auth.failure_rate, config.auth.failure_burst, Arc::clone(clock))
}

fn api_config(config: &Config) -> ApiConfig {
    let limits = ApiLimits {
        body: config.server.body_limit.get(),
        single: single_body(config),
        query: config.limits.query.get(),
        label_filters: config.limits.label_filters,
        answer: config.limits.answer.get(),
        parts: config.limits.of_requests(),
        batch: config.server.batch_limit.min(carillon_store::INSERT_LIMIT),
        wait: config.server.request_timeout.get() * 2 / 3,
    };
    let open = OpenRoutes { metrics: config.metrics.listen.is_none(), openapi: config.server.openapi };
    let (auth, browser_guard) = (config.auth.enabled, browser_guard(config));
    let max_token_age = config.auth.max_token_age.map(Period::get);
    let configured_tenants = config.tenants.keys().cloned().collect();
    let (audit_jobs, log_requests) = (config.audit.jobs, config.log.requests);
    let compat = with_local_zone(&config.compat);
    ApiConfig { auth, browser_guard, audit_jobs, log_requests, max_token_age, limits, configured_tenants, open, compat }
}

/// Makes the guard against web pages, for a server that requires no token.
fn browser_guard(config: &Config) -> Option<BrowserGuard> {
    if config.auth.enabled {
        return None;
    }
    let mounts = config.compat.mounts().into_iter().filter_map(|mount| mount.listen);
    let listen = mounts.chain(config.metrics.listen).chain([config.server.listen]);
    Some(BrowserGuard::new(config.server.tls().is_some(), listen, config.server.public_url.clone()))
}

/// Returns the largest body of a request that is no batch: one job, with its payload in base64.
fn single_body(config: &Config) -> usize {
    let payload = config.server.payload_limit.get().saturating_mul(4).div_ceil(3);
    payload.saturating_add(config.limits.job.get())
}

fn intake_limits(config: &Config) -> IntakeLimits {
    IntakeLimits {
        payload: config.server.payload_limit.get(),
        parts: config.limits.of_requests(),
        horizon: config.engine.horizon.get(),
    }
}

pub(super) fn event_bounds(config: &Config) -> EventBounds {
    EventBounds { events: config.events.keep, memory: config.events.memory.get() }
}
