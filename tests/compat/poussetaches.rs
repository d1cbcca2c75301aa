//! poussetaches: tasks that are pushed until they are answered as expected.

use std::collections::HashSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use carillon_core::clock::Clock as _;
use futures_util::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};

use super::{Mounted, fields};
use crate::support::{Answer, Gate, Receiver, Reply, TestHost};

pub(super) const FIELDS: [&str; 11] = [
    "expected",
    "id",
    "last_error_body",
    "last_error_status_code",
    "next_run",
    "next_scheduled_run",
    "payload",
    "schedule",
    "tries",
    "url",
    "last_run",
];

const KEY: &str = "the-key-that-receivers-know";

impl Mounted {
    /// With more workers than usual, so that tests need not wait for each other's deliveries.
    pub(super) async fn poussetaches() -> Self {
        Self::with("poussetaches", |setup| {
            let setup = setup.set("compat.poussetaches.workers", "16").set("compat.poussetaches.rate", "1000/s");
            setup.set("compat.poussetaches.burst", "1000").set("compat.poussetaches.auth_key", KEY)
        })
        .await
    }

    pub(super) fn task_for(&self, path: &str) -> Value {
        json!({"url": self.receiver.url(path), "payload": STANDARD.encode(r#"{"a": 1}"#)})
    }

    /// Pushes a task; returns its id.
    pub(super) async fn push(&self, task: Value) -> String {
        task_id(&self.api.post("/", task).await)
    }

    pub(super) async fn list(&self, name: &str) -> Vec<Value> {
        self.api.get(&format!("/{name}")).await.expect(200)["tasks"].as_array().unwrap().clone()
    }

    pub(super) async fn until_listed(&self, list: &str, id: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let what = format!("{id} is in {list}");
        let is_it = |task: &Value| task["id"] == id && wanted(task);
        let path = format!("/{list}");
        let found = self.until(&path, &what, |found| found["tasks"].as_array().unwrap().iter().any(is_it)).await;
        found["tasks"].as_array().unwrap().iter().find(|task| is_it(task)).unwrap().clone()
    }

    pub(super) fn nanos(&self) -> i64 {
        self.now().0 * 1_000_000
    }
}

pub(super) fn task_id(reply: &Reply) -> String {
    assert_eq!((reply.status, reply.body.len()), (201, 0), "{}", reply.text());
    reply.headers["Poussetaches-Task-ID"].to_str().unwrap().to_owned()
}

fn sorted(names: [&str; 11]) -> Vec<&str> {
    let mut names = names.to_vec();
    names.sort_unstable();
    names
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_is_delivered_in_an_envelope_with_the_key() {
    let at = Mounted::poussetaches().await;
    let id = at.push(at.task_for("/a?x=1")).await;
    assert!(id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{id}");
    let arrival = at.receiver.arrived("/a", 1).await.remove(0);
    assert_eq!((arrival.method.as_str(), arrival.target.as_str()), ("POST", "/a?x=1"));
    assert_eq!((arrival.header("poussetaches-auth-key"), arrival.header("content-type")), (Some(KEY), None));
    let envelope: Value = serde_json::from_slice(&arrival.body).unwrap();
    assert_eq!(fields(&envelope), ["payload", "req_id", "tries"]);
    assert_eq!((&envelope["tries"], &envelope["payload"]), (&json!(1), &json!(STANDARD.encode(r#"{"a": 1}"#))));
    let request = envelope["req_id"].as_str().unwrap();
    assert!(request.len() == 12 && request.bytes().all(|byte| byte.is_ascii_hexdigit()), "{request}");

    let now = at.nanos();
    let task = at.until_listed("success", &id, |_| true).await;
    assert_eq!(fields(&task), sorted(FIELDS));
    let expected = json!({
        "id": id, "url": at.receiver.url("/a?x=1"), "payload": envelope["payload"], "expected": 200, "schedule": "",
        "next_scheduled_run": now, "next_run": now, "tries": 1, "last_run": now,
        "last_error_body": null, "last_error_status_code": 0,
    });
    assert_eq!(task, expected);
    assert_eq!((at.list("waiting").await.len(), at.list("dead").await.len()), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn payloads_survive_byte_for_byte() {
    let at = Mounted::poussetaches().await;
    let every: Vec<u8> = (0..=255).collect();
    let wrapped = STANDARD
        .encode(&every)
        .as_bytes()
        .chunks(76)
        .map(|line| String::from_utf8(line.to_vec()).unwrap())
        .collect::<Vec<_>>();
    let cases = [
        (json!(STANDARD.encode(&every)), json!(STANDARD.encode(&every))),
        (json!(wrapped.join("\r\n") + "\n"), json!(STANDARD.encode(&every))),
        (json!(""), Value::Null),
        (Value::Null, Value::Null),
        (json!("\n"), Value::Null),
        (json!("AB=="), json!("AA==")),
    ];
    for (index, (payload, expected)) in cases.into_iter().enumerate() {
        let path = format!("/{index}");
        let mut task = at.task_for(&path);
        task["payload"] = payload;
        let id = at.push(task).await;
        let arrival = at.receiver.arrived(&path, 1).await.remove(0);
        assert_eq!(serde_json::from_slice::<Value>(&arrival.body).unwrap()["payload"], expected);
        assert_eq!(at.until_listed("success", &id, |_| true).await["payload"], expected);
    }
    let missing = at.push(json!({"url": at.receiver.url("/missing"), "surplus": [1]})).await;
    assert_eq!(at.until_listed("success", &missing, |_| true).await["payload"], Value::Null);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_expected_status_is_a_success_and_tries_count_up() {
    let at = Mounted::poussetaches().await;
    let first = at.nanos();
    at.receiver.on(
        "/a",
        [Answer::body(201, "created"), Answer::body(500, &b"\xffbroken"[..]), Answer::status(204), Answer::status(200)],
    );
    let id = at.push(at.task_for("/a")).await;
    let failures: [(&[u8], u16); 3] = [(b"created", 201), (b"\xffbroken", 500), (b"", 204)];
    for (tries, (body, status)) in failures.into_iter().enumerate() {
        let tries = tries + 1;
        let task = at
            .until_listed("waiting", &id, |task| task["tries"] == tries && task["next_run"].as_i64() > Some(at.nanos()))
            .await;
        assert_eq!(
            (&task["last_error_body"], &task["last_error_status_code"]),
            (&json!(STANDARD.encode(body)), &json!(status))
        );
        assert_eq!(
            (&task["last_run"], &task["next_scheduled_run"]),
            (&json!(at.nanos()), &json!(first)),
            "the first plan stays"
        );
        let wait = task["next_run"].as_i64().unwrap() - at.nanos();
        let plan = 4_i64.pow(u32::try_from(tries).unwrap() - 1) * 1_000_000_000;
        assert!((plan * 7 / 10..=plan * 13 / 10).contains(&wait), "{wait} after try {tries}");
        at.clock.set(carillon_core::clock::UnixMs(task["next_run"].as_i64().unwrap() / 1_000_000));
        at.receiver.arrived("/a", tries + 1).await;
    }
    let done = at.until_listed("success", &id, |_| true).await;
    assert_eq!((&done["tries"], &done["last_error_status_code"]), (&json!(4), &json!(204)), "the last failure stays");
    let envelopes: Vec<Value> =
        at.receiver.arrivals("/a").iter().map(|arrival| serde_json::from_slice(&arrival.body).unwrap()).collect();
    let tries: Vec<_> = envelopes.iter().map(|envelope| envelope["tries"].as_i64().unwrap()).collect();
    let requests: HashSet<_> = envelopes.iter().map(|envelope| envelope["req_id"].as_str().unwrap()).collect();
    assert_eq!((tries, requests.len()), (vec![1, 2, 3, 4], 4), "each try has an id of its own");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_status_can_be_expected() {
    let at = Mounted::poussetaches().await;
    at.receiver.on("/a", [Answer::status(204)]);
    for (expected, list) in [(json!(204), "success"), (json!(0), "waiting"), (Value::Null, "waiting")] {
        let mut task = at.task_for("/a");
        task["expected"] = expected.clone();
        let id = at.push(task).await;
        let shown = at.until_listed(list, &id, |task| task["tries"] == 1).await;
        assert_eq!(shown["expected"], if expected == 204 { 204 } else { 200 });
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_is_dead_after_twelve_tries() {
    let at = Mounted::poussetaches().await;
    let nobody = at.push(json!({"url": "http://127.0.0.1:1/"})).await;
    for tries in 1..12 {
        let task = at
            .until_listed("waiting", &nobody, |task| {
                task["tries"] == tries && task["next_run"].as_i64() > Some(at.nanos())
            })
            .await;
        assert_eq!(task["last_error_status_code"], -1, "there was no answer");
        at.clock.set(carillon_core::clock::UnixMs(task["next_run"].as_i64().unwrap() / 1_000_000));
    }
    let dead = at.until_listed("dead", &nobody, |_| true).await;
    assert_eq!((&dead["tries"], &dead["last_error_status_code"]), (&json!(12), &json!(-1)));
    let why = String::from_utf8(STANDARD.decode(dead["last_error_body"].as_str().unwrap()).unwrap()).unwrap();
    assert!(why.to_lowercase().contains("refused"), "{why}");
    assert_eq!(at.list("waiting").await.len(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delay_is_in_minutes() {
    let at = Mounted::poussetaches().await;
    let mut task = at.task_for("/later");
    task["delay"] = 2.into();
    let id = at.push(task.clone()).await;
    let due = at.nanos() + 120_000_000_000;
    let waiting = at.until_listed("waiting", &id, |_| true).await;
    assert_eq!(
        (&waiting["next_run"], &waiting["next_scheduled_run"], &waiting["tries"]),
        (&json!(due), &json!(due), &json!(0))
    );
    task["url"] = at.receiver.url("/now").into();
    task["delay"] = (-5).into();
    at.push(task).await;
    at.receiver.arrived("/now", 1).await;
    at.advance(119);
    at.host.looked(&at.receiver).await;
    assert_eq!(at.receiver.count("/later"), 0);
    at.advance(1);
    at.receiver.arrived("/later", 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_are_ordered_by_the_next_run() {
    let at = Mounted::poussetaches().await;
    for delay in [5, 1, 9, 3] {
        let mut task = at.task_for("/later");
        task["delay"] = delay.into();
        at.push(task).await;
    }
    let runs: Vec<_> = at.list("waiting").await.iter().map(|task| task["next_run"].as_i64().unwrap()).collect();
    let expected: Vec<_> = [1, 3, 5, 9].map(|minutes| at.nanos() + minutes * 60_000_000_000).into();
    assert_eq!(runs, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pausing_lets_running_deliveries_finish_and_outlives_a_restart() {
    let at = Mounted::poussetaches().await;
    assert_eq!(at.api.get("").await.expect(200), json!({"paused": false, "in_flight": 0}), "a fresh store runs");
    let gate = Gate::closed();
    at.receiver.on("/a", [Answer::status(200).held(&gate)]);
    let running = at.push(at.task_for("/a")).await;
    at.receiver.arrived("/a", 1).await;
    for path in ["/pause", "//pause", "/pause/"] {
        let reply = at.api.raw(Method::POST, path, "").await;
        assert_eq!((reply.status, reply.body.len()), (200, 0), "{path}");
    }
    assert_eq!(at.api.get("/").await.expect(200), json!({"paused": true, "in_flight": 1}));
    assert_eq!(at.list("waiting").await[0]["id"], running, "what is under way is listed as waiting");
    let waits = at.push(at.task_for("/b")).await;
    gate.release(1);
    at.until_listed("success", &running, |_| true).await;
    at.host.looked(&at.receiver).await;
    assert_eq!(at.receiver.count("/b"), 0);

    let Mounted { clock, host, receiver, .. } = at;
    let dir = std::sync::Arc::clone(&host.dir);
    host.stop().await;
    let host: TestHost = crate::support::Setup::with_clock(&clock).in_dir(&dir).start().await;
    let api =
        crate::support::Api::new(&format!("{}/compat/poussetaches", host.base), Some(crate::support::ADMIN_TOKEN));
    let at = Mounted { clock, host, receiver, api };
    assert_eq!(at.api.get("").await.expect(200), json!({"paused": true, "in_flight": 0}));
    at.host.looked(&at.receiver).await;
    assert_eq!(at.receiver.count("/b"), 0);
    for _ in 0..2 {
        assert_eq!(at.api.raw(Method::POST, "/resume", "").await.status, 200);
    }
    at.until_listed("success", &waits, |_| true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_key_stays_at_home() {
    let at = Mounted::poussetaches().await;
    let elsewhere = Receiver::with_clock(at.clock.clone()).await;
    at.receiver.on("/away", [Answer::status(307).header("location", elsewhere.url("/there"))]);
    at.receiver.on("/home", [Answer::status(302).header("location", "/here")]);
    at.push(at.task_for("/away")).await;
    at.push(at.task_for("/home")).await;
    let there = elsewhere.arrived("/there", 1).await.remove(0);
    assert_eq!((there.method.as_str(), there.header("poussetaches-auth-key")), ("POST", None));
    assert_eq!(fields(&serde_json::from_slice(&there.body).unwrap()), ["payload", "req_id", "tries"]);
    let here = at.receiver.arrived("/here", 1).await.remove(0);
    assert_eq!((here.method.as_str(), here.header("poussetaches-auth-key"), here.text()), ("GET", Some(KEY), ""));
    for path in [
        "/v1/groups/poussetaches",
        "/v1/groups/poussetaches/jobs",
        "/v1/keys",
        "/v1/keys/poussetaches-auth-key",
        "/metrics",
    ] {
        assert!(!at.host.api.get(path).await.text().contains(KEY), "{path}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_workers_make_three_deliveries_a_second() {
    let at = Mounted::start("poussetaches").await;
    let gate = Gate::closed();
    at.receiver.on("/slow", [Answer::status(200).held(&gate)]);
    for _ in 0..3 {
        at.push(at.task_for("/slow")).await;
    }
    at.receiver.arrived("/slow", 2).await;
    at.host.looked(&at.receiver).await;
    assert_eq!(at.receiver.count("/slow"), 2, "two workers");
    assert_eq!(at.api.get("").await.expect(200)["in_flight"], 2);
    gate.release(100);
    at.receiver.arrived("/slow", 3).await;
    for _ in 0..7 {
        at.push(at.task_for("/fast")).await;
    }
    at.receiver.arrived("/fast", 2).await;
    at.host.looked(&at.receiver).await;
    assert_eq!(at.receiver.count("/slow") + at.receiver.count("/fast"), 5, "a burst of five");
    for seconds in 1..=2 {
        let start = at.clock.now();
        for _ in 0..3 {
            at.clock.advance(std::time::Duration::from_millis(334));
            at.host.looked(&at.receiver).await;
        }
        at.clock.set(start.plus(std::time::Duration::from_millis(1_002)));
        let expected = (2 + seconds * 3).min(7);
        at.receiver.arrived("/fast", expected).await;
        at.host.looked(&at.receiver).await;
        assert_eq!(at.receiver.count("/fast"), expected, "after {seconds} s");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_clients_at_once_while_lists_are_read() {
    let at = Mounted::poussetaches().await;
    let ids: HashSet<String> = join_all((0..64).map(|_| async {
        let id = at.push(at.task_for("/a")).await;
        at.list("waiting").await;
        at.list("success").await;
        id
    }))
    .await
    .into_iter()
    .collect();
    assert_eq!(ids.len(), 64);
    at.receiver.arrived("/a", 64).await;
    at.until("/success", "all succeeded", |found| found["tasks"].as_array().unwrap().len() == 64).await;
    assert_eq!(at.receiver.count("/a"), 64);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_list_is_written_as_it_is_read() {
    let at = Mounted::poussetaches().await;
    let payload = STANDARD.encode(vec![b'x'; 300_000]);
    for minutes in (1..=20).rev() {
        at.push(json!({"url": at.receiver.url("/x"), "payload": payload, "delay": minutes})).await;
    }
    let reply = at.api.get("/waiting").await;
    assert!(!reply.headers.contains_key("content-length"), "its length is not known before it is read");
    let tasks = reply.expect(200)["tasks"].as_array().unwrap().clone();
    let runs: Vec<i64> = tasks.iter().map(|task| task["next_run"].as_i64().unwrap()).collect();
    assert_eq!(runs, (1..=20).map(|minutes| at.nanos() + minutes * 60_000_000_000).collect::<Vec<_>>());
    assert!(tasks.iter().all(|task| task["payload"] == payload.as_str()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn last_run_is_when_the_try_began() {
    let at = Mounted::poussetaches().await;
    let (began, gate) = (at.nanos(), Gate::closed());
    at.receiver.on("/slow", [Answer::status(500).held(&gate)]);
    let id = at.push(at.task_for("/slow")).await;
    at.receiver.arrived("/slow", 1).await;
    at.advance(2);
    gate.release(1);
    at.until_listed("waiting", &id, |task| task["tries"] == 1 && task["last_error_status_code"] == 500).await;
    let listed = at.list("waiting").await;
    let task = listed.iter().find(|task| task["id"] == id).unwrap();
    assert_eq!(task["last_run"], began, "and not when it ended");
}
