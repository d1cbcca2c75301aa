//! Reads times in RFC 3339, strictly, for every interface that takes times.
//!
//! The grammar is that of RFC 3339, section 5.6, with its notes: `t`, `z` and a space between date and time are accepted. Other forms of ISO
//! 8601, leap seconds, and time zones in brackets (RFC 9557) are refused, each with a hint: a text that is read as another time than its
//! author meant would run a job early or late.

use std::fmt;

use jiff::civil::DateTime;
use jiff::tz::Offset;

use super::UnixMs;

/// Reason why a text is not a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeError {
    /// The text does not begin like a date.
    Form,
    /// The day, hour, minute or second does not exist.
    Range,
    /// The time of day is missing.
    DateOnly,
    /// The seconds are missing.
    SecondsMissing,
    /// The offset is missing.
    OffsetMissing,
    /// The offset has no colon, no minutes, or seconds.
    OffsetForm,
    /// The offset is more than 23:59.
    OffsetRange,
    /// The second is 60.
    LeapSecond,
    /// A time zone follows in brackets.
    Zone,
    /// The fraction does not follow a dot, or has no digits.
    Fraction,
}

impl fmt::Display for TimeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Form => "the format must be RFC 3339, such as `2026-11-20T10:00:00Z`",
            Self::Range => "there is no such date or time of day",
            Self::DateOnly => "the time of day and the offset are missing; append such as `T00:00:00Z`",
            Self::SecondsMissing => "the seconds are missing",
            Self::OffsetMissing => "the offset is missing; append `Z` for UTC, or an offset such as `+01:00`",
            Self::OffsetForm => "an offset is `Z`, or hours and minutes with a colon, such as `+05:30`",
            Self::OffsetRange => "an offset is within -23:59 and +23:59",
            Self::LeapSecond => "leap seconds are not supported; seconds are 00 to 59",
            Self::Zone => "a time zone in brackets is not supported; give the offset alone",
            Self::Fraction => "a fraction of a second follows a dot, such as `.250`",
        })
    }
}

impl std::error::Error for TimeError {}

/// Reads a time.
///
/// A fraction of a millisecond is rounded up, so that nothing is early.
///
/// # Errors
/// Returns the [`TimeError`] that describes the first fault.
pub fn parse(text: &str) -> Result<UnixMs, TimeError> {
    let mut rest = text;
    let year = number(&mut rest, 4).ok_or(TimeError::Form)?;
    let month = after(&mut rest, "-").and_then(|()| number(&mut rest, 2)).ok_or(TimeError::Form)?;
    let day = after(&mut rest, "-").and_then(|()| number(&mut rest, 2)).ok_or(TimeError::Form)?;
    if rest.is_empty() {
        return Err(TimeError::DateOnly);
    }
    after(&mut rest, "Tt ").ok_or(TimeError::Form)?;
    let hour = number(&mut rest, 2).ok_or(TimeError::Form)?;
    let minute = after(&mut rest, ":").and_then(|()| number(&mut rest, 2)).ok_or(TimeError::Form)?;
    after(&mut rest, ":").ok_or(TimeError::SecondsMissing)?;
    let second = number(&mut rest, 2).ok_or(TimeError::Form)?;
    let ms = fraction(&mut rest)?;
    let offset_minutes = offset(&mut rest)?;
    if second == 60 {
        return Err(TimeError::LeapSecond);
    }
    let small = |number: i16| i8::try_from(number).unwrap_or(-1);
    let local = DateTime::new(year, small(month), small(day), small(hour), small(minute), small(second), 0);
    let local = Offset::UTC.to_timestamp(local.map_err(|_| TimeError::Range)?).map_err(|_| TimeError::Range)?;
    Ok(UnixMs(local.as_millisecond() + ms - i64::from(offset_minutes) * 60_000))
}

/// Removes one of these characters from the front.
fn after(rest: &mut &str, one_of: &str) -> Option<()> {
    *rest = rest.strip_prefix(|c: char| one_of.contains(c))?;
    Some(())
}

/// Removes a number with this many digits from the front.
fn number(rest: &mut &str, digits: usize) -> Option<i16> {
    let text = rest.get(..digits).filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))?;
    *rest = &rest[digits..];
    text.parse().ok()
}

/// Removes a fraction of a second from the front, if there is one, and returns it in milliseconds.
fn fraction(rest: &mut &str) -> Result<i64, TimeError> {
    let Some(behind) = rest.strip_prefix('.') else {
        return if rest.starts_with(',') { Err(TimeError::Fraction) } else { Ok(0) };
    };
    let digits = behind.bytes().take_while(u8::is_ascii_digit).count();
    let (fraction, behind) = behind.split_at(digits);
    if digits == 0 {
        return Err(TimeError::Fraction);
    }
    *rest = behind;
    let digit = |index: usize| fraction.as_bytes().get(index).map_or(0, |digit| i64::from(digit - b'0'));
    let finer = fraction.bytes().skip(3).any(|digit| digit != b'0');
    Ok(digit(0) * 100 + digit(1) * 10 + digit(2) + i64::from(finer))
}

