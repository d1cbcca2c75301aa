//! Decides which ticks run now, which are skipped, and when to check again.
//!
//! The work is bounded by the number of ticks that run, not by the time since the last check.

use std::time::Duration;

use super::Timetable;
use crate::clock::UnixMs;
use crate::job::{SkipReason, SkippedTicks};

/// A tick that is noticed within this time is on time, whatever the catch-up window.
const PUNCTUAL: Duration = Duration::from_secs(1);

/// Largest number of ticks that one check catches up.
const CATCH_UP_BATCH: usize = 1_000;

/// First distance of the search for the newest missed tick; each step multiplies it by `REACH_GROWTH`.
const REACH: Duration = Duration::from_secs(120);
const REACH_GROWTH: u32 = 30;

/// Rule for ticks that were missed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CatchUp {
    /// Age above which missed ticks are skipped.
    pub window: Duration,
    /// Whether every missed tick within the window runs, instead of the newest one only.
    pub all: bool,
}

/// Largest number of ticks that are counted one by one when they are skipped together.
pub const SKIPPED_COUNTED: usize = 1_000;

/// Result of a check.
///
/// The skipped ticks are before the missed ticks that run, and those are before the ticks that are on time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Due {
    /// Ticks that do not run.
    pub skipped: Vec<SkippedTicks>,
    /// Missed ticks that run now, in order.
    pub missed: Vec<UnixMs>,
    /// Ticks that run now on time, in order.
    pub on_time: Vec<UnixMs>,
    /// Time of the next check; None if there are no more ticks.
    pub next: Option<UnixMs>,
}

impl Due {
    /// Returns the newest tick that this result handles.
    #[must_use]
    pub fn last(&self) -> Option<UnixMs> {
        let skipped = self.skipped.iter().map(|skipped| skipped.last);
        skipped.chain(self.missed.iter().copied()).chain(self.on_time.iter().copied()).max()
    }
}

/// Span of time in which ticks are looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TickRange {
    /// Time after which the span begins.
    pub after: UnixMs,
    /// Last time of the span.
    pub last: UnixMs,
}

impl Timetable {
    /// Returns the ticks that are due at the end of the range, if all up to its beginning have been handled.
    ///
    /// Ticks older than the catch-up window are skipped. Of the missed ones within it the newest runs, or all of them, a bounded number at
    /// each check. Ticks that are noticed on time run in any case.
    #[must_use]
    pub fn due(&self, range: TickRange, catch_up: CatchUp) -> Due {
        let TickRange { after: handled, last: now } = range;
        let on_time = now.minus(PUNCTUAL);
        let late = UnixMs(on_time.0.saturating_sub(1));
        let floor = handled.max(UnixMs(now.minus(catch_up.window).0.saturating_sub(1)));
        let mut skipped =
            Vec::from_iter(self.skipped(TickRange { after: handled, last: floor.min(late) }, SkipReason::TooLate));
        let mut missed = Vec::new();
        if catch_up.all {
            missed.extend(self.after(floor).take_while(|tick| *tick < on_time).take(CATCH_UP_BATCH));
        } else if let Some(newest) = self.newest(TickRange { after: floor, last: late }) {
            let superseded = TickRange { after: floor, last: UnixMs(newest.0.saturating_sub(1)) };
            skipped.extend(self.skipped(superseded, SkipReason::Superseded));
            missed.push(newest);
        }
        if missed.len() == CATCH_UP_BATCH {
            return Due { skipped, missed, on_time: Vec::new(), next: Some(now) };
        }
        let punctual = self.after(handled.max(late)).take_while(|tick| *tick <= now);
        Due { skipped, missed, on_time: punctual.collect(), next: self.after(handled.max(now)).next() }
    }

    /// Returns the ticks of a range as skipped.
    ///
    /// At most [`SKIPPED_COUNTED`] are counted, so that the work is bounded.
    #[must_use]
    pub fn skipped(&self, range: TickRange, reason: SkipReason) -> Option<SkippedTicks> {
        let mut skipped: Option<SkippedTicks> = None;
        for tick in self.after(range.after).take_while(|tick| *tick <= range.last).take(SKIPPED_COUNTED) {
            let first = skipped.map_or(tick, |skipped| skipped.first);
            let count = skipped.map_or(0, |skipped| skipped.count) + 1;
            skipped = Some(SkippedTicks { first, last: tick, count, reason });
        }
        let mut skipped = skipped?;
        skipped.last = self.newest(TickRange { after: skipped.last, ..range }).unwrap_or(skipped.last);
        Some(skipped)
    }

    /// Returns the first tick after `instant` that `end` excludes, if there is an end.
    #[must_use]
    pub fn after_end(&self, instant: UnixMs) -> Option<UnixMs> {
        let end = self.end?;
        Self { end: None, ..self.clone() }.after(instant.max(end)).next()
    }

