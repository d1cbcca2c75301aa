//! What people without a token can send: it is answered, and leaves nothing behind.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::header::{HeaderName, HeaderValue};
use axum::http::{Method, Request};
use carillon_api::client_address::{ForwardedHeader, TrustedProxies};
use carillon_api::connections::{ConnectionLimits, Connections};
use carillon_api::door::Door;
use carillon_api::port::ServeLimits;
use carillon_api::serve::serve;
use carillon_core::clock::UnixMs;
use carillon_telemetry::{RingCapacity, Telemetry};
use proptest::prelude::*;
use proptest::test_runner::{Config, FileFailurePersistence, TestRunner};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use crate::support::{ADMIN_TOKEN, Api, TestHost, soon};

/// Requests of a round.
const REQUESTS: usize = 250;

/// The series of all metrics.
async fn series(api: &Api) -> Vec<String> {
    let metrics = api.get("/metrics").await;
    let names = metrics.text().lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.rsplit_once(' '));
    names.map(|(name, _)| name.to_owned()).collect()
}

/// Requests that differ in everything that a stranger can choose.
async fn everything_differs(door: &Door, round: usize) {
    for number in 0..REQUESTS {
        let word = format!("M{round}x{number}{}", "X".repeat(500));
        let paths =
            ["/healthz".to_owned(), format!("/{word}"), format!("/v1/groups/{word}"), format!("/compat/{word}/{word}")];
        for path in paths {
            for method in [Method::from_bytes(word.as_bytes()).unwrap(), Method::GET, Method::POST, Method::TRACE] {
                let request = Request::builder().method(method).uri(&path);
                let request = request.header("host", &word).header("user-agent", &word).header("authorization", &word);
                let request = request.header("carillon-tenant", &word).header("idempotency-key", &word);
                let status = door.answer(request.body(Body::from(word.clone())).unwrap()).await.status().as_u16();
                assert!(status < 500, "{status}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_without_a_token_make_no_series_of_their_own() {
    let host = TestHost::start().await;
    let door = host.door();
    everything_differs(&door, 0).await;
    // The request for the metrics has a series itself, from the second time on.
    series(&host.api).await;
    let first = series(&host.api).await;
    assert!(first.iter().any(|series| series.contains(r#"method="other""#)), "{first:?}");
    everything_differs(&door, 1).await;
    let second = series(&host.api).await;
    assert_eq!(second, first, "nothing is kept of what is only sent");
    assert!(first.iter().all(|series| !series.contains("XXX")));
}

/// The most series that strangers can make, whatever they send.
const MAX_SERIES: usize = 100;

/// A request as a stranger makes it up: method, path, query, headers.
#[derive(Clone, Debug)]
struct MadeUp {
    method: String,
    path: String,
    headers: Vec<(String, String)>,
    body: String,
}

/// Requests to the server's own routes and to others, with its own methods and others.
fn made_up(routes: Vec<String>) -> impl Strategy<Value = MadeUp> {
    let known =
        prop::sample::select(vec!["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"]);
    let method = prop_oneof![3 => known.prop_map(str::to_owned), 1 => "[A-Z]{1,40}"];
    let own = (prop::sample::select(routes), "[a-z0-9]{1,20}").prop_map(|(route, word)| {
        route
            .split('/')
            .map(|part| if part.starts_with('{') { word.as_str() } else { part })
            .collect::<Vec<_>>()
            .join("/")
    });
    let path = (prop_oneof![3 => own, 1 => "/[a-z0-9/]{0,60}"], prop_oneof![Just(String::new()), "\\?[a-z=&]{0,30}"]);
    let name = prop_oneof![
        Just("host".to_owned()),
        Just("authorization".to_owned()),
        Just("carillon-tenant".to_owned()),
        Just("idempotency-key".to_owned()),
        Just("content-type".to_owned()),
        Just("origin".to_owned()),
        "[a-z-]{1,30}",
    ];
    let headers = prop::collection::vec((name, "[ -~]{0,60}"), 0..6);
    (method, path, headers, "[ -~]{0,40}").prop_map(|(method, (path, query), headers, body)| MadeUp {
        method,
        path: format!("{path}{query}"),
        headers,
        body,
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_of_any_kind_without_a_token_make_few_series() {
    let host = TestHost::start().await;
    let (door, document) = (host.door(), host.api.get("/openapi.json").await.expect(200));
    let mut routes: Vec<String> = document["paths"].as_object().unwrap().keys().cloned().collect();
    routes.extend(["doppler", "poussetaches", "callme"].map(|mount| format!("/compat/{mount}/x/y")));
    let before = series(&host.api).await.len();
    // Every route with every method that it may have, and one that it has not.
    for path in &routes {
        for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "BREW"] {
            let request = Request::builder().method(method).uri(path.replace(['{', '}'], "x"));
            door.answer(request.body(Body::from("{}")).unwrap()).await;
        }
    }
    let config =
        Config { cases: 2_000, failure_persistence: Some(Box::new(FileFailurePersistence::Off)), ..Config::default() };
    let runtime = tokio::runtime::Handle::current();
    let send = |made_up: MadeUp| {
        let mut request = Request::builder().method(made_up.method.as_str()).uri(&made_up.path);
        for (name, value) in &made_up.headers {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            request = request.header(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        let Ok(request) = request.body(Body::from(made_up.body)) else { return Ok(()) };
        let status = runtime.block_on(door.answer(request)).status().as_u16();
        prop_assert!(status < 500 || status == 503, "{status}");
        Ok(())
    };
    tokio::task::block_in_place(|| TestRunner::new(config).run(&made_up(routes), send)).unwrap();
    let after = series(&host.api).await;
    assert!(after.len() - before < MAX_SERIES, "{} series more: {after:#?}", after.len() - before);
}

/// Sends bytes, and returns the status of the answer.
async fn status_of(host: &TestHost, request: &str) -> u16 {
    let mut stream = TcpStream::connect(host.base.trim_start_matches("http://")).await.unwrap();
    // The server may answer, and stop reading, before all of it is sent.
    drop(stream.write_all(request.as_bytes()).await);
    let mut answer = vec![0; 12];
    soon("the head is answered", stream.read_exact(&mut answer)).await.unwrap();
    String::from_utf8(answer).unwrap()["HTTP/1.1 ".len()..].parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heads_that_http_does_not_allow_are_refused() {
    let host = TestHost::start().await;
    for (head, expected) in [
        ("GET /healthz HTTP/1.1\r\nHost: a\r\n", 200),
        ("GET /healthz HTTP/1.1\r\n", 400),
        ("GET /healthz HTTP/1.1\r\nHost: a\r\nHost: a\r\n", 400),
        ("GET /healthz HTTP/1.1\r\nHost: a/b\r\n", 400),
        ("GET /healthz HTTP/1.0\r\n", 200),
    ] {
        assert_eq!(status_of(&host, &format!("{head}\r\n")).await, expected, "{head:?}");
    }
    for (size, expected) in [(30_000, 200), (60_000, 200), (66_000, 431), (100_000, 431)] {
        let (one, many) =
            ("x".repeat(size), "x: 12345678901\r\n".repeat(90) + "y: " + &"x".repeat(size - 90 * 16) + "\r\n");
        for headers in [format!("x: {one}\r\n"), many] {
            let head = format!("GET /healthz HTTP/1.1\r\nHost: a\r\n{headers}\r\n");
            assert_eq!(status_of(&host, &head).await, expected, "{size} bytes");
        }
    }
    let target = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(30_000));
    assert_eq!(status_of(&host, &target).await, 404, "a long target is part of the head");
}

/// Connections that stay open without a word, many more than the server takes at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_connections_make_room_for_one_that_asks_something() {
    let host = TestHost::start().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, end) = (CancellationToken::new(), CancellationToken::new());
    let telemetry = Telemetry::new(RingCapacity { events: 1, memory: 1 << 16 }, UnixMs(0));
    let limits = ConnectionLimits { all: 4, per_peer: 100, trusted: Vec::new() };
    let limits = ServeLimits {
        header_read_timeout: Duration::from_secs(3_600),
        write_timeout: Duration::from_secs(3_600),
        http2_streams: 8,
        proxies: Arc::new(TrustedProxies { networks: Vec::new(), header: ForwardedHeader::XForwardedFor }),
        tls: None,
        connections: Connections::new(limits, Arc::new(telemetry)),
    };
    let serving = tokio::spawn(serve(listener, host.door(), limits, stop.clone(), end.clone()));
    let mut silent = Vec::new();
    for _ in 0..50 {
        silent.push(TcpStream::connect(address).await.unwrap());
    }
    let api = Api::new(&format!("http://{address}"), Some(ADMIN_TOKEN));
    api.get("/v1/groups").await.expect(200);
    drop((silent, api));
    stop.cancel();
    end.cancel();
    soon("it stops", serving).await.unwrap();
}
