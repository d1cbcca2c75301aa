//! Canaries: a version that some of the jobs follow, taken back by itself when it does worse; and a quarantine that rolls back.

use serde_json::{Value, json};

use crate::support::{Answer, Api, Receiver, Setup, TestHost, eventually, upload_built};

const VERSIONS: &str = "/v1/groups/g/policy/versions";
const PROMOTE: &str = "/v1/groups/g/policy/promote";
const ROLLBACK: &str = "/v1/groups/g/policy/rollback";
const HISTORY: &str = "/v1/groups/g/policy/history";

/// Takes only this status for a success, and gives up at once.
fn expecting(status: u16) -> Value {
    json!({"judge": {"config": {"expect": [status]}}, "retry": {"config": {"max_attempts": 1}}})
}

async fn propose(api: &Api, policy: Value) -> i64 {
    api.post(VERSIONS, policy).await.expect(201)["version"].as_i64().unwrap()
}

/// Another try soon, and again.
fn patient() -> Value {
    json!({"config": {"kind": "fixed", "base": "20ms", "jitter": 0, "max_attempts": 500}})
}

/// Lets a job end; says which version decided it.
async fn ends(api: &Api, url: &str) -> i64 {
    let id = api.job_id("g", json!({"url": url})).await;
    api.until(&id, "ends", |job| !job["finished_at"].is_null()).await;
    api.attempts(&id).await[0]["binding_version"].as_i64().unwrap()
}

