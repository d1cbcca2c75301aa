//! Puts the parts together and takes them apart again. `main` and the tests come through this same door.
//!
//! Everything is checked before the port opens. A stop goes in the order of a job's way: no new requests, no new leases, then
//! what runs may finish until the drain time is over; what is left goes back to the store untouched. Streams of events end last, so
//! that they tell of all of it.

mod declare;
mod open;
mod private;
mod recover;
mod zone;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::time::Duration;

use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::accept::serve::{ServeLimits, serve};
use crate::accept::{Api, ApiLimits, Mount, mount_router, router};
use crate::attempt::Attempter;
use crate::bulk::Bulks;
use crate::catalog::{Unfit, unlock};
use crate::clock::{Clock, SystemClock};
use crate::cluster::{Cluster, Describe, Link};
use crate::config::{Config, Size};
use crate::cron::Cron;
use crate::due::{Node, Pace};
use crate::egress::Guard;
use crate::files::FileShares;
use crate::gate::{Gates, Payloads};
use crate::observe::{Bounds as EventBounds, Observer};
use crate::observers::{ASKED, Observers};
use crate::policy::Runtime;
use crate::pull::{Puller, Returns};
use crate::rollout::Rollouts;
use crate::send::Sender;
use crate::settler::Settler;
use crate::store::{self, NodeDoc, Store};

pub(crate) use self::open::runtime_options;
use self::open::{Home, Opened, Shared, master_key, open_catalog, open_store, start_runtime};
pub use self::recover::{recover_master_key, recover_operator_token};
use self::zone::with_local_zone;

/// The program's version.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// After the drain time: how long streams have to tell what became of the attempts that were interrupted.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// A server that runs.
pub struct App {
    /// Where it listens.
    pub address: SocketAddr,
    /// Where it serves other schedulers' APIs by themselves.
    pub mounts: Vec<(Mount, SocketAddr)>,
    store: Arc<dyn Store>,
    node: Arc<Node>,
    stop: CancellationToken,
    /// Ends what has no end of its own.
    end: CancellationToken,
    loops: TaskTracker,
    serving: TaskTracker,
    /// What keeps in touch with other nodes.
    link: TaskTracker,
    drain_timeout: Duration,
}

/// Runs a server until a signal to stop.
///
/// # Errors
/// If it cannot be started.
pub async fn run(config: Config) -> anyhow::Result<()> {
    let store_name = config.store.name();
    let app = App::start(config, Arc::new(SystemClock)).await?;
    for (mount, address) in &app.mounts {
        tracing::info!(%address, "serves {}", mount.name());
    }
    tracing::info!(address = %app.address, version = VERSION, store = store_name, "ready");
    signal().await?;
    tracing::info!("stopping: running attempts may finish; a second signal interrupts them");
    let interrupt = app.node.interrupt.clone();
    let second = async {
        signal().await?;
        tracing::warn!("interrupting the attempts that run: a second signal came");
        interrupt.cancel();
        std::future::pending().await
    };
    tokio::select! {
        () = app.stop() => {}
        result = second => return result,
    }
    tracing::info!("stopped");
    Ok(())
}

