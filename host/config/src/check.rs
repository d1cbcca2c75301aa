//! Checks that the values of a configuration are in range and fit together.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;

use super::checks::Checks;
use super::{Config, TenantConfig, compat};

/// Size of a page of linear memory; no guest runs with less.
const WASM_PAGE: usize = 65_536;
/// Number of digits of a master key.
const MASTER_KEY_DIGITS: usize = 64;
/// Largest number of threads, attempts and similar counts: a larger number is most likely a mistake.
const MANY: usize = 1_000_000;

const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

/// Returns all problems of `config`: the key, and a message for people.
pub(super) fn check(config: &Config) -> Vec<(&'static str, String)> {
    let mut checks = Checks::default();
    server(config, &mut checks);
    secrets(config, &mut checks);
    engine(config, &mut checks);
    delivery(config, &mut checks);
    policy(config, &mut checks);
    config.limits.check(&mut checks);
    events(config, &mut checks);
    config.retention.check(&mut checks);
    groups(config, &mut checks);
    compat::check(config, &mut checks);
    checks.0
}

fn server(config: &Config, checks: &mut Checks) {
    public_url(config, checks);
    let server = &config.server;
    checks.size("server.body_limit", server.body_limit, 1024);
    checks.at_most("server.body_limit", server.body_limit, "limits.bodies", config.limits.bodies);
    checks.between("server.batch_limit", server.batch_limit, 1, MANY);
    checks.size("server.payload_limit", server.payload_limit, 1);
    checks.at_most("server.payload_limit", server.payload_limit, "server.body_limit", server.body_limit);
    checks.period("server.header_read_timeout", server.header_read_timeout, MILLISECOND);
    checks.period("server.request_timeout", server.request_timeout, MILLISECOND);
    checks.between("server.concurrent_requests", server.concurrent_requests, 1, MANY);
    checks.period("server.write_timeout", server.write_timeout, SECOND);
    checks.between("server.connections", server.connections, 1, MANY);
    checks.between("server.connections_per_peer", server.connections_per_peer, 1, MANY);
    checks.period("server.drain_timeout", server.drain_timeout, Duration::ZERO);
    checks.period("server.drain_notice", server.drain_notice, Duration::ZERO);
    server.check(checks);
}

fn public_url(config: &Config, checks: &mut Checks) {
    if let Some(url) = &config.server.public_url {
        let good = ["http", "https"].contains(&url.scheme()) && url.has_host() && url.username().is_empty();
        let message = "a public URL has the scheme `http` or `https` and no user, such as https://carillon.example";
        checks.require(good, "server.public_url", message);
    }
}

fn secrets(config: &Config, checks: &mut Checks) {
    if let Some(listen) = foreign(config).filter(|_| !config.auth.enabled) {
        let message = format!(
            "authentication can be disabled only if every `listen` address is a loopback address, and {listen} is not"
        );
        checks.require(false, "auth.enabled", message);
    }
    config.auth.check(checks);
    if let Err(error) = config.store.place() {
        checks.require(false, "store.url", error.to_string());
    }
    checks.period("store.timeout", config.store.timeout, SECOND);
    let has_key = config.keys.master_key.is_some() || config.keys.master_key_file.is_some();
    let message = "servers that share a PostgreSQL database need the same master key: set keys.master_key or \
                   keys.master_key_file to the same on each (`openssl rand -hex 32` makes one)";
    checks.require(has_key || !config.store.is_shared(), "store.url", message);
    if let Some(key) = &config.keys.master_key {
        let good = key.len() == MASTER_KEY_DIGITS && key.bytes().all(|byte| byte.is_ascii_hexdigit());
        checks.require(
            good,
            "keys.master_key",
            format!("the master key must have {MASTER_KEY_DIGITS} hexadecimal digits"),
        );
        let single = config.keys.master_key_file.is_none();
        checks.require(single, "keys.master_key_file", "keys.master_key is set already: set only one of the two");
    }
}

/// Returns an address that other machines can reach.
fn foreign(config: &Config) -> Option<SocketAddr> {
    let mounts = config.compat.mounts().into_iter().filter_map(|mount| mount.listen);
    mounts
        .chain(config.metrics.listen)
        .chain([config.server.listen])
        .find(|listen| !listen.ip().to_canonical().is_loopback())
}

fn engine(config: &Config, checks: &mut Checks) {
    let engine = &config.engine;
    checks.between("engine.concurrency", engine.concurrency, 1, MANY);
    checks.period("engine.lease", engine.lease, SECOND);
    checks.period("engine.poll", engine.poll, MILLISECOND);
    checks.between("engine.claim_batch", engine.claim_batch, 1, 10_000);
    checks.at_most("server.payload_limit", config.server.payload_limit, "engine.payload_memory", engine.payload_memory);
    checks.period("engine.horizon", engine.horizon, SECOND);
}

