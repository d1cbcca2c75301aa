//! Ticks: the instants at which a schedule runs, in order.

use std::time::Duration;

use jiff::civil::DateTime;
use jiff::{SignedDuration, Timestamp};

use super::calendar::Pace;
use super::zone::Stretch;
use super::{Expression, Zone};
use crate::clock::UnixMs;

/// Rule for the times of a schedule's ticks.
#[derive(Clone, Debug)]
pub struct Timetable {
    /// Expression, in local time or in elapsed time.
    pub expression: Expression,
    /// Zone of the local time.
    pub zone: Zone,
    /// Instant from which `@every` counts whole periods, before and after it.
    pub anchor: UnixMs,
    /// Earliest time of a tick.
    pub start: Option<UnixMs>,
    /// Latest time of a tick.
    pub end: Option<UnixMs>,
}

impl Timetable {
    /// Returns the ticks after an instant, in order.
    #[must_use]
    pub fn after(&self, instant: UnixMs) -> Ticks<'_> {
        // There are no ticks before 1970, and the times that `start` excludes need not be searched.
        let start = self.start.map_or(UnixMs(0), |start| start.max(UnixMs(0)));
        let last = instant.max(UnixMs(start.0 - 1));
        // A local time in the same second is not later.
        let from = Timestamp::from_millisecond(last.0).ok();
        let cursor = from.map(|last| self.zone.local(last));
        let stretch = from.map(|last| self.zone.stretch(last));
        Ticks { timetable: self, last, cursor, stretch }
    }
}

/// See [`Timetable::after`].
#[derive(Debug)]
pub struct Ticks<'a> {
    timetable: &'a Timetable,
    last: UnixMs,
    /// Local time after which the search for the next tick begins.
    cursor: Option<DateTime>,
    /// Where the expression follows elapsed time: the stretch of one offset that contains `cursor`.
    stretch: Option<Stretch>,
}

impl Ticks<'_> {
    /// Returns the next instant whose local time matches.
    fn passing_tick(&mut self) -> Option<UnixMs> {
        loop {
            let (cursor, stretch) = (self.cursor?, self.stretch?);
            let local = self.timetable.expression.next_local(cursor)?;
            let instant = stretch.offset.to_timestamp(local).ok()?;
            let Some(end) = stretch.end.filter(|end| *end <= instant) else {
                self.cursor = Some(local);
                return Some(UnixMs(instant.as_millisecond()));
            };
            // Clocks are changed before that: the search continues from the new local time.
            self.stretch = Some(self.timetable.zone.stretch(end));
            self.cursor = self.timetable.zone.local(end).checked_sub(SignedDuration::from_secs(1)).ok();
        }
    }

    /// Returns the next instant of a local time that has had no tick.
    fn local_tick(&mut self) -> Option<UnixMs> {
        loop {
            let local = self.timetable.expression.next_local(self.cursor?)?;
            let instant = self.timetable.zone.place(local)?;
            // All local times in a gap map to its end: the search continues there, not with the next skipped second.
            let end_of_gap = self.timetable.zone.local(instant).checked_sub(SignedDuration::from_secs(1)).ok()?;
            self.cursor = Some(local.max(end_of_gap));
            let tick = UnixMs(instant.as_millisecond());
            // A tick that is not later than the last one is another local time of the gap, or the repetition of one that has ticked.
            if tick > self.last {
                return Some(tick);
            }
        }
    }

    fn elapsed_tick(&self, period: Duration) -> Option<UnixMs> {
        // A period with a fraction of a millisecond is rounded up, so that nothing is early.
        let period = UnixMs(0).plus(period).0.max(1);
        let anchor = self.timetable.anchor.0;
        let periods = self.last.0.checked_sub(anchor)?.div_euclid(period).checked_add(1)?;
        periods.checked_mul(period)?.checked_add(anchor).map(UnixMs)
    }
}

