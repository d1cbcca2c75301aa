//! Reads expressions: crontab(5) with five fields, the same with seconds in front, `@hourly` and similar shorthands, `@every`.
//!
//! If both days are restricted, either is enough, as in crontab(5). A star in the hour or the minute makes an expression follow elapsed time,
//! as in Debian's cron: see [`Pace`].

use std::str::FromStr;
use std::time::Duration;

use jiff::civil::DateTime;

use super::calendar::{Calendar, Days, Pace};
use super::fields::{DAY_OF_MONTH, DAY_OF_WEEK, FIELDS, Field, HOUR, MINUTE, MONTH, SECOND};
use crate::duration;

/// Longest expression, in bytes; all sixty minutes, one by one, take 169.
const EXPRESSION_LEN: usize = 512;

/// The shortest and the longest period of `@every`.
const MIN_EVERY: Duration = Duration::from_secs(1);
const MAX_EVERY: Duration = Duration::from_secs(3_660 * 86_400);

/// Word before a period.
const EVERY: &str = "@every";

/// Prefixes that other programs write before the fields for the time zone.
const ZONE_PREFIXES: [&str; 2] = ["CRON_TZ=", "TZ="];

/// From here to the last year, every day of the year falls on every weekday.
const BEFORE_EVERY_DAY: DateTime = DateTime::constant(1999, 12, 31, 23, 59, 59, 0);

