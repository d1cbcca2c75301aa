//! The golden vectors of the Python libraries, placement, failures, and the properties that no payload may break.
//!
//! `vectors/generate.py` writes the vectors.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use carillon_policy_sdk::testing::{self, StaticKey, attempt, request};
use carillon_policy_sdk::{Attempt, Blame, Failure, Header, Key, Mac, Plugin as _, Request, Sign as _, Signed};
use miniz_oxide::inflate::decompress_to_vec_zlib;
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::{Config, WerkzeugCookie};

fn config(json: &str) -> Config {
    testing::config::<WerkzeugCookie>(json).expect("a good config")
}

fn sign_with(json: &str, now_ms: u64, request: Request, secrets: &[&[u8]]) -> Result<Signed, Failure> {
    let keys: Vec<StaticKey> = secrets.iter().map(|secret| StaticKey::new("k/1", *secret)).collect();
    let keys: Vec<&dyn Key> = keys.iter().map(|key| key as &dyn Key).collect();
    WerkzeugCookie::sign(&Attempt { now_ms, ..attempt(1, 0) }, &config(json), request, &keys)
}

fn text(json: &str, now_ms: u64, payload: &str, secret: &[u8]) -> String {
    let signed = sign_with(json, now_ms, request(payload), &[secret]).expect("a signature");
    String::from_utf8(signed.body.expect("a body")).expect("ASCII")
}

fn failure(payload: &[u8]) -> Failure {
    sign_with("{}", 0, request(payload), &[b"k"]).expect_err("no signature")
}

/// A case of a golden file: name, payload, secret, time, config, expected text.
fn golden(file: &str) -> Vec<(String, String, Vec<u8>, u64, String, String)> {
    let cases: Vec<Value> = serde_json::from_str(file).expect("JSON");
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let bytes = |hex: &str| {
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex")).collect()
    };
    cases
        .iter()
        .map(|case| {
            let secret = bytes(case["secret"].as_str().expect("a text"));
            (
                text(&case["name"]),
                text(&case["payload"]),
                secret,
                case["now_ms"].as_u64().expect("a time"),
                case["config"].to_string(),
                text(&case["text"]),
            )
        })
        .collect()
}

#[test]
fn secure_cookies_are_those_of_the_library() {
    let cases = golden(include_str!("../vectors/secure-cookie.json"));
    assert!(cases.len() > 30);
    for (name, payload, secret, now_ms, config, expected) in cases {
        assert_eq!(text(&config, now_ms, &payload, &secret), expected, "{name}");
    }
}

/// The JSON of a session's first part, whether compressed or not.
fn session_json(text: &str) -> Vec<u8> {
    match text.strip_prefix('.') {
        Some(rest) => {
            let part = rest.split('.').next().expect("a part");
            decompress_to_vec_zlib(&URL_SAFE_NO_PAD.decode(part).expect("base64")).expect("zlib")
        }
        None => URL_SAFE_NO_PAD.decode(text.split('.').next().expect("a part")).expect("base64"),
    }
}

/// Two zlibs write different bytes for the same content, and may differ on whether it got shorter: then content and signature count.
#[test]
fn sessions_are_those_of_the_library() {
    let cases = golden(include_str!("../vectors/flask-session.json"));
    assert!(cases.len() > 20);
    for (name, payload, secret, now_ms, config, expected) in cases {
        let text = text(&config, now_ms, &payload, &secret);
        if expected.starts_with('.') {
            let times = [&text, &expected].map(|text| text.rsplit('.').nth(1).expect("a time").to_owned());
            assert_eq!(times[0], times[1], "{name}");
            assert_eq!(session_json(&text), session_json(&expected), "{name}");
            assert!(
                text.len() < expected.len() + expected.len() / 8 + 8,
                "{name} is compressed badly: {} and {}",
                text.len(),
                expected.len()
            );
        } else {
            assert_eq!(text, expected, "{name}");
        }
        assert_session_signature(&text, &secret, &config);
    }
}

