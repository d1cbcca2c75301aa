//! A judge for receivers that answer 200 to everything: the body `{"ok": false}` is a failure.

use carillon_policy_sdk::{Attempt, Exchange, Failure, Judge, Plugin, Verdict, export};
use serde::Deserialize;

struct JsonOk;

/// No settings; a config with any is refused.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {}

#[derive(Deserialize)]
struct Answer {
    ok: bool,
}

export!(JsonOk: judge);

impl Plugin for JsonOk {
    type Config = Config;
    const NAME: &'static str = "judge-json-ok";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const SUMMARY: &'static str = "An answer that says it failed has failed, even with status 200.";
    const CONFIG_SCHEMA: &'static str = r#"{"type": "object", "additionalProperties": false}"#;
}

impl Judge for JsonOk {
    fn judge(_attempt: &Attempt, _config: &Config, exchange: Exchange) -> Result<Verdict, Failure> {
        let response = match exchange {
            Exchange::Response(response) => response,
            Exchange::TransportError(error) => return Ok(Verdict::retryable(error.message)),
        };
        if !(200..300).contains(&response.status) {
            return Ok(Verdict::retryable(format!("The status is {}.", response.status)));
        }
        Ok(match serde_json::from_slice(&response.body) {
            Ok(Answer { ok: false }) => Verdict::retryable("The body says that it failed."),
            Ok(Answer { ok: true }) | Err(_) => Verdict::success(format!("The status is {}.", response.status)),
        })
    }
}

#[cfg(test)]
mod tests {
    use carillon_policy_sdk::testing::{attempt, config, response};
    use carillon_policy_sdk::{Judge as _, Outcome};

    use super::JsonOk;

    #[test]
    fn only_a_body_that_says_so_makes_a_200_a_failure() {
        let config = config::<JsonOk>("{}").expect("a good config");
        for (status, body, expected) in [
            (200, r#"{"ok": true}"#, Outcome::Success),
            (200, r#"{"ok": false, "error": "busy"}"#, Outcome::Retryable),
            (200, "thanks", Outcome::Success),
            (500, r#"{"ok": true}"#, Outcome::Retryable),
        ] {
            let verdict = JsonOk::judge(&attempt(1, 0), &config, response(status, body)).expect("a verdict");
            assert_eq!(verdict.outcome, expected, "{status} {body}");
        }
    }
}
