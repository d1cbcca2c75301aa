//! A tenant neither sees nor touches what belongs to another.

use std::time::Duration;

use carillon_core::clock::{Clock as _, UnixMs};
use serde_json::{Value, json};

use crate::support::{Answer, Api, Gate, ManualClock, Receiver, Setup, TestHost, eventually};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn things_of_another_tenant_are_not_found() {
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

/// Sets what all groups of a tenant may use together.
async fn put_quota(host: &TestHost, tenant: &str, quota: Value) {
    let put = host.api.put(&format!("/v1/tenants/{tenant}"), json!({"quota": quota})).await.expect(200);
    assert_eq!(put["quota"], quota);
}

async fn post_many(api: &Api, group: &str, url: &str, count: usize) {
    let jobs = vec![json!({"url": url}); count];
    api.post(&format!("/v1/groups/{group}/jobs/batch"), json!({"jobs": jobs})).await.expect(201);
}

/// Waits until so many jobs of the groups `a` and `b` have succeeded.
async fn until_succeeded(api: &Api, count: u64) {
    let succeeded = async |group| api.stats(group).await["succeeded"].as_u64().unwrap();
    let look = async || succeeded("a").await + succeeded("b").await;
    eventually(&format!("{count} jobs succeed"), look, |succeeded| *succeeded == count).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quota_that_makes_no_sense_is_refused() {
    let host = TestHost::start().await;
    host.api.tenant("acme").await;
    for (quota, pointer) in [
        (json!({"concurrency": 0}), "/quota/concurrency"),
        (json!({"rate": "fast"}), "/quota/rate"),
        (json!({"burst": 3}), "/quota/burst"),
        (json!({"rate": "3/s", "burst": 0}), "/quota/burst"),
    ] {
        host.api.put("/v1/tenants/acme", json!({"quota": quota})).await.problem_at(422, pointer);
    }
    host.api.put("/v1/tenants/acme", json!({"quota": {"timeout": "3s"}})).await.problem_at(400, "/quota/timeout");
    put_quota(&host, "acme", json!({"concurrency": 2, "rate": "3/s", "burst": 4})).await;
    put_quota(&host, "acme", json!({})).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_groups_of_a_tenant_share_its_concurrency() {
    let clock = ManualClock::new();
    let host = Setup::with_clock(&clock).start().await;
    let receiver = Receiver::start().await;
    let gate = Gate::closed();
    receiver.on("/held", [Answer::status(200).held(&gate)]);
    let acme = host.api.tenant("acme").await;
    put_quota(&host, "acme", json!({"concurrency": 3})).await;
    for group in ["a", "b"] {
        acme.put_group(group, json!({"limits": {"concurrency": 10}})).await;
        acme.post(&format!("/v1/groups/{group}/pause"), json!({})).await.expect(200);
        post_many(&acme, group, &receiver.url("/held"), 5).await;
    }
    for group in ["a", "b"] {
        acme.post(&format!("/v1/groups/{group}/resume"), json!({})).await.expect(200);
    }
    receiver.arrived("/held", 3).await;
    // The other tenant's job goes out.
    host.looked(&receiver).await;
    assert_eq!(receiver.count("/held"), 3, "three at once");
    gate.release(1);
    receiver.arrived("/held", 4).await;
    host.looked(&receiver).await;
    assert_eq!(receiver.count("/held"), 4, "three at once");

    put_quota(&host, "acme", json!({"concurrency": 5})).await;
    receiver.arrived("/held", 6).await;
    host.looked(&receiver).await;
    assert_eq!(receiver.count("/held"), 6, "a change holds at once");
    put_quota(&host, "acme", json!({})).await;
    receiver.arrived("/held", 10).await;
    gate.release(9);
    until_succeeded(&acme, 10).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_groups_of_a_tenant_share_its_rate() {
    let clock = ManualClock::new();
    let host = Setup::with_clock(&clock).start().await;
    let receiver = Receiver::start().await;
    let start = clock.now();
    let acme = host.api.tenant("acme").await;
    put_quota(&host, "acme", json!({"rate": "2/min"})).await;
    for (group, count) in [("a", 3), ("b", 2)] {
        acme.put_group(group, json!({})).await;
        post_many(&acme, group, &receiver.url("/paced"), count).await;
    }
    receiver.arrived("/paced", 2).await;
    for (count, seconds) in [(2, 30), (3, 60), (4, 90)] {
        until_succeeded(&acme, count).await;
        let next = start.plus(Duration::from_secs(seconds));
        clock.set(UnixMs(next.0 - 1));
        host.looked(&receiver).await;
        let count = usize::try_from(count).unwrap();
        assert_eq!(receiver.count("/paced"), count, "one every thirty seconds");
        clock.set(UnixMs(next.0 + 1));
        receiver.arrived("/paced", count + 1).await;
    }
    until_succeeded(&acme, 5).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_does_not_use_up_the_quota_of_the_others() {
    let host = TestHost::start().await;
    let receiver = Receiver::start().await;
    let gate = Gate::closed();
    receiver.on("/held", [Answer::status(200).held(&gate)]);
    let acme = host.api.tenant("acme").await;
    put_quota(&host, "acme", json!({"concurrency": 1})).await;
    acme.put_group("a", json!({})).await;
    acme.put_group("b", json!({})).await;
    post_many(&acme, "a", &receiver.url("/held"), 100).await;
    receiver.arrived("/held", 1).await;
    let id = acme.job_id("b", json!({"url": receiver.url("/b")})).await;
    for released in 1..=50 {
        gate.release(1);
        receiver.arrived("/held", released + 1).await;
        if acme.job(&id).await["state"] == "succeeded" {
            gate.release(100);
            return;
        }
    }
    panic!("a backlog of another group kept it waiting");
}
