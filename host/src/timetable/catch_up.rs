//! What is to be done about ticks now, and when to look again. The work is bounded by what is done, not by how long nobody looked.

use std::time::Duration;

use super::Timetable;
use crate::clock::UnixMs;

/// A tick that is seen within this time is on time, whatever the catch-up window.
const PUNCTUAL: Duration = Duration::from_secs(1);

/// The most ticks that are caught up at one look.
const CATCH_UP_BATCH: usize = 1_000;

/// The newest missed tick is looked for so far back at first, and with each step as many times as far.
const REACH: Duration = Duration::from_secs(120);
const REACH_GROWTH: u32 = 30;

/// What is to be done about ticks that were missed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CatchUp {
    /// Older ones are dropped.
    pub window: Duration,
    /// Whether each of the others runs, not the newest alone.
    pub all: bool,
}

/// What a look says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Due {
    /// The ticks that are to run now, in order.
    pub ticks: Vec<UnixMs>,
    /// When to look again; never if there are no more ticks.
    pub next: Option<UnixMs>,
}

impl Timetable {
    /// Which ticks are due at `now`, if all up to `handled` have been dealt with.
    ///
    /// Ticks older than the catch-up window are dropped. Of the missed ones within it the newest runs, or all of them, a bounded
    /// number at each look. Ticks that are seen on time run in any case.
    #[must_use]
    pub fn due(&self, handled: UnixMs, now: UnixMs, catch_up: CatchUp) -> Due {
        let on_time = now.minus(PUNCTUAL);
        let floor = handled.max(UnixMs(now.minus(catch_up.window).0.saturating_sub(1)));
        let mut ticks = if catch_up.all {
            let missed = self.after(floor).take_while(|tick| *tick < on_time);
            missed.take(CATCH_UP_BATCH).collect()
        } else {
            Vec::from_iter(self.newest(floor, on_time))
        };
        if ticks.len() == CATCH_UP_BATCH {
            return Due { ticks, next: Some(now) };
        }
        let punctual = self.after(handled.max(UnixMs(on_time.0.saturating_sub(1))));
        ticks.extend(punctual.take_while(|tick| *tick <= now));
        Due { ticks, next: self.after(handled.max(now)).next() }
    }

    /// The last tick after `after` and before `before`. Looks at few ticks, however many there are.
    fn newest(&self, after: UnixMs, before: UnixMs) -> Option<UnixMs> {
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

    fn due(expression: &str, handled: &str, now: &str, catch_up: CatchUp) -> (Vec<String>, String) {
        let today = |text: &str| at(&format!("2026-05-04T{text}Z"));
        let due = timetable(expression, "UTC").due(today(handled), today(now), catch_up);
        let time = |tick: UnixMs| tick.to_string()[11..19].to_owned();
        (due.ticks.into_iter().map(time).collect(), due.next.map(time).unwrap())
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
        let seconds = |due: &Due| due.ticks.iter().map(|tick| (now.0 - tick.0) / 1_000).collect::<Vec<_>>();
        assert_eq!(seconds(&table.due(then, now, MINUTE)), [1, 0]);
        assert_eq!(seconds(&table.due(then, now, month(false))), [1, 0]);
        let all = table.due(then, now, month(true));
        assert_eq!((all.ticks.len(), all.ticks[0].0 - then.0, all.next), (CATCH_UP_BATCH, 1_000, Some(now)));
        let rest = table.due(all.ticks[CATCH_UP_BATCH - 1], now, month(true));
        assert_eq!(rest.ticks[0].0 - all.ticks[CATCH_UP_BATCH - 1].0, 1_000, "it goes on where it stopped");
        let rare = timetable("0 0 29 2 *", "UTC").due(
            at("2020-01-01T00:00:00Z"),
            at("2026-01-01T00:00:00Z"),
            CatchUp { window: Duration::from_secs(10 * 366 * 86_400), all: false },
        );
        assert_eq!(rare, Due { ticks: vec![at("2024-02-29T00:00:00Z")], next: Some(at("2028-02-29T00:00:00Z")) });
    }

    #[test]
    fn what_has_ended_is_not_looked_at_again() {
        let mut table = timetable("0 * * * *", "UTC");
        table.end = Some(at("2026-05-04T10:00:00Z"));
        let due = table.due(at("2026-05-04T09:00:00Z"), at("2026-05-04T10:00:00Z"), MINUTE);
        assert_eq!(due, Due { ticks: vec![at("2026-05-04T10:00:00Z")], next: None });
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
                let due = table.due(handled, now, catch_up);
                prop_assert!(due.ticks.iter().all(|tick| *tick <= now && now.0 - tick.0 <= 1_000.max(window as i64 * 1_000)));
                prop_assert!(due.next.is_some_and(|next| next > now));
                let expected = table.after(handled).take_while(|tick| *tick <= now);
                let expected: Vec<_> = expected.filter(|tick| now.0 - tick.0 <= 1_000.max(window as i64 * 1_000)).collect();
                prop_assert_eq!(due.ticks.last(), expected.last(), "the newest one runs");
                if all {
                    prop_assert_eq!(&due.ticks, &expected);
                }
                handled = due.ticks.last().copied().unwrap_or(handled);
                ran.extend(due.ticks);
            }
            prop_assert!(ran.is_sorted_by(|one, next| one < next));
        }
    }
}
