//! Configuration of a node.
//!
//! `config.default.toml`, which is compiled in, holds the default and the meaning of every key; the structs here hold only what a program
//! needs beyond that. [`Config::load`] combines the sources and checks the result: every [`Config`] that exists is complete and consistent.

mod auth;
mod check;
mod checks;
mod compat;
mod egress;
mod keys;
mod limits;
mod load;
mod problem;
mod records;
mod server;
mod store;
mod values;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde::Deserialize;
use serde_json::Value;
use url::Url;

pub use auth::Auth;
pub use compat::{Compat, Mount, Poussetaches};
pub use egress::Egress;
pub use keys::{Keys, TenantKey, TenantKeyKind};
pub use limits::{Limits, MetricsConfig, TenantLimits};
pub use load::{Flag, Sources};
pub use problem::{ConfigError, ConfigProblem};
pub use records::{Audit, Log, Retention};
pub use server::{ForwardedHeader, Server};
pub use store::{Durability, StoreConfig, StoreLocation};
pub use values::{Period, PortRange, Size, parse_address, parse_network};

/// Defaults and their documentation.
pub const DEFAULTS: &str = include_str!("../config.default.toml");

/// A checked configuration.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Settings of the API.
    pub server: Server,
    /// Access to the API.
    pub auth: Auth,
    /// Database of jobs.
    pub store: StoreConfig,
    /// Keys of tenants, and the key that encrypts them.
    pub keys: Keys,
    /// Settings of the dispatcher.
    pub engine: Engine,
    /// Settings of deliveries.
    pub delivery: Delivery,
    /// Allowed and refused networks.
    pub egress: Egress,
    /// Limits of policies.
    pub policy: Policy,
    /// Bounds of what a tenant may ask for.
    pub limits: Limits,
    /// Bounds of the kept events.
    pub events: Events,
    /// Place of the metrics.
    pub metrics: MetricsConfig,
    /// Retention of ended jobs and of the audit log.
    pub retention: Retention,
    /// What the audit log records.
    pub audit: Audit,
    /// Log lines that can be switched on.
    pub log: Log,
    /// APIs of other schedulers.
    pub compat: Compat,
    /// Settings that every group inherits, in the form of the API's groups; an object.
    pub defaults: Value,
    /// Groups of the default tenant that exist from the start, in the form of the API; objects.
    pub groups: BTreeMap<String, Value>,
    /// Tenants that exist from the start.
    pub tenants: BTreeMap<String, TenantConfig>,
    /// Sources of the sections that users have named, such as `groups.reminders`.
    #[serde(skip)]
    pub(crate) origins: BTreeMap<String, String>,
}

impl Config {
    /// Returns a section that a user has named, with its source: `carillon.toml: groups.reminders`.
    #[must_use]
    pub fn named(&self, section: &str) -> String {
        self.origins.get(section).map_or_else(|| section.to_owned(), |origin| format!("{origin}: {section}"))
    }
}

/// `[engine]`: settings of the dispatcher.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Engine {
    /// Largest number of concurrent attempts.
    pub concurrency: usize,
    /// Duration of a lease.
    pub lease: Period,
    /// Longest time between two polls of the store.
    pub poll: Period,
    /// Largest number of jobs in one claim.
    pub claim_batch: u32,
    /// Largest size of the payloads of all running attempts together.
    pub payload_memory: Size,
    /// Longest time ahead for which a job can be scheduled.
    pub horizon: Period,
}

