//! Lanes: the numbers by which the index `job_due` orders what waits. A group has ten for its jobs to deliver, one for each priority,
//! the most urgent first, and then ten for its jobs to pull.

use std::collections::HashMap;

use super::Owed;
use carillon_core::clock::UnixMs;
use carillon_core::job::{GroupId, Priority};

/// How many lanes a group has, and where those of its jobs to pull begin.
const LANES: i64 = 20;
const PULL: i64 = 10;

/// A group that has jobs waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupBacklog {
    /// Which.
    pub group: GroupId,
    /// Whether they are to be pulled, not delivered.
    pub pull: bool,
    /// When the first of them is due.
    pub earliest: UnixMs,
    /// When the first of each priority is due, from priority 0 on; [`UnixMs::MAX`] where none waits.
    pub by_priority: [UnixMs; 10],
}

/// The lane of a job.
pub fn of(group: GroupId, pull: bool, priority: Priority) -> i64 {
    first(group, pull) + i64::from(u8::from(Priority::MAX) - u8::from(priority))
}

/// The first of a group's ten lanes.
pub fn first(group: GroupId, pull: bool) -> i64 {
    group.0.saturating_mul(LANES) + if pull { PULL } else { 0 }
}

/// The group of a lane, and whether its jobs are pulled.
pub fn group(lane: i64) -> (GroupId, bool) {
    (GroupId(lane.div_euclid(LANES)), lane.rem_euclid(LANES) >= PULL)
}

/// The lane of a group's jobs of one priority.
pub fn owed(owed: &Owed, pull: bool) -> i64 {
    of(owed.group, pull, owed.priority)
}

/// What is left of each quota when these many of its group were taken.
pub fn left(quotas: &[(GroupId, u32)], taken: impl Iterator<Item = GroupId>) -> Vec<(GroupId, u32)> {
    let mut counts: HashMap<GroupId, u32> = HashMap::new();
    taken.for_each(|group| *counts.entry(group).or_default() += 1);
    let left = |(group, most): &(GroupId, u32)| (*group, most.saturating_sub(counts.get(group).copied().unwrap_or(0)));
    quotas.iter().map(left).collect()
}

/// The groups of lanes that come in order, each with the time of its first job.
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

/// The priority of a lane.
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
