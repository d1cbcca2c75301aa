//! Puts the parts together and takes them apart again. `main` and the tests come through this same door.
//!
//! Everything is checked before the port opens. A stop goes in the order of a job's way: no new requests, no new leases, then
//! what runs may finish until the drain time is over; what is left goes back to the store untouched. Streams of events end last, so
//! that they tell of all of it.

mod declare;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::time::Duration;

use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use zeroize::Zeroizing;

use crate::accept::serve::{ServeLimits, serve};
use crate::accept::{Api, ApiLimits, Mount, mount_router, router};
use crate::attempt::Attempter;
use crate::bulk::Bulks;
use crate::catalog::{Bounds, Catalog, CatalogOptions, Vault};
use crate::clock::{Clock, SystemClock};
use crate::config::{self, Config, Place};
use crate::cron::Cron;
use crate::due::{Leases, Node};
use crate::egress::Guard;
use crate::gate::Gates;
use crate::observe::{Bounds as EventBounds, Observer};
use crate::observers::Observers;
use crate::policy::{Compiler, Limits, QuarantineRules, Runtime, RuntimeOptions};
use crate::pull::Puller;
use crate::send::Sender;
use crate::store::{self, PostgresOptions, PostgresStore, SqliteOptions, SqliteStore, Store};

/// Where the files of a node are whose database is elsewhere, from the working directory.
const DATA_DIR: &str = "data";

/// The file next to an embedded database that holds the master key, and the directory of compiled plugins.
const MASTER_KEY_FILE: &str = "master.key";
const CACHE_DIR: &str = "plugin-cache";

/// What the key of the cache is derived with.
const CACHE_LABEL: &str = "carillon compiled plugins";

/// A body that an encoder or a signer answers may be this many times as large as the largest payload.
const ANSWER_GROWTH: usize = 4;

/// After the drain time: how long streams have to tell what became of the attempts that were interrupted.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// A server that runs.
pub struct App {
    /// Where it listens.
    pub address: SocketAddr,
    /// Where it serves other schedulers' APIs by themselves.
    pub mounts: Vec<(Mount, SocketAddr)>,
    /// The first administrator's token, if it was made at this start.
    pub first_token: Option<String>,
    store: Arc<dyn Store>,
    node: Arc<Node>,
    stop: CancellationToken,
    /// Ends what has no end of its own.
    end: CancellationToken,
    loops: TaskTracker,
    serving: TaskTracker,
    drain_timeout: Duration,
}

