//! Versions of the groups' policies in the catalog, and the changes of which one is in force.
//!
//! The version in force is part of the group, and so are the moves between versions: each is one write, which fails if another write was
//! faster and is then decided again. Every other version is an entity of its own. It is written before the group refers to it, so that a node
//! that stops in between leaves an unused version and never a missing one.

use std::collections::HashSet;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use serde_json::Value;

use super::audit::Cause;
use super::change::Decision;
use super::entities::GroupRecord;
use super::groups::keeps_signing;
use super::versions::{KEPT, entity_name, roles_of, with_roles};
use super::{Action, Author, Binding, Catalog, CatalogError, Group, Initiator, Rollout, Shadow, Written, document};
use carillon_core::audit::{Origin, Verb};
use carillon_core::job::{GroupId, Job, JobId, State, TenantId};
use carillon_policy::binding::{Changes, Document, Effective, Invalid, Pin, pointer_to};
use carillon_store::{JobFilter, JobsQuery, Kind, Precondition, PutEntity, StoreError};

/// How long after a version ceased to be in force a node that has not yet read the change may pin jobs to it.
const HEARSAY: Duration = Duration::from_secs(60);

/// Version that was made and is not in force.
#[derive(Debug)]
pub struct Proposed {
    /// The version.
    pub binding: Arc<Binding>,
    /// Policy that would be in force.
    pub effective: Effective,
    /// Differences from the policy in force.
    pub changes: Changes,
}

impl Catalog {
    /// Returns the versions of a group's policy, newest first.
    #[must_use]
    pub fn bindings(&self, group: &Group) -> Vec<Arc<Binding>> {
        let active = Arc::new(group.rollout.active.clone());
        let number = active.number;
        let state = self.state();
        let others = state.bindings_of(group.id).filter(|binding| binding.number != number).cloned();
        let mut all: Vec<_> = others.chain([active]).collect();
        all.sort_by_key(|binding| std::cmp::Reverse(binding.number));
        all
    }

    /// Returns one version.
    #[must_use]
    pub fn binding(&self, group: &Group, number: i64) -> Option<Arc<Binding>> {
        if number == group.rollout.active.number {
            return Some(Arc::new(group.rollout.active.clone()));
        }
        self.state().binding(group.id, number).cloned()
    }

    /// Returns the group under a version of its policy; `None` if the version is not kept.
    #[must_use]
    pub fn bound(&self, group: &Arc<Group>, number: i64) -> Option<Arc<Group>> {
        if number == group.binding {
            return Some(Arc::clone(group));
        }
        let mut variants = group.variants.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = variants.get(&number) {
            return Some(Arc::clone(known));
        }
        let binding = self.binding(group, number)?;
        let own = with_roles(&group.own.value(), &binding.policy.value());
        let effective = self.state().effective(&group.tenant, Some(&group.name), &own).map(Arc::new);
        let variant = Arc::new(group.with(Arc::clone(&group.tenant), number, Document::from(&own), effective));
        variants.insert(number, Arc::clone(&variant));
        Some(variant)
    }

    /// Returns a job's group under the version of its policy that the job follows: the pinned one, if there is one and it was not rolled
    /// back; else the one in force, or the canary.
    #[must_use]
    pub fn group_of(&self, job: &Job) -> Option<Arc<Group>> {
        let group = self.group_by_id(job.group)?;
        let pinned = job.spec.binding.filter(|number| !group.rollout.is_withdrawn(*number));
        let pinned = pinned.and_then(|number| self.bound(&group, number));
        let bound = pinned.or_else(|| self.bound(&group, group.rollout.followed_by(job.group, job.id)));
        Some(bound.unwrap_or(group))
    }

    /// Returns the version that a new job of this group is pinned to, if the group pins its jobs.
    #[must_use]
    pub fn pinned(&self, group: GroupId, job: JobId) -> Option<i64> {
        let group = self.group_by_id(group)?;
        group.pins().then(|| group.rollout.followed_by(group.id, job))
    }

