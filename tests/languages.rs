//! The examples in other languages, and those that speak for others: built with the tools that their READMEs name, uploaded, and judged by
//! what they do to jobs. What they sign and encode is read by the real libraries.

use std::time::Duration;

use axum::body::Bytes;
use carillon_core::clock::UnixMs;
use serde_json::{Value, json};

use crate::support::{
    Answer, ManualClock, Receiver, STRIPE, Setup, TestHost, ask_python, built, ms, repository, upload,
};

/// Reads {"headers", "body"} and prints what the CloudEvents SDK makes of it.
const CLOUDEVENTS: &str = r#"
import json, sys
from cloudevents.core.bindings.http import HTTPMessage, from_http_event
asked = json.load(sys.stdin)
event = from_http_event(HTTPMessage(asked["headers"], asked["body"].encode()))
data = event.get_data()
if isinstance(data, (bytes, str)):
    data = json.loads(data)
print(json.dumps({"id": event.get_id(), "type": event.get_type(), "source": event.get_source(),
    "time": event.get_time().isoformat(timespec="milliseconds"), "specversion": event.get_specversion(), "data": data}))
"#;

/// A host on which the compilation of a large component may take as long as a busy machine needs.
async fn patient() -> TestHost {
    Setup::new().set("server.request_timeout", "5m").start().await
}

async fn example(name: &str) -> Bytes {
    built(&repository().join("examples").join(name)).await
}

/// What the judge of an attempt was called with and what it said.
fn judge_of(attempt: &Value) -> &Value {
    attempt["plugins"].as_array().unwrap().iter().find(|used| used["role"] == "judge").unwrap()
}

