//! Table with a bounded number of entries, which tenants share.
//!
//! When the table is full, the tenant with the most entries loses its own oldest ones: no tenant loses an entry to another that has more. So a
//! tenant whose receivers all fail is forgotten, and not those beside it.

use std::collections::HashMap;
use std::hash::Hash;

use carillon_core::clock::UnixMs;
use carillon_core::job::TenantId;

/// Part of a tenant's entries that makes room at once, so that a full table is seldom searched: 1/`PART_DIVISOR`.
const PART_DIVISOR: usize = 16;

/// Key of an entry that belongs to a tenant.
pub(super) trait OfTenant {
    /// Returns the owning tenant.
    fn tenant(&self) -> TenantId;
}

/// See the module.
pub(super) struct TenantTable<K, V> {
    entries: HashMap<K, V>,
    /// Numbers of entries, of tenants that have one.
    counts: HashMap<TenantId, usize>,
    most: usize,
}

impl<K: Clone + Eq + Hash + OfTenant, V> TenantTable<K, V> {
    /// Creates an empty table of at most `most` entries.
    pub(super) fn new(most: usize) -> Self {
        Self { entries: HashMap::new(), counts: HashMap::new(), most }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Returns whether a new entry needs [`TenantTable::make_room`] first.
    pub(super) fn is_full(&self) -> bool {
        self.entries.len() >= self.most
    }

    pub(super) fn get(&self, key: &K) -> Option<&V> {
        self.entries.get(key)
    }

    pub(super) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.entries.get_mut(key)
    }

    pub(super) fn contains(&self, key: &K) -> bool {
        self.entries.contains_key(key)
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &V> {
        self.entries.values()
    }

    /// Returns the entry of a key, which is made if there is none.
    pub(super) fn entry(&mut self, key: K, new: impl FnOnce() -> V) -> &mut V {
        let counts = &mut self.counts;
        self.entries.entry(key).or_insert_with_key(|key| {
            *counts.entry(key.tenant()).or_default() += 1;
            new()
        })
    }

    pub(super) fn remove(&mut self, key: &K) -> Option<V> {
        let removed = self.entries.remove(key)?;
        self.discount(key.tenant());
        Some(removed)
    }

    pub(super) fn retain(&mut self, mut is_kept: impl FnMut(&mut V) -> bool) {
        let counts = &mut self.counts;
        self.entries.retain(|key, value| {
            let is_kept = is_kept(value);
            if !is_kept {
                discount(counts, key.tenant());
            }
            is_kept
        });
    }

    /// Removes the oldest entries of the tenant that has the most, and returns them. `age` is when an entry was last of use, or `None` if it
    /// must stay.
    pub(super) fn make_room(&mut self, age: impl Fn(&V) -> Option<UnixMs>) -> Vec<V> {
        let Some((tenant, _)) = self.counts.iter().max_by_key(|(tenant, count)| (**count, **tenant)) else {
            return Vec::new();
        };
        let own = self.entries.iter().filter(|(key, _)| key.tenant() == *tenant);
        let mut own: Vec<_> = own.filter_map(|(key, value)| Some((age(value)?, key.clone()))).collect();
        let part = own.len().div_ceil(PART_DIVISOR);
        if part == 0 {
            return Vec::new();
        }
        own.select_nth_unstable_by_key(part - 1, |(age, _)| *age);
        own.truncate(part);
        own.iter().filter_map(|(_, key)| self.remove(key)).collect()
    }

    fn discount(&mut self, tenant: TenantId) {
        discount(&mut self.counts, tenant);
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    #[cfg(test)]
    pub(super) fn count_of(&self, tenant: TenantId) -> usize {
        self.counts.get(&tenant).copied().unwrap_or(0)
    }
}

fn discount(counts: &mut HashMap<TenantId, usize>, tenant: TenantId) {
    if let Some(count) = counts.get_mut(&tenant) {
        *count -= 1;
        if *count == 0 {
            counts.remove(&tenant);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    impl OfTenant for (i64, u32) {
        fn tenant(&self) -> TenantId {
            TenantId(self.0)
        }
    }

    fn add(table: &mut TenantTable<(i64, u32), UnixMs>, key: (i64, u32), at: i64) {
        if table.is_full() && !table.contains(&key) {
            table.make_room(|at| Some(*at));
        }
        table.entry(key, || UnixMs(at));
    }

    #[test]
    fn tenant_with_the_most_entries_loses_its_oldest() {
        let mut table = TenantTable::new(32);
        for number in 0..10 {
            add(&mut table, (2, number), 0);
        }
        for number in 0..1_000 {
            add(&mut table, (1, number), 1 + i64::from(number));
        }
        assert_eq!(table.count_of(TenantId(2)), 10, "it has less");
        assert!(table.contains(&(1, 999)) && !table.contains(&(1, 0)), "the newest are kept");
        assert!(table.len() <= 32);
    }

    #[test]
    fn entries_that_must_stay_make_no_room() {
        let mut table = TenantTable::new(4);
        for number in 0..4 {
            add(&mut table, (1, number), 0);
        }
        assert!(table.make_room(|_| None).is_empty());
        assert_eq!(table.len(), 4);
    }

    proptest! {
        #[test]
        fn counts_are_those_of_the_entries(steps in prop::collection::vec((0_u8..4, 1_i64..4, 0_u32..20), 0..300)) {
            let mut table: TenantTable<(i64, u32), UnixMs> = TenantTable::new(16);
            for (at, (step, tenant, number)) in (0..).zip(steps) {
                match step {
                    0 => drop(table.remove(&(tenant, number))),
                    1 if number == 0 => table.retain(|at: &mut UnixMs| at.0 % 2 == 0),
                    _ => add(&mut table, (tenant, number), at),
                }
                prop_assert!(table.len() <= 16);
                let counted: usize = (1..4).map(|tenant| table.count_of(TenantId(tenant))).sum();
                prop_assert_eq!(counted, table.len());
            }
        }
    }
}
