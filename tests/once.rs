//! A request that is sent again, a job that is asked for again: carried out once.

use std::collections::BTreeSet;
use std::time::Duration;

use carillon_core::clock::Clock as _;
use futures_util::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Api, ManualClock, Receiver, Reply, Setup, TestHost, id_of, ms};

/// The producers that ask at the same time.
const PRODUCERS: usize = 64;

async fn host() -> (std::sync::Arc<ManualClock>, TestHost) {
    let clock = ManualClock::new();
    let host = Setup::with_clock(&clock).start().await;
    host.api.put_group("g", json!({})).await;
    (clock, host)
}

async fn with_key(api: &Api, key: &str, path: &str, body: &Value) -> Reply {
    let request = api.request(Method::POST, path).header("Idempotency-Key", key).body(body.to_string());
    api.send(request).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_with_a_key_is_carried_out_once() {
    let (clock, host) = host().await;
    let (jobs, batch) = ("/v1/groups/g/jobs", "/v1/groups/g/jobs/batch");
    let job = json!({"url": "http://127.0.0.1:1/", "run_at": "+1h"});
    let first = with_key(&host.api, "k", jobs, &job).await;
    assert!(!first.headers.contains_key("idempotency-replayed"));
    let made = first.expect(201);
    clock.advance(Duration::from_secs(60));
    let again = with_key(&host.api, "k", jobs, &job).await;
    assert_eq!(again.headers["idempotency-replayed"], "true");
    assert_eq!((again.expect(201), &again.body), (made, &first.body), "the same answer");
    assert_eq!(host.api.stats("g").await["scheduled"], 1);

    let other = json!({"url": "http://127.0.0.1:1/", "run_at": "+2h"});
    let problem = with_key(&host.api, "k", jobs, &other).await.problem(409);
    assert_eq!(problem["type"], "urn:carillon:problem:idempotency-key-reused");
    host.api.put_group("h", json!({})).await;
    with_key(&host.api, "k", "/v1/groups/h/jobs", &job).await.problem(409);
    with_key(&host.api, "l", batch, &json!({"jobs": [job, job]})).await.expect(201);
    let ids = with_key(&host.api, "l", batch, &json!({"jobs": [job, job]})).await.expect(201)["ids"].clone();
    assert_eq!(ids.as_array().unwrap().len(), 2);
    assert_eq!(host.api.stats("g").await["scheduled"], 3);

    let acme = host.api.tenant("acme").await;
    acme.put_group("g", json!({})).await;
    with_key(&acme, "k", jobs, &other).await.expect(201);
    with_key(&host.api, "", jobs, &job).await.problem(400);
    with_key(&host.api, &"k".repeat(256), jobs, &job).await.problem(400);
    with_key(&host.api, "m", jobs, &json!({"url": "nonsense"})).await.problem(422);
    with_key(&host.api, "m", jobs, &job).await.expect(201);

    clock.advance(Duration::from_secs(24 * 3_600));
    with_key(&host.api, "k", jobs, &other).await.expect(201);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_survives_a_restart_and_a_crowd() {
    let (clock, host) = host().await;
    let job = json!({"url": "http://127.0.0.1:1/", "run_at": "+1h"});
    let replies = join_all((0..PRODUCERS).map(|_| with_key(&host.api, "k", "/v1/groups/g/jobs", &job))).await;
    let ids: BTreeSet<_> = replies.iter().map(|reply| id_of(&reply.expect(201))).collect();
    assert_eq!(ids.len(), 1);
    let dir = std::sync::Arc::clone(&host.dir);
    host.stop().await;
    let host = Setup::with_clock(&clock).in_dir(&dir).start().await;
    let again = id_of(&with_key(&host.api, "k", "/v1/groups/g/jobs", &job).await.expect(201));
    assert!(ids.contains(&again));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dedupe_key_answers_with_the_job_that_is_there() {
    let (clock, host) = host().await;
    let job = json!({"url": "http://127.0.0.1:1/", "run_at": "+1h", "dedupe_key": "k", "dedupe_window": "1m"});
    let post = async || host.api.post("/v1/groups/g/jobs", job.clone()).await;
    let first = id_of(&post().await.expect(201));
    let again = post().await.expect(200);
    assert_eq!((id_of(&again), &again["instead"]), (first.clone(), &json!("duplicate")));
    let batch = json!({"jobs": [job, {"url": "http://127.0.0.1:1/"}]});
    let batch = host.api.post("/v1/groups/g/jobs/batch", batch).await.expect(201);
    assert_eq!((batch["ids"][0].as_str(), &batch["instead"]), (Some(first.as_str()), &json!(1)));
    host.api.delete(&format!("/v1/jobs/{first}")).await.expect(200);
    let second = id_of(&post().await.expect(201));
    assert_ne!(second, first, "a job that was cancelled does nothing for a later one");
    assert_eq!(id_of(&post().await.expect(200)), second);
    clock.advance(Duration::from_secs(60));
    assert_ne!(id_of(&post().await.expect(201)), second);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_debounce_key_delivers_the_first_request_and_the_newest() {
    let (clock, host) = host().await;
    let receiver = Receiver::with_clock(clock.clone()).await;
    let post = async |number: u32, status| {
        let doc = json!({"url": receiver.url(&format!("/n{number}")), "method": "PUT", "headers": {"x-number": number.to_string()},
            "payload": number, "debounce_key": "k", "debounce_seconds": 1});
        host.api.post("/v1/groups/g/jobs", doc).await.expect(status)
    };
    let mut stream = host.api.follow("?kind=edit").await;
    post(0, 201).await;
    receiver.arrived("/n0", 1).await;
    let delayed = post(1, 201).await;
    for number in 2..=4 {
        let answer = post(number, 200).await;
        assert_eq!((id_of(&answer), &answer["instead"]), (id_of(&delayed), &json!("debounced")));
        assert_eq!(answer["run_at"], delayed["run_at"], "it keeps its time");
        assert_eq!(answer["request"]["url"], receiver.url(&format!("/n{number}")));
    }
    clock.advance(Duration::from_secs(1));
    let request = receiver.arrived("/n4", 1).await.remove(0);
    assert_eq!((request.method.as_str(), request.header("x-number"), request.text()), ("PUT", Some("4"), "4"));
    for number in 1..=3 {
        assert_eq!(receiver.count(&format!("/n{number}")), 0);
    }
    for (event, number) in stream.take(3).await.iter().zip(1..) {
        let replaced = format!("replaced `PUT {}` with 1 bytes of payload", receiver.url(&format!("/n{number}")));
        assert!(event["reason"].as_str().unwrap().contains(&replaced), "{event}");
    }
}

fn debounced(receiver: &Receiver, extra: Value) -> Value {
    let mut job = json!({"url": receiver.url("/d"), "payload": {"user": 1}, "debounce_seconds": 30});
    job.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    job
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_producers_one_runs_now_and_one_when_the_window_is_over() {
    let (clock, host) = host().await;
    let receiver = Receiver::with_clock(clock.clone()).await;
    let job = debounced(&receiver, json!({}));
    let replies = join_all((0..PRODUCERS).map(|_| host.api.post("/v1/groups/g/jobs", job.clone()))).await;
    let made: Vec<Value> = replies.iter().filter(|reply| reply.status == 201).map(Reply::json).collect();
    assert_eq!(made.len(), 2);
    let mut times: Vec<_> = made.iter().map(|job| ms(&job["run_at"])).collect();
    times.sort();
    assert_eq!(times, [clock.now(), clock.now().plus(Duration::from_secs(30))]);
    let skipped = replies.iter().filter(|reply| reply.status == 200).map(Reply::json);
    assert!(skipped.clone().all(|job| job["instead"] == "debounced"));
    assert_eq!(skipped.count(), PRODUCERS - 2);
    receiver.arrived("/d", 1).await;
    clock.advance(Duration::from_secs(30));
    receiver.arrived("/d", 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_after_the_delayed_job_has_run_is_not_lost() {
    let (clock, host) = host().await;
    let receiver = Receiver::with_clock(clock.clone()).await;
    let start = clock.now();
    let post = async |status| {
        let made = host.api.post("/v1/groups/g/jobs", debounced(&receiver, json!({}))).await.expect(status);
        ms(&made["run_at"]).since(start).as_secs()
    };
    assert_eq!(post(201).await, 0);
    clock.advance(Duration::from_secs(20));
    assert_eq!(post(201).await, 30);
    clock.advance(Duration::from_secs(9));
    assert_eq!(post(200).await, 30, "it is told of the one that waits");
    clock.advance(Duration::from_secs(2));
    assert_eq!(post(201).await, 60, "the delayed one has run: this is new work");
    receiver.arrived("/d", 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_counts_as_the_same_job_is_the_callers_choice() {
    let (clock, host) = host().await;
    let receiver = Receiver::with_clock(clock.clone()).await;
    host.api.put_group("h", json!({})).await;
    let post = async |group: &str, extra: Value| {
        host.api.post(&format!("/v1/groups/{group}/jobs"), debounced(&receiver, extra)).await.status
    };
    let delayed = json!({"debounce_always_delay": true});
    assert_eq!(post("g", delayed.clone()).await, 201);
    assert_eq!(post("g", delayed.clone()).await, 200);
    assert_eq!(post("h", delayed.clone()).await, 200, "whatever the group");
    assert_eq!(post("g", json!({"debounce_always_delay": true, "payload": {"user": 2}})).await, 201);
    assert_eq!(post("g", json!({"debounce_always_delay": true, "debounce_key": "k"})).await, 201);
    assert_eq!(post("g", json!({"debounce_always_delay": true, "debounce_key": "k", "payload": 3})).await, 200);
    assert_eq!(receiver.count("/d"), 0, "with always_delay the first waits, too");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_newest_job_of_a_name_takes_the_place_of_the_others() {
    let (clock, host) = host().await;
    let receiver = Receiver::with_clock(clock.clone()).await;
    let reminder = |minutes: u64| {
        let run_at = format!("+{minutes}m");
        json!({"url": receiver.url("/r"), "payload": minutes, "name": "milk", "run_at": run_at, "replace": true})
    };
    let first = host.api.post_job("g", reminder(1)).await;
    let second = host.api.post_job("g", reminder(2)).await;
    host.api.until_state(&id_of(&first), "cancelled").await;
    let posts = join_all((3..35).map(|minutes| host.api.post("/v1/groups/g/jobs", reminder(minutes)))).await;
    assert!(posts.iter().all(|answer| answer.status == 201));
    host.api.until_state(&id_of(&second), "cancelled").await;
    let waiting = host.api.get("/v1/groups/g/jobs?name=milk&state=scheduled").await.expect(200);
    assert_eq!(waiting["items"].as_array().unwrap().len(), 1, "of 34");
    clock.advance(Duration::from_secs(36 * 60));
    receiver.arrived("/r", 1).await;
    host.api.until_state(&id_of(&waiting["items"][0]), "succeeded").await;
    assert_eq!(receiver.count("/r"), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn schedule_run_with_a_key_makes_one_job() {
    let (clock, host) = host().await;
    let schedule = json!({"group": "g", "cron": "@hourly", "job": {"url": "http://127.0.0.1:1/"}});
    host.api.put("/v1/schedules/s", schedule).await.ok();
    host.api.post("/v1/groups/g/pause", Value::Null).await.ok();
    let run = async |key: &str| {
        let request = host.api.request(Method::POST, "/v1/schedules/s/run").header("Idempotency-Key", key);
        host.api.send(request).await
    };
    let first = run("k").await;
    clock.advance(Duration::from_secs(60));
    let again = run("k").await;
    assert_eq!(again.headers["idempotency-replayed"], "true");
    assert_eq!((first.expect(201), first.body), (again.expect(201), again.body));
    assert_ne!(id_of(&run("l").await.expect(201)), id_of(&run("m").await.expect(201)), "in the same millisecond");
    assert_eq!(host.api.stats("g").await["scheduled"], 3);

    let now = clock.now().0 / 1_000;
    let range = json!({"from": now - 7_200, "to": now});
    let first = with_key(&host.api, "b", "/v1/schedules/s/backfill", &range).await;
    let again = with_key(&host.api, "b", "/v1/schedules/s/backfill", &range).await;
    assert_eq!(first.expect(200)["created"], 2);
    assert_eq!(
        (again.expect(200), &again.headers["idempotency-replayed"]),
        (first.expect(200), &"true".parse().unwrap())
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batch_has_a_bound_of_jobs_that_are_compared_with_others() {
    let (_clock, host) = host().await;
    let jobs = |count: usize| {
        let keyed = |number| json!({"url": "http://127.0.0.1:1/", "run_at": "+1h", "dedupe_key": number});
        let plain = json!({"url": "http://127.0.0.1:1/", "run_at": "+1h"});
        let all = (0..count).map(|number| keyed(number.to_string())).chain([plain]);
        json!({"jobs": all.collect::<Vec<_>>()})
    };
    let problem = host.api.post("/v1/groups/g/jobs/batch", jobs(1_001)).await.problem_at(422, "/jobs");
    assert!(problem["detail"].as_str().unwrap().contains("at most 1000 jobs"), "{problem}");
    assert_eq!(host.api.stats("g").await["delayed"], 0, "a batch is taken whole or not at all");
    host.api.post("/v1/groups/g/jobs/batch", jobs(1_000)).await.expect(201);
}

/// A client that sends the header believes that it can send the request again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn key_is_honoured_or_refused_on_every_route_that_takes_posts() {
    let (_clock, host) = host().await;
    let document = host.api.get("/openapi.json").await.expect(200);
    let (mut honoured, mut refused) = (0, 0);
    for (path, item) in document["paths"].as_object().unwrap() {
        let Some(operation) = item.get("post") else { continue };
        let parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
        if operation.to_string().contains("Idempotency-Key") && !parameters.is_empty() {
            honoured += 1;
            continue;
        }
        let problem = with_key(&host.api, "k", path, &json!({})).await.problem(400);
        assert!(
            problem["detail"].as_str().unwrap().contains("`Idempotency-Key` is not supported"),
            "{path}: {problem}"
        );
        refused += 1;
    }
    assert_eq!(honoured, 4);
    assert!(refused > 20, "{refused}");
    with_key(&host.api, "k", "/v1/groups/g/jobs", &json!({"url": "http://127.0.0.1:1/"})).await.expect(201);
}
