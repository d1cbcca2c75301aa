//! Versions that some of a group's jobs follow, in the catalog.

use std::sync::Arc;

use super::{Author, Canary, Catalog, CatalogError, Group};
use carillon_policy::binding::Invalid;

impl Catalog {
    /// Lets some of the jobs follow a version that is not in force.
    ///
    /// # Errors
    /// If there is none, it is in force, it no longer makes sense, or a bound of it does not.
    pub async fn begin_canary(&self, group: &Group, canary: Canary) -> Result<Arc<Group>, CatalogError> {
        if !(1..=99).contains(&canary.percent) {
            return Err(Invalid::at("/percent", "a number from 1 to 100 is needed").into());
        }
        for (pointer, share) in [("/max_faults", canary.max_faults), ("/max_differences", canary.max_differences)] {
            if !(0.0..=1.0).contains(&share) {
                return Err(Invalid::at(pointer, "a share is a number from 0 to 1").into());
            }
        }
        if canary.min_attempts == 0 {
            return Err(Invalid::at("/min_attempts", "a number of at least 1 is needed").into());
        }
        let version = canary.version;
        self.usable(group, version).await?;
        let canary = Canary { since: self.now(), ..canary };
        let change = |group: Option<&Group>| {
            let group = group.ok_or(CatalogError::Gone)?;
            if group.rollout.active.number == version {
                return Err(CatalogError::Conflict(format!("version {version} is in force already")));
            }
            Ok(group.moved(|rollout| rollout.begin_canary(canary.clone())))
        };
        self.change_group(group.tenant.id, &group.name, change).await
    }

    /// Takes a version back that some of the jobs follow.
    ///
    /// # Errors
    /// If they no longer do.
    pub async fn end_canary(
        &self,
        group: &Group,
        canary: &Canary,
        author: &Author,
        automatic: bool,
    ) -> Result<Arc<Group>, CatalogError> {
        let now = self.now();
        let change = |group: Option<&Group>| {
            let group = group.ok_or(CatalogError::Gone)?;
            if group.rollout.canary.as_ref() != Some(canary) {
                return Err(CatalogError::Conflict(format!("version {} is no longer tried out", canary.version)));
            }
            Ok(group.moved(|rollout| rollout.end_canary(author, automatic, now)))
        };
        self.change_group(group.tenant.id, &group.name, change).await
    }
}
