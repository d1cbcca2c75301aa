//! Reads the fields of an expression: crontab(5)'s numbers, names, ranges, steps and lists, and Quartz's words for days.

use std::fmt;

use super::calendar::{MonthDay, WeekDay};

/// A field, with the numbers that it can have.
pub(super) struct Field {
    pub(super) name: &'static str,
    least: u32,
    most: u32,
    names: &'static [&'static str],
}

const fn numbers(name: &'static str, least: u32, most: u32) -> Field {
    Field { name, least, most, names: &[] }
}

/// Names of months; the first is 1.
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

/// Names of weekdays; the first is 0.
const WEEKDAYS: [&str; 7] = ["sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday"];

/// Number of letters that are enough to identify a name.
const NAME_LETTERS: usize = 3;

/// Sunday, which is also 7 at the end of a range.
const SUNDAY: u32 = 0;
const SUNDAY_AT_THE_END: u32 = 7;
const SATURDAY: u32 = 6;

/// Largest number of weeks that a month has a part of.
const WEEKS: u32 = 5;

/// Largest distance of a day from the last one of its month.
const BEFORE_LAST: u32 = 30;

/// Fields in the order in which they are written; the first may be left out.
pub(super) const FIELDS: [Field; 6] = [
    numbers("second", 0, 59),
    numbers("minute", 0, 59),
    numbers("hour", 0, 23),
    numbers("day of month", 1, 31),
    Field { name: "month", least: 1, most: 12, names: &MONTHS },
    Field { name: "day of week", least: SUNDAY, most: SUNDAY_AT_THE_END, names: &WEEKDAYS },
];

/// Positions of the fields in [`FIELDS`].
pub(super) const SECOND: usize = 0;
pub(super) const MINUTE: usize = 1;
pub(super) const HOUR: usize = 2;
pub(super) const DAY_OF_MONTH: usize = 3;
pub(super) const MONTH: usize = 4;
pub(super) const DAY_OF_WEEK: usize = 5;

impl Field {
    /// Returns the numbers that a field names, as bits.
    pub(super) fn read(&self, text: &str) -> Result<u64, String> {
        text.split(',').try_fold(0, |set, item| Ok(set | self.item(item)?))
    }

    /// Returns the days of a month that a field names: numbers as bits, and days that depend on the month.
    pub(super) fn read_days_of_month(&self, text: &str) -> Result<(u64, Vec<MonthDay>), String> {
        if text == "?" {
            return Ok((self.all(1), Vec::new()));
        }
        let (mut set, mut words) = (0, Vec::new());
        for item in text.split(',') {
            match self.word_of_month(item)? {
                Some(word) => words.push(word),
                None => set |= self.item(item)?,
            }
        }
        Ok((set, words))
    }

    /// Returns the days of a week that a field names: numbers from Sunday, which is 0, as bits, and days that depend on the month.
    pub(super) fn read_days_of_week(&self, text: &str) -> Result<(u64, Vec<WeekDay>), String> {
        if text == "?" {
            return Ok((self.all(1), Vec::new()));
        }
        let (mut set, mut words) = (0, Vec::new());
        for item in text.split(',') {
            match self.word_of_week(item)? {
                Some(word) => words.push(word),
                None if item.eq_ignore_ascii_case("l") => set |= 1 << SATURDAY,
                None => set |= self.item(item)?,
            }
        }
        Ok(((set | set >> SUNDAY_AT_THE_END) & 0x7f, words))
    }

    /// Reads `L`, `L-3`, `LW`, `L-3W` and `15W`.
    fn word_of_month(&self, item: &str) -> Result<Option<MonthDay>, String> {
        let lower = item.to_ascii_lowercase();
        let (day, is_workday) = lower.strip_suffix('w').map_or((lower.as_str(), false), |day| (day, true));
        let Some(before) = day.strip_prefix('l') else {
            if !is_workday {
                return Ok(None);
            }
            return Ok(Some(MonthDay::Workday(self.number(item, day)?)));
        };
        let before = match before.strip_prefix('-') {
            None if before.is_empty() => 0,
            None => return Err(self.not_understood(item)),
            Some(number) => {
                let number = digits(number).filter(|number| *number <= BEFORE_LAST);
                number.ok_or_else(|| {
                    format!("`{}` is not `L-` and a number from 0 to {BEFORE_LAST}", item.escape_debug())
                })?
            }
        };
        Ok(Some(if is_workday { MonthDay::LastWorkday { before } } else { MonthDay::Last { before } }))
    }

