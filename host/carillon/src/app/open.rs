//! Opens the parts of a server, as the configuration says.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, ensure};
use zeroize::Zeroizing;

use carillon_api::presets;
use carillon_catalog::{
    AuditSink, Catalog, CatalogOptions, CheckLimits, Encryption, MasterKey, PolicyBounds, SealedStore, Vault,
};
use carillon_config::{self, Config, StoreLocation};
use carillon_core::clock::Clock;
use carillon_engine::cluster::DatabaseClock;
use carillon_policy::{Runtime, RuntimeOptions};
use carillon_store::{Peers, Store};
use carillon_store_postgres::{PostgresOptions, PostgresStore};
use carillon_store_sqlite::{SqliteOptions, SqliteStore};
use carillon_telemetry::Telemetry;

/// Directory of the files of a node whose database is elsewhere, relative to the working directory.
const DATA_DIR: &str = "data";

/// File next to an embedded database that holds the master key, and directory of compiled plugins.
const MASTER_KEY_FILE: &str = "master.key";
const CACHE_DIR: &str = "plugin-cache";

/// File that the first operator's token is written to.
const FIRST_TOKEN_FILE: &str = "first-token";

/// Suffixes of files that a server leaves next to its database: if they exist and the database does not, it is lost or elsewhere.
const LEFT_BEHIND: [&str; 3] = [".lock", "-wal", "-shm"];

/// Label with which the key of the cache is derived.
const CACHE_LABEL: &str = "carillon compiled plugins";

/// Directory of a server's files: next to its database, if that is a file.
pub(super) struct Home(PathBuf);

impl Home {
    pub(super) fn new(config: &Config) -> anyhow::Result<Self> {
        let dir = match config.store.place()? {
            StoreLocation::File(path) => path.parent().map_or_else(|| PathBuf::from("."), |parent| parent.to_owned()),
            StoreLocation::Server => PathBuf::from(DATA_DIR),
        };
        Ok(Self(dir))
    }

    pub(super) fn first_token_file(&self) -> PathBuf {
        self.0.join(FIRST_TOKEN_FILE)
    }
}

/// Open database, with its clock.
pub(super) struct Opened {
    pub(super) store: Arc<dyn Store>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) shared: Option<Shared>,
}

/// State that the nodes of one database share.
pub(super) struct Shared {
    pub(super) peers: Arc<dyn Peers>,
    pub(super) clock: Arc<DatabaseClock>,
}

/// Opens a database that a server has used before.
pub(super) async fn open_existing(config: &Config, clock: Arc<dyn Clock>) -> anyhow::Result<Opened> {
    if let StoreLocation::File(path) = config.store.place()? {
        ensure!(path.is_file(), "store.url: the database `{}` does not exist", path.display());
    }
    open_store(config, clock).await
}

/// Rejects a missing database where a server has used one; logs when one is made.
fn check_first_start(path: &Path) -> anyhow::Result<()> {
    // A dangling link counts as existing, although its target is missing.
    if path.symlink_metadata().is_ok() {
        ensure!(path.exists(), "store.url: `{}` is a link to a file that does not exist", path.display());
        return Ok(());
    }
    for suffix in LEFT_BEHIND {
        let mut left = path.as_os_str().to_owned();
        left.push(suffix);
        let (path, left) = (path.display(), PathBuf::from(left));
        ensure!(
            !left.exists(),
            "store.url: the database `{path}` does not exist, although a server has used it (`{}` exists): restore the database, \
             or delete that file to start with an empty one",
            left.display()
        );
    }
    tracing::info!(file = %path.display(), "creating a new database");
    Ok(())
}

