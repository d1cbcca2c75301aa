//! Doppler: what it does not take.

use reqwest::Method;
use serde_json::{Value, json};

use super::doppler::request_id;
use super::{Mounted, refused};
use crate::support::Reply;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unknown_id_is_not_found() {
    let at = Mounted::doppler().await;
    let unknown = "/00000000-0000-4000-8000-000000000000";
    refused(&at.api.get(unknown).await, 404);
    at.scheduled(at.callback("/a", at.second() + 5)).await;
    for path in [unknown, "/%ff", "/a/b/c", "/a%2Fb"] {
        refused(&at.api.get(path).await, 404);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_requests_are_refused_with_the_original_statuses() {
    let at = Mounted::doppler().await;
    let with = |field: &str, value: Value| {
        let mut job = at.callback("/never", at.second() + 5);
        job[field] = value;
        job.to_string()
    };
    let without = |field: &str| {
        let mut job = at.callback("/never", at.second() + 5);
        job.as_object_mut().unwrap().remove(field);
        job
    };
    let mut untyped = without("message");
    untyped["callback_url"] = 7.into();
    let cases = [
        (with("callback_url", json!(1)), 422),
        (with("message", Value::Null), 422),
        (with("message", json!({})), 422),
        (with("run_at", json!("soon")), 422),
        (with("run_at", json!(1.5)), 422),
        (with("run_at", json!(9_223_372_036_854_775_808_u64)), 422),
        (with("run_at", json!(9_223_372_036_854_775_807_i64)), 422),
        (with("run_at", json!(1_i64 << 53)), 422),
        (with("max_retries", Value::Null), 422),
        (with("max_retries", json!("3")), 422),
        (with("max_retries", json!(1_i64 << 40)), 422),
        (with("retry_delay", json!([])), 422),
        (with("retry_delay", json!(2.5)), 422),
        (with("retry_delay", json!(i64::MAX)), 422),
        (without("callback_url").to_string(), 400),
        (without("message").to_string(), 400),
        (untyped.to_string(), 422),
        (with("callback_url", json!("/relative")), 422),
        (with("callback_url", json!("localhost:5000/x")), 422),
        (with("callback_url", json!("http://")), 422),
        (with("callback_url", json!("http://[::1")), 422),
        (with("callback_url", json!("")), 422),
        ("{".to_owned(), 400),
        ("{\"message\": \"\u{1}\"}".to_owned(), 400),
        (String::new(), 400),
        ("null".to_owned(), 415),
        ("[]".to_owned(), 422),
        ("\"x\"".to_owned(), 422),
        ("17".to_owned(), 422),
    ];
    for (body, status) in cases {
        let reply = at.api.raw(Method::POST, "", body.clone()).await;
        assert_eq!(reply.status, status, "{body}");
        refused(&reply, status);
    }
    refused(&at.api.raw(Method::POST, "", b"{\"message\": \"\xff\"}".to_vec()).await, 400);
    assert_eq!(at.host.api.get("/v1/groups/doppler").await.status, 404, "nothing was made of them");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_json_content_type_is_needed() {
    let at = Mounted::doppler().await;
    let with = async |kind: Option<&str>| -> Reply {
        let request = at.api.request(Method::POST, "").body(at.callback("/a", at.second() + 5).to_string());
        at.api.send(kind.into_iter().fold(request, |request, kind| request.header("content-type", kind))).await
    };
    for kind in
        ["application/json", "Application/JSON; charset=utf-8", "application/vnd.api+json", "application/problem+JSON"]
    {
        with(Some(kind)).await.expect(200);
    }
    for kind in [
        None,
        Some("text/plain"),
        Some("application/x-www-form-urlencoded"),
        Some("text/json"),
        Some("application/jsonp"),
    ] {
        refused(&with(kind).await, 415);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_methods_are_not_allowed() {
    let at = Mounted::doppler().await;
    let id = request_id(&at.scheduled(at.callback("/a", at.second() + 5)).await);
    for (method, path) in [
        (Method::GET, String::new()),
        (Method::GET, "/".to_owned()),
        (Method::DELETE, "/".to_owned()),
        (Method::PUT, "/".to_owned()),
        (Method::POST, format!("/{id}")),
        (Method::PUT, format!("/{id}")),
        (Method::PATCH, format!("/{id}")),
    ] {
        refused(&at.api.raw(method, &path, "{}").await, 405);
    }
}