/// Shorthands and the expressions that they stand for.
const SHORTHANDS: [(&str, &str); 7] = [
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
    ("@monthly", "0 0 1 * *"),
    ("@weekly", "0 0 * * 0"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@hourly", "0 * * * *"),
];

/// Reason why an expression cannot be used: one sentence that names the field.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadExpression(String);

/// An expression, in local time or in elapsed time.
#[derive(Clone, Debug)]
pub enum Expression {
    /// At local times.
    Calendar(Box<Calendar>),
    /// Repeatedly, with this period.
    Every(Duration),
}

impl FromStr for Expression {
    type Err = BadExpression;

    fn from_str(text: &str) -> Result<Self, BadExpression> {
        if text.len() > EXPRESSION_LEN {
            return Err(BadExpression(format!("the expression must have at most {EXPRESSION_LEN} bytes")));
        }
        let text = text.trim();
        if let Some(prefix) = ZONE_PREFIXES.into_iter().find(|prefix| text.starts_with(prefix)) {
            return Err(zone_in_front(&text[prefix.len()..]));
        }
        if !text.starts_with('@') {
            return calendar(text);
        }
        if let Some((word, period)) = text.split_once(char::is_whitespace)
            && word.eq_ignore_ascii_case(EVERY)
        {
            return every(period.trim());
        }
        match SHORTHANDS.iter().find(|(name, _)| name.eq_ignore_ascii_case(text)) {
            Some((_, fields)) => calendar(fields),
            None => {
                let known = SHORTHANDS.map(|(name, _)| name).join(", ");
                Err(BadExpression(format!("`{}` is not one of {known} and `@every <period>`", text.escape_debug())))
            }
        }
    }
}

impl Expression {
    /// Returns the first matching local time after `local`, to the second; None after the year 2100.
    #[must_use]
    pub fn next_local(&self, local: DateTime) -> Option<DateTime> {
        match self {
            Self::Calendar(calendar) => calendar.next_after(local),
            Self::Every(_) => None,
        }
    }
}

fn zone_in_front(rest: &str) -> BadExpression {
    let (zone, fields) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    BadExpression(format!(
        "the time zone has a field of its own: set `time_zone` to `{}`, and `cron` to `{}`",
        zone.escape_debug(),
        fields.trim().escape_debug()
    ))
}

fn every(period: &str) -> Result<Expression, BadExpression> {
    let parsed = duration::parse_millis(period)
        .map_err(|error| BadExpression(format!("`{}`, the period of `@every`, {error}", period.escape_debug())))?;
    if parsed < MIN_EVERY || parsed > MAX_EVERY {
        let (least, most) = (duration::format(MIN_EVERY), duration::format(MAX_EVERY));
        return Err(BadExpression(format!("the period of `@every` must be from {least} to {most}")));
    }
    Ok(Expression::Every(parsed))
}

fn calendar(text: &str) -> Result<Expression, BadExpression> {
    let mut written: Vec<_> = text.split_whitespace().collect();
    let missing = FIELDS.len() - written.len().min(FIELDS.len());
    if written.len() > FIELDS.len() || missing > 1 {
        return Err(BadExpression(format!(
            "an expression must have 5 fields (minute, hour, day of month, month, day of week) or 6 (second first), not {}",
            written.len()
        )));
    }
    if missing == 1 {
        written.insert(0, "0");
    }
    let calendar = Calendar {
        second: read(&written, missing, SECOND, Field::read)?,
        minute: read(&written, missing, MINUTE, Field::read)?,
        hour: read(&written, missing, HOUR, Field::read)?,
        days_of_month: read(&written, missing, DAY_OF_MONTH, Field::read_days_of_month)?,
        month: read(&written, missing, MONTH, Field::read)?,
        days_of_week: read(&written, missing, DAY_OF_WEEK, Field::read_days_of_week)?,
        days: days(written[DAY_OF_MONTH], written[DAY_OF_WEEK]),
        pace: pace(written[HOUR], written[MINUTE]),
    };
    if calendar.next_after(BEFORE_EVERY_DAY).is_none() {
        let (day, month) = (DAY_OF_MONTH + 1 - missing, MONTH + 1 - missing);
        return Err(BadExpression(format!(
            "fields {day} and {month} (day of month, month) never match: no such month has such a day"
        )));
    }
    Ok(Expression::Calendar(Box::new(calendar)))
}

/// Reads one of the fields; an error names the field.
fn read<T>(
    written: &[&str],
    missing: usize,
    index: usize,
    read: impl Fn(&Field, &str) -> Result<T, String>,
) -> Result<T, BadExpression> {
    let field = &FIELDS[index];
    read(field, written[index])
        .map_err(|error| BadExpression(format!("field {} ({}): {error}", index + 1 - missing, field.name)))
}

/// Returns `Either` if both days are restricted, that is, if neither field begins with a star.
fn days(of_month: &str, of_week: &str) -> Days {
    let is_restricted = |text: &str| !text.starts_with(['*', '?']);
    if is_restricted(of_month) && is_restricted(of_week) { Days::Either } else { Days::Both }
}

/// Returns the pace: ranges and lists name times, while `*` and `*/n` follow elapsed time.
fn pace(hour: &str, minute: &str) -> Pace {
    let is_star = |text: &str| text == "*" || text.strip_prefix("*/").is_some_and(|step| !step.contains(','));
    if is_star(hour) || is_star(minute) { Pace::Elapsed } else { Pace::Fixed }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::civil::date;
    use proptest::prelude::*;

    fn next(text: &str, after: &str, count: usize) -> Vec<String> {
        let expression: Expression = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
        let mut local: DateTime = after.parse().unwrap();
        let mut step = || {
            local = expression.next_local(local)?;
            Some(local.to_string())
        };
        std::iter::from_fn(&mut step).take(count).collect()
    }

    fn refused(text: &str) -> String {
        text.parse::<Expression>().expect_err(text).to_string()
    }

    #[test]
    fn five_fields_are_those_of_crontab_and_six_have_seconds() {
        assert_eq!(next("30 4 * * *", "2026-03-01", 2), ["2026-03-01T04:30:00", "2026-03-02T04:30:00"]);
        assert_eq!(
            next("*/20 30 4 * * *", "2026-03-01", 4)[1..],
            ["2026-03-01T04:30:20", "2026-03-01T04:30:40", "2026-03-02T04:30:00"]
        );
        assert_eq!(next("0 0 29 feb ?", "2026-03-01", 2), ["2028-02-29T00:00:00", "2032-02-29T00:00:00"]);
    }

    #[test]
    fn weekdays_are_numbered_from_sunday_which_is_0_and_7() {
        // 2026-03-01 is a Sunday.
        for sunday in ["0 12 * * 0", "0 12 * * 7", "0 12 * * sun", "0 12 * * SUNDAY", "0 12 ? * 7"] {
            assert_eq!(next(sunday, "2026-03-01", 2), ["2026-03-01T12:00:00", "2026-03-08T12:00:00"], "{sunday}");
        }
        let days = |field: &str| {
            let found = next(&format!("0 0 * * {field}"), "2026-02-28T12:00:00", 7);
            let first = found.iter().filter_map(|at| at.strip_prefix("2026-03-0")?[..1].parse::<u32>().ok());
            first.filter(|day| *day <= 7).map(|day| day - 1).collect::<Vec<_>>()
        };
        assert_eq!(days("mon-fri"), [1, 2, 3, 4, 5]);
        assert_eq!(days("fri-sun"), [0, 5, 6]);
        assert_eq!(days("5-7"), [0, 5, 6]);
        assert_eq!(days("0-7"), [0, 1, 2, 3, 4, 5, 6]);
        assert_eq!(days("*/2"), [0, 2, 4, 6]);
        assert_eq!(days("1/2"), [1, 3, 5]);
        assert_eq!(days("mon-fri/2,6"), [1, 3, 5, 6]);
        assert_eq!(days("7/1"), [0]);
        for sunday in ["sun-sun", "Sunday-Sunday", "0-0", "7-7", "sun-7", "7-sun", "7-0"] {
            let expected: &[u32] = if sunday == "sun-7" { &[0, 1, 2, 3, 4, 5, 6] } else { &[0] };
            assert_eq!(days(sunday), expected, "{sunday}");
        }
        assert_eq!(days("mon-mon"), [1]);
        assert_eq!(days("sun-mon"), [0, 1]);
        assert_eq!(days("sat-mon"), [0, 1, 6]);
        assert_eq!(days("7-2"), [0, 1, 2]);
        assert_eq!(days("5-0"), [0, 5, 6]);
        assert_eq!(days("fri-mon/2"), [0, 5]);
        assert_eq!(days("L"), [6], "the last day of the week");
    }

    #[test]
    fn ranges_go_on_from_the_beginning() {
        let hours = next("0 22-2/2 * * *", "2026-03-01", 4);
        assert_eq!(hours.iter().map(|at| &at[8..13]).collect::<Vec<_>>(), ["01T02", "01T22", "02T00", "02T02"]);
        let months = next("0 0 1 nov-feb *", "2026-03-01", 5);
        assert_eq!(
            months.iter().map(|at| &at[..7]).collect::<Vec<_>>(),
            ["2026-11", "2026-12", "2027-01", "2027-02", "2027-11"]
        );
        let days = next("0 0 30-2 * *", "2026-01-30", 4);
        assert_eq!(days.iter().map(|at| &at[5..10]).collect::<Vec<_>>(), ["01-31", "02-01", "02-02", "03-01"]);
        assert_eq!(next("58-1 0 * * *", "2026-01-01T00:01:00", 2), ["2026-01-01T00:58:00", "2026-01-01T00:59:00"]);
    }

    #[test]
    fn quartz_words_for_days_depend_on_the_month() {
        let days = |text: &str, count| {
            next(text, "2026-01-31T12:00:00", count).iter().map(|at| at[5..10].to_owned()).collect::<Vec<_>>()
        };
        // February 2026 begins on a Sunday and ends on a Saturday.
        assert_eq!(days("0 0 L * *", 3), ["02-28", "03-31", "04-30"]);
        assert_eq!(days("0 0 L-3 * *", 2), ["02-25", "03-28"]);
        assert_eq!(days("0 0 LW * *", 4), ["02-27", "03-31", "04-30", "05-29"]);
        assert_eq!(days("0 0 lw 5 *", 1), ["05-29"], "the 31st is a Sunday");
        assert_eq!(days("0 0 1W * *", 3), ["02-02", "03-02", "04-01"], "a first on a Sunday");
        assert_eq!(days("0 0 1W 8 *", 1), ["08-03"], "a first on a Saturday");
        assert_eq!(days("0 0 15W * *", 3), ["02-16", "03-16", "04-15"], "Sundays");
        assert_eq!(days("0 0 14W 2,3 *", 2), ["02-13", "03-13"], "Saturdays");
        assert_eq!(days("0 0 31W * *", 3), ["03-31", "05-29", "07-31"], "only where there is a 31st");
        assert_eq!(days("0 0 L-1W 5 *", 1), ["05-29"], "the 30th is a Saturday");
        assert_eq!(days("0 0 L-30 * *", 2), ["03-01", "05-01"], "only where there are 31 days");
        assert_eq!(days("0 0 * * 5L", 3), ["02-27", "03-27", "04-24"]);
        assert_eq!(days("0 0 ? * friL", 1), ["02-27"]);
        assert_eq!(days("0 0 * * FRIDAYL", 1), ["02-27"]);
        assert_eq!(days("0 0 * * 7L", 2), ["02-22", "03-29"]);
        assert_eq!(days("0 0 * * 5#2", 2), ["02-13", "03-13"]);
        assert_eq!(days("0 0 * * mon#1", 3), ["02-02", "03-02", "04-06"]);
        assert_eq!(days("0 0 * * 0#5", 2), ["03-29", "05-31"], "only where there are five");
        assert_eq!(days("0 0 1,15,L * *", 4), ["02-01", "02-15", "02-28", "03-01"]);
        assert_eq!(days("0 0 * * 1#1,5L,3", 4), ["02-02", "02-04", "02-11", "02-18"]);
        assert_eq!(days("0 0 L * 1", 3), ["02-02", "02-09", "02-16"], "either day is enough");
        assert_eq!(next("0 0 12 LW * *", "2026-05-01", 1), ["2026-05-29T12:00:00"]);
    }

    #[test]
    fn a_star_in_hour_or_minute_means_that_time_passes() {
        let pace = |text: &str| match text.parse().unwrap() {
            Expression::Calendar(calendar) => calendar.pace,
            Expression::Every(_) => panic!("{text}"),
        };
        for text in ["* * * * *", "*/5 2 * * *", "30 * * * *", "30 */2 * * *", "@hourly", "0 0 * * * *", "1-5 * * * *"]
        {
            assert_eq!(pace(text), Pace::Elapsed, "{text}");
        }
        for text in
            ["30 2 * * *", "* 30 2 * * *", "@daily", "0-59 2 * * *", "0,30 0-23 * * *", "0/15 2 * * *", "*/5,7 2 * * *"]
        {
            assert_eq!(pace(text), Pace::Fixed, "{text}");
        }
    }

    #[test]
    fn two_restricted_days_mean_either_and_a_star_in_front_means_both() {
        let either = next("0 0 13 * fri", "2026-03-01", 5);
        assert_eq!(
            either.iter().map(|at| &at[5..10]).collect::<Vec<_>>(),
            ["03-06", "03-13", "03-20", "03-27", "04-03"]
        );
        let both = next("0 0 */10 * fri", "2026-03-01", 3);
        assert_eq!(both.iter().map(|at| &at[5..10]).collect::<Vec<_>>(), ["05-01", "07-31", "08-21"]);
        assert_eq!(next("0 0 30 2 1", "2026-01-01", 1), ["2026-02-02T00:00:00"], "one of the two is enough");
    }

    #[test]
    fn shorthands_stand_for_what_crontab_says() {
        for (text, first) in [
            ("@yearly", "2027-01-01T00:00:00"),
            ("@annually", "2027-01-01T00:00:00"),
            ("@monthly", "2026-04-01T00:00:00"),
            ("@weekly", "2026-03-15T00:00:00"),
            ("@daily", "2026-03-13T00:00:00"),
            ("@midnight", "2026-03-13T00:00:00"),
            ("@hourly", "2026-03-12T11:00:00"),
            (" @Hourly ", "2026-03-12T11:00:00"),
        ] {
            assert_eq!(next(text, "2026-03-12T10:20:30", 1), [first], "{text}");
        }
        for text in ["@every 1m 30s", "@EVERY 90s", " @Every\t1.5m "] {
            let every: Expression = text.parse().unwrap();
            assert!(matches!(every, Expression::Every(period) if period == Duration::from_secs(90)), "{text}");
        }
    }

    #[test]
    fn an_error_names_the_field_and_what_is_wrong() {
        for (text, expected) in [
            ("60 * * * *", "field 1 (minute): `60` is not within 0 to 59"),
            ("* 24 * * *", "field 2 (hour): `24` is not within 0 to 23"),
            ("0 * 24 * * *", "field 3 (hour): `24` is not within 0 to 23"),
            ("* * 0 * *", "field 3 (day of month): `0` is not within 1 to 31"),
            ("* * * 13 *", "field 4 (month): `13` is not within 1 to 12 or jan to dec"),
            ("* * * * 8", "field 5 (day of week): `8` is not within 0 to 7 or sun to sat"),
            ("* * * * mon,tur", "field 5 (day of week): `tur` is not understood"),
            ("*/0 * * * *", "field 1 (minute): the step of `*/0` is not a number from 1 to 59"),
            ("1/999999999999 * * * *", "field 1 (minute): the step of"),
            ("99999999999 * * * *", "field 1 (minute): `99999999999` is not within"),
            ("1,,2 * * * *", "field 1 (minute): `` is not understood"),
            ("*5 * * * *", "field 1 (minute): `*5` is not understood"),
            ("? * * * *", "field 1 (minute): `?` is not understood"),
            ("0 0 30 2 *", "fields 3 and 4 (day of month, month) never match"),
            ("0 0 31 4,6,9,11 *", "fields 3 and 4 (day of month, month) never match"),
            ("0 0 0 31 2 *", "fields 4 and 5 (day of month, month) never match"),
            (
                "* * * *",
                "must have 5 fields (minute, hour, day of month, month, day of week) or 6 (second first), not 4",
            ),
            ("* * * * * * *", "not 7"),
            ("", "not 0"),
            ("@reboot", "`@reboot` is not one of @yearly"),
            ("@every", "`@every` is not one of"),
            ("@every soon", "`soon`, the period of `@every`, is not a duration"),
            ("@every 5M", "`M` is not taken: months and years have no fixed length"),
            ("@every 1y", "months and years have no fixed length"),
            ("CRON_TZ=Europe/Berlin 0 9 * * *", "set `time_zone` to `Europe/Berlin`, and `cron` to `0 9 * * *`"),
            ("TZ=UTC @daily", "set `time_zone` to `UTC`, and `cron` to `@daily`"),
            ("* L * * *", "field 2 (hour): `L` is not understood"),
            ("0 0 L-31 * *", "field 3 (day of month): `L-31` is not `L-` and a number from 0 to 30"),
            ("0 0 L3 * *", "field 3 (day of month): `L3` is not understood"),
            ("0 0 W * *", "field 3 (day of month): `W` is not understood"),
            ("0 0 32W * *", "field 3 (day of month): `32W` is not within 1 to 31"),
            ("0 0 * * 8L", "field 5 (day of week): `8L` is not within 0 to 7"),
            ("0 0 * * 5#6", "field 5 (day of week): `5#6` is not a weekday, `#` and a number from 1 to 5"),
            ("0 0 * * 5#", "field 5 (day of week): `5#` is not a weekday"),
            ("0 0 * * #2", "field 5 (day of week): `#2` is not understood"),
            ("0 0 * * 5L-6", "field 5 (day of week): `5L-6` is not understood"),
            ("0 0 31W 4 *", "fields 3 and 4 (day of month, month) never match"),
            ("@every 999ms", "from 1s to"),
            ("@every 99999d", "from 1s to"),
            ("@everything", "`@everything` is not one of"),
        ] {
            assert!(refused(text).contains(expected), "{text}: {}", refused(text));
        }
        assert!(refused(&"* ".repeat(300)).contains("at most"));
    }

    #[test]
    fn what_is_past_the_last_year_does_not_happen() {
        assert_eq!(next("0 0 1 1 *", "2099-06-01", 5), ["2100-01-01T00:00:00"]);
        assert!(next("* * * * *", "9999-12-31T23:59:59", 1).is_empty());
        assert_eq!(next("0 0 1 1 *", "-009999-01-01", 1), ["1970-01-01T00:00:00"]);
    }

    /// Generates non-empty subsets of `least..=most`, as bits.
    fn some(least: u32, most: u32) -> impl Strategy<Value = u64> {
        prop_oneof![
            Just((least..=most).fold(0, |set, number| set | 1 << number)),
            prop::collection::vec(least..=most, 1..4)
                .prop_map(|numbers| numbers.into_iter().fold(0, |set, number| set | 1 << number)),
        ]
    }

    fn list(set: u64) -> String {
        let numbers = (0..64).filter(|number| set >> number & 1 == 1).map(|number: u32| number.to_string());
        numbers.collect::<Vec<_>>().join(",")
    }

    proptest! {
        #[test]
        fn no_text_is_too_much(text in r"[@0-9*/,\-?a-zA-Z \tä]{0,60}") {
            if let Ok(expression @ Expression::Calendar(_)) = text.parse::<Expression>() {
                prop_assert!(expression.next_local(date(2000, 1, 1).at(0, 0, 0, 0)).is_some());
            }
        }

        #[test]
        fn no_field_is_too_much(fields in prop::collection::vec(r"[0-9]{1,12}|[*?]|[*0-9]{1,2}(-[0-9]{1,3})?(/[0-9]{1,13})?|[A-Za-z]{3}", 5..7)) {
            drop(fields.join(" ").parse::<Expression>());
        }

        #[test]
        fn local_times_are_those_that_match_field_by_field(
            minutes in some(0, 59), hours in some(0, 23), days in some(1, 31), months in some(1, 12), week in some(0, 6),
            start in 0_i32..20_000,
        ) {
            let text = [minutes, hours, days, months, week].map(list).join(" ");
            let begin = date(1990, 1, 1).checked_add(jiff::Span::new().days(start)).unwrap().at(0, 0, 0, 0);
            let matches = |local: &DateTime| {
                let has = |set: u64, number: i8| set >> number & 1 == 1;
                let weekday = local.weekday().to_sunday_zero_offset();
                // Lists restrict both days, so either day is enough.
                has(minutes, local.minute()) && has(hours, local.hour()) && has(months, local.month())
                    && (has(days, local.day()) || has(week, weekday))
            };
            let minute = jiff::Span::new().minutes(1);
            let expected = begin.series(minute).skip(1).take(3 * 1_440).find(matches);
            let found = text.parse::<Expression>().unwrap().next_local(begin);
            match expected {
                Some(expected) => prop_assert_eq!(found, Some(expected)),
                None => prop_assert!(found.is_none_or(|found| found > begin.checked_add(jiff::Span::new().days(3)).unwrap())),
            }
        }
    }
}
