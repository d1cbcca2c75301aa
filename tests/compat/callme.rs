//! callme: tasks by name and minute.

use futures_util::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};

use super::{Mounted, fields, refused};
use crate::support::{Answer, Reply};

const FIELDS: [&str; 11] = [
    "callback",
    "callback_method",
    "executed_at",
    "expected_http_status",
    "max_delay",
    "response_body",
    "response_status",
    "retry",
    "task_name",
    "task_state",
    "trigger_at",
];

const REGISTERED: &str = "task successfully registered";

impl Mounted {
    pub(super) async fn callme() -> Self {
        Self::start("callme").await
    }

    /// The start of the present minute.
    pub(super) fn minute(&self) -> i64 {
        self.second().div_euclid(60) * 60
    }

    /// To the start of the next minute.
    pub(super) fn next_minute(&self) {
        let left = 60 - self.second().rem_euclid(60);
        self.advance(u64::try_from(left).unwrap());
    }

    pub(super) fn task(&self, path: &str, trigger_at: &str) -> Value {
        json!({"trigger_at": trigger_at, "callback": self.receiver.url(path)})
    }

    pub(super) async fn put(&self, name: &str, task: Value) {
        let reply = self.api.put(&format!("/task/{name}"), task).await;
        assert_eq!(reply.expect(200), json!({"message": REGISTERED}), "{name}");
    }

    pub(super) async fn tasks(&self, path: &str) -> Vec<Value> {
        self.api.get(path).await.expect(200)["tasks"].as_array().unwrap().clone()
    }

    /// The only entry of a name, when it is in this state.
    pub(super) async fn until_state(&self, name: &str, state: &str) -> Value {
        let found =
            self.until(&format!("/status/{name}"), state, |found| found["tasks"][0]["task_state"] == state).await;
        found["tasks"][0].clone()
    }

    pub(super) async fn reschedule(&self, path: &str, body: &str) -> Reply {
        self.api.raw(Method::POST, &format!("/reschedule/{path}"), body.to_owned()).await
    }
}

