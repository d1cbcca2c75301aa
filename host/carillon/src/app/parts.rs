//! Parts of a server, put together.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use super::VERSION;
use super::zone::with_local_zone;
use carillon_api::{ApiLimits, ApiState};
use carillon_catalog::Catalog;
use carillon_config::{Config, Size};
use carillon_core::clock::Clock;
use carillon_engine::cluster::{Cluster, Describe};
use carillon_engine::delivery::attempt::AttemptExecutor;
use carillon_engine::delivery::send::Sender;
use carillon_engine::delivery::settler::Settler;
use carillon_engine::dispatch::dispatcher::Dispatcher;
use carillon_engine::dispatch::limiter::{Limiter, Payloads};
use carillon_engine::dispatch::pull::{PullQueue, Returns};
use carillon_engine::files::FileShares;
use carillon_engine::health::Health;
use carillon_engine::intake::{Intake, IntakeLimits};
use carillon_engine::maintenance::bulk::BulkRunner;
use carillon_engine::observers::{ASKED, ObserverRunner, RequestedJobs};
use carillon_policy::Runtime;
use carillon_store::{NodeDoc, Store};
use carillon_telemetry::{RingCapacity as EventBounds, Telemetry};

pub(super) fn executor(
    config: &Config,
    sender: Sender,
    catalog: &Arc<Catalog>,
    runtime: &Arc<Runtime>,
    clock: &Arc<dyn Clock>,
    observer: &Arc<Telemetry>,
    cluster: &Arc<Cluster>,
) -> Arc<AttemptExecutor> {
    Arc::new(AttemptExecutor::new(
        Arc::clone(catalog),
        Arc::clone(runtime),
        sender,
        Arc::clone(clock),
        config.delivery.clone(),
        Arc::clone(observer),
        Arc::clone(cluster),
    ))
}

pub(super) fn settler(
    store: &Arc<dyn Store>,
    catalog: &Arc<Catalog>,
    clock: &Arc<dyn Clock>,
    observer: &Arc<Telemetry>,
    interrupt: &CancellationToken,
) -> Arc<Settler> {
    Arc::new(Settler::new(
        Arc::clone(store),
        Arc::clone(catalog),
        Arc::clone(clock),
        Arc::clone(observer),
        interrupt.clone(),
    ))
}

/// Makes the state of the API's handlers, which also makes the jobs that observers request.
pub(super) fn new_api(
    config: &Config,
    files: FileShares,
    node: &Arc<Dispatcher>,
    runtime: &Arc<Runtime>,
    health: Health,
    stop: &CancellationToken,
    end: &CancellationToken,
) -> (Arc<ApiState>, mpsc::Receiver<RequestedJobs>) {
    let bulks = Arc::new(BulkRunner {
        store: Arc::clone(&node.store),
        catalog: Arc::clone(&node.catalog),
        clock: Arc::clone(&node.clock),
        telemetry: Arc::clone(&node.telemetry),
        notifier: Arc::clone(&node.notifier),
        cluster: Arc::clone(&node.cluster),
    });
    let (ask, asked) = mpsc::channel(ASKED);
    let observers = Arc::new(ObserverRunner::new(
        Arc::clone(&node.catalog),
        Arc::clone(runtime),
        Arc::clone(&node.clock),
        Arc::clone(&node.telemetry),
        config.policy.observer_queue,
        ask,
    ));
    let intake = Arc::new(Intake {
        catalog: Arc::clone(&node.catalog),
        store: Arc::clone(&node.store),
        clock: Arc::clone(&node.clock),
        telemetry: Arc::clone(&node.telemetry),
        notifier: Arc::clone(&node.notifier),
        limits: intake_limits(config),
    });
    let event_streams = config.events.streams.min(files.streams());
    let api = Arc::new(ApiState {
        intake,
        bulks,
        catalog: Arc::clone(&node.catalog),
        store: Arc::clone(&node.store),
        clock: Arc::clone(&node.clock),
        executor: Arc::clone(&node.executor),
        runtime: Arc::clone(runtime),
        rollouts: Arc::clone(&node.rollouts),
        telemetry: Arc::clone(&node.telemetry),
        observers,
        backlog_counted_at: tokio::sync::Mutex::default(),
        streams: Arc::new(Semaphore::new(event_streams)),
        event_streams,
        limiter: Arc::clone(&node.limiter),
        cluster: Arc::clone(&node.cluster),
        health,
        notifier: Arc::clone(&node.notifier),
        pull: puller(node, stop),
        auth: config.auth.enabled,
        limits: api_limits(config),
        compat: with_local_zone(&config.compat),
        end: end.clone(),
    });
    (api, asked)
}

fn puller(node: &Arc<Dispatcher>, stop: &CancellationToken) -> Arc<PullQueue> {
    Arc::new(PullQueue {
        store: Arc::clone(&node.store),
        catalog: Arc::clone(&node.catalog),
        clock: Arc::clone(&node.clock),
        executor: Arc::clone(&node.executor),
        rollouts: Arc::clone(&node.rollouts),
        telemetry: Arc::clone(&node.telemetry),
        consumers: Arc::clone(&node.consumers),
        priorities: Arc::clone(&node.priorities),
        leases: Arc::clone(&node.leases),
        settler: Arc::clone(&node.settler),
        returns: Arc::new(Returns {
            settler: Arc::clone(&node.settler),
            clock: Arc::clone(&node.clock),
            notifier: Arc::clone(&node.notifier),
            tasks: node.attempts.clone(),
        }),
        notifier: Arc::clone(&node.notifier),
        stopping: stop.clone(),
    })
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
    Box::new(move || NodeDoc {
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

/// Returns the API's limits under this configuration.
fn api_limits(config: &Config) -> ApiLimits {
    ApiLimits {
        body: config.server.body_limit.get(),
        batch: config.server.batch_limit.min(carillon_store::INSERT_LIMIT),
        wait: config.server.request_timeout.get() * 2 / 3,
    }
}

fn intake_limits(config: &Config) -> IntakeLimits {
    IntakeLimits { payload: config.server.payload_limit.get(), horizon: config.engine.horizon.get() }
}

pub(super) fn event_bounds(config: &Config) -> EventBounds {
    EventBounds { events: config.events.keep, memory: config.events.memory.get() }
}
