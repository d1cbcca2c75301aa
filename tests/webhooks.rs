//! Signed as Standard Webhooks says: the official library takes it, with the keys that it should take it with and no others.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::{Signature, VerifyingKey};
use serde_json::{Value, json};

use crate::support::{Answer, Arrival, ManualClock, Receiver, Setup, TestHost, ask_python, repository};

const OLD: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
const NEW: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// Reads {"headers", "body", "secret", "at_ms"} and prints what the library makes of it at that time: the payload, or why not.
const READER: &str = r#"
import datetime, json, sys
from standardwebhooks import webhooks
asked = json.load(sys.stdin)
class Clock(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return cls.fromtimestamp(asked["at_ms"] / 1000, tz)
webhooks.datetime = Clock
try:
    print(json.dumps(webhooks.Webhook(asked["secret"]).verify(asked["body"], asked["headers"])))
except webhooks.WebhookVerificationError as error:
    print(json.dumps(str(error)))
"#;

const NO_MATCH: &str = "No matching signature found";

fn payload() -> Value {
    json!({"type": "user.created", "data": {"text": "grüße 🔔", "list": [1, null, 1.5]}})
}

/// What the official library says of a request.
async fn read(arrival: &Arrival, secret: &str) -> Value {
    let headers = arrival.headers.iter().map(|(name, value)| (name.clone(), Value::from(text(value))));
    let headers: Value = headers.collect();
    let at_ms = arrival.at.as_u64();
    ask_python(READER, &json!({"headers": headers, "body": arrival.text(), "secret": secret, "at_ms": at_ms})).await
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn signatures(arrival: &Arrival) -> Vec<&str> {
    arrival.header("webhook-signature").unwrap().split(' ').collect()
}

/// A host and a receiver on one clock.
async fn start() -> (Arc<ManualClock>, TestHost, Receiver) {
    let clock = ManualClock::new();
    let receiver = Receiver::with_clock(clock.clone()).await;
    (Arc::clone(&clock), Setup::with_clock(&clock).start().await, receiver)
}

async fn put_group(host: &TestHost, group: &str, keys: &[&str]) {
    let sign = json!({"plugin": "standard-webhooks", "config": {"id_prefix": "msg_"}, "keys": keys});
    host.api.put_group(group, json!({"sign": sign, "retry": {"config": {"jitter": 0}}})).await;
}

/// A job of the group, as it arrives.
async fn delivered(host: &TestHost, receiver: &Receiver, group: &str) -> Arrival {
    let id = host.api.job_id(group, json!({"url": receiver.url("/hook"), "payload": payload()})).await;
    host.api.until_state(&id, "succeeded").await;
    let arrival = receiver.arrivals("/hook").pop().unwrap();
    assert_eq!(arrival.header("webhook-id"), Some(format!("msg_{id}").as_str()));
    arrival
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_official_library_takes_every_attempt_with_the_right_secret_only() {
    let (clock, host, receiver) = start().await;
    host.api.put("/v1/keys/hook", json!({"secret_base64": OLD})).await.expect(204);
    put_group(&host, "g", &["hook"]).await;
    receiver.on("/hook", [Answer::status(503), Answer::status(200)]);
    let id = host.api.job_id("g", json!({"url": receiver.url("/hook"), "payload": payload()})).await;
    host.api.until_retry(&id, 1).await;
    clock.advance(Duration::from_secs(10));
    host.api.until_state(&id, "succeeded").await;
    let arrivals = receiver.arrivals("/hook");
    assert_eq!(arrivals.len(), 2);
    for arrival in &arrivals {
        assert_eq!(arrival.header("webhook-id"), Some(format!("msg_{id}").as_str()), "the same for each attempt");
        let seconds = (arrival.at.as_u64() / 1_000).to_string();
        assert_eq!(arrival.header("webhook-timestamp"), Some(seconds.as_str()), "the attempt's own");
        assert_eq!(read(arrival, OLD).await, payload());
        assert_eq!(read(arrival, NEW).await, NO_MATCH);
        let touched = Arrival { body: arrival.text().replace("created", "deleted").into(), ..arrival.clone() };
        assert_eq!(read(&touched, OLD).await, NO_MATCH);
    }
    let late = Arrival { at: arrivals[0].at.plus(Duration::from_secs(301)), ..arrivals[0].clone() };
    assert_eq!(read(&late, OLD).await, "Message timestamp too old");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_a_key_is_rotated_receivers_with_either_secret_take_it() {
    let (clock, host, receiver) = start().await;
    host.api.put("/v1/keys/hook", json!({"secret_base64": OLD})).await.expect(204);
    put_group(&host, "g", &["hook"]).await;
    let alone = delivered(&host, &receiver, "g").await;
    assert_eq!(signatures(&alone).len(), 1);

    // Twice, as a client that lost the first answer would.
    for _ in 0..2 {
        host.api.put("/v1/keys/hook", json!({"secret_base64": NEW, "overlap": "24h"})).await.expect(204);
    }
    let shown = host.api.get("/v1/keys/hook").await.expect(200);
    let ends: Vec<_> = shown["versions"].as_array().unwrap().iter().map(|version| &version["expires_at"]).collect();
    assert_eq!((ends.len(), ends[0]), (2, &Value::Null), "{shown}");
    assert_eq!(ends[1], "2026-11-21T10:00:00.000Z");

    clock.advance(Duration::from_secs(24 * 60 * 60) - Duration::from_millis(1));
    let both = delivered(&host, &receiver, "g").await;
    assert_eq!(signatures(&both).len(), 2);
    for secret in [OLD, NEW] {
        assert_eq!(read(&both, secret).await, payload());
    }
    clock.advance(Duration::from_millis(1));
    let after = delivered(&host, &receiver, "g").await;
    assert_eq!(signatures(&after).len(), 1, "the plan of the group is the same, the time is not");
    assert_eq!((read(&after, NEW).await, read(&after, OLD).await), (payload(), json!(NO_MATCH)));
    assert_eq!(host.api.get("/v1/keys/hook").await.expect(200)["versions"].as_array().unwrap().len(), 1);
}

/// Puts a version, and says which it is.
async fn rotate(host: &TestHost, key: Value) -> Value {
    host.api.put("/v1/keys/hook", key).await.expect(204);
    host.api.get("/v1/keys/hook").await.expect(200)["version"].clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_that_is_removed_signs_no_more_and_a_bad_one_can_be_taken_back() {
    let (_, host, receiver) = start().await;
    let old = rotate(&host, json!({"secret_base64": OLD})).await;
    put_group(&host, "g", &["hook"]).await;
    let new = rotate(&host, json!({"secret_base64": NEW, "overlap": "1h"})).await;
    host.api.delete(&format!("/v1/keys/hook/versions/{new}")).await.expect(204);
    let back = delivered(&host, &receiver, "g").await;
    assert_eq!((read(&back, OLD).await, read(&back, NEW).await), (payload(), json!(NO_MATCH)));
    let shown = host.api.get("/v1/keys/hook").await.expect(200);
    assert_eq!(
        (&shown["version"], &shown["versions"][0]["expires_at"]),
        (&old, &Value::Null),
        "it is the newest again"
    );
    host.api.delete(&format!("/v1/keys/hook/versions/{old}")).await.problem(409);

    let again = rotate(&host, json!({"secret_base64": NEW, "overlap": "until-removed"})).await;
    assert!(again.as_i64() > new.as_i64(), "no number is used twice");
    assert_eq!(signatures(&delivered(&host, &receiver, "g").await).len(), 2);
    host.api.delete(&format!("/v1/keys/hook/versions/{old}")).await.expect(204);
    let left = delivered(&host, &receiver, "g").await;
    assert_eq!((signatures(&left).len(), read(&left, NEW).await), (1, payload()));

    for number in 0..3 {
        rotate(&host, json!({"secret": format!("another {number}"), "overlap": "1h"})).await;
    }
    let fifth = json!({"secret": "one more", "overlap": "1h"});
    host.api.put("/v1/keys/hook", fifth).await.problem_at(422, "/overlap");
    assert_eq!(signatures(&delivered(&host, &receiver, "g").await).len(), 4);
    rotate(&host, json!({"secret_base64": OLD})).await;
    let cut = delivered(&host, &receiver, "g").await;
    assert_eq!(
        (signatures(&cut).len(), read(&cut, OLD).await),
        (1, payload()),
        "without an overlap the rest ends at once"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_of_another_kind_signs_besides_in_its_own_way() {
    let (_, host, receiver) = start().await;
    rotate(&host, json!({"secret_base64": OLD})).await;
    put_group(&host, "g", &["hook"]).await;
    let seed = [7_u8; 32];
    let private = format!("whsk_{}", STANDARD.encode(seed));
    rotate(&host, json!({"secret_base64": private, "overlap": "1h"})).await;
    let arrival = delivered(&host, &receiver, "g").await;
    assert_eq!(read(&arrival, OLD).await, payload(), "receivers with the old secret go on");

    let shown = host.api.get("/v1/keys/hook").await.expect(200);
    let public = STANDARD.decode(shown["versions"][0]["public_key"].as_str().unwrap()).unwrap();
    let public = VerifyingKey::from_bytes(&public.try_into().unwrap()).unwrap();
    let signature = STANDARD.decode(signatures(&arrival)[0].strip_prefix("v1a,").unwrap()).unwrap();
    let signature = Signature::from_slice(&signature).unwrap();
    let field = |name| arrival.header(name).unwrap();
    let content = format!("{}.{}.{}", field("webhook-id"), field("webhook-timestamp"), arrival.text());
    assert!(public.verify_strict(content.as_bytes(), &signature).is_ok());
    assert!(public.verify_strict(format!("{content} ").as_bytes(), &signature).is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_groups_signer_is_given_no_key_but_the_groups_own() {
    let (_, host, receiver) = start().await;
    host.api.put("/v1/keys/ours", json!({"secret_base64": OLD})).await.expect(204);
    host.api.put("/v1/keys/theirs", json!({"secret_base64": NEW})).await.expect(204);
    for (group, keys, ours, theirs) in
        [("a", &["ours"][..], true, false), ("b", &["theirs"], false, true), ("c", &["theirs", "ours"], true, true)]
    {
        put_group(&host, group, keys).await;
        let arrival = delivered(&host, &receiver, group).await;
        assert_eq!(signatures(&arrival).len(), keys.len());
        assert_eq!(read(&arrival, OLD).await == payload(), ours, "{group}");
        assert_eq!(read(&arrival, NEW).await == payload(), theirs, "{group}");
    }
    let other = host.api.tenant("other").await;
    let sign = json!({"plugin": "standard-webhooks", "keys": ["ours"]});
    other.put("/v1/groups/g", json!({"sign": sign})).await.problem_at(422, "/sign/keys/0");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_curl_of_the_readme_works() {
    let (_, host, receiver) = start().await;
    let readme = std::fs::read_to_string(repository().join("plugins/standard-webhooks/README.md")).unwrap();
    let (_, rest) = readme.split_once("/v1/keys/hook --json '").unwrap();
    let key: Value = serde_json::from_str(rest.split_once('\'').unwrap().0).unwrap();
    host.api.put("/v1/keys/hook", key.clone()).await.expect(204);
    put_group(&host, "g", &["hook"]).await;
    let arrival = delivered(&host, &receiver, "g").await;
    assert_eq!(read(&arrival, key["secret_base64"].as_str().unwrap()).await, payload());
}