    /// Reads `5L`, `friL`, `5#2` and `fri#2`.
    fn word_of_week(&self, item: &str) -> Result<Option<WeekDay>, String> {
        if let Some((day, week)) = item.split_once('#') {
            let week = digits(week).filter(|week| (1..=WEEKS).contains(week));
            let week = week.ok_or_else(|| {
                format!("`{}` is not a weekday, `#` and a number from 1 to {WEEKS}", item.escape_debug())
            })?;
            return Ok(Some(WeekDay::Nth { day: self.number(item, day)? % SUNDAY_AT_THE_END, week }));
        }
        match item.strip_suffix(['L', 'l']) {
            Some(day) if !day.is_empty() => Ok(Some(WeekDay::Last(self.number(item, day)? % SUNDAY_AT_THE_END))),
            _ => Ok(None),
        }
    }

    /// Reads `*`, `a` or `a-b`, with an optional `/step`.
    ///
    /// A range whose end is before its start wraps around to the least number.
    fn item(&self, item: &str) -> Result<u64, String> {
        let (base, step) = item.split_once('/').map_or((item, None), |(base, step)| (base, Some(step)));
        let every = step.map(|step| self.step(item, step)).transpose()?;
        if base == "*" {
            return Ok(self.all(every.unwrap_or(1)));
        }
        let Some((first, last)) = base.split_once('-') else {
            let first = self.number(item, base)?;
            // `a/n` ends at the largest number; the end of a week is Saturday.
            let end = self.last().max(first);
            return Ok(range(first, if step.is_some() { end } else { first }, every.unwrap_or(1)));
        };
        let (first, mut end) = (self.number(item, first)?, self.number(item, last)?);
        let is_week = self.most == SUNDAY_AT_THE_END;
        // Sunday at the end of a range of weekdays is the one after Saturday; `sun-sun` is one day.
        if is_week && end == SUNDAY && first != SUNDAY {
            end = SUNDAY_AT_THE_END;
        }
        if first <= end {
            return Ok(range(first, end, every.unwrap_or(1)));
        }
        let first = if is_week && first == SUNDAY_AT_THE_END { SUNDAY } else { first };
        if first <= end {
            return Ok(range(first, end, every.unwrap_or(1)));
        }
        let around = (first..=self.last()).chain(self.least..=end);
        Ok(around.step_by(every.unwrap_or(1)).fold(0, |set, number| set | 1 << number))
    }

    /// Returns the last number that does not repeat the first one.
    fn last(&self) -> u32 {
        if self.most == SUNDAY_AT_THE_END { SATURDAY } else { self.most }
    }

    fn all(&self, step: usize) -> u64 {
        range(self.least, self.last(), step)
    }

    fn number(&self, item: &str, text: &str) -> Result<u32, String> {
        let named = self.names.iter().position(|name| {
            let short = name.get(..NAME_LETTERS).is_some_and(|short| short.eq_ignore_ascii_case(text));
            short || name.eq_ignore_ascii_case(text)
        });
        let named = named.and_then(|index| u32::try_from(index).ok()).map(|index| index + self.least);
        let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        match named.or_else(|| digits(text)).filter(|number| (self.least..=self.most).contains(number)) {
            Some(number) => Ok(number),
            None if is_number => Err(format!("`{}` is not within {self}", item.escape_debug())),
            None => Err(self.not_understood(item)),
        }
    }

    fn not_understood(&self, item: &str) -> String {
        let words = match self.name {
            "day of month" => ", `L` (the last day), `L-3`, `LW` and `15W` (the working day next to the 15th)",
            "day of week" => ", `5L` (the last Friday) and `5#2` (the second Friday)",
            _ => "",
        };
        format!(
            "`{}` is not understood; it takes {self}, `*`, ranges (`a-b`), steps (`*/n`, `a-b/n`), lists (`a,b`){words}",
            item.escape_debug()
        )
    }

    fn step(&self, item: &str, text: &str) -> Result<usize, String> {
        let step = digits(text).filter(|step| (1..=self.most).contains(step));
        step.and_then(|step| usize::try_from(step).ok())
            .ok_or_else(|| format!("the step of `{}` is not a number from 1 to {}", item.escape_debug(), self.most))
    }
}

fn range(first: u32, last: u32, step: usize) -> u64 {
    (first..=last).step_by(step).fold(0, |set, number| set | 1 << number)
}

/// Reads a number that is written in digits only.
fn digits(text: &str) -> Option<u32> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| is_number)
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