fn assert_session_signature(text: &str, secret: &[u8], config: &str) {
    let config: Value = serde_json::from_str(config).expect("JSON");
    let salt = config["salt"].as_str().unwrap_or("cookie-session");
    let derived = StaticKey::new("k", secret).mac(Mac::HmacSha1, salt.as_bytes()).expect("a mac");
    let (covered, signature) = text.rsplit_once('.').expect("three parts");
    let expected = StaticKey::new("k", derived).mac(Mac::HmacSha1, covered.as_bytes()).expect("a mac");
    assert_eq!(URL_SAFE_NO_PAD.decode(signature).expect("base64"), expected);
}

#[test]
fn the_newest_key_signs_and_none_is_the_configs_fault() {
    let newest = text("{}", 0, r#"{"a": 1}"#, b"new");
    let rotated = sign_with("{}", 0, request(r#"{"a": 1}"#), &[b"new", b"old"]).expect("a signature");
    assert_eq!(rotated.body, Some(newest.into_bytes()));
    let failure = sign_with("{}", 0, request("{}"), &[]).expect_err("no signature");
    assert_eq!((failure.blame, failure.code.as_str()), (Blame::Config, "no-key"));
}

#[test]
fn what_is_no_json_object_is_the_jobs_fault() {
    for payload in [
        &b""[..],
        b"null",
        b"[1]",
        b"\"a\"",
        b"{",
        b"{}x",
        b"{\"a\": \xff}",
        b"{\"a\": \"\\ud800\"}",
        b"{\"a\": 01}",
        b"{a: 1}",
    ] {
        let failure = failure(payload);
        assert_eq!((failure.blame, failure.code.as_str()), (Blame::Job, "payload-not-object"), "{payload:?}");
        assert!(failure.message.starts_with("The payload must be a JSON object: "), "{}", failure.message);
    }
}

#[test]
fn deep_nesting_is_refused_before_the_stack_is_used_up() {
    let nested = |levels: usize| format!("{{\"a\": {}{}}}", "[".repeat(levels), "]".repeat(levels));
    assert!(sign_with("{}", 0, request(nested(64)), &[b"k"]).is_ok());
    for levels in [65, 100_000] {
        let failure = failure(nested(levels).as_bytes());
        assert_eq!((failure.blame, failure.code.as_str()), (Blame::Job, "payload-too-deep"));
    }
}

#[test]
fn the_signed_text_is_not_called_json() {
    let signed = sign_with("{}", 0, request("{}"), &[b"k"]).expect("a signature");
    assert_eq!(
        signed.headers,
        [Header { name: "content-type".to_owned(), value: b"text/plain; charset=utf-8".to_vec() }]
    );
    let unlabelled = Request { headers: Vec::new(), ..request("{}") };
    assert_eq!(sign_with("{}", 0, unlabelled, &[b"k"]).expect("a signature").headers, []);
}

#[test]
fn a_header_takes_the_text_and_cookies_are_joined() {
    let plain = text("{}", 0, r#"{"a": 1}"#, b"k");
    let signed =
        sign_with(r#"{"placement": {"header": "X-Signed"}}"#, 0, request(r#"{"a": 1}"#), &[b"k"]).expect("a signature");
    assert_eq!(
        signed,
        Signed { headers: vec![Header { name: "X-Signed".to_owned(), value: plain.clone().into_bytes() }], body: None }
    );
    let mut with_cookie = request(r#"{"a": 1}"#);
    with_cookie.headers.push(Header { name: "cookie".to_owned(), value: b"theme=dark".to_vec() });
    let signed = sign_with(r#"{"placement": {"header": "Cookie", "prefix": "session="}}"#, 0, with_cookie, &[b"k"])
        .expect("a signature");
    assert_eq!(signed.headers[0].value, format!("theme=dark; session={plain}").into_bytes());
}

#[test]
fn a_bad_config_is_refused_with_the_rule_it_breaks() {
    for (json, text) in [
        (r#"{"format": "jwt"}"#, "unknown variant `jwt`"),
        (r#"{"format": "flask-session", "expires": "1h"}"#, "`expires` belongs to"),
        (r#"{"format": "flask-session", "json_style": "compact"}"#, "`json_style` does not belong"),
        (r#"{"format": "flask-session", "quote_tilde": false}"#, "`quote_tilde` does not belong"),
        (r#"{"salt": "x"}"#, "`salt` does not belong"),
        (r#"{"expires": "soon"}"#, "is not a duration"),
        (r#"{"placement": "header"}"#, "must be \"body\" or an object"),
        (r#"{"placement": {"header": "a b"}}"#, "not the name of a header"),
        (r#"{"placement": {"header": "a", "prefix": "\n"}}"#, "printable ASCII"),
        (r#"{"placement": {"name": "a"}}"#, "unknown field `name`"),
        (r#"{"secret": "x"}"#, "unknown field `secret`"),
    ] {
        let refused = testing::config::<WerkzeugCookie>(json).expect_err(json);
        assert!(refused.contains(text), "{json}: {refused}");
    }
}

#[test]
fn the_examples_and_the_schema_hold() {
    let examples: Vec<&str> = testing::json_blocks(include_str!("../README.md")).collect();
    assert!(examples.len() >= 3);
    for example in examples {
        assert!(testing::config::<WerkzeugCookie>(example).is_ok(), "{example}");
    }
    let schema: Value = serde_json::from_str(WerkzeugCookie::CONFIG_SCHEMA).expect("JSON");
    assert_eq!(schema["additionalProperties"], false);
}

/// Reads a secure cookie as a Werkzeug application does.
fn read_cookie(text: &str, secret: &[u8]) -> Map<String, Value> {
    let (mac, items) = text.split_once('?').expect("a question mark");
    let covered: String = items.split('&').filter(|item| !item.is_empty()).flat_map(|item| ["|", item]).collect();
    let expected = StaticKey::new("k", secret).mac(Mac::HmacSha1, covered.as_bytes()).expect("a mac");
    assert_eq!(STANDARD.decode(mac).expect("base64"), expected);
    items
        .split('&')
        .filter(|item| !item.is_empty())
        .map(|item| {
            let (name, value) = item.split_once('=').expect("an item");
            (unquote_plus(name), serde_json::from_slice(&STANDARD.decode(value).expect("base64")).expect("JSON"))
        })
        .collect()
}

fn unquote_plus(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'+' => bytes.push(b' '),
            b'%' => {
                let digits = [rest.next().expect("a digit"), rest.next().expect("a digit")];
                bytes.push(u8::from_str_radix(std::str::from_utf8(&digits).expect("ASCII"), 16).expect("hex"));
            }
            _ => bytes.push(byte),
        }
    }
    String::from_utf8(bytes).expect("UTF-8")
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        // serde_json, which reads in this test, is exact for few digits only; the vectors have the other floats.
        any::<i32>().prop_map(|number| Value::from(f64::from(number) / 256.0)),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::btree_map(any::<String>(), inner, 0..4).prop_map(|members| json!(members)),
        ]
    })
}

proptest! {
    #[test]
    fn a_reader_gets_back_what_was_signed(
        object in proptest::collection::btree_map(any::<String>(), any_json(), 0..5), secret in proptest::collection::vec(any::<u8>(), 1..100), compact: bool,
    ) {
        let style = if compact { r#"{"json_style": "compact"}"# } else { "{}" };
        let payload = json!(object);
        let read = read_cookie(&text(style, 0, &payload.to_string(), &secret), &secret);
        prop_assert_eq!(Value::Object(read), payload.clone());
        let session = text(r#"{"format": "flask-session"}"#, 0, &payload.to_string(), &secret);
        prop_assert_eq!(serde_json::from_slice::<Value>(&session_json(&session)).expect("JSON"), payload);
    }
}
