//! `Retry-After` on 429 and 503 holds back the jobs of that group for that URL, and nothing else.

use std::time::Duration;

use carillon_core::clock::Clock as _;
use serde_json::{Value, json};

use crate::support::{Answer, ManualClock, Receiver, Setup, TestHost, eventually_while, kinds, ms};

/// A policy under which a refused attempt comes back when its receiver allows it, or after `base` where that does not count.
fn policy(base: &str, honour: bool) -> Value {
    json!({"retry": {"plugin": "backoff", "config": {
        "kind": "fixed", "base": base, "jitter": 0, "max_attempts": 50, "honour_retry_after": honour,
    }}})
}

fn asks(status: u16, seconds: u32) -> Answer {
    Answer::status(status).header("retry-after", seconds.to_string())
}

async fn is_paused(host: &TestHost, id: &str) -> Value {
    let job = host.api.until(id, "is paused", |job| job["last_error"] == "receiver.paused").await;
    assert_eq!((&job["state"], &job["attempt_count"]), (&json!("scheduled"), &json!(0)), "{job}");
    job
}

/// Moves the clock on until all of these jobs have succeeded: one of them may wait for what comes of the other.
async fn succeed(host: &TestHost, clock: &ManualClock, ids: &[&String]) {
    for id in ids {
        let later = async || clock.advance(Duration::from_millis(100));
        let look = async || host.api.job(id).await;
        eventually_while("all of them succeed", later, look, |job| job["state"] == "succeeded").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pause_holds_for_one_url_of_one_group() {
    let clock = ManualClock::new();
    let host = Setup::with_clock(&clock).start().await;
    for group in ["g", "other"] {
        host.api.put_group(group, policy("1s", true)).await;
    }
    let mut events = host.api.follow("?kind=receiver_pause,breaker_open").await;
    for status in [429, 503] {
        let (receiver, now) = (Receiver::start().await, clock.now());
        receiver.on("/a", [asks(status, 60), Answer::status(200)]);
        let first = host.api.job_id("g", json!({"url": receiver.url("/a")})).await;
        host.api.until_retry(&first, 1).await;
        let same = host.api.job_id("g", json!({"url": receiver.url("/a?other=query")})).await;
        let paused = is_paused(&host, &same).await;
        assert_eq!(ms(&paused["run_at"]), now.plus(Duration::from_secs(60)));
        let attempt = host.api.attempts(&same).await.remove(0);
        assert!(attempt["error"]["message"].as_str().unwrap().contains("Retry-After"), "{attempt}");
        for (group, path) in [("g", "/b"), ("other", "/b"), ("other", "/a")] {
            let id = host.api.job_id(group, json!({"url": receiver.url(path)})).await;
            host.api.until_state(&id, "succeeded").await;
        }
        clock.advance(Duration::from_secs(60));
        succeed(&host, &clock, &[&first, &same]).await;
        let told = events.take(1).await;
        assert_eq!((kinds(&told), &told[0]["origin"]), (vec!["receiver_pause"], &json!(receiver.url(""))));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn group_that_does_not_honour_retry_after_has_no_pause() {
    let clock = ManualClock::new();
    let host = Setup::with_clock(&clock).start().await;
    let receiver = Receiver::with_clock(clock.clone()).await;
    let start = clock.now();
    receiver.on("/a", [asks(503, 20), Answer::status(200)]);
    host.api.put_group("g", policy("200ms", false)).await;
    let id = host.api.job_id("g", json!({"url": receiver.url("/a")})).await;
    let retry = host.api.until_retry(&id, 1).await;
    assert_eq!(ms(&retry["run_at"]), start.plus(Duration::from_millis(200)));
    let other = host.api.job_id("g", json!({"url": receiver.url("/a")})).await;
    host.api.until_state(&other, "succeeded").await;
    clock.advance(Duration::from_millis(200));
    host.api.until_state(&id, "succeeded").await;
    assert_eq!(receiver.count("/a"), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn url_that_is_always_refused_starves_none_of_its_jobs() {
    let clock = ManualClock::new();
    let host = Setup::with_clock(&clock).start().await;
    let receiver = Receiver::start().await;
    receiver.on("/a", [asks(429, 2)]);
    host.api.put_group("g", policy("100ms", true)).await;
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(host.api.job_id("g", json!({"url": receiver.url("/a")})).await);
    }
    receiver.arrived("/a", 1).await;
    // Each pause lets one of them in: after a few, every job has had its turn.
    let later = async || {
        clock.advance(Duration::from_millis(500));
        host.looked(&receiver).await;
    };
    let tried = async || {
        let mut counts = Vec::new();
        for id in &ids {
            counts.push(host.api.job(id).await["attempt_count"].as_u64().unwrap());
        }
        counts
    };
    eventually_while("every job has its turn", later, tried, |counts: &Vec<u64>| counts.iter().all(|count| *count > 0))
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pause_belongs_to_the_url_that_asked_for_it() {
    let clock = ManualClock::new();
    let host = Setup::with_clock(&clock).start().await;
    let receiver = Receiver::start().await;
    let mut following = policy("1s", true);
    following["limits"] = json!({"redirects": 2});
    host.api.put_group("g", following).await;
    receiver.on("/from", [Answer::status(307).header("location", "/to")]);
    receiver.on("/to", [asks(429, 60), Answer::status(200)]);
    let redirected = host.api.job_id("g", json!({"url": receiver.url("/from")})).await;
    host.api.until_retry(&redirected, 1).await;
    let direct = host.api.job_id("g", json!({"url": receiver.url("/to")})).await;
    is_paused(&host, &direct).await;
    let again = host.api.job_id("g", json!({"url": receiver.url("/from")})).await;
    host.api.until_state(&again, "succeeded").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retry_after_is_read_whatever_comes_before_it_and_however_large_it_is() {
    let clock = ManualClock::new();
    let host = Setup::with_clock(&clock).start().await;
    let receiver = Receiver::start().await;
    host.api.put_group("g", policy("100ms", true)).await;
    let cookies = |mut answer: Answer| {
        for _ in 0..17 {
            answer = answer.header("set-cookie", "x".repeat(1_024));
        }
        answer
    };
    let behind = cookies(Answer::status(429)).header("retry-after", "30");
    let large = Answer::status(429).header("retry-after", "18446744073709551616");
    for (path, answer, least) in [("/behind", behind, 30), ("/large", large, 60)] {
        receiver.on(path, [answer]);
        let now = clock.now();
        let id = host.api.job_id("g", json!({"url": receiver.url(path)})).await;
        let retry = host.api.until_retry(&id, 1).await;
        assert!(ms(&retry["run_at"]) >= now.plus(Duration::from_secs(least)), "{path}: {retry}");
    }
}
