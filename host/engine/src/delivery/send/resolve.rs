//! Resolver: addresses of receivers' names.
//!
//! Literals and the names of the hosts file are resolved at once. Every other name takes a permit of its group, of its tenant and of the node
//! until the look-up has really ended, even after its attempt has timed out: look-ups without a response delay only others of their
//! group and tenant.
//! `/etc/hosts` and `/etc/resolv.conf` are read again when they have changed.
//!
//! Not: the check of addresses. The caller passes them to the egress guard.

use std::collections::HashMap;
use std::fs::Metadata;
use std::hash::Hash;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use hickory_resolver::config::{
    ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts,
};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::op::Query;
use hickory_resolver::proto::rr::{Name, RecordType};
use hickory_resolver::{Hosts, TokioResolver, system_conf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::failure::Failure;
use carillon_core::clock::{Stopwatch, deadline_after};
use carillon_core::error_code::TransportError;
use carillon_core::exhaustion::Exhausted;
use carillon_core::job::{GroupId, TenantId};

const HOSTS: &str = "/etc/hosts";
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// Period in which the two files are checked for changes.
const CHECK_FILES: Duration = Duration::from_secs(1);

/// Sockets that one look-up may have at once: IPv4 and IPv6, from two name servers each.
const SOCKETS: usize = 4;

/// Divide the node's look-ups: the shares of one tenant and of one group, and the smallest sizes of these shares.
const TENANT_DIVISOR: usize = 4;
const GROUP_DIVISOR: usize = 16;
const MIN_LOOKUPS_OF_TENANT: usize = 8;
const MIN_LOOKUPS_OF_GROUP: usize = 4;

/// Number of queries to a name server.
const TRIES: u32 = 2;

/// Longest times for which the resolver caches that a name is missing, which may change soon, and the addresses of a name, which may move.
const MAX_NEGATIVE_TTL: Duration = Duration::from_secs(5);
const MAX_POSITIVE_TTL: Duration = Duration::from_secs(300);

/// The tenant and the group that a request is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Requester {
    /// The tenant.
    pub tenant: TenantId,
    /// One of its groups.
    pub group: GroupId,
}

/// Resolves names.
pub(super) struct Resolver {
    name_servers: Vec<SocketAddr>,
    timeout: Duration,
    system: Mutex<Current>,
    node: Arc<Semaphore>,
    tenants: Shares<TenantId>,
    groups: Shares<Requester>,
}

/// Content of the system's files when they were last read.
struct System {
    hosts: Hosts,
    resolver: TokioResolver,
}

/// A file and its last change: inode, seconds and nanoseconds.
type ChangeOutcome = (u64, i64, i64);

struct Current {
    system: Arc<System>,
    /// Time of the files' last change.
    changed: [Option<ChangeOutcome>; 2],
    checked: Stopwatch,
}

impl Resolver {
    /// Creates a resolver that asks `name_servers`, or those of the system if there are none, on at most `sockets` sockets at once.
    ///
    /// # Errors
    /// Returns the reason for which the resolver cannot be set up.
    pub(super) fn new(name_servers: Vec<SocketAddr>, timeout: Duration, sockets: usize) -> Result<Self, NetError> {
        let lookups = (sockets / SOCKETS).max(1);
        let system = Arc::new(System::read(&name_servers, timeout)?);
        let current = Current { system, changed: changed(), checked: Stopwatch::start() };
        Ok(Self {
            name_servers,
            timeout,
            system: Mutex::new(current),
            node: Arc::new(Semaphore::new(lookups)),
            tenants: Shares::new((lookups / TENANT_DIVISOR).max(MIN_LOOKUPS_OF_TENANT)),
            groups: Shares::new((lookups / GROUP_DIVISOR).max(MIN_LOOKUPS_OF_GROUP)),
        })
    }

    /// Returns the addresses of `name`, of which there is at least one.
    pub(super) async fn resolve(&self, requester: Requester, name: &str) -> Result<Vec<IpAddr>, Failure> {
        let failed =
            |reason: String| Failure::new(TransportError::Dns, format!("the name `{name}` does not resolve: {reason}"));
        if let Ok(address) = name.parse() {
            return Ok(vec![address]);
        }
        let parsed = Name::from_utf8(name).map_err(|error| failed(error.to_string()))?;
        let system = self.current();
        let known = system.hosts_file(&parsed);
        if !known.is_empty() {
            return Ok(known);
        }
        let deadline = deadline_after(self.timeout);
        let permits = tokio::time::timeout_at(deadline, self.permits(requester)).await;
        let permits = permits.map_err(|_| Failure::Exhausted(Exhausted::Lookups))?;
        let lookup = tokio::spawn(async move {
            let found = system.resolver.lookup_ip(parsed).await;
            drop(permits);
            found
        });
        let found = match tokio::time::timeout_at(deadline, lookup).await {
            Ok(Ok(Ok(found))) => found,
            Ok(Ok(Err(error))) => return Err(failure_of(&error).unwrap_or_else(|| failed(error.to_string()))),
            Ok(Err(error)) => return Err(failed(error.to_string())),
            Err(_) => return Err(failed(format!("no name server answered within {:?}", self.timeout))),
        };
        let addresses: Vec<_> = found.iter().collect();
        if addresses.is_empty() { Err(failed("it has no addresses".to_owned())) } else { Ok(addresses) }
    }

