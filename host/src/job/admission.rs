//! Under what condition a job is taken in. The store decides in the transaction that would insert it, so that of many producers
//! exactly one is told yes.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::JobId;
use crate::clock::UnixMs;

/// Under what condition a new job is stored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Admission {
    /// It always is.
    #[default]
    Always,
    /// Unless the group has accepted another one with this key since less than `window`.
    Unique {
        /// Compared byte for byte within the group.
        key: String,
        /// How long the key is remembered.
        window: Duration,
    },
    /// As [`Debounce`] says.
    Debounced(Debounce),
    /// Once for each tick of a schedule.
    Tick(Tick),
    /// In place of the group's unfinished jobs of the same name. Those that wait are cancelled; one that runs is when its attempt is
    /// over, unless that succeeds.
    Replace {
        /// Also in place of this job: it is cancelled if it waits and removed if it has ended. If it runs or is not there, the new
        /// one is not stored.
        moved: Option<JobId>,
    },
}

/// At most one job of a key runs within a window, and none is lost: work that is asked for while a delayed job waits is done by it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Debounce {
    /// Compared byte for byte within the tenant, whatever the group.
    pub key: String,
    /// The window.
    pub window: Duration,
    /// Whether a job waits for the window even if there was none before it.
    pub always_delay: bool,
}

/// What is remembered of a debounced key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastPush {
    /// When the newest job of this key became due, or will.
    pub at: UnixMs,
}

/// What a debounced job is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Debounced {
    /// A job of this key waits and will do the work.
    Hit,
    /// It is stored, due at this time.
    Miss(UnixMs),
}

impl Debounce {
    /// Decides about a job at `now`. `last` is the key's newest push; `waits` says whether that job still waits for its time.
    ///
    /// The rules are Deferrable's, with one correction: calls are skipped for as long as the delayed job waits, not for the whole
    /// window, because a call that comes after it has run would be lost.
    #[must_use]
    pub fn decide(&self, now: UnixMs, last: Option<LastPush>, waits: bool) -> Debounced {
        match last {
            Some(last) if waits && now < last.at => Debounced::Hit,
            _ if self.always_delay => Debounced::Miss(now.plus(self.window)),
            // The job that was to run then was cancelled, or has run early: this one takes its place.
            Some(last) if now < last.at => Debounced::Miss(last.at),
            Some(last) if now.0 - last.at.0 <= millis(self.window) => {
                // Whole seconds, rounded up, and at least one.
                let left = millis(self.window) - (now.0 - last.at.0);
                let seconds = left.max(1).div_euclid(1_000) + i64::from(left.max(1).rem_euclid(1_000) > 0);
                Debounced::Miss(UnixMs(now.0.saturating_add(seconds.saturating_mul(1_000))))
            }
            _ => Debounced::Miss(now),
        }
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// What happens when a tick comes while an earlier job of its schedule is unfinished.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Overlap {
    /// The tick makes no job.
    #[default]
    Skip,
    /// Its job waits until the earlier ones are over.
    Queue,
    /// The earlier ones are cancelled.
    Cancel,
    /// They run side by side.
    Allow,
}

/// One tick of a schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tick {
    /// The schedule's number in the store.
    pub schedule: i64,
    /// Its time, without jitter. Unique within the schedule.
    pub at: UnixMs,
    /// What to do about unfinished jobs of the schedule.
    pub overlap: Overlap,
    /// The schedule's ticks make no more jobs than this; those of ticks that were asked for again do not count.
    pub max_runs: Option<u64>,
    /// Whether a tick that was dealt with but made no job makes one now.
    pub again: bool,
}

impl Tick {
    /// How far its schedule has come with it: a tick that was asked for again says nothing of those before it.
    #[must_use]
    pub fn reached(&self) -> UnixMs {
        if self.again { UnixMs(-1) } else { self.at }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> UnixMs {
        UnixMs(1_795_168_800_000 + seconds * 1_000)
    }

    /// Calls at these seconds, window 30 s; each says when its job is due, or that it was skipped.
    fn calls(always_delay: bool, times: &[i64]) -> Vec<Option<i64>> {
        let debounce = Debounce { key: "k".into(), window: Duration::from_secs(30), always_delay };
        let mut last = None;
        let decide = |seconds: &i64| {
            let waits = last.is_some_and(|last: LastPush| at(*seconds) < last.at);
            match debounce.decide(at(*seconds), last, waits) {
                Debounced::Hit => None,
                Debounced::Miss(due) => {
                    last = Some(LastPush { at: due });
                    Some((due.0 - at(0).0) / 1_000)
                }
            }
        };
        times.iter().map(decide).collect()
    }

    #[test]
    fn the_first_runs_now_the_second_later_the_third_not_at_all() {
        assert_eq!(calls(false, &[0, 0, 0]), [Some(0), Some(30), None]);
        assert_eq!(calls(false, &[0, 20, 25]), [Some(0), Some(30), None]);
    }

    #[test]
    fn a_call_after_the_delayed_job_is_not_lost() {
        // The job of second 20 runs at 30. Deferrable would skip every call until 50.
        assert_eq!(calls(false, &[0, 20, 31, 32]), [Some(0), Some(30), Some(60), None]);
    }

    #[test]
    fn a_call_after_a_quiet_window_runs_now() {
        assert_eq!(calls(false, &[0, 30, 100]), [Some(0), Some(31), Some(100)]);
        assert_eq!(calls(false, &[0, 31]), [Some(0), Some(31)]);
    }

    #[test]
    fn always_delay_delays_the_first_too() {
        assert_eq!(calls(true, &[0, 10, 29, 30]), [Some(30), None, None, Some(60)]);
    }

    #[test]
    fn a_job_that_no_longer_waits_skips_nothing() {
        let debounce = Debounce { key: "k".into(), window: Duration::from_secs(30), always_delay: false };
        let last = Some(LastPush { at: at(30) });
        assert_eq!(debounce.decide(at(20), last, false), Debounced::Miss(at(30)), "it was cancelled");
        assert_eq!(debounce.decide(at(20), last, true), Debounced::Hit);
    }

    #[test]
    fn delays_are_whole_seconds_rounded_up() {
        let debounce = Debounce { key: "k".into(), window: Duration::from_millis(1_500), always_delay: false };
        let last = Some(LastPush { at: at(0) });
        assert_eq!(debounce.decide(UnixMs(at(0).0 + 200), last, false), Debounced::Miss(UnixMs(at(2).0 + 200)));
    }
}
