//! Durations as text: one rule for the API, the configuration, the command line and plugins' configs.
//!
//! A duration is a number with its unit, or several, such as `90s`, `1h 30m` or `1.5h`; the numbers are exact to the nanosecond. Months
//! and years are refused: they have no fixed length, and `M` is read as minutes by some and as months by others.

use std::fmt;
use std::time::Duration;

/// The names of a unit, the shortest first, and its length in nanoseconds.
pub type Unit = (&'static [&'static str], u64);

const SECOND: u64 = 1_000_000_000;
const DAY: u64 = 86_400 * SECOND;

/// The units of durations, the longest first.
pub const UNITS: [Unit; 8] = [
    (&["w", "wk", "wks", "week", "weeks"], 7 * DAY),
    (&["d", "day", "days"], DAY),
    (&["h", "hr", "hrs", "hour", "hours"], 3_600 * SECOND),
    (&["m", "min", "mins", "minute", "minutes"], 60 * SECOND),
    (&["s", "sec", "secs", "second", "seconds"], SECOND),
    (&["ms", "msec", "millis"], 1_000_000),
    (&["us", "µs", "usec"], 1_000),
    (&["ns", "nsec", "nanos"], 1),
];

/// What others take for months and years.
const CALENDAR_UNITS: [&str; 8] = ["M", "mo", "month", "months", "y", "yr", "year", "years"];

const NANOS_PER_MILLI: u32 = 1_000_000;

/// The most digits of a number, before and after the point, so that no sum overflows.
const DIGITS: usize = 18;

/// Why a text is no duration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DurationError {
    /// There is nothing.
    Empty,
    /// Something else than a number stands where one must begin.
    Number,
    /// A number has no unit.
    UnitMissing,
    /// A unit is a month or a year, or looks like one.
    Calendar(String),
    /// There is no such unit.
    UnknownUnit(String),
    /// It cannot be told exactly, or is longer than any duration.
    Range,
}

impl fmt::Display for DurationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("it is empty"),
            Self::Number => f.write_str("a number with its unit is needed, such as `90s`"),
            Self::UnitMissing => f.write_str("the unit is missing, such as in `90s`"),
            Self::Calendar(unit) => write!(
                f,
                "`{unit}` is not taken: months and years have no fixed length; write days, such as `30d`, or `m` for minutes"
            ),
            Self::UnknownUnit(unit) => {
                let known = UNITS.map(|(names, _)| names[0]).join(", ");
                write!(f, "`{}` is not a unit; the units are {known}", unit.escape_debug())
            }
            Self::Range => f.write_str("it is too long, or finer than a nanosecond"),
        }
    }
}

impl std::error::Error for DurationError {}

/// Reads a duration.
///
/// # Errors
/// Returns what is wrong with it.
pub fn parse(text: &str) -> Result<Duration, DurationError> {
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(DurationError::Empty);
    }
    let mut nanos = 0_u128;
    while !rest.is_empty() {
        let whole = take(&mut rest, |c| c.is_ascii_digit());
        let fraction = match rest.strip_prefix('.') {
            Some(behind) => {
                rest = behind;
                Some(take(&mut rest, |c| c.is_ascii_digit()))
            }
            None => None,
        };
        if whole.is_empty() || fraction == Some("") {
            return Err(DurationError::Number);
        }
        rest = rest.trim_start();
        let unit = unit_of(take(&mut rest, char::is_alphabetic), rest)?;
        nanos = nanos.saturating_add(length(whole, fraction.unwrap_or(""), unit)?);
        rest = rest.trim_start();
    }
    // A division of 128 bits is a call of a thousand instructions in a guest: few durations need one.
    if let Ok(nanos) = u64::try_from(nanos) {
        return Ok(Duration::from_nanos(nanos));
    }
    let seconds = u64::try_from(nanos / u128::from(SECOND)).map_err(|_| DurationError::Range)?;
    let nanos = u32::try_from(nanos % u128::from(SECOND)).map_err(|_| DurationError::Range)?;
    Ok(Duration::new(seconds, nanos))
}

/// Reads a duration and rounds it up to whole milliseconds, which is as fine as anything is measured.
///
/// # Errors
/// Returns what is wrong with it, in words that go on after the text.
pub fn parse_millis(text: &str) -> Result<Duration, String> {
    let parsed =
        parse(text).map_err(|error| format!("is not a duration such as `250ms`, `10s` or `1h 30m`: {error}"))?;
    let finer = parsed.subsec_nanos() % NANOS_PER_MILLI;
    let rest = if finer == 0 { 0 } else { NANOS_PER_MILLI - finer };
    Ok(parsed.saturating_add(Duration::from_nanos(u64::from(rest))))
}

/// Takes the characters from the front of a text that belong to something.
fn take<'t>(rest: &mut &'t str, belongs: impl Fn(char) -> bool) -> &'t str {
    let (taken, behind) = rest.split_at(rest.find(|c: char| !belongs(c)).unwrap_or(rest.len()));
    *rest = behind;
    taken
}

fn unit_of(name: &str, behind: &str) -> Result<u64, DurationError> {
    if name.is_empty() {
        let is_over = behind.is_empty() || behind.starts_with(|c: char| c.is_ascii_digit());
        return Err(if is_over { DurationError::UnitMissing } else { DurationError::Number });
    }
    if let Some((_, nanos)) = UNITS.iter().find(|(names, _)| names.contains(&name)) {
        return Ok(*nanos);
    }
    if CALENDAR_UNITS.contains(&name) {
        return Err(DurationError::Calendar(name.to_owned()));
    }
    Err(DurationError::UnknownUnit(name.to_owned()))
}

