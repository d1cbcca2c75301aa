//! A table of what the node knows of groups since it started. Groups that are gone are forgotten: tenants can make and delete any number of them.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use carillon_core::job::GroupId;

/// Number of entries above which those of groups that are gone are removed.
const MAX_UNCHECKED: usize = 1_024;

/// Entries by group.
pub(crate) struct ByGroup<T>(HashMap<GroupId, T>);

impl<T> Default for ByGroup<T> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<T> ByGroup<T> {
    pub(crate) fn get(&self, group: GroupId) -> Option<&T> {
        self.0.get(&group)
    }

    /// Returns the place of a group's entry. Before a new one is made in a large table, the entries of groups that do not exist are removed.
    pub(crate) fn entry(&mut self, group: GroupId, exists: impl Fn(GroupId) -> bool) -> Entry<'_, GroupId, T> {
        if self.0.len() >= MAX_UNCHECKED && !self.0.contains_key(&group) {
            self.0.retain(|known, _| exists(*known));
        }
        self.0.entry(group)
    }

    pub(crate) fn remove(&mut self, group: GroupId) {
        self.0.remove(&group);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_that_are_gone_are_forgotten() {
        let mut table = ByGroup::default();
        let lives = |group: GroupId| group.0 % 100 == 0;
        for group in 0..100_000 {
            table.entry(GroupId(group), lives).or_insert(group);
            assert!(table.0.len() <= MAX_UNCHECKED + 1_000, "{}", table.0.len());
        }
        assert_eq!(table.get(GroupId(100)), Some(&100), "groups that exist are kept");
        table.remove(GroupId(100));
        assert_eq!(table.get(GroupId(100)), None);
    }
}
