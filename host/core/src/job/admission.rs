//! Admission: the condition under which a job is stored.
//!
//! The store evaluates it in the transaction that would insert the job, so that of many producers exactly one succeeds.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Job, JobId, SkipReason, State};
use crate::clock::UnixMs;

/// Condition under which a new job is stored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Admission {
    /// No condition.
    #[default]
    Always,
    /// The group has accepted no other job with this key within `window`, or that job does not do the new one's work (see
    /// [`stands_for_later`]).
    Unique {
        /// Compared byte for byte within the group.
        key: String,
        /// Time for which the key is remembered, from acceptance.
        window: Duration,
    },
    /// The conditions of [`Debounce`].
    Debounced(Debounce),
    /// The tick has made no job yet, and its schedule allows one.
    Tick(Tick),
    /// No condition, but the job replaces the group's unfinished jobs of the same name.
    ///
    /// Waiting jobs are cancelled. A running job is cancelled when its attempt is over, unless that succeeds.
    Replace {
        /// A further job to replace.
        ///
        /// It is cancelled if it waits and removed if it has ended. If it runs or does not exist, the new job is not stored.
        moved: Option<JobId>,
    },
}

impl Admission {
    /// Returns the number of the schedule whose tick makes the job, if one does.
    #[must_use]
    pub fn schedule(&self) -> Option<i64> {
        match self {
            Self::Tick(tick) => Some(tick.schedule),
            Self::Always | Self::Unique { .. } | Self::Debounced(_) | Self::Replace { .. } => None,
        }
    }
}

/// Debouncing: at most one job of a key runs within a window, and no request is lost, because the delayed job does the work of later
/// requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Debounce {
    /// Compared byte for byte within the tenant, over all groups.
    pub key: String,
    /// Length of the window.
    pub window: Duration,
    /// Whether a job waits for the window even if no other job came before it.
    pub always_delay: bool,
    /// Request that the waiting job carries.
    pub carries: Carries,
}

/// Choice among several debounced requests: the one that the waiting job carries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Carries {
    /// The first one: the key is derived from the content, so the other requests are equal.
    #[default]
    First,
    /// The newest one: the producer gave the key, so the other requests may differ.
    Newest,
}

/// Returns whether a job does the work of later jobs with its dedupe key.
///
/// It does while it is unfinished, unless a cancel is requested, and after it has succeeded. A job that has ended otherwise does no more
/// work, and must not swallow a new request.
#[must_use]
pub fn stands_for_later(job: &Job) -> bool {
    match job.state {
        State::Scheduled | State::Running => !job.cancel_requested,
        State::Succeeded => true,
        State::Dead | State::Expired | State::Cancelled => false,
    }
}

/// State of the newest job of a debounce key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Newest {
    /// The job waits for its time.
    Waits,
    /// An attempt of the job has begun; it was due at this time.
    Begun(UnixMs),
    /// The job has ended without an attempt, or does not exist.
    Gone,
}

impl Newest {
    /// Returns the state of this job.
    #[must_use]
    pub fn from_job(job: Option<&Job>) -> Self {
        let Some(job) = job else { return Self::Gone };
        match job.state {
            State::Scheduled if job.attempt_count == 0 => Self::Waits,
            State::Cancelled | State::Expired if job.attempt_count == 0 => Self::Gone,
            _ => Self::Begun(job.run_at),
        }
    }
}

/// Record of a debounce key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastAccepted {
    /// Time when the newest job of this key became due, or will become due.
    pub at: UnixMs,
}

/// Decision about a debounced job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Debounced {
    /// A waiting job of this key will do the work; the new job is left out.
    Hit,
    /// The job is stored, due at this time.
    Miss(UnixMs),
}

