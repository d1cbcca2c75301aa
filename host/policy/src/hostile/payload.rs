//! Default plugins with payloads of the server's maximum size and any content.

use serde_json::json;
use zeroize::Zeroizing;

use super::*;
use crate::KeyKind;

/// Value of `server.payload_limit`.
const LARGEST: usize = 1 << 20;

/// Value of `delivery.response_judge_limit`.
const JUDGED: usize = 64 << 10;

fn builtin(name: &str) -> Plugin {
    let plugin = carillon_default_plugins::ALL.iter().find(|plugin| plugin.name == name).unwrap();
    load(plugin.component).unwrap()
}

fn key() -> Arc<KeyMaterial> {
    Arc::new(KeyMaterial::new("k/1".into(), KeyKind::Secret, Zeroizing::new(vec![7; 32])).unwrap())
}

/// Repeats `part` between `head` and `tail` as often as fits.
fn filled(most: usize, head: &str, part: impl Fn(usize) -> String, tail: &str) -> (String, Vec<u8>) {
    let mut text = head.to_owned();
    for n in 0.. {
        let next = part(n);
        if text.len() + next.len() + tail.len() > most {
            break;
        }
        text.push_str(&next);
    }
    text.push_str(tail);
    (head.to_owned() + &part(0), text.into_bytes())
}

/// Returns JSON objects of at most `most` bytes, each with another costly property.
fn payloads(most: usize) -> Vec<(String, Vec<u8>)> {
    let same = |part: &'static str| move |_: usize| part.to_owned();
    let comma = |n: usize| if n == 0 { "" } else { "," };
    vec![
        filled(most, r#"{"text":""#, same("a"), r#""}"#),
        filled(most, r#"{"cyrillic":""#, same("ж"), r#""}"#),
        filled(most, r#"{"lines":"\n"#, same("ж"), r#""}"#),
        filled(most, r#"{"emoji":""#, same("😀"), r#""}"#),
        filled(most, r#"{"quotes":""#, same(r#"\""#), r#""}"#),
        filled(most, r#"{"escapes":""#, same(r"\u0436"), r#""}"#),
        filled(most, "{", |n| format!(r#"{}"{n}":{n}"#, comma(n)), "}"),
        filled(most, "{", |n| format!(r#"{}"\u0436{n}":null"#, comma(n)), "}"),
        filled(most, r#"{"numbers":[0"#, same(",0"), "]}"),
        filled(most, r#"{"floats":[0"#, |n| format!(",{n}.5e-3"), "]}"),
        filled(most, r#"{"objects":[0"#, |n| format!(r#",{{"id":{n},"name":"n{n}"}}"#), "]}"),
    ]
}

fn signed(plugin: &Plugin, config: &str, body: Vec<u8>) -> CallResult<types::Request> {
    plugin.sign(&limits(), &attempt(), config, types::Request { body, ..request() }, &[key()])
}

/// Checks that a call has a result, and at least a quarter of its fuel left.
fn answered<T>(what: &str, called: CallResult<T>) -> T {
    let (fuel, most) = (called.usage.fuel, called.usage.fuel_limit);
    let answer = called.result.unwrap_or_else(|fault| panic!("{what}: {fault}"));
    assert!(fuel < most / 4 * 3, "{what}: {fuel} of {most}");
    answer
}

#[test]
fn werkzeug_cookie_signs_what_is_as_large_as_may_be() {
    let plugin = builtin("werkzeug-cookie");
    for config in [r#"{"expires":"1h"}"#, r#"{"json_style":"compact"}"#, r#"{"format":"flask-session"}"#] {
        for (name, body) in payloads(LARGEST) {
            let length = body.len();
            assert!(length > LARGEST - 64, "{name}");
            let sent = answered(&format!("{config} {name}"), signed(&plugin, config, body)).body;
            // A session is compressed, and `0.5e-3` is written with fewer digits.
            let is_session = config.contains("session");
            assert!(is_session || sent.len() > length / 4 * 3, "{config} {name}: {} bytes", sent.len());
        }
    }
}

#[test]
fn standard_webhooks_signs_what_is_as_large_as_may_be() {
    let plugin = builtin("standard-webhooks");
    let sent = answered("standard-webhooks", signed(&plugin, "{}", vec![b'a'; LARGEST]));
    assert_eq!((sent.headers.len(), sent.body.len()), (request().headers.len() + 3, LARGEST));
}

#[test]
fn base64_envelope_wraps_what_is_as_large_as_may_be() {
    let plugin = builtin("base64-envelope");
    let large = types::Request { body: (0..LARGEST).map(|n| n as u8).collect(), ..request() };
    let sent = answered("base64-envelope", plugin.encode(&limits(), &attempt(), "{}", &large));
    assert!(sent.body.len() > LARGEST / 3 * 4);
    // A signer accepts the result.
    answered("both", signed(&builtin("werkzeug-cookie"), "{}", sent.body));
}

#[test]
fn expected_status_judges_what_is_as_large_as_may_be() {
    let (plugin, config) =
        (builtin("expected-status"), json!({"body": {"pointer": "/text", "equals": "b"}}).to_string());
    for (name, body) in payloads(JUDGED).into_iter().chain(payloads(LARGEST).into_iter().take(1)) {
        let response =
            judge_export::Response { status: 200, headers: Vec::new(), body, truncated: false, elapsed_ms: 3 };
        let exchange = judge_export::Exchange::Response(response);
        answered(&name, plugin.judge(&limits(), &attempt(), &config, &exchange));
    }
}

#[test]
fn backoff_takes_a_long_history() {
    let past = |number| retry_export::Past {
        number,
        started_ms: 0,
        finished_ms: 1,
        outcome: retry_export::Outcome::Retryable,
        status: Some(500),
    };
    let history: Vec<_> = (1..1_000).map(past).collect();
    let verdict = judge_export::Verdict { reason: "x".repeat(1 << 10), ..verdict() };
    answered("backoff", builtin("backoff").retry(&limits(), &attempt(), "{}", &verdict, &history));
}
