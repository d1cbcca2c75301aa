//! Pools that all clients and tenants share: whoever takes all that is to be had leaves the others theirs.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use carillon_core::clock::Stopwatch;
use reqwest::Method;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

use crate::support::{ADMIN_TOKEN, Answer, Api, Gate, Receiver, Setup, TestHost, eventually, soon};

/// Nothing is delivered there.
const NOWHERE: &str = "http://127.0.0.1:9/";

/// How soon a tenant or an address is served, whatever others hold.
const PROMPT: Duration = Duration::from_secs(2);

const HEALTH: &[u8] = b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n";

fn address(host: &TestHost) -> SocketAddr {
    host.base.strip_prefix("http://").unwrap().parse().unwrap()
}

/// Connects from an address of this machine, with a small receive buffer, and sends `bytes`.
async fn send_from(from: [u8; 4], host: &TestHost, bytes: &[u8]) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4 << 10).unwrap();
    socket.bind(SocketAddr::from((Ipv4Addr::from(from), 0))).unwrap();
    let mut stream = socket.connect(address(host)).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    stream
}

async fn send(host: &TestHost, bytes: &[u8]) -> TcpStream {
    send_from([127, 0, 0, 1], host, bytes).await
}

/// The beginning of a response, up to the end of its head; empty if the connection ends before.
async fn head(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\r\n\r\n") {
        match soon("a byte of a response", stream.read_u8()).await {
            Ok(byte) => bytes.push(byte),
            Err(_) => return String::new(),
        }
    }
    String::from_utf8(bytes).unwrap().to_lowercase()
}

/// Whether the server has closed a connection.
fn is_closed(stream: &TcpStream) -> bool {
    match stream.try_read(&mut [0; 1]) {
        Ok(count) => count == 0,
        Err(error) => error.kind() != std::io::ErrorKind::WouldBlock,
    }
}

/// Waits until the server has closed all connections but `left`.
async fn until_left(streams: &[TcpStream], left: usize) {
    let open = async || streams.iter().filter(|stream| !is_closed(stream)).count();
    eventually("connections are closed", open, |open| *open <= left).await;
}

fn bound(name: &str) -> String {
    format!("carillon_refused_total{{bound=\"{name}\"}}")
}

async fn prompt<T>(what: &str, happens: impl Future<Output = T>) -> T {
    let begun = Stopwatch::start();
    let result = soon(what, happens).await;
    assert!(begun.elapsed() < PROMPT, "{what} took {:?}", begun.elapsed());
    result
}

/// A request of a token with a body that has a length, of which only a part is sent.
fn unfinished(path: &str, token: &str, length: usize, sent: usize) -> Vec<u8> {
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {token}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n"
    );
    [head.into_bytes(), vec![b' '; sent]].concat()
}

