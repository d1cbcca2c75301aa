//! Composition of the server: starts its parts and stops them again. `main` and the tests use this same entry.
//!
//! Everything is checked before the port opens. A stop follows the order of a job's way: no new requests, no new leases, then running
//! attempts may finish until the drain time is over; the rest goes back to the store unchanged. Streams of events end last, so that they
//! report all of it.

mod backup;
mod certificate;
mod declare;
mod first_token;
mod listeners;
mod open;
mod parts;
mod private;
mod recover;
mod rotate;
mod zone;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use carillon_api::door::Door;
use carillon_api::port::ServeLimits;
use carillon_api::serve::serve;
use carillon_api::tls::ServerTls;
use carillon_api::{ApiState, Lifecycle, Mount, router};
use carillon_catalog::{Unfit, unlock};
use carillon_config::Config;
use carillon_core::clock::{Clock, SystemClock};
use carillon_core::shutdown::{Signal, signal};
use carillon_engine::cluster::{CatalogRefresh, Cluster, ClusterTimes, PeerSync};
use carillon_engine::delivery::egress::Guard;
use carillon_engine::delivery::send::Sender;
use carillon_engine::delivery::settle::RetryBounds;
use carillon_engine::dispatch::aborts::Aborter;
use carillon_engine::dispatch::dispatcher::Dispatcher;
use carillon_engine::dispatch::limiter::Limiter;
use carillon_engine::files::FileShares;
use carillon_engine::health::Health;
use carillon_engine::intake::make_requested_jobs;
use carillon_engine::loops::Loops;
use carillon_engine::maintenance::prune::Pruner;
use carillon_engine::maintenance::rescue::Rescuer;
use carillon_engine::schedules::ScheduleRunner;
use carillon_engine::services::Services;
use carillon_engine::stored_bytes::StoredBytes;
use carillon_telemetry::Telemetry;

pub use self::backup::backup;
use self::certificate::CertificateReloader;
use self::first_token::FirstToken;
use self::listeners::{FurtherListeners, listen, serve_limits, server_tls};
use self::open::{Home, Opened, Shared, master_key, old_master_key, open_catalog, open_store, seal, start_runtime};
use self::parts::{Parts, concurrency, describe, event_bounds, payloads};
pub use self::recover::{recover_master_key, recover_operator_token};
pub use self::rotate::{rotate_master_key, sealed_values};

/// Version of the program.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Time after the drain time in which streams report the results of the interrupted attempts.
const STREAM_CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// Running server.
pub struct App {
    /// Address on which it listens.
    pub address: SocketAddr,
    /// Mounts with ports of their own: APIs of other schedulers, and their addresses.
    pub mounts: Vec<(Mount, SocketAddr)>,
    /// Address of the metrics, if they have a port of their own.
    pub metrics_address: Option<SocketAddr>,
    /// Entry that answers requests, as `address` does.
    pub door: Door,
    services: Services,
    dispatcher: Arc<Dispatcher>,
    stop: CancellationToken,
    /// Ends tasks that have no end of their own.
    end: CancellationToken,
    /// Loops that end with `stop`.
    loops: TaskTracker,
    /// Loops that continue while attempts finish, and end with the interrupt.
    lasting_loops: TaskTracker,
    /// Supervisor of all background loops.
    supervisor: Arc<Loops>,
    /// Tells load balancers that the server is about to stop.
    leaving: CancellationToken,
    /// Time between that notice and the closing of the port.
    drain_notice: Duration,
    serving: TaskTracker,
    /// Entries of `mounts` and of the metrics.
    further_doors: Vec<Door>,
    /// Tasks that exchange data with other nodes.
    link: TaskTracker,
    drain_timeout: Duration,
}

/// Runs a server until a signal to stop.
///
/// # Errors
/// Returns an error if the server cannot be started.
pub async fn run(config: Config) -> anyhow::Result<()> {
    let (store_name, has_tls) = (config.store.name(), config.server.tls().is_some());
    let first_token = FirstToken::of_process();
    let app = App::start_with(config, Arc::new(SystemClock), ClusterTimes::default(), first_token).await?;
    for (mount, address) in &app.mounts {
        tracing::info!(%address, mount = mount.name(), "compatibility mount is ready");
    }
    if let Some(address) = app.metrics_address {
        tracing::info!(%address, "metrics port is ready");
    }
    tracing::info!(address = %app.address, tls = has_tls, version = VERSION, store = store_name, "ready");
    let first = signal().await?;
    let interrupt = app.dispatcher.interrupt();
    let stopped = async {
        if first == Signal::Terminate {
            app.give_notice().await;
        }
        tracing::info!("stopping; running attempts finish first, and a second signal interrupts them");
        app.stop().await;
    };
    let second = async {
        signal().await?;
        tracing::warn!("second signal received; interrupting running attempts");
        interrupt.cancel();
        std::future::pending().await
    };
    tokio::select! {
        () = stopped => {}
        result = second => return result,
    }
    tracing::info!("stopped");
    Ok(())
}

