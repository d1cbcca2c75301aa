//! Policies that fail too often are not called for a while: whose, after what, and how that is seen.

use serde_json::{Value, json};

use crate::support::{Api, DATABASE, Receiver, Setup, TestHost, cluster, eventually, eventually_while, upload_built};

const VERSIONS: &str = "/v1/groups/g/policy/versions";
const PROMOTE: &str = "/v1/groups/g/policy/promote";
const ROLLBACK: &str = "/v1/groups/g/policy/rollback";
const UNQUARANTINE: &str = "/v1/groups/g/policy/unquarantine";

/// A group whose judge traps; what it could not judge is over at once.
fn trapping() -> Value {
    json!({"judge": {"plugin": "moody", "config": {"mood": "trap"}}, "retry": {"config": {"max_attempts": 1}}})
}

/// Lets a job end, and gives its last attempt's error.
async fn error_of(api: &Api, group: &str, url: &str) -> Value {
    let id = api.job_id(group, json!({"url": url})).await;
    api.until(&id, "ends", |job| !job["finished_at"].is_null()).await;
    api.attempts(&id).await.last().unwrap()["error"]["code"].clone()
}

async fn quarantined(api: &Api, group: &str) -> Vec<Value> {
    api.get(&format!("/v1/groups/{group}")).await.expect(200)["quarantined"].as_array().unwrap().clone()
}

async fn metrics(api: &Api) -> String {
    api.get("/metrics").await.text().to_owned()
}

