//! Claims of jobs whose time is over, by their leases or their deadlines, and extensions of leases.

use carillon_core::clock::UnixMs;
use carillon_core::job::Lease;

/// A claim of jobs whose leases ended without a settlement.
#[derive(Clone, Debug)]
pub struct ClaimLost {
    /// Leases that may have ended.
    pub lost: Vec<Lease>,
    /// Time up to which they must have ended; [`UnixMs::MAX`] revokes them.
    pub ended_by: UnixMs,
    /// Current time.
    pub now: UnixMs,
    /// Time when the new leases end.
    pub lease_until: UnixMs,
}

/// A claim of waiting jobs whose deadlines have passed.
#[derive(Clone, Copy, Debug)]
pub struct ClaimOverdue {
    /// Current time.
    pub now: UnixMs,
    /// Time when the leases end.
    pub lease_until: UnixMs,
    /// Maximum number of jobs.
    pub limit: u32,
}

/// New end of leases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extension {
    /// This time, or the present end if that is later. A call that takes effect after later ones takes nothing back.
    AtLeast(UnixMs),
    /// This time, be it earlier or later than the present end.
    Exactly(UnixMs),
}

impl Extension {
    /// Returns the time, and whether it holds where the lease ends later already.
    #[must_use]
    pub fn parts(self) -> (UnixMs, bool) {
        match self {
            Self::AtLeast(until) => (until, false),
            Self::Exactly(until) => (until, true),
        }
    }
}
