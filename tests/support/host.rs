//! The application as `main` starts it, in this process, on a database of its own.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use carillon::app::App;
use carillon_api::door::Door;
use carillon_config::{Config, ConfigError, Sources};
use carillon_core::clock::{Clock, SystemClock};
use carillon_engine::cluster::ClusterTimes;
use serde_json::json;
use tempfile::TempDir;

use super::{Answer, Api, ManualClock, Receiver, put_certificate, shared_dir};

/// The token of the first administrator, an operator.
pub const ADMIN_TOKEN: &str = "the-first-administrators-token";

/// The key of every test's vault. It is always the same because the cache of compiled plugins is authenticated with it.
pub const MASTER_KEY: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

/// Where the jobs are, unless a test says so, in a file of its own.
const STORE_URL: &str = "CARILLON_STORE__URL";

/// The group and the path of the jobs that only show that time has come.
const PROBES: &str = "probes";

/// How a host is to be started.
#[derive(Clone)]
pub struct Setup {
    clock: Arc<dyn Clock>,
    dir: Arc<TempDir>,
    cluster_times: ClusterTimes,
    settings: Vec<(String, String)>,
    file: Option<String>,
}

/// A host that runs. It is stopped when it is dropped.
pub struct TestHost {
    /// As the first administrator.
    pub api: Api,
    pub base: String,
    pub dir: Arc<TempDir>,
    app: Option<App>,
}

impl Setup {
    pub fn new() -> Self {
        let setup = Self {
            clock: Arc::new(SystemClock),
            dir: Arc::new(tempfile::tempdir().unwrap()),
            cluster_times: ClusterTimes::default(),
            settings: Vec::new(),
            file: None,
        };
        setup
            .set("server.listen", "127.0.0.1:0")
            .set("server.drain_timeout", "5s")
            .set("auth.admin_token", ADMIN_TOKEN)
            .set("keys.master_key", MASTER_KEY)
            .set("egress.allow", "127.0.0.0/8,::1/128")
            .set("policy.compiler", env!("CARGO_BIN_EXE_carillon"))
            .set("policy.compile_timeout", "60s")
            .set("policy.deadline", "5s")
            .set("policy.cache_dir", &shared_dir().join("plugin-cache").display().to_string())
    }

    /// Time is moved by hand.
    pub fn with_clock(clock: &Arc<ManualClock>) -> Self {
        Self { clock: Arc::clone(clock) as _, ..Self::new() }
    }

    /// Time is what this clock says.
    pub fn clock(self, clock: Arc<dyn Clock>) -> Self {
        Self { clock, ..self }
    }

    /// How soon the nodes of a cluster see each other, and take their shares.
    pub fn cluster_times(self, cluster_times: ClusterTimes) -> Self {
        Self { cluster_times, ..self }
    }

    /// Sets a key of the configuration, as a variable of the environment would.
    pub fn set(mut self, key: &str, value: &str) -> Self {
        let variable = format!("CARILLON_{}", key.replace('.', "__").to_uppercase());
        self.settings.retain(|(known, _)| *known != variable);
        self.settings.push((variable, value.to_owned()));
        self
    }

    /// Sets a variable of the environment.
    pub fn variable(&self, name: &str, value: &str) -> Self {
        let mut setup = self.clone();
        setup.settings.push((name.to_owned(), value.to_owned()));
        setup
    }

    /// Its ports have TLS, with the certificate of `tests/tls` for `localhost`.
    pub fn with_tls(self) -> Self {
        let (certificate, key) = put_certificate(self.dir.path(), "server");
        self.set("server.tls_cert", &certificate).set("server.tls_key", &key)
    }

    /// Where its files are.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The text of the configuration file.
    pub fn file(self, text: &str) -> Self {
        Self { file: Some(text.to_owned()), ..self }
    }

    /// The same directory, and so the same database, as another host.
    pub fn in_dir(self, dir: &Arc<TempDir>) -> Self {
        Self { dir: Arc::clone(dir), ..self }
    }

    pub fn config(&self) -> Result<Config, ConfigError> {
        let file = self.file.as_ref().map(|text| {
            let path = self.dir.path().join("carillon.toml");
            std::fs::write(&path, text).unwrap();
            path
        });
        let mut environment = self.settings.clone();
        if !environment.iter().any(|(variable, _)| variable == STORE_URL) {
            let url = format!("sqlite:{}", self.dir.path().join("carillon.db").display());
            environment.push((STORE_URL.to_owned(), url));
        }
        Config::load(Sources { file, environment, flags: Vec::new() })
    }

    pub async fn try_start(&self) -> anyhow::Result<TestHost> {
        let config = self.config()?;
        let has_tls = config.server.tls().is_some();
        let app = App::start(config, Arc::clone(&self.clock), self.cluster_times).await?;
        let base = if has_tls {
            format!("https://localhost:{}", app.address.port())
        } else {
            format!("http://{}", app.address)
        };
        Ok(TestHost { api: Api::new(&base, Some(ADMIN_TOKEN)), base, dir: Arc::clone(&self.dir), app: Some(app) })
    }

    pub async fn start(&self) -> TestHost {
        self.try_start().await.unwrap_or_else(|error| panic!("the host does not start: {error:#}"))
    }
}

impl TestHost {
    pub async fn start() -> Self {
        Setup::new().start().await
    }

    /// Where it serves other schedulers' APIs by themselves.
    pub fn mounts(&self) -> Vec<(&'static str, SocketAddr)> {
        let mounts = self.app.iter().flat_map(|app| &app.mounts);
        mounts.map(|(mount, address)| (mount.name(), *address)).collect()
    }

    /// Where it serves its metrics, if they have a port of their own.
    pub fn metrics(&self) -> Option<SocketAddr> {
        self.app.as_ref().and_then(|app| app.metrics_address)
    }

    /// Answers requests as its port does, without a connection.
    pub fn door(&self) -> Door {
        self.app.as_ref().expect("the host runs").door.clone()
    }

    /// Stops it as a signal would.
    pub async fn stop(mut self) {
        if let Some(app) = self.app.take() {
            app.stop().await;
        }
    }

    /// Returns when the host has looked for due jobs at the present time, and whatever it found then is on its way: a job of another
    /// group that is due now has arrived.
    pub async fn looked(&self, receiver: &Receiver) {
        let path = format!("/{PROBES}");
        receiver.on(&path, [Answer::status(200)]);
        self.api.put_group(PROBES, json!({})).await;
        let before = receiver.count(&path);
        self.api.post_job(PROBES, json!({"url": receiver.url(&path)})).await;
        receiver.arrived(&path, before + 1).await;
    }
}

impl Drop for TestHost {
    fn drop(&mut self) {
        let Some(app) = self.app.take() else { return };
        if !std::thread::panicking() {
            tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(app.stop()));
        }
    }
}
