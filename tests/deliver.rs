//! A job goes out: when it is due, and byte for byte what was posted.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use carillon_core::clock::{Clock as _, UnixMs};
use reqwest::Method;
use serde_json::json;

use crate::support::{Arrival, ManualClock, Receiver, Setup, TestHost, ms, upload_built};

/// Delivers one job, which is given as the text of a JSON object's members.
async fn delivered(host: &TestHost, receiver: &Receiver, path: &str, members: &str) -> Arrival {
    let text = format!(r#"{{"url": "{}"{members}}}"#, receiver.url(path));
    let made = host.api.raw(Method::POST, "/v1/groups/g/jobs", text).await.expect(201);
    host.api.until_state(made["id"].as_str().unwrap(), "succeeded").await;
    let arrivals = receiver.arrivals(path);
    assert_eq!(arrivals.len(), 1, "once");
    assert_eq!(arrivals[0].header("idempotency-key"), made["id"].as_str());
    arrivals[0].clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn payloads_arrive_byte_for_byte() {
    let host = TestHost::start().await;
    let receiver = Receiver::start().await;
    host.api.put_group("g", json!({})).await;
    let json = "{ \"b\":  1.0,\n\t\"a\": 123456789012345678901234567890, \"a\": \"\\u00e9\\/\", \"f\": 1E400 }";
    let bytes: Vec<u8> = (0..=255).collect();
    let text = "grüße \u{1f514}\r\n\0end";
    for (path, members, expected, content_type) in [
        ("/json", format!(r#", "payload": {json}"#), json.as_bytes().to_vec(), Some("application/json")),
        ("/null", r#", "payload": null"#.to_owned(), Vec::new(), None),
        ("/string", r#", "payload": "s""#.to_owned(), b"\"s\"".to_vec(), Some("application/json")),
        ("/text", format!(r#", "payload_text": {}"#, json!(text)), text.as_bytes().to_vec(), None),
        ("/bytes", format!(r#", "payload_base64": "{}""#, STANDARD.encode(&bytes)), bytes, None),
        ("/none", String::new(), Vec::new(), None),
    ] {
        let arrival = delivered(&host, &receiver, path, &members).await;
        assert_eq!(arrival.body, expected, "{path}");
        assert_eq!(arrival.header("content-type"), content_type, "{path}");
        assert_eq!(arrival.header("content-length"), Some(expected.len().to_string().as_str()), "{path}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn method_headers_and_query_are_those_of_the_job() {
    let host = TestHost::start().await;
    let receiver = Receiver::start().await;
    host.api.put_group("g", json!({})).await;
    let own =
        r#", "payload": {}, "headers": {"Content-Type": "application/x-own", "X-Own": "a, b", "User-Agent": "mine"}"#;
    let arrival = delivered(&host, &receiver, "/own", own).await;
    assert_eq!(arrival.header("content-type"), Some("application/x-own"));
    assert_eq!(arrival.header("x-own"), Some("a, b"));
    assert_eq!(arrival.header("user-agent"), Some("mine"));
    assert_eq!(arrival.header("host"), Some(format!("127.0.0.1:{}", receiver.port).as_str()));
    assert_eq!(arrival.header("carillon-attempt"), Some("1"));
    assert_eq!(arrival.header("carillon-job-id"), arrival.header("idempotency-key"));

    let of_its_own = r#", "headers": {"Host": "shop.example:8443"}"#;
    let arrival = delivered(&host, &receiver, "/host", of_its_own).await;
    let hosts: Vec<_> = arrival.headers.iter().filter(|(name, _)| name == "host").collect();
    assert_eq!(hosts.len(), 1, "{hosts:?}");
    assert_eq!(arrival.header("host"), Some("shop.example:8443"));

    for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND"] {
        let path = format!("/{method}");
        let arrival = delivered(&host, &receiver, &path, &format!(r#", "method": "{method}""#)).await;
        assert_eq!((arrival.method.as_str(), arrival.target.as_str()), (method, path.as_str()));
        assert_eq!(arrival.header("user-agent"), Some("carillon"));
    }
    let id = host.api.job_id("g", json!({"url": receiver.url("/query?a=%20b&c=%C3%A9")})).await;
    host.api.until_state(&id, "succeeded").await;
    assert_eq!(receiver.arrivals("/query")[0].target, "/query?a=%20b&c=%C3%A9");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_goes_out_at_its_time_and_not_a_millisecond_before() {
    let clock = ManualClock::new();
    let host = Setup::with_clock(&clock).start().await;
    let receiver = Receiver::with_clock(clock.clone()).await;
    host.api.put_group("g", json!({})).await;
    let made = host.api.post_job("g", json!({"url": receiver.url("/a"), "run_at": "+26h"})).await;
    let run_at = ms(&made["run_at"]);
    clock.set(UnixMs(run_at.0 - 1));
    host.looked(&receiver).await;
    assert_eq!(receiver.count("/a"), 0, "a millisecond before");
    clock.set(run_at);
    assert_eq!(receiver.arrived("/a", 1).await[0].at, run_at);
    host.api.until_state(made["id"].as_str().unwrap(), "succeeded").await;
}

/// Calls of an encoder that traps are seen before anything else of an attempt is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_is_made_ready_in_the_moment_before_its_time() {
    let clock = ManualClock::new();
    let host = Setup::with_clock(&clock).start().await;
    upload_built(&host.api, "tests/guests/moody", "moody").await;
    host.api.put_group("g", json!({"encode": [{"plugin": "moody", "config": {"mood": "trap"}}]})).await;
    let mut events = host.api.follow("?kind=quarantine").await;
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(host.api.job_id("g", json!({"url": "http://127.0.0.1:9/", "run_at": "+60s"})).await);
    }
    let run_at = ms(&host.api.job(&ids[0]).await["run_at"]);
    clock.set(UnixMs(run_at.0 - 1));
    events.take(1).await;
    for id in &ids {
        assert_eq!(host.api.job(id).await["state"], "running");
        assert!(host.api.attempts(id).await.is_empty(), "nothing is decided before its time");
    }
    clock.set(run_at);
    for id in &ids {
        host.api.until_state(id, "scheduled").await;
        let attempts = host.api.attempts(id).await;
        assert_eq!((&attempts[0]["error"]["code"], ms(&attempts[0]["started_at"])), (&json!("policy.trap"), run_at));
        assert_eq!(ms(&attempts[0]["finished_at"]), run_at);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_go_out_in_the_order_of_their_times() {
    let clock = ManualClock::new();
    let host = Setup::with_clock(&clock).start().await;
    let receiver = Receiver::with_clock(clock.clone()).await;
    host.api.put_group("g", json!({"limits": {"concurrency": 1}})).await;
    let start = clock.now();
    for seconds in [50, 10, 40, 20, 30] {
        let url = receiver.url(&format!("/in-order?{seconds}"));
        host.api.post_job("g", json!({"url": url, "run_at": format!("+{seconds}s")})).await;
    }
    clock.set(start.plus(Duration::from_secs(60)));
    let arrivals = receiver.arrived("/in-order", 5).await;
    let order: Vec<_> = arrivals.iter().map(|arrival| arrival.target.rsplit('?').next().unwrap()).collect();
    assert_eq!(order, ["10", "20", "30", "40", "50"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_the_real_clock_nothing_is_early() {
    let host = TestHost::start().await;
    let receiver = Receiver::start().await;
    host.api.put_group("g", json!({})).await;
    let jobs: Vec<_> =
        (0..200).map(|n| json!({"url": receiver.url("/a"), "run_at": format!("+{}ms", 300 + 3 * n)})).collect();
    let made = host.api.post("/v1/groups/g/jobs/batch", json!({"jobs": jobs})).await.expect(201);
    for arrival in receiver.arrived("/a", 200).await {
        let job = host.api.job(arrival.header("idempotency-key").unwrap()).await;
        assert!(arrival.at >= ms(&job["run_at"]), "{job}");
    }
    assert_eq!(made["ids"].as_array().unwrap().len(), 200);
}
