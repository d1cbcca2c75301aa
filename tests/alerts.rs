//! Observers that ask for jobs: what they ask for is made, delivered and judged like any other job, and cannot go round in a circle.

use serde_json::{Value, json};

use crate::support::{Answer, Api, Receiver, TestHost, upload_built};

/// A group whose jobs fail at once, watched by an observer that posts to `url`.
fn watched(url: &str, jobs: Value) -> Value {
    json!({
        "observe": {"plugin": "observe-slack", "config": {"channel": "#alerts", "url": url}, "jobs": jobs},
        "retry": {"config": {"max_attempts": 1}},
    })
}

/// What the group's observer has done, when that is as wanted.
async fn until_observed(api: &Api, group: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    api.until_shown(&format!("/v1/groups/{group}"), |group| wanted(&group["observer"])).await["observer"].clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_letter_is_posted_to_slack_and_posted_again_until_slack_takes_it() {
    let (host, receiver) = (TestHost::start().await, Receiver::start().await);
    let api = &host.api;
    receiver.on("/dead", [Answer::status(500)]);
    receiver.on(
        "/slack",
        [Answer::body(200, r#"{"ok": false, "error": "ratelimited"}"#), Answer::body(200, r#"{"ok": true}"#)],
    );
    upload_built(api, "examples/observe-slack", "observe-slack").await;
    api.put("/v1/keys/slack", json!({"kind": "header", "secret": "Bearer xoxb-1"})).await.ok();
    let body = json!([{"pointer": "/ok", "equals": true}]);
    let alerts = json!({
        "auth_headers": {"Authorization": "slack"},
        "judge": {"config": {"expect": [200], "body": body}},
        "retry": {"config": {"kind": "fixed", "base": "10ms", "jitter": 0}},
    });
    api.put_group("alerts", alerts).await;
    api.put_group("orders", watched(&receiver.url("/slack"), json!("alerts"))).await;
    let id = api.job_id("orders", json!({"url": receiver.url("/dead"), "name": "order <7>"})).await;
    receiver.arrived("/slack", 2).await;
    let arrivals = receiver.arrivals("/slack");
    for arrival in &arrivals {
        assert_eq!(arrival.header("authorization"), Some("Bearer xoxb-1"));
        assert_eq!(arrival.header("content-type"), Some("application/json"));
    }
    let message: Value = serde_json::from_str(arrivals[0].text()).unwrap();
    assert_eq!(message["channel"], "#alerts");
    let text = message["text"].as_str().unwrap();
    assert!(
        text.starts_with(&format!("*orders*: 1 × error\n• error `{id}` (order &lt;7&gt;): status 500, ")),
        "{text}"
    );
    let observer = until_observed(api, "orders", |observer| observer["jobs"] == 1).await;
    assert_eq!(observer["last_fault"], Value::Null);
    let jobs = api.get("/v1/groups/alerts/jobs").await.items();
    assert_eq!(jobs.len(), 1, "one message, posted twice");
    assert!(jobs[0]["name"].as_str().unwrap().starts_with("slack-"));
    api.until_state(jobs[0]["id"].as_str().unwrap(), "succeeded").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_that_an_observer_cannot_make_are_reported_and_alert_no_observer() {
    let (host, receiver) = (TestHost::start().await, Receiver::start().await);
    let api = &host.api;
    receiver.on("/dead", [Answer::status(500)]);
    upload_built(api, "examples/observe-slack", "observe-slack").await;
    let url = receiver.url("/dead");
    api.put("/v1/groups/a", watched(&url, json!("nowhere"))).await.problem_at(422, "/observe/jobs");
    api.put("/v1/groups/a", json!({"judge": {"jobs": "a"}})).await.problem_at(422, "/judge/jobs");

    // Without `jobs` it may ask for nothing, and says so.
    api.put_group("a", watched(&url, Value::Null)).await;
    api.job_id("a", json!({"url": url})).await;
    let observer = until_observed(api, "a", |observer| observer["log"] != json!([])).await;
    assert!(observer["log"][0].as_str().unwrap().contains("does not say where"), "{observer}");

    // A group cannot be told of by way of itself, nor by way of one that asks for jobs, too.
    api.put_group("b", watched(&url, json!("a"))).await;
    api.put("/v1/groups/c", watched(&url, json!("b"))).await.problem_at(422, "/observe/jobs");
    api.put_group("a", watched(&url, json!("a"))).await;
    api.job_id("a", json!({"url": url})).await;
    let said = |observer: &Value| observer["log"].to_string().contains("requests jobs itself");
    let observer = until_observed(api, "a", said).await;
    assert_eq!(observer["jobs"], 0);

    // What no client could post is not made either.
    api.put_group("plain", json!({})).await;
    api.put_group("a", watched("http://[", json!("plain"))).await;
    api.job_id("a", json!({"url": url})).await;
    until_observed(api, "a", |observer| observer["log"].to_string().contains("not an absolute URL")).await;
    assert!(api.get("/v1/groups/plain/jobs").await.items().is_empty());
}
