//! What a delivery may cost, in numbers that are the same on every machine: a change that makes it dearer is seen here, and not on a clock.

use std::time::Duration;

use carillon_core::clock::Clock as _;
use serde_json::{Value, json};

use crate::support::{Answer, ManualClock, Receiver, Setup, TestHost};

/// What a call of each default plugin may use in fuel, about an instruction each, where the benchmark's job is delivered: a tenth more than
/// it does.
const FUEL: [(&str, u64); 4] =
    [("base64-envelope", 15_600), ("werkzeug-cookie", 32_000), ("expected-status", 7_000), ("backoff", 9_600)];

/// How many jobs a transaction settles, leases or inserts at least, on average, where many run at once.
const JOBS_PER_COMMIT: u64 = 4;

/// The benchmark's policy: every default plugin that a delivery calls.
fn policy() -> Value {
    json!({
        "encode": [{"plugin": "base64-envelope"}],
        "sign": {"plugin": "werkzeug-cookie", "keys": ["k"]},
        "judge": {"plugin": "expected-status"},
        "retry": {"plugin": "backoff", "config": {"kind": "exponential", "base": "1ms", "max_attempts": 5, "jitter": 0.2}},
        "limits": {"concurrency": 512},
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_default_plugins_take_no_more_instructions_than_they_did() {
    let (host, receiver) = (TestHost::start().await, Receiver::start().await);
    host.api.put("/v1/keys/k", json!({"secret": "correct horse battery staple"})).await.expect(204);
    host.api.put_group("bench", policy()).await;
    receiver.on("/", [Answer::status(503), Answer::status(200)]);
    let id = host.api.job_id("bench", json!({"url": receiver.url("/"), "payload_text": "x".repeat(256)})).await;
    host.api.until_state(&id, "succeeded").await;
    let attempts = host.api.attempts(&id).await;
    let uses: Vec<&Value> = attempts[0]["plugins"].as_array().unwrap().iter().collect();
    let used = |name| {
        let used = uses.iter().find(|used| used["plugin"] == name).unwrap_or_else(|| panic!("{name} was not called"));
        used["fuel"].as_u64().unwrap()
    };
    let taken = FUEL.map(|(name, most)| (name, used(name), most));
    assert!(taken.iter().all(|(_, used, most)| used <= most), "more than is expected: {taken:?}");
    assert!(taken.iter().all(|(_, used, most)| used * 4 >= most * 3), "less: let the bounds follow: {taken:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_deliveries_share_their_transactions() {
    const JOBS: u64 = 2_000;
    let (host, receiver) = (TestHost::start().await, Receiver::start().await);
    host.api.put_group("many", json!({"limits": {"concurrency": 256}})).await;
    let before = counter(&host, "store_commits").await;
    let job = json!({"url": receiver.url("/"), "payload": 1});
    host.api.post("/v1/groups/many/jobs/batch", json!({"jobs": vec![job; JOBS as usize]})).await.expect(201);
    receiver.arrived("/", JOBS as usize).await;
    host.api.until_succeeded("many", JOBS as usize).await;
    let commits = counter(&host, "store_commits").await - before;
    assert!(commits * JOBS_PER_COMMIT <= JOBS, "{commits} transactions for {JOBS} jobs");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_of_a_moment_share_their_claim_and_leave_places_free() {
    const TIMES: [u64; 6] = [1_000, 1_020, 1_040, 1_060, 1_080, 1_200];
    let (clock, receiver) = (ManualClock::new(), Receiver::start().await);
    let host = Setup::with_clock(&clock).start().await;
    let start = clock.now();
    host.api.put_group("g", json!({"limits": {"concurrency": 10}})).await;
    let job = |at: &u64| json!({"url": receiver.url("/timed"), "run_at": format!("+{at}ms")});
    let jobs: Vec<Value> = TIMES.iter().map(job).collect();
    host.api.post("/v1/groups/g/jobs/batch", json!({"jobs": jobs})).await.expect(201);
    clock.set(start.plus(Duration::from_millis(995)));
    host.api.until_stats("g", "the jobs are claimed", |stats| stats["running"] != 0).await;
    assert_eq!(host.api.stats("g").await["running"], 5, "what is due in the next tenth of a second");
    assert_eq!((counter(&host, "claims").await, receiver.count("/timed")), (1, 0));

    // Half of the places are free for what is due at once.
    host.api.job_id("g", json!({"url": receiver.url("/now")})).await;
    receiver.arrived("/now", 1).await;
    assert_eq!(receiver.count("/timed"), 0, "none before its time");
    clock.set(start.plus(Duration::from_millis(1_080)));
    receiver.arrived("/timed", 5).await;
}

/// The value of the counter `carillon_{name}_total`.
async fn counter(host: &TestHost, name: &str) -> u64 {
    let metrics = host.api.get("/metrics").await;
    let prefix = format!("carillon_{name}_total ");
    let value = metrics.text().lines().find_map(|line| line.strip_prefix(&prefix)?.parse().ok());
    value.unwrap_or_else(|| panic!("{}", metrics.text()))
}