impl App {
    /// Starts a server.
    ///
    /// # Errors
    /// If the configuration cannot be put in force; nothing listens then.
    pub async fn start(config: Config, clock: Arc<dyn Clock>) -> anyhow::Result<Self> {
        // Another part of the program may have installed it already, which is as good.
        drop(rustls::crypto::ring::default_provider().install_default());
        let files = FileShares::of_process();
        let home = Home::of(&config)?;
        let Opened { store, clock, shared } = open_store(&config, clock).await?;
        let vault = unlock(&master_key(&config, &home), Unfit::Refuse, &*store, &*clock).await?;
        let runtime = Arc::new(start_runtime(&config, &home, &vault)?);
        let catalog = Arc::new(open_catalog(&config, Arc::clone(&store), Arc::clone(&clock), &runtime, vault).await?);
        declare::configured(&config, &catalog).await?;
        declare::operator_token(&config, &catalog, &home.operator_token_file()).await?;
        let guard = Guard::new(config.egress.allow.clone(), config.egress.deny.clone());
        let sender = Sender::new(&config.delivery, guard, files)?;
        let observer = Arc::new(Observer::new(event_bounds(&config), clock.now()));
        let listener = listen(config.server.listen).await?;
        let address = listener.local_addr()?;
        let concurrency = concurrency(&config, files);
        let (gates, stop) = (Arc::new(Gates::new(concurrency, payloads(&config))), CancellationToken::new());
        let describe = describe(&config, concurrency, address, &gates, &stop);
        let cluster = Arc::new(Cluster::new(Arc::clone(&clock), describe, shared.is_some()));
        let attempter = Attempter::new(
            Arc::clone(&catalog),
            Arc::clone(&runtime),
            sender,
            Arc::clone(&clock),
            config.delivery.clone(),
            Arc::clone(&observer),
            Arc::clone(&cluster),
        );
        let (attempter, interrupt) = (Arc::new(attempter), CancellationToken::new());
        let rollouts = Arc::new(Rollouts::new(&attempter, &catalog, &runtime, &observer, interrupt.clone()));
        let settler = Arc::new(Settler::new(
            Arc::clone(&store),
            Arc::clone(&catalog),
            Arc::clone(&clock),
            Arc::clone(&observer),
            interrupt.clone(),
        ));
        let node = Arc::new(Node {
            store: Arc::clone(&store),
            catalog: Arc::clone(&catalog),
            clock: Arc::clone(&clock),
            attempter,
            rollouts,
            observer,
            gates,
            cluster,
            config: config.engine.clone(),
            crowded: AtomicBool::new(false),
            turn: AtomicUsize::new(0),
            pace: Pace::default(),
            priorities: Arc::default(),
            leases: Arc::default(),
            settler,
            wake: Arc::default(),
            consumers: Arc::default(),
            attempts: TaskTracker::new(),
            interrupt,
        });
        let mounts = listen_for_mounts(&config).await?;
        let addresses = mounts.iter().map(|(mount, listener)| Ok((*mount, listener.local_addr()?)));
        let app = Self {
            address,
            mounts: addresses.collect::<anyhow::Result<_>>()?,
            store,
            node,
            stop,
            end: CancellationToken::new(),
            loops: TaskTracker::new(),
            serving: TaskTracker::new(),
            link: TaskTracker::new(),
            drain_timeout: config.server.drain_timeout.get(),
        };
        app.spawn(&config, &runtime, listener, mounts);
        if let Some(shared) = shared {
            app.spawn_link(shared);
        }
        app.link.close();
        Ok(app)
    }

    fn spawn(&self, config: &Config, runtime: &Arc<Runtime>, listener: TcpListener, mounts: Vec<(Mount, TcpListener)>) {
        let (node, stop) = (&self.node, &self.stop);
        let bulks = Arc::new(Bulks {
            store: Arc::clone(&node.store),
            catalog: Arc::clone(&node.catalog),
            clock: Arc::clone(&node.clock),
            observer: Arc::clone(&node.observer),
            wake: Arc::clone(&node.wake),
            cluster: Arc::clone(&node.cluster),
        });
        let (ask, asked) = mpsc::channel(ASKED);
        let observers = Arc::new(Observers::new(
            Arc::clone(&node.catalog),
            Arc::clone(runtime),
            Arc::clone(&node.clock),
            Arc::clone(&node.observer),
            config.policy.observer_queue,
            ask,
        ));
        let api = Arc::new(Api {
            bulks: Arc::clone(&bulks),
            catalog: Arc::clone(&node.catalog),
            store: Arc::clone(&node.store),
            clock: Arc::clone(&node.clock),
            attempter: Arc::clone(&node.attempter),
            runtime: Arc::clone(runtime),
            rollouts: Arc::clone(&node.rollouts),
            observer: Arc::clone(&node.observer),
            observers: Arc::clone(&observers),
            streams: Arc::new(Semaphore::new(config.events.streams)),
            event_streams: config.events.streams,
            gates: Arc::clone(&node.gates),
            cluster: Arc::clone(&node.cluster),
            wake: Arc::clone(&node.wake),
            pull: Arc::new(Puller {
                store: Arc::clone(&node.store),
                catalog: Arc::clone(&node.catalog),
                clock: Arc::clone(&node.clock),
                attempter: Arc::clone(&node.attempter),
                rollouts: Arc::clone(&node.rollouts),
                observer: Arc::clone(&node.observer),
                consumers: Arc::clone(&node.consumers),
                priorities: Arc::clone(&node.priorities),
                leases: Arc::clone(&node.leases),
                settler: Arc::clone(&node.settler),
                returns: Arc::new(Returns {
                    settler: Arc::clone(&node.settler),
                    clock: Arc::clone(&node.clock),
                    wake: Arc::clone(&node.wake),
                    tasks: node.attempts.clone(),
                }),
                wake: Arc::clone(&node.wake),
                stopping: stop.clone(),
            }),
            auth: config.auth.enabled,
            limits: api_limits(config),
            compat: with_local_zone(&config.compat),
            stopping: stop.clone(),
            end: self.end.clone(),
        });
        let limits = ServeLimits {
            header_read_timeout: config.server.header_read_timeout.get(),
            request_timeout: config.server.request_timeout.get(),
            concurrent_requests: config.server.concurrent_requests,
        };
        self.loops.spawn(Cron::new(Arc::clone(&api)).run(stop.clone()));
        // As the observers do, it works on while attempts finish.
        tokio::spawn(Arc::clone(&api).run_asked(asked, node.interrupt.clone()));
        for (mount, listener) in mounts {
            let router = mount_router(mount, Arc::clone(&api));
            self.serving.spawn(serve(listener, router, limits, stop.clone(), self.end.clone()));
        }
        self.serving.spawn(serve(listener, router(api), limits, stop.clone(), self.end.clone()));
        self.serving.close();
        self.loops.spawn(Arc::clone(node).run_due(stop.clone()));
        self.loops.spawn(bulks.run(stop.clone()));
        self.loops.spawn(Arc::clone(node).run_late(stop.clone()));
        self.loops.spawn(Arc::clone(node).run_retention(config.retention.clone(), stop.clone()));
        // Leases are kept alive, and events shown, while attempts finish, so these loops end with the interrupt.
        tokio::spawn(Arc::clone(node).run_leases(node.interrupt.clone()));
        tokio::spawn(observers.run(node.interrupt.clone()));
        tokio::spawn(Arc::clone(&node.rollouts).run_quarantines(node.interrupt.clone()));
        self.loops.close();
    }

