//! Under what condition a job is taken in. The store decides in the transaction that would insert it, so that of many producers
//! exactly one is told yes.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Job, JobId, State};
use crate::clock::UnixMs;

/// Under what condition a new job is stored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Admission {
    /// It always is.
    #[default]
    Always,
    /// Unless the group has accepted another one with this key since less than `window`, and that one does its work: see
    /// [`stands_for_later`].
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
    /// Whose request the job carries that waits for the window.
    pub carries: Carries,
}

/// Of several debounced requests, the one that the waiting job carries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Carries {
    /// The first one: the key follows from the content, so the others ask for the same.
    #[default]
    First,
    /// The newest one: the key was given, so the others may ask for something else.
    Newest,
}

/// Returns whether a job does the work of later ones with its dedupe key.
///
/// It does while it is unfinished, unless it is to be cancelled, and after it has succeeded. A job that has ended otherwise does nothing
/// more, and must not swallow a new request.
#[must_use]
pub fn stands_for_later(job: &Job) -> bool {
    match job.state {
        State::Scheduled | State::Running => !job.cancel_requested,
        State::Succeeded => true,
        State::Dead | State::Expired | State::Cancelled => false,
    }
}

/// What has become of the newest job of a debounced key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Newest {
    /// It waits for its time.
    Waits,
    /// It was tried, or is being tried. It was due then.
    Begun(UnixMs),
    /// It has ended without an attempt, or is not there.
    Gone,
}

impl Newest {
    /// Of this job.
    #[must_use]
    pub fn of(job: Option<&Job>) -> Self {
        let Some(job) = job else { return Self::Gone };
        match job.state {
            State::Scheduled if job.attempt_count == 0 => Self::Waits,
            State::Cancelled | State::Expired if job.attempt_count == 0 => Self::Gone,
            _ => Self::Begun(job.run_at),
        }
    }
}

/// What is remembered of a debounced key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastAccepted {
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
    /// Decides about a job at `now`. `last` is the key's newest push, and `newest` what has become of that job.
    ///
    /// The rules are Deferrable's, with one correction: calls are skipped for as long as the delayed job waits, not for the whole
    /// window, because a call that comes after it has run would be lost.
    #[must_use]
    pub fn decide(&self, now: UnixMs, last: Option<LastAccepted>, newest: Newest) -> Debounced {
        // A job that was run early opens its window then. One that is claimed a moment ahead of its time opens it at its time.
        let begun = match newest {
            Newest::Begun(due) => last.map(|last| LastAccepted { at: last.at.min(due) }),
            Newest::Waits | Newest::Gone => None,
        };
        match begun.or(last) {
            Some(last) if newest == Newest::Waits && now < last.at => Debounced::Hit,
            _ if self.always_delay => Debounced::Miss(begun.map_or(now, |last| last.at.max(now)).plus(self.window)),
            // The job that was to run then was cancelled: this one takes its place.
            Some(last) if newest == Newest::Gone && now < last.at => Debounced::Miss(last.at),
            Some(last) if now.0 - last.at.0 <= millis(self.window) => {
                let left = (millis(self.window) - (now.0 - last.at.0)).max(1);
                Debounced::Miss(UnixMs(now.0.saturating_add(self.delay(left))))
            }
            _ => Debounced::Miss(now),
        }
    }
}

impl Debounce {
    /// A delay in milliseconds. Of a window of whole seconds delays are whole seconds, too, rounded up; others are exact.
    fn delay(&self, left: i64) -> i64 {
        if self.window.subsec_nanos() > 0 {
            return left;
        }
        (left.div_euclid(1_000) + i64::from(left.rem_euclid(1_000) > 0)).saturating_mul(1_000)
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

    fn debounce(window_ms: u64, always_delay: bool) -> Debounce {
        let window = Duration::from_millis(window_ms);
        Debounce { key: "k".into(), window, always_delay, carries: Carries::First }
    }

    /// Calls at these seconds, window 30 s; each says when its job is due, or that it was skipped.
    fn calls(always_delay: bool, times: &[i64]) -> Vec<Option<i64>> {
        let debounce = debounce(30_000, always_delay);
        let mut last = None;
        let decide = |seconds: &i64| {
            let newest = match last {
                Some(LastAccepted { at: due }) if at(*seconds) < due => Newest::Waits,
                Some(LastAccepted { at: due }) => Newest::Begun(due),
                None => Newest::Gone,
            };
            match debounce.decide(at(*seconds), last, newest) {
                Debounced::Hit => None,
                Debounced::Miss(due) => {
                    last = Some(LastAccepted { at: due });
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
        let last = Some(LastAccepted { at: at(30) });
        assert_eq!(
            debounce(30_000, false).decide(at(20), last, Newest::Gone),
            Debounced::Miss(at(30)),
            "it was cancelled"
        );
        assert_eq!(debounce(30_000, false).decide(at(20), last, Newest::Waits), Debounced::Hit);
    }

    #[test]
    fn a_job_that_begins_ahead_of_its_time_opens_the_next_window() {
        let (last, ahead) = (Some(LastAccepted { at: at(30) }), UnixMs(at(30).0 - 50));
        for always_delay in [false, true] {
            let decided = debounce(30_000, always_delay).decide(ahead, last, Newest::Begun(at(30)));
            assert!(matches!(decided, Debounced::Miss(due) if due >= at(60)), "{decided:?}");
        }
        let run_early = debounce(30_000, false).decide(at(6), last, Newest::Begun(at(5)));
        assert_eq!(run_early, Debounced::Miss(at(35)), "a window after it has run");
    }

    #[test]
    fn delays_are_whole_seconds_rounded_up() {
        let decided = |window, now| {
            let last = Some(LastAccepted { at: at(0) });
            debounce(window, false).decide(UnixMs(at(0).0 + now), last, Newest::Begun(at(0)))
        };
        assert_eq!(decided(2_000, 200), Debounced::Miss(UnixMs(at(2).0 + 200)));
        assert_eq!(decided(1_500, 200), Debounced::Miss(UnixMs(at(1).0 + 500)), "but those of a fraction are exact");
        assert_eq!(decided(1_500, 1_500), Debounced::Miss(UnixMs(at(1).0 + 501)));
    }
}