impl Iterator for Ticks<'_> {
    type Item = UnixMs;

    fn next(&mut self) -> Option<UnixMs> {
        let timetable = self.timetable;
        let tick = match timetable.expression {
            Expression::Calendar(ref calendar) => match calendar.pace {
                Pace::Fixed => self.local_tick(),
                Pace::Elapsed => self.passing_tick(),
            },
            Expression::Every(period) => self.elapsed_tick(period),
        }?;
        self.last = tick;
        self.timetable.end.is_none_or(|end| tick <= end).then_some(tick)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(crate) fn at(text: &str) -> UnixMs {
        UnixMs(text.parse::<Timestamp>().unwrap().as_millisecond())
    }

    pub(crate) fn timetable(expression: &str, zone: &str) -> Timetable {
        let (expression, zone) = (expression.parse().unwrap(), zone.parse().unwrap());
        Timetable { expression, zone, anchor: UnixMs(0), start: None, end: None }
    }

    fn ticks(timetable: &Timetable, after: &str, count: usize) -> Vec<String> {
        let ticks = timetable.after(at(after)).take(count);
        ticks.map(|tick| tick.to_string().replace(":00.000Z", "").replacen("2026-", "", 1)).collect()
    }

    #[test]
    fn what_a_gap_skips_runs_once_at_its_end_also_with_a_regular_tick_there() {
        let berlin = |text: &str, count| ticks(&timetable(text, "Europe/Berlin"), "2026-03-29T00:30:00Z", count);
        assert_eq!(berlin("30 2 * * *", 2), ["03-29T01:00", "03-30T00:30"]);
        assert_eq!(berlin("0,20,40 2 * * *", 2), ["03-29T01:00", "03-30T00:00"]);
        assert_eq!(berlin("0,30 0-23 * * *", 3), ["03-29T01:00", "03-29T01:30", "03-29T02:00"]);
        assert_eq!(berlin("0 2,3 * * *", 2), ["03-29T01:00", "03-30T00:00"]);
    }

    #[test]
    fn what_is_repeated_runs_the_first_time_only() {
        let berlin = |text: &str, after: &str, count| ticks(&timetable(text, "Europe/Berlin"), after, count);
        assert_eq!(berlin("30 2 * * *", "2026-10-25T00:00:00Z", 2), ["10-25T00:30", "10-26T01:30"]);
        assert_eq!(berlin("30 2 * * *", "2026-10-25T00:45:00Z", 1), ["10-26T01:30"], "asked between the two");
        assert_eq!(berlin("30 2 * * *", "2026-10-25T01:15:00Z", 1), ["10-26T01:30"], "asked in the second hour");
        assert_eq!(berlin("0,30 0-23 * * *", "2026-10-25T00:00:00Z", 2), ["10-25T00:30", "10-25T02:00"]);
    }

    #[test]
    fn a_star_in_hour_or_minute_follows_elapsed_time_where_clocks_go_back() {
        let melbourne = timetable("*/30 * * * *", "Australia/Melbourne");
        let expected = ["04-04T15:00", "04-04T15:30", "04-04T16:00", "04-04T16:30"];
        assert_eq!(ticks(&melbourne, "2026-04-04T14:30:00Z", 4), expected);
        let berlin = |text: &str, after: &str, count| ticks(&timetable(text, "Europe/Berlin"), after, count);
        assert_eq!(berlin("@hourly", "2026-10-24T23:00:00Z", 3), ["10-25T00:00", "10-25T01:00", "10-25T02:00"]);
        assert_eq!(berlin("30 * * * *", "2026-10-25T00:30:00Z", 2), ["10-25T01:30", "10-25T02:30"], "asked within");
        assert_eq!(
            berlin("*/40 2 * * *", "2026-10-24T12:00:00Z", 5)[..4],
            ["10-25T00:00", "10-25T00:40", "10-25T01:00", "10-25T01:40"]
        );
        // Gaps of half an hour on Lord Howe Island, of two hours at Troll, at midnight in Havana.
        let lord_howe = timetable("*/15 * * * *", "Australia/Lord_Howe");
        assert_eq!(
            ticks(&lord_howe, "2026-04-04T14:30:00Z", 4),
            ["04-04T14:45", "04-04T15:00", "04-04T15:15", "04-04T15:30"]
        );
        let troll = timetable("0 * * * *", "Antarctica/Troll");
        assert_eq!(
            ticks(&troll, "2026-10-24T23:30:00Z", 4),
            ["10-25T00:00", "10-25T01:00", "10-25T02:00", "10-25T03:00"]
        );
        let havana = timetable("*/30 0 * * *", "America/Havana");
        assert_eq!(
            ticks(&havana, "2026-11-01T03:59:00Z", 4),
            ["11-01T04:00", "11-01T04:30", "11-01T05:00", "11-01T05:30"]
        );
    }

    #[test]
    fn a_star_in_hour_or_minute_has_no_tick_in_a_gap() {
        let berlin = |text: &str, after: &str, count| ticks(&timetable(text, "Europe/Berlin"), after, count);
        assert_eq!(berlin("*/20 2 * * *", "2026-03-28T12:00:00Z", 1), ["03-30T00:00"]);
        assert_eq!(berlin("*/30 * * * *", "2026-03-29T00:00:00Z", 3), ["03-29T00:30", "03-29T01:00", "03-29T01:30"]);
        assert_eq!(berlin("@hourly", "2026-03-28T23:30:00Z", 3), ["03-29T00:00", "03-29T01:00", "03-29T02:00"]);
        assert_eq!(berlin("0 */2 * * *", "2026-03-28T22:30:00Z", 2), ["03-28T23:00", "03-29T02:00"], "2:00 is skipped");
        let havana = timetable("*/30 0 * * *", "America/Havana");
        assert_eq!(ticks(&havana, "2026-03-07T12:00:00Z", 1), ["03-09T04:00"], "from 0:00 to 1:00");
    }

    #[test]
    fn each_second_of_a_change_has_its_tick() {
        for (zone, after) in [("Europe/Vienna", "2027-10-31T00:59:58Z"), ("Europe/Vienna", "2027-03-28T00:59:58Z")] {
            let (table, after) = (timetable("* * * * * *", zone), at(after));
            let expected: Vec<_> = (1..=7_300).map(|second| UnixMs(after.0 + second * 1_000)).collect();
            assert_eq!(table.after(after).take(7_300).collect::<Vec<_>>(), expected, "{zone}");
        }
    }

    #[test]
    fn every_counts_elapsed_time_from_its_anchor() {
        let mut table = timetable("@every 90m", "Europe/Berlin");
        table.anchor = at("2026-03-29T00:10:00Z");
        assert_eq!(ticks(&table, "2026-03-29T00:10:00Z", 2), ["03-29T01:40", "03-29T03:10"]);
        assert_eq!(ticks(&table, "2026-03-28T22:00:00Z", 2), ["03-28T22:40", "03-29T00:10"], "before it, too");
        table.start = Some(table.anchor);
        assert_eq!(ticks(&table, "2026-03-28T22:00:00Z", 1), ["03-29T00:10"]);
    }

    #[test]
    fn start_and_end_belong_to_it() {
        let mut table = timetable("0 * * * *", "UTC");
        (table.start, table.end) = (Some(at("2026-05-01T10:00:00Z")), Some(at("2026-05-01T12:00:00Z")));
        assert_eq!(ticks(&table, "2020-01-01T00:00:00Z", 9), ["05-01T10:00", "05-01T11:00", "05-01T12:00"]);
        assert_eq!(ticks(&table, "2026-05-01T10:00:00Z", 1), ["05-01T11:00"]);
        assert!(ticks(&table, "2026-05-01T12:00:00Z", 1).is_empty());
    }

    #[test]
    fn a_tick_is_after_the_instant_to_the_millisecond() {
        let table = timetable("* * * * * *", "Asia/Kathmandu");
        let tick = at("2026-05-01T10:00:01Z");
        assert_eq!(table.after(UnixMs(tick.0 - 1)).next(), Some(tick));
        assert_eq!(table.after(UnixMs(tick.0 - 1_000)).next(), Some(tick));
        assert_eq!(table.after(tick).next(), Some(UnixMs(tick.0 + 1_000)));
    }

    #[test]
    fn the_ends_of_time_have_no_ticks() {
        for text in ["* * * * * *", "@yearly", "@every 1s"] {
            for zone in ["UTC", "Pacific/Kiritimati", "America/New_York"] {
                let mut table = timetable(text, zone);
                for instant in [UnixMs(i64::MIN), UnixMs(-1), UnixMs(0), UnixMs(4_133_980_799_000), UnixMs::MAX] {
                    assert!(table.after(instant).take(3).all(|tick| tick > instant && tick.0 >= 0), "{text} {zone}");
                }
                assert!(table.after(UnixMs::MAX).next().is_none());
                (table.start, table.anchor) = (Some(UnixMs::MAX), UnixMs::MAX);
                let _ = table.after(UnixMs(0)).next();
                (table.start, table.anchor) = (Some(UnixMs(i64::MIN)), UnixMs(i64::MIN));
                let _ = table.after(UnixMs(0)).next();
            }
        }
    }

    #[test]
    fn a_day_that_is_skipped_costs_one_tick() {
        let table = timetable("* * * * * *", "Pacific/Apia");
        let ticks: Vec<_> = table.after(at("2011-12-30T09:59:58Z")).take(3).collect();
        assert_eq!(ticks, ["2011-12-30T09:59:59Z", "2011-12-30T10:00:00Z", "2011-12-30T10:00:01Z"].map(at));
    }
}
