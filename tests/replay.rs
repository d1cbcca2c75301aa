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

    // Another key of the same name signs otherwise, and only that is different. In what, nobody knows any more.
    host.api.put("/v1/keys/k", json!({"secret": "another"})).await.expect(204);
    host.api.post("/v1/groups/g/policy/versions", json!({"sign": null})).await.expect(201);
    for version in [1, 2] {
        let replayed = host.api.post(&replay_of(&id, 1), json!({"version": version})).await.expect(200);
        assert_eq!((&replayed["same"], replayed.get("request")), (&json!(false), None), "{replayed}");
        assert!(replayed["different"].as_str().unwrap().starts_with("request"), "{replayed}");
        let caveats = replayed["caveats"].as_array().unwrap();
        assert!(caveats.iter().any(|it| it.as_str().unwrap().contains("cannot be reproduced")), "{replayed}");
    }
}

/// The bytes of a part of a body, as they are shown.
fn bytes(part: &Value, whose: &str) -> Vec<u8> {
    hex::decode(part[whose].as_str().unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_byte_of_a_request_that_differs_is_said() {
    let (host, receiver) = (TestHost::start().await, Receiver::start().await);
    host.api.put("/v1/keys/k", json!({"secret": "s"})).await.expect(204);
    host.api.put("/v1/keys/sent", json!({"secret": "paper-clip", "kind": "header"})).await.ok();
    let encoded = |extra: &str| json!({"encode": [{"plugin": "base64-envelope", "config": {"extra": {"a": extra}}}]});
    let mut group = encoded("one");
    group["auth_headers"] = json!({"X-Key": "sent"});
    host.api.put_group("g", group).await;
    let mut signed = encoded("one");
    signed["sign"] = json!({"plugin": "standard-webhooks", "keys": ["k"]});
    for policy in [encoded("two"), encoded("three"), signed, json!({})] {
        host.api.post("/v1/groups/g/policy/versions", policy).await.expect(201);
    }
    let id = host.api.job_id("g", json!({"url": receiver.url("/a"), "payload": {"b": 1}})).await;
    host.api.until_state(&id, "succeeded").await;
    let sent = receiver.arrivals("/a").remove(0);
    let changes = async |version: i64| {
        let answer = host.api.post(&replay_of(&id, 1), json!({"version": version})).await;
        assert!(!answer.text().contains("paper-clip"), "{}", answer.text());
        let replayed = answer.expect(200);
        assert_eq!((&replayed["different"], &replayed["caveats"]), (&json!("request"), &json!([])), "{replayed}");
        let tested = host.api.post(BACKTEST, json!({"version": version})).await.expect(200);
        assert_eq!(tested["differences"][0]["request"], replayed["request"], "a backtest says the same");
        replayed["request"].clone()
    };

    // As long as it was, and three bytes are others.
    let two = changes(2).await;
    assert_eq!((&two["method"], &two["url"], &two["headers"]), (&Value::Null, &Value::Null, &json!([])), "{two}");
    let part = &two["body"]["parts"][0];
    let at = sent.text().find("one").unwrap();
    assert_eq!((&part["offset"], &two["body"]["said_length"]), (&json!(at), &json!(sent.body.len())), "{two}");
    assert_eq!((bytes(part, "said_hex"), bytes(part, "shadow_hex")), (b"one".to_vec(), b"two".to_vec()), "{two}");
    // Two bytes more.
    let three = changes(3).await;
    let part = &three["body"]["parts"][0];
    assert_eq!(three["body"]["shadow_length"], sent.body.len() + 2, "{three}");
    let offset = usize::try_from(part["offset"].as_u64().unwrap()).unwrap();
    let end = offset + usize::try_from(part["said_length"].as_u64().unwrap()).unwrap();
    let again = [&sent.body[..offset], &bytes(part, "shadow_hex"), &sent.body[end..]].concat();
    assert_eq!(String::from_utf8(again).unwrap(), sent.text().replace("one", "three"), "{three}");
    // Signed.
    let signed = changes(4).await;
    assert_eq!(signed["body"], Value::Null, "{signed}");
    let names: Vec<_> = signed["headers"].as_array().unwrap().iter().map(|it| it["name"].as_str().unwrap()).collect();
    assert!(names.contains(&"webhook-signature") && !names.contains(&"x-key"), "{signed}");
    let header = signed["headers"].as_array().unwrap().iter().find(|it| it["name"] == "webhook-signature").unwrap();
    assert_eq!(header["said"], json!([]), "{signed}");
    assert!(header["shadow"][0].as_str().unwrap().starts_with("v1,"), "{signed}");
    // Not encoded.
    let plain = changes(5).await;
    assert_eq!(plain["body"]["shadow_length"], r#"{"b":1}"#.len(), "{plain}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_verdict_on_less_than_the_judge_saw_is_uncertain() {
    let (host, receiver) = (TestHost::start().await, Receiver::start().await);
    let body = json!({"pad": "x".repeat(8 << 10), "ok": true}).to_string();
    receiver.on("/long", [Answer::body(200, body)]);
    receiver.on("/short", [Answer::body(200, r#"{"ok": true}"#)]);
    let judged = |expect: u16| {
        let body = json!({"pointer": "/ok", "equals": true});
        json!({"judge": {"plugin": "expected-status", "config": {"expect": [expect], "body": [body]}}})
    };
    host.api.put_group("g", judged(200)).await;
    for path in ["/long", "/short"] {
        let id = host.api.job_id("g", json!({"url": receiver.url(path)})).await;
        host.api.until_state(&id, "succeeded").await;
    }
    let propose = async |policy| host.api.post("/v1/groups/g/policy/versions", policy).await.expect(201);
    propose(judged(200)).await;
    propose(judged(204)).await;
    let mut encoded = judged(200);
    encoded["encode"] = json!([{"plugin": "base64-envelope"}]);
    propose(encoded).await;
    let backtest = async |version: i64| host.api.post(BACKTEST, json!({"version": version})).await.expect(200);

    // The same judge, to whom only the beginning can be shown.
    let same = backtest(2).await;
    assert_eq!((&same["same"], &same["uncertain"]), (&json!(1), &json!(1)), "{same}");
    assert_eq!(same["different"], json!({"request": 0, "judge": 0, "retry": 0}), "{same}");
    let difference = &same["differences"][0];
    assert_eq!((&difference["uncertain"], &difference["different"]), (&json!(true), &json!("judge, retry")), "{same}");
    assert!(difference["caveats"][0].as_str().unwrap().contains("response_record_limit"), "{same}");
    // Another one: of one attempt it is certain.
    let other = backtest(3).await;
    assert_eq!((&other["same"], &other["uncertain"]), (&json!(0), &json!(1)), "{other}");
    assert_eq!(other["different"], json!({"request": 0, "judge": 1, "retry": 1}), "{other}");
    let certain = other["differences"].as_array().unwrap().iter().find(|it| it["uncertain"] == false).unwrap();
    assert_eq!(certain["caveats"], json!([]), "{other}");
    // What is sent does not depend on what was kept.
    let encoded = backtest(4).await;
    assert_eq!(encoded["different"], json!({"request": 2, "judge": 0, "retry": 0}), "{encoded}");
    assert_eq!(encoded["uncertain"], 1, "{encoded}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backtest_can_be_of_the_attempts_of_some_time() {
    let clock = ManualClock::new();
    let (host, receiver) = (Setup::with_clock(&clock).start().await, Receiver::with_clock(clock.clone()).await);
    let (ok, lost) = history(&host, &receiver, &clock).await;
    host.api
        .post("/v1/groups/g/policy/versions", json!({"judge": {"config": {"expect": [418]}}, "sign": null}))
        .await
        .expect(201);
    let times: Vec<Value> = host.api.attempts(&ok).await.iter().map(|attempt| attempt["started_at"].clone()).collect();
    let seen = async |range: Value| {
        let mut asked = json!({"version": 2});
        asked.as_object_mut().unwrap().extend(range.as_object().unwrap().clone());
        let tested = host.api.post(BACKTEST, asked).await.expect(200);
        let seen = tested["differences"].as_array().unwrap().iter();
        let mut seen: Vec<_> = seen.map(|it| (it["job"] == ok, it["attempt"].as_u64().unwrap())).collect();
        assert_eq!(tested["attempts"], seen.len(), "each of them is another request at least: {tested}");
        seen.sort_unstable();
        (tested["jobs"].clone(), tested["total_jobs"].clone(), seen)
    };
    let all = [(false, 1), (true, 1), (true, 2), (true, 3)];
    assert_eq!(seen(json!({})).await.2, all);
    let from_second = seen(json!({"attempted_from": times[1]})).await;
    assert_eq!(from_second, (json!(2), json!(2), all[2..].to_vec()), "{lost} was over before");
    assert_eq!(seen(json!({"attempted_before": times[1]})).await.2, all[..2]);
    let second = json!({"attempted_from": times[1], "attempted_before": times[2]});
    assert_eq!(seen(second).await.2, [(true, 2)]);
    let early = json!({"attempted_before": "2001-01-01T00:00:00Z", "created_before": times[2]});
    assert_eq!(seen(early).await, (json!(0), json!(0), vec![]), "no job was there then");
    for pointer in ["attempted_from", "attempted_before"] {
        let odd = json!({"version": 2, pointer: "soon"});
        host.api.post(BACKTEST, odd).await.problem_at(422, &format!("/{pointer}"));
    }
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
