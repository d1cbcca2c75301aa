//! Keys that are granted to some of a tenant's groups: no other one binds them, and none is given them.

use std::time::Duration;

use serde_json::{Value, json};
use sqlx::Connection as _;

use crate::support::{Api, ManualClock, Receiver, Setup, TestHost};

/// A policy that signs with `k`.
fn signed() -> Value {
    json!({"sign": {"plugin": "werkzeug-cookie", "keys": ["k"]}})
}

/// What may use `k`.
async fn grants(api: &Api) -> Value {
    api.get("/v1/keys/k").await.expect(200)["groups"].clone()
}

async fn grant(api: &Api, groups: Value) {
    let granted = api.patch("/v1/keys/k", json!({"groups": groups})).await.expect(200);
    assert_eq!(granted["groups"], groups);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_binds_only_what_is_granted_to_it() {
    let (host, receiver) = (TestHost::start().await, Receiver::start().await);
    let api = host.api.tenant("acme").await;
    api.put("/v1/keys/k", json!({"secret": "s", "groups": ["b", "a", "b"]})).await.expect(204);
    assert_eq!(grants(&api).await, json!(["a", "b"]));
    api.put("/v1/keys/sent", json!({"secret": "s", "kind": "header", "groups": ["a"]})).await.ok();
    let mut both = signed();
    both["auth_headers"] = json!({"X-Key": "sent"});
    api.put_group("a", both.clone()).await;
    let id = api.job_id("a", json!({"url": receiver.url("/a"), "payload": {}})).await;
    api.until_state(&id, "succeeded").await;

    api.put("/v1/groups/b", both).await.problem_at(422, "/auth_headers/X-Key");
    let refused = api.put("/v1/groups/c", signed()).await.problem_at(422, "/sign/keys/0");
    assert!(refused["detail"].as_str().unwrap().contains("`k` is not granted to the group `c`"), "{refused}");
    api.put_group("c", json!({})).await;
    api.post("/v1/groups/c/policy/versions", signed()).await.problem_at(422, "/sign/keys/0");
    let trial = json!({"job": {"url": "http://a/"}, "policy": signed()});
    let foretold = api.post("/v1/groups/c/policy/simulate", trial).await.problem(422);
    assert!(foretold["pointer"].as_str().unwrap().ends_with("/sign/keys/0"), "{foretold}");
    // What all groups inherit must be granted to each that is there, and to each that is made.
    let defaults = json!({"defaults": signed()});
    let operator = host.api.clone();
    operator.put("/v1/tenants/acme", defaults.clone()).await.problem_at(422, "/defaults/sign/keys/0");
    api.delete("/v1/groups/c").await.expect(204);
    operator.put("/v1/tenants/acme", defaults).await.ok();
    api.put("/v1/groups/c", json!({})).await.problem_at(422, "/sign/keys/0");
    api.put("/v1/groups/c", json!({"sign": null})).await.expect(201);

    grant(&api, Value::Null).await;
    api.put("/v1/groups/c", json!({})).await.expect(200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_value_is_granted_as_the_one_before() {
    let host = TestHost::start().await;
    let put = async |key: Value| host.api.put("/v1/keys/k", key).await.expect(204);
    put(json!({"secret": "one"})).await;
    assert_eq!(grants(&host.api).await, Value::Null, "all groups, unless somebody says so");
    put(json!({"secret": "two", "groups": ["a"], "overlap": "1h"})).await;
    put(json!({"secret": "three", "overlap": "1h"})).await;
    assert_eq!(grants(&host.api).await, json!(["a"]));
    host.api.delete("/v1/keys/k/versions/2").await.expect(204);
    let versions = |key: &Value| -> Vec<Value> {
        key["versions"].as_array().unwrap().iter().map(|version| version["version"].clone()).collect()
    };
    assert_eq!(grants(&host.api).await, json!(["a"]));
    let before = versions(&host.api.get("/v1/keys/k").await.expect(200));
    grant(&host.api, json!(["a", "z"])).await;
    assert_eq!(versions(&host.api.get("/v1/keys/k").await.expect(200)), before, "a grant makes no version");
    put(json!({"secret": "four", "groups": null})).await;
    assert_eq!(grants(&host.api).await, json!(["a", "z"]));
    assert_eq!(host.api.get("/v1/keys").await.items()[0]["groups"], json!(["a", "z"]));

    let named = |count: usize| json!({"groups": (0..count).map(|n| format!("g{n}")).collect::<Vec<_>>()});
    host.api.patch("/v1/keys/k", named(1_000)).await.expect(200);
    host.api.patch("/v1/keys/k", named(1_001)).await.problem_at(422, "/groups");
    host.api.patch("/v1/keys/k", json!({"groups": ["a", "not a name"]})).await.problem_at(422, "/groups/1");
    host.api.patch("/v1/keys/k", json!({})).await.problem(400);
    host.api.patch("/v1/keys/k", json!({"groups": null, "other": 1})).await.problem(400);
    host.api.patch("/v1/keys/none", json!({"groups": []})).await.problem(404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_group_uses_is_neither_taken_from_it_nor_deleted() {
    let host = TestHost::start().await;
    host.api.put("/v1/keys/k", json!({"secret": "s"})).await.expect(204);
    let post = async |verb: &str, body: Value| host.api.post(&format!("/v1/groups/g/policy/{verb}"), body).await.ok();
    let is_used = async |what: &str, by: &str| {
        for refused in [
            host.api.patch("/v1/keys/k", json!({"groups": ["other"]})).await,
            host.api.put("/v1/keys/k", json!({"secret": "t", "groups": []})).await,
            host.api.delete("/v1/keys/k").await,
        ] {
            let problem = refused.problem(409);
            assert!(problem["detail"].as_str().unwrap().contains(by), "{what}: {problem}");
        }
        assert_eq!(grants(&host.api).await, Value::Null, "{what}");
        assert_eq!(host.api.get("/v1/keys/k").await.expect(200)["version"], 1, "{what}");
    };
    host.api.put_group("g", signed()).await;
    is_used("in force", "the group `g`").await;

    let pinned = json!({"pin": "job", "sign": {"plugin": "werkzeug-cookie", "keys": ["k"]}});
    host.api.put_group("g", pinned).await;
    let job = host.api.job_id("g", json!({"url": "http://127.0.0.1:1/", "run_at": "+1h", "payload": {}})).await;
    host.api.put_group("g", json!({"pin": "job", "sign": null})).await;
    is_used("a job is pinned to it", "the group `g`").await;
    host.api.delete(&format!("/v1/jobs/{job}")).await.expect(200);

    host.api.put("/v1/groups/g/policy/shadow", json!({"version": 1})).await.expect(200);
    is_used("a shadow", "the group `g`").await;
    host.api.delete("/v1/groups/g/policy/shadow").await.expect(204);
    post("promote", json!({"version": 1, "percent": 10})).await;
    is_used("a canary", "the group `g`").await;
    post("rollback", json!({})).await;

    grant(&host.api, json!(["other"])).await;
    let promoted = host.api.post("/v1/groups/g/policy/promote", json!({"version": 1})).await.problem(409);
    assert!(promoted["detail"].as_str().unwrap().contains("not granted"), "{promoted}");
    host.api.delete("/v1/keys/k").await.expect(204);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_is_not_given_what_is_not_granted_to_it() {
    let clock = ManualClock::new();
    let setup = Setup::with_clock(&clock);
    let (host, receiver) = (setup.start().await, Receiver::with_clock(clock.clone()).await);
    host.api.put("/v1/keys/k", json!({"secret": "s"})).await.expect(204);
    host.api.put("/v1/keys/sent", json!({"secret": "s", "kind": "header"})).await.ok();
    host.api.put_group("signs", signed()).await;
    host.api.put_group("sends", json!({"auth_headers": {"X-Key": "sent"}})).await;
    let database = format!("sqlite:{}", host.dir.path().join("carillon.db").display());
    host.stop().await;
    // No server takes a grant from a group that uses it; this one was taken in the moment in which the group was put.
    let mut connection = sqlx::SqliteConnection::connect(&database).await.unwrap();
    let taken = "UPDATE entity SET doc = json_set(doc, '$.groups', json_array('other')) WHERE kind = 'key'";
    assert_eq!(sqlx::query(taken).execute(&mut connection).await.unwrap().rows_affected(), 2);
    connection.close().await.unwrap();

    let host = setup.start().await;
    let mut jobs = Vec::new();
    for group in ["signs", "sends"] {
        let id = host.api.job_id(group, json!({"url": receiver.url(&format!("/{group}")), "payload": {}})).await;
        host.api.until(&id, "is held", |job| job["last_error"] == "policy.missing-key").await;
        let attempt = host.api.attempts(&id).await.remove(0);
        let message = attempt["error"]["message"].as_str().unwrap();
        assert!(message.contains(&format!("is not granted to the group `{group}`")), "{attempt}");
        assert_eq!(attempt["spent"], false);
        jobs.push(id);
    }
    assert_eq!((receiver.count("/signs"), receiver.count("/sends")), (0, 0));
    for (key, group) in [("k", "signs"), ("sent", "sends")] {
        host.api.patch(&format!("/v1/keys/{key}"), json!({"groups": [group]})).await.expect(200);
    }
    clock.advance(Duration::from_secs(60));
    for id in jobs {
        host.api.until_state(&id, "succeeded").await;
    }
}
