//! Shadows and canaries: the attempts and the jobs that a version under trial gets. Pure.

use serde::{Deserialize, Serialize};

use super::by::By;
use carillon_core::clock::UnixMs;
use carillon_core::job::{GroupId, JobId};
use carillon_core::stable_hash::fnv;

/// Version that runs beside the one in force; its results are compared and never used.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Shadow {
    /// Number of the version.
    pub version: i64,
    /// Percentage of the attempts that it is shown.
    pub percent: u32,
    /// Time at which it was set.
    pub since: UnixMs,
    /// Author of the change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<By>,
}

impl Shadow {
    /// Returns whether it is shown this attempt.
    #[must_use]
    pub fn sees(&self, job: JobId, attempt: u32) -> bool {
        hundredth(job.0.as_bytes().iter().copied().chain(attempt.to_le_bytes())) < u64::from(self.percent)
    }
}

/// Version that some of the jobs follow, with the bounds at which it is reverted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Canary {
    /// Number of the version.
    pub version: i64,
    /// Percentage of the jobs that follow it.
    pub percent: u32,
    /// Time at which it began.
    pub since: UnixMs,
    /// Author of the change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<By>,
    /// Reason given by the author of the change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// Maximum share of its attempts that may have a fault.
    pub max_faults: f64,
    /// Maximum difference between the share of its attempts without success and that of the version in force.
    pub max_differences: f64,
    /// Number of attempts of each version before they are compared.
    pub min_attempts: u32,
}

impl Canary {
    /// Returns whether this job of the group follows it.
    #[must_use]
    pub fn takes(&self, group: GroupId, job: JobId) -> bool {
        // Without this, the same jobs would be the first to try out each version, of each group.
        let salt = group.0.to_le_bytes().into_iter().chain(self.version.to_le_bytes());
        hundredth(salt.chain(job.0.as_bytes().iter().copied())) < u64::from(self.percent)
    }
}

/// Returns the hundredth of the hash's range that the bytes belong to, the same on all nodes.
fn hundredth(bytes: impl Iterator<Item = u8>) -> u64 {
    // The low bits of the hash alone are distributed less evenly.
    let hash = fnv(bytes);
    (hash ^ (hash >> 32)) % 100
}
