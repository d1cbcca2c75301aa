//! States of a job; the documentation of [`super`] has the diagram.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// State of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// The job waits for its `run_at`.
    Scheduled,
    /// An attempt is being made, under a lease.
    Running,
    /// Final: the judge decided that a response was a success.
    Succeeded,
    /// Final: the job has failed and is not tried again.
    Dead,
    /// Final: the job's deadline passed before it succeeded.
    Expired,
    /// Final: the job was cancelled.
    Cancelled,
}

impl State {
    /// All states, in the order of the diagram.
    pub const ALL: [Self; 6] =
        [Self::Scheduled, Self::Running, Self::Succeeded, Self::Dead, Self::Expired, Self::Cancelled];

    /// Returns whether a job can go from this state to `next` in one step.
    #[must_use]
    pub fn can_become(self, next: Self) -> bool {
        match self {
            Self::Scheduled => matches!(next, Self::Running | Self::Cancelled | Self::Expired),
            Self::Running => next != Self::Running,
            // Only by a redrive.
            Self::Dead | Self::Expired => next == Self::Scheduled,
            Self::Succeeded | Self::Cancelled => false,
        }
    }

    /// Returns whether a job stays in this state for good, unless it is redriven.
    #[must_use]
    pub fn is_final(self) -> bool {
        !matches!(self, Self::Scheduled | Self::Running)
    }

    /// Returns the state's name in the API and in the store.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Scheduled => "scheduled",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Dead => "dead",
            Self::Expired => "expired",
            Self::Cancelled => "cancelled",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for State {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|state| state.as_str() == text).ok_or_else(|| {
            format!("`{text}` is not a state; the states are {}", Self::ALL.map(Self::as_str).join(", "))
        })
    }
}
