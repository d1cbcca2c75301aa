//! `backoff`: fixed, linear, exponential and tabulated retry delays.
//!
//! Invariants: no delay exceeds `max` unless the receiver asked for a longer one; nothing is tried earlier than the receiver
//! asked; the same attempt gives the same delay everywhere. All arithmetic saturates: no attempt number overflows it.
//!
//! It fails only on a config that does not parse; whatever else is wrong with a config, `check` finds.

mod config;

use carillon_policy_sdk::{Attempt, Decision, Failure, Millis, Past, Plugin, Retry, Verdict, export, mix64};

pub use config::{Config, JitterMode, Kind};

/// The attribute that carries the receiver's `Retry-After`, in milliseconds.
const RETRY_AFTER: &str = "retry-after-ms";

/// The plugin.
#[derive(Debug)]
pub struct Backoff;

export!(Backoff: retry);

impl Plugin for Backoff {
    type Config = Config;

    const NAME: &'static str = "backoff";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const SUMMARY: &'static str =
        "Waits a fixed, linear, exponential or tabulated time between attempts, with jitter, and gives up in the end.";
    const CONFIG_SCHEMA: &'static str = include_str!("../config.schema.json");

    fn check(config: &Config) -> Result<(), String> {
        config.check()
    }
}

impl Retry for Backoff {
    fn next(attempt: &Attempt, config: &Config, _verdict: &Verdict, history: &[Past]) -> Result<Decision, Failure> {
        if attempt.number >= config.max_attempts {
            return Ok(Decision::GiveUp(format!(
                "All {} attempts that `max_attempts` allows have been made.",
                config.max_attempts
            )));
        }
        let own = jittered(plain_delay(config, attempt.number), config, attempt);
        let after_ms = own.max(asked_delay(config, attempt));
        Ok(match exceeded(config, attempt, history, after_ms) {
            Some(limit) => Decision::GiveUp(format!(
                "The next attempt would start more than {limit} after the first, which `max_elapsed` forbids."
            )),
            None => Decision::AfterMs(after_ms),
        })
    }
}

/// The delay after the n-th attempt in milliseconds, capped, without jitter.
fn plain_delay(config: &Config, number: u32) -> u64 {
    let earlier = number.saturating_sub(1);
    let delay = match config.kind {
        Kind::Fixed => config.base_ms(),
        Kind::Linear => config.offset_ms().saturating_add(config.base_ms().saturating_mul(u64::from(number))),
        Kind::Exponential => {
            let growth = config.factor().powi(i32::try_from(earlier).unwrap_or(i32::MAX));
            // A float cast saturates, and 0 times infinity, which is no number, becomes 0.
            config.offset_ms().saturating_add((config.base_ms() as f64 * growth) as u64)
        }
        Kind::Table => {
            let table = config.table.as_deref().unwrap_or_default();
            let place = usize::try_from(earlier).unwrap_or(usize::MAX).min(table.len().saturating_sub(1));
            table.get(place).map_or(0, |delay| delay.0)
        }
    };
    delay.min(config.max_ms())
}

/// Moves a delay by the attempt's own share of the jitter. What would go beyond `max` is taken off instead of added, so that
/// delays at the cap stay spread.
fn jittered(delay: u64, config: &Config, attempt: &Attempt) -> u64 {
    if config.jitter == 0.0 {
        return delay;
    }
    let share = unit(attempt);
    let factor = match config.jitter_mode {
        JitterMode::Symmetric => 1.0 + config.jitter * (2.0 * share - 1.0),
        JitterMode::Shorten => 1.0 - config.jitter * (1.0 - share),
    };
    let moved = (delay as f64 * factor) as u64;
    let over = moved.saturating_sub(config.max_ms());
    moved.min(config.max_ms()).saturating_sub(over)
}

/// A number from 0 up to, but not including, 1, drawn from the attempt's seed and number.
fn unit(attempt: &Attempt) -> f64 {
    const BITS: u32 = f64::MANTISSA_DIGITS;
    let word = mix64(u64::from(attempt.seed) << 32 | u64::from(attempt.number));
    (word >> (u64::BITS - BITS)) as f64 / (1u64 << BITS) as f64
}

/// How long the receiver asked to be left alone, in milliseconds; 0 if it did not, or if that does not count.
fn asked_delay(config: &Config, attempt: &Attempt) -> u64 {
    let asked = attempt.attribute(RETRY_AFTER).filter(|_| config.honour_retry_after);
    // The host writes a number. A warning of what is none would be an import, and with it two more core instances in each call.
    asked.and_then(|asked| asked.parse().ok()).map_or(0, |asked: u64| asked.min(config.max_retry_after.0))
}

/// The limit that an attempt after `after_ms` would exceed, if any.
///
/// The clock starts with the first attempt, not with the acceptance of a job that may have been scheduled for next week. Once
/// the first attempt has dropped out of the history (of 100) only the acceptance is left to count from.
fn exceeded(config: &Config, attempt: &Attempt, history: &[Past], after_ms: u64) -> Option<Millis> {
    let limit = config.max_elapsed?;
    let first_ms = match history.first() {
        Some(first) if first.number <= 1 => first.started_ms,
        None if attempt.number <= 1 => attempt.run_at_ms,
        _ => attempt.created_ms,
    };
    let next_ms = attempt.now_ms.saturating_add(after_ms);
    (next_ms.saturating_sub(first_ms) > limit.0).then_some(limit)
}

#[cfg(test)]
mod tests;