/// `[delivery]`: settings of deliveries.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Delivery {
    /// Time limit for a name look-up.
    pub resolve_timeout: Period,
    /// Name servers; those of the system if empty.
    #[serde(deserialize_with = "values::name_servers")]
    pub name_servers: Vec<SocketAddr>,
    /// Time limit for opening a connection, TLS included.
    pub connect_timeout: Period,
    /// Age at which a connection is no longer reused.
    pub connection_age: Period,
    /// Proxy for every connection, if set.
    #[serde(deserialize_with = "values::read_unless_empty")]
    pub proxy: Option<Url>,
    /// Whether HTTP/2 is offered to receivers with TLS.
    pub http2: bool,
    /// File with certificate authorities that are trusted in addition to the system's.
    #[serde(deserialize_with = "values::unless_empty")]
    pub ca_file: Option<PathBuf>,
    /// Time limit for a request, response body included, unless the job or its group sets another.
    pub timeout: Period,
    /// Largest time limit that a job or a group may set.
    pub max_timeout: Period,
    /// Size of the part of a response's body that the judge sees.
    pub response_judge_limit: Size,
    /// Size of the part of a response's body that is stored.
    pub response_record_limit: Size,
    /// Size of the part of a response's headers that the judge sees and that is stored.
    pub response_header_limit: Size,
    /// `User-Agent` of a delivery that sets none.
    pub user_agent: String,
    /// Number of consecutive failures at which a receiver's circuit breaker opens; 0 disables the breaker.
    pub breaker_failures: u32,
    /// First duration of an open circuit breaker.
    pub breaker_pause: Period,
    /// Longest duration of an open circuit breaker.
    pub breaker_longest_pause: Period,
}

/// `[policy]`: limits of policies.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// Number of threads that run policies; 0 means one per core.
    pub threads: usize,
    /// Largest number of calls that wait for a thread.
    pub queue: usize,
    /// Number of threads that run observers.
    pub observer_threads: usize,
    /// Largest number of events that wait for observers.
    pub observer_queue: usize,
    /// Largest size of a component.
    pub component_size: Size,
    /// Largest size of compiled code that stays loaded.
    pub loaded_size: Size,
    /// Largest linear memory of a call.
    pub memory: Size,
    /// Fuel of a call.
    pub fuel: u64,
    /// Additional fuel for each byte of a call's arguments.
    pub fuel_per_byte: u64,
    /// Time limit of a call.
    pub deadline: Period,
    /// Largest number of key operations of a call.
    pub key_operations: u32,
    /// Largest number of log lines of a call.
    pub log_lines: u32,
    /// Largest length of a log line.
    pub log_line_length: Size,
    /// Largest number of headers that a call adds.
    pub added_headers: u32,
    /// Number of faults within `fault_window` that leads to quarantine.
    pub fault_threshold: u32,
    /// Period in which faults are counted for `fault_threshold`.
    pub fault_window: Period,
    /// Duration of a quarantine.
    pub quarantine: Period,
    /// Time limit of one compilation.
    pub compile_timeout: Period,
    /// Largest memory of one compilation.
    pub compile_memory: Size,
    /// Program that compiles; if unset, this program.
    #[serde(deserialize_with = "values::unless_empty")]
    pub compiler: Option<PathBuf>,
    /// Directory of compiled components; if unset, next to the database.
    #[serde(deserialize_with = "values::unless_empty")]
    pub cache_dir: Option<PathBuf>,
    /// Largest size of that directory.
    pub cache_size: Size,
    /// Limits of components that need more.
    pub large: LargePolicy,
}

/// `[policy.large]`: other limits for components that contain a language runtime.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LargePolicy {
    /// Largest size of a component.
    pub component_size: Size,
    /// Largest linear memory of a call.
    pub memory: Size,
    /// Largest number of table elements of a call.
    pub table_elements: usize,
    /// Fuel of a call.
    pub fuel: u64,
    /// Time limit of a call.
    pub deadline: Period,
}

/// `[events]`: bounds of the kept events.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Events {
    /// Largest number of events that are kept.
    pub keep: usize,
    /// Largest memory of the kept events.
    pub memory: Size,
    /// Largest number of streams that are open at once.
    pub streams: usize,
}

/// `[tenants.NAME]`: a tenant that exists from the start.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TenantConfig {
    /// Settings that the tenant's groups inherit, in the form of the API's groups; an object.
    #[serde(default = "empty_object")]
    pub defaults: Value,
    /// Quota that the tenant's groups share, in the form of the API; unchanged if unset; an object.
    #[serde(default)]
    pub quota: Option<Value>,
    /// Signers whose plugins the tenant accepts, in the form of the API; unchanged if unset; a list.
    #[serde(default)]
    pub plugin_signers: Option<Value>,
    /// Groups of the tenant, in the form of the API; objects.
    #[serde(default)]
    pub groups: BTreeMap<String, Value>,
    /// Keys of the tenant.
    #[serde(default)]
    pub keys: BTreeMap<String, TenantKey>,
}

fn empty_object() -> Value {
    Value::Object(serde_json::Map::new())
}
