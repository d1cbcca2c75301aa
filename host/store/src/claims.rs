//! Claims of jobs whose time is over: their leases, or their deadlines.

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