async fn tenant_token(host: &TestHost, name: &str) -> (Api, String) {
    let api = host.api.tenant(name).await;
    let token = host.api.token(json!({"tenant": name, "role": "admin"})).await;
    (api, token)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_never_read_are_cut_off_and_answered_once_at_a_time() {
    let host = Setup::new().set("server.write_timeout", "1s").set("server.payload_limit", "4MiB").start().await;
    host.api.put_group("g", json!({})).await;
    let job = json!({"url": NOWHERE, "run_at": "+1h", "payload_text": "x".repeat(4 << 20)});
    let id = host.api.job_id("g", job).await;
    let authorized = format!("HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {ADMIN_TOKEN}\r\n\r\n");
    let download = format!("GET /v1/jobs/{id}/payload {authorized}");
    let mut deaf = Vec::new();
    for _ in 0..20 {
        deaf.push(send(&host, "GET /openapi.json HTTP/1.1\r\nhost: localhost\r\n\r\n".repeat(60).as_bytes()).await);
        deaf.push(send(&host, download.as_bytes()).await);
    }
    let timeouts = async || host.api.metric(&bound("server.write_timeout")).await;
    eventually("they are cut off", timeouts, |count| *count == 40).await;
    let answered = r#"carillon_http_requests_total{method="GET",route="/openapi.json",status="200"}"#;
    let answered = host.api.metric(answered).await;
    assert!(answered < 20 * 20, "{answered} of 1200 requests were answered into a buffer");
    drop(deaf);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stream_that_is_not_read_is_cut_off_and_a_silent_one_is_not() {
    let host = Setup::new().set("server.write_timeout", "1s").start().await;
    host.api.put_group("g", json!({})).await;
    let authorized = format!("HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {ADMIN_TOKEN}\r\n\r\n");
    let deaf = send(&host, format!("GET /v1/events {authorized}").as_bytes()).await;
    let silent = send(&host, format!("GET /v1/events?kind=purge {authorized}").as_bytes()).await;
    let job = json!({"url": NOWHERE, "run_at": "+1h", "metadata": {"k": "x".repeat(4_000)}});
    host.api.post("/v1/groups/g/jobs/batch", json!({"jobs": vec![job; 1_000]})).await.expect(201);
    let open = async || host.api.metric("carillon_event_streams").await;
    eventually("one stream is left", open, |open| *open == 1).await;
    assert_eq!(host.api.metric(&bound("server.write_timeout")).await, 1);
    drop((deaf, silent));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn client_that_reads_slowly_gets_all_of_a_download() {
    let setup = Setup::new().set("server.write_timeout", "1s").set("server.header_read_timeout", "1s");
    let host = setup.set("server.payload_limit", "4MiB").start().await;
    host.api.put_group("g", json!({})).await;
    let job = json!({"url": NOWHERE, "run_at": "+1h", "payload_text": "x".repeat(4 << 20)});
    let id = host.api.job_id("g", job).await;
    let request =
        format!("GET /v1/jobs/{id}/payload HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {ADMIN_TOKEN}\r\n\r\n");
    let mut stream = send(&host, request.as_bytes()).await;
    assert!(head(&mut stream).await.starts_with("http/1.1 200"));
    let (mut left, mut buffer) = (4 << 20, vec![0; 64 << 10]);
    while left > 0 {
        tokio::time::sleep(Duration::from_millis(25)).await;
        let next = left.min(buffer.len());
        soon("the next part", stream.read_exact(&mut buffer[..next])).await.unwrap();
        left -= next;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn address_has_a_number_of_connections_of_its_own() {
    let setup = Setup::new().set("server.connections_per_peer", "8").set("server.header_read_timeout", "1h");
    let host = setup.set("server.trusted_proxies", "127.0.0.3/32").start().await;
    let (mut silent, mut trusted) = (Vec::new(), Vec::new());
    for number in 0..50 {
        let beginning: &[u8] = if number % 2 == 0 { b"" } else { b"GET / HTTP/1.1\r\nhost" };
        silent.push(send_from([127, 0, 0, 2], &host, beginning).await);
        trusted.push(send_from([127, 0, 0, 3], &host, beginning).await);
    }
    until_left(&silent, 8).await;
    assert!(trusted.iter().all(|stream| !is_closed(stream)), "a proxy speaks for many");
    let mut other = prompt("another address connects", send_from([127, 0, 0, 4], &host, HEALTH)).await;
    assert!(prompt("it is served", head(&mut other)).await.starts_with("http/1.1 200"));
    let mut same = send_from([127, 0, 0, 2], &host, HEALTH).await;
    assert!(head(&mut same).await.starts_with("http/1.1 200"), "and so is the same address");
    assert!(host.api.metric(&bound("server.connections_per_peer")).await >= 42);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_wait_give_way_to_new_ones() {
    let setup = Setup::new().set("server.connections", "8").set("server.header_read_timeout", "1h");
    let host = setup.start().await;
    let mut waiting = Vec::new();
    for number in 0..40 {
        let beginning: &[u8] = match number % 3 {
            0 => b"",
            1 => b"GET / HTTP/1.1\r\nhost",
            _ => HEALTH,
        };
        waiting.push(send(&host, beginning).await);
    }
    for _ in 0..5 {
        let mut new = prompt("a new one connects", send(&host, HEALTH)).await;
        assert!(prompt("a new one is served", head(&mut new)).await.starts_with("http/1.1 200"));
        waiting.push(new);
    }
    assert!(host.api.metric(&bound("server.connections")).await > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_takes_no_place_and_a_tenant_leaves_places_for_requests() {
    let setup = Setup::new().set("server.concurrent_requests", "16").set("server.request_timeout", "50s");
    let host = setup.start().await;
    let victim = host.api.tenant("victim").await;
    victim.put_group("v", json!({})).await;
    let mut held = Vec::new();
    for name in ["acme", "other", "third"] {
        let (api, token) = tenant_token(&host, name).await;
        api.put_group("g", json!({})).await;
        for _ in 0..20 {
            held.push(send(&host, &unfinished("/v1/groups/g/jobs", &token, 1_000, 10)).await);
        }
    }
    let refused = async || host.api.metric(&bound("server.concurrent_requests")).await;
    eventually("most are refused", refused, |refused| *refused >= 40).await;
    for path in ["/healthz", "/readyz", "/metrics"] {
        assert_eq!(prompt(path, host.api.without_token().get(path)).await.status, 200, "{path}");
    }
    prompt("the victim's job", victim.post_job("v", json!({"url": NOWHERE, "run_at": "+1h"}))).await;
    prompt("the victim's list", victim.get("/v1/groups/v/jobs")).await.expect(200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn consumers_that_wait_take_no_places_of_requests_and_leave_some_of_their_own() {
    let setup = Setup::new().set("server.concurrent_requests", "16").set("server.request_timeout", "5m");
    let host = setup.start().await;
    let victim = host.api.tenant("victim").await;
    victim.put_group("v", json!({})).await;
    let (mut polls, mut waiting) = (tokio::task::JoinSet::new(), 0);
    let wait = json!({"wait": "3m"});
    for (name, share) in [("acme", 8), ("other", 6), ("third", 1)] {
        let api = host.api.tenant(name).await;
        api.put_group("g", json!({})).await;
        for _ in 0..share {
            polls.spawn(api.request(Method::POST, "/v1/groups/g/leases").body(wait.to_string()).send());
            waiting += 1;
            let count = async || host.api.metric("carillon_waiting_consumers").await;
            eventually("one more waits", count, |count| *count == waiting).await;
        }
        let refused = api.post("/v1/groups/g/leases", wait.clone()).await;
        refused.problem(503);
        assert!(refused.headers.contains_key("retry-after"), "{name}");
    }
    assert_eq!(host.api.metric(&bound("server.concurrent_requests")).await, 3);
    assert_eq!(prompt("health", host.api.get("/healthz")).await.status, 200);
    let lease = victim.post("/v1/groups/v/leases", json!({"wait": "100ms"}));
    prompt("the victim waits", lease).await.expect(200);
    prompt("the victim's job", victim.post_job("v", json!({"payload": 1}))).await;
    let lease = victim.post("/v1/groups/v/leases", json!({"wait": "5s"}));
    let leases = prompt("the victim's lease", lease).await.expect(200);
    assert_eq!(leases["leases"].as_array().unwrap().len(), 1, "{leases}");
    polls.abort_all();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tenants_leave_event_streams_for_others() {
    let host = Setup::new().set("events.streams", "16").start().await;
    let victim = host.api.tenant("victim").await;
    let mut streams = Vec::new();
    for (name, share) in [("acme", 8), ("other", 6), ("third", 1)] {
        let api = host.api.tenant(name).await;
        let token = host.api.token(json!({"tenant": name, "role": "viewer"})).await;
        for _ in 0..share {
            streams.push(api.with_token(&token).follow("").await);
        }
        let refused = api.with_token(&token).get("/v1/events").await;
        refused.problem(503);
        assert!(refused.headers.contains_key("retry-after"), "{name}");
    }
    prompt("the victim's stream", victim.follow("")).await;
    assert_eq!(host.api.metric(&bound("events.streams")).await, 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_tenant_may_hold_all_of_a_pool() {
    let host = Setup::new().set("events.streams", "4").start().await;
    let mut streams = Vec::new();
    for _ in 0..4 {
        streams.push(host.api.follow("").await);
    }
    host.api.get("/v1/events").await.problem(503);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attempts_that_last_long_leave_places_for_other_tenants() {
    let host = Setup::new().set("engine.concurrency", "16").start().await;
    let receiver = Receiver::start().await;
    let gate = Gate::closed();
    receiver.on("/never", [Answer::status(200).held(&gate)]);
    let victim = host.api.tenant("victim").await;
    victim.put_group("v", json!({})).await;
    for (name, share) in [("acme", 8), ("other", 14), ("third", 15)] {
        let api = host.api.tenant(name).await;
        api.put_group("g", json!({"limits": {"concurrency": 1_000, "timeout": "5m"}})).await;
        let jobs = vec![json!({"url": receiver.url("/never")}); 50];
        api.post("/v1/groups/g/jobs/batch", json!({"jobs": jobs})).await.expect(201);
        receiver.arrived("/never", share).await;
    }
    for number in 0..3 {
        let url = receiver.url(&format!("/{number}"));
        let id = victim.job_id("v", json!({"url": url})).await;
        prompt("the victim's delivery", victim.until_state(&id, "succeeded")).await;
    }
    assert_eq!(receiver.count("/never"), 15, "the last place is kept for others");
    assert!(host.api.metric(&bound("engine.concurrency")).await > 0);
    gate.release(200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_of_one_tenant_leave_room_for_those_of_others() {
    let setup = Setup::new().set("server.body_limit", "256KiB").set("server.payload_limit", "64KiB");
    let host = setup.set("limits.bodies", "1MiB").set("server.request_timeout", "50s").start().await;
    let victim = host.api.tenant("victim").await;
    victim.put_group("v", json!({})).await;
    let (acme, token) = tenant_token(&host, "acme").await;
    acme.put_group("g", json!({})).await;
    let mut held = Vec::new();
    for _ in 0..10 {
        held.push(send(&host, &unfinished("/v1/groups/g/jobs/batch", &token, 200 << 10, 1_000)).await);
    }
    let refused = async || host.api.metric(&bound("limits.bodies")).await;
    eventually("all but one are refused", refused, |refused| *refused == 9).await;
    // A body without a length is reserved as it arrives.
    let chunk = format!("{:x}\r\n{}\r\n", 100 << 10, " ".repeat(100 << 10));
    let chunked = format!(
        "POST /v1/groups/g/jobs/batch HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {token}\r\ntransfer-encoding: chunked\r\n\r\n{chunk}"
    );
    let mut stream = send(&host, chunked.as_bytes()).await;
    let refusal = head(&mut stream).await;
    assert!(refusal.starts_with("http/1.1 503"), "{refusal}");
    assert!(refusal.contains("retry-after: ") && refusal.contains("connection: close"), "{refusal}");
    prompt("the victim's job", victim.post_job("v", json!({"url": NOWHERE, "run_at": "+1h"}))).await;
    drop(held);
    let job = json!({"url": NOWHERE, "run_at": "+1h", "payload_text": "x".repeat(60_000)});
    let again = async || acme.post("/v1/groups/g/jobs", job.clone()).await.status;
    eventually("the room is free again", again, |status| *status == 201).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_of_a_tenant_are_kept_while_another_one_floods_them() {
    let host = Setup::new().set("events.keep", "64").start().await;
    let victim = host.api.tenant("victim").await;
    victim.put_group("v", json!({})).await;
    let job = json!({"url": NOWHERE, "run_at": "+1h"});
    let first = victim.follow("?last_event_id=1").await.next().await;
    assert_eq!(first["kind"], "gap");
    let mut stream = victim.follow("").await;
    let mut posted = Vec::new();
    for _ in 0..6 {
        posted.push(victim.job_id("v", job.clone()).await);
    }
    let seen = stream.next().await;
    for name in ["acme", "other", "third"] {
        let api = host.api.tenant(name).await;
        api.put_group("g", json!({})).await;
        api.post("/v1/groups/g/jobs/batch", json!({"jobs": vec![job.clone(); 500]})).await.expect(201);
        assert_eq!(api.follow("?last_event_id=1").await.next().await["kind"], "gap");
    }
    let mut back = victim.follow_from("", seen["id"].as_str()).await;
    let events = back.take(5).await;
    assert!(events.iter().all(|event| event["kind"] == "push"), "{events:?}");
    assert_eq!(events.iter().map(|event| event["job"].clone()).collect::<Vec<_>>(), posted[1..]);
}
