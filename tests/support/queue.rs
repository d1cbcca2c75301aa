//! A group whose jobs consumers fetch.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{Api, ManualClock, Reply, Setup, TestHost};

/// A host with a group `q`, which tries a job three times, and its clock.
pub async fn host() -> (Arc<ManualClock>, TestHost) {
    let clock = ManualClock::new();
    let host = Setup::with_clock(&clock).start().await;
    host.api
        .put_group(
            "q",
            json!({"retry": {"plugin": "backoff", "config": {"kind": "fixed", "base": "10s", "jitter": 0, "max_attempts": 3}}}),
        )
        .await;
    (clock, host)
}

/// Leases jobs of `q`.
pub async fn lease(api: &Api, ask: Value) -> Vec<Value> {
    of_group(api, "q", ask).await
}

/// Leases jobs of a group.
pub async fn of_group(api: &Api, group: &str, ask: Value) -> Vec<Value> {
    api.post(&format!("/v1/groups/{group}/leases"), ask).await.expect(200)["leases"].as_array().unwrap().clone()
}

/// Leases the only job that is available.
pub async fn one(api: &Api) -> Value {
    let leases = lease(api, json!({})).await;
    assert_eq!(leases.len(), 1, "{leases:?}");
    leases[0].clone()
}

fn token(lease: &Value) -> &str {
    lease["token"].as_str().unwrap()
}

/// Reports on a lease.
pub async fn say(api: &Api, lease: &Value, verb: &str, body: Value) -> Reply {
    api.post(&format!("/v1/leases/{}/{verb}", token(lease)), body).await
}

/// How many jobs of `q` are available, leased, and delayed.
pub async fn counts(api: &Api) -> (u64, u64, u64) {
    let stats = api.stats("q").await;
    let count = |name: &str| stats[name].as_u64().unwrap();
    (count("available"), count("in_flight"), count("delayed"))
}