/// A number of units in nanoseconds.
fn length(whole: &str, fraction: &str, unit: u64) -> Result<u128, DurationError> {
    if fraction.is_empty()
        && let Some(nanos) = whole.parse().ok().and_then(|number: u64| number.checked_mul(unit))
    {
        return Ok(u128::from(nanos));
    }
    let (fraction, unit) = (fraction.trim_end_matches('0'), u128::from(unit));
    if whole.trim_start_matches('0').len() > DIGITS || fraction.len() > DIGITS {
        return Err(DurationError::Range);
    }
    let number = |digits: &str| digits.bytes().fold(0_u128, |number, digit| number * 10 + u128::from(digit - b'0'));
    let scale = fraction.bytes().fold(1_u128, |scale, _| scale * 10);
    let part = number(fraction) * unit;
    if !part.is_multiple_of(scale) {
        return Err(DurationError::Range);
    }
    Ok(number(whole) * unit + part / scale)
}

/// Writes a duration in the units that [`parse`] reads: `1day 2h`, `1h 30m`, `250ms`, `0s`.
#[must_use]
pub fn format(duration: Duration) -> Text {
    Text(duration)
}

/// See [`format()`].
#[derive(Clone, Copy, Debug)]
pub struct Text(Duration);

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, nanos) = (self.0.as_secs(), self.0.subsec_nanos());
        let days = seconds / 86_400;
        let parts = [
            (days, if days == 1 { "day" } else { "days" }),
            (seconds / 3_600 % 24, "h"),
            (seconds / 60 % 60, "m"),
            (seconds % 60, "s"),
            (u64::from(nanos / 1_000_000), "ms"),
            (u64::from(nanos / 1_000 % 1_000), "us"),
            (u64::from(nanos % 1_000), "ns"),
        ];
        if self.0.is_zero() {
            return f.write_str("0s");
        }
        let mut space = "";
        for (number, unit) in parts.into_iter().filter(|(number, _)| *number > 0) {
            write!(f, "{space}{number}{unit}")?;
            space = " ";
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn numbers_with_units_are_added_up() {
        for (text, nanos) in [
            ("250ms", 250 * MS),
            ("90s", 90_000 * MS),
            ("1h 30m", 5_400_000 * MS),
            ("1h30m", 5_400_000 * MS),
            (" 2 days ", 172_800_000 * MS),
            ("1.5h", 5_400_000 * MS),
            ("0.25s", 250 * MS),
            ("1w", 604_800_000 * MS),
            ("0s", 0),
            ("5us 3ns", 5_003),
            ("7µs", 7_000),
            ("1hr 2mins 3secs 4msec", 3_723_004 * MS),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_nanos(nanos)), "{text}");
        }
    }

    #[test]
    fn every_name_of_every_unit_is_read_and_no_name_means_two() {
        let mut seen = std::collections::HashSet::new();
        for (names, nanos) in UNITS {
            for name in names {
                assert_eq!(
                    parse(&format!("3{name}")).map(|duration| duration.as_nanos()),
                    Ok(3 * u128::from(nanos)),
                    "{name}"
                );
                assert!(seen.insert(*name) && !CALENDAR_UNITS.contains(name), "{name}");
            }
        }
    }

    #[test]
    fn months_and_years_are_refused_by_name() {
        for text in ["5M", "1 month", "2months", "1mo", "1y", "3 years", "1yr", "1h 5M"] {
            let error = parse(text).unwrap_err();
            assert!(matches!(error, DurationError::Calendar(_)), "{text}: {error:?}");
            assert!(error.to_string().contains("days, such as `30d`"), "{error}");
        }
    }

    #[test]
    fn what_is_no_duration_says_why() {
        for (text, error) in [
            ("", DurationError::Empty),
            ("  ", DurationError::Empty),
            ("soon", DurationError::Number),
            ("-5s", DurationError::Number),
            ("+5s", DurationError::Number),
            ("1.s", DurationError::Number),
            ("1,5s", DurationError::Number),
            ("5", DurationError::UnitMissing),
            ("1h 5", DurationError::UnitMissing),
            ("5S", DurationError::UnknownUnit("S".to_owned())),
            ("2 fortnights", DurationError::UnknownUnit("fortnights".to_owned())),
            ("0.5ns", DurationError::Range),
            ("99999999999999999999s", DurationError::Range),
            ("999999999999999999w 999999999999999999w", DurationError::Range),
        ] {
            assert_eq!(parse(text), Err(error), "{text}");
        }
        // The largest number of seconds, and then the second that it has no room for.
        assert!(parse("184467440737095516s 1000000000ns").is_ok());
    }

    #[test]
    fn a_duration_is_written_as_it_is_read() {
        for (text, nanos) in [
            ("0s", 0),
            ("1h 30m", 5_400_000 * MS),
            ("1day", 86_400_000 * MS),
            ("366days 1s 250ms", 31_622_401_250 * MS),
            ("1us 2ns", 1_002),
        ] {
            assert_eq!(format(Duration::from_nanos(nanos)).to_string(), text);
            assert_eq!(parse(text), Ok(Duration::from_nanos(nanos)), "{text}");
        }
    }

    #[test]
    fn milliseconds_are_whole() {
        assert_eq!(parse_millis("1.5s"), Ok(Duration::from_millis(1_500)));
        assert_eq!(parse_millis("1500us"), Ok(Duration::from_millis(2)));
        assert_eq!(parse_millis("1ns"), Ok(Duration::from_millis(1)));
        assert!(parse_millis("5M").unwrap_err().contains("`M` is not taken"));
    }
}