    /// Makes a version that is not in force. `written` is what the group's own document would say of the roles.
    ///
    /// # Errors
    /// Returns an error with a pointer if the policy is not valid, or if it ends the signing of the group's requests without saying so.
    pub async fn propose(&self, group: &Group, written: Written, author: &Author) -> Result<Proposed, CatalogError> {
        let (Written::Whole(policy) | Written::Declared(policy) | Written::Part(policy)) = &written;
        let roles = roles_of(policy);
        if let Some(field) = policy.as_object().and_then(|all| all.keys().find(|field| roles.get(field).is_none())) {
            let message = "a version of a policy has only `encode`, `sign`, `judge`, `retry` and `observe`";
            return Err(Invalid::at(pointer_to(field), message).into());
        }
        let own = self.pin(group.tenant.id, self.written_over(&group.tenant, &group.name, Some(group), &written));
        let roles = roles_of(&own);
        let own = with_roles(&group.own.value(), &roles);
        let effective = self.candidate(&group.tenant, Some(&group.name), &own).await?;
        keeps_signing(group, &own, &effective)?;
        let changes = Changes::between(&self.policy_before(&group.tenant, None, Some(group)), &effective.doc.value());
        // Number taken in the successful try: before that, another caller may have taken the next number.
        let number = AtomicI64::new(0);
        let take = |group: Option<&Group>| {
            let take = |rollout: &mut Rollout| number.store(rollout.number(), Ordering::Relaxed);
            Ok(group.ok_or(CatalogError::Gone)?.moved(take))
        };
        let changed = self.change_group(&Cause::Upkeep, group.tenant.id, &group.name, take).await?;
        let binding = self.new_binding(group.tenant.id, number.into_inner(), roles, &effective, author);
        let name = entity_name(changed.id, binding.number);
        let cause = Cause::policy(&author.origin, Verb::POLICY_PROPOSE, binding.number);
        let (tenant, doc) = (changed.tenant.id, document(&binding));
        let put = self.entity(&cause, tenant, Kind::Binding, &name, doc, Precondition::Nothing);
        self.put(PutEntity { needs: self.needs(changed.tenant.id, &binding.plugins), ..put }).await?;
        self.forget_old(&changed).await?;
        Ok(Proposed { binding: Arc::new(binding), effective, changes })
    }

    /// Puts a version in force.
    ///
    /// # Errors
    /// Returns an error if the version does not exist, is in force already, or is no longer valid.
    pub async fn promote(&self, group: &Group, number: i64, author: &Author) -> Result<Arc<Group>, CatalogError> {
        let next = self.usable(group, number).await?;
        let now = self.now();
        let change = |group: Option<&Group>| {
            let group = group.ok_or(CatalogError::Gone)?;
            if group.rollout.active.number == number {
                return Err(CatalogError::Conflict(format!("version {number} is in force already")));
            }
            Ok(group.moved(|rollout| rollout.advance(Binding::clone(&next), Action::Promote, author, now)))
        };
        self.change_group(
            &Cause::policy(&author.origin, Verb::POLICY_PROMOTE, number),
            group.tenant.id,
            &group.name,
            change,
        )
        .await
    }

    /// Returns the version that a rollback of the group would put in force.
    #[must_use]
    pub fn previous(&self, group: &Group) -> Option<i64> {
        group.rollout.previous(|number| self.binding(group, number).is_some())
    }

    /// Puts the version in force that was before the present one.
    ///
    /// # Errors
    /// Returns an error if there is none, or if it is no longer valid.
    pub async fn roll_back(
        &self,
        group: &Group,
        author: &Author,
        initiator: Initiator,
    ) -> Result<Arc<Group>, CatalogError> {
        let nothing =
            || CatalogError::Conflict(format!("no version was in force before {}", group.rollout.active.number));
        let number = self.previous(group).ok_or_else(nothing)?;
        let (previous, from, now) = (self.usable(group, number).await?, group.rollout.active.number, self.now());
        let change = |group: Option<&Group>| {
            let group = group.ok_or(CatalogError::Gone)?;
            if group.rollout.active.number != from {
                return Err(CatalogError::Conflict(format!("version {from} is no longer in force")));
            }
            Ok(group.moved(|rollout| rollout.roll_back(Binding::clone(&previous), author, initiator, now)))
        };
        self.change_group(
            &Cause::policy(&author.origin, Verb::POLICY_ROLLBACK, number),
            group.tenant.id,
            &group.name,
            change,
        )
        .await
    }

