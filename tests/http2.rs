//! HTTP/2: many requests at once on a connection, and clients that make the most of that.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use h2::client::{Builder, SendRequest};
use hyper::http::Request;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use serde_json::json;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;

use crate::support::{ADMIN_TOKEN, Setup, TestHost, eventually, soon, tls_file, trusting};

/// A connection of a client: its requests, and its end.
struct Connection {
    requests: SendRequest<Bytes>,
    end: JoinHandle<Result<(), h2::Error>>,
}

impl Connection {
    /// Connects to a host with these settings.
    async fn open(host: &TestHost, settings: &Builder) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(tls_file("ca.pem")).unwrap()).unwrap();
        let mut config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let port: u16 = host.base.rsplit(':').next().unwrap().parse().unwrap();
        let stream = TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], port))).await.unwrap();
        let name = "localhost".try_into().unwrap();
        let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap();
        let (requests, connection) = settings.handshake(stream).await.unwrap();
        Self { requests, end: tokio::spawn(connection) }
    }

    /// Sends a request without a body; `None` if the connection takes none any more.
    async fn send(&mut self, method: &str, path: &str) -> Option<(h2::client::ResponseFuture, h2::SendStream<Bytes>)> {
        let request = Request::builder().method(method).uri(format!("https://localhost{path}"));
        let request = request.header("authorization", format!("Bearer {ADMIN_TOKEN}")).body(()).unwrap();
        std::future::poll_fn(|context| self.requests.poll_ready(context)).await.ok()?;
        self.requests.send_request(request, true).ok()
    }

    /// The status of a request's response.
    async fn status(&mut self, path: &str) -> u16 {
        let (response, _) = self.send("GET", path).await.unwrap();
        soon("a response", response).await.unwrap().status().as_u16()
    }

    /// Returns when the server has closed the connection.
    async fn ended(self) {
        // It may say why, or close the socket.
        soon("the server closes the connection", self.end).await.unwrap().ok();
    }
}

fn settings() -> Builder {
    Builder::new()
}

