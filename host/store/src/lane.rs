//! Lanes: the numbers by which the index `job_due` orders waiting jobs.
//!
//! A group has ten lanes for its delivered jobs, one for each priority, the most urgent first, and then ten for its pulled jobs.

use std::collections::HashMap;

use super::Owed;
use carillon_core::clock::UnixMs;
use carillon_core::job::{DispatchMode, GroupId, NewJob, Priority};

/// Number of lanes of a group; the second half is for pulled jobs.
const LANES: i64 = 20;
const PULL: i64 = 10;

/// Waiting jobs of a group with one way of dispatch: the times of the first ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupBacklog {
    /// Group of the jobs.
    pub group: GroupId,
    /// Dispatch mode of the jobs.
    pub mode: DispatchMode,
    /// Earliest `run_at` of the jobs.
    pub earliest: UnixMs,
    /// Earliest `run_at` of each priority, from priority 0 on; [`UnixMs::MAX`] where no job waits.
    pub by_priority: [UnixMs; 10],
}

/// Returns the lane of a new job.
pub fn of_new(job: &NewJob) -> i64 {
    of(job.group, job.spec.dispatch_mode(), job.priority)
}

/// Returns the lane of a job.
pub fn of(group: GroupId, mode: DispatchMode, priority: Priority) -> i64 {
    first(group, mode) + i64::from(u8::from(Priority::MAX) - u8::from(priority))
}

/// Returns the first of the ten lanes of a group's jobs with this mode.
pub fn first(group: GroupId, mode: DispatchMode) -> i64 {
    let offset = match mode {
        DispatchMode::Push => 0,
        DispatchMode::Pull => PULL,
    };
    group.0.saturating_mul(LANES) + offset
}

/// Returns the group of a lane, and the mode of its jobs.
pub fn group(lane: i64) -> (GroupId, DispatchMode) {
    let mode = if lane.rem_euclid(LANES) < PULL { DispatchMode::Push } else { DispatchMode::Pull };
    (GroupId(lane.div_euclid(LANES)), mode)
}

/// Returns the lane of the jobs whose starts are owed.
pub fn owed(owed: &Owed, mode: DispatchMode) -> i64 {
    of(owed.group, mode, owed.priority)
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
        let (group, mode) = group(lane);
        match groups.last_mut().filter(|last| (last.group, last.mode) == (group, mode)) {
            Some(last) => last.earliest = last.earliest.min(earliest),
            None => groups.push(GroupBacklog { group, mode, earliest, by_priority: [UnixMs::MAX; 10] }),
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
        use DispatchMode::{Pull, Push};
        for (group_id, mode, level) in [(1, Push, 0), (1, Pull, 9), (7, Push, 4), (1 << 40, Pull, 0)] {
            let (group_id, level) = (GroupId(group_id), Priority::new(level).unwrap());
            let lane = of(group_id, mode, level);
            assert_eq!((group(lane), priority(lane)), ((group_id, mode), level));
        }
        assert!(of(GroupId(3), Push, Priority::MAX) < of(GroupId(3), Push, Priority::default()));
    }
}
