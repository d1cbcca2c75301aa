//! The envelope's fields, what becomes of headers, and the configs that are refused.

use std::collections::HashSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use carillon_policy_sdk::testing::{self, attempt, request};
use carillon_policy_sdk::{Attempt, Encode as _, Header, Plugin as _, Request};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{Base64Envelope, Config, request_id};

fn config(json: &str) -> Config {
    testing::config::<Base64Envelope>(json).expect("a good config")
}

fn encode(json: &str, attempt: &Attempt, request: Request) -> Request {
    Base64Envelope::encode(attempt, &config(json), request).expect("an envelope")
}

fn envelope(json: &str, body: &[u8]) -> Value {
    serde_json::from_slice(&encode(json, &attempt(3, 0), request(body)).body).expect("JSON")
}

#[test]
fn the_default_is_the_envelope_of_poussetaches() {
    let id = request_id(&attempt(3, 0));
    assert_eq!(envelope("{}", b"{\"a\": 1}"), json!({"payload": "eyJhIjogMX0=", "tries": 3, "req_id": id}));
    assert_eq!(envelope("{}", b"")["payload"], Value::Null);
}

#[test]
fn fields_are_renamed_left_out_and_added() {
    let json =
        r#"{"fields": {"payload": "data", "req_id": false, "tries": "n"}, "extra": {"source": "carillon", "v": [2]}}"#;
    assert_eq!(envelope(json, b"x"), json!({"data": "eA==", "n": 3, "source": "carillon", "v": [2]}));
    let none = r#"{"fields": {"payload": false, "req_id": false, "tries": false}}"#;
    assert_eq!(encode(none, &attempt(3, 0), request(b"x")).body, b"{}");
    let quoted = r#"{"fields": {"payload": "a\"b", "req_id": false, "tries": false}}"#;
    assert_eq!(encode(quoted, &attempt(3, 0), request(b"x")).body, br#"{"a\"b":"eA=="}"#);
}

#[test]
fn what_describes_the_wrapped_body_is_removed_and_the_rest_is_kept() {
    let header = |name: &str, value: &str| Header { name: name.to_owned(), value: value.as_bytes().to_vec() };
    let mut original = request("x");
    original.headers = vec![
        header("Content-Type", "application/json"),
        header("X-Trace", "1"),
        header("CONTENT-ENCODING", "gzip"),
        header("Content-Length", "1"),
    ];
    let encoded = encode("{}", &attempt(1, 0), original.clone());
    assert_eq!(encoded.headers, [header("X-Trace", "1")]);
    assert_eq!((encoded.method, encoded.url), (original.method.clone(), original.url.clone()));
    let labelled = encode(r#"{"content_type": "application/json"}"#, &attempt(1, 0), original);
    assert_eq!(labelled.headers, [header("X-Trace", "1"), header("content-type", "application/json")]);
}

#[test]
fn a_request_id_is_twelve_hex_digits_and_new_for_every_attempt() {
    let mut seen = HashSet::new();
    for number in 1..=50 {
        for seed in 0..50 {
            for job in ["a", "b", "ab", "ba"] {
                let id = request_id(&Attempt { number, seed, job_id: job.to_owned(), ..attempt(1, 0) });
                assert!(id.len() == 12 && id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')), "{id}");
                assert!(seen.insert(id));
            }
        }
    }
    assert_eq!(request_id(&attempt(2, 0)), request_id(&attempt(2, 5_000)));
}

#[test]
fn a_bad_config_is_refused_with_the_rule_it_breaks() {
    for (json, text) in [
        (r#"{"fields": {"tries": "payload"}}"#, "Two fields of the envelope are called `payload`"),
        (r#"{"extra": {"tries": 1}}"#, "Two fields of the envelope are called `tries`"),
        (r#"{"fields": {"tries": 3}}"#, "3 is not a field name"),
        (r#"{"fields": {"tries": null}}"#, "null is not a field name"),
        (r#"{"fields": {"attempt": "n"}}"#, "unknown field `attempt`"),
        (r#"{"encoding": "hex"}"#, "unknown field `encoding`"),
        (r#"{"content_type": "a\nb"}"#, "printable ASCII"),
        (r#"{"content_type": ""}"#, "printable ASCII"),
    ] {
        let refused = testing::config::<Base64Envelope>(json).expect_err(json);
        assert!(refused.contains(text), "{json}: {refused}");
    }
}

#[test]
fn the_examples_and_the_schema_hold() {
    let examples: Vec<&str> = testing::json_blocks(include_str!("../README.md")).collect();
    assert!(examples.len() >= 2);
    for example in examples {
        assert!(testing::config::<Base64Envelope>(example).is_ok(), "{example}");
    }
    let schema: Value = serde_json::from_str(Base64Envelope::CONFIG_SCHEMA).expect("JSON");
    assert_eq!(schema["additionalProperties"], false);
}

proptest! {
    #[test]
    fn any_bytes_survive(body in proptest::collection::vec(any::<u8>(), 1..300)) {
        let envelope = envelope("{}", &body);
        let payload = envelope["payload"].as_str().expect("a text");
        prop_assert_eq!(STANDARD.decode(payload).expect("base64"), body);
    }
}
