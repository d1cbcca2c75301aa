//! Canaries in the catalog: versions of a policy that some of a group's jobs follow.

use std::sync::Arc;

use super::audit::Cause;
use super::{Author, Canary, Catalog, CatalogError, Group, Initiator};
use carillon_core::audit::{Origin, Verb};
use carillon_policy::binding::Invalid;

impl Catalog {
    /// Starts a canary: some of the jobs follow a version that is not in force.
    ///
    /// # Errors
    /// Returns an error if the version does not exist, is in force or is no longer valid, or if a bound of the canary is not valid.
    pub async fn begin_canary(
        &self,
        group: &Group,
        canary: Canary,
        origin: &Origin,
    ) -> Result<Arc<Group>, CatalogError> {
        if !(1..=99).contains(&canary.percent) {
            return Err(Invalid::at("/percent", "`percent` must be from 1 to 100").into());
        }
        for (pointer, share) in [("/max_faults", canary.max_faults), ("/max_differences", canary.max_differences)] {
            if !(0.0..=1.0).contains(&share) {
                return Err(Invalid::at(pointer, "the share must be a number from 0 to 1").into());
            }
        }
        if canary.min_attempts == 0 {
            return Err(Invalid::at("/min_attempts", "`min_attempts` must be at least 1").into());
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
        self.change_group(&Cause::policy(origin, Verb::POLICY_CANARY, version), group.tenant.id, &group.name, change)
            .await
    }

    /// Ends a canary.
    ///
    /// # Errors
    /// Returns an error if the group no longer has this canary.
    pub async fn end_canary(
        &self,
        group: &Group,
        canary: &Canary,
        author: &Author,
        initiator: Initiator,
    ) -> Result<Arc<Group>, CatalogError> {
        let now = self.now();
        let change = |group: Option<&Group>| {
            let group = group.ok_or(CatalogError::Gone)?;
            if group.rollout.canary.as_ref() != Some(canary) {
                return Err(CatalogError::Conflict(format!("version {} is no longer the canary", canary.version)));
            }
            Ok(group.moved(|rollout| rollout.end_canary(author, initiator, now)))
        };
        self.change_group(
            &Cause::policy(&author.origin, Verb::POLICY_ROLLBACK, canary.version),
            group.tenant.id,
            &group.name,
            change,
        )
        .await
    }
}
