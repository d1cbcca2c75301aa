//! Time zones: which instant a local time is.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, Offset, TimeZone, TimeZoneDatabase};

use crate::clock::UnixMs;

/// Longest name of a zone, in bytes; the longest existing one has 32.
const NAME_LEN: usize = 64;

/// Error: no time zone has this name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{}` is not an IANA time zone such as `Europe/Berlin`, `America/New_York` or `UTC`", .0.escape_debug())]
pub struct UnknownZone(String);

/// A time zone of the IANA database: the system's version, or the built-in one where the system has none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Zone(TimeZone);

/// Areas of zones that the built-in database lacks and a newer one may have.
const AREAS: [&str; 11] = [
    "Africa/",
    "America/",
    "Antarctica/",
    "Arctic/",
    "Asia/",
    "Atlantic/",
    "Australia/",
    "Europe/",
    "Indian/",
    "Pacific/",
    "Etc/",
];

/// IANA's zone for computers that have not been set up.
const NOT_SET_UP: &str = "Factory";

/// A period in which clocks are not changed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stretch {
    /// Offset from UTC.
    pub(super) offset: Offset,
    /// Time of the next change.
    pub(super) end: Option<Timestamp>,
}

/// Returns whether a name is one of IANA's.
///
/// The system's directory has other files besides, such as `localtime`, whose content differs from node to node.
fn is_of_iana(name: &str) -> bool {
    let is_in_area = |area: &&str| name.get(..area.len()).is_some_and(|start| start.eq_ignore_ascii_case(area));
    let is_known = || TimeZoneDatabase::bundled().get(name).is_ok();
    !name.eq_ignore_ascii_case(NOT_SET_UP) && (AREAS.iter().any(is_in_area) || is_known())
}

impl FromStr for Zone {
    type Err = UnknownZone;

    fn from_str(name: &str) -> Result<Self, UnknownZone> {
        let is_a_name = name.len() <= NAME_LEN && is_of_iana(name);
        let zone = if is_a_name { TimeZone::get(name).ok() } else { None };
        // `Etc/Unknown` stands for an unknown zone.
        zone.filter(|zone| !zone.is_unknown())
            .map(Self)
            .ok_or_else(|| UnknownZone(name.chars().take(NAME_LEN).collect()))
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.iana_name().unwrap_or("UTC"))
    }
}

impl Zone {
    /// Returns the local time at `instant`.
    #[must_use]
    pub fn local(&self, instant: Timestamp) -> DateTime {
        self.0.to_datetime(instant)
    }

    /// Returns the local time at `at` with its offset from UTC, as RFC 3339.
    #[must_use]
    pub fn written(&self, at: UnixMs) -> String {
        let instant = Timestamp::from_millisecond(at.0).unwrap_or(Timestamp::MAX);
        instant.display_with_offset(self.0.to_offset(instant)).to_string()
    }

    /// Returns the stretch that contains `instant`.
    pub(super) fn stretch(&self, instant: Timestamp) -> Stretch {
        let end = self.0.following(instant).next().map(|change| change.timestamp());
        Stretch { offset: self.0.to_offset(instant), end }
    }

    /// Returns the instant of a local time: the first of two, or the end of the gap that contains it.
    ///
    /// None outside the range of instants.
    #[must_use]
    pub fn place(&self, local: DateTime) -> Option<Timestamp> {
        match self.0.to_ambiguous_timestamp(local).offset() {
            AmbiguousOffset::Unambiguous { offset } | AmbiguousOffset::Fold { before: offset, .. } => {
                offset.to_timestamp(local).ok()
            }
            AmbiguousOffset::Gap { after, .. } => {
                // With the offset after the gap, the local time lies before the gap's end.
                let earlier = after.to_timestamp(local).ok()?;
                self.0.following(earlier).find(|next| next.offset() == after).map(|next| next.timestamp())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(zone: &str, local: &str) -> String {
        zone.parse::<Zone>().unwrap().place(local.parse().unwrap()).unwrap().to_string()
    }

    #[test]
    fn a_skipped_local_time_is_placed_at_the_end_of_the_gap() {
        for skipped in ["02:00:00", "02:30:00", "02:59:59", "03:00:00"] {
            assert_eq!(place("Europe/Berlin", &format!("2026-03-29T{skipped}")), "2026-03-29T01:00:00Z", "{skipped}");
        }
        assert_eq!(place("Europe/Berlin", "2026-03-29T01:59:59"), "2026-03-29T00:59:59Z");
        assert_eq!(place("Europe/Berlin", "2026-03-29T03:00:01"), "2026-03-29T01:00:01Z");
        // Gaps of half an hour on Lord Howe Island, at midnight in Havana, of a whole day on Samoa.
        assert_eq!(place("Australia/Lord_Howe", "2026-10-04T02:10:00"), "2026-10-03T15:30:00Z");
        assert_eq!(place("America/Havana", "2026-03-08T00:00:00"), "2026-03-08T05:00:00Z");
        assert_eq!(place("Pacific/Apia", "2011-12-30T12:00:00"), "2011-12-30T10:00:00Z");
    }

    #[test]
    fn a_repeated_local_time_is_the_first_one() {
        assert_eq!(place("Europe/Berlin", "2026-10-25T02:30:00"), "2026-10-25T00:30:00Z");
        assert_eq!(place("Europe/Berlin", "2026-10-25T03:00:00"), "2026-10-25T02:00:00Z");
        assert_eq!(place("Australia/Lord_Howe", "2026-04-05T01:45:00"), "2026-04-04T14:45:00Z");
    }

    #[test]
    fn a_zone_is_known_by_its_iana_name() {
        for name in [
            "UTC",
            "Europe/Berlin",
            "europe/berlin",
            "Asia/Kathmandu",
            "America/Argentina/ComodRivadavia",
            "EST5EDT",
            "Etc/GMT+5",
            "Japan",
            "US/Eastern",
            "GMT",
            "Zulu",
        ] {
            assert!(name.parse::<Zone>().is_ok(), "{name}");
        }
        let long = "x".repeat(1_000_000);
        for name in [
            "",
            "Europe/Berln",
            "Etc/Unknown",
            "+02:00",
            "../../etc/passwd",
            "/etc/localtime",
            "UTC\0",
            "CEST-2",
            "localtime",
            "LOCALTIME",
            "posixrules",
            "Factory",
            "posix/Europe/Berlin",
            "right/UTC",
            "tzdata.zi",
            "Europe",
            &long,
        ] {
            let error = name.parse::<Zone>().unwrap_err().to_string();
            assert!(error.contains("not an IANA time zone") && error.len() < 1_000, "{error}");
        }
    }

    #[test]
    fn the_ends_of_time_are_no_panic() {
        for zone in ["UTC", "Pacific/Kiritimati", "America/New_York"] {
            let zone: Zone = zone.parse().unwrap();
            for end in [DateTime::MIN, DateTime::MAX] {
                let _ = zone.place(end);
            }
            assert_eq!(zone.place(zone.local(Timestamp::UNIX_EPOCH)), Some(Timestamp::UNIX_EPOCH));
        }
    }
}
