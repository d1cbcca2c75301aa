//! callme: lists of entries, and what is done to them.

use reqwest::Method;
use serde_json::{Value, json};

use super::callme::triggers;
use super::{Mounted, fields, refused};
use crate::support::{Answer, Gate};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_are_in_order_and_paged() {
    let at = Mounted::callme().await;
    assert_eq!(at.api.get("/status/").await.expect(200), json!({"tasks": []}));
    let minutes: Vec<i64> = (1..=3).map(|index| at.minute() + index * 60).collect();
    for minute in minutes.iter().rev() {
        at.put("far", at.task("/later", &minute.to_string())).await;
    }
    at.put("far@away", at.task("/later", "+1m")).await;
    assert_eq!(triggers(&at.tasks("/status/far").await), minutes, "by minute, and no other name");
    let rest = at.tasks(&format!("/status/far?start_from=far@{}", minutes[0])).await;
    assert_eq!(triggers(&rest), minutes[1..], "after that one");
    assert_eq!(at.tasks("/status/nobody").await, Vec::<Value>::new());
    refused(&at.api.get(&format!("/status/far@{}", minutes[2] + 60)).await, 404);
    refused(&at.api.get("/status/?start_from=far").await, 400);

    let payload = "x".repeat(300_000);
    for index in 0..10 {
        let mut task = at.task("/later", "+9m");
        task["payload"] = payload.clone().into();
        at.put(&format!("large/{index}"), task).await;
    }
    let (mut seen, mut path, mut pages) = (Vec::new(), "/status/".to_owned(), 0);
    loop {
        let page = at.api.get(&path).await.expect(200);
        let tasks = page["tasks"].as_array().unwrap();
        seen.extend(
            tasks.iter().map(|task| {
                format!("{}@{}", task["task_name"].as_str().unwrap(), task["trigger_at"].as_str().unwrap())
            }),
        );
        pages += 1;
        let Some(next) = page.get("next") else { break };
        assert_eq!(fields(next), ["start_from", "task_name", "trigger_at"]);
        path = format!("/status/?start_from={}", next["start_from"].as_str().unwrap());
    }
    assert!(pages > 1, "the answers are bounded");
    let mut once = seen.clone();
    once.sort();
    once.dedup();
    assert_eq!((seen.len(), once.len()), (14, 14), "each once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn future_only_leaves_out_what_is_over() {
    let at = Mounted::callme().await;
    at.put("n", at.task("/now", "+0m")).await;
    at.until_state("n", "successful").await;
    at.put("n", at.task("/later", "+1m")).await;
    assert_eq!(at.tasks("/status/n?future_only").await.len(), 2, "what begins now is not over");
    at.advance(1);
    for path in ["/status/n", "/status/"] {
        assert_eq!(at.tasks(path).await.len(), 2);
        for only in ["future_only", "future_only=true", "future_only="] {
            assert_eq!(triggers(&at.tasks(&format!("{path}?{only}")).await), [at.minute() + 60], "{path}?{only}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_task_never_runs_and_is_gone() {
    let at = Mounted::callme().await;
    let minute = at.minute() + 60;
    at.put("n", at.task("/never", &minute.to_string())).await;
    at.put("n", at.task("/kept", &(minute + 60).to_string())).await;
    let answer = at.api.delete(&format!("/task/n@{minute}")).await.expect(200);
    assert!(answer["message"].is_string());
    refused(&at.api.get(&format!("/status/n@{minute}")).await, 404);
    refused(&at.api.delete(&format!("/task/n@{minute}")).await, 404);
    refused(&at.api.delete("/task/nobody").await, 404);
    at.advance(130);
    at.until_state("n", "successful").await;
    assert_eq!((at.receiver.count("/never"), at.receiver.count("/kept")), (0, 1));
    at.api.delete("/task/n").await.expect(200);
    assert_eq!(at.tasks("/status/n").await, Vec::<Value>::new());
    at.put("n", at.task("/again", "+1m")).await;
    assert_eq!(at.tasks("/status/n").await[0]["task_state"], "pending", "the name is free again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_task_moves_to_the_next_minute() {
    let at = Mounted::callme().await;
    at.receiver.on("/a", [Answer::body(404, "no"), Answer::body(200, "yes")]);
    let mut task = at.task("/a", "+0m");
    task["payload"] = "p".into();
    task["retry"] = 4.into();
    at.put("n", task).await;
    let failed = at.until_state("n", "failed").await;
    let old = triggers(&[failed])[0];
    let moved = at.reschedule("n", "").await.expect(200);
    let expected = json!([{
        "trigger_at": (at.minute() + 60).to_string(), "task_name": "n", "payload": "p", "callback": at.receiver.url("/a"),
        "callback_method": "GET", "retry": 4, "expected_http_status": 200, "max_delay": 10, "task_state": "pending",
        "response_body": "", "response_status": 0, "executed_at": "",
    }]);
    assert_eq!(moved, expected);
    refused(&at.api.get(&format!("/status/n@{old}")).await, 404);
    assert_eq!(at.reschedule("n", "").await.expect(200), json!([]), "it has not failed now");
    at.next_minute();
    let done = at.until_state("n", "successful").await;
    assert_eq!((&done["response_body"], at.receiver.count("/a")), (&json!("yes"), 2));
    assert_eq!(at.reschedule("nobody", "").await.expect(200), json!([]));
    refused(&at.reschedule("n@60", "").await, 404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_new_time_comes_from_the_body_a_form_or_the_query() {
    let at = Mounted::callme().await;
    let start = at.minute();
    at.put("n", at.task("/a", "+1m")).await;
    let json_body = json!({"trigger_at": (start + 600).to_string()}).to_string();
    for (path, body, minutes) in [
        ("n?all=true", json_body.as_str(), 10),
        ("n?all", "trigger_at=%2B20m", 20),
        ("n?all=no&trigger_at=%2B30m", "", 30),
        ("n?all", "{}", 1),
        ("n?all", "{\"trigger_at\": null}", 1),
        ("n?all&trigger_at=%2B5m", "{\"trigger_at\": \"\"}", 5),
        ("n?all", "{\"trigger_at\": \"\"}", 1),
        ("n?all&trigger_at=", "", 1),
        ("n?all", "null", 1),
        ("n?all", "trigger_at=", 1),
        ("n?all", "other=1", 1),
    ] {
        let moved = at.reschedule(path, body).await.expect(200);
        assert_eq!(triggers(moved.as_array().unwrap()), [start + minutes * 60], "{path} {body}");
        assert_eq!(triggers(&at.tasks("/status/n").await), [start + minutes * 60], "the old entry is gone");
    }
    for (path, body) in [
        ("n?all", "{\"trigger_at\": \"soon\"}"),
        ("n?all", "{\"trigger_at\": 60}"),
        ("n?all&trigger_at=60", ""),
        ("n?all", "{"),
        ("n?all", "what?"),
        ("n?all&trigger_at=%2B99999d", ""),
    ] {
        refused(&at.reschedule(path, body).await, 400);
    }
    assert_eq!(triggers(&at.tasks("/status/n").await), [start + 60]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn entries_that_move_to_one_minute_are_spread() {
    let at = Mounted::callme().await;
    let start = at.minute();
    for minutes in [1, 2, 3, 11] {
        at.put("n", at.task("/a", &(start + minutes * 60).to_string())).await;
    }
    let one =
        at.reschedule(&format!("n@{}?all", start + 60), &json!({"trigger_at": "+2m"}).to_string()).await.expect(200);
    assert_eq!(triggers(one.as_array().unwrap()), [start + 240], "around those that are there");
    let moved = at.reschedule("n?all=1", &json!({"trigger_at": "+10m"}).to_string()).await.expect(200);
    let spread: Vec<_> = (10..14).map(|minutes| start + minutes * 60).collect();
    assert_eq!(triggers(moved.as_array().unwrap()), spread);
    assert_eq!(triggers(&at.tasks("/status/n").await), spread, "none took another's place");
    at.advance(9 * 60 + 59);
    at.host.looked(&at.receiver).await;
    assert_eq!(at.receiver.count("/a"), 0, "none runs at its old time");
    for count in 1..=4 {
        at.next_minute();
        at.receiver.arrived("/a", count).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_that_runs_is_not_moved_and_not_run_twice() {
    let at = Mounted::callme().await;
    let gate = Gate::closed();
    at.receiver.on("/a", [Answer::status(200).held(&gate)]);
    at.put("n", at.task("/a", "+0m")).await;
    at.receiver.arrived("/a", 1).await;
    assert_eq!(at.reschedule("n?all", "").await.expect(200), json!([]));
    assert_eq!(at.tasks("/status/n").await[0]["task_state"], "running");
    gate.release(1);
    at.until_state("n", "successful").await;
    let again = at.reschedule("n?all", "").await.expect(200);
    assert_eq!(again[0]["task_state"], "pending", "with `all` it runs once more");
    gate.release(1);
    at.next_minute();
    at.receiver.arrived("/a", 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_in_paths_are_text_and_end_without_slashes() {
    let at = Mounted::callme().await;
    for (method, path) in [
        (Method::PUT, "/task/%ff"),
        (Method::GET, "/task/%fe"),
        (Method::GET, "/status/a%ff@60"),
        (Method::DELETE, "/task/%c3%28"),
        (Method::POST, "/reschedule/%ff"),
    ] {
        let task = at.task("/a", "+1m").to_string();
        refused(&at.api.raw(method.clone(), path, task).await, 400);
    }
    assert_eq!(at.tasks("/status/").await, Vec::<Value>::new());
    at.put("foo/", at.task("/a", "+1m")).await;
    for path in ["/status/foo", "/status/foo/", "/task/foo//"] {
        let tasks = at.tasks(path).await;
        assert_eq!(tasks.len(), 1, "{path}");
        assert_eq!(tasks[0]["task_name"], "foo");
    }
    at.put("a%2F", at.task("/a", "+1m")).await;
    assert_eq!(at.tasks("/status/a%2F").await[0]["task_name"], "a/", "a slash that is part of the name");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_before_the_mount_is_asked_are_pretty_too() {
    let at = Mounted::callme().await;
    let reply = at.api.without_token().get("/status/?pretty").await;
    assert_eq!(reply.status, 401);
    assert!(reply.text().starts_with("{\n    \"error\""), "{}", reply.text());
    assert!(reply.headers.contains_key("www-authenticate"));
    let request = at.api.request(Method::PUT, "/task/a?pretty").header("content-encoding", "gzip").body("x");
    let reply = at.api.send(request).await;
    assert_eq!(reply.status, 415);
    assert!(reply.text().starts_with("{\n    \"error\""), "{}", reply.text());
}
