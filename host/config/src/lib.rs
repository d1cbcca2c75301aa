//! What a node is told before it starts.
//!
//! `config.default.toml`, which is compiled in, says what every key means and what it is by default; the structs here say only
//! what a program needs beyond that. [`Config::load`] puts the sources together and checks the whole: a [`Config`] that exists is
//! complete and makes sense.

mod check;
mod checks;
mod compat;
mod keys;
mod load;
mod values;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Context as _;
use ipnet::IpNet;
use serde::Deserialize;
use serde_json::Value;
use url::Url;

pub use compat::{Compat, Mount, Poussetaches};
pub use keys::{Keys, TenantKey, TenantKeyKind};
pub use load::{ConfigError, ConfigProblem, Flag, Sources};
pub use values::{Period, Size, parse_address};

/// The defaults and their documentation.
pub const DEFAULTS: &str = include_str!("../config.default.toml");

/// Everything that can be configured.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The API.
    pub server: Server,
    /// Who may use it.
    pub auth: Auth,
    /// Where jobs are kept.
    pub store: StoreConfig,
    /// How tenants' keys are kept.
    pub keys: Keys,
    /// How jobs become due.
    pub engine: Engine,
    /// How requests are made.
    pub delivery: Delivery,
    /// Where requests may go.
    pub egress: Egress,
    /// The bounds of policies.
    pub policy: Policy,
    /// What is kept of what happens.
    pub events: Events,
    /// How long finished jobs are kept.
    pub retention: Retention,
    /// The APIs of other schedulers.
    pub compat: Compat,
    /// What every group inherits, in the form of the API's groups. An object.
    pub defaults: Value,
    /// The groups of the default tenant that exist from the start, in the form of the API. Objects.
    pub groups: BTreeMap<String, Value>,
    /// The tenants that exist from the start.
    pub tenants: BTreeMap<String, TenantConfig>,
    /// Where sections came from that users have named, such as `groups.reminders`.
    #[serde(skip)]
    pub(crate) origins: BTreeMap<String, String>,
}

impl Config {
    /// A section that a user has named, with the source that it came from: `carillon.toml: groups.reminders`.
    #[must_use]
    pub fn named(&self, section: &str) -> String {
        self.origins.get(section).map_or_else(|| section.to_owned(), |origin| format!("{origin}: {section}"))
    }
}

/// `[server]`: the API.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Server {
    /// Its address and port.
    #[serde(deserialize_with = "values::address")]
    pub listen: SocketAddr,
    /// What the node is called; none if it is called like its host.
    #[serde(deserialize_with = "values::unless_empty")]
    pub name: Option<String>,
    /// The largest request body.
    pub body_limit: Size,
    /// The most jobs in one batch.
    pub batch_limit: usize,
    /// The largest payload of one job.
    pub payload_limit: Size,
    /// The time for a request's headers.
    pub header_read_timeout: Period,
    /// The time for a request, body and answer included.
    pub request_timeout: Period,
    /// The most requests at once.
    pub concurrent_requests: usize,
    /// The time that running work has after the first signal to stop.
    pub drain_timeout: Period,
    /// How long balancers are told that the server is about to stop before it does.
    pub drain_notice: Period,
}

impl Server {
    /// What the node is called.
    #[must_use]
    pub fn name(&self) -> String {
        self.name.clone().unwrap_or_else(|| hostname::get().unwrap_or_default().to_string_lossy().into_owned())
    }
}

/// `[auth]`: who may use the API.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Auth {
    /// Whether a token is asked for; false only if `server.listen` is a loopback address.
    pub enabled: bool,
    /// The first administrator's token; if there is none, one is made at the first start.
    #[serde(deserialize_with = "values::unless_empty")]
    pub admin_token: Option<String>,
}

impl fmt::Debug for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let admin_token = self.admin_token.as_ref().map(|_| "…");
        f.debug_struct("Auth").field("enabled", &self.enabled).field("admin_token", &admin_token).finish()
    }
}

/// `[store]`: where jobs are kept.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoreConfig {
    /// `sqlite:PATH` or `postgres://…`.
    pub url: String,
    /// What an answered write survives.
    pub durability: Durability,
    /// How long a PostgreSQL database is waited for.
    pub timeout: Period,
}

/// A URL may have a password in it.
impl fmt::Debug for StoreConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = self.url.split(':').next().unwrap_or_default();
        f.debug_struct("StoreConfig")
            .field("url", &format!("{scheme}:…"))
            .field("durability", &self.durability)
            .field("timeout", &self.timeout)
            .finish()
    }
}

/// Where the jobs are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreLocation {
    /// In a file of this machine, for this process alone.
    File(PathBuf),
    /// In a database server that other nodes may use, too.
    Server,
}

impl StoreConfig {
    /// Where the URL points.
    ///
    /// # Errors
    /// If it is not the URL of a store.
    pub fn place(&self) -> anyhow::Result<StoreLocation> {
        if self.is_shared() {
            return Ok(StoreLocation::Server);
        }
        let path = self.url.strip_prefix("sqlite:").context("the URL of a store is sqlite:PATH or postgres://…")?;
        Ok(StoreLocation::File(PathBuf::from(path.trim_start_matches("//"))))
    }

    /// How the store is called in logs: without what may be secret.
    #[must_use]
    pub fn name(&self) -> String {
        if self.is_shared() { "postgres".to_owned() } else { self.url.clone() }
    }

    /// Whether other nodes may use the same database.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        ["postgres://", "postgresql://"].iter().any(|scheme| self.url.starts_with(scheme))
    }
}

/// What an answered write survives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// A loss of power.
    Full,
    /// A crash of the program.
    Normal,
}

