//! Reasons why ticks of a schedule made no job: one list for the event, the metric, the log and the schedule's history.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::clock::UnixMs;

/// Reason why a tick of a schedule made no job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SkipReason {
    /// An earlier job of the schedule was unfinished, and its `overlap` is `skip`.
    Overlap,
    /// The tick was noticed later than `catch_up` allows.
    TooLate,
    /// The tick was missed, and so was a newer one, which replaces it.
    Superseded,
    /// The schedule has made as many jobs as `max_runs` allows. Only the first such tick is recorded.
    MaxRuns,
    /// The tick was after the schedule's `end`. Only the first such tick is recorded.
    Ended,
    /// The schedule's group did not exist.
    GroupMissing,
    /// The schedule's group, or the job that it would have made, could not be used.
    GroupBroken,
    /// The schedule was paused.
    Paused,
}

impl SkipReason {
    /// All reasons.
    pub const ALL: [Self; 8] = [
        Self::Overlap,
        Self::TooLate,
        Self::Superseded,
        Self::MaxRuns,
        Self::Ended,
        Self::GroupMissing,
        Self::GroupBroken,
        Self::Paused,
    ];

    /// Returns the reason's name in the API, in metrics and in the store.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Overlap => "overlap",
            Self::TooLate => "too_late",
            Self::Superseded => "superseded",
            Self::MaxRuns => "max_runs",
            Self::Ended => "ended",
            Self::GroupMissing => "group_missing",
            Self::GroupBroken => "group_broken",
            Self::Paused => "paused",
        }
    }

    /// Returns the reason as a sentence.
    #[must_use]
    pub fn sentence(self) -> &'static str {
        match self {
            Self::Overlap => "an earlier job of the schedule was unfinished (`overlap` is `skip`)",
            Self::TooLate => "the run was noticed later than `catch_up` allows",
            Self::Superseded => "a newer run was missed too and replaces this one (`catch_up_all` is false)",
            Self::MaxRuns => "the schedule has made as many jobs as `max_runs` allows",
            Self::Ended => "the run is after the schedule's `end`",
            Self::GroupMissing => "the schedule's group did not exist",
            Self::GroupBroken => "the schedule's group or job was not valid",
            Self::Paused => "the schedule was paused",
        }
    }

    /// Returns whether no later tick of the schedule makes a job unless the schedule is changed.
    #[must_use]
    pub fn is_final(self) -> bool {
        matches!(self, Self::MaxRuns | Self::Ended)
    }
}

impl fmt::Display for SkipReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for SkipReason {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = || Self::ALL.map(Self::as_str).join(", ");
        Self::ALL.into_iter().find(|reason| reason.as_str() == text).ok_or_else(|| {
            format!("`{}` is not a reason for which a run is skipped; they are {}", text.escape_debug(), known())
        })
    }
}

/// Consecutive ticks of one schedule that made no job for the same reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SkippedTicks {
    /// First of the ticks.
    pub first: UnixMs,
    /// Last of the ticks.
    pub last: UnixMs,
    /// Number of ticks; from `SKIPPED_COUNTED` on, a lower bound.
    pub count: u64,
    /// Reason why they made no job.
    pub reason: SkipReason,
}

impl SkippedTicks {
    /// Makes the record of a single tick.
    #[must_use]
    pub fn one(tick: UnixMs, reason: SkipReason) -> Self {
        Self { first: tick, last: tick, count: 1, reason }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_a_name_and_a_sentence_of_its_own() {
        for texts in [SkipReason::ALL.map(SkipReason::as_str), SkipReason::ALL.map(SkipReason::sentence)] {
            assert_eq!(std::collections::HashSet::from(texts).len(), SkipReason::ALL.len());
        }
        for reason in SkipReason::ALL {
            assert_eq!(reason.as_str().parse(), Ok(reason));
            assert_eq!(serde_json::to_value(reason).unwrap(), reason.as_str());
        }
        assert!("late".parse::<SkipReason>().unwrap_err().contains("too_late"));
    }
}
