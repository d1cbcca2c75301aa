//! Groups: put, list, pause, resume, delete, and counts that are exact.

use serde_json::{Value, json};

use crate::support::{Answer, Gate, ManualClock, Receiver, Setup, TestHost};

const NOWHERE: &str = "http://127.0.0.1:1/";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_is_made_changed_and_shown() {
    let host = TestHost::start().await;
    let made = host.api.put("/v1/groups/g", json!({"limits": {"ttl": "1h"}})).await.expect(201);
    assert_eq!((&made["name"], &made["version"], &made["paused"]), (&json!("g"), &json!(1), &json!(false)));
    let changed = host.api.put("/v1/groups/g", json!({"limits": {"concurrency": 2}})).await.expect(200);
    assert_eq!(changed["version"], 2);
    let shown = host.api.get("/v1/groups/g").await.expect(200);
    assert_eq!(shown["limits"], json!({"concurrency": 2}), "what is put replaces what was there");
    assert_eq!(shown["broken"], Value::Null);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_group_waits_and_goes_on() {
    let clock = ManualClock::new();
    let host = Setup::with_clock(&clock).start().await;
    let receiver = Receiver::with_clock(clock).await;
    host.api.put_group("g", json!({})).await;
    assert_eq!(host.api.post("/v1/groups/g/pause", json!({})).await.expect(200)["paused"], true);
    let id = host.api.job_id("g", json!({"url": receiver.url("/a")})).await;
    host.looked(&receiver).await;
    assert_eq!(receiver.count("/a"), 0);
    assert_eq!(host.api.job(&id).await["state"], "scheduled");

    let changed = host.api.put_group("g", json!({"limits": {"ttl": "1h"}})).await;
    assert_eq!(changed["paused"], true, "a paused group stays paused when it is changed");
    assert_eq!(host.api.post("/v1/groups/g/resume", json!({})).await.expect(200)["paused"], false);
    host.api.until_state(&id, "succeeded").await;
    assert_eq!(receiver.count("/a"), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_with_waiting_jobs_is_not_deleted_and_its_finished_jobs_go_with_it() {
    let host = TestHost::start().await;
    let receiver = Receiver::start().await;
    host.api.put_group("g", json!({})).await;
    let done = host.api.job_id("g", json!({"url": receiver.url("/a")})).await;
    host.api.until_state(&done, "succeeded").await;
    let waiting = host.api.job_id("g", json!({"url": NOWHERE, "run_at": "+1h"})).await;
    host.api.delete("/v1/groups/g").await.problem(409);
    host.api.get("/v1/groups/g").await.expect(200);

    host.api.delete(&format!("/v1/jobs/{waiting}")).await.expect(200);
    assert_eq!(host.api.delete("/v1/groups/g").await.status, 204);
    host.api.get("/v1/groups/g").await.problem(404);
    host.api.post("/v1/groups/g/jobs", json!({"url": NOWHERE})).await.problem(404);

    host.api.put("/v1/groups/g", json!({})).await.expect(201);
    assert!(host.api.get("/v1/groups/g/jobs").await.items().is_empty(), "a new group of that name starts empty");
    assert_eq!(host.api.stats("g").await["succeeded"], 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_is_kept_while_a_group_signs_with_it() {
    let host = TestHost::start().await;
    host.api.put("/v1/keys/k", json!({"secret": "s"})).await.expect(204);
    host.api.put_group("g", json!({"sign": {"plugin": "werkzeug-cookie", "keys": ["k"]}})).await;
    host.api.delete("/v1/keys/k").await.problem(409);
    assert_eq!(host.api.delete("/v1/groups/g").await.status, 204);
    assert_eq!(host.api.delete("/v1/keys/k").await.status, 204);
    host.api.get("/v1/keys/k").await.problem(404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stats_are_exact() {
    let clock = ManualClock::new();
    let host = Setup::with_clock(&clock).start().await;
    let receiver = Receiver::with_clock(clock).await;
    let gate = Gate::closed();
    receiver.on("/running", [Answer::status(200).held(&gate)]);
    receiver.on("/dead", [Answer::status(500)]);
    let once = json!({"retry": {"max_attempts": 1}});
    host.api.put_group("g", json!({})).await;
    for path in ["/ok", "/ok", "/ok"] {
        host.api.until_state(&host.api.job_id("g", json!({"url": receiver.url(path)})).await, "succeeded").await;
    }
    for _ in 0..2 {
        let job = json!({"url": receiver.url("/dead"), "policy": once});
        host.api.until_state(&host.api.job_id("g", job).await, "dead").await;
    }
    let cancelled = host.api.job_id("g", json!({"url": NOWHERE, "run_at": "+1h"})).await;
    host.api.delete(&format!("/v1/jobs/{cancelled}")).await.expect(200);
    for _ in 0..4 {
        host.api.job_id("g", json!({"url": receiver.url("/running")})).await;
    }
    receiver.arrived("/running", 4).await;
    host.api.post("/v1/groups/g/pause", json!({})).await.expect(200);
    for run_at in ["+0s", "+1h", "+2h"] {
        host.api.job_id("g", json!({"url": NOWHERE, "run_at": run_at})).await;
    }
    let expected = json!({
        "scheduled": 3, "running": 4, "succeeded": 3, "dead": 2, "expired": 0, "cancelled": 1,
        "available": 1, "in_flight": 4, "delayed": 2,
    });
    assert_eq!(host.api.stats("g").await, expected);
    gate.release(4);
    host.api.until_succeeded("g", 7).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn groups_are_listed_page_by_page() {
    let host = TestHost::start().await;
    for name in ["c", "a", "e", "b", "d"] {
        host.api.put_group(name, json!({})).await;
    }
    let (mut names, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = host.api.get(&format!("/v1/groups?limit=2{cursor}")).await.expect(200);
        let items = page["items"].as_array().unwrap();
        assert!(items.len() <= 2);
        names.extend(items.iter().map(|group| group["name"].as_str().unwrap().to_owned()));
        let Some(next) = page["next_cursor"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    assert_eq!(names, ["a", "b", "c", "d", "e"]);
}
