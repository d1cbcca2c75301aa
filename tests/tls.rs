//! Deliveries over TLS: whom they trust, and for which name.
//!
//! `tests/tls` has an authority that nobody else knows, and a certificate by it for `localhost`.

use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::support::{Receiver, Setup, TestHost, read_request, repository};

fn file(name: &str) -> String {
    repository().join("tests/tls").join(name).display().to_string()
}

/// Answers every request over TLS with 200; returns its port.
async fn receiver() -> u16 {
    answering("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n".to_owned()).await
}

/// Answers every request over TLS with these bytes; returns its port.
async fn answering(response: String) -> u16 {
    drop(rustls::crypto::ring::default_provider().install_default());
    let certificates = CertificateDer::pem_file_iter(file("server.pem")).unwrap().map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_file(file("server.key")).unwrap();
    let config = ServerConfig::builder().with_no_client_auth().with_single_cert(certificates, key).unwrap();
    let (acceptor, listener) = (TlsAcceptor::from(Arc::new(config)), TcpListener::bind("127.0.0.1:0").await.unwrap());
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, response) = (acceptor.clone(), response.clone());
            tokio::spawn(async move {
                let Ok(mut stream) = acceptor.accept(stream).await else { return };
                while read_request(&mut stream).await.is_some() {
                    drop(stream.write_all(response.as_bytes()).await);
                    drop(stream.flush().await);
                }
            });
        }
    });
    port
}

/// The only attempt of a job.
async fn attempt(host: &TestHost, job: Value) -> Value {
    host.api.put_group("g", json!({"retry": {"config": {"max_attempts": 1}}})).await;
    let id = host.api.job_id("g", job).await;
    host.api.until(&id, "ends", |job| !job["finished_at"].is_null()).await;
    host.api.attempts(&id).await.remove(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn authority_of_ca_file_is_trusted_for_its_names_only() {
    let port = receiver().await;
    let host = Setup::new().set("delivery.ca_file", &file("ca.pem")).start().await;
    let url = format!("https://localhost:{port}/");
    assert_eq!(attempt(&host, json!({"url": url})).await["status"], 200);
    let of_its_own = attempt(&host, json!({"url": url, "headers": {"Host": "shop.example"}})).await;
    assert_eq!(of_its_own["status"], 200, "the certificate is for the name in the URL: {of_its_own}");
    let other_name = attempt(&host, json!({"url": format!("https://127.0.0.1:{port}/")})).await;
    assert_eq!(other_name["error"]["code"], "send.tls", "{other_name}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unknown_authority_is_not_trusted() {
    let port = receiver().await;
    let host = TestHost::start().await;
    let refused = attempt(&host, json!({"url": format!("https://localhost:{port}/")})).await;
    assert_eq!((&refused["error"]["code"], &refused["status"]), (&json!("send.tls"), &Value::Null), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn server_does_not_start_with_a_ca_file_that_it_cannot_use() {
    for name in ["none.pem", "server.key"] {
        let setup = Setup::new().set("delivery.ca_file", &file(name));
        let error = setup.try_start().await.err().expect("it does not start");
        let message = format!("{error:#}");
        assert!(message.contains("`delivery.ca_file`") && message.contains(name), "{message}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redirect_leads_from_https_to_http_only_if_the_group_says_so() {
    let (host, plain) = (Setup::new().set("delivery.ca_file", &file("ca.pem")).start().await, Receiver::start().await);
    for status in [301, 302, 303, 307, 308] {
        let to = plain.url(&format!("/{status}"));
        let response = format!("HTTP/1.1 {status} Moved\r\nlocation: {to}\r\ncontent-length: 0\r\n\r\n");
        let url = format!("https://localhost:{}/", answering(response).await);
        let sent = async |to_http: Value| {
            let limits = json!({"redirects": 1, "redirects_to_http": to_http});
            host.api.put_group("g", json!({"limits": limits, "retry": {"config": {"max_attempts": 1}}})).await;
            let job = json!({"url": url, "payload_text": "hello", "headers": {"Authorization": "Basic eDp5"}});
            let id = host.api.job_id("g", job).await;
            host.api.until(&id, "ends", |job| !job["finished_at"].is_null()).await;
            host.api.attempts(&id).await.remove(0)
        };
        for refuses in [Value::Null, json!(false)] {
            let refused = sent(refuses).await;
            assert_eq!(refused["error"]["code"], "send.redirect", "{status}: {refused}");
            let message = refused["error"]["message"].as_str().unwrap();
            assert!(message.contains("limits.redirects_to_http"), "{message}");
        }
        assert_eq!(plain.count(&format!("/{status}")), 0);
        assert_eq!(sent(json!(true)).await["status"], 200, "{status}");
        let arrival = plain.arrivals(&format!("/{status}")).remove(0);
        assert_eq!(arrival.header("authorization"), None, "http is another origin");
    }
}
