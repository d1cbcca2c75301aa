//! Jobs as the API shows them: lists, pages, cancelling, keeping.

use std::collections::HashSet;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Answer, Gate, ManualClock, Receiver, Setup, TestHost, id_of};

const NOWHERE: &str = "http://127.0.0.1:1/";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_is_shown_as_it_was_posted() {
    let clock = ManualClock::new();
    let host = Setup::with_clock(&clock).start().await;
    host.api.put_group("g", json!({"limits": {"ttl": "2h"}})).await;
    let posted = json!({
        "url": "http://example.com/a?b=c", "method": "put", "headers": {"X-A": "b"}, "payload_text": "12345",
        "run_at": "2026-11-20T10:00:00.250Z", "name": "n", "metadata": {"k": "v"},
    });
    let made = host.api.post_job("g", posted).await;
    assert_eq!(made, host.api.job(made["id"].as_str().unwrap()).await, "the answer to the post is the job");
    for (field, value) in [
        ("group", json!("g")),
        ("name", json!("n")),
        ("state", json!("scheduled")),
        ("run_at", json!("2026-11-20T10:00:00.250Z")),
        ("created_at", json!("2026-11-20T10:00:00.000Z")),
        ("deadline", json!("2026-11-20T12:00:00.000Z")),
        ("finished_at", Value::Null),
        ("attempt_count", json!(0)),
        ("last_status", Value::Null),
        ("metadata", json!({"k": "v"})),
    ] {
        assert_eq!(made[field], value, "{field}");
    }
    assert_eq!(made["request"]["method"], "PUT");
    assert_eq!(made["request"]["url"], "http://example.com/a?b=c");
    assert_eq!(made["request"]["headers"], json!([{"name": "X-A", "value": "b"}]));
    assert_eq!(made["payload_bytes"], 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn times_are_understood_in_all_their_forms() {
    let clock = ManualClock::new();
    let host = Setup::with_clock(&clock).start().await;
    host.api.put_group("g", json!({})).await;
    host.api.post("/v1/groups/g/pause", json!({})).await.expect(200);
    for (run_at, expected) in [
        (json!("+90s"), "2026-11-20T10:01:30.000Z"),
        (json!("+2d"), "2026-11-22T10:00:00.000Z"),
        (json!(1_795_168_801), "2026-11-20T10:00:01.000Z"),
        (json!("2026-11-20T13:00:00+02:00"), "2026-11-20T11:00:00.000Z"),
        (json!("1999-01-01T00:00:00Z"), "2026-11-20T10:00:00.000Z"),
        (Value::Null, "2026-11-20T10:00:00.000Z"),
    ] {
        let made = host.api.post_job("g", json!({"url": NOWHERE, "run_at": run_at})).await;
        assert_eq!(made["run_at"], expected, "{run_at}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_are_listed_newest_first_page_by_page_and_by_state_and_name() {
    let clock = ManualClock::new();
    let host = Setup::with_clock(&clock).start().await;
    host.api.put_group("g", json!({})).await;
    let mut ids = Vec::new();
    for number in 0..7 {
        let name = if number % 2 == 0 { "even" } else { "odd" };
        ids.push(host.api.job_id("g", json!({"url": NOWHERE, "run_at": "+1h", "name": name})).await);
        clock.advance(Duration::from_millis(1));
    }
    host.api.delete(&format!("/v1/jobs/{}", ids[2])).await.expect(200);

    let (mut listed, mut query) = (Vec::new(), String::from("?limit=3"));
    for expected in [3, 3, 1] {
        let page = host.api.get(&format!("/v1/groups/g/jobs{query}")).await.expect(200);
        let items = page["items"].as_array().unwrap().clone();
        assert_eq!(items.len(), expected);
        listed.extend(items.iter().map(|job| job["id"].as_str().unwrap().to_owned()));
        query = format!("?limit=3&cursor={}", page["next_cursor"].as_str().unwrap_or("none"));
    }
    assert!(query.ends_with("none"), "the last page says so");
    listed.reverse();
    assert_eq!(listed, ids);

    let list = async |query: &str| host.api.get(&format!("/v1/groups/g/jobs?{query}")).await.items();
    assert_eq!(list("state=cancelled").await.len(), 1);
    assert_eq!(list("state=scheduled").await.len(), 6);
    assert_eq!(list("name=odd").await.len(), 3);
    assert_eq!(list("name=even&state=scheduled").await.len(), 3);
    assert!(list("name=eve").await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_is_accepted_in_its_order() {
    let host = TestHost::start().await;
    host.api.put_group("g", json!({})).await;
    let jobs: Vec<_> = (0..10_000).map(|n| json!({"url": NOWHERE, "run_at": "+1h", "name": n.to_string()})).collect();
    let made = host.api.post("/v1/groups/g/jobs/batch", json!({"jobs": jobs})).await.expect(201);
    let ids: Vec<_> = made["ids"].as_array().unwrap().iter().map(|id| id.as_str().unwrap()).collect();
    assert_eq!(ids.iter().collect::<HashSet<_>>().len(), 10_000);
    assert_eq!(host.api.stats("g").await["delayed"], 10_000);
    for at in [0, 4_999, 9_999] {
        assert_eq!(host.api.job(ids[at]).await["name"], at.to_string());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_waiting_job_is_cancelled_and_never_delivered() {
    let clock = ManualClock::new();
    let host = Setup::with_clock(&clock).start().await;
    let receiver = Receiver::with_clock(clock.clone()).await;
    host.api.put_group("g", json!({})).await;
    let id = host.api.job_id("g", json!({"url": receiver.url("/a"), "run_at": "+1m"})).await;
    let cancelled = host.api.delete(&format!("/v1/jobs/{id}")).await.expect(200);
    assert_eq!((&cancelled["state"], &cancelled["attempt_count"]), (&json!("cancelled"), &json!(0)));
    assert_eq!(cancelled["finished_at"], "2026-11-20T10:00:00.000Z");
    assert_eq!(host.api.delete(&format!("/v1/jobs/{id}")).await.expect(200)["state"], "cancelled", "twice is once");
    clock.advance(Duration::from_secs(120));
    host.looked(&receiver).await;
    assert_eq!(receiver.count("/a"), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_job_is_cancelled_unless_its_attempt_succeeds() {
    let host = TestHost::start().await;
    let receiver = Receiver::start().await;
    let gate = Gate::closed();
    receiver.on("/200", [Answer::status(200).held(&gate)]);
    receiver.on("/500", [Answer::status(500).held(&gate)]);
    host.api.put_group("g", json!({})).await;
    for (path, state) in [("/200", "succeeded"), ("/500", "cancelled")] {
        let id = host.api.job_id("g", json!({"url": receiver.url(path)})).await;
        receiver.arrived(path, 1).await;
        let asked = host.api.delete(&format!("/v1/jobs/{id}")).await.expect(202);
        assert_eq!((&asked["state"], &asked["cancel_requested"]), (&json!("running"), &json!(true)));
        gate.release(1);
        let ended = host.api.until(&id, "ends", |job| !job["finished_at"].is_null()).await;
        assert_eq!((&ended["state"], &ended["attempt_count"]), (&json!(state), &json!(1)));
        assert_eq!(receiver.count(path), 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_finished_job_cannot_be_cancelled() {
    let host = TestHost::start().await;
    let receiver = Receiver::start().await;
    receiver.on("/500", [Answer::status(500)]);
    host.api.put_group("g", json!({"retry": {"config": {"max_attempts": 1}}})).await;
    for (path, state) in [("/200", "succeeded"), ("/500", "dead")] {
        let id = host.api.job_id("g", json!({"url": receiver.url(path)})).await;
        host.api.until_state(&id, state).await;
        host.api.delete(&format!("/v1/jobs/{id}")).await.problem(409);
        assert_eq!(host.api.job(&id).await["state"], state);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn finished_jobs_are_kept_as_long_as_is_said_and_then_go_with_their_attempts() {
    let clock = ManualClock::new();
    let host = Setup::with_clock(&clock).set("retention.succeeded", "1h").start().await;
    let receiver = Receiver::with_clock(clock.clone()).await;
    receiver.on("/500", [Answer::status(500)]);
    host.api.put_group("g", json!({"retry": {"config": {"max_attempts": 1}}})).await;
    let short = host.api.job_id("g", json!({"url": receiver.url("/200")})).await;
    let long = host.api.job_id("g", json!({"url": receiver.url("/500")})).await;
    host.api.until_state(&short, "succeeded").await;
    host.api.until_state(&long, "dead").await;
    clock.advance(Duration::from_secs(59 * 60));
    host.looked(&receiver).await;
    host.api.job(&short).await;

    clock.advance(Duration::from_secs(120));
    host.api.until_status(&format!("/v1/jobs/{short}"), 404).await;
    host.api.get(&format!("/v1/jobs/{short}/attempts")).await.problem(404);
    assert_eq!(host.api.attempts(&long).await.len(), 1, "what is dead is kept for longer");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn password_of_a_url_is_hidden_wherever_it_is_shown_and_sent_all_the_same() {
    let (host, receiver) = (TestHost::start().await, Receiver::start().await);
    host.api.put_group("g", json!({})).await;
    let url = receiver.url("/x").replace("http://", "http://me:secret@");
    let job = json!({"url": url, "payload": 1});
    let posted = host.api.post("/v1/groups/g/jobs", job.clone()).await.expect(201);
    let id = id_of(&posted);
    let schedule = json!({"group": "g", "cron": "0 0 1 1 *", "job": job});
    let made = host.api.put("/v1/schedules/s", schedule).await.ok();
    let trial = json!({"job": job, "responses": [{"status": 200}]});
    let foretold = host.api.post("/v1/groups/g/policy/simulate", trial).await.expect(200);
    host.api.until_state(&id, "succeeded").await;
    let mut shown = vec![posted, made, foretold, host.api.job(&id).await];
    for path in ["/v1/groups/g/jobs", "/v1/schedules", "/v1/schedules/s"] {
        shown.push(host.api.get(path).await.expect(200));
    }
    for view in shown {
        let text = view.to_string();
        assert!(!text.contains("secret"), "{text}");
        assert!(text.contains("me:***@"), "it says that there is one: {text}");
    }
    assert_eq!(receiver.arrivals("/x")[0].header("authorization"), Some("Basic bWU6c2VjcmV0"));
    let shown = json!({"url": url.replace("secret", "***")});
    host.api.post("/v1/groups/g/jobs", shown).await.problem_at(422, "/url");
}
