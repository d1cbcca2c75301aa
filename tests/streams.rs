//! Streams of events: how many, how long, and who delays whom.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpSocket;
use tokio::sync::Notify;

use crate::support::{
    ADMIN_TOKEN, Answer, Gate, ManualClock, Receiver, Setup, TestHost, eventually, eventually_while, kinds, run, soon,
};

const NOWHERE: &str = "http://127.0.0.1:1/";

/// Long enough for any test: whoever waits for it does not end in time.
const FOREVER: &str = "1h";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_tells_what_was_interrupted_and_ends_the_streams() {
    let host = Setup::new().set("server.drain_timeout", "50ms").start().await;
    let receiver = Receiver::start().await;
    receiver.on("/held", [Answer::status(200).held(&Gate::closed())]);
    host.api.put_group("g", json!({})).await;
    let stream = host.api.follow("").await;
    host.api.job_id("g", json!({"url": receiver.url("/held")})).await;
    receiver.arrived("/held", 1).await;
    soon("it stops", host.stop()).await;
    assert_eq!(kinds(&stream.rest().await), ["push", "pop", "retry"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_waits_for_no_stream() {
    let host = Setup::new().set("server.drain_timeout", FOREVER).set("events.memory", "1GiB").start().await;
    host.api.put_group("g", json!({})).await;
    let idle = host.api.follow("?kind=cancel").await;

    // This one asks, and then never reads.
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let address = host.base.trim_start_matches("http://").to_owned();
    let mut deaf = socket.connect(address.parse().unwrap()).await.unwrap();
    let request = format!("GET /v1/events HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {ADMIN_TOKEN}\r\n\r\n");
    deaf.write_all(request.as_bytes()).await.unwrap();

    // More than the buffers of a connection hold.
    let job = json!({"url": NOWHERE, "run_at": "+1h", "metadata": {"k": "x".repeat(8_000)}});
    let mut reads = host.api.follow("").await;
    for _ in 0..2 {
        host.api.post("/v1/groups/g/jobs/batch", json!({"jobs": vec![job.clone(); 1_500]})).await.expect(201);
    }
    assert_eq!(reads.take(3_000).await.len(), 3_000, "nobody waits for the one who does not read");
    soon("it stops", host.stop()).await;
    assert!(reads.rest().await.is_empty());
    assert!(idle.rest().await.is_empty());
    drop(deaf);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_are_bounded_and_take_the_place_of_no_request() {
    let setup = Setup::new().set("events.streams", "2").set("server.concurrent_requests", "1");
    let host = setup.set("server.request_timeout", "100ms").start().await;
    host.api.put_group("g", json!({})).await;
    let (mut first, second) = (host.api.follow("").await, host.api.follow("").await);
    let refused = host.api.get("/v1/events").await;
    refused.problem(503);
    assert!(refused.headers.contains_key("retry-after"));
    assert!(host.api.get("/metrics").await.text().contains("carillon_event_streams 2\n"));

    // A request that does not end is given up after the time for requests; the streams are not.
    let given_up = Arc::new(Notify::new());
    let waits = Arc::clone(&given_up);
    let rest = async move {
        waits.notified().await;
        Ok::<_, std::io::Error>(Vec::new())
    };
    let slow = reqwest::Body::wrap_stream(futures_util::stream::once(rest));
    host.api.raw(Method::POST, "/v1/groups/g/jobs", slow).await.problem(408);
    given_up.notify_one();
    // Its handler ends a moment after its client was told.
    let job = json!({"url": NOWHERE, "run_at": "+1h"});
    let post = async || host.api.post("/v1/groups/g/jobs", job.clone()).await.status;
    eventually("the place of the request is free", post, |status| *status == 201).await;
    assert_eq!(first.next().await["kind"], "push");

    drop(second);
    host.api.until_status("/v1/events", 200).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_stream_shows_that_it_is_alive() {
    let clock = ManualClock::new();
    let host = Setup::with_clock(&clock).start().await;
    host.api.put_group("g", json!({})).await;
    let mut stream = host.api.follow("?kind=purge").await;
    let start = stream.block().await.unwrap().id.unwrap();
    host.api.post_job("g", json!({"url": NOWHERE, "run_at": "+1h"})).await;
    // The stream begins to wait at some moment after it was opened.
    let later = async || clock.advance(Duration::from_secs(15));
    let look = async || stream.block().now_or_never().map(|block| block.expect("the stream goes on"));
    let alive = eventually_while("it says that it is alive", later, look, Option::is_some).await.unwrap();
    assert!(alive.comment.is_some() && alive.data.is_none(), "{alive:?}");
    assert!(alive.id.unwrap().parse::<u64>().unwrap() > start.parse().unwrap(), "and how far it has looked");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_ends_with_the_token_that_opened_it() {
    let host = TestHost::start().await;
    host.api.put_group("g", json!({})).await;
    let made = host.api.post("/v1/tokens", json!({"name": "n", "role": "viewer"})).await.expect(201);
    let mut theirs = host.api.with_token(made["token"].as_str().unwrap()).follow("").await;
    host.api.post_job("g", json!({"url": NOWHERE, "run_at": "+1h"})).await;
    assert_eq!(theirs.next().await["kind"], "push");
    host.api.delete(&format!("/v1/tokens/{}", made["id"].as_str().unwrap())).await.expect(204);
    host.api.post_job("g", json!({"url": NOWHERE, "run_at": "+1h"})).await;
    assert!(theirs.rest().await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_line_follows_and_comes_back() {
    let (host, receiver) = (TestHost::start().await, Receiver::start().await);
    host.api.put_group("g", json!({})).await;
    let id = host.api.job_id("g", json!({"url": receiver.url("/a"), "name": "n"})).await;
    host.api.until_state(&id, "succeeded").await;
    let environment = [("CARILLON_SERVER", host.base.as_str()), ("CARILLON_TOKEN", ADMIN_TOKEN)];
    let text = run(&["events", "--since", "1", "--group", "g", "--limit", "4"], &environment, "").await;
    let lines: Vec<_> = text.ok().lines().collect();
    assert_eq!(lines.len(), 4, "{text:?}");
    assert!(lines[0].contains(" gap "), "{text:?}");
    assert!(lines[3].contains(&format!(" complete g {id} name=n attempt=1 status=200")), "{text:?}");
    let flags = ["events", "--since", "1", "--kind", "push,complete", "--job", &id, "--limit", "3", "--json"];
    let json = run(&flags, &environment, "").await;
    let events: Vec<Value> = json.ok().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(kinds(&events), ["gap", "push", "complete"]);
    let refused = run(&["events", "--group", "none"], &environment, "").await;
    assert!(refused.error(1).contains("there is no group `none`"));
    comes_back().await;
}

/// Against a server that cuts its streams off after one event.
async fn comes_back() {
    use axum::http::HeaderMap;
    let events = |headers: HeaderMap| async move {
        let seen = headers.get("last-event-id").map_or(0, |id| id.to_str().unwrap().parse::<u32>().unwrap());
        let id = seen + 1;
        ([("content-type", "text/event-stream")], format!("id: {id}\nevent: push\ndata: {{\"id\": \"{id}\"}}\n\n"))
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = format!("http://{}", listener.local_addr().unwrap());
    let app = axum::Router::new().route("/v1/events", axum::routing::get(events));
    tokio::spawn(async { axum::serve(listener, app).await });
    let finished = run(&["events", "--since", "6", "--limit", "3", "--json", "--server", &server], &[], "").await;
    assert_eq!(finished.ok(), "{\"id\": \"7\"}\n{\"id\": \"8\"}\n{\"id\": \"9\"}\n");
    assert!(finished.stderr.contains("was interrupted"), "{finished:?}");
}
