//! Shadows: a version of a policy beside the one in force, on the attempts that are made; what it says is counted and never used.

use std::time::Duration;

use carillon_core::clock::Clock as _;
use serde_json::{Value, json};

use crate::support::{Answer, Api, ManualClock, Receiver, Setup, TestHost, ms};

const VERSIONS: &str = "/v1/groups/g/policy/versions";
const SHADOW: &str = "/v1/groups/g/policy/shadow";

/// The shadow, when it has been shown so many attempts.
async fn shown(api: &Api, attempts: u64) -> Value {
    api.until_shown(SHADOW, |shadow| shadow["attempts"].as_u64().unwrap() >= attempts).await
}

async fn propose(api: &Api, policy: Value) -> i64 {
    api.post(VERSIONS, policy).await.expect(201)["version"].as_i64().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shadow_that_says_the_same_is_the_same() {
    let (host, receiver) = (TestHost::start().await, Receiver::start().await);
    receiver.on("/a", [Answer::status(503), Answer::status(200)]);
    host.api.put("/v1/keys/k", json!({"secret": "s"})).await.expect(204);
    let policy = json!({"sign": {"plugin": "werkzeug-cookie", "keys": ["k"]}, "retry": {"config": {"base": "1ms", "jitter": 0.5}}});
    host.api.put_group("g", policy.clone()).await;
    propose(&host.api, policy).await;
    host.api.get(SHADOW).await.problem(404);
    let set = host.api.put(SHADOW, json!({"version": 2})).await.expect(200);
    assert_eq!(
        (&set["percent"], &set["attempts"], &set["by"]),
        (&json!(100), &json!(0), &json!({"token": "configuration", "name": "first administrator"}))
    );
    let id = host.api.job_id("g", json!({"url": receiver.url("/a"), "payload": {"a": 1}})).await;
    host.api.until_state(&id, "succeeded").await;
    let shadow = shown(&host.api, 2).await;
    assert_eq!(
        (&shadow["same"], &shadow["differences"], &shadow["faults"]),
        (&json!(2), &json!([]), &json!({})),
        "{shadow}"
    );
    assert_eq!(shadow["fuel"], shadow["shadow_fuel"], "the same code on the same input");
    assert!(shadow["fuel"].as_u64().unwrap() > 0);

    let metrics = host.api.get("/metrics").await;
    assert!(metrics.text().contains("carillon_shadow_attempts_total{outcome=\"same\"} 2"), "{}", metrics.text());
    host.api.delete(SHADOW).await.expect(204);
    host.api.delete(SHADOW).await.problem(404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn differences_are_counted_by_what_is_different_and_nothing_else_happens() {
    let clock = ManualClock::new();
    let (host, receiver) = (Setup::with_clock(&clock).start().await, Receiver::with_clock(clock.clone()).await);
    receiver.on("/a", [Answer::status(503)]);
    let mut events = host.api.follow("?kind=shadow_difference").await;
    host.api.put_group("g", json!({"retry": {"config": {"base": "10s", "jitter": 0}}})).await;
    let retried = json!({"retry": {"config": {"base": "20s", "jitter": 0}}});
    let encoded = json!({"encode": [{"plugin": "base64-envelope"}], "retry": {"config": {"base": "10s", "jitter": 0}}});
    let judged = json!({"judge": {"config": {"expect": [503]}}});
    for (policy, parts, counts) in [
        (retried, "retry", json!({"request": 0, "judge": 0, "retry": 1})),
        (encoded, "request", json!({"request": 1, "judge": 0, "retry": 0})),
        (judged, "judge, retry", json!({"request": 0, "judge": 1, "retry": 1})),
    ] {
        let version = propose(&host.api, policy).await;
        host.api.put(SHADOW, json!({"version": version})).await.expect(200);
        let id = host.api.job_id("g", json!({"url": receiver.url("/a")})).await;
        let job = host.api.until_retry(&id, 1).await;
        assert_eq!(ms(&job["run_at"]), clock.now().plus(Duration::from_secs(10)), "it goes by the version in force");
        let shadow = shown(&host.api, 1).await;
        assert_eq!(
            (&shadow["attempts"], &shadow["same"], &shadow["different"]),
            (&json!(1), &json!(0), &counts),
            "{shadow}"
        );
        let difference = &shadow["differences"][0];
        assert_eq!((&difference["job"], &difference["different"]), (&json!(id), &json!(parts)));
        let attempt = &host.api.attempts(&id).await[0];
        assert_eq!(attempt["binding_version"], 1);
        assert_eq!(difference["said"]["request_digest"], attempt["request_digest"]);
        assert_eq!(difference["said"]["after_ms"], 10_000);
        let event = &events.take(1).await[0];
        assert_eq!((&event["job"], &event["binding"], &event["reason"]), (&json!(id), &json!(version), &json!(parts)));
        host.api.delete(&format!("/v1/jobs/{id}")).await.expect(200);
    }
    assert_eq!(receiver.count("/a"), 3, "a shadow sends nothing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shadow_with_a_fault_harms_nobody() {
    let (host, receiver) = (TestHost::start().await, Receiver::start().await);
    host.api.put("/v1/keys/k", json!({"secret": "s"})).await.expect(204);
    host.api.put_group("g", json!({})).await;
    propose(&host.api, json!({"sign": {"plugin": "werkzeug-cookie", "keys": ["k"]}})).await;
    host.api.put(SHADOW, json!({"version": 2})).await.expect(200);
    // Another kind of key than it can sign with.
    host.api.put("/v1/keys/k", json!({"secret": "x".repeat(32), "kind": "ed25519"})).await.expect(204);
    for path in ["/a", "/b", "/c", "/d", "/e"] {
        let id = host.api.job_id("g", json!({"url": receiver.url(path)})).await;
        host.api.until_state(&id, "succeeded").await;
    }
    let shadow = shown(&host.api, 5).await;
    assert_eq!((&shadow["faults"], &shadow["same"]), (&json!({"policy.declared": 5}), &json!(0)), "{shadow}");
    assert_eq!(
        (&shadow["differences"][0]["shadow"]["request_digest"], &shadow["differences"][0]["faults"][0]),
        (&Value::Null, &json!("policy.declared"))
    );
    assert_eq!(host.api.get("/v1/groups/g").await.expect(200)["quarantined"], json!([]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shadow_is_checked_kept_and_ends_with_its_promotion() {
    let (host, receiver) = (TestHost::start().await, Receiver::start().await);
    host.api.put_group("g", json!({})).await;
    propose(&host.api, json!({"judge": {"config": {"expect": [200]}}})).await;
    for (body, pointer) in [
        (json!({"version": 3}), "/version"),
        (json!({"version": 2, "percent": 0}), "/percent"),
        (json!({"version": 2, "percent": 101}), "/percent"),
    ] {
        host.api.put(SHADOW, body).await.problem_at(422, pointer);
    }
    host.api.put(SHADOW, json!({"version": 2, "percent": 0.5})).await.problem_at(400, "/percent");
    host.api.put(SHADOW, json!({"version": 1})).await.problem(409);
    host.api.put(SHADOW, json!({"version": 2, "percent": 50})).await.expect(200);
    for n in 0..40 {
        let id = host.api.job_id("g", json!({"url": receiver.url(&format!("/{n}"))})).await;
        host.api.until_state(&id, "succeeded").await;
    }
    let shadow = shown(&host.api, 5).await;
    assert!(shadow["attempts"].as_u64().unwrap() <= 35, "half of them, about: {shadow}");

    let dir = host.dir.clone();
    host.stop().await;
    let host = Setup::new().in_dir(&dir).start().await;
    assert_eq!(host.api.get(SHADOW).await.expect(200)["percent"], 50, "it goes on");
    host.api.post("/v1/groups/g/policy/promote", json!({"version": 2})).await.expect(200);
    host.api.get(SHADOW).await.problem(404);
}