/// Runs a server until a signal to stop.
///
/// # Errors
/// If it cannot be started.
pub async fn run(config: Config) -> anyhow::Result<()> {
    let app = App::start(config, Arc::new(SystemClock)).await?;
    for (mount, address) in &app.mounts {
        tracing::info!(%address, "serves {}", mount.name());
    }
    tracing::info!(address = %app.address, "ready");
    if let Some(token) = &app.first_token {
        tracing::warn!("this is the administrator's token; it is not shown again: {token}");
    }
    signal().await?;
    tracing::info!("stopping: running attempts may finish; a second signal interrupts them");
    let interrupt = app.node.interrupt.clone();
    tokio::select! {
        () = app.stop() => {}
        result = async { signal().await.map(|()| interrupt.cancel())?; std::future::pending().await } => return result,
    }
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
        let home = Home::of(&config)?;
        let store = open_store(&config).await?;
        let vault = open_vault(&config, &home, &*clock)?;
        let runtime = Arc::new(start_runtime(&config, &home, &vault)?);
        let catalog = Arc::new(open_catalog(&config, Arc::clone(&store), Arc::clone(&clock), &runtime, vault).await?);
        declare::configured(&config, &catalog).await?;
        let first_token = declare::first_token(&config, &catalog).await?;
        let sender =
            Sender::new(&config.delivery, Guard::new(config.egress.allow.clone(), config.egress.deny.clone()))?;
        let attempter = Attempter::new(
            Arc::clone(&catalog),
            Arc::clone(&runtime),
            sender,
            Arc::clone(&clock),
            config.delivery.clone(),
        );
        let node = Arc::new(Node {
            store: Arc::clone(&store),
            catalog: Arc::clone(&catalog),
            clock: Arc::clone(&clock),
            attempter: Arc::new(attempter),
            observer: Arc::new(Observer::new(event_bounds(&config), clock.now())),
            gates: Arc::new(Gates::new(config.engine.concurrency)),
            config: config.engine.clone(),
            crowded: AtomicBool::new(false),
            turn: AtomicUsize::new(0),
            leases: Leases::default(),
            wake: Arc::new(Notify::new()),
            pulled: Arc::new(Notify::new()),
            attempts: TaskTracker::new(),
            interrupt: CancellationToken::new(),
        });
        let listener = listen(config.server.listen).await?;
        let mut mounts = Vec::new();
        for mount in Mount::ALL {
            let settings = mount.settings(&config.compat);
            if let Some(address) = settings.listen.filter(|_| settings.enabled) {
                mounts.push((mount, listen(address).await?));
            }
        }
        let addresses = mounts.iter().map(|(mount, listener)| Ok((*mount, listener.local_addr()?)));
        let app = Self {
            address: listener.local_addr()?,
            mounts: addresses.collect::<anyhow::Result<_>>()?,
            first_token,
            store,
            node,
            stop: CancellationToken::new(),
            end: CancellationToken::new(),
            loops: TaskTracker::new(),
            serving: TaskTracker::new(),
            drain_timeout: config.server.drain_timeout.get(),
        };
        app.spawn(&config, &runtime, listener, mounts);
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
        });
        let observers = Arc::new(Observers::new(
            Arc::clone(&node.catalog),
            Arc::clone(runtime),
            Arc::clone(&node.clock),
            Arc::clone(&node.observer),
            config.policy.observer_queue,
        ));
        let api = Arc::new(Api {
            bulks: Arc::clone(&bulks),
            catalog: Arc::clone(&node.catalog),
            store: Arc::clone(&node.store),
            clock: Arc::clone(&node.clock),
            attempter: Arc::clone(&node.attempter),
            runtime: Arc::clone(runtime),
            observer: Arc::clone(&node.observer),
            observers: Arc::clone(&observers),
            streams: Arc::new(Semaphore::new(config.events.streams)),
            event_streams: config.events.streams,
            gates: Arc::clone(&node.gates),
            wake: Arc::clone(&node.wake),
            pull: Puller {
                store: Arc::clone(&node.store),
                catalog: Arc::clone(&node.catalog),
                clock: Arc::clone(&node.clock),
                attempter: Arc::clone(&node.attempter),
                observer: Arc::clone(&node.observer),
                pulled: Arc::clone(&node.pulled),
                wake: Arc::clone(&node.wake),
                stopping: stop.clone(),
            },
            auth: config.auth.enabled,
            limits: ApiLimits {
                body: config.server.body_limit.get(),
                batch: config.server.batch_limit.min(store::INSERT_LIMIT),
                payload: config.server.payload_limit.get(),
                horizon: config.engine.horizon.get(),
                wait: config.server.request_timeout.get() * 2 / 3,
            },
            compat: config.compat.clone(),
            stopping: stop.clone(),
            end: self.end.clone(),
        });
        let limits = ServeLimits {
            header_read_timeout: config.server.header_read_timeout.get(),
            request_timeout: config.server.request_timeout.get(),
            concurrent_requests: config.server.concurrent_requests,
        };
        self.loops.spawn(Cron::new(Arc::clone(&api)).run(stop.clone()));
        if config.store.is_shared() {
            self.loops.spawn(Arc::clone(&node.catalog).run_refresh(Arc::clone(&node.wake), stop.clone()));
        }
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
        self.loops.close();
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
        self.store.close().await;
    }
}

async fn listen(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))
}

/// Where the files of a server are: next to its database, if that is a file.
struct Home(PathBuf);

impl Home {
    fn of(config: &Config) -> anyhow::Result<Self> {
        let dir = match config.store.place()? {
            Place::File(path) => path.parent().map_or_else(|| PathBuf::from("."), |parent| parent.to_owned()),
            Place::Server => PathBuf::from(DATA_DIR),
        };
        Ok(Self(dir))
    }
}

