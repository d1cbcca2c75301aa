//! Durations in a plugin's config.

use std::fmt;
use std::time::Duration;

use serde::de::{Deserialize, Deserializer, Error, Visitor};

use crate::duration_text;

/// A duration in whole milliseconds; in JSON a string such as `"250ms"`, `"15m"` or `"1h 30m"`, or a number of seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Millis(pub u64);

impl fmt::Display for Millis {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        duration_text::format(Duration::from_millis(self.0)).fmt(formatter)
    }
}

impl<'de> Deserialize<'de> for Millis {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(MillisVisitor)
    }
}

struct MillisVisitor;

impl Visitor<'_> for MillisVisitor {
    type Value = Millis;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a duration such as \"250ms\" or \"15m\", or a number of seconds")
    }

    fn visit_u64<E: Error>(self, seconds: u64) -> Result<Millis, E> {
        seconds
            .checked_mul(1_000)
            .map(Millis)
            .ok_or_else(|| E::custom(format_args!("{seconds} s is too long a duration")))
    }

    fn visit_i64<E: Error>(self, seconds: i64) -> Result<Millis, E> {
        let seconds =
            u64::try_from(seconds).map_err(|_| E::custom(format_args!("{seconds} s is a negative duration")))?;
        self.visit_u64(seconds)
    }

    fn visit_f64<E: Error>(self, seconds: f64) -> Result<Millis, E> {
        /// 2^53, up to which a float holds every whole number.
        const MAX_MS: f64 = 9_007_199_254_740_992.0;
        /// How far a float may be from the whole number that it stands for.
        const INEXACTNESS: f64 = 1e-6;
        let millis = (seconds * 1_000.0).round();
        if !(0.0..=MAX_MS).contains(&millis) || seconds < 0.0 {
            return Err(E::custom(format_args!("{seconds} s is a negative or too long a duration")));
        }
        if (seconds * 1_000.0 - millis).abs() > INEXACTNESS * millis.max(1.0) {
            return Err(E::custom(format_args!("{seconds} s is not a whole number of milliseconds")));
        }
        Ok(Millis(millis as u64))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Millis, E> {
        let duration = duration_text::parse(text)
            .map_err(|error| E::custom(format_args!("`{text}` is not a duration such as `2s` or `15m`: {error}")))?;
        if duration.subsec_nanos() % 1_000_000 != 0 {
            return Err(E::custom(format_args!("`{text}` is not a whole number of milliseconds")));
        }
        u64::try_from(duration.as_millis())
            .map(Millis)
            .map_err(|_| E::custom(format_args!("`{text}` is too long a duration")))
    }
}

#[cfg(test)]
mod tests {
    use super::Millis;

    fn parse(json: &str) -> Result<u64, String> {
        serde_json::from_str::<Millis>(json).map(|millis| millis.0).map_err(|error| error.to_string())
    }

    #[test]
    fn texts_and_numbers_of_seconds_are_durations() {
        for (json, millis) in [
            ("\"2s\"", 2_000),
            ("\"250ms\"", 250),
            ("\"15m\"", 900_000),
            ("\"1h 30m\"", 5_400_000),
            ("10", 10_000),
            ("0.25", 250),
            ("1.1", 1_100),
            ("\"1.5h\"", 5_400_000),
            ("0", 0),
        ] {
            assert_eq!(parse(json), Ok(millis), "{json}");
        }
    }

    #[test]
    fn everything_else_is_refused_with_a_reason() {
        for (json, reason) in [
            ("\"2 fortnights\"", "not a duration"),
            ("\"\"", "not a duration"),
            ("\"5us\"", "whole number of milliseconds"),
            ("\"5M\"", "months and years"),
            ("\"1 month\"", "months and years"),
            ("\"1y\"", "months and years"),
            ("0.0005", "whole number of milliseconds"),
            ("-1", "negative"),
            ("-0.5", "negative"),
            ("1e300", "too long"),
            ("18446744073709551615", "too long"),
            ("true", "a duration such as"),
            ("null", "a duration such as"),
        ] {
            let text = parse(json).expect_err(json);
            assert!(text.contains(reason), "{json}: {text}");
        }
    }

    #[test]
    fn a_duration_prints_as_it_is_written() {
        assert_eq!(Millis(900_000).to_string(), "15m");
        assert_eq!(Millis(1_250).to_string(), "1s 250ms");
    }
}
