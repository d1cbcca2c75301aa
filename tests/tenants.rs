//! A tenant neither sees nor touches what belongs to another.

use serde_json::json;

use crate::support::{ManualClock, Receiver, Setup, TestHost};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_belongs_to_another_tenant_is_not_found() {
    let clock = ManualClock::new();
    let host = Setup::with_clock(&clock).start().await;
    let (acme, other) = (host.api.tenant("acme").await, host.api.tenant("other").await);
    acme.put("/v1/keys/theirs", json!({"secret": "s"})).await.expect(204);
    acme.put_group("theirs", json!({})).await;
    let id = acme.job_id("theirs", json!({"url": "http://127.0.0.1:1/", "run_at": "+1h"})).await;
    let token = acme.post("/v1/tokens", json!({"role": "viewer"})).await.expect(201);
    let token = format!("/v1/tokens/{}", token["id"].as_str().unwrap());

    let job = format!("/v1/jobs/{id}");
    let attempts = format!("{job}/attempts");
    for path in
        [&job, &attempts, "/v1/groups/theirs", "/v1/groups/theirs/jobs", "/v1/groups/theirs/stats", "/v1/keys/theirs"]
    {
        acme.get(path).await.expect(200);
        other.get(path).await.problem(404);
        host.api.get(path).await.problem(404);
    }
    for path in [&job, "/v1/groups/theirs", "/v1/keys/theirs", &token] {
        other.delete(path).await.problem(404);
    }
    for path in ["/v1/groups/theirs/pause", "/v1/groups/theirs/jobs"] {
        other.post(path, json!({"url": "http://127.0.0.1:1/"})).await.problem(404);
    }
    for list in ["/v1/groups", "/v1/keys"] {
        assert_eq!(acme.get(list).await.items().len(), 1, "{list}");
        assert!(other.get(list).await.items().is_empty(), "{list}");
    }
    assert_eq!(acme.job(&id).await["state"], "scheduled", "nobody has touched it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_of_another_tenant_cannot_be_signed_with() {
    let host = TestHost::start().await;
    let (acme, other) = (host.api.tenant("acme").await, host.api.tenant("other").await);
    acme.put("/v1/keys/flask", json!({"secret": "s"})).await.expect(204);
    let signed = json!({"sign": {"plugin": "werkzeug-cookie", "keys": ["flask"]}});
    acme.put("/v1/groups/g", signed.clone()).await.expect(201);
    other.put("/v1/groups/g", signed).await.problem_at(422, "/sign/keys/0");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_names_in_two_tenants_are_two_things() {
    let host = TestHost::start().await;
    let receiver = Receiver::start().await;
    let (acme, other) = (host.api.tenant("acme").await, host.api.tenant("other").await);
    for (api, secret) in [(&acme, "one"), (&other, "two")] {
        api.put("/v1/keys/k", json!({"secret": secret})).await.expect(204);
        api.put_group("g", json!({"sign": {"plugin": "werkzeug-cookie", "keys": ["k"]}})).await;
        let id = api.job_id("g", json!({"url": receiver.url("/signed"), "payload": {"a": 1}})).await;
        api.until_state(&id, "succeeded").await;
        assert_eq!(api.stats("g").await["succeeded"], 1);
    }
    let arrivals = receiver.arrivals("/signed");
    assert_ne!(arrivals[0].body, arrivals[1].body, "each is signed with its own tenant's key");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tenants_are_the_operators_to_manage() {
    let host = TestHost::start().await;
    let acme = host.api.tenant("acme").await;
    acme.get("/v1/tenants").await.problem(403);
    acme.get("/v1/tenants/acme").await.problem(403);
    acme.put("/v1/tenants/acme", json!({})).await.problem(403);
    let names: Vec<_> = host.api.get("/v1/tenants").await.items().iter().map(|tenant| tenant["name"].clone()).collect();
    assert_eq!(names, ["acme", "default"]);
}