fn delivery(config: &Config, checks: &mut Checks) {
    let delivery = &config.delivery;
    checks.period("delivery.resolve_timeout", delivery.resolve_timeout, MILLISECOND);
    checks.period("delivery.connection_age", delivery.connection_age, Duration::ZERO);
    if let Some(proxy) = &delivery.proxy {
        let good = proxy.scheme() == "http" && proxy.has_host();
        checks.require(good, "delivery.proxy", "the proxy must be an `http` URL, such as http://proxy.internal:3128");
    }
    checks.period("delivery.connect_timeout", delivery.connect_timeout, MILLISECOND);
    checks.period("delivery.timeout", delivery.timeout, MILLISECOND);
    checks.at_most("delivery.timeout", delivery.timeout, "delivery.max_timeout", delivery.max_timeout);
    let (record, judge) = (delivery.response_record_limit, delivery.response_judge_limit);
    checks.at_most("delivery.response_record_limit", record, "delivery.response_judge_limit", judge);
    let visible = delivery.user_agent.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic());
    let good = visible && !delivery.user_agent.trim().is_empty();
    checks.require(good, "delivery.user_agent", "the user agent must be visible ASCII characters and spaces");
    checks.period("delivery.breaker_pause", delivery.breaker_pause, MILLISECOND);
    let (pause, longest) = (delivery.breaker_pause, delivery.breaker_longest_pause);
    checks.period("delivery.breaker_longest_pause", longest, MILLISECOND);
    checks.at_most("delivery.breaker_pause", pause, "delivery.breaker_longest_pause", longest);
}

fn policy(config: &Config, checks: &mut Checks) {
    let policy = &config.policy;
    checks.between("policy.threads", policy.threads, 0, 1024);
    checks.between("policy.queue", policy.queue, 1, MANY);
    checks.between("policy.observer_threads", policy.observer_threads, 1, 1024);
    checks.between("policy.observer_queue", policy.observer_queue, 1, MANY);
    checks.size("policy.component_size", policy.component_size, 1024);
    checks.size("policy.loaded_size", policy.loaded_size, 1024);
    checks.size("policy.memory", policy.memory, WASM_PAGE);
    checks.between("policy.fuel", policy.fuel, 1000, u64::MAX);
    checks.period("policy.deadline", policy.deadline, MILLISECOND);
    checks.between("policy.fault_threshold", policy.fault_threshold, 1, u32::MAX);
    checks.period("policy.fault_window", policy.fault_window, MILLISECOND);
    checks.period("policy.quarantine", policy.quarantine, MILLISECOND);
    checks.period("policy.compile_timeout", policy.compile_timeout, SECOND);
    checks.size("policy.cache_size", policy.cache_size, 1024);
    checks.size("policy.compile_memory", policy.compile_memory, 256 << 20);
    checks.size("policy.large.component_size", policy.large.component_size, 1024);
    checks.size("policy.large.memory", policy.large.memory, WASM_PAGE);
    checks.between("policy.large.table_elements", policy.large.table_elements, 1, MANY);
    checks.between("policy.large.fuel", policy.large.fuel, 1000, u64::MAX);
    checks.period("policy.large.deadline", policy.large.deadline, MILLISECOND);
}

fn events(config: &Config, checks: &mut Checks) {
    checks.between("events.keep", config.events.keep, 1, 10 * MANY);
    checks.size("events.memory", config.events.memory, 1 << 16);
    checks.between("events.streams", config.events.streams, 0, MANY);
}

