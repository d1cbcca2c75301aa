//! Local times that match an expression with fields.

use jiff::civil::{Date, DateTime};

/// Local time just before the first possible one, and the last possible year.
const BEFORE_ALL: DateTime = DateTime::constant(1969, 12, 31, 23, 59, 59, 0);
const LAST_YEAR: i16 = 2100;

/// A day that depends on the month.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MonthDay {
    /// A day counted from the last day of the month.
    Last {
        /// Number of days before the last one.
        before: u32,
    },
    /// The working day nearest to a day that is counted from the last one.
    LastWorkday {
        /// Number of days before the last one.
        before: u32,
    },
    /// The working day nearest to this day, in the same month.
    Workday(u32),
}

/// A weekday of one week of a month. Sunday is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WeekDay {
    /// The last one of the month.
    Last(u32),
    /// The first to fifth one of the month.
    Nth {
        /// Weekday; Sunday is 0.
        day: u32,
        /// Number of the weekday in the month, from 1.
        week: u32,
    },
}

/// Combination of two restricted fields for days.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Days {
    /// A day matches if either field does.
    Either,
    /// A day matches if both fields do.
    Both,
}

/// Behavior of an expression where clocks are changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// Each local time occurs once a day: right after the gap if a gap skips it, and the first time if it is repeated.
    Fixed,
    /// A local time occurs whenever clocks show it: never in a gap, and twice if it is repeated.
    Elapsed,
}

/// Local times that match all fields.
///
/// Sets of numbers are stored as bits.
#[derive(Clone, Debug)]
pub struct Calendar {
    pub(super) second: u64,
    pub(super) minute: u64,
    pub(super) hour: u64,
    pub(super) month: u64,
    pub(super) days_of_month: (u64, Vec<MonthDay>),
    pub(super) days_of_week: (u64, Vec<WeekDay>),
    pub(super) days: Days,
    pub(super) pace: Pace,
}

/// Hour, minute and second.
type Time = (u32, u32, u32);

impl Calendar {
    /// Returns the first matching local time after `local`, to the second.
    pub(super) fn next_after(&self, local: DateTime) -> Option<DateTime> {
        let local = local.max(BEFORE_ALL);
        let start =
            local.with().subsec_nanosecond(0).build().ok()?.checked_add(jiff::SignedDuration::from_secs(1)).ok()?;
        let (mut year, mut month, mut day) = (start.year(), start.month(), unsigned(start.day()));
        let mut time = (unsigned(start.hour()), unsigned(start.minute()), unsigned(start.second()));
        while year <= LAST_YEAR {
            if self.month >> month & 1 == 1 {
                let days = self.days_of(year, month);
                let today = if days >> day & 1 == 1 { self.next_time(time) } else { None };
                if let Some(time) = today {
                    return at(year, month, day, time);
                }
                if let Some(later) = next_of(days, day + 1) {
                    return at(year, month, later, self.next_time((0, 0, 0))?);
                }
            }
            (year, month) = if month == 12 { (year + 1, 1) } else { (year, month + 1) };
            (day, time) = (1, (0, 0, 0));
        }
        None
    }

    /// Returns the first matching time of day from the given one on.
    fn next_time(&self, (hour, minute, second): Time) -> Option<Time> {
        let (first_minute, first_second) = (next_of(self.minute, 0)?, next_of(self.second, 0)?);
        if self.hour >> hour & 1 == 1 {
            let this_minute = if self.minute >> minute & 1 == 1 { next_of(self.second, second) } else { None };
            if let Some(second) = this_minute {
                return Some((hour, minute, second));
            }
            if let Some(minute) = next_of(self.minute, minute + 1) {
                return Some((hour, minute, first_second));
            }
        }
        next_of(self.hour, hour + 1).map(|hour| (hour, first_minute, first_second))
    }

    /// Returns the matching days of a month, as bits from 1.
    fn days_of(&self, year: i16, month: i8) -> u64 {
        let Ok(first) = Date::new(year, month, 1) else { return 0 };
        let (len, first_weekday) = (unsigned(first.days_in_month()), unsigned(first.weekday().to_sunday_zero_offset()));
        let weekday = |day: u32| (first_weekday + day - 1) % 7;
        let all = ((1_u64 << len) - 1) << 1;
        let (mut of_month, words) = (self.days_of_month.0 & all, &self.days_of_month.1);
        for word in words {
            let day = match word {
                MonthDay::Last { before } => len.checked_sub(*before).filter(|day| *day > 0),
                MonthDay::LastWorkday { before } => {
                    len.checked_sub(*before).filter(|day| *day > 0).map(|day| workday(day, len, weekday(day)))
                }
                MonthDay::Workday(day) => (*day <= len).then(|| workday(*day, len, weekday(*day))),
            };
            of_month |= day.map_or(0, |day| 1 << day);
        }
        let matches = |day: &u32| {
            let words = self.days_of_week.1.iter();
            let is_word = |word: &WeekDay| match word {
                WeekDay::Last(of_week) => weekday(*day) == *of_week && day + 7 > len,
                WeekDay::Nth { day: of_week, week } => weekday(*day) == *of_week && (day - 1) / 7 + 1 == *week,
            };
            self.days_of_week.0 >> weekday(*day) & 1 == 1 || words.into_iter().any(is_word)
        };
        let of_week = (1..=len).filter(matches).fold(0, |days, day| days | 1 << day);
        match self.days {
            Days::Either => of_month | of_week,
            Days::Both => of_month & of_week,
        }
    }
}

/// Returns the working day, Monday to Friday, that is nearest to a day and in the same month.
fn workday(day: u32, len: u32, weekday: u32) -> u32 {
    match weekday {
        6 if day == 1 => 3,
        6 => day - 1,
        0 if day == len => day - 2,
        0 => day + 1,
        _ => day,
    }
}

/// Returns the first number of a set from `from` on.
fn next_of(set: u64, from: u32) -> Option<u32> {
    let rest = set & u64::MAX.checked_shl(from)?;
    (rest != 0).then(|| rest.trailing_zeros())
}

fn unsigned(value: i8) -> u32 {
    u32::try_from(value).unwrap_or(0)
}

fn at(year: i16, month: i8, day: u32, (hour, minute, second): Time) -> Option<DateTime> {
    let signed = |value: u32| i8::try_from(value).ok();
    DateTime::new(year, month, signed(day)?, signed(hour)?, signed(minute)?, signed(second)?, 0).ok()
}