    /// Ends the quarantines of the group's policies, on all nodes.
    ///
    /// # Errors
    /// Returns the store's error.
    pub async fn lift_quarantine(&self, group: &Group, author: &Author) -> Result<Arc<Group>, CatalogError> {
        let now = self.now();
        let lift = |rollout: &mut Rollout| rollout.lift_quarantine(author, now);
        let change = |group: Option<&Group>| Ok(group.ok_or(CatalogError::Gone)?.moved(lift));
        self.change_group(
            &Cause::policy(&author.origin, Verb::POLICY_UNQUARANTINE, group.rollout.active.number),
            group.tenant.id,
            &group.name,
            change,
        )
        .await
    }

    /// Makes a version the group's shadow: it runs beside the one in force, on `percent` of the attempts.
    ///
    /// # Errors
    /// Returns an error if the version does not exist, is in force, or is no longer valid.
    pub async fn set_shadow(
        &self,
        group: &Group,
        version: i64,
        percent: u32,
        author: &Author,
    ) -> Result<Arc<Group>, CatalogError> {
        if !(1..=100).contains(&percent) {
            return Err(Invalid::at("/percent", "`percent` must be from 1 to 100").into());
        }
        self.usable(group, version).await?;
        let shadow = Shadow { version, percent, since: self.now(), by: author.by.clone() };
        let change = |group: Option<&Group>| {
            let group = group.ok_or(CatalogError::Gone)?;
            if group.rollout.active.number == version {
                return Err(CatalogError::Conflict(format!("version {version} is in force")));
            }
            Ok(group.moved(|rollout| rollout.shadow = Some(shadow.clone())))
        };
        self.change_group(
            &Cause::policy(&author.origin, Verb::POLICY_SHADOW, version),
            group.tenant.id,
            &group.name,
            change,
        )
        .await
    }

    /// Ends the group's shadow; returns false if it has none.
    ///
    /// # Errors
    /// Returns the store's error.
    pub async fn clear_shadow(&self, group: &Group, origin: &Origin) -> Result<bool, CatalogError> {
        let Some(shadow) = &group.rollout.shadow else { return Ok(false) };
        let cause = Cause::policy(origin, Verb::POLICY_UNSHADOW, shadow.version);
        let change =
            |group: Option<&Group>| Ok(group.ok_or(CatalogError::Gone)?.moved(|rollout| rollout.shadow = None));
        self.change_group(&cause, group.tenant.id, &group.name, change).await.map(|_| true)
    }

    /// Returns a version that can be put in force.
    pub(super) async fn usable(&self, group: &Group, number: i64) -> Result<Arc<Binding>, CatalogError> {
        let unknown = || Invalid::at("/version", format!("the group has no version {number}"));
        let binding = self.binding(group, number).ok_or_else(unknown)?;
        let own = with_roles(&group.own.value(), &binding.policy.value());
        match self.candidate(&group.tenant, Some(&group.name), &own).await {
            Err(CatalogError::Invalid(error)) => {
                Err(CatalogError::Conflict(format!("version {number} can no longer be in force: {error}")))
            }
            checked => checked.map(|_| binding),
        }
    }

    pub(super) fn new_binding(
        &self,
        tenant: TenantId,
        number: i64,
        policy: Value,
        effective: &Effective,
        author: &Author,
    ) -> Binding {
        let plugins = self.state().bound_plugins(tenant, effective);
        let Author { by, why, .. } = author.clone();
        Binding { number, policy: Document::from(&policy), by, why, made_at: self.now(), plugins }
    }

    /// Changes or makes a group as `change` decides from the present one. If another node was faster, `change` is called again.
    pub(super) async fn change_group(
        &self,
        cause: &Cause<'_>,
        tenant: TenantId,
        name: &str,
        change: impl Fn(Option<&Group>) -> Result<GroupRecord, CatalogError>,
    ) -> Result<Arc<Group>, CatalogError> {
        let decide = |before: Option<&Group>| {
            let doc = change(before)?;
            let active = doc.rollout.as_ref().map(|rollout| &rollout.active);
            let replaced = before.filter(|group| active.is_some_and(|active| active.number != group.binding));
            let first = replaced.and_then(|group| self.kept(group, &group.rollout.active));
            let expect = before.map_or(Precondition::Nothing, |group| Precondition::Version(group.version));
            let bound = active.filter(|active| before.is_none_or(|group| group.binding != active.number));
            let needs = bound.map(|active| self.needs(tenant, &active.plugins)).unwrap_or_default();
            let put = self.entity(cause, tenant, Kind::Group, name, document(&doc), expect);
            Ok(Decision { first, put: PutEntity { needs, ..put } })
        };
        self.change(|| self.group(tenant, name), decide).await?;
        self.group(tenant, name).ok_or(CatalogError::Gone)
    }

