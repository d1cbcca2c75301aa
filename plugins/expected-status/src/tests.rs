//! Verdicts for statuses, bodies and missing answers, and the configs that are refused.

use carillon_policy_sdk::testing::{self, attempt, response};
use carillon_policy_sdk::{Exchange, Judge as _, Outcome, Plugin as _, TransportError, Verdict};

use super::{Config, ExpectedStatus};

fn config(json: &str) -> Config {
    testing::config::<ExpectedStatus>(json).expect("a good config")
}

fn judge(json: &str, exchange: Exchange) -> Verdict {
    ExpectedStatus::judge(&attempt(1, 0), &config(json), exchange).expect("a verdict")
}

fn outcome(json: &str, status: u16) -> Outcome {
    judge(json, response(status, "")).outcome
}

fn body_outcome(json: &str, body: &str) -> Outcome {
    judge(json, response(200, body)).outcome
}

#[test]
fn by_default_2xx_is_success_and_everything_else_is_tried_again() {
    for status in [200, 201, 204, 299] {
        assert_eq!(outcome("{}", status), Outcome::Success, "{status}");
    }
    for status in [100, 199, 301, 302, 304, 307, 400, 404, 410, 429, 500, 503, 599] {
        assert_eq!(outcome("{}", status), Outcome::Retryable, "{status}");
    }
}

#[test]
fn codes_classes_ranges_and_lists_are_expected() {
    for (json, status, expected) in [
        (r#"{"expect": 204}"#, 204, Outcome::Success),
        (r#"{"expect": 204}"#, 200, Outcome::Retryable),
        (r#"{"expect": "3xx"}"#, 304, Outcome::Success),
        (r#"{"expect": ["200-299", 304, "404"]}"#, 404, Outcome::Success),
        (r#"{"expect": ["200-299", 304, "404"]}"#, 303, Outcome::Retryable),
        (r#"{"permanent": "4xx"}"#, 404, Outcome::Permanent),
        (r#"{"permanent": ["4xx"]}"#, 500, Outcome::Retryable),
        (r#"{"permanent": ["4xx"], "expect": [404]}"#, 404, Outcome::Success),
        (r#"{"permanent": [], "expect": ["1xx", "2xx", "3xx"]}"#, 302, Outcome::Success),
    ] {
        assert_eq!(outcome(json, status), expected, "{json} {status}");
    }
}

#[test]
fn no_answer_is_tried_again_even_if_everything_else_is_permanent() {
    let lost =
        TransportError { code: "timeout".to_owned(), message: "no answer within 10 s".to_owned(), elapsed_ms: 10_000 };
    let verdict = judge(r#"{"permanent": "100-599"}"#, Exchange::TransportError(lost));
    assert_eq!(verdict.outcome, Outcome::Retryable);
    assert!(verdict.reason.contains("timeout") && verdict.reason.contains("no answer within 10 s"));
}

#[test]
fn a_reason_names_what_came_and_what_was_expected() {
    assert_eq!(
        judge(r#"{"expect": [200, "202-204", "3xx"]}"#, response(500, "")).reason,
        "The status is 500, expected was 200, 202-204 or 3xx."
    );
    assert_eq!(judge("{}", response(404, "")).reason, "The status is 404, expected was 2xx.");
}

#[test]
fn a_value_in_the_body_must_match() {
    let ok = r#"{"body": {"pointer": "/ok", "equals": true}}"#;
    assert_eq!(body_outcome(ok, r#"{"ok": true, "more": 1}"#), Outcome::Success);
    for body in [r#"{"ok": false}"#, r#"{"ok": "true"}"#, r#"{}"#, "", "ok", "\u{0}"] {
        assert_eq!(body_outcome(ok, body), Outcome::Retryable, "{body}");
    }
    let both = r#"{"body": [{"pointer": "/a/0", "equals": {"x": 1, "y": null}}, {"pointer": "/b~1c", "equals": "z"}], "on_mismatch": "permanent"}"#;
    assert_eq!(body_outcome(both, r#"{"a": [{"y": null, "x": 1}], "b/c": "z"}"#), Outcome::Success);
    assert_eq!(body_outcome(both, r#"{"a": [{"y": null, "x": 1}], "b/c": "w"}"#), Outcome::Permanent);
    assert_eq!(body_outcome(r#"{"body": {"pointer": "", "equals": []}}"#, "[]"), Outcome::Success);
    assert_eq!(outcome(both, 500), Outcome::Retryable);
}

#[test]
fn a_body_that_cannot_be_checked_is_a_mismatch() {
    let ok = r#"{"body": {"pointer": "/ok", "equals": true}}"#;
    let Exchange::Response(mut cut) = response(200, r#"{"ok": true}"#) else { panic!("a response") };
    cut.truncated = true;
    assert!(judge(ok, Exchange::Response(cut)).reason.contains("too long"));
    let deep = format!("{}{}", "[".repeat(50_000), "]".repeat(50_000));
    assert!(judge(ok, response(200, deep)).reason.contains("levels deep"));
}

#[test]
fn a_bad_config_is_refused_with_the_rule_it_breaks() {
    for (json, text) in [
        (r#"{"expect": []}"#, "`expect` must name at least one status"),
        (r#"{"expect": [99]}"#, "from 100 to 599"),
        (r#"{"expect": "2yy"}"#, "`2yy` is not a status"),
        (r#"{"expect": true}"#, "a status such as 204"),
        (r#"{"expected": 200}"#, "unknown field `expected`"),
        (r#"{"body": {"pointer": "ok", "equals": 1}}"#, "begins with `/`"),
        (r#"{"body": {"pointer": "/ok"}}"#, "missing field `equals`"),
        (r#"{"body": [{"pointer": "/ok", "equals": 1, "not": 2}]}"#, "unknown field `not`"),
        (r#"{"on_mismatch": "success"}"#, "unknown variant `success`"),
    ] {
        let refused = testing::config::<ExpectedStatus>(json).expect_err(json);
        assert!(refused.contains(text), "{json}: {refused}");
    }
}

#[test]
fn the_examples_and_the_schema_hold() {
    let examples: Vec<&str> = testing::json_blocks(include_str!("../README.md")).collect();
    assert!(examples.len() >= 4);
    for example in examples {
        assert!(testing::config::<ExpectedStatus>(example).is_ok(), "{example}");
    }
    let schema: serde_json::Value = serde_json::from_str(ExpectedStatus::CONFIG_SCHEMA).expect("JSON");
    assert_eq!(schema["additionalProperties"], false);
}