    /// Waits for the permits of one look-up: the group's first, so that a waiting look-up takes nothing from others.
    async fn permits(&self, requester: Requester) -> [Option<OwnedSemaphorePermit>; 3] {
        // No semaphore is ever closed.
        let group = self.groups.get(requester).acquire_owned().await.ok();
        let tenant = self.tenants.get(requester.tenant).acquire_owned().await.ok();
        [group, tenant, Arc::clone(&self.node).acquire_owned().await.ok()]
    }

    fn current(&self) -> Arc<System> {
        let mut current = self.system.lock().unwrap_or_else(PoisonError::into_inner);
        if current.checked.elapsed() >= CHECK_FILES {
            current.checked = Stopwatch::start();
            let changed = changed();
            if changed != current.changed {
                match System::read(&self.name_servers, self.timeout) {
                    Ok(system) => current.system = Arc::new(system),
                    Err(error) => tracing::warn!(%error, "rereading the name server configuration failed"),
                }
                current.changed = changed;
            }
        }
        Arc::clone(&current.system)
    }
}

impl System {
    fn read(name_servers: &[SocketAddr], timeout: Duration) -> Result<Self, NetError> {
        let (config, mut options) = match name_servers {
            [] => system_conf::read_system_conf().unwrap_or_else(|error| {
                tracing::debug!(%error, file = RESOLV_CONF, "no name server configured; using the one on this machine");
                // The C library does the same.
                (asking(&[SocketAddr::from(([127, 0, 0, 1], 53))]), ResolverOpts::default())
            }),
            servers => (asking(servers), ResolverOpts::default()),
        };
        options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
        options.use_hosts_file = ResolveHosts::Never;
        options.attempts = 1;
        // Every query has ended by the time at which its attempt times out.
        options.timeout = options.timeout.min(timeout / TRIES).max(Duration::from_millis(1));
        options.negative_max_ttl = Some(MAX_NEGATIVE_TTL);
        options.positive_max_ttl = Some(MAX_POSITIVE_TTL);
        let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        *builder.options_mut() = options;
        Ok(Self { hosts: Hosts::from_system().unwrap_or_default(), resolver: builder.build()? })
    }

    /// Returns the addresses that the hosts file has for a name.
    fn hosts_file(&self, name: &Name) -> Vec<IpAddr> {
        let name = name.to_lowercase();
        let found = [RecordType::A, RecordType::AAAA].into_iter().filter_map(|kind| {
            let lookup = self.hosts.lookup_static_host(&Query::query(name.clone(), kind))?;
            Some(lookup.answers().iter().filter_map(|record| record.data.ip_addr()).collect::<Vec<_>>())
        });
        found.flatten().collect()
    }
}

fn asking(servers: &[SocketAddr]) -> ResolverConfig {
    let server = |address: &SocketAddr| {
        let at = |mut connection: ConnectionConfig| {
            connection.port = address.port();
            connection
        };
        NameServerConfig::new(address.ip(), true, vec![at(ConnectionConfig::udp()), at(ConnectionConfig::tcp())])
    };
    ResolverConfig::from_parts(None, Vec::new(), servers.iter().map(server).collect())
}

/// Returns when the two files were last changed.
fn changed() -> [Option<ChangeOutcome>; 2] {
    let of = |metadata: Metadata| (metadata.ino(), metadata.mtime(), metadata.mtime_nsec());
    [HOSTS, RESOLV_CONF].map(|path| Path::new(path).metadata().map(of).ok())
}

/// Returns the server's own exhaustion, if that is the resolver's error.
fn failure_of(error: &NetError) -> Option<Failure> {
    let exhausted = match error {
        NetError::Busy => Some(Exhausted::Lookups),
        NetError::Io(error) => Exhausted::find(error.as_ref()),
        error => Exhausted::find(error),
    };
    exhausted.map(Failure::Exhausted)
}

/// A semaphore for each key, as long as one of its permits is taken or waited for.
struct Shares<K> {
    permits: usize,
    semaphores: Mutex<HashMap<K, Weak<Semaphore>>>,
}

/// Number of shares above which unused ones are removed.
const MAX_UNUSED_SHARES: usize = 1_024;

impl<K: Eq + Hash> Shares<K> {
    fn new(permits: usize) -> Self {
        Self { permits, semaphores: Mutex::default() }
    }

    fn get(&self, key: K) -> Arc<Semaphore> {
        let mut semaphores = self.semaphores.lock().unwrap_or_else(PoisonError::into_inner);
        if semaphores.len() >= MAX_UNUSED_SHARES {
            semaphores.retain(|_, semaphore| semaphore.strong_count() > 0);
        }
        let known = semaphores.get(&key).and_then(Weak::upgrade);
        known.unwrap_or_else(|| {
            let new = Arc::new(Semaphore::new(self.permits));
            semaphores.insert(key, Arc::downgrade(&new));
            new
        })
    }
}
