//! The server behind reverse proxies: nginx and Caddy, configured as the page about them shows, and the addresses of clients.

use std::net::{IpAddr, Ipv4Addr};

use reqwest::Client;
use serde_json::{Value, json};

use crate::support::{ADMIN_TOKEN, ReverseProxy, Setup, TestHost, id_of, soon, trusting};

/// Addresses of this machine: a proxy connects from the first.
const PROXY: Ipv4Addr = Ipv4Addr::LOCALHOST;
const OFFICE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 3);

fn client(from: Ipv4Addr) -> Client {
    trusting("ca.pem").local_address(IpAddr::from(from)).build().unwrap()
}

/// The status of a list of groups that a client asks for with a token and these headers.
async fn status(base: &str, from: Ipv4Addr, token: &str, headers: &[(&str, &str)]) -> u16 {
    let mut request = client(from).get(format!("{base}/v1/groups")).bearer_auth(token);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    soon("a response", request.send()).await.unwrap().status().as_u16()
}

/// Makes a token that is accepted from the office only; returns its id and the token.
async fn token_of_the_office(host: &TestHost) -> (String, String) {
    let made = host.api.post("/v1/tokens", json!({"role": "viewer", "addresses": [format!("{OFFICE}/32")]})).await;
    let made = made.expect(201);
    (id_of(&made), made["token"].as_str().unwrap().to_owned())
}

async fn last_used_from(host: &TestHost, id: &str) -> Value {
    let tokens = host.api.get("/v1/tokens").await.items();
    tokens.into_iter().find(|token| token["id"] == id).expect("it is listed")["last_used_from"].clone()
}

fn behind(proxies: &str) -> Setup {
    Setup::new().set("server.trusted_proxies", proxies)
}

/// What must hold behind any proxy.
async fn check(host: &TestHost, proxy: &ReverseProxy) {
    let (id, token) = token_of_the_office(host).await;
    assert_eq!(status(&proxy.base, OFFICE, &token, &[]).await, 200);
    assert_eq!(last_used_from(host, &id).await, OFFICE.to_string());
    assert_eq!(status(&proxy.base, ELSEWHERE, &token, &[]).await, 403);
    let (office, element) = (OFFICE.to_string(), format!("for={OFFICE}"));
    for forged in [("x-forwarded-for", &*office), ("forwarded", &*element), ("x-real-ip", &*office)] {
        assert_eq!(status(&proxy.base, ELSEWHERE, &token, &[forged]).await, 403, "{forged:?}");
    }
    // A client with wrong tokens is bounded by itself.
    for _ in 0..20 {
        status(&proxy.base, ELSEWHERE, "wrong", &[]).await;
    }
    assert_eq!(status(&proxy.base, ELSEWHERE, "wrong", &[]).await, 429);
    assert_eq!(status(&proxy.base, OFFICE, "wrong", &[]).await, 401);

    let (http, base) = (client(OFFICE), &proxy.base);
    let mut events =
        soon("the stream", http.get(format!("{base}/v1/events")).bearer_auth(ADMIN_TOKEN).send()).await.unwrap();
    host.api.put_group("g", json!({})).await;
    host.api.post_job("g", json!({"payload": 1, "run_at": "+1h"})).await;
    let mut seen = String::new();
    while !seen.contains("event: push") {
        let part = soon("the event arrives while the stream is open", events.chunk()).await.unwrap();
        seen.push_str(&String::from_utf8_lossy(&part.expect("the stream goes on")));
    }
    let jobs = vec![json!({"payload_text": "x".repeat(500_000), "run_at": "+1h"}); 8];
    let batch =
        http.post(format!("{base}/v1/groups/g/jobs/batch")).bearer_auth(ADMIN_TOKEN).json(&json!({"jobs": jobs}));
    assert_eq!(soon("a response", batch.send()).await.unwrap().status().as_u16(), 201, "a large body");
    // A name with an escaped slash reaches the route of one segment.
    let unknown = http.get(format!("{base}/v1/groups/a%2Fb")).bearer_auth(ADMIN_TOKEN).send();
    let unknown = soon("a response", unknown).await.unwrap().text().await.unwrap();
    assert!(unknown.contains("a/b"), "{unknown}");
    let metrics = soon("a response", http.get(format!("{base}/metrics")).send()).await.unwrap();
    assert_eq!(metrics.status().as_u16(), 404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nginx_as_documented_serves_clients_with_their_addresses() {
    let host = behind(&PROXY.to_string()).set("auth.failure_burst", "10").set("auth.failure_rate", "1").start().await;
    let proxy = ReverseProxy::nginx(&host).await;
    check(&host, &proxy).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn caddy_as_documented_serves_clients_with_their_addresses() {
    let host = behind(&PROXY.to_string()).set("auth.failure_burst", "10").set("auth.failure_rate", "1").start().await;
    let proxy = ReverseProxy::caddy(&host).await;
    check(&host, &proxy).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn header_counts_from_trusted_proxies_only() {
    let host = behind("127.0.0.1, 127.0.0.9").start().await;
    let (id, token) = token_of_the_office(&host).await;
    for (from, header, expected) in [
        (PROXY, "127.0.0.2", 200),
        (PROXY, "127.0.0.3, 127.0.0.2", 200),
        (PROXY, "127.0.0.3, 127.0.0.2, 127.0.0.9", 200),
        (PROXY, "127.0.0.2, 127.0.0.3", 403),
        (PROXY, "127.0.0.2, unknown", 403),
        (ELSEWHERE, "127.0.0.2", 403),
        (OFFICE, "127.0.0.3", 200),
    ] {
        assert_eq!(
            status(&host.base, from, &token, &[("x-forwarded-for", header)]).await,
            expected,
            "{from}: {header}"
        );
    }
    assert_eq!(last_used_from(&host, &id).await, "127.0.0.2");
    assert_eq!(status(&host.base, PROXY, &token, &[("forwarded", "for=127.0.0.2")]).await, 403, "the other header");
    let untrusting = Setup::new().start().await;
    let (_, token) = token_of_the_office(&untrusting).await;
    let claimed = status(&untrusting.base, PROXY, &token, &[("x-forwarded-for", "127.0.0.2")]).await;
    assert_eq!(claimed, 403, "no proxy is trusted unless it is named");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forwarded_counts_where_it_is_named() {
    let host = behind("127.0.0.1").set("server.forwarded_header", "forwarded").start().await;
    let (_, token) = token_of_the_office(&host).await;
    for (header, value, expected) in [
        ("forwarded", "for=127.0.0.3;proto=https, For=\"127.0.0.2:4711\";by=_x", 200),
        ("forwarded", "for=127.0.0.2, for=unknown", 403),
        ("x-forwarded-for", "127.0.0.2", 403),
    ] {
        assert_eq!(status(&host.base, PROXY, &token, &[(header, value)]).await, expected, "{header}: {value}");
    }
}
