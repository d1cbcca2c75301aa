//! The delays of each kind, the seeds' presets, the limits, and the properties that no config may break.

use carillon_policy_sdk::testing::{self, attempt, attribute, retryable};
use carillon_policy_sdk::{Attempt, Decision, Outcome, Past, Plugin as _, Retry as _};
use proptest::prelude::*;

use super::{Backoff, Config};

fn config(json: &str) -> Config {
    testing::config::<Backoff>(json).expect("a good config")
}

fn refusal(json: &str) -> String {
    testing::config::<Backoff>(json).expect_err("a bad config")
}

fn next(attempt: &Attempt, config: &Config, history: &[Past]) -> Decision {
    Backoff::next(attempt, config, &retryable(), history).expect("a decision")
}

/// The delay after the n-th attempt, in milliseconds.
fn delay(config: &Config, number: u32) -> u64 {
    delay_of(config, &attempt(number, 0))
}

fn delay_of(config: &Config, attempt: &Attempt) -> u64 {
    match next(attempt, config, &[]) {
        Decision::AfterMs(delay) => delay,
        Decision::GiveUp(reason) => panic!("gave up after attempt {}: {reason}", attempt.number),
    }
}

fn reason(attempt: &Attempt, config: &Config, history: &[Past]) -> String {
    match next(attempt, config, history) {
        Decision::GiveUp(reason) => reason,
        Decision::AfterMs(delay) => panic!("tries again after {delay} ms"),
    }
}

fn past(number: u32, started_ms: u64) -> Past {
    Past { number, started_ms, finished_ms: started_ms + 20, outcome: Outcome::Retryable, status: Some(503) }
}

fn seconds(config: &Config, numbers: std::ops::RangeInclusive<u32>) -> Vec<u64> {
    numbers.map(|number| delay(config, number) / 1_000).collect()
}

#[test]
fn the_defaults_double_from_two_seconds_four_times() {
    let defaults = config("{}");
    assert_eq!(seconds(&defaults, 1..=4), [2, 4, 8, 16]);
    assert!(reason(&attempt(5, 0), &defaults, &[]).contains("max_attempts"));
}

