//! Reads expressions: crontab(5) with five fields, the same with seconds in front, `@hourly` and its like, `@every`.
//!
//! The fields are read here, so that what is wrong can be named, and handed to the crate `cron` as plain lists of numbers; it
//! knows the calendar. Two things that crontab says and the crate does not are translated: the numbers of weekdays, and that a
//! restricted day of the month and a restricted day of the week mean either, not both.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use chrono::{Datelike as _, NaiveDate, Timelike as _};
use jiff::civil::DateTime;

/// The longest expression, in bytes. All sixty minutes, one by one, take 169.
const EXPRESSION_LEN: usize = 512;

/// The shortest and the longest period of `@every`.
const SHORTEST_EVERY: Duration = Duration::from_secs(1);
const LONGEST_EVERY: Duration = Duration::from_secs(3_660 * 86_400);

/// The crate knows no year before 1970.
const BEFORE_ALL: DateTime = DateTime::constant(1969, 12, 31, 23, 59, 59, 0);

/// Shorthands and what they stand for.
const SHORTHANDS: [(&str, &str); 7] = [
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
    ("@monthly", "0 0 1 * *"),
    ("@weekly", "0 0 * * 0"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@hourly", "0 * * * *"),
];

/// Why an expression cannot be used, in one sentence that names the field.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadExpression(String);

/// When, in local time or in elapsed time.
#[derive(Clone, Debug)]
pub enum Expression {
    /// A local time matches if it matches any of these; there are one or two.
    Calendar(Vec<cron::Schedule>),
    /// Again and again after this time.
    Every(Duration),
}

impl FromStr for Expression {
    type Err = BadExpression;

    fn from_str(text: &str) -> Result<Self, BadExpression> {
        if text.len() > EXPRESSION_LEN {
            return Err(BadExpression(format!("an expression has at most {EXPRESSION_LEN} bytes")));
        }
        let text = text.trim();
        if !text.starts_with('@') {
            return calendar(text);
        }
        if let Some(period) = text.strip_prefix("@every").filter(|rest| rest.starts_with(char::is_whitespace)) {
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
    /// The first local time after `local` that matches, to the second; none after the year 2100.
    #[must_use]
    pub fn next_local(&self, local: DateTime) -> Option<DateTime> {
        let Self::Calendar(schedules) = self else { return None };
        let after = to_chrono(local.max(BEFORE_ALL))?.and_utc();
        let next = schedules.iter().filter_map(|schedule| schedule.after(&after).next()).min()?;
        from_chrono(next.naive_utc())
    }
}

fn to_chrono(local: DateTime) -> Option<chrono::NaiveDateTime> {
    let unsigned = |value: i8| u32::try_from(value).unwrap_or(0);
    NaiveDate::from_ymd_opt(i32::from(local.year()), unsigned(local.month()), unsigned(local.day()))?.and_hms_opt(
        unsigned(local.hour()),
        unsigned(local.minute()),
        unsigned(local.second()),
    )
}

fn from_chrono(local: chrono::NaiveDateTime) -> Option<DateTime> {
    let signed = |value: u32| i8::try_from(value).unwrap_or(0);
    let year = i16::try_from(local.year()).ok()?;
    let (month, day) = (signed(local.month()), signed(local.day()));
    DateTime::new(year, month, day, signed(local.hour()), signed(local.minute()), signed(local.second()), 0).ok()
}

fn every(period: &str) -> Result<Expression, BadExpression> {
    let parsed = humantime::parse_duration(period).map_err(|_| {
        BadExpression(format!("`{}` is not a period such as `@every 90s` or `@every 1h 30m`", period.escape_debug()))
    })?;
    if parsed < SHORTEST_EVERY || parsed > LONGEST_EVERY {
        let (least, most) = (humantime::format_duration(SHORTEST_EVERY), humantime::format_duration(LONGEST_EVERY));
        return Err(BadExpression(format!("the period of @every is from {least} to {most}")));
    }
    Ok(Expression::Every(parsed))
}

/// The numbers that a field can have.
struct Field {
    name: &'static str,
    least: u32,
    most: u32,
    names: &'static [&'static str],
}

const fn numbers(name: &'static str, least: u32, most: u32) -> Field {
    Field { name, least, most, names: &[] }
}

/// The names of months, the first of which is 1.
const MONTHS: [&str; 12] = [
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
];

/// The names of weekdays, the first of which is 0.
const WEEKDAYS: [&str; 7] = ["sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday"];

/// How many letters of a name are enough.
const NAME_LETTERS: usize = 3;

/// The fields in the order in which they are written; the first may be left out.
const FIELDS: [Field; 6] = [
    numbers("second", 0, 59),
    numbers("minute", 0, 59),
    numbers("hour", 0, 23),
    numbers("day of month", 1, 31),
    Field { name: "month", least: 1, most: 12, names: &MONTHS },
    // Sunday is both 0 and 7.
    Field { name: "day of week", least: 0, most: 7, names: &WEEKDAYS },
];

/// Where the days are among [`FIELDS`].
const DAY_OF_MONTH: usize = 3;
const DAY_OF_WEEK: usize = 5;

fn calendar(text: &str) -> Result<Expression, BadExpression> {
    let mut written: Vec<_> = text.split_whitespace().collect();
    let missing = FIELDS.len() - written.len().min(FIELDS.len());
    if written.len() > FIELDS.len() || missing > 1 {
        return Err(BadExpression(format!(
            "an expression has 5 fields (minute, hour, day of month, month, day of week) or 6 (second first), not {}",
            written.len()
        )));
    }
    if missing == 1 {
        written.insert(0, "0");
    }
    let mut sets = [0; FIELDS.len()];
    for (index, field) in FIELDS.iter().enumerate() {
        sets[index] = field
            .read(written[index])
            .map_err(|error| BadExpression(format!("field {} ({}): {error}", index + 1 - missing, field.name)))?;
    }
    // Sunday is 0 for crontab; the crate counts weekdays from 1.
    let week = sets[DAY_OF_WEEK];
    sets[DAY_OF_WEEK] = ((week | week >> 7) & 0x7f) << 1;
    let restricted = |index: usize| !written[index].starts_with(['*', '?']);
    let mut schedules = Vec::new();
    if restricted(DAY_OF_MONTH) && restricted(DAY_OF_WEEK) {
        schedules.push(schedule(&sets, Some(DAY_OF_WEEK))?);
        schedules.push(schedule(&sets, Some(DAY_OF_MONTH))?);
    } else {
        schedules.push(schedule(&sets, None)?);
    }
    let expression = Expression::Calendar(schedules);
    // From here to the end of 2100 every day of every year is met on every weekday.
    if expression.next_local(DateTime::constant(2000, 1, 1, 0, 0, 0, 0)).is_none() {
        let (day, month) = (DAY_OF_MONTH + 1 - missing, DAY_OF_MONTH + 2 - missing);
        return Err(BadExpression(format!(
            "fields {day} and {month} (day of month, month): it never happens, because no such month has such a day"
        )));
    }
    Ok(expression)
}

/// The crate's schedule for these numbers, one field of which may be left open.
fn schedule(sets: &[u64; FIELDS.len()], open: Option<usize>) -> Result<cron::Schedule, BadExpression> {
    let field = |(index, set): (usize, &u64)| {
        if open == Some(index) {
            return "*".to_owned();
        }
        let numbers = (0..u64::BITS).filter(|number| set >> number & 1 == 1).map(|number| number.to_string());
        numbers.collect::<Vec<_>>().join(",")
    };
    let text = sets.iter().enumerate().map(field).collect::<Vec<_>>().join(" ");
    text.parse().map_err(|error: cron::error::Error| BadExpression(error.to_string()))
}

impl Field {
    /// The numbers that a field names, as bits.
    fn read(&self, text: &str) -> Result<u64, String> {
        let may_be_open = self.name.starts_with("day");
        if text == "?" && may_be_open {
            return Ok(self.range(self.least, self.most, 1));
        }
        text.split(',').try_fold(0, |set, item| Ok(set | self.item(item)?))
    }

    /// `*`, `a` or `a-b`, perhaps with `/step`.
    fn item(&self, item: &str) -> Result<u64, String> {
        let (base, step) = item.split_once('/').map_or((item, None), |(base, step)| (base, Some(step)));
        let every = step.map(|step| self.step(item, step)).transpose()?;
        if base == "*" {
            return Ok(self.range(self.least, self.most, every.unwrap_or(1)));
        }
        let Some((first, last)) = base.split_once('-') else {
            let first = self.number(item, base)?;
            // `a/n` goes on to the end; the end of a week is Saturday.
            let end = if self.most == 7 { 6.max(first) } else { self.most };
            return Ok(self.range(first, if step.is_some() { end } else { first }, every.unwrap_or(1)));
        };
        let (first, mut end) = (self.number(item, first)?, self.number(item, last)?);
        if end == 0 && self.most == 7 && last.starts_with(char::is_alphabetic) {
            end = 7;
        }
        if first > end {
            return Err(format!("`{}` goes backwards", item.escape_debug()));
        }
        Ok(self.range(first, end, every.unwrap_or(1)))
    }

    fn range(&self, first: u32, last: u32, step: usize) -> u64 {
        (first..=last).step_by(step).fold(0, |set, number| set | 1 << number)
    }

    fn number(&self, item: &str, text: &str) -> Result<u32, String> {
        let named = self.names.iter().position(|name| {
            let short = name.get(..NAME_LETTERS).is_some_and(|short| short.eq_ignore_ascii_case(text));
            short || name.eq_ignore_ascii_case(text)
        });
        let named = named.and_then(|index| u32::try_from(index).ok()).map(|index| index + self.least);
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let number = named.or_else(|| text.parse().ok().filter(|_| digits));
        match number.filter(|number| (self.least..=self.most).contains(number)) {
            Some(number) => Ok(number),
            None if digits => Err(format!("`{}` is not within {self}", item.escape_debug())),
            None => Err(format!(
                "`{}` is not understood; it takes {self}, `*`, ranges (`a-b`), steps (`*/n`, `a-b/n`) and lists (`a,b`)",
                item.escape_debug()
            )),
        }
    }

    fn step(&self, item: &str, text: &str) -> Result<usize, String> {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let step = text.parse().ok().filter(|step| digits && (1..=self.most).contains(step));
        step.and_then(|step| usize::try_from(step).ok())
            .ok_or_else(|| format!("the step of `{}` is not a number from 1 to {}", item.escape_debug(), self.most))
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to {}", self.least, self.most)?;
        match (self.names.first(), self.names.last()) {
            (Some(first), Some(last)) => write!(f, " or {} to {}", &first[..NAME_LETTERS], &last[..NAME_LETTERS]),
            _ => Ok(()),
        }
    }
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
        let every: Expression = "@every 1m 30s".parse().unwrap();
        assert!(matches!(every, Expression::Every(period) if period == Duration::from_secs(90)));
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
            ("* 5-1 * * *", "field 2 (hour): `5-1` goes backwards"),
            ("*/0 * * * *", "field 1 (minute): the step of `*/0` is not a number from 1 to 59"),
            ("1/999999999999 * * * *", "field 1 (minute): the step of"),
            ("99999999999 * * * *", "field 1 (minute): `99999999999` is not within"),
            ("1,,2 * * * *", "field 1 (minute): `` is not understood"),
            ("*5 * * * *", "field 1 (minute): `*5` is not understood"),
            ("? * * * *", "field 1 (minute): `?` is not understood"),
            ("0 0 30 2 *", "fields 3 and 4 (day of month, month): it never happens"),
            ("0 0 31 4,6,9,11 *", "fields 3 and 4 (day of month, month): it never happens"),
            ("0 0 0 31 2 *", "fields 4 and 5 (day of month, month): it never happens"),
            ("* * * *", "has 5 fields (minute, hour, day of month, month, day of week) or 6 (second first), not 4"),
            ("* * * * * * *", "not 7"),
            ("", "not 0"),
            ("@reboot", "`@reboot` is not one of @yearly"),
            ("@every", "`@every` is not one of"),
            ("@every soon", "`soon` is not a period"),
            ("@every 999ms", "from 1s to"),
            ("@every 99999y", "from 1s to"),
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

    /// Some of `least..=most`, as bits.
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
                // Lists restrict both days, so either will do.
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
