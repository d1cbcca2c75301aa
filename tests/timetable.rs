//! A year of ticks in many time zones, compared one by one with what Python's zoneinfo says.

use crate::support::ask_python;
use carillon_core::clock::UnixMs;
use carillon_core::timetable::Timetable;
use serde_json::json;

/// Computes the runs of a year without any library for cron.
const ORACLE: &str = include_str!("support/timetable.py");

/// Half an hour of summer time, negative summer time, midnight gaps, Ramadan, odd offsets, both hemispheres.
const ZONES: [&str; 20] = [
    "UTC",
    "Europe/Berlin",
    "Europe/Dublin",
    "Africa/Casablanca",
    "Africa/Cairo",
    "Asia/Gaza",
    "Asia/Beirut",
    "Asia/Kathmandu",
    "Asia/Tehran",
    "Asia/Kolkata",
    "America/New_York",
    "America/St_Johns",
    "America/Havana",
    "America/Santiago",
    "America/Sao_Paulo",
    "America/Asuncion",
    "Australia/Lord_Howe",
    "Australia/Sydney",
    "Pacific/Auckland",
    "Pacific/Chatham",
];

/// Daily ones in and around the hours in which clocks change, hourly ones, odd minutes, seconds, days of both kinds; stars in one of hour and
/// minute and in both; ranges that go on from the beginning; days that depend on the month.
const EXPRESSIONS: [&str; 26] = [
    "0 0 * * *",
    "30 2 * * *",
    "15 1 * * *",
    "59 23 * * *",
    "0 * * * *",
    "*/20 * * * *",
    "7,37 0-4 * * *",
    "0 */3 * * *",
    "45 2,3 * * 0",
    "0 3 * 3,4,9-11 *",
    "10 0 1,15 * 5",
    "0 12 29 2 *",
    "30 0 0 * * *",
    "59 59 1,2 * * *",
    "*/15 59 1 * 3-10 6,7",
    "0,20,40 0-23 * * *",
    "*/20 2 * * *",
    "*/30 0-3 * * 0,6",
    "*/20 */10 */2 * * 0",
    "15 22-3 * * *",
    "50-10/5 1 * 11-4 *",
    "30 2 L * *",
    "30 2 LW,15W * *",
    "0 0 L-3,1W 2-12/2 *",
    "0 1 * * 0L,5#3",
    "*/30 * L * 6#1",
];

/// The second is a leap year.
const YEARS: [i16; 2] = [2026, 2028];

fn begin_of(year: i16) -> UnixMs {
    let begin = jiff::civil::date(year, 1, 1).to_zoned(jiff::tz::TimeZone::UTC).unwrap();
    UnixMs(begin.timestamp().as_millisecond())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_year_of_ticks_is_what_zoneinfo_says() {
    let mut compared = 0;
    for year in YEARS {
        let asked = json!({"year": year, "zones": ZONES, "expressions": EXPRESSIONS});
        let expected: Vec<Vec<Vec<i64>>> = serde_json::from_value(ask_python(ORACLE, &asked).await).unwrap();
        let (begin, end) = (begin_of(year), begin_of(year + 1));
        for (zone, expected) in ZONES.iter().zip(&expected) {
            for (expression, expected) in EXPRESSIONS.iter().zip(expected) {
                let timetable = Timetable {
                    expression: expression.parse().unwrap(),
                    zone: zone.parse().unwrap(),
                    anchor: begin,
                    start: None,
                    end: None,
                };
                let ticks = timetable.after(UnixMs(begin.0 - 1)).take_while(|tick| *tick < end);
                let ticks: Vec<_> = ticks.map(|tick| tick.0 / 1_000).collect();
                let differ = ticks.iter().zip(expected).find(|(ours, theirs)| ours != theirs);
                assert_eq!(differ, None, "`{expression}` in {zone}, {year}: ours and zoneinfo's");
                assert_eq!(ticks.len(), expected.len(), "`{expression}` in {zone}, {year}");
                compared += ticks.len();
            }
        }
    }
    assert!(compared > 1_500_000, "only {compared} ticks were compared");
}
