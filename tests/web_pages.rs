//! What web pages can send to a server that requires no token, and what everybody else can.

use axum::http::header::{CONTENT_TYPE, HOST, ORIGIN};
use reqwest::Method;
use serde_json::json;

use crate::support::{Api, Receiver, Reply, Setup, TestHost};

const FORM: &str = "application/x-www-form-urlencoded";

/// A server that requires no token, with a mount on a port of its own, and the metrics on another.
async fn open_host() -> TestHost {
    let setup = Setup::new().set("auth.enabled", "false").set("compat.poussetaches.listen", "127.0.0.1:0");
    setup.set("metrics.listen", "127.0.0.1:0").set("server.public_url", "https://carillon.example").start().await
}

async fn get(api: &Api, path: &str, headers: &[(&str, &str)]) -> Reply {
    let request = api.without_token().request(Method::GET, path);
    api.send(headers.iter().fold(request, |request, (name, value)| request.header(*name, *value))).await
}

async fn post(api: &Api, path: &str, headers: &[(&str, &str)], body: String) -> Reply {
    let request = api.without_token().request(Method::POST, path).body(body);
    api.send(headers.iter().fold(request, |request, (name, value)| request.header(*name, *value))).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_reach_no_route_of_a_server_without_tokens() {
    let (host, receiver) = (open_host().await, Receiver::start().await);
    let task = json!({"url": receiver.url("/pwned"), "payload": "cHduZWQ="}).to_string();
    let mount = Api::new(&format!("http://{}", host.mounts()[0].1), None);
    let metrics = Api::new(&format!("http://{}", host.metrics().unwrap()), None);
    for evil in ["http://evil.example", "null", "http://localhost:1"] {
        let (origin, kind) = (("origin", evil), ("content-type", "text/plain"));
        post(&host.api, "/compat/poussetaches/", &[origin, kind], task.clone()).await.problem(403);
        post(&mount, "/", &[origin, kind], task.clone()).await.problem(403);
        post(&host.api, "/v1/groups/g/pause", &[origin], String::new()).await.problem(403);
        get(&host.api, "/v1/groups", &[origin]).await.problem(403);
        get(&metrics, "/metrics", &[origin]).await.problem(403);
    }
    let other_site = [("sec-fetch-site", "cross-site")];
    post(&mount, "/", &other_site, task.clone()).await.problem(403);
    get(&host.api, "/openapi.json", &other_site).await.problem(403);
    for (api, path) in [
        (&host.api, "/v1/groups"),
        (&host.api, "/healthz"),
        (&host.api, "/none"),
        (&mount, "/"),
        (&metrics, "/metrics"),
    ] {
        let rebound = get(api, path, &[(HOST.as_str(), "evil.example")]).await;
        let problem = rebound.problem(421);
        assert!(problem["detail"].as_str().unwrap().contains("server.public_url"), "{problem}");
    }
    host.looked(&receiver).await;
    assert_eq!(receiver.count("/pwned"), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_are_taken_in_types_that_no_form_has() {
    let (host, receiver) = (open_host().await, Receiver::start().await);
    host.api.put_group("g", json!({})).await;
    let job = json!({"url": receiver.url("/job")}).to_string();
    for kind in [None, Some(FORM), Some("text/plain"), Some("multipart/form-data; boundary=x")] {
        let headers: Vec<_> = kind.map(|kind| (CONTENT_TYPE.as_str(), kind)).into_iter().collect();
        let refused = post(&host.api, "/v1/groups/g/jobs", &headers, job.clone()).await;
        let problem = refused.problem(415);
        assert!(problem["detail"].as_str().unwrap().contains("curl --json"), "{problem}");
        // Even what cannot be read is refused for its type: nothing is parsed.
        post(&host.api, "/v1/groups/g/jobs", &headers, "{".to_owned()).await.problem(415);
    }
    post(&host.api, "/v1/groups/g/jobs", &[("content-type", "application/json")], job).await.expect(201);
    receiver.arrived("/job", 1).await;
    post(&host.api, "/v1/groups/g/pause", &[], String::new()).await.expect(200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tools_and_the_own_pages_go_on_unchanged() {
    let (host, receiver) = (open_host().await, Receiver::start().await);
    let mount = Api::new(&format!("http://{}", host.mounts()[0].1), None);
    for (api, path) in [(&host.api, "/compat/poussetaches/"), (&mount, "/")] {
        for (number, kind) in [FORM, "text/plain", "application/json"].into_iter().enumerate() {
            let to = format!("/task{number}{}", path.len());
            let task = json!({"url": receiver.url(&to), "payload": "aGVsbG8="}).to_string();
            post(api, path, &[("content-type", kind)], task).await.expect(201);
            receiver.arrived(&to, 1).await;
        }
    }
    let own = host.base.clone();
    get(&host.api, "/v1/groups", &[(ORIGIN.as_str(), &own), ("sec-fetch-site", "same-origin")]).await.expect(200);
    get(&host.api, "/v1/groups", &[("sec-fetch-site", "none")]).await.expect(200);
    let behind_proxy = [("host", "carillon.example"), ("origin", "https://carillon.example")];
    get(&host.api, "/v1/groups", &behind_proxy).await.expect(200);
    for name in ["localhost", "localhost:80", "127.0.0.1", "[::1]:7070"] {
        get(&host.api, "/v1/groups", &[("host", name)]).await.expect(200);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_tokens_are_required_they_decide() {
    let host = TestHost::start().await;
    let headers = [("host", "other.example"), ("origin", "http://evil.example"), ("sec-fetch-site", "cross-site")];
    get(&host.api, "/v1/groups", &headers).await.problem(401);
    get(&host.api, "/healthz", &headers).await;
    let request = headers
        .iter()
        .fold(host.api.request(Method::GET, "/v1/groups"), |request, (name, value)| request.header(*name, *value));
    host.api.send(request).await.expect(200);
    let made = host.api.request(Method::PUT, "/v1/groups/g").header(CONTENT_TYPE, FORM).body("{}");
    host.api.send(made).await.ok();
}