    /// Returns the last tick of a range.
    ///
    /// Computes few ticks, however many there are between.
    fn newest(&self, TickRange { after, last }: TickRange) -> Option<UnixMs> {
        let before = UnixMs(last.0.saturating_add(1));
        let mut reach = REACH;
        loop {
            let from = after.max(before.minus(reach));
            let newest = self.after(from).take_while(|tick| *tick < before).last();
            if newest.is_some() || from >= before || from == after {
                return newest;
            }
            reach = reach.saturating_mul(REACH_GROWTH);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::ticks::tests::{at, timetable};
    use super::*;
    use proptest::prelude::*;

    const MINUTE: CatchUp = CatchUp { window: Duration::from_secs(60), all: false };
    const NONE: CatchUp = CatchUp { window: Duration::ZERO, all: false };

    fn day(all: bool) -> CatchUp {
        CatchUp { window: Duration::from_secs(86_400), all }
    }

    fn today(text: &str) -> UnixMs {
        at(&format!("2026-05-04T{text}Z"))
    }

    fn ticks(due: &Due) -> Vec<UnixMs> {
        due.missed.iter().chain(&due.on_time).copied().collect()
    }

    fn due(expression: &str, handled: &str, now: &str, catch_up: CatchUp) -> (Vec<String>, String) {
        let due = timetable(expression, "UTC").due(TickRange { after: today(handled), last: today(now) }, catch_up);
        let time = |tick: UnixMs| tick.to_string()[11..19].to_owned();
        (ticks(&due).into_iter().map(time).collect(), due.next.map(time).unwrap())
    }

    fn skipped(first: &str, last: &str, count: u64, reason: SkipReason) -> SkippedTicks {
        SkippedTicks { first: today(first), last: today(last), count, reason }
    }

    fn is(ticks: &[&str], next: &str) -> (Vec<String>, String) {
        (ticks.iter().map(|&tick| tick.to_owned()).collect(), next.to_owned())
    }

    #[test]
    fn a_tick_on_time_runs_whatever_the_window() {
        for catch_up in [NONE, MINUTE, day(false), day(true)] {
            let hourly = |handled, now| due("0 * * * *", handled, now, catch_up);
            assert_eq!(hourly("09:00:00", "09:59:59.999"), is(&[], "10:00:00"));
            assert_eq!(hourly("09:00:00", "10:00:00"), is(&["10:00:00"], "11:00:00"));
            assert_eq!(hourly("09:00:00", "10:00:01"), is(&["10:00:00"], "11:00:00"));
            assert_eq!(hourly("10:00:00", "10:00:00.500"), is(&[], "11:00:00"), "once");
        }
    }

    #[test]
    fn a_missed_tick_runs_within_the_window_only() {
        assert_eq!(due("0 * * * *", "09:00:00", "10:00:01.001", NONE), is(&[], "11:00:00"));
        assert_eq!(due("0 * * * *", "09:00:00", "10:01:00", MINUTE), is(&["10:00:00"], "11:00:00"));
        assert_eq!(due("0 * * * *", "09:00:00", "10:01:00.001", MINUTE), is(&[], "11:00:00"));
    }

    #[test]
    fn of_many_missed_ticks_the_newest_runs_unless_all_are_asked_for() {
        let hourly = |all| due("0 * * * *", "02:00:00", "06:30:00", day(all));
        assert_eq!(hourly(false), is(&["06:00:00"], "07:00:00"));
        assert_eq!(hourly(true), is(&["03:00:00", "04:00:00", "05:00:00", "06:00:00"], "07:00:00"));
        let and_one_on_time = due("0 * * * *", "02:00:00", "07:00:00.300", day(false));
        assert_eq!(and_one_on_time, is(&["06:00:00", "07:00:00"], "08:00:00"));
    }

    #[test]
    fn a_clock_that_goes_back_repeats_nothing() {
        assert_eq!(due("* * * * *", "10:00:00", "09:58:30", MINUTE), is(&[], "10:01:00"));
    }

    #[test]
    fn a_month_of_downtime_costs_little() {
        let table = timetable("* * * * * *", "Europe/Berlin");
        let (then, now) = (at("2026-04-01T00:00:00Z"), at("2026-05-01T00:00:00.500Z"));
        let month = |all| CatchUp { window: Duration::from_secs(366 * 86_400), all };
        let seconds = |due: &Due| ticks(due).iter().map(|tick| (now.0 - tick.0) / 1_000).collect::<Vec<_>>();
        assert_eq!(seconds(&table.due(TickRange { after: then, last: now }, MINUTE)), [1, 0]);
        assert_eq!(seconds(&table.due(TickRange { after: then, last: now }, month(false))), [1, 0]);
        let all = table.due(TickRange { after: then, last: now }, month(true));
        assert_eq!((all.missed.len(), all.missed[0].0 - then.0, all.next), (CATCH_UP_BATCH, 1_000, Some(now)));
        let rest = table.due(TickRange { after: all.missed[CATCH_UP_BATCH - 1], last: now }, month(true));
        assert_eq!(rest.missed[0].0 - all.missed[CATCH_UP_BATCH - 1].0, 1_000, "it goes on where it stopped");
        let skipped = table.due(TickRange { after: then, last: now }, month(false)).skipped[0];
        assert_eq!((skipped.first.0 - then.0, now.0 - skipped.last.0), (1_000, 2_500), "the whole range is told of");
        assert_eq!(skipped.count, u64::try_from(SKIPPED_COUNTED).unwrap(), "at least so many");
        let rare = timetable("0 0 29 2 *", "UTC").due(
            TickRange { after: at("2020-01-01T00:00:00Z"), last: at("2026-01-01T00:00:00Z") },
            CatchUp { window: Duration::from_secs(10 * 366 * 86_400), all: false },
        );
        assert_eq!((ticks(&rare), rare.next), (vec![at("2024-02-29T00:00:00Z")], Some(at("2028-02-29T00:00:00Z"))));
        let superseded = SkippedTicks::one(at("2020-02-29T00:00:00Z"), SkipReason::Superseded);
        assert_eq!(rare.skipped, [superseded]);
    }

    #[test]
    fn what_has_ended_is_not_looked_at_again() {
        let mut table = timetable("0 * * * *", "UTC");
        table.end = Some(at("2026-05-04T10:00:00Z"));
        let range = TickRange { after: at("2026-05-04T09:00:00Z"), last: at("2026-05-04T10:00:00Z") };
        let due = table.due(range, MINUTE);
        assert_eq!(due, Due { on_time: vec![at("2026-05-04T10:00:00Z")], ..Due::default() });
        assert_eq!(table.after_end(at("2026-05-04T10:00:00Z")), Some(at("2026-05-04T11:00:00Z")));
        assert_eq!(table.after_end(at("2026-05-04T12:00:00Z")), Some(at("2026-05-04T13:00:00Z")));
    }

    #[test]
    fn what_does_not_run_is_told_of_with_its_reason() {
        let hourly = |now: &str, catch_up| {
            let range = TickRange { after: today("02:00:00"), last: today(now) };
            timetable("0 * * * *", "UTC").due(range, catch_up).skipped
        };
        assert_eq!(hourly("06:30:00", MINUTE), [skipped("03:00:00", "06:00:00", 4, SkipReason::TooLate)]);
        assert_eq!(hourly("06:30:00", NONE), [skipped("03:00:00", "06:00:00", 4, SkipReason::TooLate)]);
        assert_eq!(hourly("06:30:00", day(false)), [skipped("03:00:00", "05:00:00", 3, SkipReason::Superseded)]);
        assert_eq!(hourly("06:30:00", day(true)), []);
        assert_eq!(hourly("06:00:00.500", NONE), [skipped("03:00:00", "05:00:00", 3, SkipReason::TooLate)]);
        let two_hours = CatchUp { window: Duration::from_secs(7_200), all: false };
        let both = [
            skipped("03:00:00", "04:00:00", 2, SkipReason::TooLate),
            skipped("05:00:00", "05:00:00", 1, SkipReason::Superseded),
        ];
        assert_eq!(hourly("06:30:00", two_hours), both);
    }

    proptest! {
        #[test]
        fn looks_together_run_each_tick_once(
            pauses in prop::collection::vec(1_i64..400_000, 1..30), every in 1_u64..100, window in 0_u64..300, all: bool,
        ) {
            let table = timetable(&format!("@every {every}s"), "UTC");
            let catch_up = CatchUp { window: Duration::from_secs(window), all };
            let (mut now, mut handled, mut ran) = (UnixMs(1_000_000), UnixMs(1_000_000), Vec::new());
            for pause in pauses {
                now = UnixMs(now.0 + pause);
                let due = table.due(TickRange { after: handled, last: now }, catch_up);
                let run = ticks(&due);
                prop_assert!(run.iter().all(|tick| *tick <= now && now.0 - tick.0 <= 1_000.max(window as i64 * 1_000)));
                let passed = table.after(handled).take_while(|tick| *tick <= now).count();
                let skipped: u64 = due.skipped.iter().map(|skipped| skipped.count).sum();
                if due.next != Some(now) {
                    prop_assert_eq!(u64::try_from(passed).unwrap(), skipped + u64::try_from(run.len()).unwrap(), "each is told of");
                }
                prop_assert!(due.next.is_some_and(|next| next > now));
                let expected = table.after(handled).take_while(|tick| *tick <= now);
                let expected: Vec<_> = expected.filter(|tick| now.0 - tick.0 <= 1_000.max(window as i64 * 1_000)).collect();
                prop_assert_eq!(run.last(), expected.last(), "the newest one runs");
                if all {
                    prop_assert_eq!(&run, &expected);
                }
                handled = due.last().unwrap_or(handled);
                ran.extend(run);
            }
            prop_assert!(ran.is_sorted_by(|one, next| one < next));
        }
    }
}
