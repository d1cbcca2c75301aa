//! What fails is tried again at the times that were foretold, and ends as a dead letter with everything on record.

use std::time::Duration;

use carillon_core::clock::{Clock as _, UnixMs};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::support::{Answer, Arrival, ManualClock, Receiver, Setup, TestHost, ms};

/// Bytes of a response body that are kept.
const RECORDED: usize = 4096;

/// The headers of the connection, which are no part of the digest.
const OF_THE_CONNECTION: [&str; 2] = ["host", "content-length"];

/// Jitter makes sure that the times are not round.
fn jittery() -> Value {
    json!({
        "encode": [{"plugin": "base64-envelope"}],
        "retry": {"plugin": "backoff", "config": {"kind": "exponential", "base": "90s", "max": "6h", "jitter": 0.5, "max_attempts": 4}},
    })
}

/// The digest of a request as its receiver sees it.
fn digest_of(url: &str, arrival: &Arrival) -> String {
    let mut hasher = Sha256::new();
    let mut part = |bytes: &[u8]| {
        hasher.update(u64::try_from(bytes.len()).unwrap().to_be_bytes());
        hasher.update(bytes);
    };
    part(arrival.method.as_bytes());
    part(url.as_bytes());
    for (name, value) in arrival.headers.iter().filter(|(name, _)| !OF_THE_CONNECTION.contains(&name.as_str())) {
        part(name.as_bytes());
        part(value);
    }
    part(&arrival.body);
    hex::encode(hasher.finalize())
}

