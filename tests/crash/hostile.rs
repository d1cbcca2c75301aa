//! Hostile components, uploaded as a tenant uploads them.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::crash::process::{Client, Server};
use crate::support::crash::receiver::Receiver;
use crate::support::eventually;
use carillon_testing::guest::{ENDLESS, Guest, PLAIN};

async fn upload(client: &Client, name: &str, component: Vec<u8>) -> (StatusCode, Value) {
    client.send(Method::PUT, &format!("/v1/plugins/{name}/versions/1.0.0"), component).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signer_that_never_ends_loses_no_job_and_holds_up_nobody() {
    // The deadline is out of the way: on a busy machine it could come before the end of the fuel.
    let server = Server::start(&[("policy.deadline", "30s"), ("policy.quarantine", "2s")]);
    let (client, receiver) = (server.client(), Receiver::start().await);
    let (status, answer) =
        upload(&client, "endless", Guest::describing("endless", "1.0.0", "{}").role("sign", ENDLESS).build()).await;
    assert_eq!(status, StatusCode::CREATED, "{answer}");
    client.put("/v1/groups/held", &json!({"sign": {"plugin": "endless@1.0.0"}})).await;
    client.put("/v1/groups/other", &json!({})).await;
    let job = json!({"url": receiver.url(0, 0), "payload": {"user": 1}});

    let mut held = Vec::new();
    for _ in 0..20 {
        held.push(client.post_job("held", &job).await);
    }
    let others = futures_util::future::join_all((0..20).map(|_| client.post_job("other", &job))).await;
    client.until_done("other").await;
    for id in &others {
        assert_eq!(client.get(&format!("/v1/jobs/{id}")).await["state"], "succeeded");
    }
    let quarantined = async || client.get("/v1/groups/held").await["quarantined"][0].clone();
    let policy = eventually("the quarantine", quarantined, |policy| !policy.is_null()).await;
    assert_eq!((&policy["role"], &policy["plugin"]), (&json!("sign"), &json!("endless@1.0.0")));
    assert!(client.get("/v1/groups/other").await["quarantined"].as_array().unwrap().is_empty());

    let mut codes = Vec::new();
    for id in &held {
        let job = client.get(&format!("/v1/jobs/{id}")).await;
        assert!(["scheduled", "running"].contains(&job["state"].as_str().unwrap()), "{job}");
        assert_eq!(job["attempt_count"], 0, "nothing was sent, so nothing is spent: {job}");
        let attempts = client.all(&format!("/v1/jobs/{id}/attempts")).await;
        codes.extend(attempts.iter().map(|attempt| attempt["error"]["code"].as_str().unwrap().to_owned()));
    }
    assert!(codes.iter().any(|code| code == "policy.fuel-exhausted"), "{codes:?}");
    assert!(
        codes.iter().all(|code| ["policy.fuel-exhausted", "policy.quarantined"].contains(&code.as_str())),
        "{codes:?}"
    );
    let sent = receiver.arrivals();
    assert!(sent.iter().all(|arrival| others.contains(&arrival.key)), "nothing goes out unsigned");

    client.put("/v1/keys/secret", &json!({"secret": "hunter2"})).await;
    client.put("/v1/groups/held", &json!({"sign": {"plugin": "werkzeug-cookie", "keys": ["secret"]}})).await;
    client.until_done("held").await;
    for id in &held {
        let job = client.get(&format!("/v1/jobs/{id}")).await;
        assert_eq!((&job["state"], &job["attempt_count"]), (&json!("succeeded"), &json!(1)), "{job}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_description_that_cannot_be_used_is_refused() {
    let server = Server::start(&[("policy.deadline", "5s")]);
    let client = server.client();
    let judging =
        |name: &str, version: &str, schema: &str| Guest::describing(name, version, schema).role("judge", PLAIN);
    for (guest, expected) in [
        (judging("other", "1.0.0", "{}"), "states the name `other@1.0.0`"),
        (judging("guest", "1.1.0", "{}"), "states the name `guest@1.1.0`"),
        (judging("guest", "1.0.0", "{"), "not JSON"),
        (judging("guest", "1.0.0", "7"), "not a JSON Schema"),
        (judging("guest", "1.0.0", r#"{"type": "nothing"}"#), "not a JSON Schema"),
        (judging("guest", "1.0.0", r#"{"pattern": "(?=a)"}"#), "not a JSON Schema"),
        (judging("guest", "1.0.0", r#"{"$ref": "http://127.0.0.1:1/s"}"#), "must not use `$ref`"),
        (judging("guest", "1.0.0", r##"{"items": {"anyOf": [{"$ref": "#"}, {"$ref": "#"}]}}"##), "must not use `$ref`"),
        (judging("guest", "1.0.0", "{}").with("(func $start unreachable) (start $start)"), "policy.trap"),
    ] {
        let (status, problem) = upload(&client, "guest", guest.build()).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{expected}: {problem}");
        assert!(problem["detail"].as_str().unwrap().contains(expected), "{expected}: {problem}");
    }
}