impl App {
    /// Starts a server that writes the first operator's token to a file.
    ///
    /// # Errors
    /// Returns an error if the configuration cannot be put in force; no port is open then.
    pub async fn start(config: Config, clock: Arc<dyn Clock>, times: ClusterTimes) -> anyhow::Result<Self> {
        Self::start_with(config, clock, times, FirstToken::File).await
    }

    async fn start_with(
        config: Config,
        clock: Arc<dyn Clock>,
        times: ClusterTimes,
        first_token: FirstToken,
    ) -> anyhow::Result<Self> {
        // An error means that another part of the program has installed it already.
        drop(rustls::crypto::ring::default_provider().install_default());
        let (home, tls) = (Home::new(&config)?, server_tls(&config)?);
        let opened = open_store(&config, clock).await?;
        let store = Arc::clone(&opened.store);
        let started = Self::start_on(opened, config, &home, tls, times, first_token).await;
        if started.is_err() {
            // Otherwise the database would be in use until its threads have ended.
            store.close().await;
        }
        started
    }

    async fn start_on(
        opened: Opened,
        config: Config,
        home: &Home,
        tls: Option<Arc<ServerTls>>,
        times: ClusterTimes,
        first_token: FirstToken,
    ) -> anyhow::Result<Self> {
        let files = FileShares::of_process();
        let Opened { store, clock, shared } = opened;
        let (key, old_key) = (master_key(&config, home), old_master_key(&config));
        let vault = unlock(&key, old_key.as_ref(), Unfit::Refuse, &*store, &*clock).await?;
        let store = seal(&config, store, &vault, &clock);
        let runtime = Arc::new(start_runtime(&config, home, &vault)?);
        let telemetry = Arc::new(Telemetry::new(event_bounds(&config), clock.now()));
        let (store_of, clock_of) = (Arc::clone(&store), Arc::clone(&clock));
        let catalog = Arc::new(open_catalog(&config, store_of, clock_of, &runtime, vault, &telemetry).await?);
        declare::configured(&config, &catalog).await?;
        first_token::operator_token(&config, &catalog, first_token, &home.first_token_file()).await?;
        let sender = Sender::new(&config.delivery, Guard::new(&config.egress), files)?;
        let listener = listen(config.server.listen).await?;
        let address = listener.local_addr()?;
        let concurrency = concurrency(&config, files);
        let (limiter, stop) = (
            Arc::new(Limiter::new(concurrency, payloads(&config), config.limits.tenant_share)),
            CancellationToken::new(),
        );
        let describe = describe(&config, concurrency, address, &limiter, &stop);
        let cluster_clock = Arc::clone(&clock);
        let cluster = match shared {
            Some(_) => Cluster::new(cluster_clock, times, describe),
            None => Cluster::alone(cluster_clock, describe),
        };
        let cluster = Arc::new(cluster);
        let notifier = Arc::default();
        let stored_bytes = Arc::new(StoredBytes::new(Arc::clone(&store), Arc::clone(&catalog)));
        let services = Services { store, catalog, runtime, clock, telemetry, limiter, cluster, notifier, stored_bytes };
        let further = FurtherListeners::open(&config).await?;
        let (end, leaving, supervisor) = (CancellationToken::new(), stop.child_token(), Arc::new(Loops::default()));
        let health = Health::new(services.clone(), Arc::clone(&supervisor), leaving.clone());
        let lifecycle = Lifecycle { health, end: end.clone() };
        let Parts { dispatcher, api } = Parts::new(&config, files, &services, sender, &stop, lifecycle);
        let app = Self {
            address,
            mounts: further.mounts()?,
            metrics_address: further.metrics()?,
            door: Door::new(router(&api), config.server.request_timeout.get()),
            further_doors: further.doors(&config, &api),
            services,
            dispatcher,
            stop,
            end,
            loops: TaskTracker::new(),
            lasting_loops: TaskTracker::new(),
            supervisor,
            leaving,
            drain_notice: config.server.drain_notice.get(),
            serving: TaskTracker::new(),
            link: TaskTracker::new(),
            drain_timeout: config.server.drain_timeout.get(),
        };
        app.spawn_loops(&config, &api, tls.as_ref());
        app.spawn_listeners(&serve_limits(&config, tls, files.clients, &app.services.telemetry), listener, further);
        if let Some(shared) = shared {
            app.spawn_link(shared);
        }
        app.link.close();
        Ok(app)
    }

    fn spawn_listeners(&self, limits: &ServeLimits, listener: TcpListener, further: FurtherListeners) {
        let doors = self.further_doors.iter().chain([&self.door]);
        for (listener, door) in further.into_listeners().chain([listener]).zip(doors) {
            self.serving.spawn(serve(listener, door.clone(), limits.clone(), self.stop.clone(), self.end.clone()));
        }
        self.serving.close();
    }