/// The times at which `simulate` says that a job will be tried, when the first attempts fail.
async fn foretold(host: &TestHost, job: &Value, posted: &Value, failures: usize) -> Vec<UnixMs> {
    let mut responses = vec![json!({"status": 500}); failures];
    responses.push(json!({"status": 200}));
    let trial = json!({"job": job, "seed": posted["seed"], "now": posted["created_at"], "responses": responses});
    let simulation = host.api.post("/v1/groups/g/policy/simulate", trial).await.expect(200);
    simulation["attempts"].as_array().unwrap().iter().map(|attempt| ms(&attempt["run_at"])).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retries_come_at_exactly_the_times_that_simulate_foretold() {
    let clock = ManualClock::new();
    let host = Setup::with_clock(&clock).start().await;
    let receiver = Receiver::with_clock(clock.clone()).await;
    receiver.on("/flaky", [Answer::status(503), Answer::status(500), Answer::status(200)]);
    host.api.put_group("g", jittery()).await;
    let job = json!({"url": receiver.url("/flaky"), "payload": {"n": 1}, "run_at": "+1h"});
    let posted = host.api.post_job("g", job.clone()).await;
    let id = posted["id"].as_str().unwrap();
    let times = foretold(&host, &job, &posted, 2).await;
    assert_eq!((times.len(), times[0]), (3, ms(&posted["run_at"])));
    assert!(times[2].since(times[1]) != Duration::from_secs(180), "there is jitter: {times:?}");

    for (spent, at) in (0..).zip(&times) {
        host.api.until_retry(id, spent).await;
        clock.set(UnixMs(at.0 - 1));
        host.looked(&receiver).await;
        assert_eq!(receiver.count("/flaky"), usize::try_from(spent).unwrap(), "a millisecond early");
        clock.set(*at);
        receiver.arrived("/flaky", usize::try_from(spent).unwrap() + 1).await;
    }
    let done = host.api.until_state(id, "succeeded").await;
    assert_eq!((&done["attempt_count"], &done["last_status"]), (&json!(3), &json!(200)));

    let arrivals = receiver.arrivals("/flaky");
    assert_eq!(arrivals.iter().map(|arrival| arrival.at).collect::<Vec<_>>(), times);
    for (number, arrival) in (1..).zip(&arrivals) {
        assert_eq!(arrival.header("idempotency-key"), Some(id), "the same with every attempt");
        assert_eq!(arrival.header("carillon-attempt"), Some(number.to_string().as_str()));
        let envelope: Value = serde_json::from_slice(&arrival.body).unwrap();
        assert_eq!(envelope["tries"], number, "the encoder runs for each attempt");
    }
    let attempts = host.api.attempts(id).await;
    assert_eq!(attempts.iter().map(|attempt| ms(&attempt["started_at"])).collect::<Vec<_>>(), times);
    clock.advance(Duration::from_secs(86_400));
    host.looked(&receiver).await;
    assert_eq!(receiver.count("/flaky"), 3, "a success is the end");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_always_fails_is_a_dead_letter_with_every_attempt_on_record() {
    let clock = ManualClock::new();
    let host = Setup::with_clock(&clock).start().await;
    let receiver = Receiver::with_clock(clock.clone()).await;
    let long = "0123456789".repeat(500);
    receiver.on("/broken", [Answer::body(500, long.clone()).header("x-why", "because")]);
    host.api.put_group("g", jittery()).await;
    let url = receiver.url("/broken");
    let posted =
        host.api.post_job("g", json!({"url": url, "payload": {"n": 1}, "headers": {"X-B": "2", "X-A": "1"}})).await;
    let id = posted["id"].as_str().unwrap();
    let mut next = ms(&posted["run_at"]);
    for number in 1..=4 {
        clock.set(next);
        receiver.arrived("/broken", number).await;
        let job =
            host.api.until(id, "was tried", |job| job["attempt_count"] == number && job["state"] != "running").await;
        next = ms(&job["run_at"]);
    }
    let dead = host.api.job(id).await;
    assert_eq!((&dead["state"], &dead["last_status"]), (&json!("dead"), &json!(500)));
    assert_eq!(ms(&dead["finished_at"]), clock.now());

    let attempts = host.api.attempts(id).await;
    assert_eq!(attempts.len(), 4);
    for (index, (attempt, arrival)) in attempts.iter().zip(receiver.arrivals("/broken")).enumerate() {
        assert_eq!((&attempt["number"], &attempt["spent"]), (&json!(index + 1), &json!(true)));
        assert_eq!(ms(&attempt["started_at"]), arrival.at);
        assert_eq!(attempt["request_digest"], digest_of(&url, &arrival), "{arrival:?}");
        assert_eq!(attempt["status"], 500);
        assert_eq!(attempt["response_body"], long[..RECORDED]);
        assert_eq!(attempt["response_truncated"], true);
        assert!(
            attempt["response_headers"].as_array().unwrap().contains(&json!({"name": "x-why", "value": "because"}))
        );
        assert_eq!(attempt["verdict"]["outcome"], "retryable");
        assert!(attempt["verdict"]["reason"].as_str().unwrap().contains("500"), "{attempt}");
        let decision = &attempt["decision"];
        assert!(!decision["reason"].as_str().unwrap().is_empty());
        match attempts.get(index + 1) {
            Some(following) => {
                assert_eq!(
                    (&decision["state"], &decision["next_run_at"]),
                    (&json!("scheduled"), &following["started_at"])
                );
            }
            None => assert_eq!((&decision["state"], &decision["next_run_at"]), (&json!("dead"), &Value::Null)),
        }
        uses_are_recorded(&host, attempt).await;
        for stage in ["prepare", "exchange", "decide"] {
            assert!(attempt["timings"][stage].as_u64().is_some_and(|micros| micros > 0), "{stage}: {attempt}");
        }
    }
}

async fn uses_are_recorded(host: &TestHost, attempt: &Value) {
    let uses = attempt["plugins"].as_array().unwrap();
    let played: Vec<_> =
        uses.iter().map(|used| (used["role"].as_str().unwrap(), used["plugin"].as_str().unwrap())).collect();
    assert_eq!(played, [("encode", "base64-envelope"), ("judge", "expected-status"), ("retry", "backoff")]);
    for used in uses {
        let plugin = host.api.get(&format!("/v1/plugins/{}", used["plugin"].as_str().unwrap())).await.expect(200);
        assert_eq!(used["digest"], plugin["digest"]);
        assert_eq!(used["config_digest"].as_str().unwrap().len(), 64);
        assert!(used["fuel"].as_u64().unwrap() > 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_permanent_failure_is_not_tried_again() {
    let host = TestHost::start().await;
    let receiver = Receiver::start().await;
    receiver.on("/gone", [Answer::status(410)]);
    host.api.put_group("g", json!({"judge": {"config": {"permanent": [410]}}})).await;
    let id = host.api.job_id("g", json!({"url": receiver.url("/gone")})).await;
    assert_eq!(host.api.until_state(&id, "dead").await["attempt_count"], 1);
    assert_eq!(host.api.attempts(&id).await[0]["verdict"]["outcome"], "permanent");
    assert_eq!(receiver.count("/gone"), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receiver_is_left_alone_for_as_long_as_it_asks() {
    let clock = ManualClock::new();
    let host = Setup::with_clock(&clock).start().await;
    let receiver = Receiver::with_clock(clock.clone()).await;
    receiver.on("/busy", [Answer::status(503).header("retry-after", "1800"), Answer::status(200)]);
    host.api.put_group("g", json!({})).await;
    let posted = host.api.post_job("g", json!({"url": receiver.url("/busy")})).await;
    let id = posted["id"].as_str().unwrap();
    let waiting = host.api.until_retry(id, 1).await;
    assert_eq!(ms(&waiting["run_at"]), ms(&posted["run_at"]).plus(Duration::from_secs(1800)));
    clock.set(ms(&waiting["run_at"]));
    host.api.until_state(id, "succeeded").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_cannot_be_signed_waits_unsent_until_the_policy_is_mended() {
    let clock = ManualClock::new();
    let host = Setup::with_clock(&clock).start().await;
    let receiver = Receiver::with_clock(clock.clone()).await;
    host.api.put_group("g", json!({"sign": {"plugin": "werkzeug-cookie"}})).await;
    let id = host.api.job_id("g", json!({"url": receiver.url("/a"), "payload": {"a": 1}})).await;
    let held = host.api.until(&id, "is held", |job| !job["last_error"].is_null() && job["state"] == "scheduled").await;
    assert_eq!((&held["attempt_count"], &held["last_error"]), (&json!(0), &json!("policy.declared")), "{held}");
    let attempts = host.api.attempts(&id).await;
    assert_eq!(attempts[0]["spent"], false);
    assert_eq!(receiver.count("/a"), 0, "nothing goes out unsigned");

    host.api.put("/v1/keys/k", json!({"secret": "s"})).await.expect(204);
    host.api.put_group("g", json!({"sign": {"plugin": "werkzeug-cookie", "keys": ["k"]}})).await;
    clock.set(ms(&held["run_at"]));
    let done = host.api.until_state(&id, "succeeded").await;
    assert_eq!(done["attempt_count"], 1);
    assert_eq!(receiver.arrivals("/a")[0].header("carillon-attempt"), Some("1"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_payload_that_can_never_be_signed_is_dead_at_once() {
    let host = TestHost::start().await;
    let receiver = Receiver::start().await;
    host.api.put("/v1/keys/k", json!({"secret": "s"})).await.expect(204);
    host.api.put_group("g", json!({"sign": {"plugin": "werkzeug-cookie", "keys": ["k"]}})).await;
    let id = host.api.job_id("g", json!({"url": receiver.url("/a"), "payload": [1, 2]})).await;
    host.api.until_state(&id, "dead").await;
    let attempt = &host.api.attempts(&id).await[0];
    assert_eq!(attempt["error"]["code"], "policy.declared", "{attempt}");
    assert!(attempt["error"]["message"].as_str().unwrap().contains("sign"), "{attempt}");
    assert_eq!(receiver.count("/a"), 0);
}

/// Retries at once, and for ever.
fn hectic() -> Value {
    json!({"kind": "fixed", "base": 0, "jitter": 0, "max_attempts": u32::MAX})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_job_is_tried_sooner_or_more_often_than_the_server_allows() {
    let host = Setup::new().set("limits.retry_floor", "150ms").set("limits.attempts", "4").start().await;
    let receiver = Receiver::start().await;
    let group = json!({"retry": {"plugin": "backoff", "config": hectic()}});
    for (name, policy, job) in
        [("override", json!({}), json!({"policy": {"retry": hectic()}})), ("group", group, json!({}))]
    {
        let path = format!("/{name}");
        receiver.on(&path, vec![Answer::status(500); 20]);
        host.api.put_group(name, policy).await;
        let mut job = job;
        job["url"] = receiver.url(&path).into();
        let id = host.api.job_id(name, job.clone()).await;
        let dead = host.api.until_state(&id, "dead").await;
        assert_eq!(dead["attempt_count"], 4, "{name}: {dead}");
        let attempts = host.api.attempts(&id).await;
        for pair in attempts.windows(2) {
            let pause = ms(&pair[1]["started_at"]).since(ms(&pair[0]["finished_at"]));
            assert!(pause >= Duration::from_millis(150), "{name}: {pause:?}");
        }
        let reason = attempts[3]["decision"]["reason"].as_str().unwrap();
        assert!(reason.contains("limits.attempts"), "{name}: {reason}");
        host.api.post(&format!("/v1/jobs/{id}/retry"), json!({})).await.expect(200);
        receiver.arrived(&path, 8).await;
        let dead = host.api.until_state(&id, "dead").await;
        assert_eq!(dead["attempt_count"], 8, "a redrive starts the count anew: {dead}");
        let trial = json!({"job": job, "failures": 100});
        let foretold = host.api.post(&format!("/v1/groups/{name}/policy/simulate"), trial).await.expect(200);
        assert_eq!(foretold["attempts"].as_array().unwrap().len(), 4, "simulate knows it: {foretold}");
        assert_eq!(foretold["attempts"][1]["after_ms"], 150);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bounds_of_retries_hold_by_default() {
    let (host, receiver) = (TestHost::start().await, Receiver::start().await);
    receiver.on("/broken", vec![Answer::status(500); 50]);
    host.api.put_group("g", json!({})).await;
    let job = json!({"url": receiver.url("/broken"), "policy": {"retry": hectic()}});
    let id = host.api.job_id("g", job).await;
    receiver.arrived("/broken", 4).await;
    let attempts = host.api.attempts(&id).await;
    let delay = ms(&attempts[0]["decision"]["next_run_at"]).since(ms(&attempts[0]["finished_at"]));
    assert_eq!(delay, Duration::from_millis(100));
}