impl Debounce {
    /// Decides about a job at `now`.
    ///
    /// `last` is the record of the key's newest job, and `newest` the state of that job. The rules are Deferrable's, with one correction:
    /// calls are skipped for as long as the delayed job waits, not for the whole window, because a call that comes after the delayed job has
    /// run would be lost.
    #[must_use]
    pub fn decide(&self, now: UnixMs, last: Option<LastAccepted>, newest: Newest) -> Debounced {
        // A job that ran early opens its window at its start. One that was claimed a moment ahead of its time opens it at its time.
        let begun = match newest {
            Newest::Begun(due) => last.map(|last| LastAccepted { at: last.at.min(due) }),
            Newest::Waits | Newest::Gone => None,
        };
        match begun.or(last) {
            Some(last) if newest == Newest::Waits && now < last.at => Debounced::Hit,
            _ if self.always_delay => Debounced::Miss(begun.map_or(now, |last| last.at.max(now)).plus(self.window)),
            // The job that was due then was cancelled: this one replaces it.
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
    /// Returns until when the key's record is kept, if its newest job is due at `run_at`.
    #[must_use]
    pub fn kept_until(&self, run_at: UnixMs) -> UnixMs {
        run_at.plus(self.window.saturating_mul(2))
    }

    /// Returns a delay in milliseconds.
    ///
    /// If the window is a number of whole seconds, so is the delay, rounded up; otherwise it is exact.
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

/// Effect of a tick that comes while an earlier job of its schedule is unfinished.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Overlap {
    /// The tick makes no job.
    #[default]
    Skip,
    /// The tick's job waits until the earlier jobs have ended.
    Queue,
    /// The earlier jobs are cancelled.
    Cancel,
    /// The jobs run at the same time.
    Allow,
}

/// One tick of a schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tick {
    /// Number of the schedule in the store.
    pub schedule: i64,
    /// Time of the tick, without jitter; unique within the schedule.
    pub at: UnixMs,
    /// Treatment of unfinished jobs of the schedule.
    pub overlap: Overlap,
    /// Largest number of jobs that the schedule's ticks make.
    ///
    /// Jobs of ticks that were run again on request do not count.
    pub max_runs: Option<u64>,
    /// Whether a tick that was handled without a job makes one now.
    pub again: bool,
}

impl Tick {
    /// Returns whether there is nothing left to do for the tick, if its record says whether it `ran`.
    #[must_use]
    pub fn is_handled(&self, ran: Option<bool>) -> bool {
        ran.is_some_and(|ran| ran || !self.again)
    }

    /// Returns the reason why the tick makes no job, if its schedule has made `runs` jobs that count.
    ///
    /// `unfinished` says whether the schedule has unfinished jobs; it matters only where [`Overlap::Skip`] asks for it.
    #[must_use]
    pub fn reason_to_skip(&self, runs: u64, unfinished: bool) -> Option<SkipReason> {
        if self.max_runs.is_some_and(|most| runs >= most) {
            Some(SkipReason::MaxRuns)
        } else if self.overlap == Overlap::Skip && unfinished {
            Some(SkipReason::Overlap)
        } else {
            None
        }
    }

    /// Returns the schedule's progress after this tick.
    ///
    /// A tick that is run again on request says nothing about the ticks before it.
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

    /// Makes calls at these seconds with a window of 30 s; returns for each when its job is due, or None if it was skipped.
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

    fn tick(overlap: Overlap, max_runs: Option<u64>, again: bool) -> Tick {
        Tick { schedule: 1, at: at(0), overlap, max_runs, again }
    }

    #[test]
    fn a_tick_that_was_skipped_is_made_up_for_on_request_only() {
        for (again, handled) in [(false, [false, true, true]), (true, [false, false, true])] {
            let tick = tick(Overlap::Skip, None, again);
            assert_eq!([None, Some(false), Some(true)].map(|ran| tick.is_handled(ran)), handled, "again: {again}");
        }
    }

    #[test]
    fn a_tick_is_skipped_at_the_most_runs_and_beside_an_unfinished_job() {
        use Overlap::{Allow, Cancel, Queue, Skip};
        for overlap in [Skip, Queue, Cancel, Allow] {
            let skips_beside = (overlap == Skip).then_some(SkipReason::Overlap);
            assert_eq!(tick(overlap, Some(3), false).reason_to_skip(2, true), skips_beside, "{overlap:?}");
            assert_eq!(tick(overlap, Some(3), false).reason_to_skip(2, false), None);
            assert_eq!(tick(overlap, Some(3), false).reason_to_skip(3, true), Some(SkipReason::MaxRuns));
            assert_eq!(tick(overlap, None, false).reason_to_skip(u64::MAX, false), None);
        }
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