    /// Keeps in touch with the other nodes. To them this one lives as long as attempts run.
    fn spawn_link(&self, shared: Shared) {
        let (node, configured) = (&self.node, Arc::new(Notify::new()));
        let refresh =
            Arc::clone(&node.catalog).run_refresh(Arc::clone(&configured), Arc::clone(&node.wake), self.stop.clone());
        let link = Link {
            peers: shared.peers,
            clock: shared.clock,
            cluster: Arc::clone(&node.cluster),
            wake: Arc::clone(&node.wake),
            configured,
        };
        self.link.spawn(refresh);
        self.link.spawn(link.run(node.interrupt.clone()));
    }

    /// Stops: returns when every job is back in the store.
    pub async fn stop(&self) {
        self.stop.cancel();
        let drained = async {
            self.loops.wait().await;
            self.node.attempts.close();
            self.node.attempts.wait().await;
            self.end.cancel();
            self.serving.wait().await;
        };
        if tokio::time::timeout(self.drain_timeout, drained).await.is_err() {
            tracing::warn!("the drain time is over: the attempts that still run are interrupted");
        }
        self.node.interrupt.cancel();
        self.node.attempts.close();
        self.node.attempts.wait().await;
        self.end.cancel();
        if tokio::time::timeout(LAST_WORDS, self.serving.wait()).await.is_err() {
            tracing::warn!("some requests were not answered to the end");
        }
        if tokio::time::timeout(LAST_WORDS, self.link.wait()).await.is_err() {
            tracing::warn!("the other nodes do not know yet that this one has gone");
        }
        self.store.close().await;
    }
}

/// What the other nodes, and people, are told of this one.
fn describe(
    config: &Config,
    capacity: usize,
    address: SocketAddr,
    gates: &Arc<Gates>,
    stop: &CancellationToken,
) -> Describe {
    let name = config.server.name();
    let (gates, stop) = (Arc::clone(gates), stop.clone());
    Box::new(move || NodeDoc {
        name: name.clone(),
        address: address.to_string(),
        version: VERSION.to_owned(),
        process: std::process::id(),
        running: gates.running(),
        capacity,
        stopping: stop.is_cancelled(),
    })
}

/// The most attempts at once: each needs a connection, so that a low limit of open files slows deliveries down.
fn concurrency(config: &Config, files: FileShares) -> usize {
    config.engine.concurrency.min(files.receivers)
}

/// What the API takes under this configuration.
fn api_limits(config: &Config) -> ApiLimits {
    ApiLimits {
        body: config.server.body_limit.get(),
        batch: config.server.batch_limit.min(store::INSERT_LIMIT),
        payload: config.server.payload_limit.get(),
        horizon: config.engine.horizon.get(),
        wait: config.server.request_timeout.get() * 2 / 3,
    }
}

async fn listen(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))
}

/// The ports that other schedulers' APIs have of their own.
async fn listen_for_mounts(config: &Config) -> anyhow::Result<Vec<(Mount, TcpListener)>> {
    let mut mounts = Vec::new();
    for mount in Mount::ALL {
        let settings = mount.settings(&config.compat);
        if let Some(address) = settings.listen.filter(|_| settings.enabled) {
            mounts.push((mount, listen(address).await?));
        }
    }
    Ok(mounts)
}

fn event_bounds(config: &Config) -> EventBounds {
    EventBounds { events: config.events.keep, memory: config.events.memory.get() }
}

/// What the payloads of all attempts together may take.
fn payloads(config: &Config) -> Payloads {
    let bytes = |size: Size| u64::try_from(size.get()).unwrap_or(u64::MAX);
    Payloads { max_bytes: bytes(config.engine.payload_memory), largest_bytes: bytes(config.server.payload_limit) }
}

/// Returns when somebody wants this process to end.
pub(crate) async fn signal() -> anyhow::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}