/// Checks the outer form only: the members of a group are checked where groups are bound.
fn groups(config: &Config, checks: &mut Checks) {
    let mut object = |key: &'static str, name: &str, value: &Value| {
        checks.require(value.is_object(), key, format!("`{name}` is not a table"));
    };
    for (name, group) in &config.groups {
        object("groups", name, group);
    }
    for (tenant, TenantConfig { defaults, quota, groups, plugin_signers: _, keys: _ }) in &config.tenants {
        object("tenants", &format!("{tenant}.defaults"), defaults);
        if let Some(quota) = quota {
            object("tenants", &format!("{tenant}.quota"), quota);
        }
        for (name, group) in groups {
            object("tenants", &format!("{tenant}.groups.{name}"), group);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Sources;
    use super::*;

    /// Returns the problems of the defaults with `variables` over them.
    fn refusal(variables: &[(&str, &str)]) -> String {
        let environment = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        match Config::load(Sources { environment, ..Sources::default() }) {
            Ok(_) => String::new(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn authentication_can_be_left_out_on_loopback_only() {
        for (listen, refused) in
            [("127.0.0.1:1", false), ("[::1]:1", false), ("0.0.0.0:1", true), ("[::]:1", true), ("10.0.0.1:1", true)]
        {
            let said = refusal(&[("CARILLON_AUTH__ENABLED", "false"), ("CARILLON_SERVER__LISTEN", listen)]);
            assert_eq!(said.contains("auth.enabled: authentication can be disabled only"), refused, "{listen}: {said}");
            assert_eq!(refusal(&[("CARILLON_SERVER__LISTEN", listen)]), "");
        }
    }

    #[test]
    fn metrics_without_authentication_need_a_loopback_address() {
        let no_auth = ("CARILLON_AUTH__ENABLED", "false");
        let said = refusal(&[no_auth, ("CARILLON_METRICS__LISTEN", "0.0.0.0:9090")]);
        assert!(
            said.contains(
                "auth.enabled: authentication can be disabled only if every `listen` address is a loopback address"
            ),
            "{said}"
        );
        assert_eq!(refusal(&[no_auth, ("CARILLON_METRICS__LISTEN", "127.0.0.1:9090")]), "");
        assert_eq!(refusal(&[("CARILLON_METRICS__LISTEN", "0.0.0.0:9090")]), "");
    }

    #[test]
    fn what_is_out_of_range_is_named_with_the_range() {
        for (name, value, expected) in [
            (
                "CARILLON_SERVER__BATCH_LIMIT",
                "0",
                "server.batch_limit: 0 is out of range: it must be from 1 to 1000000",
            ),
            ("CARILLON_ENGINE__LEASE", "1ms", "engine.lease: 1ms is out of range: it must be from 1s to 36500days"),
            ("CARILLON_POLICY__MEMORY", "1KiB", "policy.memory: 1KiB is too small: it must be at least 64KiB"),
            (
                "CARILLON_SERVER__PAYLOAD_LIMIT",
                "32MiB",
                "server.payload_limit: 32MiB is more than server.body_limit, which is 16MiB",
            ),
            (
                "CARILLON_DELIVERY__TIMEOUT",
                "1h",
                "delivery.timeout: 1h is more than delivery.max_timeout, which is 10m",
            ),
            (
                "CARILLON_DELIVERY__BREAKER_PAUSE",
                "10m",
                "delivery.breaker_pause: 10m is more than delivery.breaker_longest_pause, which is 5m",
            ),
            (
                "CARILLON_DELIVERY__BREAKER_PAUSE",
                "0s",
                "delivery.breaker_pause: 0s is out of range: it must be from 1ms",
            ),
            ("CARILLON_SERVER__PUBLIC_URL", "ftp://a/", "server.public_url: a public URL has the scheme `http`"),
            ("CARILLON_LIMITS__ATTEMPTS", "0", "limits.attempts: 0 is out of range: it must be from 1 to"),
            ("CARILLON_EGRESS__PORTS", "0", "egress.ports: `0` is not a port or a range of ports"),
            ("CARILLON_METRICS__LISTEN", "127.0.0.1:7070", "metrics.listen: 127.0.0.1:7070 is server.listen already"),
            ("CARILLON_AUTH__ADMIN_TOKEN", "1234567890abcdef", "auth.admin_token: the token must be visible ASCII"),
            ("CARILLON_AUTH__MAX_TOKEN_AGE", "0s", "auth.max_token_age: 0s is out of range"),
            ("CARILLON_AUTH__FAILURE_RATE", "0", "auth.failure_rate: 0 is out of range"),
            ("CARILLON_AUTH__FAILURE_BURST", "0", "auth.failure_burst: 0 is out of range"),
            ("CARILLON_KEYS__MASTER_KEY", "abc", "keys.master_key: the master key must have 64"),
            ("CARILLON_STORE__URL", "mysql://x", "store.url: the URL must be sqlite:PATH or postgres://…"),
            ("CARILLON_DELIVERY__USER_AGENT", "a\nb", "delivery.user_agent: the user agent must be visible"),
            ("CARILLON_GROUPS__X", "1", "groups: `x` is not a table"),
        ] {
            let said = refusal(&[(name, value)]);
            assert!(said.contains(expected), "{said}");
            assert!(said.contains(&format!("environment variable {name}")), "{said}");
        }
    }

    #[test]
    fn nodes_that_share_a_database_are_told_their_master_key() {
        let shared = ("CARILLON_STORE__URL", "postgres://x");
        let said = refusal(&[shared]);
        assert!(
            said.contains("store.url: servers that share a PostgreSQL database need the same master key"),
            "{said}"
        );
        assert_eq!(refusal(&[shared, ("CARILLON_KEYS__MASTER_KEY", &"0f".repeat(32))]), "");
    }

    #[test]
    fn all_problems_are_listed_at_once() {
        let said = refusal(&[("CARILLON_SERVER__BATCH_LIMIT", "0"), ("CARILLON_ENGINE__CONCURRENCY", "0")]);
        assert!(said.contains("server.batch_limit") && said.contains("engine.concurrency"), "{said}");
    }
}