pub(super) fn triggers(tasks: &[Value]) -> Vec<i64> {
    tasks.iter().map(|task| task["trigger_at"].as_str().unwrap().parse().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_runs_in_the_first_moment_of_its_minute() {
    let at = Mounted::callme().await;
    let minute = at.minute() + 60;
    at.put("simple", at.task("/run?x=1", &minute.to_string())).await;
    let task = at.tasks("/status/simple").await.remove(0);
    assert_eq!(fields(&task), FIELDS, "the payload is left out if there is none");
    let expected = json!({
        "trigger_at": minute.to_string(), "task_name": "simple", "callback": at.receiver.url("/run?x=1"), "callback_method": "GET",
        "retry": 1, "expected_http_status": 200, "max_delay": 10, "task_state": "pending",
        "response_body": "", "response_status": 0, "executed_at": "",
    });
    assert_eq!(task, expected);
    at.receiver.on("/run", [Answer::body(200, "done")]);
    at.clock.set(carillon_core::clock::UnixMs(minute * 1_000 - 1));
    at.host.looked(&at.receiver).await;
    assert_eq!(at.receiver.count("/run"), 0, "never early");
    at.clock.set(carillon_core::clock::UnixMs(minute * 1_000));
    let arrival = at.receiver.arrived("/run", 1).await.remove(0);
    assert_eq!((arrival.method.as_str(), arrival.text(), arrival.header("content-type")), ("GET", "", None));
    let done = at.until_state("simple", "successful").await;
    assert_eq!((&done["response_status"], &done["response_body"]), (&json!(200), &json!("done")));
    assert_eq!(done["executed_at"], minute.to_string());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn relative_times_count_from_the_start_of_the_minute() {
    let at = Mounted::callme().await;
    at.advance(17);
    for (name, text, seconds) in [("m", "+1m", 60), ("h", "+6h", 21_600), ("d", "+2d", 172_800)] {
        at.put(name, at.task("/later", text)).await;
        assert_eq!(triggers(&at.tasks(&format!("/status/{name}")).await), [at.minute() + seconds]);
    }
    at.put("now", at.task("/now", "+0m")).await;
    at.receiver.arrived("/now", 1).await;
    at.until_state("now", "successful").await;
    assert_eq!(at.receiver.count("/later"), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn methods_payloads_and_content_types() {
    let at = Mounted::callme().await;
    for (method, kind) in
        [("GET", None), ("POST", Some("application/x-www-form-urlencoded")), ("PUT", None), ("DELETE", None)]
    {
        let path = format!("/{method}");
        let mut task = at.task(&path, "+0m");
        task["callback_method"] = method.into();
        task["payload"] = "a=1&b=ü".into();
        at.put(method, task).await;
        let arrival = at.receiver.arrived(&path, 1).await.remove(0);
        let found = (arrival.method.as_str(), arrival.text(), arrival.header("content-type"));
        assert_eq!(found, (method, "a=1&b=ü", kind));
        let shown = at.until_state(method, "successful").await;
        assert_eq!((&shown["payload"], &shown["callback_method"]), (&json!("a=1&b=ü"), &json!(method)));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_may_be_anything_that_a_path_can_say() {
    let at = Mounted::callme().await;
    let names = ["a", "a/b/c", "a b", "a@b", "ü/🥛", "100%", "a@60", "status", "a+b", "..a", "a&b?c#d", "-"];
    for name in names {
        let encoded: String = name
            .bytes()
            .map(|byte| match byte {
                b'/' => "/".to_owned(),
                byte if byte.is_ascii_alphanumeric() => char::from(byte).to_string(),
                byte => format!("%{byte:02X}"),
            })
            .collect();
        let mut task = at.task("/later", "+5m");
        task["task_name"] = "ignored".into();
        task["task_state"] = "failed".into();
        at.put(&encoded, task).await;
        let shown = at.tasks(&format!("/status/{encoded}")).await;
        assert_eq!((shown.len(), &shown[0]["task_name"]), (1, &json!(name)));
        let at_minute = format!("/status/{encoded}@{}", at.minute() + 300);
        assert_eq!(at.tasks(&at_minute).await, shown, "{name}");
        let slashes = encoded.replace('/', "%2F");
        assert_eq!(at.tasks(&format!("/status/{slashes}")).await, shown, "{name}: encoded slashes");
    }
    assert_eq!(at.tasks("/status/").await.len(), names.len());
    let at_sign = at.tasks("/status/a@").await;
    assert_eq!((at_sign.len(), &at_sign[0]["task_name"]), (1, &json!("a")), "nothing behind the @: the name before it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_name_and_minute_again_replaces_everything() {
    let at = Mounted::callme().await;
    let minute = (at.minute() + 300).to_string();
    at.put("n", at.task("/first", &minute)).await;
    let mut second = at.task("/second", &minute);
    second["expected_http_status"] = 204.into();
    join_all((0..16).map(|_| at.put("n", second.clone()))).await;
    let shown = at.tasks("/status/n").await;
    assert_eq!((shown.len(), &shown[0]["expected_http_status"]), (1, &json!(204)));
    at.receiver.on("/second", [Answer::status(204)]);
    at.advance(300);
    at.until_state("n", "successful").await;
    at.host.looked(&at.receiver).await;
    assert_eq!((at.receiver.count("/first"), at.receiver.count("/second")), (0, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_expected_is_retried_but_not_a_4xx() {
    let at = Mounted::callme().await;
    let run = async |name: &str, answers: Vec<Answer>, more: Value| {
        at.receiver.on(&format!("/{name}"), answers);
        let mut task = at.task(&format!("/{name}"), "+0m");
        task.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        at.put(name, task).await;
    };
    let statuses = |statuses: &[u16]| statuses.iter().copied().map(Answer::status).collect::<Vec<_>>();
    run("client", statuses(&[404]), json!({"retry": 5})).await;
    let failed = at.until_state("client", "failed").await;
    assert_eq!((&failed["response_status"], at.receiver.count("/client")), (&json!(404), 1), "a 4xx is final");

    run("default", statuses(&[500]), json!({})).await;
    let tried = |status: u16| move |found: &Value| found["tasks"][0]["response_status"] == status;
    at.until("/status/default", "it was answered", tried(500)).await;
    assert_eq!(at.tasks("/status/default").await[0]["task_state"], "running", "between two calls");
    at.advance(1);
    let failed = at.until_state("default", "failed").await;
    assert_eq!((&failed["response_status"], at.receiver.count("/default")), (&json!(500), 2), "one retry by default");

    run("thrice", statuses(&[500, 503, 200, 204]), json!({"retry": 3, "expected_http_status": 204})).await;
    for status in [500, 503, 200] {
        at.until("/status/thrice", "it was answered", tried(status)).await;
        at.advance(1);
    }
    let done = at.until_state("thrice", "successful").await;
    assert_eq!((&done["retry"], &done["response_status"]), (&json!(3), &json!(204)), "at most four calls");

    run("expected", statuses(&[404]), json!({"expected_http_status": 404})).await;
    at.until_state("expected", "successful").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_256_bytes_of_an_answer_are_shown_or_why_there_was_none() {
    let at = Mounted::callme().await;
    at.receiver.on("/long", [Answer::body(404, format!("{}ü{}", "x".repeat(255), "y".repeat(99)))]);
    at.put("long", at.task("/long", "+0m")).await;
    let body = at.until_state("long", "failed").await["response_body"].as_str().unwrap().to_owned();
    assert_eq!(body, format!("{}\u{fffd}", "x".repeat(255)));
    let nobody = json!({"trigger_at": "+0m", "callback": "http://127.0.0.1:1/"});
    at.put("nobody", nobody).await;
    at.until("/status/nobody", "it was tried", |found| found["tasks"][0]["response_body"] != "").await;
    at.advance(1);
    let failed = at.until_state("nobody", "failed").await;
    assert_eq!(failed["response_status"], 0);
    assert!(!failed["response_body"].as_str().unwrap().is_empty(), "{failed}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redirects_are_followed() {
    let at = Mounted::callme().await;
    at.receiver.on("/from", [Answer::status(302).header("location", "/to")]);
    at.put("r", at.task("/from", "+0m")).await;
    at.until_state("r", "successful").await;
    assert_eq!(at.receiver.count("/to"), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_that_is_max_delay_late_is_skipped() {
    let at = Mounted::callme().await;
    let mut task = at.task("/late", "+1m");
    task["max_delay"] = 2.into();
    at.put("late", task.clone()).await;
    task["callback"] = at.receiver.url("/still").into();
    at.put("still", task).await;
    at.host.api.post("/v1/groups/callme/pause", json!({})).await.expect(200);
    at.next_minute();
    at.advance(119);
    at.host.api.post("/v1/groups/callme/resume", json!({})).await.expect(200);
    at.until_state("still", "successful").await;
    at.until_state("late", "successful").await;

    let mut task = at.task("/skipped", "+1m");
    task["max_delay"] = 2.into();
    at.put("skipped", task).await;
    at.host.api.post("/v1/groups/callme/pause", json!({})).await.expect(200);
    at.next_minute();
    at.advance(121);
    at.until_state("skipped", "skipped").await;
    assert_eq!(at.receiver.count("/skipped"), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_answer_is_pretty_on_demand() {
    let at = Mounted::callme().await;
    at.put("n", at.task("/a", "+1m")).await;
    for pretty in ["pretty", "pretty=true", "pretty=false", "x=1&pretty="] {
        for path in ["/status/n", "/task/n", "/task/", "/status/nobody@60"] {
            let reply = at.api.get(&format!("{path}?{pretty}")).await;
            assert!(reply.text().starts_with("{\n    \""), "{path}?{pretty}: {}", reply.text());
            assert_eq!(reply.headers["content-type"], "application/json");
        }
        let put = at.api.put(&format!("/task/n?{pretty}"), at.task("/a", "+1m")).await;
        assert_eq!(put.text(), format!("{{\n    \"message\": \"{REGISTERED}\"\n}}"));
        assert!(at.reschedule(&format!("n?all&{pretty}"), "").await.text().starts_with("[\n    {\n        \""));
        assert!(at.api.put(&format!("/task/n?{pretty}"), json!({})).await.text().starts_with("{\n    \"error\""));
    }
    assert!(!at.api.get("/status/n").await.text().contains('\n'));
    assert!(at.api.delete("/task/n?pretty").await.text().starts_with("{\n    \"message\""));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_state_is_read_at_task_as_well() {
    let at = Mounted::callme().await;
    at.put("a/b", at.task("/a", "+1m")).await;
    for (one, other) in [("/task/a/b", "/status/a/b"), ("/task/", "/status/"), ("/task", "/status")] {
        let answers = (at.api.get(one).await.expect(200), at.api.get(other).await.expect(200));
        assert_eq!(answers.0, answers.1);
        assert_eq!(answers.0["tasks"].as_array().unwrap().len(), 1);
    }
    assert_eq!(at.tasks("//status/a/b").await.len(), 1, "clients glue URLs");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_requests_are_refused() {
    let at = Mounted::callme().await;
    at.advance(30);
    let with = |field: &str, value: Value| {
        let mut task = at.task("/never", "+1m");
        task[field] = value;
        task
    };
    let cases = [
        with("trigger_at", json!(at.minute() + 60)),
        with("trigger_at", json!((at.minute() + 61).to_string())),
        with("trigger_at", json!(at.minute().to_string())),
        with("trigger_at", json!("0")),
        with("trigger_at", json!("+1")),
        with("trigger_at", json!("+1s")),
        with("trigger_at", json!("+-1m")),
        with("trigger_at", json!("+9999999d")),
        with("trigger_at", Value::Null),
        with("callback", Value::Null),
        with("callback", json!("")),
        with("callback", json!("%zz")),
        with("callback", json!("ftp://127.0.0.1/")),
        with("callback", json!("/relative")),
        with("callback_method", json!("get")),
        with("callback_method", json!("PATCH")),
        with("payload", json!(1)),
        with("expected_http_status", json!("200")),
        with("expected_http_status", json!(1_000)),
        with("retry", json!(-1)),
        with("retry", json!(1.5)),
        with("max_delay", json!(-1)),
        json!({}),
        json!([]),
        json!(null),
        json!("x"),
    ];
    for task in cases {
        let reply = at.api.put("/task/n", task.clone()).await;
        assert_eq!(reply.status, 400, "{task}: {}", reply.text());
        refused(&reply, 400);
    }
    for body in ["", "{", "trigger_at=%2B1m"] {
        refused(&at.api.raw(Method::PUT, "/task/n", body).await, 400);
    }
    for name in ["", "%00", &"x".repeat(300)] {
        refused(&at.api.put(&format!("/task/{name}"), at.task("/never", "+1m")).await, 400);
    }
    for (method, path) in [
        (Method::POST, "/task/n"),
        (Method::PUT, "/status/n"),
        (Method::GET, "/reschedule/n"),
        (Method::PATCH, "/task/n"),
    ] {
        let error = refused(&at.api.raw(method, path, "{}").await, 400);
        assert_eq!(error, "unknown method");
    }
    refused(&at.api.get("/debug/pprof").await, 404);
    refused(&at.api.get("").await, 404);
    let form = at.api.request(Method::PUT, "/task/n").header("content-type", "application/x-www-form-urlencoded");
    at.api.send(form.body(at.task("/a", "+1m").to_string())).await.expect(200);
}
