//! The examples in other languages, and those that speak for others: built with the tools that their READMEs name, uploaded, and judged by
//! what they do to jobs. What they sign and encode is read by the real libraries.

use std::path::Path;

use axum::body::Bytes;
use carillon_guest_build::{BuildRequest, build};
use serde_json::{Value, json};
use tokio::process::Command;

use crate::custom_plugin::upload;
use crate::python::{ask, interpreter};
use crate::support::{Answer, Receiver, Setup, TestHost, repository, shared_dir};

/// Reads {"headers", "body", "secrets"} and prints which of the secrets Stripe's own library takes.
const STRIPE: &str = r#"
import json, sys, stripe
asked = json.load(sys.stdin)
def takes(secret):
    try:
        return stripe.WebhookSignature.verify_header(asked["body"], asked["headers"]["stripe-signature"], secret, tolerance=None)
    except stripe.SignatureVerificationError:
        return False
print(json.dumps([takes(secret) for secret in asked["secrets"]]))
"#;

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

/// Runs a tool to its end, and returns the component that it was to write to `file`.
async fn made_by(mut tool: Command, file: &Path, what_is_missing: &str) -> Bytes {
    let output = tool.output().await.unwrap_or_else(|error| panic!("{tool:?}: {error}; {what_is_missing}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{what_is_missing}: `script/bootstrap test`");
    std::fs::read(file).unwrap().into()
}

/// `examples/judge-json-ok-js`, as its README builds it.
async fn javascript() -> Bytes {
    let file = shared_dir().join(format!("judge-js-{}.wasm", std::process::id()));
    let mut tool = Command::new(interpreter().with_file_name("node"));
    tool.arg("build.js").arg(&file).current_dir(repository().join("examples/judge-json-ok-js"));
    made_by(tool, &file, "it needs Node and what package-lock.json lists").await
}

/// `examples/judge-json-ok-py`, as its README builds it.
async fn python() -> Bytes {
    let file = shared_dir().join(format!("judge-py-{}.wasm", std::process::id()));
    let mut tool = Command::new(interpreter().with_file_name("componentize-py"));
    tool.args([
        "--wit-path",
        "../../wit",
        "--world",
        "judge-policy",
        "componentize",
        "--stub-wasi",
        "judge",
        "--output",
    ]);
    tool.arg(&file).current_dir(repository().join("examples/judge-json-ok-py"));
    made_by(tool, &file, "it needs componentize-py").await
}

async fn rust(name: &str) -> Bytes {
    let request = BuildRequest {
        manifest_dir: repository().join("examples").join(name),
        target_dir: shared_dir().join("guests"),
        toolchain: None,
    };
    let built = tokio::task::spawn_blocking(move || build(&request)).await.unwrap();
    built.unwrap_or_else(|error| panic!("the example does not build: {error}")).into()
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
    let logs = judges(&host, "judge-json-ok-js", javascript().await).await;
    assert_eq!(logs.len(), 1, "{logs:?}");
    assert!(logs[0].as_str().unwrap().starts_with("info: The body is not JSON: "), "the console is the log: {logs:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_judge_in_python() {
    let host = patient().await;
    let logs = judges(&host, "judge-json-ok-py", python().await).await;
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
    (made, ask(program, &asked).await)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stripes_own_library_takes_what_the_stripe_signer_signs() {
    let host = TestHost::start().await;
    upload(&host.api, "/v1/plugins/sign-stripe/versions/0.1.0", rust("sign-stripe").await).await.expect(201);
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
    upload(&host.api, path, rust("encode-cloudevents").await).await.expect(201);
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
