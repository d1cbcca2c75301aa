//! Connections to receivers: kept, closed by the other side, too old; and heads of responses that are large.

use serde_json::{Value, json};
use tokio::net::{TcpSocket, TcpStream};

use crate::support::{Answer, RawReceiver, Receiver, Setup, TestHost};

const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// Delivers one job once and returns it.
async fn once(host: &TestHost, url: &str) -> Value {
    host.api.put_group("g", json!({"retry": {"config": {"max_attempts": 1}}})).await;
    let id = host.api.job_id("g", json!({"url": url, "payload_text": "hello"})).await;
    host.api.until(&id, "ends", |job| !job["finished_at"].is_null()).await
}

fn key(head: &str) -> &str {
    head.lines().find_map(|line| line.strip_prefix("idempotency-key: ")).expect("it has a key")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reused_connection_that_ends_without_an_answer_costs_no_attempt() {
    let host = TestHost::start().await;
    let receiver = RawReceiver::start(|place| (place != (0, 1)).then(|| OK.to_vec())).await;
    assert_eq!(once(&host, &receiver.url("/a")).await["state"], "succeeded");
    let second = once(&host, &receiver.url("/b")).await;
    assert_eq!((&second["state"], &second["attempt_count"]), (&json!("succeeded"), &json!(1)), "{second}");
    assert_eq!(receiver.places(), [(0, 0), (0, 1), (1, 0)], "once more, on a fresh connection");
    let requests = receiver.requests();
    assert_eq!(key(&requests[1].1), key(&requests[2].1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn request_is_made_again_once_at_most_and_never_on_a_fresh_connection() {
    let host = TestHost::start().await;
    // Only the very first request is answered: the second is made again, and that ends, too.
    let receiver = RawReceiver::start(|place| (place == (0, 0)).then(|| OK.to_vec())).await;
    once(&host, &receiver.url("/a")).await;
    assert_eq!(once(&host, &receiver.url("/b")).await["last_error"], "send.reset");
    assert_eq!(receiver.places(), [(0, 0), (0, 1), (1, 0)]);
    assert_eq!(once(&host, &receiver.url("/c")).await["last_error"], "send.reset");
    assert_eq!(receiver.places().last(), Some(&(2, 0)), "a fresh one is not repeated");
    assert_eq!(receiver.places().len(), 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn request_is_not_made_again_after_a_byte_of_the_answer() {
    let host = TestHost::start().await;
    let receiver = RawReceiver::start(|(connection, number)| match (connection, number) {
        (0, 1) => Some(b"H".to_vec()),
        (0, 2) => None,
        _ => Some(OK.to_vec()),
    });
    let receiver = receiver.await;
    once(&host, &receiver.url("/a")).await;
    host.api.put_group("slow", json!({"retry": {"config": {"max_attempts": 1}}, "limits": {"timeout": "300ms"}})).await;
    let id = host.api.job_id("slow", json!({"url": receiver.url("/b")})).await;
    let job = host.api.until_state(&id, "dead").await;
    assert_eq!(job["last_error"], "send.timeout");
    assert_eq!(receiver.places(), [(0, 0), (0, 1)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connection_that_is_too_old_is_not_used_again() {
    for (age, connections) in [("1h", 1), ("0s", 3)] {
        let host = Setup::new().set("delivery.connection_age", age).start().await;
        let receiver = Receiver::start().await;
        for _ in 0..3 {
            assert_eq!(once(&host, &receiver.url("/a")).await["state"], "succeeded");
        }
        assert_eq!(receiver.connections(), connections, "{age}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn response_with_many_headers_is_a_response() {
    let host = TestHost::start().await;
    for count in [101, 120, 1_000] {
        let headers: String = (0..count).map(|n| format!("x-{n}: {n}\r\n")).collect();
        let response = format!("HTTP/1.1 200 OK\r\n{headers}content-length: 0\r\n\r\n");
        let receiver = RawReceiver::start(move |_| Some(response.clone().into_bytes())).await;
        let job = once(&host, &receiver.url("/a")).await;
        assert_eq!((&job["state"], &job["last_status"]), (&json!("succeeded"), &json!(200)), "{count}: {job}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn response_that_cannot_be_read_does_not_open_the_breaker() {
    let host = Setup::new().set("delivery.breaker_failures", "3").start().await;
    let receiver = RawReceiver::start(|(connection, _)| match connection {
        0..5 => Some(b"HTTP/9.9 what\r\n\r\n".to_vec()),
        _ => Some(OK.to_vec()),
    });
    let receiver = receiver.await;
    for _ in 0..5 {
        assert_eq!(once(&host, &receiver.url("/a")).await["last_error"], "send.protocol");
    }
    assert_eq!(once(&host, &receiver.url("/a")).await["state"], "succeeded");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn response_that_ends_in_the_middle_is_delivered_once() {
    let host = TestHost::start().await;
    let broken = [
        &b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\nconnection: close\r\n\r\n0123456789"[..],
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\n01234\r\nzzz\r\n",
    ];
    for bytes in broken {
        let receiver = RawReceiver::start(move |(_, number)| (number == 0).then(|| bytes.to_vec())).await;
        host.api.put_group("short", json!({"limits": {"timeout": "500ms"}})).await;
        let id = host.api.job_id("short", json!({"url": receiver.url("/a")})).await;
        assert_eq!(host.api.until_state(&id, "succeeded").await["last_status"], 200);
        let attempt = host.api.attempts(&id).await.remove(0);
        assert_eq!((&attempt["response_truncated"], receiver.places().len()), (&json!(true), 1), "{attempt}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connection_that_is_not_made_is_told_apart_from_an_answer_that_does_not_come() {
    let host = Setup::new().set("delivery.connect_timeout", "300ms").start().await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    // Its queue is full: no further connection is made.
    let mut waiting = tokio::task::JoinSet::new();
    for _ in 0..8 {
        waiting.spawn(TcpStream::connect(address));
    }
    let job = once(&host, &format!("http://{address}/")).await;
    assert_eq!(job["last_error"], "send.connect", "{job}");
    let id = job["id"].as_str().unwrap();
    let attempt = host.api.attempts(id).await.remove(0);
    assert!(attempt["error"]["message"].as_str().unwrap().contains("no connection within 300ms"), "{attempt}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn body_is_asked_for_as_it_is_and_connecting_is_timed_apart() {
    let (host, receiver) = (TestHost::start().await, Receiver::start().await);
    receiver.on("/a", [Answer::status(200)]);
    let first = once(&host, &receiver.url("/a")).await;
    let second = once(&host, &receiver.url("/a")).await;
    let arrivals = receiver.arrivals("/a");
    assert!(arrivals.iter().all(|arrival| arrival.header("accept-encoding") == Some("identity")));
    let connect = async |job: &Value| {
        let attempt = host.api.attempts(job["id"].as_str().unwrap()).await.remove(0);
        (attempt["timings"]["connect"].as_u64().unwrap(), attempt["timings"]["exchange"].as_u64().unwrap())
    };
    let (fresh, whole) = connect(&first).await;
    assert!(fresh > 0 && fresh <= whole);
    assert_eq!(connect(&second).await.0, 0, "it was open");
}
