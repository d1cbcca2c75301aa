//! Times as people and receivers write them: schedules with time zones, RFC 3339, durations, and `Retry-After`.

use std::time::Duration;

use carillon_core::clock::{UnixMs, rfc3339};
use carillon_core::duration;
use carillon_core::timetable::{Expression, Timetable, Zone};
use carillon_engine::delivery::attempt::read_retry_after;

use crate::lines;

/// Number of ticks that are compared.
const TICKS: usize = 40;

/// Time from which ticks are asked for: 2026-03-29, the day of a change of clocks in Europe.
const NOW: UnixMs = UnixMs(1_774_742_400_000);

/// First line: the expression; second: the zone; third: the time from which ticks are asked for, in milliseconds.
pub(crate) fn cron(data: &[u8]) {
    let [expression, zone, from] = lines(data);
    let (Ok(expression), Ok(zone)) = (expression.parse::<Expression>(), zone.parse::<Zone>()) else { return };
    let from = UnixMs(from.trim().parse().unwrap_or(NOW.0));
    let timetable = Timetable { expression, zone, anchor: UnixMs(0), start: None, end: None };
    let ticks: Vec<UnixMs> = timetable.after(from).take(TICKS).collect();
    assert!(ticks.iter().all(|tick| *tick > from), "a tick is not after {from:?}: {ticks:?}");
    assert!(ticks.windows(2).all(|pair| pair[0] < pair[1]), "ticks are not in order: {ticks:?}");
    // Wherever the list is begun, the same ticks follow.
    for (index, tick) in ticks.iter().enumerate().step_by(7) {
        let rest: Vec<UnixMs> = timetable.after(*tick).take(3).collect();
        let expected: Vec<UnixMs> = ticks.iter().skip(index + 1).take(rest.len()).copied().collect();
        assert!(rest.starts_with(&expected), "after {tick:?}: {rest:?}, but {expected:?}");
    }
}

/// A time and a duration, each of which is read as both.
pub(crate) fn times(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(time) = rfc3339::parse(text) {
        let written = time.to_string();
        assert_eq!(rfc3339::parse(&written), Ok(time), "{text} became {written}");
    }
    if let Ok(length) = duration::parse(text) {
        let written = duration::format(length).to_string();
        assert_eq!(duration::parse(&written).ok(), Some(length), "{text} became {written}");
    }
    if let Ok(length) = duration::parse_millis(text) {
        assert!(length == Duration::MAX || length.subsec_nanos().is_multiple_of(1_000_000), "{text}");
    }
}

/// The value of a header `Retry-After`.
pub(crate) fn retry_after(data: &[u8]) {
    let Some(pause) = read_retry_after(data, NOW) else { return };
    let is_number = !data.is_empty() && data.trim_ascii().iter().all(u8::is_ascii_digit);
    assert!(!is_number || pause.subsec_nanos() == 0, "a number is in seconds");
    // Whatever time is added to is still a time.
    assert!(NOW.plus(pause) >= NOW);
}
