//! Lanes: the numbers by which the index `job_due` orders waiting jobs.
//!
//! A group has ten lanes for its delivered jobs, one for each priority, the most urgent first, and then ten for its pulled jobs.

use std::collections::HashMap;

use super::Owed;
use carillon_core::clock::UnixMs;
use carillon_core::job::{GroupId, Priority};

/// Number of lanes of a group; the second half is for pulled jobs.
const LANES: i64 = 20;
const PULL: i64 = 10;

/// Waiting jobs of a group with one way of dispatch: the times of the first ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupBacklog {
    /// Group of the jobs.
    pub group: GroupId,
    /// Whether the jobs are pulled instead of delivered.
    pub pull: bool,
    /// Earliest `run_at` of the jobs.
    pub earliest: UnixMs,
    /// Earliest `run_at` of each priority, from priority 0 on; [`UnixMs::MAX`] where no job waits.
    pub by_priority: [UnixMs; 10],
}

/// Returns the lane of a job.
pub fn of(group: GroupId, pull: bool, priority: Priority) -> i64 {
    first(group, pull) + i64::from(u8::from(Priority::MAX) - u8::from(priority))
}

/// Returns the first of the ten lanes of a group's pulled or delivered jobs.
pub fn first(group: GroupId, pull: bool) -> i64 {
    group.0.saturating_mul(LANES) + if pull { PULL } else { 0 }
}

/// Returns the group of a lane, and whether its jobs are pulled.
pub fn group(lane: i64) -> (GroupId, bool) {
    (GroupId(lane.div_euclid(LANES)), lane.rem_euclid(LANES) >= PULL)
}

/// Returns the lane of the jobs whose starts are owed.
pub fn owed(owed: &Owed, pull: bool) -> i64 {
    of(owed.group, pull, owed.priority)
}

/// Returns what remains of each group's quota after a job of each group in `taken` was claimed.
pub fn left(quotas: &[(GroupId, u32)], taken: impl Iterator<Item = GroupId>) -> Vec<(GroupId, u32)> {
    let mut counts: HashMap<GroupId, u32> = HashMap::new();
    taken.for_each(|group| *counts.entry(group).or_default() += 1);
    let left = |(group, most): &(GroupId, u32)| (*group, most.saturating_sub(counts.get(group).copied().unwrap_or(0)));
    quotas.iter().map(left).collect()
}

/// Combines lanes, given in order with the `run_at` of their first jobs, into groups.
pub fn groups(lanes: impl Iterator<Item = (i64, UnixMs)>) -> Vec<GroupBacklog> {
    let mut groups: Vec<GroupBacklog> = Vec::new();
    for (lane, earliest) in lanes {
        let (group, pull) = group(lane);
        match groups.last_mut().filter(|last| (last.group, last.pull) == (group, pull)) {
            Some(last) => last.earliest = last.earliest.min(earliest),
            None => groups.push(GroupBacklog { group, pull, earliest, by_priority: [UnixMs::MAX; 10] }),
        }
        let of_priority =
            groups.last_mut().and_then(|last| last.by_priority.get_mut(usize::from(u8::from(priority(lane)))));
        if let Some(first) = of_priority {
            *first = earliest;
        }
    }
    groups
}

/// Returns the priority of a lane.
pub fn priority(lane: i64) -> Priority {
    let level = u8::from(Priority::MAX) - u8::try_from(lane.rem_euclid(PULL)).unwrap_or(0);
    Priority::new(level).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lane_says_what_it_was_made_of() {
        for (group_id, pull, level) in [(1, false, 0), (1, true, 9), (7, false, 4), (1 << 40, true, 0)] {
            let (group_id, level) = (GroupId(group_id), Priority::new(level).unwrap());
            let lane = of(group_id, pull, level);
            assert_eq!((group(lane), priority(lane)), ((group_id, pull), level));
        }
        assert!(of(GroupId(3), false, Priority::MAX) < of(GroupId(3), false, Priority::default()));
    }
}