    fn spawn_loops(&self, config: &Config, api: &Arc<ApiState>, tls: Option<&Arc<ServerTls>>) {
        let (services, dispatcher, leases) = (&self.services, &self.dispatcher, &self.dispatcher.lease_keeper());
        let (first, last) = ((&self.loops, &self.stop), (&self.lasting_loops, dispatcher.interrupt()));
        let rescuer =
            Arc::new(Rescuer::new(services.clone(), dispatcher.lease_keeper(), RetryBounds::new(&config.limits)));
        let pruner = Arc::new(Pruner::new(services.clone(), config.retention.clone()));
        let aborter = Arc::new(Aborter::new(services.clone(), dispatcher.lease_keeper()));
        self.supervise(first, "dispatcher", dispatcher, |dispatcher, stop| dispatcher.run(stop));
        self.supervise(first, "late jobs", &rescuer, |rescuer, stop| rescuer.run(stop));
        self.supervise(first, "retention", &pruner, |pruner, stop| pruner.run(stop));
        self.supervise(first, "schedules", &api.intake, |intake, stop| ScheduleRunner::new(intake).run(stop));
        self.supervise(first, "stored bytes", &services.stored_bytes, |counter, stop| counter.run(stop));
        self.supervise(first, "bulk changes", &api.bulk, |bulk, stop| bulk.run(stop));
        if let Some(tls) = tls {
            let reloader = Arc::new(CertificateReloader::new(Arc::clone(tls), &self.services));
            self.supervise(first, "certificate", &reloader, |reloader, stop| reloader.run(stop));
        }
        // These loops renew leases, end attempts, show events, and make the jobs that observers request. All of that is needed while attempts
        // finish, so the loops end with the interrupt.
        self.supervise(last, "leases", leases, |leases, stop| leases.run(stop));
        self.supervise(last, "aborts", &aborter, |aborter, stop| aborter.run(stop));
        self.supervise(last, "observers", &api.observers, |observers, stop| observers.run(stop));
        self.supervise(last, "quarantines", &api.rollouts, |rollouts, stop| rollouts.run_quarantines(stop));
        let observers = Arc::clone(&api.observers);
        self.supervise(last, "observers' jobs", &api.intake, move |intake, stop| {
            make_requested_jobs(intake, Arc::clone(&observers), stop)
        });
        self.loops.close();
        self.lasting_loops.close();
    }

    /// Runs a loop until it has seen that `stop` is cancelled, and starts it again if it panics.
    fn supervise<T, F>(
        &self,
        (tasks, stop): (&TaskTracker, &CancellationToken),
        name: &'static str,
        of: &Arc<T>,
        run: impl Fn(Arc<T>, CancellationToken) -> F + Send + 'static,
    ) where
        T: Send + Sync + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let (of, token) = (Arc::clone(of), stop.clone());
        let supervised = Arc::clone(&self.supervisor).run(name, move || run(Arc::clone(&of), token.clone()));
        tasks.spawn(supervised);
    }

    /// Tells balancers that the server is about to stop, and continues to serve while they react.
    async fn give_notice(&self) {
        self.leaving.cancel();
        tracing::info!(notice = ?self.drain_notice, "drain notice started; /readyz returns 503, and the port stays open until the notice ends");
        let _ = tokio::time::timeout(self.drain_notice, self.dispatcher.interrupt().cancelled()).await;
    }

    /// Starts the exchange with the other nodes. They count this node as living as long as attempts run.
    fn spawn_link(&self, shared: Shared) {
        let (services, configured) = (&self.services, Arc::new(Notify::new()));
        let link = PeerSync::new(services.clone(), shared.peers, shared.clock, Arc::clone(&configured));
        let refresh = Arc::new(CatalogRefresh::new(services.clone(), configured));
        let (stop, interrupt) = ((&self.link, &self.stop), (&self.link, self.dispatcher.interrupt()));
        self.supervise(stop, "catalog refresh", &refresh, |refresh, stop| refresh.run(stop));
        self.supervise(interrupt, "cluster link", &Arc::new(link), |link, stop| link.run(stop));
    }

    /// Stops the server; returns when every job is back in the store.
    pub async fn stop(&self) {
        self.stop.cancel();
        let drained = async {
            self.loops.wait().await;
            self.dispatcher.drain().await;
            self.end.cancel();
            self.serving.wait().await;
            self.handlers_ended().await;
        };
        if tokio::time::timeout(self.drain_timeout, drained).await.is_err() {
            tracing::warn!("drain timeout expired; interrupting running attempts");
        }
        self.dispatcher.interrupt().cancel();
        self.dispatcher.drain().await;
        self.end.cancel();
        let answered = async {
            self.serving.wait().await;
            self.handlers_ended().await;
        };
        if tokio::time::timeout(STREAM_CLOSE_TIMEOUT, answered).await.is_err() {
            tracing::warn!("requests were still unfinished at shutdown");
        }
        if tokio::time::timeout(STREAM_CLOSE_TIMEOUT, self.lasting_loops.wait()).await.is_err() {
            tracing::warn!("background loops were still running at shutdown");
        }
        if tokio::time::timeout(STREAM_CLOSE_TIMEOUT, self.link.wait()).await.is_err() {
            tracing::warn!("leaving the cluster timed out; other nodes count this one until it expires");
        }
        self.services.store.close().await;
    }

    /// Waits until the work that handlers have begun is done, also for clients that have disconnected.
    async fn handlers_ended(&self) {
        for door in self.further_doors.iter().chain([&self.door]) {
            door.drained().await;
        }
    }
}