    /// Returns the write that stores a version, unless it is stored.
    fn kept(&self, group: &Group, binding: &Binding) -> Option<PutEntity> {
        if self.state().binding(group.id, binding.number).is_some() {
            return None;
        }
        let name = entity_name(group.id, binding.number);
        let (tenant, doc) = (group.tenant.id, document(binding));
        Some(self.entity(&Cause::Upkeep, tenant, Kind::Binding, &name, doc, Precondition::Nothing))
    }

    /// Returns the group under each version of its policy that decides attempts or is shown them: the one in force, canary and shadow, and
    /// those that unfinished jobs may be pinned to.
    pub(super) async fn used(&self, group: &Arc<Group>) -> Result<Vec<Arc<Group>>, StoreError> {
        let rollout = &group.rollout;
        let tried = [rollout.canary.as_ref().map(|it| it.version), rollout.shadow.as_ref().map(|it| it.version)];
        let mut numbers: Vec<_> = tried.into_iter().flatten().collect();
        let kept: Vec<_> = self.state().bindings_of(group.id).map(|binding| binding.number).collect();
        for number in kept {
            if !rollout.uses(number) && self.is_followed(group, number).await? {
                numbers.push(number);
            }
        }
        let others = numbers.into_iter().filter_map(|number| self.bound(group, number));
        Ok(std::iter::once(Arc::clone(group)).chain(others).collect())
    }

    /// Removes the oldest versions that are not needed, if there are too many.
    pub(super) async fn forget_old(&self, group: &Group) -> Result<(), CatalogError> {
        let spare: Vec<_> = self.state().bindings_of(group.id).map(|binding| binding.number).collect();
        let spare: Vec<_> = spare.into_iter().filter(|number| !group.rollout.uses(*number)).collect();
        for number in &spare[..spare.len().saturating_sub(KEPT)] {
            if !self.is_followed(group, *number).await? {
                self.delete(&Cause::Upkeep, group.tenant.id, Kind::Binding, &entity_name(group.id, *number)).await?;
            }
        }
        Ok(())
    }

    /// Returns whether an unfinished job may be pinned to this version, because it was accepted while the version was in force. The jobs that
    /// are really pinned are not counted: that would read every waiting job.
    async fn is_followed(&self, group: &Group, number: i64) -> Result<bool, StoreError> {
        let Some((since, until)) = group.rollout.pinned_within(number) else { return Ok(false) };
        for state in [State::Scheduled, State::Running] {
            let all = JobFilter::all(group.tenant.id, group.id);
            let (from, before) = (Some(since), Some(until.plus(HEARSAY)));
            let filter = JobFilter { state: Some(state), created_from: from, created_before: before, ..all };
            if !self.store.jobs_to_change(JobsQuery { filter, before: None, limit: 1 }).await?.is_empty() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Removes all versions of a deleted group.
    pub(super) async fn forget_all(&self, tenant: TenantId, group: GroupId) -> Result<(), CatalogError> {
        let numbers: Vec<_> = self.state().bindings_of(group).map(|binding| binding.number).collect();
        for number in numbers {
            self.delete(&Cause::Upkeep, tenant, Kind::Binding, &entity_name(group, number)).await?;
        }
        Ok(())
    }

    /// Removes the versions that a node left behind when it stopped during the deletion of a group.
    pub(super) async fn forget_orphans(&self) -> Result<(), CatalogError> {
        let orphans: HashSet<_> = self.state().orphans().collect();
        for (tenant, name) in orphans {
            self.delete(&Cause::Upkeep, tenant, Kind::Binding, &name).await?;
        }
        Ok(())
    }
}

impl Group {
    /// Returns the document to store after a change of the group's versions.
    pub(super) fn moved(&self, change: impl FnOnce(&mut Rollout)) -> GroupRecord {
        let mut rollout = self.rollout.as_ref().clone();
        if self.pins() {
            rollout.pin();
        }
        change(&mut rollout);
        let policy = with_roles(&self.own.value(), &rollout.active.policy.value());
        GroupRecord { policy, paused: self.paused, rollout: Some(rollout) }
    }

    /// Returns whether the group's jobs keep the version that was in force at their acceptance.
    fn pins(&self) -> bool {
        self.effective.as_ref().is_ok_and(|effective| effective.pin == Pin::Job)
    }
}