/// The judge takes `{"ok": false}` for a failure, and nothing else that comes with a 200; what it logged of what is no JSON.
async fn judges(host: &TestHost, name: &str, component: Bytes) -> Vec<Value> {
    let path = format!("/v1/plugins/{name}/versions/0.1.0");
    let plugin = upload(&host.api, &path, component).await.expect(201);
    assert_eq!((&plugin["name"], &plugin["roles"]), (&json!(name), &json!(["judge"])));
    let retry = json!({"config": {"max_attempts": 1}});
    host.api.put_group("g", json!({"judge": {"plugin": name}, "retry": retry})).await;
    host.api.put("/v1/groups/g", json!({"judge": {"plugin": name, "config": {"a": 1}}})).await.problem(422);
    let receiver = Receiver::start().await;
    let mut logs = Vec::new();
    for (body, status, state, reason) in [
        (r#"{"ok": false, "why": "grüße"}"#, 200, "dead", "The body says that it failed."),
        (r#"{"ok": true}"#, 200, "succeeded", "The status is 200."),
        ("[1]", 202, "succeeded", "The status is 202."),
        ("thanks", 200, "succeeded", "The status is 200."),
        (r#"{"ok": true}"#, 503, "dead", "The status is 503."),
    ] {
        receiver.on("/a", [Answer::body(status, body)]);
        let id = host.api.job_id("g", json!({"url": receiver.url("/a")})).await;
        host.api.until_state(&id, state).await;
        let attempt = host.api.attempts(&id).await.remove(0);
        assert_eq!(attempt["verdict"]["reason"], reason, "{body} {attempt}");
        assert_eq!(judge_of(&attempt)["fault"], Value::Null, "{attempt}");
        logs.extend(judge_of(&attempt)["log"].as_array().into_iter().flatten().cloned());
    }
    let refused = host.api.job_id("g", json!({"url": "http://127.0.0.1:1/"})).await;
    host.api.until_state(&refused, "dead").await;
    logs
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_judge_in_javascript_with_the_wasi_of_its_runtime() {
    let host = patient().await;
    let logs = judges(&host, "judge-json-ok-js", example("judge-json-ok-js").await).await;
    assert_eq!(logs.len(), 1, "{logs:?}");
    assert!(logs[0].as_str().unwrap().starts_with("info: The body is not JSON: "), "the console is the log: {logs:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_judge_in_python() {
    let host = patient().await;
    let logs = judges(&host, "judge-json-ok-py", example("judge-json-ok-py").await).await;
    assert_eq!(logs.len(), 1, "{logs:?}");
    assert!(logs[0].as_str().unwrap().starts_with("debug: The body is not JSON: "), "{logs:?}");
}

/// Binds a plugin and delivers a payload; the id of the job, and what a library makes of what arrived.
async fn delivered(host: &TestHost, policy: Value, metadata: Value, program: &str, more: Value) -> (Value, Value) {
    let receiver = Receiver::start().await;
    host.api.put_group("g", policy).await;
    let job = json!({"url": receiver.url("/a"), "payload": {"text": "grüße", "n": 1.5}, "metadata": metadata});
    let made = host.api.post_job("g", job).await;
    host.api.until_state(made["id"].as_str().unwrap(), "succeeded").await;
    let arrival = receiver.arrivals("/a").remove(0);
    let text = |value: &[u8]| Value::from(String::from_utf8(value.to_vec()).unwrap());
    let headers: Value = arrival.headers.iter().map(|(name, value)| (name.clone(), text(value))).collect();
    let mut asked = json!({"headers": headers, "body": arrival.text()});
    asked.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    (made, ask_python(program, &asked).await)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stripes_own_library_takes_what_the_stripe_signer_signs() {
    let host = TestHost::start().await;
    upload(&host.api, "/v1/plugins/sign-stripe/versions/0.1.0", example("sign-stripe").await).await.expect(201);
    let secrets = ["whsec_old_secret", "whsec_new_secret", "whsec_of_another"];
    for secret in &secrets[..2] {
        host.api.put("/v1/keys/endpoint", json!({"secret": secret, "overlap": "1h"})).await.expect(204);
    }
    let policy = json!({"sign": {"plugin": "sign-stripe", "keys": ["endpoint"]}});
    let (_, taken) = delivered(&host, policy, json!({}), STRIPE, json!({"secrets": secrets})).await;
    assert_eq!(taken, json!([true, true, false]), "both while the key is rotated");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_cloudevents_sdk_reads_what_the_encoder_writes() {
    let host = TestHost::start().await;
    let path = "/v1/plugins/encode-cloudevents/versions/0.1.0";
    upload(&host.api, path, example("encode-cloudevents").await).await.expect(201);
    for (mode, metadata, kind) in
        [("binary", json!({}), "order.changed"), ("structured", json!({"type": "order.paid"}), "order.paid")]
    {
        let config = json!({"source": "https://shop.example/orders", "type": "order.changed", "mode": mode});
        let policy = json!({"encode": [{"plugin": "encode-cloudevents", "config": config}]});
        let (job, event) = delivered(&host, policy, metadata, CLOUDEVENTS, json!({})).await;
        let time = job["created_at"].as_str().unwrap().replace('Z', "+00:00");
        let expected = json!({"id": job["id"], "type": kind, "source": "https://shop.example/orders", "time": time,
            "specversion": "1.0", "data": {"text": "grüße", "n": 1.5}});
        assert_eq!(event, expected, "{mode}");
    }
}

/// A time of the week that begins on Friday, 20 November 2026, UTC.
fn at(day: i64, time: &str) -> UnixMs {
    let (hours, minutes) = time.split_once(':').unwrap();
    let minutes = hours.parse::<i64>().unwrap() * 60 + minutes.parse::<i64>().unwrap();
    UnixMs(1_795_132_800_000 + (day * 24 * 60 + minutes) * 60_000)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retry_policy_in_c_waits_for_monday_and_as_long_as_the_receiver_asks() {
    let clock = ManualClock::new();
    let host = Setup::with_clock(&clock).start().await;
    let path = "/v1/plugins/retry-business-hours/versions/0.1.0";
    let plugin = upload(&host.api, path, example("retry-business-hours-c").await).await.expect(201);
    assert_eq!(plugin["roles"], json!(["retry"]));
    let bound = |config: Value| json!({"retry": {"plugin": "retry-business-hours", "config": config}});
    let wrong = host.api.put("/v1/groups/g", bound(json!({"from": "18:00", "to": "09:00"}))).await.problem(422);
    assert!(wrong.to_string().contains("`from` must be before `to`"), "its own check is asked: {wrong}");
    host.api.put("/v1/groups/g", bound(json!({"days": ["sunday"]}))).await.problem(422);
    host.api.put_group("g", bound(json!({"utc_offset_minutes": 60, "base_seconds": 120}))).await;

    let receiver = Receiver::with_clock(clock.clone()).await;
    receiver.on(
        "/office",
        [
            Answer::status(503),
            Answer::status(503).header("retry-after", "10800"),
            Answer::status(503).header("retry-after", "Mon, 23 Nov 2026 20:00:00 GMT"),
            Answer::status(200),
        ],
    );
    // Two minutes later it is past five there.
    clock.set(at(0, "15:59"));
    let id = host.api.job_id("g", json!({"url": receiver.url("/office")})).await;
    let waiting = host.api.until_retry(&id, 1).await;
    assert_eq!(ms(&waiting["run_at"]), at(3, "8:00"), "Monday, nine o'clock there");
    clock.set(UnixMs(at(3, "8:00").0 - 1));
    host.looked(&receiver).await;
    assert_eq!(receiver.count("/office"), 1, "not over the weekend");
    clock.advance(Duration::from_millis(1));
    let waiting = host.api.until_retry(&id, 2).await;
    assert_eq!(ms(&waiting["run_at"]), at(3, "11:00"), "as long as the receiver asks, in business hours");
    clock.set(at(3, "11:00"));
    let waiting = host.api.until_retry(&id, 3).await;
    assert_eq!(ms(&waiting["run_at"]), at(4, "8:00"), "the morning after the time that the receiver named");
    clock.set(at(4, "8:00"));
    host.api.until_state(&id, "succeeded").await;
    let times: Vec<UnixMs> = receiver.arrivals("/office").iter().map(|arrival| arrival.at).collect();
    assert_eq!(times, [at(0, "15:59"), at(3, "8:00"), at(3, "11:00"), at(4, "8:00")]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_standard_library_over_wasi_follows_from_the_call() {
    let clock = ManualClock::new();
    let host = Setup::with_clock(&clock).start().await;
    let component = built(&repository().join("tests/guests/std-wasip2")).await;
    upload(&host.api, "/v1/plugins/std-wasip2/versions/0.1.0", component).await.expect(201);
    host.api.put_group("g", json!({"judge": {"plugin": "std-wasip2"}})).await;
    let receiver = Receiver::start().await;
    let job = json!({"url": receiver.url("/a")});
    let posted = host.api.post_job("g", job.clone()).await;
    let id = posted["id"].as_str().unwrap();
    host.api.until_state(id, "succeeded").await;
    let attempt = host.api.attempts(id).await.remove(0);
    let reason = attempt["verdict"]["reason"].as_str().unwrap();
    let now = format!("now={} slept=0 order=", ms(&posted["created_at"]).0);
    assert!(reason.starts_with(&now), "the time is that of the call, and waiting takes none of it: {reason}");
    let nothing = "read=false write=false dir=false vars=0 args=0";
    assert!(reason.ends_with(nothing), "{reason}");
    let said = ["info: said to standard output", "error: said to standard error"];
    assert_eq!(judge_of(&attempt)["log"], json!(said));

    let order = async |seed: &Value| {
        let trial = json!({"job": job, "seed": seed, "now": posted["created_at"], "responses": [{"status": 200}]});
        let simulation = host.api.post("/v1/groups/g/policy/simulate", trial).await.expect(200);
        simulation["attempts"][0]["verdict"]["reason"].clone()
    };
    assert_eq!(order(&posted["seed"]).await, reason, "the order of a HashMap follows from the seed");
    assert_ne!(order(&json!(7)).await, order(&json!(8)).await);
}
