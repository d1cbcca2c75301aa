//! What the next claim may take: the decision between the store's backlog and a claim.

use std::collections::HashMap;
use std::time::Duration;

use carillon_core::clock::UnixMs;
use carillon_core::job::GroupId;

use super::CLAIM_LEAD;

/// The plan of the next claim, computed from the store's backlog.
pub(super) struct ClaimPlan {
    /// Number of jobs to claim from each group.
    pub(super) quotas: Vec<(GroupId, u32)>,
    /// Look-ahead of the claim: it also takes jobs that become due within this time.
    pub(super) ahead: Duration,
    /// Whether `quotas` contains every group that has due jobs and may start some.
    pub(super) has_all_groups: bool,
    /// When more jobs may be due, unless the loop is woken before.
    pub(super) next: UnixMs,
    /// Whether jobs are due that may not start, because the concurrency is used up.
    pub(super) saturated: bool,
}

impl ClaimPlan {
    /// Returns when to plan again after a claim of the jobs that are due up to `due_by`; `None` means at once.
    ///
    /// Where every group had fewer due jobs than its quota, all of them were leased, and the next plan can wait until shortly before `due_by`.
    /// The same holds where the claim leased nothing: the due jobs are then held by another transaction, such as rows that another node has
    /// locked.
    pub(super) fn after_claim(&self, taken: &HashMap<GroupId, u32>, due_by: UnixMs) -> Option<UnixMs> {
        let is_empty = |(group, quota): &(GroupId, u32)| taken.get(group).is_none_or(|taken| taken < quota);
        let are_empty = self.has_all_groups && self.quotas.iter().all(is_empty);
        (are_empty || taken.is_empty()).then(|| self.next.min(due_by.minus(CLAIM_LEAD)))
    }
}
