//! `expected-status`: judges an answer by its status and, if wanted, by values in its JSON body.
//!
//! Invariants: a status counts as expected before it counts as permanent; what is neither is retryable; no answer at all is
//! retryable. A receiver can make an attempt fail, but never the plugin: a body is not parsed when it is nested too deeply.
//!
//! It fails only on a config that does not parse.

mod body;
mod one_or_many;
mod status;

use carillon_policy_sdk::{Attempt, Exchange, Failure, Judge, Plugin, Response, Verdict, export};
use serde::Deserialize;

pub use body::BodyCheck;
pub use one_or_many::OneOrMany;
pub use status::StatusRange;

/// The plugin.
#[derive(Debug)]
pub struct ExpectedStatus;

/// What to make of an answer whose status is right and whose body is not.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum OnMismatch {
    /// Try again.
    #[default]
    Retryable,
    /// No further try can help.
    Permanent,
}

/// See the README for the meaning and the defaults.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The statuses of success.
    pub expect: OneOrMany<StatusRange>,
    /// The statuses after which no try can help.
    pub permanent: OneOrMany<StatusRange>,
    /// What the body must say besides.
    pub body: OneOrMany<BodyCheck>,
    /// What follows if it does not.
    pub on_mismatch: OnMismatch,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            expect: OneOrMany(vec![StatusRange::class(2)]),
            permanent: OneOrMany(Vec::new()),
            body: OneOrMany(Vec::new()),
            on_mismatch: OnMismatch::Retryable,
        }
    }
}

export!(ExpectedStatus: judge);

impl Plugin for ExpectedStatus {
    type Config = Config;

    const NAME: &'static str = "expected-status";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const SUMMARY: &'static str = "Judges an answer by its status and, if wanted, by values in its JSON body.";
    const CONFIG_SCHEMA: &'static str = include_str!("../config.schema.json");

    fn check(config: &Config) -> Result<(), String> {
        if config.expect.0.is_empty() {
            return Err("`expect` must name at least one status, or no attempt could ever succeed.".to_owned());
        }
        config.body.0.iter().try_for_each(BodyCheck::check)
    }
}

impl Judge for ExpectedStatus {
    fn judge(_attempt: &Attempt, config: &Config, exchange: Exchange) -> Result<Verdict, Failure> {
        Ok(match exchange {
            Exchange::Response(response) => verdict(config, &response),
            Exchange::TransportError(error) => {
                Verdict::retryable(format!("No answer: {} ({}).", error.message, error.code))
            }
        })
    }
}

fn verdict(config: &Config, response: &Response) -> Verdict {
    let status = response.status;
    let within = |ranges: &OneOrMany<StatusRange>| ranges.0.iter().any(|range| range.contains(status));
    if !within(&config.expect) {
        let text = format!("The status is {status}, expected was {}.", config.expect.listed());
        return if within(&config.permanent) { Verdict::permanent(text) } else { Verdict::retryable(text) };
    }
    match (body::mismatch(&config.body.0, response), config.on_mismatch) {
        (None, _) => Verdict::success(format!("The status is {status}.")),
        (Some(reason), OnMismatch::Retryable) => Verdict::retryable(reason),
        (Some(reason), OnMismatch::Permanent) => Verdict::permanent(reason),
    }
}

#[cfg(test)]
mod tests;