/// `[engine]`: how jobs become due.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Engine {
    /// The most attempts at once.
    pub concurrency: usize,
    /// The length of a lease.
    pub lease: Period,
    /// The longest time between two looks at the store.
    pub poll: Period,
    /// The most jobs in one claim.
    pub claim_batch: u32,
    /// The most bytes of payloads of all attempts that run at once.
    pub payload_memory: Size,
    /// How far ahead a job can be scheduled.
    pub horizon: Period,
}

/// `[delivery]`: how requests are made.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Delivery {
    /// The time for a name's addresses.
    pub resolve_timeout: Period,
    /// The name servers that are asked; those of the system if there are none.
    #[serde(deserialize_with = "values::name_servers")]
    pub name_servers: Vec<SocketAddr>,
    /// The time for a connection, TLS included.
    pub connect_timeout: Period,
    /// The age at which a connection is not used for another request.
    pub connection_age: Period,
    /// The proxy through which every connection goes, if there is one.
    #[serde(deserialize_with = "values::read_unless_empty")]
    pub proxy: Option<Url>,
    /// A file of certificate authorities that are trusted besides the system's.
    #[serde(deserialize_with = "values::unless_empty")]
    pub ca_file: Option<PathBuf>,
    /// The time for a request, answer body included, unless the job or its group says otherwise.
    pub timeout: Period,
    /// The most that they may ask for.
    pub max_timeout: Period,
    /// Bytes of an answer's body that the judge sees.
    pub response_judge_limit: Size,
    /// Bytes of an answer's body that are kept.
    pub response_record_limit: Size,
    /// Bytes of an answer's headers that the judge sees and that are kept.
    pub response_header_limit: Size,
    /// The `User-Agent` of a delivery that has none.
    pub user_agent: String,
    /// The failures in a row after which a receiver is left alone; 0 is never.
    pub breaker_failures: u32,
    /// For how long at first.
    pub breaker_pause: Period,
    /// For how long at most.
    pub breaker_longest_pause: Period,
}

/// `[egress]`: where requests may go.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Egress {
    /// Special networks that are allowed all the same.
    #[serde(deserialize_with = "values::networks")]
    pub allow: Vec<IpNet>,
    /// Networks that are always refused.
    #[serde(deserialize_with = "values::networks")]
    pub deny: Vec<IpNet>,
}

/// `[policy]`: the bounds of policies.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// Threads that run policies; 0 is one per core.
    pub threads: usize,
    /// The most calls that wait for a thread.
    pub queue: usize,
    /// Threads that run observers.
    pub observer_threads: usize,
    /// The most events that wait to be shown to observers.
    pub observer_queue: usize,
    /// The largest component.
    pub component_size: Size,
    /// Compiled code that stays loaded.
    pub loaded_size: Size,
    /// Linear memory of a call.
    pub memory: Size,
    /// Fuel of a call.
    pub fuel: u64,
    /// Further fuel for each byte of its arguments.
    pub fuel_per_byte: u64,
    /// The time of a call.
    pub deadline: Period,
    /// The most key operations of a call.
    pub key_operations: u32,
    /// The most log lines of a call.
    pub log_lines: u32,
    /// The longest of them.
    pub log_line_length: Size,
    /// The most headers that a call adds.
    pub added_headers: u32,
    /// Faults within `fault_window` that lead to quarantine.
    pub fault_threshold: u32,
    /// See `fault_threshold`.
    pub fault_window: Period,
    /// How long a quarantine lasts.
    pub quarantine: Period,
    /// The time for one compilation.
    pub compile_timeout: Period,
    /// The memory of one compilation.
    pub compile_memory: Size,
    /// The program that compiles; if unset, this one.
    #[serde(deserialize_with = "values::unless_empty")]
    pub compiler: Option<PathBuf>,
    /// Where compiled components are kept; if unset, next to the database.
    #[serde(deserialize_with = "values::unless_empty")]
    pub cache_dir: Option<PathBuf>,
    /// The most that is kept there.
    pub cache_size: Size,
    /// Components that need more.
    pub large: LargePolicy,
}

/// `[policy.large]`: what is different for components that bring a runtime along.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LargePolicy {
    /// The largest component.
    pub component_size: Size,
    /// Linear memory of a call.
    pub memory: Size,
    /// Table elements of a call.
    pub table_elements: usize,
    /// Fuel of a call.
    pub fuel: u64,
    /// The time of a call.
    pub deadline: Period,
}

/// `[events]`: what is kept of what happens.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Events {
    /// The most events that are kept.
    pub keep: usize,
    /// The most memory that they take.
    pub memory: Size,
    /// The most streams that are open at once.
    pub streams: usize,
}

/// `[retention]`: how long finished jobs are kept.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Retention {
    /// After success.
    pub succeeded: Period,
    /// As a dead letter.
    pub dead: Period,
    /// After the deadline.
    pub expired: Period,
    /// After it was cancelled.
    pub cancelled: Period,
    /// How often the rest is removed.
    pub sweep_interval: Period,
}

/// `[tenants.NAME]`: a tenant that exists from the start.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TenantConfig {
    /// What the tenant's groups inherit, in the form of the API's groups. An object.
    #[serde(default = "empty_object")]
    pub defaults: Value,
    /// What its groups may use together, in the form of the API; as it is, if it is not said. An object.
    #[serde(default)]
    pub quota: Option<Value>,
    /// Whose plugins it takes, in the form of the API; as it is, if it is not said. A list.
    #[serde(default)]
    pub plugin_signers: Option<Value>,
    /// The tenant's groups, in the form of the API. Objects.
    #[serde(default)]
    pub groups: BTreeMap<String, Value>,
    /// The tenant's keys.
    #[serde(default)]
    pub keys: BTreeMap<String, TenantKey>,
}

fn empty_object() -> Value {
    Value::Object(serde_json::Map::new())
}