pub(super) async fn open_store(config: &Config, clock: Arc<dyn Clock>) -> anyhow::Result<Opened> {
    let durability = match config.store.durability {
        carillon_config::Durability::Full => carillon_store::Durability::Full,
        carillon_config::Durability::Normal => carillon_store::Durability::Normal,
    };
    match config.store.place()? {
        StoreLocation::File(path) => {
            if let Some(dir) = path.parent() {
                std::fs::create_dir_all(dir)
                    .with_context(|| format!("the directory {} cannot be created", dir.display()))?;
            }
            check_first_start(&path)?;
            let store = Arc::new(SqliteStore::open(SqliteOptions { path, durability }).await?);
            Ok(Opened { store, clock, shared: None })
        }
        StoreLocation::Server => {
            // The URL may contain a password, so no message repeats it.
            let options =
                config.store.url.parse::<PostgresOptions>().map_err(anyhow::Error::msg).context("store.url")?;
            // The bound is at most a lease: a result that came later would be about leases that have expired.
            let bound = config.store.timeout.get().min(config.engine.lease.get());
            let store = Arc::new(PostgresStore::open(options.with(durability).within(bound)).await?);
            let clock = Arc::new(DatabaseClock::start(clock, &*store).await?);
            let shared = Shared { peers: Arc::clone(&store) as _, clock: Arc::clone(&clock) };
            Ok(Opened { store, clock, shared: Some(shared) })
        }
    }
}

/// Returns the source of this configuration's master key.
pub(super) fn master_key(config: &Config, home: &Home) -> MasterKey {
    match (&config.keys.master_key, &config.keys.master_key_file) {
        (Some(text), _) => MasterKey::Given(Zeroizing::new(text.clone())),
        (None, Some(file)) => MasterKey::File("keys.master_key_file", file.clone()),
        (None, None) => MasterKey::Beside(home.0.join(MASTER_KEY_FILE)),
    }
}

/// Returns the source of the master key before it, if one is configured.
pub(super) fn old_master_key(config: &Config) -> Option<MasterKey> {
    Some(MasterKey::File("keys.old_master_key_file", config.keys.old_master_key_file.clone()?))
}

/// Returns the store with encryption around it, as the configuration says. What is encrypted already is read in any case.
pub(super) fn seal(config: &Config, store: Arc<dyn Store>, vault: &Vault, clock: &Arc<dyn Clock>) -> Arc<dyn Store> {
    let encryption = if config.store.encrypt { Encryption::Payloads } else { Encryption::Off };
    Arc::new(SealedStore::new(store, vault, encryption, Arc::clone(clock)))
}

pub(super) fn start_runtime(config: &Config, home: &Home, vault: &Vault) -> anyhow::Result<Runtime> {
    let policy = &config.policy;
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get);
    let cache = policy.cache_dir.clone().unwrap_or_else(|| home.0.join(CACHE_DIR));
    let threads = if policy.threads == 0 { cores } else { policy.threads };
    Runtime::start(RuntimeOptions::from_config(config, threads, Some((cache, vault.derive(CACHE_LABEL))))?)
}

pub(super) async fn open_catalog(
    config: &Config,
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    runtime: &Arc<Runtime>,
    vault: Vault,
    telemetry: &Arc<Telemetry>,
) -> anyhow::Result<Catalog> {
    let bounds = PolicyBounds {
        max_timeout: config.delivery.max_timeout.get(),
        max_recorded_body: config.delivery.response_judge_limit.get(),
        requests: config.limits.of_requests(),
        tenants: config.limits.of_tenants(),
        checks: CheckLimits { steps: config.limits.check_steps, time: config.limits.check_time.get() },
    };
    let runtime = Arc::clone(runtime);
    let (server_defaults, presets) = (config.defaults.clone(), presets(&config.compat));
    let (node, telemetry) = (config.server.name(), Arc::clone(telemetry));
    let audit_sink: AuditSink = Arc::new(move |entry| telemetry.record_audit(entry));
    let options = CatalogOptions { store, clock, runtime, vault, bounds, server_defaults, presets, node, audit_sink };
    Catalog::open(options).await
}
