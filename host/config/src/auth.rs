//! `[auth]`: access to the API, and the strength of the token that the configuration names.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use serde::Deserialize;

use super::checks::Checks;
use super::values::{self, Period};

/// Strength that a configured token must have, in bits.
const MIN_TOKEN_BITS: f64 = 128.0;

/// Number of different characters that a configured token must have.
const MIN_DIFFERENT: usize = 8;

/// Number of visible ASCII characters that are no letters or digits.
const SYMBOLS: u32 = 32;

/// Largest number of failures of one address in a second, and at once.
const MAX_FAILURES: u32 = 1_000_000;

/// `[auth]`: access to the API.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Auth {
    /// Whether requests need a token; may be false only if `server.listen` is a loopback address.
    pub enabled: bool,
    /// Token of an operator; if unset, one is made at the first start.
    #[serde(deserialize_with = "values::unless_empty")]
    pub admin_token: Option<String>,
    /// Longest validity of tokens that are made from now on; unbounded if unset.
    #[serde(deserialize_with = "values::read_unless_empty")]
    pub max_token_age: Option<Period>,
    /// Number of failures to authenticate of one address that are answered with 401 in a second; further ones get 429.
    pub failure_rate: u32,
    /// Number of failures of one address that are answered with 401 at once.
    pub failure_burst: u32,
}

impl fmt::Debug for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let admin_token = self.admin_token.as_ref().map(|_| "…");
        f.debug_struct("Auth")
            .field("enabled", &self.enabled)
            .field("admin_token", &admin_token)
            .field("max_token_age", &self.max_token_age)
            .field("failure_rate", &self.failure_rate)
            .field("failure_burst", &self.failure_burst)
            .finish()
    }
}

impl Auth {
    pub(super) fn check(&self, checks: &mut Checks) {
        if let Some(token) = &self.admin_token {
            let message = "the token must be visible ASCII characters, and as hard to guess as 128 random bits: `openssl rand -hex 32` makes one";
            checks.require(is_strong(token), "auth.admin_token", message);
        }
        if let Some(age) = self.max_token_age {
            checks.period("auth.max_token_age", age, Duration::from_secs(1));
        }
        checks.between("auth.failure_rate", self.failure_rate, 1, MAX_FAILURES);
        checks.between("auth.failure_burst", self.failure_burst, 1, MAX_FAILURES);
    }
}

/// Returns whether nobody can guess a token, as far as its characters tell. Words that are not repeated count as random characters do.
fn is_strong(token: &str) -> bool {
    let bytes = token.as_bytes();
    let different: BTreeSet<u8> = bytes.iter().copied().collect();
    let steps = bytes.windows(2).filter(|pair| pair[0].abs_diff(pair[1]) <= 1).count();
    bytes.iter().all(u8::is_ascii_graphic)
        && different.len() >= MIN_DIFFERENT
        // `0123…` and `aabb…` are sequences.
        && steps * 2 < bytes.len()
        && bits_of(bytes) >= MIN_TOKEN_BITS
}

/// Estimates the strength of a token in bits: of its characters, as many as do not repeat earlier ones, each one of those of its kinds.
fn bits_of(token: &[u8]) -> f64 {
    let period = (1..token.len()).find(|period| token.iter().zip(&token[*period..]).all(|(one, other)| one == other));
    let length = period.unwrap_or(token.len());
    let has = |is_kind: fn(&u8) -> bool| token.iter().any(is_kind);
    let is_hexadecimal = token.iter().all(u8::is_ascii_hexdigit);
    let alphabet = if is_hexadecimal && has(u8::is_ascii_alphabetic) {
        16
    } else {
        let kinds = [
            (has(u8::is_ascii_digit), 10),
            (has(u8::is_ascii_lowercase), 26),
            (has(u8::is_ascii_uppercase), 26),
            (has(u8::is_ascii_punctuation), SYMBOLS),
        ];
        kinds.into_iter().filter(|(is_used, _)| *is_used).map(|(_, count)| count).sum()
    };
    let length = u32::try_from(length).unwrap_or(u32::MAX);
    f64::from(length) * f64::from(alphabet).log2()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_tokens_are_strong() {
        for token in [
            "9f86d081884c7d659a2feaa0c55ad015",
            "a3bf4f1b2b0b822cd15d6c15b0f00a089f86d081884c7d659a2feaa0c55ad015",
            "Zk3vQ8mYx1RrT5uWb7NcEg",
            "3141592653589793238462643383279502884197",
        ] {
            assert!(is_strong(token), "{token}");
        }
    }

    #[test]
    fn tokens_that_can_be_guessed_are_not_strong() {
        for token in [
            "",
            "short",
            "Tr0ub4dor&3-Tr0u",
            "9f86d081884c7d659a2feaa0c55ad01",
            "1234567890123456",
            "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
            "changemechangemechangemechangeme",
            "0123456789abcdef0123456789abcdef",
            "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ",
            "9f86d081 884c7d659a2feaa0c55ad015",
            "9f86d081884c7d659a2feaa0c55ad01é",
        ] {
            assert!(!is_strong(token), "{token}");
        }
    }
}