/// Three jobs fail, and the judge is not asked about the fourth.
async fn quarantine(api: &Api, group: &str, url: &str) {
    for _ in 0..3 {
        assert_eq!(error_of(api, group, url).await, "policy.trap");
    }
    assert_eq!(error_of(api, group, url).await, "policy.quarantined");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tenants_faults_are_its_own() {
    let (host, receiver) = (TestHost::start().await, Receiver::start().await);
    let (evil, acme) = (host.api.tenant("evil").await, host.api.tenant("acme").await);
    for tenant in [&evil, &acme] {
        upload_built(tenant, "tests/guests/moody", "moody").await;
        tenant.put_group("g", trapping()).await;
    }
    let mut events = evil.follow("?kind=quarantine").await;
    quarantine(&evil, "g", &receiver.url("/a")).await;
    let shown = quarantined(&evil, "g").await;
    assert_eq!((shown.len(), &shown[0]["role"]), (1, &json!("judge")));
    assert!(quarantined(&acme, "g").await.is_empty());
    quarantine(&acme, "g", &receiver.url("/a")).await;
    let event = &events.take(1).await[0];
    assert_eq!((&event["group"], &event["binding"], &event["error"]), (&json!("g"), &json!(1), &json!("policy.trap")));
    assert_eq!((&event["run_at"], &event["job"]), (&shown[0]["until"], &Value::Null));
    assert!(event["reason"].as_str().unwrap().contains("judge: `moody@0.1.0`"), "{event}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn quarantined_policies_of_single_jobs_are_shown_with_their_group() {
    let (host, receiver) = (TestHost::start().await, Receiver::start().await);
    upload_built(&host.api, "tests/guests/moody", "moody").await;
    let mut group = trapping();
    group["judge"]["config"] = json!({"mood": "talk"});
    host.api.put_group("g", group).await;
    for _ in 0..3 {
        let job = json!({"url": receiver.url("/a"), "policy": {"judge": {"mood": "trap"}}});
        let id = host.api.job_id("g", job).await;
        host.api.until_state(&id, "dead").await;
    }
    let shown = quarantined(&host.api, "g").await;
    assert_eq!((shown.len(), &shown[0]["role"], &shown[0]["version"]), (1, &json!("judge"), &json!(1)), "{shown:?}");
    assert_eq!((&shown[0]["plugin"], &shown[0]["fault"]), (&json!("moody@0.1.0"), &json!("policy.trap")));
    host.api.post(UNQUARANTINE, json!({})).await.expect(200);
    assert!(quarantined(&host.api, "g").await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_is_tried_again_and_again_stops_no_other() {
    let (host, receiver) = (TestHost::start().await, Receiver::start().await);
    upload_built(&host.api, "tests/guests/moody", "moody").await;
    let mut group = trapping();
    group["retry"] = json!({"config": {"kind": "fixed", "base": "1ms", "jitter": 0, "max_attempts": 10}});
    host.api.put_group("g", group).await;
    let id = host.api.job_id("g", json!({"url": receiver.url("/a")})).await;
    host.api.until_state(&id, "dead").await;
    let attempts = host.api.attempts(&id).await;
    assert_eq!(attempts.len(), 10);
    assert!(attempts.iter().all(|attempt| attempt["error"]["code"] == "policy.trap"), "{attempts:?}");
    assert!(quarantined(&host.api, "g").await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn faults_of_versions_under_trial_quarantine_nothing() {
    let (host, receiver) = (TestHost::start().await, Receiver::start().await);
    upload_built(&host.api, "tests/guests/moody", "moody").await;
    host.api.put_group("g", json!({})).await;
    let candidate = json!({"judge": trapping()["judge"]});
    host.api.post(VERSIONS, candidate).await.expect(201);
    let url = receiver.url("/a");
    let mut ids = Vec::new();
    for _ in 0..4 {
        ids.push(host.api.job_id("g", json!({"url": url})).await);
        host.api.until_state(&ids[ids.len() - 1], "succeeded").await;
    }
    let simulated = async |group: &str| {
        let trial = json!({"job": {"url": url}, "policy": trapping()});
        let simulation = host.api.post(&format!("/v1/groups/{group}/policy/simulate"), trial).await.expect(200);
        simulation["attempts"][0]["plugins"][0]["fault"].clone()
    };
    let backtested = async || {
        let all = host.api.post("/v1/groups/g/policy/backtest", json!({"version": 2})).await.expect(200);
        all["faults"].clone()
    };
    let replayed = async || {
        let replay = format!("/v1/jobs/{}/attempts/1/replay", ids[0]);
        host.api.post(&replay, json!({"version": 2})).await.expect(200)["faults"].clone()
    };
    for _ in 0..4 {
        assert_eq!(simulated("g").await, "policy.trap");
    }
    assert_eq!(backtested().await, json!({"policy.trap": 4}));
    assert_eq!(replayed().await, json!(["policy.trap"]));

    // None of that is held against a group that lives by the same judge, and its quarantine stops nobody who tries something out.
    host.api.put_group("live", trapping()).await;
    quarantine(&host.api, "live", &url).await;
    assert_eq!(simulated("live").await, "policy.trap");
    assert_eq!(backtested().await, json!({"policy.trap": 4}));
    assert_eq!(replayed().await, json!(["policy.trap"]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shadow_is_quarantined_in_shadow() {
    let host = Setup::new().set("policy.quarantine", "1h").start().await;
    let receiver = Receiver::start().await;
    upload_built(&host.api, "tests/guests/moody", "moody").await;
    host.api.put_group("g", json!({})).await;
    host.api.post(VERSIONS, json!({"judge": trapping()["judge"]})).await.expect(201);
    host.api.put("/v1/groups/g/policy/shadow", json!({"version": 2})).await.expect(200);
    let mut events = host.api.follow("?kind=quarantine").await;
    for _ in 0..3 {
        assert_eq!(error_of(&host.api, "g", &receiver.url("/a")).await, Value::Null);
    }
    let event = &events.take(1).await[0];
    assert_eq!((&event["binding"], &event["error"]), (&json!(2), &json!("policy.trap")));
    assert_eq!(event["reason"], "the shadow's judge: `moody@0.1.0` failed too often");
    let shown = quarantined(&host.api, "g").await;
    assert_eq!((&shown[0]["version"], &shown[0]["shadow"]), (&json!(2), &json!(true)), "{shown:?}");
    assert!(metrics(&host.api).await.contains("carillon_policies_quarantined 0\n"), "no delivery goes without it");
    host.api.put("/v1/groups/g/policy/shadow", json!({"version": 2})).await.expect(200);
    assert!(quarantined(&host.api, "g").await.is_empty(), "it begins anew");
    host.api.put_group("live", trapping()).await;
    quarantine(&host.api, "live", &receiver.url("/a")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_move_of_the_group_lifts_it_and_so_does_a_word() {
    let host = Setup::new().set("policy.quarantine", "1h").start().await;
    let receiver = Receiver::start().await;
    upload_built(&host.api, "tests/guests/moody", "moody").await;
    let group = |attempts: u32| {
        let mut group = trapping();
        group["rollback_on_quarantine"] = json!(false);
        group["retry"] = json!({"config": {"max_attempts": 1, "base": format!("{attempts}s")}});
        group
    };
    host.api.put_group("g", group(1)).await;
    host.api.post(VERSIONS, json!({"judge": trapping()["judge"], "retry": group(9)["retry"]})).await.expect(201);
    let mut events = host.api.follow("?kind=unquarantine").await;
    let canary = json!({"version": 2, "percent": 1, "max_faults": 1, "max_differences": 1});
    for (step, path, body) in [
        ("bind", "", group(2)),
        ("canary", PROMOTE, canary),
        ("end of the canary", ROLLBACK, json!({})),
        ("promote", PROMOTE, json!({"version": 2})),
        ("rollback", ROLLBACK, json!({})),
        ("word", UNQUARANTINE, json!({"why": "it is mended"})),
    ] {
        quarantine(&host.api, "g", &receiver.url("/a")).await;
        let shown = quarantined(&host.api, "g").await;
        assert_eq!((&shown[0]["fault"], &shown[0]["shadow"]), (&json!("policy.trap"), &json!(false)), "{step}");
        assert!(shown[0]["since"].as_str() < shown[0]["until"].as_str(), "{step}: {shown:?}");
        assert!(metrics(&host.api).await.contains("carillon_policies_quarantined 1\n"), "{step}");
        match path {
            "" => drop(host.api.put_group("g", body).await),
            path => drop(host.api.post(path, body).await.expect(200)),
        }
        assert!(quarantined(&host.api, "g").await.is_empty(), "{step}");
        assert!(metrics(&host.api).await.contains("carillon_policies_quarantined 0\n"), "{step}");
    }
    assert_eq!(error_of(&host.api, "g", &receiver.url("/a")).await, "policy.trap", "it is called again");
    let moved = host.api.get("/v1/groups/g/policy/history").await.items()[0].clone();
    assert_eq!((&moved["action"], &moved["why"]), (&json!("unquarantine"), &json!("it is mended")));
    assert_eq!((&moved["from_version"], &moved["automatic"]), (&moved["to_version"], &json!(false)));
    let event = &events.take(1).await[0];
    assert_eq!((&event["binding"], &event["reason"]), (&moved["to_version"], &json!("it is mended")));
    host.api.post(UNQUARANTINE, json!({"role": "judge"})).await.problem(400);
    host.api.post("/v1/groups/none/policy/unquarantine", json!({})).await.problem(404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_canarys_policies_are_shown_with_its_version() {
    let (host, receiver) = (TestHost::start().await, Receiver::start().await);
    upload_built(&host.api, "tests/guests/moody", "moody").await;
    host.api.put_group("g", json!({"rollback_on_quarantine": false})).await;
    host.api.post(VERSIONS, json!({"judge": trapping()["judge"], "retry": trapping()["retry"]})).await.expect(201);
    let canary = json!({"version": 2, "percent": 99, "max_faults": 1, "max_differences": 1});
    host.api.post(PROMOTE, canary).await.expect(200);
    let mut errors = Vec::new();
    while !errors.contains(&json!("policy.quarantined")) {
        errors.push(error_of(&host.api, "g", &receiver.url("/a")).await);
        assert!(errors.len() < 100, "{errors:?}");
    }
    let shown = quarantined(&host.api, "g").await;
    assert_eq!((&shown[0]["version"], &shown[0]["role"]), (&json!(2), &json!("judge")), "{shown:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn quarantine_is_lifted_on_all_nodes() {
    let (cluster, receiver) = (cluster(), Receiver::start().await);
    let setup = |name| {
        let setup = Setup::new().set("store.url", &cluster.url(DATABASE)).set("server.name", name);
        setup.set("policy.quarantine", "1h")
    };
    let nodes = [setup("one").start().await, setup("two").start().await];
    upload_built(&nodes[0].api, "tests/guests/moody", "moody").await;
    nodes[0].api.put_group("g", trapping()).await;
    for node in &nodes {
        node.api.until_status("/v1/groups/g", 200).await;
        let another_fault = async || drop(error_of(&nodes[0].api, "g", &receiver.url("/a")).await);
        let policies = async || quarantined(&node.api, "g").await;
        eventually_while("each node does without it", another_fault, policies, |policies| policies.len() == 1).await;
    }
    nodes[0].api.post(UNQUARANTINE, json!({})).await.expect(200);
    for node in &nodes {
        let policies = async || quarantined(&node.api, "g").await;
        eventually("each node asks it again", policies, Vec::is_empty).await;
    }
}