async fn refused(host: &TestHost, bound: &str) -> u64 {
    host.api.metric(&format!("carillon_refused_total{{bound=\"{bound}\"}}")).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connection_has_many_requests_at_once() {
    let host = Setup::new().with_tls().start().await;
    let mut connection = Connection::open(&host, &settings()).await;
    let mut streams = Vec::new();
    for _ in 0..50 {
        let (response, _) = connection.send("GET", "/v1/events").await.unwrap();
        let response = soon("a response", response).await.unwrap();
        assert_eq!(response.status().as_u16(), 200);
        streams.push(response.into_body());
    }
    for _ in 0..200 {
        assert_eq!(connection.status("/healthz").await, 200);
    }
    host.api.put_group("g", json!({})).await;
    host.api.post_job("g", json!({"payload": 1, "run_at": "+1h"})).await;
    for stream in &mut streams {
        let data = soon("each stream shows the event", stream.data()).await.unwrap().unwrap();
        assert!(!data.is_empty());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_at_once_count_as_connections_of_their_address() {
    let host = Setup::new().with_tls().set("server.connections_per_peer", "6").start().await;
    let mut connection = Connection::open(&host, &settings()).await;
    let (mut open, mut refused_requests) = (Vec::new(), 0);
    for _ in 0..20 {
        let (response, _) = connection.send("GET", "/v1/events").await.unwrap();
        let response = soon("a response", response).await.unwrap();
        match response.status().as_u16() {
            200 => open.push(response),
            503 => {
                assert!(response.headers().contains_key("retry-after"));
                refused_requests += 1;
            }
            other => panic!("{other}"),
        }
    }
    assert!((1..=6).contains(&open.len()), "{} of 6 places", open.len());
    assert!(refused_requests > 0);
    drop(open);
    let status = async || connection.status("/v1/groups").await;
    eventually("its place is free again", status, |status| *status == 200).await;
    drop(connection);
    let count = async || refused(&host, "server.connections_per_peer").await;
    eventually("all are counted", count, |count| *count >= refused_requests).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn client_that_cancels_its_requests_is_cut_off() {
    let host = Setup::new().with_tls().set("server.http2_streams", "20").start().await;
    // As soon as they are sent.
    let mut connection = Connection::open(&host, &settings()).await;
    for number in 0.. {
        assert!(number < 10_000, "the connection ends before");
        let Some((_response, mut stream)) = connection.send("POST", "/v1/groups/g/leases").await else { break };
        stream.send_reset(h2::Reason::CANCEL);
        tokio::task::yield_now().await;
    }
    connection.ended().await;
    // When the response has begun, so that each had a handler.
    let mut connection = Connection::open(&host, &settings()).await;
    let mut answered = 0;
    while let Some((response, mut stream)) = connection.send("GET", "/v1/events").await {
        if soon("a response or the end", response).await.is_err() {
            break;
        }
        answered += 1;
        // The server may answer a few more before it sees that these were cancelled.
        assert!(answered < 100, "it is cut off soon after twenty");
        stream.send_reset(h2::Reason::CANCEL);
    }
    connection.ended().await;
    assert!(refused(&host, "server.http2_streams").await >= 1);
    assert_eq!(host.api.get("/healthz").await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn client_that_waits_for_responses_may_cancel_others() {
    let host = Setup::new().with_tls().set("server.http2_streams", "4").start().await;
    let mut connection = Connection::open(&host, &settings()).await;
    for _ in 0..20 {
        let (response, mut stream) = connection.send("GET", "/v1/events").await.unwrap();
        soon("a response", response).await.unwrap();
        stream.send_reset(h2::Reason::CANCEL);
        assert_eq!(connection.status("/healthz").await, 200);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn client_that_gives_no_room_for_a_response_is_cut_off() {
    let host = Setup::new().with_tls().set("server.write_timeout", "1s").start().await;
    for (path, window) in [("/openapi.json", 1), ("/healthz", 1), ("/openapi.json", 20_000), ("/v1/groups", 0)] {
        let before = refused(&host, "server.write_timeout").await;
        let mut connection = Connection::open(&host, settings().initial_window_size(window)).await;
        let (response, _) = connection.send("GET", path).await.unwrap();
        let response = soon("a head", response).await.unwrap();
        assert_eq!(response.status().as_u16(), 200, "{path}");
        connection.ended().await;
        drop(response);
        let count = async || refused(&host, "server.write_timeout").await;
        eventually("it is counted", count, |count| *count > before).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connection_without_a_request_is_closed() {
    let host = Setup::new().with_tls().set("server.header_read_timeout", "300ms").start().await;
    let connection = Connection::open(&host, &settings()).await;
    connection.ended().await;
    let mut connection = Connection::open(&host, &settings()).await;
    assert_eq!(connection.status("/healthz").await, 200);
    connection.ended().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn head_and_body_have_the_bounds_of_http_1_1() {
    let host =
        Setup::new().with_tls().set("server.body_limit", "64KiB").set("server.payload_limit", "1KiB").start().await;
    let client = trusting("ca.pem").http2_prior_knowledge().build().unwrap();
    host.api.put_group("g", json!({})).await;
    let url = format!("{}/v1/groups/g/jobs", host.base);
    let large = client.get(format!("{}/healthz", host.base)).header("x-large", "x".repeat(70_000)).send();
    assert_eq!(soon("a response", large).await.unwrap().status().as_u16(), 431);
    let post = client.post(&url).bearer_auth(ADMIN_TOKEN).header("content-type", "application/json");
    let refused = soon("a response", post.body("x".repeat(1 << 20)).send()).await.unwrap();
    assert_eq!(refused.status().as_u16(), 413);
    let good = client.post(&url).bearer_auth(ADMIN_TOKEN).json(&json!({"url": "http://127.0.0.1:9/", "run_at": "+1h"}));
    assert_eq!(soon("a response", good.send()).await.unwrap().status().as_u16(), 201);
    // One authority, as HTTP/1.1 has one `Host`.
    let mut connection = Connection::open(&host, &settings()).await;
    for (name, status) in [("localhost", 200), ("other.example", 400)] {
        let request = Request::builder().uri("https://localhost/healthz").header("host", name).body(()).unwrap();
        let (response, _) = connection.requests.send_request(request, true).unwrap();
        assert_eq!(soon("a response", response).await.unwrap().status().as_u16(), status, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stop_ends_streams_and_idle_connections() {
    let host = Setup::new().with_tls().set("server.header_read_timeout", "1h").set("server.drain_timeout", "1h");
    let host = host.start().await;
    let mut connection = Connection::open(&host, &settings()).await;
    let (response, _) = connection.send("GET", "/v1/events").await.unwrap();
    let mut stream = soon("a response", response).await.unwrap().into_body();
    let idle = Connection::open(&host, &settings()).await;
    let read = tokio::spawn(async move { while let Some(Ok(_)) = stream.data().await {} });
    soon("it stops", host.stop()).await;
    soon("the stream ends", read).await.unwrap();
    connection.ended().await;
    idle.ended().await;
}
