//! Client certificates for receivers: keys whose private part only handshakes use, and connections that are not shared between identities.

use serde_json::{Value, json};

use crate::support::{Asks, Setup, TestHost, TlsReceiver, TlsSetup, cli, tls_file};

fn read(name: &str) -> String {
    std::fs::read_to_string(tls_file(name)).unwrap()
}

/// The certificate of `tests/tls` for a client, with its key.
fn client_pem() -> String {
    read("client.pem") + &read("client.key")
}

fn setup() -> Setup {
    Setup::new().set("delivery.ca_file", &tls_file("ca.pem").display().to_string())
}

fn policy(tls: &Value) -> Value {
    json!({"tls": tls, "retry": {"config": {"max_attempts": 1}}})
}

/// A host with a group that shows the certificate, and one that shows none.
async fn host() -> TestHost {
    let host = setup().start().await;
    host.api.put("/v1/keys/client", json!({"secret": client_pem(), "kind": "tls-client"})).await.expect(204);
    host.api.put_group("known", policy(&json!({"client_key": "client"}))).await;
    host.api.put_group("unknown", policy(&Value::Null)).await;
    host
}

async fn once(host: &TestHost, group: &str, url: &str) -> Value {
    let id = host.api.job_id(group, json!({"url": url})).await;
    host.api.until(&id, "ends", |job| !job["finished_at"].is_null()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn receiver_that_asks_for_a_certificate_gets_that_of_the_group() {
    let host = host().await;
    for protocols in [&["h2"][..], &["http/1.1"]] {
        let receiver = TlsReceiver::start(TlsSetup { asks: Asks::Strictly, protocols, ..TlsSetup::default() }).await;
        assert_eq!(once(&host, "known", &receiver.url("/a")).await["state"], "succeeded", "{protocols:?}");
        assert!(receiver.arrivals()[0].has_certificate);
        assert_eq!(once(&host, "unknown", &receiver.url("/b")).await["state"], "dead");
        assert_eq!(receiver.arrivals().len(), 1, "nothing arrives without a certificate");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_are_not_shared_between_identities() {
    let host = host().await;
    for protocols in [&["h2"][..], &["http/1.1"]] {
        let receiver = TlsReceiver::start(TlsSetup { asks: Asks::Optionally, protocols, ..TlsSetup::default() }).await;
        for _ in 0..3 {
            assert_eq!(once(&host, "known", &receiver.url("/known")).await["state"], "succeeded");
            assert_eq!(once(&host, "unknown", &receiver.url("/unknown")).await["state"], "succeeded");
        }
        let arrivals = receiver.arrivals();
        for arrival in &arrivals {
            assert_eq!(arrival.has_certificate, arrival.path == "/known", "{protocols:?}: {arrival:?}");
        }
        let connections: std::collections::BTreeSet<_> = arrivals.iter().map(|arrival| arrival.connection).collect();
        assert_eq!(connections.len(), 2, "each has its own, and keeps it: {arrivals:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redirect_to_another_origin_shows_no_certificate() {
    let host = host().await;
    let other = TlsReceiver::start(TlsSetup { asks: Asks::Optionally, ..TlsSetup::default() }).await;
    let location = Some(other.url("/there"));
    let first = TlsSetup { asks: Asks::Strictly, status: 307, location, ..TlsSetup::default() };
    let first = TlsReceiver::start(first).await;
    host.api.patch("/v1/groups/known", json!({"limits": {"redirects": 1}})).await.ok();
    assert_eq!(once(&host, "known", &first.url("/here")).await["state"], "succeeded");
    assert!(first.arrivals()[0].has_certificate && !other.arrivals()[0].has_certificate);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn key_is_kept_for_its_purpose_and_never_shown() {
    let host = host().await;
    let private = read("client.key").lines().nth(1).unwrap().to_owned();
    for path in ["/v1/keys", "/v1/keys/client", "/v1/groups/known?effective=true"] {
        let shown = host.api.get(path).await;
        assert!(shown.status == 200 && !shown.text().contains(&private), "{path}");
    }
    assert_eq!(host.api.get("/v1/keys/client").await.json()["kind"], "tls-client");
    assert_eq!(host.api.get("/v1/groups/known").await.json()["tls"], json!({"client_key": "client"}));
    let put = async |name: &str, secret: String| {
        host.api.put(&format!("/v1/keys/{name}"), json!({"secret": secret, "kind": "tls-client"})).await
    };
    for secret in [read("client.pem"), read("client.key"), read("client.pem") + &read("other.key"), "hello".to_owned()]
    {
        let problem = put("bad", secret).await.problem_at(422, "/secret");
        assert!(!problem.to_string().contains(&private), "{problem}");
    }
    host.api.put("/v1/keys/header", json!({"secret": "x", "kind": "header"})).await.ok();
    let group = async |doc: Value| host.api.put("/v1/groups/other", doc).await;
    group(json!({"tls": {"client_key": "header"}})).await.problem_at(422, "/tls/client_key");
    group(json!({"tls": {"client_key": "none"}})).await.problem_at(422, "/tls/client_key");
    group(json!({"tls": {"key": "client"}})).await.problem_at(422, "/tls/key");
    group(json!({"auth_headers": {"X-Key": "client"}})).await.problem_at(422, "/auth_headers/X-Key");
    let signer = json!({"sign": {"plugin": "werkzeug-cookie", "keys": ["client"]}});
    group(signer).await.problem_at(422, "/sign/keys/0");
    host.api.delete("/v1/keys/client").await.problem(409);
    let overlapping = json!({"secret": read("other.pem") + &read("other.key"), "kind": "tls-client", "overlap": "1h"});
    host.api.put("/v1/keys/client", overlapping).await.problem_at(422, "/overlap");
    let granted = host.api.patch("/v1/keys/client", json!({"groups": ["unknown"]})).await;
    granted.problem(409);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn key_of_another_kind_makes_jobs_wait() {
    let host = host().await;
    let receiver = TlsReceiver::start(TlsSetup { asks: Asks::Optionally, ..TlsSetup::default() }).await;
    host.api.put("/v1/keys/client", json!({"secret": "signs", "kind": "secret"})).await.expect(204);
    let id = host.api.job_id("known", json!({"url": receiver.url("/a")})).await;
    host.api.until(&id, "waits", |job| job["last_error"] == "policy.missing-key").await;
    assert!(receiver.arrivals().is_empty(), "nothing is sent without the certificate");
    host.api.put("/v1/keys/client", json!({"secret": client_pem(), "kind": "tls-client"})).await.expect(204);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn key_comes_from_the_command_line_or_the_configuration_and_survives_a_restart() {
    let host = setup().start().await;
    let put = cli(&host, &["key", "put", "mine", "--kind", "tls-client"], &client_pem()).await;
    put.ok();
    host.api.put_group("mine", policy(&json!({"client_key": "mine"}))).await;
    let dir = std::sync::Arc::clone(&host.dir);
    host.stop().await;
    let pem = dir.path().join("client.pem");
    std::fs::write(&pem, client_pem()).unwrap();
    let file = format!(
        "[keys.configured]\nfile = \"{}\"\nkind = \"tls-client\"\n[groups.configured]\ntls = {{client_key = \"configured\"}}\n",
        pem.display()
    );
    let host = setup().in_dir(&dir).file(&file).start().await;
    let receiver = TlsReceiver::start(TlsSetup { asks: Asks::Strictly, ..TlsSetup::default() }).await;
    for group in ["mine", "configured"] {
        assert_eq!(once(&host, group, &receiver.url("/a")).await["state"], "succeeded", "{group}");
    }
}
