//! Shares of a pool: how much of it one tenant may hold, so that neither one tenant nor a few together can empty it.
//!
//! Not: waiting. What does not fit is refused, and the caller says what a refusal means.
//!
//! Invariants: the tenants together never hold more than the pool. While several tenants exist, none holds more than its cap, and the last
//! eighth of the pool goes only to tenants that hold at most a sixteenth of it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::job::TenantId;

/// Part of a pool that is kept for tenants that hold little: 1/`RESERVE_DIVISOR`.
const RESERVE_DIVISOR: u64 = 8;

/// Part of a pool up to which a tenant holds little: 1/`SMALL_DIVISOR`.
const SMALL_DIVISOR: u64 = 16;

/// Whether a pool has to be shared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tenancy {
    /// One tenant exists: it may hold the whole pool.
    Single,
    /// Several tenants exist.
    Several,
}

/// Rule of the shares of one pool. Pure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShareRule {
    size: u64,
    /// Largest holding of one tenant.
    cap: u64,
    /// Part that only tenants with small holdings get.
    reserve: u64,
    /// Largest holding that is small.
    small: u64,
}

impl ShareRule {
    /// Creates the rule of a pool of `size`, of which one tenant may hold the part `tenant_share`, from 0 to 1. Every tenant may hold at
    /// least 1.
    #[must_use]
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a cap may be off by a rounding, and a part of a size is not negative"
    )]
    pub fn new(size: u64, tenant_share: f64) -> Self {
        let cap = (size as f64 * tenant_share.clamp(0.0, 1.0)) as u64;
        Self {
            size,
            cap: cap.clamp(1, size.max(1)),
            reserve: size.div_ceil(RESERVE_DIVISOR),
            small: (size / SMALL_DIVISOR).max(1),
        }
    }

    /// Returns the most that one tenant may hold.
    #[must_use]
    pub fn cap(&self, tenancy: Tenancy) -> u64 {
        match tenancy {
            Tenancy::Single => self.size,
            Tenancy::Several => self.cap,
        }
    }

    /// Returns how much of what is free is not kept for tenants with small holdings, if all tenants together hold `held`.
    #[must_use]
    pub fn unreserved(&self, held: u64, tenancy: Tenancy) -> u64 {
        let free = self.size.saturating_sub(held);
        match tenancy {
            Tenancy::Single => free,
            Tenancy::Several => free.saturating_sub(self.reserve),
        }
    }

    /// Returns how much more a tenant that holds `own` may have before its holding is no longer small.
    #[must_use]
    pub fn small_room(&self, own: u64) -> u64 {
        self.small.saturating_sub(own)
    }

    /// Returns how much more a tenant that holds `own` may have, if all tenants together hold `held`.
    #[must_use]
    pub fn room(&self, held: u64, own: u64, tenancy: Tenancy) -> u64 {
        let below_cap = self.cap(tenancy).saturating_sub(own);
        let large = below_cap.min(self.unreserved(held, tenancy));
        let small = self.small_room(own).min(self.size.saturating_sub(held));
        large.max(small)
    }
}

/// A pool that tenants share: places, or bytes.
#[derive(Debug)]
pub struct Shares {
    rule: ShareRule,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    all: u64,
    by_tenant: HashMap<TenantId, u64>,
}

/// What a tenant holds of a pool. Dropping it returns it.
#[derive(Debug)]
pub struct Holding {
    shares: Arc<Shares>,
    tenant: TenantId,
    amount: u64,
}

impl Shares {
    /// Creates a pool of `size`, of which one tenant may hold the part `tenant_share`.
    #[must_use]
    pub fn new(size: usize, tenant_share: f64) -> Arc<Self> {
        let size = u64::try_from(size).unwrap_or(u64::MAX);
        Arc::new(Self { rule: ShareRule::new(size, tenant_share), held: Mutex::default() })
    }

    /// Gives a tenant one place; `None` if it may not have one now.
    #[must_use]
    pub fn take_place(self: &Arc<Self>, tenant: TenantId, tenancy: Tenancy) -> Option<Holding> {
        self.take(tenant, 1, tenancy)
    }

    /// Gives a tenant a part of the pool; `None` if it may not have that much now.
    ///
    /// An amount above the tenant's cap counts as the cap: a pool bounds what tenants hold together, and other limits bound one request.
    #[must_use]
    pub fn take(self: &Arc<Self>, tenant: TenantId, amount: u64, tenancy: Tenancy) -> Option<Holding> {
        let amount = amount.min(self.rule.cap(tenancy).max(1));
        let mut held = self.lock();
        let own = held.by_tenant.get(&tenant).copied().unwrap_or(0);
        if amount > self.rule.room(held.all, own, tenancy) {
            return None;
        }
        held.add(tenant, amount);
        drop(held);
        Some(Holding { shares: Arc::clone(self), tenant, amount })
    }

