//! poussetaches: what it does not take.

use reqwest::Method;
use serde_json::{Value, json};

use super::poussetaches::task_id;
use super::{Mounted, refused};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_requests_are_refused_and_make_nothing() {
    let at = Mounted::poussetaches().await;
    let with = |field: &str, value: Value| {
        let mut task = at.task_for("/never");
        task[field] = value;
        task
    };
    let cases = [
        json!(null),
        json!([]),
        json!("x"),
        json!({}),
        with("url", json!("")),
        with("url", json!("://x")),
        with("url", json!("%zz")),
        with("url", json!("http://a b/")),
        with("url", json!("/relative")),
        with("url", json!("http://")),
        with("url", json!("ftp://127.0.0.1/")),
        with("url", json!(7)),
        with("payload", json!("a-_b")),
        with("payload", json!("YQ")),
        with("payload", json!("Y Q==")),
        with("payload", json!(7)),
        with("expected", json!("200")),
        with("expected", json!(99)),
        with("expected", json!(1.5)),
        with("delay", json!("1")),
        with("delay", json!(9_999_999_999_i64)),
        with("delay", json!(100_000_000)),
        with("schedule", json!("@reboot")),
        with("schedule", json!("* * * *")),
        with("schedule", json!(5)),
    ];
    for task in cases {
        let reply = at.api.post("", task.clone()).await;
        assert_eq!(reply.status, 400, "{task}: {}", reply.text());
        refused(&reply, 400);
    }
    for body in ["", "{", "url=http%3A%2F%2Fa%2F"] {
        refused(&at.api.raw(Method::POST, "/", body).await, 400);
    }
    refused(&at.api.post("/nosuch", at.task_for("/never")).await, 404);
    for list in ["waiting", "success", "dead", "cron"] {
        assert_eq!(at.list(list).await, Vec::<Value>::new());
    }
    for (method, path) in [
        (Method::PUT, "/"),
        (Method::GET, "/pause"),
        (Method::GET, "/resume"),
        (Method::POST, "/waiting"),
        (Method::DELETE, "/dead"),
        (Method::POST, "/cron"),
    ] {
        let reply = at.api.raw(method, path, "{}").await;
        assert_eq!((reply.status, reply.body.len()), (405, 0), "{path}");
    }
    let untyped = at.api.request(Method::POST, "/").body(at.task_for("/a").to_string());
    task_id(&at.api.send(untyped).await);
}
