//! Plugins that an operator shares: one upload for all tenants, or for some.

use axum::body::Bytes;
use serde_json::{Value, json};

use crate::support::{Answer, Api, JUDGE_PATH, Receiver, Setup, TestHost, cli, judge, upload};

/// A section of a component that says nothing: other bytes, the same plugin.
const EMPTY_SECTION: [u8; 4] = [0, 2, 1, b'x'];

/// Where an operator changes the shared version.
const SHARED: &str = "/v1/plugins/judge-json-ok/versions/0.1.0?shared=true";

async fn share(api: &Api, tenants: &str) -> Value {
    upload(api, &format!("{JUDGE_PATH}?tenants={tenants}"), judge().await).await.ok()
}

fn bound() -> Value {
    json!({"judge": {"plugin": "judge-json-ok"}, "retry": {"config": {"max_attempts": 1}}})
}

/// The judge decides: a body that says that it failed is a failure.
async fn judges(api: &Api) {
    let receiver = Receiver::start().await;
    receiver.on("/a", [Answer::body(200, r#"{"ok": false}"#)]);
    let id = api.job_id("g", json!({"url": receiver.url("/a")})).await;
    api.until_state(&id, "dead").await;
    let attempt = api.attempts(&id).await.remove(0);
    assert_eq!(attempt["verdict"]["reason"], "The body says that it failed.");
}

async fn sees(api: &Api) -> Option<Value> {
    api.get("/v1/plugins").await.items().into_iter().find(|plugin| plugin["name"] == "judge-json-ok")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn plugin_shared_with_all_is_bound_by_every_tenant_and_changed_by_none() {
    let host = TestHost::start().await;
    let acme = host.api.tenant("acme").await;
    let plugin = share(&host.api, "*").await;
    assert_eq!((&plugin["shared"], plugin.get("tenants")), (&json!(true), None), "{plugin}");
    let later = host.api.tenant("later").await;
    for tenant in [&acme, &later] {
        host.api.patch("/v1/tenants/acme", json!({"quota": {"plugins": 0}})).await.expect(200);
        assert_eq!(sees(tenant).await.expect("it is listed")["shared"], true);
        tenant.put_group("g", bound()).await;
        judges(tenant).await;
        let group = tenant.get("/v1/groups/g").await.expect(200);
        assert_eq!(group["judge"]["plugin"], "judge-json-ok@0.1.0", "it is pinned to the version");
        for usage in ["plugins", "plugin_bytes"] {
            assert_eq!(tenant.get("/v1/whoami").await.expect(200)["usage"][usage], 0, "no quota counts it");
        }
        let refused = tenant.delete(JUDGE_PATH).await.problem(409);
        assert!(refused["detail"].as_str().unwrap().contains("shared by the server's operator"), "{refused}");
        tenant.patch(JUDGE_PATH, json!({"deprecated": "no"})).await.problem(409);
        tenant.delete(SHARED).await.problem(403);
        tenant.patch(SHARED, json!({"tenants": []})).await.problem(403);
        tenant.get("/v1/plugins?shared=true").await.problem(403);
        upload(tenant, &format!("{JUDGE_PATH}?tenants=*"), judge().await).await.problem(403);
        let draft = "/v1/plugins/judge-json-ok/versions/0.1.0-dev.1";
        let refused = upload(tenant, draft, judge().await).await.problem(409);
        assert!(refused["detail"].as_str().unwrap().contains("under another name"), "{refused}");
        upload(tenant, JUDGE_PATH, judge().await).await.expect(200);
    }
    host.api.patch(SHARED, json!({"deprecated": "use another"})).await.expect(200);
    let warned = acme.get("/v1/groups/g").await.expect(200);
    assert!(warned["warnings"][0].as_str().unwrap().contains("use another"), "{warned}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn plugin_shared_with_some_is_nothing_to_others_and_stays_while_it_is_used() {
    let host = TestHost::start().await;
    let (acme, other) = (host.api.tenant("acme").await, host.api.tenant("other").await);
    let unknown = upload(&host.api, &format!("{JUDGE_PATH}?tenants=acme,none"), judge().await).await;
    unknown.problem_at(422, "/tenants");
    assert_eq!(share(&host.api, "acme").await["tenants"], json!(["acme"]));
    assert_eq!(sees(&acme).await.expect("it is listed").get("tenants"), None, "tenants do not see whom else it is for");
    assert_eq!(sees(&other).await, None);
    for somebody in [&other, &host.api] {
        somebody.get(JUDGE_PATH).await.problem(404);
        somebody.put("/v1/groups/g", bound()).await.problem_at(422, "/judge/plugin");
    }
    acme.put_group("g", bound()).await;
    for change in [json!({"tenants": ["other"]}), json!({"tenants": []})] {
        let refused = host.api.patch(SHARED, change).await.problem(409);
        let detail = refused["detail"].as_str().unwrap();
        assert!(detail.contains("`acme`") && detail.contains("the group `g`"), "{detail}");
    }
    host.api.delete(SHARED).await.problem(409);
    host.api.delete(JUDGE_PATH).await.problem(404);

    let plugin = host.api.patch(SHARED, json!({"tenants": ["other", "acme"]})).await.expect(200);
    assert_eq!(plugin["tenants"], json!(["acme", "other"]));
    other.put_group("g", bound()).await;
    judges(&other).await;
    for wrong in [json!({}), json!({"tenants": ["acme"], "deprecated": null}), json!({"tenants": ["none"]})] {
        host.api.patch(SHARED, wrong).await.problem(422);
    }
    acme.patch(JUDGE_PATH, json!({"tenants": null})).await.problem_at(422, "/tenants");

    other.delete("/v1/groups/g").await.expect(204);
    acme.delete("/v1/groups/g").await.expect(204);
    assert_eq!(share(&host.api, "acme").await["tenants"], json!(["acme"]), "the same bytes again");
    assert_eq!(sees(&other).await, None);
    host.api.delete(SHARED).await.expect(204);
    assert_eq!(sees(&acme).await, None);
    upload(&acme, JUDGE_PATH, judge().await).await.expect(201);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn plugin_that_a_tenant_had_first_stays_its_own() {
    let host = TestHost::start().await;
    let (acme, other) = (host.api.tenant("acme").await, host.api.tenant("other").await);
    let own: Bytes = [&judge().await[..], &EMPTY_SECTION].concat().into();
    let own = upload(&acme, JUDGE_PATH, own).await.expect(201);
    acme.put_group("g", bound()).await;
    let shared = share(&host.api, "*").await;
    assert_ne!(own["digest"], shared["digest"]);
    let seen = |plugin: Option<Value>| plugin.unwrap()["digest"].clone();
    assert_eq!((seen(sees(&acme).await), seen(sees(&other).await)), (own["digest"].clone(), shared["digest"].clone()));
    judges(&acme).await;
    let id = acme.get("/v1/groups/g/jobs").await.items()[0]["id"].as_str().unwrap().to_owned();
    let used = acme.attempts(&id).await[0]["plugins"].as_array().unwrap().clone();
    assert!(used.iter().any(|it| it["digest"] == own["digest"]), "its groups go on with its own: {used:?}");
    host.api.delete(SHARED).await.expect(204);
    share(&host.api, "*").await;
    acme.delete("/v1/groups/g").await.expect(204);
    acme.delete(JUDGE_PATH).await.expect(204);
    assert_eq!(seen(sees(&acme).await), shared["digest"], "without one of its own, it sees the shared one");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shared_plugin_survives_a_restart() {
    let host = TestHost::start().await;
    host.api.tenant("acme").await;
    share(&host.api, "acme").await;
    host.api.for_tenant("acme").put_group("g", bound()).await;
    let dir = host.dir.clone();
    host.stop().await;

    let host = Setup::new().in_dir(&dir).start().await;
    let acme = host.api.for_tenant("acme");
    judges(&acme).await;
    assert_eq!(host.api.get("/v1/plugins?shared=true").await.items()[0]["tenants"], json!(["acme"]));
    host.api.get(JUDGE_PATH).await.problem(404);
    host.api.delete(SHARED).await.problem(409);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn command_line_shares_plugins() {
    let host = TestHost::start().await;
    host.api.tenant("acme").await;
    let file = host.dir.path().join("judge.wasm");
    std::fs::write(&file, judge().await).unwrap();
    let file = file.to_str().unwrap();
    cli(&host, &["plugin", "push", "judge-json-ok@0.1.0", file, "--all-tenants"], "").await.ok();
    assert!(cli(&host, &["plugin", "list"], "").await.ok().contains("judge-json-ok"));
    let shared = cli(&host, &["plugin", "share", "judge-json-ok@0.1.0", "--tenants", "acme"], "").await;
    assert!(shared.ok().contains("shared with acme"), "{shared:?}");
    assert!(!cli(&host, &["plugin", "list"], "").await.ok().contains("judge-json-ok"));
    assert!(cli(&host, &["plugin", "list", "--shared"], "").await.ok().contains("judge-json-ok"));
    let all = cli(&host, &["plugin", "share", "judge-json-ok@0.1.0", "--all-tenants"], "").await;
    assert!(all.ok().contains("shared with all tenants"), "{all:?}");
    let described = cli(&host, &["plugin", "describe", "judge-json-ok@0.1.0", "--shared", "--json"], "").await.json();
    assert_eq!(described["shared"], true);
    cli(&host, &["plugin", "share", "judge-json-ok@0.1.0"], "").await.error(1);
    cli(&host, &["plugin", "deprecate", "judge-json-ok@0.1.0", "--shared", "--why", "old"], "").await.ok();
    cli(&host, &["plugin", "delete", "judge-json-ok@0.1.0"], "").await.error(1);
    cli(&host, &["plugin", "delete", "judge-json-ok@0.1.0", "--shared"], "").await.ok();
}
