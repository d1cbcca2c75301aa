//! `simulate` shows what a delivery does, and does none of it.

use serde_json::{Value, json};

use crate::support::{ManualClock, Receiver, Setup, TestHost};

/// The headers that differ from job to job, or that belong to the connection.
const OF_THE_JOB: [&str; 5] = ["idempotency-key", "carillon-job-id", "traceparent", "host", "content-length"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_bytes_that_are_foretold_are_the_bytes_that_arrive() {
    let clock = ManualClock::new();
    let host = Setup::with_clock(&clock).start().await;
    let receiver = Receiver::with_clock(clock).await;
    host.api.put("/v1/keys/k", json!({"secret": "s"})).await.expect(204);
    let cookie = json!({"plugin": "werkzeug-cookie", "config": {"expires": "1h"}, "keys": ["k"]});
    host.api.put_group("g", json!({"sign": cookie})).await;
    let job = json!({"url": receiver.url("/signed?a=b"), "payload": {"n": 1.50, "é": "ü"}, "headers": {"X-B": "2", "X-A": "1"}});
    let simulation = host.api.post("/v1/groups/g/policy/simulate", json!({"job": job})).await.expect(200);
    let posted = host.api.post_job("g", job).await;
    host.api.until_state(posted["id"].as_str().unwrap(), "succeeded").await;

    let (request, arrival) = (&simulation["request"], receiver.arrivals("/signed").remove(0));
    assert_eq!(request["body"], arrival.text());
    assert_eq!((&request["method"], &request["url"]), (&json!("POST"), &json!(receiver.url("/signed?a=b"))));
    let shown = |(name, value): &(String, Vec<u8>)| (name.clone(), String::from_utf8(value.clone()).unwrap());
    let own = |(name, _): &(String, String)| !OF_THE_JOB.contains(&name.as_str());
    let arrived: Vec<_> = arrival.headers.iter().map(shown).filter(own).collect();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let headers = request["headers"].as_array().unwrap().iter();
    let foretold: Vec<(String, String)> = headers.map(|it| (text(&it["name"]), text(&it["value"]))).collect();
    assert_eq!(foretold.into_iter().filter(own).collect::<Vec<_>>(), arrived);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_stored_and_nothing_is_sent() {
    let host = TestHost::start().await;
    let receiver = Receiver::start().await;
    host.api.put_group("g", json!({})).await;
    let trial = json!({"job": {"url": receiver.url("/a")}, "failures": 10});
    host.api.post("/v1/groups/g/policy/simulate", trial).await.expect(200);
    host.looked(&receiver).await;
    assert_eq!(receiver.count("/a"), 0);
    assert!(host.api.get("/v1/groups/g/jobs").await.items().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_seed_foretells_the_same_times() {
    let host = TestHost::start().await;
    host.api.put_group("g", json!({})).await;
    let times = async |seed: u32| {
        let trial = json!({"job": {"url": "http://a/"}, "failures": 4, "seed": seed, "now": "2026-11-20T10:00:00Z"});
        let simulation = host.api.post("/v1/groups/g/policy/simulate", trial).await.expect(200);
        let attempts = simulation["attempts"].as_array().unwrap();
        attempts.iter().map(|attempt| attempt["run_at"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(times(7).await, times(7).await);
    assert_ne!(times(7).await, times(8).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_candidate_policy_and_imagined_answers_are_tried_out() {
    let host = TestHost::start().await;
    host.api.put_group("g", json!({})).await;
    let trial = json!({
        "job": {"url": "http://a/", "payload_base64": "/w=="},
        "policy": {
            "judge": {"config": {"expect": [204], "permanent": ["4xx"]}},
            "retry": {"plugin": "backoff", "config": {"kind": "fixed", "base": "10s", "jitter": 0}},
        },
        "responses": [{"status": 200}, {"error": "timeout"}, {"status": 503, "headers": {"retry-after": "60"}}, {"status": 404}, {"status": 204}],
        "now": "2026-11-20T10:00:00Z",
    });
    let simulation = host.api.post("/v1/groups/g/policy/simulate", trial).await.expect(200);
    let attempts = simulation["attempts"].as_array().unwrap();
    let column = |name: &str| attempts.iter().map(|attempt| attempt[name].clone()).collect::<Vec<Value>>();
    assert_eq!(
        column("run_at"),
        [
            "2026-11-20T10:00:00.000Z",
            "2026-11-20T10:00:10.000Z",
            "2026-11-20T10:00:20.000Z",
            "2026-11-20T10:01:20.000Z",
        ]
    );
    assert_eq!(column("after_ms"), [0, 10_000, 10_000, 60_000]);
    assert_eq!(column("decision"), ["scheduled", "scheduled", "scheduled", "dead"]);
    assert_eq!((&simulation["request"]["body"], &simulation["request"]["body_base64"]), (&Value::Null, &json!("/w==")));
    let group = host.api.get("/v1/groups/g").await.expect(200);
    assert_eq!(group["version"], 1, "the candidate is not bound");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_cannot_be_sent_says_why() {
    let host = TestHost::start().await;
    host.api.put_group("g", json!({"sign": {"plugin": "werkzeug-cookie"}})).await;
    let trial = json!({"job": {"url": "http://a/", "payload": {}}, "failures": 2});
    let simulation = host.api.post("/v1/groups/g/policy/simulate", trial).await.expect(200);
    assert_eq!(simulation["request"], Value::Null);
    assert_eq!(simulation["error"]["code"], "policy.declared", "{simulation}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn imagined_answers_that_make_no_sense_are_refused() {
    let host = TestHost::start().await;
    host.api.put_group("g", json!({})).await;
    let job = json!({"url": "http://a/"});
    for (field, value, status, pointer) in [
        ("failures", json!(5_000), 422, "/failures"),
        ("failures", json!(-1), 400, "/failures"),
        ("responses", json!([{"status": 200}, {"error": "boredom"}]), 422, "/responses/1/error"),
        ("responses", json!([{"status": 70_000}]), 400, "/responses/0/status"),
        ("seed", json!(-1), 400, "/seed"),
        ("now", json!("yesterday"), 422, "/now"),
    ] {
        let mut trial = json!({"job": job});
        trial[field] = value;
        host.api.post("/v1/groups/g/policy/simulate", trial).await.problem_at(status, pointer);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn producer_sees_only_signatures_that_a_delivery_now_would_carry() {
    let host = TestHost::start().await;
    for key in ["used", "unused"] {
        host.api.put(&format!("/v1/keys/{key}"), json!({"secret": key})).await.expect(204);
    }
    host.api.put_group("plain", json!({})).await;
    host.api.put_group("signed", json!({"sign": {"plugin": "werkzeug-cookie", "keys": ["used"]}})).await;
    let token = host.api.post("/v1/tokens", json!({"role": "producer"})).await.expect(201);
    let producer = host.api.with_token(token["token"].as_str().unwrap());
    let job = json!({"url": "http://127.0.0.1:9/", "payload": {"user": "admin"}});
    let sign = |key: &str| json!({"sign": {"plugin": "werkzeug-cookie", "keys": [key]}});
    let encode = json!({"encode": [{"plugin": "base64-envelope"}]});
    host.api.put("/v1/keys/sent", json!({"secret": "s3cret", "kind": "header"})).await.ok();
    let sent = json!({"auth_headers": {"X-Key": "sent"}});
    let now = json!("2020-01-01T00:00:00Z");
    for (group, policy, now) in [
        ("plain", sign("unused"), None),
        ("plain", sign("used"), None),
        ("plain", encode.clone(), None),
        ("plain", sent, None),
        ("signed", sign("unused"), None),
        ("signed", json!({"sign": null}), None),
        ("signed", encode, None),
        ("signed", json!({}), Some(&now)),
    ] {
        let path = format!("/v1/groups/{group}/policy/simulate");
        let mut ask = json!({"job": job, "policy": policy});
        if let Some(now) = now {
            ask["now"] = now.clone();
        }
        producer.post(&path, ask.clone()).await.problem(403);
        host.api.post(&path, ask).await.expect(200);
    }
    let signed = "/v1/groups/signed/policy/simulate";
    producer.post(signed, json!({"job": job})).await.expect(200);
    let retry = json!({"retry": {"config": {"kind": "fixed", "base": "9s"}}});
    producer.post(signed, json!({"job": job, "policy": retry})).await.expect(200);
    producer.post("/v1/groups/plain/policy/simulate", json!({"job": job, "now": now})).await.expect(200);
}
