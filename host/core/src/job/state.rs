//! The states of a job. The diagram is in the documentation of [`super`].

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Where a job stands; the diagram is in the module's documentation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Waits for its `run_at`.
    Scheduled,
    /// Leased: an attempt is being made.
    Running,
    /// Final: an answer was judged a success.
    Succeeded,
    /// Final: it will not be tried again.
    Dead,
    /// Final: its time ran out before it succeeded.
    Expired,
    /// Final: somebody cancelled it.
    Cancelled,
}

impl State {
    /// Every state, in the order of the diagram.
    pub const ALL: [Self; 6] =
        [Self::Scheduled, Self::Running, Self::Succeeded, Self::Dead, Self::Expired, Self::Cancelled];

    /// Whether a job can go from this state to `next` in one step.
    #[must_use]
    pub fn can_become(self, next: Self) -> bool {
        match self {
            Self::Scheduled => matches!(next, Self::Running | Self::Cancelled | Self::Expired),
            Self::Running => next != Self::Running,
            // By a redrive only.
            Self::Dead | Self::Expired => next == Self::Scheduled,
            Self::Succeeded | Self::Cancelled => false,
        }
    }

    /// Whether a job stays in this state for good, unless somebody redrives it.
    #[must_use]
    pub fn is_final(self) -> bool {
        !matches!(self, Self::Scheduled | Self::Running)
    }

    /// The state's name in the API and in the store.
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
