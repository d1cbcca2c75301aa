//! Points in time, in the three forms of the API.

use std::time::Duration;

use serde_json::Value;

use super::error::IntakeError;
use carillon_core::clock::{UnixMs, rfc3339};
use carillon_core::duration;

/// Largest number of Unix seconds, in the year 5138. Numbers of Unix milliseconds are larger from 1973 on.
const MAX_SECONDS: f64 = 1e11;

/// Largest rounding error of a float of this size, in milliseconds.
const INEXACTNESS_MS: f64 = 0.001;

/// Point in time, as a client gives it. Only for the description of the API: times are read from JSON values.
#[derive(utoipa::ToSchema)]
#[schema(examples("2026-11-20T10:00:00Z", "+90s", 1_795_168_800))]
#[serde(untagged)]
pub enum TimeInput {
    /// RFC 3339 with an offset, or `+` and a duration from now, such as `+90s`.
    Text(String),
    /// Unix seconds.
    Seconds(f64),
}

/// Parses a point in time: RFC 3339, Unix seconds, or `+` and a duration from `now`. A time in the past becomes `now`.
///
/// # Errors
/// Returns [`IntakeError`] if the value has none of these forms, or is further ahead than `horizon`.
pub fn run_at(value: Option<&Value>, now: UnixMs, horizon: Duration) -> Result<UnixMs, IntakeError> {
    let invalid = |detail: String| IntakeError::invalid("/run_at", detail);
    let given = value.filter(|value| !value.is_null());
    let at = given.map_or(Ok(now), |value| time(value, now)).map_err(invalid)?;
    if at > now.plus(horizon) {
        let most = duration::format(horizon);
        return Err(invalid(format!("the time must be at most {most} ahead (`engine.horizon`)")));
    }
    Ok(at.max(now))
}

/// Parses a point in time in one of the three forms, past or future.
///
/// # Errors
/// Returns a sentence that explains the error, if the value has none of the forms.
pub fn time(value: &Value, now: UnixMs) -> Result<UnixMs, String> {
    match value {
        Value::String(text) => parse_time(text, now),
        Value::Number(seconds) => {
            let number = seconds.as_f64().filter(|seconds| seconds.is_finite());
            number.map_or_else(|| Err("the number is not a time".to_owned()), of_seconds)
        }
        _ => {
            Err("a time must be a string in RFC 3339, a number of Unix seconds, or a string such as `+90s`".to_owned())
        }
    }
}

/// Converts a number of Unix seconds.
fn of_seconds(seconds: f64) -> Result<UnixMs, String> {
    if seconds.abs() > MAX_SECONDS {
        let hint = "divide it by 1000";
        return Err(format!(
            "`{seconds}` is too large for a number of Unix seconds and looks like milliseconds; {hint}"
        ));
    }
    let ms = seconds * 1_000.0;
    // A float is seldom exactly the millisecond that was written.
    let whole = if (ms - ms.round()).abs() < INEXACTNESS_MS { ms.round() } else { ms.ceil() };
    #[expect(clippy::cast_possible_truncation, reason = "it is neither small nor large")]
    let at = UnixMs(whole as i64);
    Ok(at)
}

/// Returns whether a time is relative to now.
pub fn is_relative(value: Option<&Value>) -> bool {
    match value {
        None | Some(Value::Null) => true,
        Some(Value::String(text)) => text.starts_with('+'),
        Some(_) => false,
    }
}

fn parse_time(text: &str, now: UnixMs) -> Result<UnixMs, String> {
    if let Some(delay) = text.strip_prefix('+') {
        let delay = duration::parse(delay);
        return delay.map(|delay| now.plus(delay)).map_err(|error| {
            format!("`{}` is not a duration such as `+90s`, `+6h` or `+2d`: {error}", text.escape_debug())
        });
    }
    rfc3339::parse(text).map_err(|error| {
        format!(
            "`{}` is not a time such as `2026-11-20T10:00:00.250Z`, `+90s` or a number of Unix seconds: {error}",
            text.escape_debug()
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const NOW: UnixMs = UnixMs(1_795_168_800_000);
    const HORIZON: Duration = Duration::from_secs(3_660 * 86_400);

    fn at(value: Value) -> Result<i64, String> {
        run_at(Some(&value), NOW, HORIZON).map(|at| at.0 - NOW.0).map_err(|error| format!("{error:?}"))
    }

    #[test]
    fn times_come_in_three_forms() {
        assert_eq!(at(json!("2026-11-20T10:00:00.250Z")), Ok(250));
        assert_eq!(at(json!("2026-11-20T12:00:01+02:00")), Ok(1_000));
        assert_eq!(at(json!(1_795_168_802)), Ok(2_000));
        assert_eq!(at(json!(1_795_168_800.5)), Ok(500));
        assert_eq!(at(json!(1_795_168_800.123)), Ok(123), "to the millisecond");
        assert_eq!(at(json!("+90s")), Ok(90_000));
        assert_eq!(at(json!("+2d")), Ok(2 * 86_400_000));
        assert_eq!(at(json!(null)), Ok(0));
    }

    #[test]
    fn a_fraction_of_a_millisecond_is_never_early() {
        assert_eq!(at(json!("2026-11-20T10:00:00.250001Z")), Ok(251));
        assert_eq!(at(json!("+1us")), Ok(1));
    }

    #[test]
    fn the_past_is_now_and_ten_years_are_not_too_far() {
        assert_eq!(at(json!("1970-01-01T00:00:00Z")), Ok(0));
        assert_eq!(at(json!(-5)), Ok(0));
        assert!(at(json!("2036-11-20T10:00:00Z")).is_ok());
    }

    #[test]
    fn a_refused_time_carries_a_hint() {
        for (value, hint) in [
            (json!("2027-03-01T10:00:00"), "the offset is missing; append `Z`"),
            (json!("2027-03-01T10:00:60Z"), "leap seconds are not supported"),
            (json!("2027-03-01T10:00:00+01:00[Europe/Berlin]"), "brackets"),
            (json!("+1M"), "months and years have no fixed length"),
            (json!("+1y"), "months and years have no fixed length"),
            (json!(1_803_895_200_000_i64), "looks like milliseconds"),
            (json!(1_803_895_200_000.5), "looks like milliseconds"),
            (json!(-1_803_895_200_000_i64), "looks like milliseconds"),
            (json!("+3700d"), "3660days ahead"),
        ] {
            let error = at(value.clone()).unwrap_err();
            assert!(error.contains(hint), "{value}: {error}");
        }
    }

    #[test]
    fn absurd_times_are_refused() {
        for absurd in [
            json!("9999-12-31T23:59:59Z"),
            json!(1e300),
            json!("+99999y"),
            json!("+1"),
            json!("+"),
            json!("tomorrow"),
            json!(true),
            json!({}),
            json!(9_223_372_036_854_775_807_i64),
            json!("+584942417355y"),
        ] {
            assert!(at(absurd.clone()).is_err(), "{absurd}");
        }
    }
}
