//! Deliveries over HTTP/2, which receivers choose in the handshake: one connection carries many requests.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use hyper::Version;
use hyper::http::Response;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::support::{Setup, TestHost, TlsReceiver, TlsSetup, tls_file};

async fn host(http2: &str) -> TestHost {
    let authority = tls_file("ca.pem").display().to_string();
    let host = Setup::new().set("delivery.ca_file", &authority).set("delivery.http2", http2).start().await;
    host.api.put_group("g", json!({"retry": {"config": {"max_attempts": 1}}, "limits": {"concurrency": 64}})).await;
    host
}

/// Makes a job and returns it when it has ended.
async fn once(host: &TestHost, job: Value) -> Value {
    let id = host.api.job_id("g", job).await;
    host.api.until(&id, "ends", |job| !job["finished_at"].is_null()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn receiver_chooses_the_protocol() {
    for (protocols, http2, version) in [
        (&["h2", "http/1.1"][..], "true", Version::HTTP_2),
        (&["http/1.1", "h2"], "true", Version::HTTP_11),
        (&["h2"], "true", Version::HTTP_2),
        (&["http/1.1"], "true", Version::HTTP_11),
        (&["h2", "http/1.1"], "false", Version::HTTP_11),
    ] {
        let (host, receiver) =
            (host(http2).await, TlsReceiver::start(TlsSetup { protocols, ..TlsSetup::default() }).await);
        let body = "x".repeat(200_000);
        let job = json!({"url": receiver.url("/a?b=c"), "payload_text": body});
        assert_eq!(once(&host, job).await["last_status"], 200, "{protocols:?} {http2}");
        let named = json!({"url": receiver.url("/b"), "headers": {"Host": "shop.example", "Connection": "close"}});
        let refused = host.api.post("/v1/groups/g/jobs", named).await;
        assert!((400..500).contains(&refused.status), "headers of the connection are the server's own");
        let named = json!({"url": receiver.url("/b"), "headers": {"Host": "shop.example"}});
        assert_eq!(once(&host, named).await["last_status"], 200, "{protocols:?} {http2}");
        let arrivals = receiver.arrived(2).await;
        assert!(arrivals.iter().all(|arrival| arrival.version == version), "{protocols:?} {http2}: {arrivals:?}");
        assert_eq!((arrivals[0].path.as_str(), arrivals[0].body.len()), ("/a", body.len()));
        assert!(arrivals[0].authority.starts_with("localhost:"), "{arrivals:?}");
        assert_eq!(arrivals[1].authority, "shop.example");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn burst_of_jobs_shares_a_connection() {
    let (host, receiver) = (host("true").await, TlsReceiver::gated(TlsSetup::default()).await);
    let jobs = vec![json!({"url": receiver.url("/a")}); 40];
    host.api.post("/v1/groups/g/jobs/batch", json!({"jobs": jobs})).await.ok();
    let arrivals = receiver.arrived(40).await;
    assert!(arrivals.iter().all(|arrival| arrival.connection == 0), "all at once on the first: {arrivals:?}");
    receiver.open(40);
    host.api.until_succeeded("g", 40).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn receiver_bounds_the_requests_at_once() {
    let setup = TlsSetup { max_streams: 4, ..TlsSetup::default() };
    let (host, receiver) = (host("true").await, TlsReceiver::gated(setup).await);
    // The first response comes after the receiver's settings.
    receiver.open(1);
    assert_eq!(once(&host, json!({"url": receiver.url("/first")})).await["last_status"], 200);
    let jobs = vec![json!({"url": receiver.url("/a")}); 12];
    host.api.post("/v1/groups/g/jobs/batch", json!({"jobs": jobs})).await.ok();
    let arrivals = receiver.arrived(13).await;
    for connection in 0..=3 {
        let count = arrivals.iter().filter(|arrival| arrival.connection == connection && arrival.path == "/a").count();
        assert!(count <= 4, "{count} on connection {connection}");
    }
    receiver.open(12);
    host.api.until_succeeded("g", 13).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn receiver_that_takes_leave_costs_no_attempt() {
    let setup = TlsSetup { responses: Some(1), ..TlsSetup::default() };
    let (host, receiver) = (host("true").await, TlsReceiver::start(setup).await);
    for _ in 0..10 {
        let job = once(&host, json!({"url": receiver.url("/a")})).await;
        assert_eq!((&job["state"], &job["attempt_count"]), (&json!("succeeded"), &json!(1)), "{job}");
    }
    assert!(receiver.arrivals().last().unwrap().connection > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connection_without_a_response_in_time_takes_no_further_requests() {
    let setup = TlsSetup { unanswered: 1, ..TlsSetup::default() };
    let (host, receiver) = (host("true").await, TlsReceiver::start(setup).await);
    let job = json!({"url": receiver.url("/a"), "limits": {"timeout": "2s"}});
    assert_eq!(once(&host, job).await["last_error"], "send.timeout");
    assert_eq!(once(&host, json!({"url": receiver.url("/b")})).await["state"], "succeeded");
    let connections: Vec<_> = receiver.arrivals().iter().map(|arrival| arrival.connection).collect();
    assert_eq!(connections, [0, 1]);
}

/// A receiver of HTTP/2 that refuses its first requests, and then answers; returns its port.
async fn refusing(requests: usize, reason: h2::Reason) -> u16 {
    drop(rustls::crypto::ring::default_provider().install_default());
    let chain = CertificateDer::pem_file_iter(tls_file("server.pem")).unwrap().map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_file(tls_file("server.key")).unwrap();
    let mut config = ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key).unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let (acceptor, listener) = (TlsAcceptor::from(Arc::new(config)), TcpListener::bind("127.0.0.1:0").await.unwrap());
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let seen = Arc::new(AtomicUsize::new(0));
        loop {
            let Ok((stream, _)) = listener.accept().await else { return };
            let (acceptor, seen) = (acceptor.clone(), Arc::clone(&seen));
            tokio::spawn(async move {
                let mut connection = h2::server::handshake(acceptor.accept(stream).await.unwrap()).await.unwrap();
                while let Some(Ok((_request, mut respond))) = connection.accept().await {
                    if seen.fetch_add(1, Ordering::SeqCst) < requests {
                        respond.send_reset(reason);
                    } else {
                        drop(respond.send_response(Response::new(()), true));
                    }
                }
            });
        }
    });
    port
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn request_that_the_receiver_has_not_processed_is_made_again_once() {
    let host = host("true").await;
    for (requests, reason, state) in [
        (1, h2::Reason::REFUSED_STREAM, "succeeded"),
        (2, h2::Reason::REFUSED_STREAM, "dead"),
        (1, h2::Reason::INTERNAL_ERROR, "dead"),
    ] {
        let port = refusing(requests, reason).await;
        let job = once(&host, json!({"url": format!("https://localhost:{port}/")})).await;
        assert_eq!((&job["state"], &job["attempt_count"]), (&json!(state), &json!(1)), "{reason}: {job}");
        if state == "dead" {
            assert_eq!(job["last_error"], "send.reset", "{job}");
        }
    }
}
