//! Versions of a group's policy that are tried out: which attempts and which jobs they get. Pure.

use serde::{Deserialize, Serialize};

use carillon_core::clock::UnixMs;
use carillon_core::job::{GroupId, JobId};
use carillon_core::stable_hash::fnv;

/// A version that runs beside the one in force; what it says is compared, and never used.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Shadow {
    /// Which one.
    pub version: i64,
    /// How many of a hundred attempts it is shown.
    pub percent: u32,
    /// When it was set.
    pub since: UnixMs,
    /// Who set it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
}

impl Shadow {
    /// Whether it is shown this attempt.
    #[must_use]
    pub fn sees(&self, job: JobId, attempt: u32) -> bool {
        hundredth(job.0.as_bytes().iter().copied().chain(attempt.to_le_bytes())) < u64::from(self.percent)
    }
}

/// A version that some of the jobs follow, and when it is taken back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Canary {
    /// Which one.
    pub version: i64,
    /// How many of a hundred jobs follow it.
    pub percent: u32,
    /// Since when.
    pub since: UnixMs,
    /// Who began it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// The largest share of its attempts that may have a fault.
    pub max_faults: f64,
    /// By how much the share of its attempts that are no success may exceed that of the version in force.
    pub max_differences: f64,
    /// How many attempts of each it takes to say so.
    pub min_attempts: u32,
}

impl Canary {
    /// Whether it is followed by this job of the group.
    #[must_use]
    pub fn takes(&self, group: GroupId, job: JobId) -> bool {
        // Otherwise the same jobs would be the first to try out each version, of each group.
        let salt = group.0.to_le_bytes().into_iter().chain(self.version.to_le_bytes());
        hundredth(salt.chain(job.0.as_bytes().iter().copied())) < u64::from(self.percent)
    }
}

/// One of a hundred equal parts, the same on all nodes.
fn hundredth(bytes: impl Iterator<Item = u8>) -> u64 {
    // The low bits of the hash alone would be worse.
    let hash = fnv(bytes);
    (hash ^ (hash >> 32)) % 100
}