/// The newest move, when it is a rollback.
async fn rolled_back(api: &Api) -> Value {
    let newest = async || api.get(HISTORY).await.items()[0].clone();
    eventually("the group is rolled back", newest, |newest| newest["action"] == "rollback").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn some_of_the_jobs_follow_a_canary_until_it_is_promoted() {
    let (host, receiver) = (TestHost::start().await, Receiver::start().await);
    host.api.put_group("g", json!({})).await;
    propose(&host.api, json!({"judge": {"config": {"expect": [200]}}})).await;
    let begun = host.api.post(PROMOTE, json!({"version": 2, "percent": 50, "why": "a trial"})).await.expect(200);
    assert_eq!(
        (&begun["binding"], &begun["canary"]["version"], &begun["canary"]["percent"]),
        (&json!(1), &json!(2), &json!(50))
    );
    let canary = &begun["canary"];
    assert_eq!(
        (&canary["max_faults"], &canary["max_differences"], &canary["min_attempts"]),
        (&json!(0.05), &json!(0.1), &json!(20))
    );
    let mut followed = [0_u64; 2];
    for _ in 0..40 {
        followed[usize::try_from(ends(&host.api, &receiver.url("/a")).await).unwrap() - 1] += 1;
    }
    assert!(followed.iter().all(|count| *count >= 5), "{followed:?}");
    let all_are_counted = |group: &Value| {
        let counted = ["active", "canary"].map(|side| &group["canary"][side]["attempts"]);
        counted == [&json!(followed[0]), &json!(followed[1])]
    };
    host.api.until_shown("/v1/groups/g", all_are_counted).await;
    let promoted = host.api.post(PROMOTE, json!({"version": 2, "percent": 100})).await.expect(200);
    assert_eq!((&promoted["binding"], &promoted["canary"]), (&json!(2), &Value::Null));
    assert_eq!(ends(&host.api, &receiver.url("/a")).await, 2);
    let moves = host.api.get(HISTORY).await.items();
    let told: Vec<_> =
        moves.iter().map(|it| (it["action"].as_str().unwrap(), &it["to_version"], &it["percent"])).collect();
    let (one, two, half) = (json!(1), json!(2), json!(50));
    assert_eq!(told, [("promote", &two, &Value::Null), ("canary", &two, &half), ("bind", &one, &Value::Null)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_canary_that_fails_more_often_is_taken_back() {
    let (host, receiver) = (TestHost::start().await, Receiver::start().await);
    receiver.on("/202", [Answer::status(202)]);
    let mut events = host.api.follow("?kind=rollback").await;
    host.api.put_group("g", expecting(202)).await;
    propose(&host.api, expecting(200)).await;
    host.api
        .post(PROMOTE, json!({"version": 2, "percent": 50, "min_attempts": 5, "max_differences": 0.5}))
        .await
        .expect(200);
    let mut versions = Vec::new();
    while host.api.get("/v1/groups/g").await.expect(200)["canary"] != Value::Null {
        versions.push(ends(&host.api, &receiver.url("/202")).await);
        assert!(versions.len() < 100, "{versions:?}");
    }
    let of = |version| versions.iter().filter(|it| **it == version).count();
    assert!(of(2) >= 5 && of(1) >= 5, "it takes enough attempts of both: {versions:?}");
    let moved = rolled_back(&host.api).await;
    assert_eq!(
        (&moved["from_version"], &moved["to_version"], &moved["automatic"]),
        (&json!(2), &json!(1), &json!(true))
    );
    assert!(moved["why"].as_str().unwrap().contains("max_differences = 0.5"), "{moved}");
    assert_eq!(moved["by"], Value::Null);
    assert_eq!(events.take(1).await[0]["reason"], moved["why"]);
    for _ in 0..10 {
        assert_eq!(ends(&host.api, &receiver.url("/202")).await, 1);
    }
    host.api.post(ROLLBACK, json!({})).await.problem(409);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_canary_with_faults_is_taken_back_and_its_jobs_go_on() {
    // Before that, it would be quarantined.
    let host = Setup::new().set("policy.fault_threshold", "1000").start().await;
    let receiver = Receiver::start().await;
    upload_built(&host.api, "tests/guests/moody", "moody").await;
    host.api.put_group("g", json!({"pin": "job", "retry": patient()})).await;
    propose(&host.api, json!({"judge": {"plugin": "moody", "config": {"mood": "trap"}}, "retry": patient()})).await;
    host.api.post(PROMOTE, json!({"version": 2, "percent": 99, "min_attempts": 2, "max_faults": 0})).await.expect(200);
    let mut ids = Vec::new();
    for _ in 0..10 {
        ids.push(host.api.job_id("g", json!({"url": receiver.url("/a")})).await);
    }
    let moved = rolled_back(&host.api).await;
    assert!(moved["why"].as_str().unwrap().contains("max_faults = 0"), "{moved}");
    for id in &ids {
        host.api.until_state(id, "succeeded").await;
    }
    let pinned = host.api.job(&ids[0]).await["binding"].clone();
    assert!(pinned == 1 || pinned == 2);
    assert_eq!(host.api.attempts(&ids[0]).await.last().unwrap()["binding_version"], 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_canary_is_taken_back_by_hand_or_by_another_policy() {
    let host = TestHost::start().await;
    host.api.put_group("g", expecting(200)).await;
    propose(&host.api, expecting(202)).await;
    let begin = |percent| host.api.post(PROMOTE, json!({"version": 2, "percent": percent}));
    begin(10).await.expect(200);
    let more = begin(20).await.expect(200);
    assert_eq!(more["canary"]["percent"], 20);
    let back = host.api.post(ROLLBACK, json!({"why": "enough"})).await.expect(200);
    assert_eq!((&back["binding"], &back["canary"]), (&json!(1), &Value::Null));
    begin(10).await.expect(200);
    host.api.put("/v1/keys/k", json!({"secret": "s"})).await.expect(204);
    let signed = propose(&host.api, json!({"sign": {"plugin": "werkzeug-cookie", "keys": ["k"]}})).await;
    host.api.post(PROMOTE, json!({"version": signed, "percent": 1})).await.expect(200);
    host.api.delete("/v1/keys/k").await.problem(409);
    assert_eq!(host.api.put_group("g", expecting(500)).await["canary"], Value::Null);
    host.api.delete("/v1/keys/k").await.expect(204);
    for (body, pointer) in [
        (json!({"version": 2, "percent": 0}), "/percent"),
        (json!({"version": 2, "percent": 101}), "/percent"),
        (json!({"version": 2, "percent": 5, "max_faults": 1.5}), "/max_faults"),
        (json!({"version": 2, "percent": 5, "max_differences": -0.1}), "/max_differences"),
        (json!({"version": 2, "percent": 5, "min_attempts": 0}), "/min_attempts"),
        (json!({"version": 2, "max_faults": 0.5}), "/max_faults"),
        (json!({"version": 9, "percent": 5}), "/version"),
    ] {
        host.api.post(PROMOTE, body).await.problem_at(422, pointer);
    }
    host.api.post(PROMOTE, json!({"version": 4, "percent": 5})).await.problem(409);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quarantine_puts_the_version_before_in_force_again() {
    let (host, receiver) = (TestHost::start().await, Receiver::start().await);
    upload_built(&host.api, "tests/guests/moody", "moody").await;
    let broken = |rollback: bool| {
        let judge = json!({"plugin": "moody", "config": {"mood": "trap"}});
        json!({"judge": judge, "retry": patient(), "rollback_on_quarantine": rollback})
    };
    host.api.put_group("g", json!({"retry": patient()})).await;
    host.api.put_group("g", broken(true)).await;
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(host.api.job_id("g", json!({"url": receiver.url("/a")})).await);
    }
    let moved = rolled_back(&host.api).await;
    assert_eq!(
        (&moved["from_version"], &moved["to_version"], &moved["automatic"]),
        (&json!(2), &json!(1), &json!(true))
    );
    assert!(moved["why"].as_str().unwrap().contains("judge: `moody@0.1.0`"), "{moved}");
    for id in &ids {
        host.api.until_state(id, "succeeded").await;
        let attempts = host.api.attempts(id).await;
        let versions: Vec<_> = attempts.iter().map(|attempt| attempt["binding_version"].as_i64().unwrap()).collect();
        assert!(versions.starts_with(&[2]) && versions.ends_with(&[1]), "{versions:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quarantine_stays_where_nothing_better_was() {
    let host = Setup::new().set("policy.quarantine", "1h").start().await;
    let receiver = Receiver::start().await;
    upload_built(&host.api, "tests/guests/moody", "moody").await;
    let trap = |base: &str, rollback: bool| {
        json!({"judge": {"plugin": "moody", "config": {"mood": "trap"}}, "rollback_on_quarantine": rollback,
            "retry": {"config": {"base": base, "jitter": 0, "max_attempts": 5}}})
    };
    // The version before has the same judge.
    host.api.put_group("g", trap("1ms", true)).await;
    host.api.put_group("g", trap("2ms", true)).await;
    for _ in 0..3 {
        assert_eq!(ends(&host.api, &receiver.url("/a")).await, 2);
    }
    // It is said that it should not be.
    host.api.put_group("g", json!({})).await;
    host.api.put_group("g", trap("3ms", false)).await;
    for _ in 0..3 {
        assert_eq!(ends(&host.api, &receiver.url("/b")).await, 4);
    }
    let group = host.api.get("/v1/groups/g").await.expect(200);
    assert_eq!((&group["binding"], &group["quarantined"][0]["role"]), (&json!(4), &json!("judge")));
    assert!(host.api.get(HISTORY).await.items().iter().all(|it| it["action"] == "bind"));
}
