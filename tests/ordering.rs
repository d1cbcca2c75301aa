//! Which job goes first, what must wait for another, what follows from an end, and what is too late.

use std::time::Duration;

use carillon_core::clock::Clock as _;
use serde_json::{Value, json};

use crate::support::{Answer, Gate, ManualClock, Receiver, Setup, TestHost, id_of, ms};

async fn host(group: Value) -> (std::sync::Arc<ManualClock>, TestHost, Receiver) {
    let clock = ManualClock::new();
    let host = Setup::with_clock(&clock).start().await;
    let receiver = Receiver::with_clock(clock.clone()).await;
    host.api.put_group("g", group).await;
    (clock, host, receiver)
}

/// The bodies of the requests that arrived, in order.
async fn bodies(receiver: &Receiver, path: &str, count: usize) -> Vec<String> {
    let requests = receiver.arrived(path, count).await;
    requests.iter().map(|request| String::from_utf8(request.body.to_vec()).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_most_urgent_go_first() {
    let (_, host, receiver) = host(json!({"limits": {"concurrency": 1}})).await;
    host.api.post("/v1/groups/g/pause", json!({})).await.expect(200);
    for (text, priority) in
        [("d", json!(4)), ("e", json!(null)), ("f", json!(0)), ("a", json!(9)), ("c", json!(8)), ("b", json!(9))]
    {
        host.api.job_id("g", json!({"url": receiver.url("/p"), "payload_text": text, "priority": priority})).await;
    }
    host.api.post("/v1/groups/g/resume", json!({})).await.expect(200);
    assert_eq!(bodies(&receiver, "/p", 6).await, ["a", "b", "c", "d", "e", "f"]);
}

/// More urgent jobs than can be done, one of priority 4 and one of priority 0, all in a batch.
fn urgent_and_two_others(job: impl Fn(&str) -> Value) -> Value {
    let with = |text: &str, priority: u8| {
        let mut job = job(text);
        job["priority"] = json!(priority);
        job
    };
    let mut jobs = vec![with("low", 0), with("middle", 4)];
    jobs.extend((0..40).map(|_| with("urgent", 9)));
    json!({"jobs": jobs})
}

fn assert_each_gets_its_share(order: &[String]) {
    assert_eq!(order[..13], vec!["urgent"; 13], "the most urgent go first");
    for text in ["low", "middle"] {
        let place = order.iter().position(|found| found == text);
        assert!(place.is_some_and(|place| place < 17), "{text} is number {place:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lower_priorities_get_a_sixteenth_of_the_starts() {
    let (_, host, receiver) = host(json!({"limits": {"concurrency": 1}})).await;
    host.api.post("/v1/groups/g/pause", json!({})).await.expect(200);
    let jobs = urgent_and_two_others(|text| json!({"url": receiver.url("/p"), "payload_text": text}));
    host.api.post("/v1/groups/g/jobs/batch", jobs).await.expect(201);
    host.api.post("/v1/groups/g/resume", json!({})).await.expect(200);
    assert_each_gets_its_share(&bodies(&receiver, "/p", 42).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lower_priorities_get_a_sixteenth_of_the_leases() {
    let (_, host, receiver) = host(json!({})).await;
    let jobs = urgent_and_two_others(|text| json!({"payload_text": text}));
    host.api.post("/v1/groups/g/jobs/batch", jobs).await.expect(201);
    host.looked(&receiver).await;
    let mut order = Vec::new();
    for _ in 0..20 {
        let leases = host.api.post("/v1/groups/g/leases", json!({})).await.expect(200)["leases"].clone();
        order.push(leases[0]["payload_text"].as_str().unwrap().to_owned());
    }
    assert_each_gets_its_share(&order);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_of_one_key_go_one_by_one_and_hold_nobody_else_up() {
    let retry =
        json!({"plugin": "backoff", "config": {"kind": "fixed", "base": "10s", "jitter": 0, "max_attempts": 2}});
    let (clock, host, receiver) = host(json!({"retry": retry})).await;
    let gate = Gate::closed();
    receiver.on("/k", [Answer::status(500).held(&gate), Answer::status(500), Answer::status(200)]);
    let mut ids = Vec::new();
    for text in ["1", "2", "3"] {
        let job = json!({"url": receiver.url("/k"), "payload_text": text, "order_key": "k"});
        ids.push(host.api.job_id("g", job).await);
    }
    receiver.arrived("/k", 1).await;
    let free = json!({"url": receiver.url("/free"), "order_key": "other"});
    let free = host.api.job_id("g", free).await;
    host.api.until_state(&free, "succeeded").await;
    host.looked(&receiver).await;
    assert_eq!(receiver.count("/k"), 1, "one at a time");
    gate.release(1);
    host.api.until_retry(&ids[0], 1).await;
    host.looked(&receiver).await;
    assert_eq!(receiver.count("/k"), 1, "the next waits while the first is retried");
    clock.advance(Duration::from_secs(10));
    host.api.until_state(&ids[0], "dead").await;
    for id in &ids[1..] {
        host.api.until_state(id, "succeeded").await;
    }
    assert_eq!(bodies(&receiver, "/k", 4).await, ["1", "1", "2", "3"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_follows_from_success_and_another_from_failure() {
    let (clock, host, receiver) = host(json!({})).await;
    host.api.put_group("h", json!({})).await;
    receiver.on("/bad", [Answer::status(404)]);
    let follow = |path: &str| {
        json!({
            "url": receiver.url(path), "payload_text": path, "run_at": "+5s", "name": "next", "metadata": {"k": "v"},
            "on_success": {"url": receiver.url("/last"), "group": "h"},
        })
    };
    let job = |path: &str| {
        json!({
            "url": receiver.url(path), "on_success": follow("/good-next"), "on_failure": follow("/bad-next"),
            "policy": {"judge": {"permanent": [404]}},
        })
    };
    let good = host.api.job_id("g", job("/good")).await;
    let bad = host.api.job_id("g", job("/bad")).await;
    host.api.until_state(&good, "succeeded").await;
    host.api.until_state(&bad, "dead").await;
    let next = host.api.get("/v1/groups/g/jobs?name=next").await.items();
    assert_eq!(next.len(), 2);
    for job in &next {
        let parent = if job["request"]["url"] == receiver.url("/good-next") { &good } else { &bad };
        assert_eq!((&job["parent"], &job["metadata"]), (&json!(parent), &json!({"k": "v"})));
        assert_eq!(ms(&job["run_at"]), clock.now().plus(Duration::from_secs(5)));
    }
    clock.advance(Duration::from_secs(5));
    assert_eq!(bodies(&receiver, "/good-next", 1).await, ["/good-next"]);
    assert_eq!(bodies(&receiver, "/bad-next", 1).await, ["/bad-next"]);
    receiver.arrived("/last", 2).await;
    let last = host.api.get("/v1/groups/h/jobs").await.items();
    let parents: std::collections::BTreeSet<_> =
        last.iter().map(|job| job["parent"].as_str().unwrap().to_owned()).collect();
    assert_eq!(parents, next.iter().map(id_of).collect());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_cannot_start_in_time_expires_without_a_request_and_says_so() {
    let (clock, host, receiver) = host(json!({"limits": {"max_delay": "10m"}})).await;
    host.api.post("/v1/groups/g/pause", json!({})).await.expect(200);
    let on_failure = json!({"url": receiver.url("/late"), "group": "watch"});
    host.api.put_group("watch", json!({})).await;
    let late =
        host.api.job_id("g", json!({"url": receiver.url("/a"), "run_at": "+1h", "on_failure": on_failure})).await;
    let own =
        host.api.job_id("g", json!({"url": receiver.url("/a"), "run_at": "+1h", "limits": {"max_delay": "1m"}})).await;
    clock.advance(Duration::from_secs(3_660));
    host.looked(&receiver).await;
    assert_eq!(host.api.job(&own).await["state"], "scheduled", "its last moment");
    clock.advance(Duration::from_secs(1));
    host.api.until_state(&own, "expired").await;
    clock.advance(Duration::from_secs(540));
    host.api.until_state(&late, "expired").await;
    receiver.arrived("/late", 1).await;
    assert_eq!(receiver.count("/a"), 0, "though the group was paused all the time");
    let again = host.api.post(&format!("/v1/jobs/{late}/retry"), json!({})).await.expect(200);
    assert_eq!(ms(&again["deadline"]), clock.now().plus(Duration::from_secs(600)));
    host.api.post("/v1/groups/g/resume", json!({})).await.expect(200);
    host.api.until_state(&late, "succeeded").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retry_is_late_only_by_its_own_time() {
    let retry =
        json!({"plugin": "backoff", "config": {"kind": "fixed", "base": "10m", "jitter": 0, "max_attempts": 3}});
    let (clock, host, receiver) = host(json!({"limits": {"max_delay": "1m"}, "retry": retry})).await;
    receiver.on("/a", [Answer::status(500), Answer::status(200)]);
    let id = host.api.job_id("g", json!({"url": receiver.url("/a")})).await;
    host.api.until_retry(&id, 1).await;
    clock.advance(Duration::from_secs(600));
    host.api.until_state(&id, "succeeded").await;
}