    /// Returns how much all tenants hold together.
    #[must_use]
    pub fn held(&self) -> u64 {
        self.lock().all
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    fn add(&mut self, tenant: TenantId, amount: u64) {
        self.all += amount;
        *self.by_tenant.entry(tenant).or_default() += amount;
    }
}

impl Holding {
    /// Takes more for the same tenant; returns whether it may have that.
    #[must_use]
    pub fn grow(&mut self, more: u64, tenancy: Tenancy) -> bool {
        let Some(mut added) = self.shares.take(self.tenant, more, tenancy) else { return false };
        self.amount += std::mem::take(&mut added.amount);
        true
    }
}

impl Drop for Holding {
    fn drop(&mut self) {
        let mut held = self.shares.lock();
        held.all = held.all.saturating_sub(self.amount);
        if let Some(own) = held.by_tenant.get_mut(&self.tenant) {
            *own = own.saturating_sub(self.amount);
            if *own == 0 {
                held.by_tenant.remove(&self.tenant);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Has a tenant take places until it is refused; returns them.
    fn take_all(shares: &Arc<Shares>, tenant: i64, tenancy: Tenancy) -> Vec<Holding> {
        std::iter::from_fn(|| shares.take_place(TenantId(tenant), tenancy)).collect()
    }

    #[test]
    fn only_tenant_takes_the_whole_pool() {
        for size in [1, 2, 64, 256] {
            assert_eq!(take_all(&Shares::new(size, 0.5), 1, Tenancy::Single).len(), size);
        }
    }

    #[test]
    fn tenants_together_leave_places_for_one_that_holds_little() {
        let shares = Shares::new(256, 0.5);
        let hostile: Vec<_> = (1..=3).map(|tenant| take_all(&shares, tenant, Tenancy::Several)).collect();
        let counts: Vec<usize> = hostile.iter().map(Vec::len).collect();
        assert_eq!(counts, [128, 96, 16]);
        assert_eq!(take_all(&shares, 4, Tenancy::Several).len(), 16);
        drop(hostile);
        assert_eq!(shares.held(), 0);
        assert!(shares.lock().by_tenant.is_empty());
    }

    #[test]
    fn small_pool_has_a_place_for_the_second_tenant() {
        for size in 2..40 {
            let shares = Shares::new(size, 0.5);
            let hostile = take_all(&shares, 1, Tenancy::Several);
            assert!(!hostile.is_empty());
            assert!(shares.take_place(TenantId(2), Tenancy::Several).is_some(), "{size}");
        }
        assert_eq!(take_all(&Shares::new(1, 0.5), 1, Tenancy::Several).len(), 1);
    }

    #[test]
    fn holding_grows_up_to_the_cap_and_returns_all_of_it() {
        let shares = Shares::new(1_000, 0.25);
        let mut holding = shares.take(TenantId(1), 200, Tenancy::Several).unwrap();
        assert!(holding.grow(50, Tenancy::Several));
        assert!(!holding.grow(1, Tenancy::Several));
        assert!(shares.take(TenantId(1), 1, Tenancy::Several).is_none());
        assert_eq!(shares.held(), 250);
        drop(holding);
        assert_eq!(shares.held(), 0);
    }

    #[test]
    fn amount_above_the_cap_is_given_to_a_tenant_that_holds_nothing() {
        let shares = Shares::new(1_000, 0.25);
        let holding = shares.take(TenantId(1), 5_000, Tenancy::Several);
        assert!(holding.is_some() && shares.held() == 250);
    }

    proptest! {
        #[test]
        fn pool_is_never_exceeded_and_the_cap_holds(
            size in 1_usize..500, share in 0.01_f64..1.0, takes in prop::collection::vec((1_i64..6, 1_u64..40), 0..200),
        ) {
            let shares = Shares::new(size, share);
            let mut holdings = Vec::new();
            for (tenant, amount) in takes {
                holdings.extend(shares.take(TenantId(tenant), amount, Tenancy::Several));
                let held = shares.lock();
                prop_assert!(held.all <= size as u64);
                let small = (size as u64 / 16).max(1);
                let cap = shares.rule.cap(Tenancy::Several).max(small);
                prop_assert!(held.by_tenant.values().all(|own| *own <= cap));
            }
        }
    }
}
