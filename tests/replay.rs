//! Attempts that are over are decided again: what is kept of them is enough for that, to the byte.

use serde_json::{Value, json};

use crate::support::{Answer, Api, ManualClock, Receiver, Setup, TestHost, ms};

const BACKTEST: &str = "/v1/groups/g/policy/backtest";

fn replay_of(id: &str, number: u32) -> String {
    format!("/v1/jobs/{id}/attempts/{number}/replay")
}

/// A policy whose every role has something to say: the retry depends on the seed, and on what the receiver asked for.
fn policy(base: &str) -> Value {
    json!({
        "encode": [{"plugin": "base64-envelope"}],
        "sign": {"plugin": "werkzeug-cookie", "keys": ["k"]},
        "retry": {"plugin": "backoff", "config": {"base": base, "jitter": 0.5, "max_attempts": 5}},
    })
}

/// Two jobs: one that failed, was put off by its receiver and then succeeded, and one that cannot be reached.
async fn history(host: &TestHost, receiver: &Receiver, clock: &ManualClock) -> (String, String) {
    let failures = [Answer::status(503).header("retry-after", "7"), Answer::status(500), Answer::body(200, "thanks")];
    receiver.on("/a", failures);
    host.api.put("/v1/keys/k", json!({"secret": "s"})).await.expect(204);
    host.api.put_group("g", policy("10s")).await;
    let ok = host.api.job_id("g", json!({"url": receiver.url("/a"), "payload": {"a": 1}, "name": "n"})).await;
    let lost =
        host.api.job_id("g", json!({"url": "http://127.0.0.1:1/", "policy": {"retry": {"max_attempts": 1}}})).await;
    host.api.until_state(&lost, "dead").await;
    for attempts in 1..3 {
        clock.set(ms(&host.api.until_retry(&ok, attempts).await["run_at"]));
    }
    host.api.until_state(&ok, "succeeded").await;
    (ok, lost)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_attempt_is_decided_again_as_it_was() {
    let clock = ManualClock::new();
    let (host, receiver) = (Setup::with_clock(&clock).start().await, Receiver::with_clock(clock.clone()).await);
    let (ok, lost) = history(&host, &receiver, &clock).await;
    for (id, number) in [(&ok, 1), (&ok, 2), (&ok, 3), (&lost, 1)] {
        let replayed = host.api.post(&replay_of(id, number), json!({})).await.expect(200);
        assert_eq!((&replayed["same"], &replayed["caveats"]), (&json!(true), &json!([])), "{number}: {replayed}");
        assert_eq!(replayed["said"], replayed["shadow"], "{replayed}");
        assert_eq!((&replayed["version"], &replayed["different"]), (&json!(1), &json!("")), "{replayed}");
    }
    let requests = receiver.arrivals("/a").len();
    host.api.post(&replay_of(&ok, 4), json!({})).await.problem(404);
    host.api.post(&replay_of(&ok, 1), json!({"version": 9})).await.problem(409);
    assert_eq!(receiver.arrivals("/a").len(), requests, "nothing is sent");
    assert_eq!(host.api.get(&format!("/v1/jobs/{ok}")).await.expect(200)["state"], "succeeded");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_as_it_was_is_said() {
    let clock = ManualClock::new();
    let (host, receiver) = (Setup::with_clock(&clock).start().await, Receiver::with_clock(clock.clone()).await);
    receiver.on("/long", [Answer::body(200, "x".repeat(8 << 10))]);
    host.api.put("/v1/keys/k", json!({"secret": "s"})).await.expect(204);
    host.api.put_group("g", policy("10s")).await;
    let id = host.api.job_id("g", json!({"url": receiver.url("/long")})).await;
    host.api.until_state(&id, "succeeded").await;
    let replayed = host.api.post(&replay_of(&id, 1), json!({})).await.expect(200);
    assert!(replayed["caveats"][0].as_str().unwrap().contains("response_record_limit"), "{replayed}");

    // What a group wants to be kept, is; what it does not, is not, and the server's bound holds.
    for (kept, caveats) in [(json!(8 << 10), 0), (json!(0), 1)] {
        let mut group = policy("10s");
        group["limits"] = json!({"recorded_body": kept});
        host.api.put_group("g", group).await;
        let id = host.api.job_id("g", json!({"url": receiver.url("/long")})).await;
        host.api.until_state(&id, "succeeded").await;
        assert_eq!(
            host.api.attempts(&id).await[0]["response_body"].as_str().map_or(0, str::len),
            kept.as_u64().unwrap() as usize
        );
        let replayed = host.api.post(&replay_of(&id, 1), json!({})).await.expect(200);
        assert_eq!(replayed["caveats"].as_array().unwrap().len(), caveats, "{replayed}");
    }
    let mut group = policy("10s");
    group["limits"] = json!({"recorded_body": (64 << 10) + 1});
    host.api.put("/v1/groups/g", group).await.problem_at(422, "/limits/recorded_body");

    // Another key of the same name signs otherwise, and only that is different.
    host.api.put("/v1/keys/k", json!({"secret": "another"})).await.expect(204);
    let replayed = host.api.post(&replay_of(&id, 1), json!({})).await.expect(200);
    assert_eq!((&replayed["same"], &replayed["different"]), (&json!(false), &json!("request")), "{replayed}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backtest_says_what_another_version_would_have_done() {
    let clock = ManualClock::new();
    let (host, receiver) = (Setup::with_clock(&clock).start().await, Receiver::with_clock(clock.clone()).await);
    let (ok, lost) = history(&host, &receiver, &clock).await;
    let propose = async |policy: Value| host.api.post("/v1/groups/g/policy/versions", policy).await.expect(201);
    propose(policy("10s")).await;
    propose(policy("20s")).await;
    let mut strict = policy("10s");
    strict["judge"] = json!({"plugin": "expected-status", "config": {"expect": [204]}});
    propose(strict).await;

    let same = host.api.post(BACKTEST, json!({"version": 2})).await.expect(200);
    assert_eq!((&same["attempts"], &same["same"], &same["total_jobs"]), (&json!(4), &json!(4), &json!(2)), "{same}");
    assert_eq!((&same["fuel"], &same["skipped"]), (&same["backtest_fuel"], &json!([])));

    // The first retry was the receiver's wish, the one after the second attempt the policy's.
    let later = host.api.post(BACKTEST, json!({"version": 3})).await.expect(200);
    assert_eq!(later["different"]["judge"], 0);
    let changed = later["differences"].as_array().unwrap();
    assert!(changed.iter().all(|it| it["different"] == "retry" && it["job"] == ok), "{later}");
    assert!(changed.iter().any(|it| it["attempt"] == 2), "{later}");

    let strict = host.api.post(BACKTEST, json!({"version": 4})).await.expect(200);
    let changed = strict["differences"].as_array().unwrap();
    let third = changed.iter().find(|it| it["job"] == ok && it["attempt"] == 3).unwrap();
    assert_eq!((&third["said"]["outcome"], &third["shadow"]["outcome"]), (&json!("success"), &json!("retryable")));
    assert!(
        changed.iter().all(|it| it["job"] != lost),
        "who cannot be reached is judged by nobody otherwise: {strict}"
    );

    pages_and_ranges(&host.api, &lost).await;
}

/// A backtest goes on where the one before ended, and looks at nothing outside of its range.
async fn pages_and_ranges(api: &Api, newest: &str) {
    let first = api.post(BACKTEST, json!({"version": 2, "limit": 1})).await.expect(200);
    assert_eq!((&first["jobs"], &first["next_cursor"]), (&json!(1), &json!(newest)));
    let second = api.post(BACKTEST, json!({"version": 2, "limit": 1, "cursor": newest})).await.expect(200);
    assert_eq!(
        (&second["attempts"], &second["next_cursor"], &second["total_jobs"]),
        (&json!(3), &Value::Null, &Value::Null)
    );
    let none = json!({"version": 2, "created_before": "2001-01-01T00:00:00Z"});
    assert_eq!(api.post(BACKTEST, none).await.expect(200)["jobs"], 0);
    for (bad, pointer) in [
        (json!({"version": 2, "limit": 0}), "/limit"),
        (json!({"version": 2, "cursor": "x"}), "/cursor"),
        (json!({"version": 2, "created_from": "soon"}), "/created_from"),
    ] {
        let problem = api.post(BACKTEST, bad).await.problem(422);
        assert_eq!(problem["pointer"], pointer, "{problem}");
    }
    api.post(BACKTEST, json!({"version": 99})).await.problem(409);
}