#[test]
fn linear_grows_by_its_base() {
    let linear = config(r#"{"kind": "linear", "base": "3s", "offset": 1, "max": "11s", "max_attempts": 9}"#);
    assert_eq!(seconds(&linear, 1..=5), [4, 7, 10, 11, 11]);
}

#[test]
fn the_last_of_a_table_repeats() {
    let table = config(r#"{"kind": "table", "table": ["250ms", 2, "1h"], "max_attempts": 9}"#);
    assert_eq!([1, 2, 3, 4, 8].map(|number| delay(&table, number)), [250, 2_000, 3_600_000, 3_600_000, 3_600_000]);
}

#[test]
fn doppler_waits_the_same_time_and_calls_once_more_than_it_retries() {
    let doppler = config(r#"{"kind": "fixed", "base": 10, "max_attempts": 6}"#);
    assert_eq!(seconds(&doppler, 1..=5), [10; 5]);
    assert!(reason(&attempt(6, 0), &doppler, &[]).contains("All 6 attempts"));
}

#[test]
fn deferrable_is_two_plus_two_to_the_n() {
    let deferrable =
        config(r#"{"kind": "exponential", "base": "2s", "offset": "2s", "max": "900s", "max_attempts": 20}"#);
    assert_eq!(seconds(&deferrable, 1..=11), [4, 6, 10, 18, 34, 66, 130, 258, 514, 900, 900]);
}

#[test]
fn callme_doubles_from_100_ms_and_shortens_by_up_to_half() {
    let callme = config(
        r#"{"kind": "exponential", "base": "100ms", "jitter": 0.5, "jitter_mode": "shorten", "max_attempts": 4}"#,
    );
    for seed in 0..2_000 {
        for (number, full) in [(1, 100), (2, 200), (3, 400)] {
            let delay = delay_of(&callme, &Attempt { seed, ..attempt(number, 0) });
            assert!((full / 2..full).contains(&delay), "{delay} of {full}");
        }
    }
    assert!(reason(&attempt(4, 0), &callme, &[]).contains("All 4 attempts"));
}

#[test]
fn poussetaches_multiplies_by_four_twelve_times_with_thirty_percent_either_way() {
    let table: Vec<u64> = (0..11).map(|power| 4u64.pow(power)).collect();
    let poussetaches =
        config(&format!(r#"{{"kind": "table", "table": {table:?}, "jitter": 0.3, "max_attempts": 12}}"#));
    for (number, plain) in (1..=11).zip(&table) {
        let plain_ms = *plain as f64 * 1_000.0;
        let share: Vec<f64> = (0..1_000)
            .map(|seed| delay_of(&poussetaches, &Attempt { seed, ..attempt(number, 0) }) as f64 / plain_ms)
            .collect();
        assert!(share.iter().all(|share| (0.699..1.3).contains(share)));
        assert!(
            share.iter().any(|share| *share < 0.75) && share.iter().any(|share| *share > 1.25),
            "attempt {number} is not spread"
        );
    }
    assert!(reason(&attempt(12, 0), &poussetaches, &[]).contains("All 12 attempts"));
}

#[test]
fn no_attempt_number_overflows() {
    for json in [
        r#"{"max_attempts": 4294967295, "max": "300000000000s"}"#,
        r#"{"max_attempts": 4294967295, "base": 0}"#,
        r#"{"max_attempts": 4294967295, "factor": 1e300, "offset": "366d"}"#,
        r#"{"max_attempts": 4294967295, "kind": "linear", "base": "365000000d", "jitter": 1}"#,
        r#"{"max_attempts": 4294967295, "kind": "table", "table": ["1s"], "max_elapsed": "365000000d"}"#,
    ] {
        let config = config(json);
        for number in [0, 1, 2, 64, 1_100, u32::MAX - 1] {
            assert!(
                delay_of(
                    &config,
                    &Attempt { now_ms: u64::MAX, created_ms: u64::MAX, run_at_ms: u64::MAX, ..attempt(number, 0) }
                ) <= config.max_ms()
            );
        }
    }
}

#[test]
fn a_delay_is_never_shorter_than_the_receiver_asked() {
    let asked =
        |number, value: &str| Attempt { attributes: vec![attribute("retry-after-ms", value)], ..attempt(number, 0) };
    let capped = config(r#"{"max": "4s", "max_retry_after": "1m"}"#);
    assert_eq!(delay_of(&capped, &asked(1, "30000")), 30_000);
    assert_eq!(delay_of(&capped, &asked(3, "500")), 4_000);
    assert_eq!(delay_of(&capped, &asked(1, "3600000")), 60_000);
    assert_eq!(delay_of(&capped, &asked(1, &u64::MAX.to_string())), 60_000);
    assert_eq!(delay_of(&capped, &asked(1, "soon")), 2_000);
    assert_eq!(delay_of(&config("{}"), &asked(1, "36000000")), 3_600_000);
    assert_eq!(delay_of(&config(r#"{"honour_retry_after": false}"#), &asked(1, "30000")), 2_000);
}

#[test]
fn the_time_in_all_counts_from_the_first_attempt() {
    let hour = config(r#"{"kind": "fixed", "base": "10m", "max_elapsed": "1h", "max_attempts": 1000}"#);
    let week_ms = 7 * 24 * 3_600_000;
    let late = |number, minutes: u64| attempt(number, week_ms + minutes * 60_000);
    let first = past(1, attempt(1, week_ms).now_ms);
    assert_eq!(delay_of(&hour, &late(1, 0)), 600_000);
    assert_eq!(next(&late(6, 50), &hour, std::slice::from_ref(&first)), Decision::AfterMs(600_000));
    let text = reason(&late(7, 51), &hour, &[first]);
    assert!(text.contains("max_elapsed") && text.contains("1h"), "{text}");
    assert!(reason(&late(150, 40), &hour, &[past(50, late(50, 10).now_ms)]).contains("max_elapsed"));
}

#[test]
fn a_bad_config_is_refused_with_the_rule_it_breaks() {
    for (json, text) in [
        (r#"{"kind": "table"}"#, "needs `table`"),
        (r#"{"kind": "table", "table": []}"#, "needs `table`"),
        (r#"{"kind": "table", "table": [1], "base": 2}"#, "`base` belongs to"),
        (r#"{"table": [1, 2]}"#, "`table` belongs to `kind` \"table\""),
        (r#"{"kind": "fixed", "factor": 3}"#, "`factor` belongs to"),
        (r#"{"kind": "fixed", "offset": 3}"#, "`offset` belongs to"),
        (r#"{"factor": 0.5}"#, "`factor` must"),
        (r#"{"jitter": 1.5}"#, "`jitter` must"),
        (r#"{"jitter": -0.1}"#, "`jitter` must"),
        (r#"{"max_attempts": 0}"#, "`max_attempts`"),
        (r#"{"max_attempts": -1}"#, "expected u32"),
        (r#"{"kind": "random"}"#, "unknown variant `random`"),
        (r#"{"bse": "2s"}"#, "unknown field `bse`"),
        (r#"{"base": "2 moons"}"#, "is not a duration"),
        ("[]x", "trailing"),
    ] {
        let refused = refusal(json);
        assert!(refused.contains(text), "{json}: {refused}");
    }
}

#[test]
fn the_examples_and_the_schema_hold() {
    let examples: Vec<&str> = testing::json_blocks(include_str!("../README.md")).collect();
    assert!(examples.len() >= 4);
    for example in examples {
        assert!(testing::config::<Backoff>(example).is_ok(), "{example}");
    }
    let schema: serde_json::Value = serde_json::from_str(Backoff::CONFIG_SCHEMA).expect("JSON");
    assert_eq!(schema["additionalProperties"], false);
}

prop_compose! {
    fn any_config()(
        kind in 0..4usize, base in 0u64..100_000_000, factor in 1.0f64..10.0, max in 0u64..100_000_000, jitter in 0.0f64..=1.0, shorten: bool,
    ) -> Config {
        let own = ["\"base\": BASE", "\"base\": BASE, \"offset\": 3", "\"base\": BASE, \"factor\": FACTOR", "\"table\": [1, BASE]"][kind];
        let own = own.replace("BASE", &format!("\"{base}ms\"")).replace("FACTOR", &factor.to_string());
        let kind = ["fixed", "linear", "exponential", "table"][kind];
        let mode = if shorten { "shorten" } else { "symmetric" };
        config(&format!(r#"{{"kind": "{kind}", {own}, "max": "{max}ms", "jitter": {jitter}, "jitter_mode": "{mode}", "max_attempts": 4294967295}}"#))
    }
}

proptest! {
    #[test]
    fn delays_stay_within_their_bounds_and_repeat(config in any_config(), number in 1u32.., seed: u32) {
        let attempt = Attempt { seed, number: number.min(u32::MAX - 1), ..attempt(1, 0) };
        let delay = delay_of(&config, &attempt);
        prop_assert_eq!(delay, delay_of(&config, &attempt));
        prop_assert!(delay <= config.max_ms());
        let plain = super::plain_delay(&config, attempt.number);
        let least = (plain as f64 * (1.0 - config.jitter)).floor() as u64;
        prop_assert!(delay >= least.saturating_sub(1), "{} < {}", delay, least);
    }

    #[test]
    fn what_the_receiver_asks_is_a_lower_bound(config in any_config(), asked in 0u64..3_600_000) {
        let attempt = Attempt { attributes: vec![attribute("retry-after-ms", &asked.to_string())], ..attempt(3, 0) };
        prop_assert!(delay_of(&config, &attempt) >= asked);
    }
}
