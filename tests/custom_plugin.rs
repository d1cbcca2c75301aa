//! A tenant's own judge: compiled from `examples/`, uploaded, bound; it decides in that group and nowhere else.

use std::time::Duration;

use axum::body::Bytes;
use serde_json::{Value, json};

use crate::support::{Answer, Api, JUDGE_PATH, ManualClock, Receiver, Setup, TestHost, judge, upload};

/// A section of a component that says nothing: custom, two bytes, the name `x`.
const EMPTY_SECTION: [u8; 4] = [0, 2, 1, b'x'];

/// The head of a core module, which is not a component.
const CORE_MODULE: &[u8] = b"\0asm\x01\0\0\0";

/// Past `policy.large.component_size`.
const LARGE: usize = (32 << 20) + 1;

fn bound() -> Value {
    json!({"judge": {"plugin": "judge-json-ok"}, "retry": {"config": {"jitter": 0}}})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tenants_judge_decides_in_its_group_and_nowhere_else() {
    let clock = ManualClock::new();
    let host = Setup::with_clock(&clock).start().await;
    let receiver = Receiver::with_clock(clock.clone()).await;
    let (acme, other) = (host.api.tenant("acme").await, host.api.tenant("other").await);
    let plugin = upload(&acme, JUDGE_PATH, judge().await).await.expect(201);
    assert_eq!(
        (&plugin["name"], &plugin["roles"], &plugin["builtin"]),
        (&json!("judge-json-ok"), &json!(["judge"]), &json!(false))
    );

    acme.put_group("strict", bound()).await;
    acme.put_group("plain", json!({})).await;
    other.put_group("strict", json!({})).await;
    receiver.on("/strict", [Answer::body(200, r#"{"ok": false}"#), Answer::body(200, r#"{"ok": true}"#)]);
    for path in ["/plain", "/other"] {
        receiver.on(path, [Answer::body(200, r#"{"ok": false}"#)]);
    }
    let strict = acme.job_id("strict", json!({"url": receiver.url("/strict")})).await;
    acme.until_retry(&strict, 1).await;
    for (api, group, path) in [(&acme, "plain", "/plain"), (&other, "strict", "/other")] {
        let id = api.job_id(group, json!({"url": receiver.url(path)})).await;
        assert_eq!(api.until_state(&id, "succeeded").await["attempt_count"], 1, "{group} {path}");
    }
    clock.advance(Duration::from_secs(2));
    assert_eq!(acme.until_state(&strict, "succeeded").await["attempt_count"], 2);

    let attempts = acme.attempts(&strict).await;
    assert_eq!(attempts[0]["verdict"], json!({"outcome": "retryable", "reason": "The body says that it failed."}));
    let judge = attempts[0]["plugins"].as_array().unwrap().iter().find(|used| used["role"] == "judge").unwrap();
    assert_eq!((&judge["plugin"], &judge["digest"]), (&json!("judge-json-ok@0.1.0"), &plugin["digest"]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_tenant_can_neither_see_nor_bind_it() {
    let host = TestHost::start().await;
    let (acme, other) = (host.api.tenant("acme").await, host.api.tenant("other").await);
    upload(&acme, JUDGE_PATH, judge().await).await.expect(201);
    acme.get(JUDGE_PATH).await.expect(200);
    let listed = |api: &Api| {
        let api = api.clone();
        async move { api.get("/v1/plugins").await.text().contains("judge-json-ok") }
    };
    assert!(listed(&acme).await);
    for somebody in [&other, &host.api] {
        somebody.get(JUDGE_PATH).await.problem(404);
        somebody.get("/v1/plugins/judge-json-ok").await.problem(404);
        assert!(!listed(somebody).await);
        for name in ["judge-json-ok", "judge-json-ok@0.1.0"] {
            somebody.put("/v1/groups/g", json!({"judge": {"plugin": name}})).await.problem_at(422, "/judge/plugin");
        }
    }
    acme.put("/v1/groups/g", bound()).await.expect(201);
    acme.put("/v1/groups/g", json!({"retry": {"plugin": "judge-json-ok"}})).await.problem_at(422, "/retry/plugin");
    acme.put("/v1/groups/g", json!({"judge": {"plugin": "judge-json-ok", "config": {"a": 1}}})).await.problem(422);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_never_changes() {
    let host = TestHost::start().await;
    let component = judge().await;
    let first = upload(&host.api, JUDGE_PATH, component.clone()).await.expect(201);
    assert_eq!(upload(&host.api, JUDGE_PATH, component.clone()).await.expect(200)["digest"], first["digest"]);
    let other: Bytes = [&component[..], &EMPTY_SECTION].concat().into();
    upload(&host.api, JUDGE_PATH, other.clone()).await.problem(409);
    assert_eq!(host.api.get(JUDGE_PATH).await.expect(200)["digest"], first["digest"]);

    let acme = host.api.tenant("acme").await;
    let theirs = upload(&acme, JUDGE_PATH, other).await.expect(201);
    assert_ne!(theirs["digest"], first["digest"], "a name belongs to a tenant");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_versions_of_a_plugin_are_listed_newest_first() {
    let host = TestHost::start().await;
    let component = judge().await;
    for version in ["0.1.0-dev.2", "0.1.0", "0.1.0-dev.10"] {
        let path = format!("/v1/plugins/judge-json-ok/versions/{version}");
        let view = upload(&host.api, &path, component.clone()).await.expect(201);
        assert_eq!((&view["state"], &view["validated_at"]), (&json!("validated"), &view["created_at"]), "{view}");
    }
    let all = host.api.get("/v1/plugins/judge-json-ok/versions").await.items();
    let versions = |items: &[Value]| items.iter().map(|item| item["version"].clone()).collect::<Vec<_>>();
    assert_eq!(versions(&all), ["0.1.0", "0.1.0-dev.10", "0.1.0-dev.2"]);
    assert!(all.iter().all(|item| item["state"] == "validated" && item["config_schema"].is_null()), "{all:?}");
    let first = host.api.get("/v1/plugins/judge-json-ok/versions?limit=2").await.expect(200);
    assert_eq!(versions(first["items"].as_array().unwrap()), ["0.1.0", "0.1.0-dev.10"]);
    let next = format!("/v1/plugins/judge-json-ok/versions?cursor={}", first["next_cursor"].as_str().unwrap());
    assert_eq!(versions(&host.api.get(&next).await.items()), ["0.1.0-dev.2"]);
    assert_eq!(host.api.get("/v1/plugins/backoff/versions").await.items().len(), 1, "the server's own have one");
    host.api.get("/v1/plugins/none/versions").await.problem(404);
    host.api.get("/v1/plugins/judge-json-ok/versions?cursor=x").await.problem(400);
    host.api.tenant("acme").await.get("/v1/plugins/judge-json-ok/versions").await.problem(404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_of_each_default_plugin_can_be_a_tenants_own() {
    let host = TestHost::start().await;
    // The name `hmac` is a word of the policy interface, too: replaced in all places, it would change the component's type.
    for plugin in carillon_default_plugins::ALL.into_iter().filter(|plugin| plugin.name != "hmac") {
        // A name of its own, as long as the other, wherever that stands.
        let name = format!("x{}", &plugin.name[1..]);
        let mut copy = plugin.component.to_vec();
        while let Some(at) = copy.windows(name.len()).position(|text| text == plugin.name.as_bytes()) {
            copy[at..at + name.len()].copy_from_slice(name.as_bytes());
        }
        let original = host.api.get(&format!("/v1/plugins/{}", plugin.name)).await.expect(200);
        let path = format!("/v1/plugins/{name}/versions/{}", original["version"].as_str().unwrap());
        let view = upload(&host.api, &path, copy).await.expect(201);
        assert_eq!((&view["roles"], &view["builtin"]), (&original["roles"], &json!(false)));
    }
    host.api.put("/v1/groups/g", json!({"retry": {"plugin": "xackoff", "config": {"base": "1s"}}})).await.expect(201);
    let wrong = json!({"retry": {"plugin": "xackoff", "config": {"base": -1}}});
    host.api.put("/v1/groups/g", wrong).await.problem_at(422, "/retry/config/base");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn upload_that_is_no_plugin_is_refused_with_a_sentence() {
    let host = TestHost::start().await;
    let component = judge().await;
    let half = component.slice(..component.len() / 2);
    for (bytes, status) in [
        (Bytes::new(), 422),
        (Bytes::from_static(b"this is not wasm"), 422),
        (Bytes::from_static(CORE_MODULE), 422),
        (half, 422),
        (Bytes::from(vec![0; LARGE]), 413),
    ] {
        let problem = upload(&host.api, JUDGE_PATH, bytes).await.problem(status);
        assert!(problem["detail"].as_str().unwrap().len() > 20, "{problem}");
    }
    for path in ["/v1/plugins/other-name/versions/0.1.0", "/v1/plugins/judge-json-ok/versions/0.2.0"] {
        let problem = upload(&host.api, path, component.clone()).await.problem(422);
        assert!(problem["detail"].as_str().unwrap().contains("judge-json-ok@0.1.0"), "{problem}");
    }
    upload(&host.api, "/v1/plugins/backoff/versions/9.0.0", component.clone()).await.problem(409);
    host.api.get("/v1/plugins/judge-json-ok").await.problem(404);
    upload(&host.api, JUDGE_PATH, component).await.expect(201);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_uploaded_plugin_survives_a_restart() {
    let host = TestHost::start().await;
    upload(&host.api, JUDGE_PATH, judge().await).await.expect(201);
    host.api.put_group("g", bound()).await;
    let dir = host.dir.clone();
    host.stop().await;

    let host = Setup::new().in_dir(&dir).start().await;
    let receiver = Receiver::start().await;
    receiver.on("/a", [Answer::body(200, r#"{"ok": false}"#)]);
    let job = json!({"url": receiver.url("/a"), "policy": {"retry": {"max_attempts": 1}}});
    let id = host.api.job_id("g", job).await;
    host.api.until_state(&id, "dead").await;
}