async fn open_store(config: &Config) -> anyhow::Result<Arc<dyn Store>> {
    let durability = match config.store.durability {
        config::Durability::Full => store::Durability::Full,
        config::Durability::Normal => store::Durability::Normal,
    };
    match config.store.place()? {
        Place::File(path) => {
            if let Some(dir) = path.parent() {
                std::fs::create_dir_all(dir)
                    .with_context(|| format!("the directory {} cannot be made", dir.display()))?;
            }
            Ok(Arc::new(SqliteStore::open(SqliteOptions { path, durability }).await?))
        }
        Place::Server => {
            // The URL may have a password in it: no message repeats it.
            let options =
                config.store.url.parse::<PostgresOptions>().map_err(anyhow::Error::msg).context("store.url")?;
            Ok(Arc::new(PostgresStore::open(options.with(durability).within(config.store.timeout.get())).await?))
        }
    }
}

fn open_vault(config: &Config, home: &Home, clock: &dyn Clock) -> anyhow::Result<Vault> {
    match &config.keys.master_key {
        Some(text) => Vault::from_hex(text),
        None => {
            let file = config.keys.master_key_file.clone().unwrap_or_else(|| home.0.join(MASTER_KEY_FILE));
            Vault::from_file(&file, clock)
        }
    }
}

fn start_runtime(config: &Config, home: &Home, vault: &Vault) -> anyhow::Result<Runtime> {
    let policy = &config.policy;
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get);
    let cache = policy.cache_dir.clone().unwrap_or_else(|| home.0.join(CACHE_DIR));
    let threads = if policy.threads == 0 { cores } else { policy.threads };
    Runtime::start(runtime_options(config, threads, Some((cache, vault.derive(CACHE_LABEL))))?)
}

fn event_bounds(config: &Config) -> EventBounds {
    EventBounds { events: config.events.keep, memory: config.events.memory.get() }
}

/// A policy runtime under this configuration, with room for `threads` calls at once; `cache` keeps what it compiles.
pub(crate) fn runtime_options(
    config: &Config,
    threads: usize,
    cache: Option<(PathBuf, Zeroizing<[u8; 32]>)>,
) -> anyhow::Result<RuntimeOptions> {
    let policy = &config.policy;
    let program = match &policy.compiler {
        Some(program) => program.clone(),
        None => std::env::current_exe().context("cannot find this program, which compiles plugins")?,
    };
    Ok(RuntimeOptions {
        limits: policy_limits(config),
        threads,
        queue: policy.queue,
        observer_threads: policy.observer_threads,
        quarantine: QuarantineRules {
            threshold: policy.fault_threshold,
            window: policy.fault_window.get(),
            period: policy.quarantine.get(),
        },
        compiler: Compiler::new(program, policy.compile_timeout.get(), policy.compile_memory.get()),
        cache,
        component_limit: policy.component_size.get(),
    })
}

/// What one policy call may use under this configuration.
fn policy_limits(config: &Config) -> Limits {
    let policy = &config.policy;
    Limits {
        memory: policy.memory.get(),
        fuel: policy.fuel,
        deadline: policy.deadline.get(),
        key_operations: policy.key_operations,
        log_lines: policy.log_lines,
        log_line_length: policy.log_line_length.get(),
        added_headers: usize::try_from(policy.added_headers).unwrap_or(usize::MAX),
        answer_body: config.server.payload_limit.get().saturating_mul(ANSWER_GROWTH),
    }
}

async fn open_catalog(
    config: &Config,
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    runtime: &Arc<Runtime>,
    vault: Vault,
) -> anyhow::Result<Catalog> {
    let bounds = Bounds { max_timeout: config.delivery.max_timeout.get() };
    let runtime = Arc::clone(runtime);
    let server_defaults = config.defaults.clone();
    Catalog::open(CatalogOptions { store, clock, runtime, vault, bounds, server_defaults }).await
}

async fn signal() -> anyhow::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}
