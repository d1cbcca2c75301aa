//! What can be done to jobs that exist, one by one and many at once.

use std::time::Duration;

use carillon_core::clock::Clock as _;
use serde_json::{Value, json};

use crate::support::{Answer, ManualClock, Receiver, Setup, TestHost, ms};

async fn host() -> (std::sync::Arc<ManualClock>, TestHost, Receiver) {
    let clock = ManualClock::new();
    let host = Setup::with_clock(&clock).start().await;
    let receiver = Receiver::with_clock(clock.clone()).await;
    host.api
        .put_group(
            "g",
            json!({"retry": {"plugin": "backoff", "config": {"kind": "fixed", "base": "1s", "jitter": 0, "max_attempts": 2}}}),
        )
        .await;
    (clock, host, receiver)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_waiting_job_is_moved_and_run_now() {
    let (clock, host, receiver) = host().await;
    let job = json!({"name": "n", "url": receiver.url("/a"), "run_at": "+1h"});
    let id = host.api.job_id("g", job).await;
    let moved = host.api.post(&format!("/v1/jobs/{id}/reschedule"), json!({"run_at": "+2h"})).await.expect(200);
    assert_eq!(ms(&moved["run_at"]), clock.now().plus(Duration::from_secs(7_200)));
    host.api.post(&format!("/v1/jobs/{id}/reschedule"), json!({"run_at": "soon"})).await.problem_at(422, "/run_at");
    clock.advance(Duration::from_secs(3_600));
    host.looked(&receiver).await;
    assert_eq!(receiver.count("/a"), 0);
    host.api.post("/v1/jobs/n/run?group=g", json!({})).await.expect(200);
    host.api.until_state(&id, "succeeded").await;
    for verb in ["run", "retry", "reschedule"] {
        host.api.post(&format!("/v1/jobs/{id}/{verb}"), json!({"run_at": "+1s"})).await.problem(409);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_means_the_unfinished_job_of_it() {
    let (_, host, receiver) = host().await;
    let job = json!({"name": "a b/c", "url": receiver.url("/a"), "run_at": "+1h"});
    let first = host.api.job_id("g", job.clone()).await;
    let second = host.api.job_id("g", job).await;
    let path = "/v1/jobs/a%20b%2Fc?group=g";
    assert_eq!(host.api.get(path).await.expect(200)["id"], second.as_str(), "the newest");
    host.api.delete(path).await.expect(200);
    assert_eq!(host.api.get(path).await.expect(200)["id"], first.as_str(), "an unfinished one first");
    host.api.delete(path).await.expect(200);
    assert_eq!(host.api.get(path).await.expect(200)["id"], second.as_str());
    host.api.get("/v1/jobs/a%20b%2Fc?group=nowhere").await.problem(404);
    host.api.get("/v1/jobs/nobody?group=g").await.problem(404);
    host.api.get(&format!("/v1/jobs/{first}?group=g")).await.problem(404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_waiting_job_is_edited() {
    let (clock, host, receiver) = host().await;
    let job = json!({
        "url": receiver.url("/old"), "payload": {"old": 1}, "run_at": "+1h", "metadata": {"k": "v", "gone": "x"},
        "limits": {"ttl": "2h"}, "headers": {"X-Old": "1"},
    });
    let id = host.api.job_id("g", job).await;
    let path = format!("/v1/jobs/{id}");
    let patch = json!({
        "url": receiver.url("/new"), "method": "PUT", "headers": {"X-Old": null, "X-New": "2"}, "payload": "PAYLOAD",
        "metadata": {"gone": null, "more": "y"}, "name": "renamed", "priority": 9, "run_at": "+10m",
    });
    let payload = r#"{ "new": [1.50] }"#;
    let patch = patch.to_string().replace("\"PAYLOAD\"", payload);
    let edited = host.api.send(host.api.request(reqwest::Method::PATCH, &path).body(patch)).await.expect(200);
    assert_eq!(edited["metadata"], json!({"k": "v", "more": "y"}));
    assert_eq!((&edited["name"], &edited["priority"]), (&json!("renamed"), &json!(9)));
    assert_eq!(ms(&edited["run_at"]), clock.now().plus(Duration::from_secs(600)));
    assert_eq!(ms(&edited["deadline"]), clock.now().plus(Duration::from_secs(7_200)), "it keeps its time to live");
    clock.advance(Duration::from_secs(600));
    let request = receiver.arrived("/new", 1).await.remove(0);
    assert_eq!((request.method.as_str(), request.text()), ("PUT", payload), "byte for byte");
    assert_eq!((request.header("x-new"), request.header("x-old")), (Some("2"), None));
    host.api.until_state(&id, "succeeded").await;
    let too_late = host.api.request(reqwest::Method::PATCH, &path).body("{}");
    host.api.send(too_late).await.problem(409);
    assert_eq!(receiver.count("/old"), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edit_that_makes_no_sense_changes_nothing() {
    let (_, host, receiver) = host().await;
    let id = host.api.job_id("g", json!({"url": receiver.url("/a"), "run_at": "+1h", "limits": {"ttl": "2h"}})).await;
    let before = host.api.job(&id).await;
    let edit = async |patch: Value| {
        let request = host.api.request(reqwest::Method::PATCH, &format!("/v1/jobs/{id}"));
        host.api.send(request.body(patch.to_string())).await
    };
    for (patch, pointer) in [
        (json!({"url": "ftp://a/"}), "/url"),
        (json!({"run_at": "+3h"}), "/run_at"),
        (json!({"order_key": "k"}), "/order_key"),
        (json!({"dedupe_key": "k"}), "/dedupe_key"),
        (json!({"limits": {"ttl": "5h"}}), "/limits/ttl"),
        (json!({"headers": {"Host": "else/where"}}), "/headers/Host"),
        (json!({"payload": 1, "payload_text": "1"}), "/payload"),
        (json!({"policy": {"wake": {}}}), "/policy/wake"),
    ] {
        edit(patch).await.problem_at(422, pointer);
    }
    edit(json!([])).await.problem(400);
    edit(json!({"priority": 10})).await.problem_at(400, "/priority");
    assert_eq!(host.api.job(&id).await, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_letter_gets_a_second_life() {
    let (clock, host, receiver) = host().await;
    let refuse = || vec![Answer::status(500); 2];
    receiver.on("/a", refuse());
    let id = host.api.job_id("g", json!({"url": receiver.url("/a")})).await;
    host.api.until_retry(&id, 1).await;
    clock.advance(Duration::from_secs(1));
    host.api.until_state(&id, "dead").await;
    receiver.on("/a", [Answer::status(500), Answer::status(200)]);
    let redriven = host.api.post(&format!("/v1/jobs/{id}/retry"), json!({})).await.expect(200);
    assert_eq!((&redriven["state"], &redriven["finished_at"]), (&json!("scheduled"), &Value::Null));
    host.api.until_retry(&id, 3).await;
    clock.advance(Duration::from_secs(1));
    let ended = host.api.until_state(&id, "succeeded").await;
    assert_eq!(ended["attempt_count"], 4, "its series began again, its attempts are all kept");
    let numbers: Vec<_> = host.api.attempts(&id).await.iter().map(|attempt| attempt["number"].clone()).collect();
    assert_eq!(numbers, [1, 2, 3, 4]);
}

async fn bulk(host: &TestHost, change: Value) -> Value {
    host.api.post("/v1/groups/g/bulk", change).await.ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_jobs_are_counted_and_then_changed_by_filter() {
    let (clock, host, receiver) = host().await;
    for number in 0..6 {
        let plan = if number % 2 == 0 { "free" } else { "paid" };
        let job = json!({"name": format!("mail-{number}"), "url": receiver.url("/m"), "run_at": "+1h", "metadata": {"plan": plan}});
        host.api.job_id("g", job).await;
    }
    let other = host.api.job_id("g", json!({"name": "sms", "url": receiver.url("/s"), "run_at": "+1h"})).await;
    let count = async |filter: Value| {
        let dry = bulk(&host, json!({"action": "cancel", "filter": filter, "dry_run": true})).await;
        assert_eq!((&dry["id"], &dry["done"]), (&Value::Null, &json!(0)));
        dry["total"].as_u64().unwrap()
    };
    assert_eq!(count(json!({})).await, 7);
    assert_eq!(count(json!({"name_prefix": "mail-"})).await, 6);
    assert_eq!(count(json!({"name_prefix": "mail-", "metadata": {"plan": "paid"}})).await, 3);
    assert_eq!(count(json!({"created_from": "2026-11-20T10:00:00.001Z"})).await, 0);
    assert_eq!(count(json!({"url": receiver.url("/m")})).await, 6);
    assert_eq!(count(json!({"url_prefix": receiver.url("/"), "name": "sms"})).await, 1);
    assert_eq!(count(json!({"due_from": "2026-11-20T11:00:00.001Z"})).await, 0);
    assert_eq!(count(json!({"due_before": "2026-11-20T11:00:00.001Z", "order_key": "none"})).await, 0);
    assert_eq!(host.api.stats("g").await["scheduled"], 7, "a dry run changes nothing");
    let due = "due_from=2026-11-20T10:30:00Z&due_before=2026-11-20T11:30:00Z";
    let url = format!("url_prefix={}", receiver.url("/s"));
    assert_eq!(host.api.get(&format!("/v1/groups/g/jobs?{due}&{url}")).await.items().len(), 1);
    let listed = host.api.get("/v1/groups/g/jobs?name_prefix=mail-&metadata.plan=paid&state=scheduled").await.items();
    assert_eq!(listed.len(), 3);

    let cancelled = bulk(&host, json!({"action": "cancel", "filter": {"metadata": {"plan": "free"}}})).await;
    assert_eq!((&cancelled["total"], &cancelled["done"], &cancelled["finished"]), (&json!(3), &json!(3), &json!(true)));
    let shown = host.api.get(&format!("/v1/bulk/{}", cancelled["id"].as_str().unwrap())).await.expect(200);
    assert_eq!(shown, cancelled);
    bulk(&host, json!({"action": "reschedule", "filter": {"name": "sms"}, "run_at": "+2h"})).await;
    assert_eq!(ms(&host.api.job(&other).await["run_at"]), clock.now().plus(Duration::from_secs(7_200)));
    bulk(&host, json!({"action": "run", "filter": {"name_prefix": "mail-"}})).await;
    receiver.arrived("/m", 3).await;
    host.looked(&receiver).await;
    assert_eq!((receiver.count("/m"), receiver.count("/s")), (3, 0));
    let purged = bulk(&host, json!({"action": "purge", "filter": {"state": "cancelled"}})).await;
    assert_eq!(purged["done"], 3);
    assert_eq!(host.api.stats("g").await["cancelled"], 0);
}

/// More than are changed before the answer.
const GOING_ROUND: usize = 1_500;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flush_reaches_jobs_that_are_tried_and_retried_meanwhile() {
    let host = Setup::new().set("limits.retry_floor", "0s").start().await;
    let receiver = Receiver::start().await;
    receiver.on("/r", vec![Answer::status(500); 40 * GOING_ROUND]);
    let retry = json!({"plugin": "backoff", "config": {"kind": "fixed", "base": "1ms", "max": null, "max_attempts": 1000000, "jitter": 0}});
    host.api.put_group("g", json!({"retry": retry, "limits": {"concurrency": 100}})).await;
    let jobs = vec![json!({"url": receiver.url("/r")}); GOING_ROUND];
    host.api.post("/v1/groups/g/jobs/batch", json!({"jobs": jobs})).await.expect(201);
    receiver.arrived("/r", 2 * GOING_ROUND).await;
    let flushed = host.api.post("/v1/groups/g/flush", json!({})).await.expect(202);
    let path = format!("/v1/bulk/{}", flushed["id"].as_str().unwrap());
    let flushed = host.api.until_shown(&path, |bulk| bulk["finished"] == true).await;
    assert_eq!(
        (&flushed["total"], &flushed["done"], &flushed["skipped"]),
        (&json!(GOING_ROUND), &json!(GOING_ROUND), &json!(0))
    );
    let stats = host.api.until_shown("/v1/groups/g/stats", |stats| stats["running"] == 0).await;
    assert_eq!((&stats["scheduled"], &stats["cancelled"]), (&json!(0), &json!(GOING_ROUND)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dead_letters_are_redriven_and_purged() {
    let (_, host, receiver) = host().await;
    receiver.on("/a", vec![Answer::status(500); 4]);
    let mut ids = Vec::new();
    for _ in 0..2 {
        let job = json!({"url": receiver.url("/a"), "policy": {"retry": {"max_attempts": 1}}});
        ids.push(host.api.job_id("g", job).await);
    }
    for id in &ids {
        host.api.until_state(id, "dead").await;
    }
    assert_eq!(host.api.post("/v1/groups/g/redrive", json!({"dry_run": true})).await.expect(200)["total"], 2);
    host.api.post("/v1/groups/g/redrive", json!({})).await.expect(200);
    receiver.arrived("/a", 4).await;
    for id in &ids {
        host.api.until(id, "is dead again", |job| job["state"] == "dead" && job["attempt_count"] == 2).await;
    }
    let purged = host.api.raw(reqwest::Method::POST, "/v1/groups/g/purge", "").await.expect(200);
    assert_eq!((&purged["action"], &purged["done"]), (&json!("purge"), &json!(2)));
    host.api.get(&format!("/v1/jobs/{}", ids[0])).await.problem(404);
    assert_eq!(host.api.stats("g").await["dead"], 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_change_goes_on_in_the_background_and_after_a_restart() {
    const JOBS: usize = 2_500;
    let (clock, host, receiver) = host().await;
    let batch = json!({"jobs": vec![json!({"url": receiver.url("/a"), "run_at": "+1h"}); JOBS]});
    host.api.post("/v1/groups/g/jobs/batch", batch).await.expect(201);
    let reply = host.api.post("/v1/groups/g/bulk", json!({"action": "cancel"})).await;
    let begun = reply.expect(202);
    assert_eq!(begun["total"], JOBS);
    let path = format!("/v1/bulk/{}", begun["id"].as_str().unwrap());
    let dir = std::sync::Arc::clone(&host.dir);
    host.stop().await;
    let host = Setup::with_clock(&clock).in_dir(&dir).start().await;
    let later = host.api.job_id("g", json!({"url": receiver.url("/a"), "run_at": "+1h"})).await;
    let shown = host.api.until_shown(&path, |change| change["finished"] == true).await;
    assert_eq!(shown["skipped"], 0, "{shown}");
    assert_eq!(host.api.stats("g").await["cancelled"], JOBS);
    assert_eq!(host.api.job(&later).await["state"], "scheduled", "what came later is not meant");
    assert_eq!(host.api.get("/v1/bulk").await.items().len(), 1);
    let redriven = host.api.post("/v1/groups/g/redrive", json!({})).await.expect(200);
    let newest = host.api.get("/v1/bulk?limit=1").await.expect(200);
    assert_eq!(newest["items"][0]["id"], redriven["id"], "the newest comes first");
    let next = newest["next_cursor"].as_str().unwrap();
    let rest = host.api.get(&format!("/v1/bulk?limit=1&cursor={next}")).await.expect(200);
    assert_eq!((&rest["items"][0]["id"], &rest["next_cursor"]), (&shown["id"], &Value::Null));
    host.api.get("/v1/bulk/nothing").await.problem(404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_that_makes_no_sense_is_refused_by_field() {
    let (_, host, _) = host().await;
    for (change, status, pointer) in [
        (json!({"action": "explode"}), 400, "/action"),
        (json!({"action": "cancel", "run_at": "+1h"}), 422, "/run_at"),
        (json!({"action": "reschedule"}), 422, "/run_at"),
        (json!({"action": "reschedule", "run_at": "soon"}), 422, "/run_at"),
        (json!({"action": "cancel", "filter": {"created_from": "yesterday"}}), 422, "/filter/created_from"),
        (json!({"action": "cancel", "filter": {"metadata": {"a\"b": "c"}}}), 422, "/filter/metadata"),
        (json!({"action": "cancel", "filter": {"state": "dead"}}), 422, "/filter/state"),
        (json!({"action": "purge", "filter": {"state": "scheduled"}}), 422, "/filter/state"),
        (json!({"action": "cancel", "filter": {"state": "odd"}}), 400, "/filter/state"),
        (json!({"action": "cancel", "filter": {"surprise": 1}}), 400, "/filter/surprise"),
    ] {
        host.api.post("/v1/groups/g/bulk", change).await.problem_at(status, pointer);
    }
}
