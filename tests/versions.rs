//! Versions of a group's policy: immutable, numbered, put in force and taken back, and who did so.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{
    Answer, Api, DATABASE, Gate, JUDGE_PATH, ManualClock, Receiver, Setup, TestHost, cluster, judge, upload,
};

const VERSIONS: &str = "/v1/groups/g/policy/versions";
const PROMOTE: &str = "/v1/groups/g/policy/promote";
const ROLLBACK: &str = "/v1/groups/g/policy/rollback";

/// Takes only this status for a success, and gives up at once.
fn expecting(status: u16) -> Value {
    json!({"judge": {"config": {"expect": [status]}}, "retry": {"config": {"max_attempts": 1}}})
}

async fn numbers(api: &Api) -> Vec<i64> {
    let all = api.get(&format!("{VERSIONS}?limit=1000")).await;
    all.items().iter().map(|version| version["version"].as_i64().unwrap()).collect()
}

/// What becomes of a job whose receiver answers 202, and by which version.
async fn ends(api: &Api, receiver: &Receiver) -> (String, i64) {
    receiver.on("/202", [Answer::status(202)]);
    let id = api.job_id("g", json!({"url": receiver.url("/202")})).await;
    let job = api.until(&id, "ends", |job| !job["finished_at"].is_null()).await;
    let attempt = &api.attempts(&id).await[0];
    (job["state"].as_str().unwrap().to_owned(), attempt["binding_version"].as_i64().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_change_of_the_policy_is_a_version() {
    let host = TestHost::start().await;
    let made = host.api.put("/v1/groups/g?why=first", expecting(200)).await.expect(201);
    assert_eq!((&made["binding"], &made["version"]), (&json!(1), &json!(1)));
    let limits = json!({"judge": {"config": {"expect": [200]}}, "retry": {"config": {"max_attempts": 1}}, "limits": {"ttl": "1h"}});
    assert_eq!(host.api.put_group("g", limits).await["binding"], 1, "limits are not part of it");
    host.api.post("/v1/groups/g/pause", json!({})).await.expect(200);
    host.api.post("/v1/groups/g/resume", json!({})).await.expect(200);
    assert_eq!(host.api.put("/v1/groups/g?why=second", expecting(202)).await.expect(200)["binding"], 2);
    assert_eq!(numbers(&host.api).await, [2, 1]);

    let first = host.api.get(&format!("{VERSIONS}/1")).await.expect(200);
    assert_eq!((&first["policy"], &first["active"]), (&expecting(200), &json!(false)));
    assert_eq!(
        (&first["by"], &first["why"]),
        (&json!({"token": "configuration", "name": "first administrator"}), &json!("first"))
    );
    let plugins = first["plugins"].as_array().unwrap();
    assert_eq!((&plugins[0]["role"], &plugins[1]["role"]), (&json!("judge"), &json!("retry")));
    assert!(plugins[0]["plugin"].as_str().unwrap().starts_with("expected-status@"), "{first}");
    assert_eq!(plugins[0]["digest"].as_str().unwrap().len(), 64);

    for missing in ["0", "3", "-1", "x", "99999999999999999999"] {
        host.api.get(&format!("{VERSIONS}/{missing}")).await.problem(404);
    }
    host.api.put(&format!("/v1/groups/g?why={}", "x".repeat(1_025)), json!({})).await.problem_at(422, "/why");
    assert_eq!(host.api.get(&format!("{VERSIONS}?limit=1")).await.expect(200)["next_cursor"], "2");
    assert_eq!(host.api.get(&format!("{VERSIONS}?cursor=2")).await.items()[0]["version"], 1);
    host.api.get(&format!("{VERSIONS}?cursor=x")).await.problem(400);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_candidate_decides_nothing_until_it_is_promoted_and_a_rollback_takes_it_back() {
    let (host, receiver) = (TestHost::start().await, Receiver::start().await);
    let mut events = host.api.follow("?kind=promote,rollback").await;
    host.api.put_group("g", expecting(200)).await;
    let mut candidate = expecting(202);
    candidate["why"] = "it answers 202 now".into();
    let made = host.api.post(VERSIONS, candidate).await.expect(201);
    assert_eq!(
        (&made["version"], &made["active"], &made["why"]),
        (&json!(2), &json!(false), &json!("it answers 202 now"))
    );
    assert_eq!(ends(&host.api, &receiver).await, ("dead".to_owned(), 1));

    let promoted = host.api.post(PROMOTE, json!({"version": 2, "why": "tried"})).await.expect(200);
    assert_eq!((&promoted["binding"], &promoted["judge"]), (&json!(2), &expecting(202)["judge"]));
    assert_eq!(ends(&host.api, &receiver).await, ("succeeded".to_owned(), 2));
    host.api.post(PROMOTE, json!({"version": 2})).await.problem(409);

    let back = host.api.post(ROLLBACK, json!({"why": "no"})).await.expect(200);
    assert_eq!(back["binding"], 1);
    assert_eq!(ends(&host.api, &receiver).await, ("dead".to_owned(), 1));
    host.api.raw(reqwest::Method::POST, ROLLBACK, "").await.problem(409);

    let moves = host.api.get("/v1/groups/g/policy/history").await.items();
    let told: Vec<_> =
        moves.iter().map(|it| (&it["action"], &it["from_version"], &it["to_version"], &it["why"])).collect();
    let (one, two) = (json!(1), json!(2));
    assert_eq!(
        told,
        [
            (&json!("rollback"), &two, &one, &json!("no")),
            (&json!("promote"), &one, &two, &json!("tried")),
            (&json!("bind"), &Value::Null, &one, &Value::Null),
        ]
    );
    assert!(moves.iter().all(|it| it["by"]["name"] == "first administrator" && it["automatic"] == false), "{moves:?}");
    let second = host.api.get("/v1/groups/g/policy/history?limit=1&cursor=2").await.items();
    assert_eq!(second[0], moves[1]);
    let events = events.take(2).await;
    let told: Vec<_> = events.iter().map(|event| (&event["kind"], &event["binding"], &event["reason"])).collect();
    assert_eq!(told, [(&json!("promote"), &two, &json!("tried")), (&json!("rollback"), &one, &json!("no"))]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn invalid_version_is_refused_by_field() {
    let host = TestHost::start().await;
    host.api.put_group("g", json!({})).await;
    for (body, pointer) in [
        (json!({"judge": {"plugin": "nobody"}}), "/judge/plugin"),
        (json!({"retry": {"config": {"base": "soon"}}}), "/retry/config"),
        (json!({"limits": {"ttl": "1h"}}), "/limits"),
        (json!({"pin": "job"}), "/pin"),
        (json!({"why": 7}), "/why"),
        (json!({"why": "x".repeat(1_025)}), "/why"),
    ] {
        host.api.post(VERSIONS, body).await.problem_at(422, pointer);
    }
    host.api.post(VERSIONS, json!([])).await.problem(400);
    assert_eq!(numbers(&host.api).await, [1]);
    host.api.post(PROMOTE, json!({"version": 7})).await.problem_at(422, "/version");
    host.api.post(PROMOTE, json!({"version": "two"})).await.problem_at(400, "/version");
    host.api.post("/v1/groups/none/policy/promote", json!({"version": 1})).await.problem(404);
    host.api.put("/v1/groups/g", json!({"pin": "tight"})).await.problem_at(422, "/pin");
    let viewer = host.api.with_token(&host.api.token(json!({"role": "producer"})).await);
    viewer.post(PROMOTE, json!({"version": 1})).await.problem(403);
    assert_eq!(numbers(&viewer).await, [1]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_candidate_whose_key_has_gone_is_not_promoted() {
    let host = TestHost::start().await;
    host.api.put_group("g", json!({})).await;
    host.api.put("/v1/keys/k", json!({"secret": "s"})).await.expect(204);
    host.api.post(VERSIONS, json!({"sign": {"plugin": "werkzeug-cookie", "keys": ["k"]}})).await.expect(201);
    host.api.delete("/v1/keys/k").await.expect(204);
    let problem = host.api.post(PROMOTE, json!({"version": 2})).await.problem(409);
    assert!(problem["detail"].as_str().unwrap().contains("`k`"), "{problem}");
    assert_eq!(host.api.get("/v1/groups/g").await.expect(200)["binding"], 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pinned_job_keeps_its_version_unless_that_is_rolled_back() {
    let clock = ManualClock::new();
    let (host, receiver) = (Setup::with_clock(&clock).start().await, Receiver::with_clock(clock.clone()).await);
    receiver.on("/202", [Answer::status(202)]);
    let pinned = |status| {
        let mut group = expecting(status);
        group["pin"] = "job".into();
        group
    };
    let post = || host.api.job_id("g", json!({"url": receiver.url("/202"), "run_at": "+1h"}));
    host.api.put_group("g", pinned(202)).await;
    let first = post().await;
    host.api.put_group("g", pinned(200)).await;
    let second = post().await;
    assert_eq!(
        (&host.api.job(&first).await["binding"], &host.api.job(&second).await["binding"]),
        (&json!(1), &json!(2))
    );
    let patched =
        host.api.raw(reqwest::Method::PATCH, &format!("/v1/jobs/{second}"), r#"{"name": "n"}"#).await.expect(200);
    assert_eq!(patched["binding"], 2, "an edit does not unpin it");
    host.api.put_group("g", pinned(500)).await;
    let (third, flown) =
        (post().await, json!({"url": receiver.url("/202"), "on_failure": {"url": receiver.url("/202")}}));
    clock.advance(Duration::from_secs(3_600));
    host.api.until_state(&first, "succeeded").await;
    for (id, version) in [(&first, 1), (&second, 2), (&third, 3)] {
        host.api.until(id, "ends", |job| !job["finished_at"].is_null()).await;
        assert_eq!(host.api.attempts(id).await[0]["binding_version"], version);
    }

    let gate = Gate::closed();
    receiver.on("/202", [Answer::status(202).held(&gate)]);
    let parent = host.api.job_id("g", flown).await;
    receiver.arrived("/202", 4).await;
    host.api.put_group("g", pinned(202)).await;
    gate.release(2);
    host.api.until_state(&parent, "dead").await;
    receiver.on("/202", [Answer::status(202)]);
    let jobs = host.api.get("/v1/groups/g/jobs").await.items();
    let child = jobs.iter().find(|job| job["parent"] == json!(parent)).unwrap();
    assert_eq!(child["binding"], 4, "it is made when the other one ends");

    host.api.put_group("g", pinned(500)).await;
    let stranded = post().await;
    host.api.post(ROLLBACK, json!({})).await.expect(200);
    clock.advance(Duration::from_secs(3_600));
    assert_eq!(host.api.until_state(&stranded, "succeeded").await["binding"], 5, "pinned to what was rolled back");
    assert_eq!(host.api.attempts(&stranded).await[0]["binding_version"], 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn old_versions_are_bounded_but_for_those_that_jobs_are_pinned_to() {
    let clock = ManualClock::new();
    let host = Setup::with_clock(&clock).start().await;
    let post = || host.api.job_id("g", json!({"url": "http://127.0.0.1:1/", "run_at": "+9h"}));
    host.api.put_group("g", json!({"pin": "job"})).await;
    let id = post().await;
    let put =
        |status: u16| host.api.put("/v1/groups/g", json!({"judge": {"config": {"expect": [status]}}, "pin": "job"}));
    put(100).await.expect(200);
    // What is accepted long after a version was retired is not pinned to it.
    clock.advance(Duration::from_secs(120));
    for status in 101..210 {
        put(status).await.expect(200);
    }
    let kept = numbers(&host.api).await;
    let expected: Vec<_> = (11..=111).rev().chain([2, 1]).collect();
    assert_eq!(kept, expected, "the job was accepted while one of these two was in force");
    host.api.delete(&format!("/v1/jobs/{id}")).await.expect(200);
    let late = post().await;
    put(300).await.expect(200);
    assert_eq!(numbers(&host.api).await, (11..=112).rev().chain([2]).collect::<Vec<_>>());
    host.api.delete(&format!("/v1/jobs/{late}")).await.expect(200);
    host.api.delete("/v1/groups/g").await.expect(204);
    host.api.put("/v1/groups/g", json!({})).await.expect(201);
    assert_eq!(numbers(&host.api).await, [1], "a new group of that name begins anew");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn versions_survive_a_restart() {
    let host = TestHost::start().await;
    host.api.put_group("g", expecting(200)).await;
    host.api.put_group("g", expecting(202)).await;
    host.api.post(VERSIONS, expecting(500)).await.expect(201);
    let (versions, moves) =
        (host.api.get(VERSIONS).await.items(), host.api.get("/v1/groups/g/policy/history").await.items());
    let dir = host.dir.clone();
    host.stop().await;
    let host = Setup::new().in_dir(&dir).start().await;
    assert_eq!(host.api.get(VERSIONS).await.items(), versions);
    assert_eq!(host.api.get("/v1/groups/g/policy/history").await.items(), moves);
    assert_eq!(host.api.post(ROLLBACK, json!({})).await.expect(200)["binding"], 1);
    assert_eq!(host.api.put_group("g", expecting(503)).await["binding"], 4, "a number is given once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plugin_version_is_kept_while_a_version_of_a_policy_uses_it() {
    let host = TestHost::start().await;
    let api = &host.api;
    let bytes = judge().await;
    let plugin = upload(api, JUDGE_PATH, bytes.clone()).await.expect(201);
    let downloaded = api.get(&format!("{JUDGE_PATH}/component")).await;
    assert_eq!((downloaded.status, &downloaded.body), (200, &bytes));
    assert_eq!(downloaded.headers["content-type"], "application/wasm");
    api.put_group("g", json!({"judge": {"plugin": "judge-json-ok"}})).await;
    let bound = &api.get(&format!("{VERSIONS}/1")).await.expect(200)["plugins"][0];
    assert_eq!((&bound["plugin"], &bound["digest"]), (&json!("judge-json-ok@0.1.0"), &plugin["digest"]));
    assert_eq!(api.get("/v1/groups/g").await.expect(200)["warnings"], Value::Null);

    let deprecate = |why: Value| api.raw(reqwest::Method::PATCH, JUDGE_PATH, json!({"deprecated": why}).to_string());
    assert_eq!(deprecate(json!("use 0.2.0")).await.expect(200)["deprecated"], "use 0.2.0");
    let warned = api.put_group("g", json!({"judge": {"plugin": "judge-json-ok"}})).await;
    assert_eq!(warned["warnings"], json!(["judge: `judge-json-ok@0.1.0` is deprecated: use 0.2.0"]));
    deprecate(json!("")).await.problem_at(422, "/deprecated");
    assert_eq!(deprecate(Value::Null).await.expect(200)["deprecated"], Value::Null);

    let problem = api.delete(JUDGE_PATH).await.problem(409);
    assert!(problem["detail"].as_str().unwrap().contains("the group `g`"), "{problem}");
    api.put_group("g", json!({})).await;
    let problem = api.delete(JUDGE_PATH).await.problem(409);
    assert!(problem["detail"].as_str().unwrap().contains("version 1 of the policy of the group `g`"), "{problem}");
    api.delete("/v1/groups/g").await.expect(204);
    api.put("/v1/tenants/default", json!({"defaults": {"judge": {"plugin": "judge-json-ok"}}})).await.expect(200);
    assert!(api.delete(JUDGE_PATH).await.problem(409)["detail"].as_str().unwrap().contains("defaults"));
    api.put("/v1/tenants/default", json!({})).await.expect(200);
    api.delete(JUDGE_PATH).await.expect(204);
    api.delete(JUDGE_PATH).await.problem(404);
    api.get(JUDGE_PATH).await.problem(404);
    api.get(&format!("{JUDGE_PATH}/component")).await.problem(404);
    upload(api, JUDGE_PATH, bytes).await.expect(201);

    let builtin = api.get("/v1/plugins/backoff").await.expect(200);
    let path = format!("/v1/plugins/backoff/versions/{}", builtin["version"].as_str().unwrap());
    api.delete(&path).await.problem(409);
    api.raw(reqwest::Method::PATCH, &path, r#"{"deprecated": "no"}"#).await.problem(409);
    assert_eq!(api.get(&format!("{path}/component")).await.body.len(), builtin["size"].as_u64().unwrap() as usize);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn version_moved_on_one_node_is_moved_on_all() {
    let cluster = cluster();
    let node = async || Setup::new().set("store.url", &cluster.url(DATABASE)).start().await;
    let (one, two) = (node().await, node().await);
    one.api.put_group("g", expecting(200)).await;
    two.api.until_status("/v1/groups/g", 200).await;
    let propose = |n: u16| [&one, &two].map(|node| node.api.post(VERSIONS, expecting(300 + n)));
    let made = futures_util::future::join_all((0..4).flat_map(propose)).await;
    let mut made: Vec<_> = made.iter().map(|reply| reply.expect(201)["version"].as_i64().unwrap()).collect();
    made.sort_unstable();
    assert_eq!(made, (2..=9).collect::<Vec<_>>(), "no number is given twice");

    one.api.post(PROMOTE, json!({"version": 5})).await.expect(200);
    two.api.until_shown("/v1/groups/g", |group| group["binding"] == 5).await;
    assert_eq!(
        two.api.get(&format!("{VERSIONS}/5")).await.expect(200),
        one.api.get(&format!("{VERSIONS}/5")).await.expect(200)
    );
    assert_eq!(two.api.post(ROLLBACK, json!({})).await.expect(200)["binding"], 1);
}