/// Reads the offset, with which the text ends, in minutes.
fn offset(rest: &mut &str) -> Result<i16, TimeError> {
    if rest.is_empty() || rest.starts_with('[') {
        return Err(if rest.is_empty() { TimeError::OffsetMissing } else { TimeError::Zone });
    }
    let minutes = if after(rest, "Zz").is_some() {
        0
    } else {
        let sign = if rest.starts_with('-') { -1 } else { 1 };
        after(rest, "+-").ok_or(TimeError::Form)?;
        let hours = number(rest, 2).ok_or(TimeError::OffsetForm)?;
        let minutes = after(rest, ":").and_then(|()| number(rest, 2)).ok_or(TimeError::OffsetForm)?;
        if hours > 23 || minutes > 59 {
            return Err(TimeError::OffsetRange);
        }
        sign * (hours * 60 + minutes)
    };
    match rest.chars().next() {
        None => Ok(minutes),
        Some('[') => Err(TimeError::Zone),
        Some(':' | '.' | '0'..='9') => Err(TimeError::OffsetForm),
        Some(_) => Err(TimeError::Form),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_the_grammar_and_its_notes_allow_is_read() {
        for (text, same) in [
            ("2026-11-20T10:00:00Z", "2026-11-20T10:00:00.000Z"),
            ("2026-11-20t10:00:00z", "2026-11-20T10:00:00.000Z"),
            ("2026-11-20 10:00:00Z", "2026-11-20T10:00:00.000Z"),
            ("2026-11-20T12:00:01.25+02:00", "2026-11-20T10:00:01.250Z"),
            ("2026-11-20T10:00:00-00:00", "2026-11-20T10:00:00.000Z"),
            ("2026-11-20T00:00:00+23:59", "2026-11-19T00:01:00.000Z"),
            ("2026-11-20T00:00:00-23:59", "2026-11-20T23:59:00.000Z"),
            ("2028-02-29T00:00:00Z", "2028-02-29T00:00:00.000Z"),
            ("0000-01-01T00:00:00+23:59", "-000001-12-31T00:01:00.000Z"),
            ("2026-11-20T10:00:00.1234567890123456789Z", "2026-11-20T10:00:00.124Z"),
            ("2026-11-20T10:00:00.1230000000000000000Z", "2026-11-20T10:00:00.123Z"),
            ("2026-11-20T23:59:59.9990001Z", "2026-11-21T00:00:00.000Z"),
            ("1969-12-31T23:59:59.0001Z", "1969-12-31T23:59:59.001Z"),
        ] {
            assert_eq!(parse(text).map(|at| at.to_string()), Ok(same.to_owned()), "{text}");
        }
    }

    #[test]
    fn everything_else_is_refused_with_a_hint() {
        for (text, error) in [
            ("2027-12-31T23:59:60Z", TimeError::LeapSecond),
            ("2027-06-01T12:00:60Z", TimeError::LeapSecond),
            ("2027-06-01T12:00:61Z", TimeError::Range),
            ("2027-03-01T10:00:00+05:00[Europe/Berlin]", TimeError::Zone),
            ("2027-03-01T10:00:00+05:00[!Europe/Berlin]", TimeError::Zone),
            ("2027-03-01T10:00:00[Europe/Berlin]", TimeError::Zone),
            ("2027-03-01T10:00:00Z[UTC]", TimeError::Zone),
            ("2027-03-01T10:00:00+25:00", TimeError::OffsetRange),
            ("2027-03-01T10:00:00+24:00", TimeError::OffsetRange),
            ("2027-03-01T10:00:00+23:60", TimeError::OffsetRange),
            ("2027-03-01T15:30:00+0530", TimeError::OffsetForm),
            ("2027-03-01T15:30:00+05", TimeError::OffsetForm),
            ("2027-03-01T15:30:00+5:30", TimeError::OffsetForm),
            ("2027-03-01T10:00:00+00:00:30", TimeError::OffsetForm),
            ("2027-03-01T10:00:00,5Z", TimeError::Fraction),
            ("2027-03-01T10:00:00.Z", TimeError::Fraction),
            ("20270301T100000Z", TimeError::Form),
            ("2027-03-01T10:00:00", TimeError::OffsetMissing),
            ("2027-03-01 10:00:00.5", TimeError::OffsetMissing),
            ("2027-03-01T10:00Z", TimeError::SecondsMissing),
            ("2027-03-01", TimeError::DateOnly),
            ("2027-02-29T10:00:00Z", TimeError::Range),
            ("2027-13-01T10:00:00Z", TimeError::Range),
            ("2027-03-01T24:00:00Z", TimeError::Range),
            ("2027-03-01T10:00:00Z ", TimeError::Form),
            (" 2027-03-01T10:00:00Z", TimeError::Form),
            ("2027-03-01T10:00:00 Z", TimeError::Form),
            ("2027-03-01T10:00:00UTC", TimeError::Form),
            ("2027-060T10:00:00Z", TimeError::Form),
            ("2027-W09-1T10:00:00Z", TimeError::Form),
            ("+002027-03-01T10:00:00Z", TimeError::Form),
            ("2027-03-01_10:00:00Z", TimeError::Form),
            ("２０２７-03-01T10:00:00Z", TimeError::Form),
            ("2027-03-01T10:00:00\u{2212}05:00", TimeError::Form),
            ("tomorrow", TimeError::Form),
            ("", TimeError::Form),
        ] {
            assert_eq!(parse(text), Err(error), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(ms in -62_000_000_000_000_i64..250_000_000_000_000) {
            let text = UnixMs(ms).to_string();
            if !text.starts_with('-') {
                prop_assert_eq!(parse(&text), Ok(UnixMs(ms)), "{}", text);
            }
        }

        #[test]
        fn no_text_is_too_much(text in r"[0-9:.,+\-TtZz\[ \]a-zé]{0,40}|[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}.{0,12}") {
            // A lenient reader accepts the same text with the same meaning.
            if let (Ok(at), Ok(lenient)) = (parse(&text), text.parse::<jiff::Timestamp>()) {
                prop_assert!((0..=1).contains(&(at.0 - lenient.as_millisecond())), "{}", text);
            }
        }
    }
}
