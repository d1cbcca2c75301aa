//! Versions of a group's policy: the one in force, its predecessors, and who changed it. Pure.
//!
//! A version is what a group says about the five roles, with the plugins pinned. It is made once and never changes; the group moves from one
//! to another. Numbers rise and are not given twice. Limits, keys and the rest of a group are not part of it.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::by::By;
use super::tried::{Canary, Shadow};
use carillon_core::audit::Origin;
use carillon_core::clock::UnixMs;
use carillon_core::job::{GroupId, JobId};
use carillon_policy::binding::Document;
use carillon_policy::{Digest, Role};

/// Number of unneeded versions that are kept of a group, besides the one in force.
pub(super) const KEPT: usize = 100;

/// Number of moves that are kept in the history, and of versions that a group can be rolled back through.
const REMEMBERED: usize = 100;

/// Maximum number of versions that are kept because jobs may be pinned to them.
const PINNED: usize = 1_000;

/// Author of a change of a group, with the reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Author {
    /// Origin of the change, for the audit log.
    pub origin: Origin,
    /// Author, as the history shows it.
    pub by: Option<By>,
    /// Reason given by the author.
    pub why: Option<String>,
}

impl Author {
    /// Returns the author of a change of this origin.
    #[must_use]
    pub fn new(origin: Origin, why: Option<String>) -> Self {
        let name = origin.actor.name.clone().unwrap_or_default();
        let by = origin.actor.token.clone().map(|token| By { token: Some(token), name });
        Self { origin, by, why }
    }

    /// Returns a part of the server as an author.
    #[must_use]
    pub fn server(part: &str, origin: Origin) -> Self {
        Self { origin, by: Some(By { token: None, name: part.to_owned() }), why: None }
    }
}

/// Version of a group's policy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Binding {
    /// Number among the versions of the group.
    pub number: i64,
    /// What the group says about the roles; the rest is inherited.
    pub policy: Document,
    /// Author.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<By>,
    /// Reason given by the author.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// Time at which it was made.
    pub made_at: UnixMs,
    /// Plugins of the merged policy when the version was made, inherited ones included.
    pub plugins: Vec<BoundPlugin>,
}

/// Plugin in a role of a policy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct BoundPlugin {
    /// Role that the plugin plays.
    pub role: Role,
    /// Name of the plugin: `name@version`.
    pub plugin: String,
    /// SHA-256 of the component.
    pub digest: Digest,
}

/// Kind of a change of the version in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// A new policy was put, and was in force at once.
    Bind,
    /// An existing version was put in force.
    Promote,
    /// The previous version was put in force again, or a canary was ended.
    Rollback,
    /// A version became a canary: some of the jobs follow it.
    Canary,
    /// Quarantines of the group's policies were ended.
    Unquarantine,
}

/// Initiator of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Initiator {
    /// An operator requested it.
    Operator,
    /// The server decided it by itself.
    Server,
}

/// Change of the version in force.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Move {
    /// Time of the change.
    pub at: UnixMs,
    /// Kind of the change.
    pub action: Action,
    /// Version in force before; none at first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<i64>,
    /// Version in force afterwards.
    pub to: i64,
    /// Author.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<By>,
    /// Reason given by the author.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// Whether the server changed it automatically.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub automatic: bool,
    /// Percentage of the jobs that follow the version, if it is not in force for all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub percent: Option<u32>,
}

/// State of a group's policy: the version in force, its predecessors, and the versions under trial.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rollout {
    /// Version in force.
    pub active: Binding,
    /// Highest number that was given.
    pub newest: i64,
    /// Versions in force before, in order, to which a rollback goes back.
    #[serde(default)]
    before: Vec<i64>,
    /// Whether jobs may be pinned to the version in force.
    #[serde(default)]
    is_pinned: bool,
    /// Time at which it was put in force; the first such time, if jobs may have been pinned to it from then on.
    since: UnixMs,
    /// Versions that jobs may be pinned to, each with the time in which it was in force.
    #[serde(default)]
    retired: BTreeMap<i64, (UnixMs, UnixMs)>,
    /// Versions that were rolled back: jobs that are pinned to them follow the group instead.
    #[serde(default)]
    withdrawn: BTreeSet<i64>,
    /// Version that some of the jobs follow instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canary: Option<Canary>,
    /// Version that runs beside the one in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shadow: Option<Shadow>,
    /// Time of the last move: quarantines that began up to then have ended.
    #[serde(default)]
    pub lifted_at: UnixMs,
    /// Newest moves, oldest first.
    pub history: Vec<Move>,
    /// Number of older moves, which are not kept.
    #[serde(default)]
    pub forgotten: i64,
}

impl Rollout {
    /// Makes the state of a group with its first version.
    pub(super) fn new(active: Binding) -> Self {
        Self {
            newest: active.number,
            since: active.made_at,
            active,
            before: Vec::new(),
            is_pinned: false,
            retired: BTreeMap::new(),
            withdrawn: BTreeSet::new(),
            canary: None,
            shadow: None,
            lifted_at: UnixMs::default(),
            history: Vec::new(),
            forgotten: 0,
        }
    }

    /// Makes the state of a group that is created with this policy.
    pub(super) fn first(active: Binding, author: &Author) -> Self {
        let (at, to) = (active.made_at, active.number);
        let mut rollout = Self::new(active);
        rollout.note(Move { at, action: Action::Bind, from: None, to, automatic: false, ..Move::by(author) });
        rollout
    }

    /// Puts `next` in force, by `action`, which is not a rollback.
    pub(super) fn advance(&mut self, next: Binding, action: Action, author: &Author, at: UnixMs) {
        let from = self.active.number;
        self.retire(at);
        self.before.push(from);
        self.withdrawn.remove(&next.number);
        self.replace(next, at);
        self.note(Move { at, action, from: Some(from), to: self.active.number, automatic: false, ..Move::by(author) });
    }

    /// Returns the version that a rollback goes back to: the newest predecessor for which `is_kept` returns true.
    pub(super) fn previous(&self, is_kept: impl Fn(i64) -> bool) -> Option<i64> {
        self.before.iter().rev().copied().find(|number| is_kept(*number))
    }

    /// Puts `previous`, an earlier version, in force again. The version in force was a mistake: no job stays with it.
    pub(super) fn roll_back(&mut self, previous: Binding, author: &Author, initiator: Initiator, at: UnixMs) {
        let (from, to, automatic) = (self.active.number, previous.number, initiator == Initiator::Server);
        self.withdrawn.insert(from);
        self.before.truncate(self.before.iter().rposition(|number| *number == to).unwrap_or(0));
        self.replace(previous, at);
        self.note(Move { at, action: Action::Rollback, from: Some(from), to, automatic, ..Move::by(author) });
    }

    /// Returns the next number, and counts it as given.
    pub(super) fn number(&mut self) -> i64 {
        self.newest += 1;
        self.newest
    }

    /// Pins new jobs to the version in force from now on.
    pub(super) fn pin(&mut self) {
        self.is_pinned = true;
    }

    /// Returns whether the version is in force, the canary or the shadow.
    pub(super) fn uses(&self, number: i64) -> bool {
        let tried = [self.shadow.as_ref().map(|it| it.version), self.canary.as_ref().map(|it| it.version)];
        self.active.number == number || tried.contains(&Some(number))
    }

    /// Returns the version that a job of the group follows if it is pinned to none.
    #[must_use]
    pub fn followed_by(&self, group: GroupId, job: JobId) -> i64 {
        let canary = self.canary.as_ref().filter(|canary| canary.takes(group, job));
        canary.map_or(self.active.number, |canary| canary.version)
    }

    /// Starts a canary.
    pub(super) fn begin_canary(&mut self, canary: Canary) {
        self.withdraw_canary(canary.version);
        self.withdrawn.remove(&canary.version);
        let (at, from, to, percent) = (canary.since, Some(self.active.number), canary.version, Some(canary.percent));
        let (by, why) = (canary.by.clone(), canary.why.clone());
        self.note(Move { at, action: Action::Canary, from, to, automatic: false, by, why, percent });
        self.canary = Some(canary);
    }

    /// Ends the canary: its jobs follow the version in force.
    pub(super) fn end_canary(&mut self, author: &Author, initiator: Initiator, at: UnixMs) {
        let automatic = initiator == Initiator::Server;
        let (from, to) = (self.canary.as_ref().map(|canary| canary.version), self.active.number);
        self.withdraw_canary(to);
        self.note(Move { at, action: Action::Rollback, from, to, automatic, ..Move::by(author) });
    }

    /// Releases the jobs that are pinned to the canary, which then follow the version in force, unless the canary is `next`.
    fn withdraw_canary(&mut self, next: i64) {
        self.withdrawn.extend(self.canary.take().map(|canary| canary.version).filter(|version| *version != next));
    }

    /// Returns whether this version was rolled back.
    #[must_use]
    pub fn is_withdrawn(&self, number: i64) -> bool {
        self.withdrawn.contains(&number)
    }

    /// Returns the acceptance times of the first and the last job that may be pinned to this version, if there may be any.
    pub(super) fn pinned_within(&self, number: i64) -> Option<(UnixMs, UnixMs)> {
        self.retired.get(&number).copied().filter(|_| !self.is_withdrawn(number))
    }

    /// Ends the quarantines that last now.
    pub(super) fn lift_quarantine(&mut self, author: &Author, at: UnixMs) {
        let (from, to) = (Some(self.active.number), self.active.number);
        self.note(Move { at, action: Action::Unquarantine, from, to, automatic: false, ..Move::by(author) });
    }

    /// Returns the same as `lifted_at`, for the group's shadow.
    #[must_use]
    pub fn shadow_lifted_at(&self) -> UnixMs {
        self.shadow.as_ref().map_or(self.lifted_at, |shadow| self.lifted_at.max(shadow.since))
    }

    fn retire(&mut self, at: UnixMs) {
        if self.is_pinned {
            self.retired.insert(self.active.number, (self.since, at));
        }
    }

    fn replace(&mut self, next: Binding, at: UnixMs) {
        let before = self.retired.remove(&next.number);
        let tried = self.canary.as_ref().filter(|canary| canary.version == next.number).map(|canary| canary.since);
        (self.is_pinned, self.since) = (before.is_some(), before.map(|(since, _)| since).or(tried).unwrap_or(at));
        self.withdraw_canary(next.number);
        self.newest = self.newest.max(next.number);
        self.shadow = self.shadow.take().filter(|shadow| shadow.version != next.number);
        self.active = next;
        let surplus = self.before.len().saturating_sub(REMEMBERED);
        self.before.drain(..surplus);
        while self.retired.len() > PINNED {
            self.retired.pop_first();
        }
        while self.withdrawn.len() > PINNED {
            self.withdrawn.pop_first();
        }
    }

    /// Adds a move to the history. Every move ends the group's quarantines, except the first: a new group has none.
    fn note(&mut self, what: Move) {
        if what.from.is_some() {
            self.lifted_at = what.at;
        }
        self.history.push(what);
        if self.history.len() > REMEMBERED {
            self.history.remove(0);
            self.forgotten += 1;
        }
    }
}

impl Move {
    fn by(author: &Author) -> Self {
        Self {
            at: UnixMs(0),
            action: Action::Bind,
            from: None,
            to: 0,
            by: author.by.clone(),
            why: author.why.clone(),
            automatic: false,
            percent: None,
        }
    }
}

/// Returns what a group's document says about the roles.
pub(super) fn roles_of(own: &Value) -> Value {
    let said = Role::ALL.iter().filter_map(|role| Some((role.as_str().to_owned(), own.get(role.as_str())?.clone())));
    Value::Object(said.collect())
}

/// Returns a group's document with another policy.
pub(super) fn with_roles(own: &Value, policy: &Value) -> Value {
    let is_role = |name: &str| Role::ALL.iter().any(|role| role.as_str() == name);
    let rest = own.as_object().into_iter().flatten().filter(|(name, _)| !is_role(name));
    let fields = rest.chain(policy.as_object().into_iter().flatten());
    Value::Object(fields.map(|(name, value)| (name.clone(), value.clone())).collect::<Map<_, _>>())
}

/// Returns the name of a version's entity in the store.
pub(super) fn entity_name(group: GroupId, number: i64) -> String {
    format!("{}/{number}", group.0)
}

/// Returns the group and number of an entity's name: the reverse of [`entity_name`].
pub(super) fn slot_of(name: &str) -> Option<(GroupId, i64)> {
    let (group, number) = name.split_once('/')?;
    Some((GroupId(group.parse().ok()?), number.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn author() -> Author {
        Author::new(Origin::system(), None)
    }

    fn version(number: i64) -> Binding {
        Binding {
            number,
            policy: Document::from(&json!({})),
            by: None,
            why: None,
            made_at: UnixMs(number),
            plugins: Vec::new(),
        }
    }

    fn after(numbers: &[i64]) -> Rollout {
        let mut rollout = Rollout::first(version(1), &author());
        for number in numbers {
            rollout.advance(version(*number), Action::Bind, &author(), UnixMs(*number));
        }
        rollout
    }

    #[test]
    fn a_rollback_goes_further_back_each_time_and_never_forward() {
        let mut rollout = after(&[2, 3]);
        for expected in [2, 1] {
            let previous = rollout.previous(|_| true).unwrap();
            assert_eq!(previous, expected);
            rollout.roll_back(version(previous), &author(), Initiator::Operator, UnixMs(9));
        }
        assert_eq!(rollout.previous(|_| true), None);
        assert!(rollout.is_withdrawn(3) && rollout.is_withdrawn(2) && !rollout.is_withdrawn(1));
        rollout.advance(version(3), Action::Promote, &author(), UnixMs(10));
        assert!(!rollout.is_withdrawn(3), "whoever promotes it again means it");
        assert_eq!((rollout.previous(|_| true), rollout.number()), (Some(1), 4));
        let moves: Vec<_> = rollout.history.iter().map(|it| (it.from, it.to)).collect();
        assert_eq!(moves, [(None, 1), (Some(1), 2), (Some(2), 3), (Some(3), 2), (Some(2), 1), (Some(1), 3)]);
    }

    #[test]
    fn what_is_gone_is_not_gone_back_to() {
        let mut rollout = after(&[2, 3, 4]);
        assert_eq!(rollout.previous(|number| number < 3), Some(2));
        rollout.roll_back(version(2), &author(), Initiator::Server, UnixMs(9));
        assert_eq!(rollout.previous(|_| true), Some(1));
    }

    #[test]
    fn what_jobs_may_be_pinned_to_is_known() {
        let mut rollout = after(&[2]);
        assert_eq!(rollout.pinned_within(1), None, "nobody was");
        rollout.pin();
        rollout.advance(version(3), Action::Bind, &author(), UnixMs(30));
        assert_eq!(rollout.pinned_within(2), Some((UnixMs(2), UnixMs(30))));
        rollout.roll_back(version(2), &author(), Initiator::Operator, UnixMs(40));
        assert_eq!(rollout.pinned_within(2), None, "it is in force again");
        rollout.advance(version(4), Action::Bind, &author(), UnixMs(50));
        assert_eq!(rollout.pinned_within(2), Some((UnixMs(2), UnixMs(50))), "and jobs still may be");
    }

    #[test]
    fn a_shadow_sees_its_share() {
        let seen = |percent| {
            let shadow = Shadow { version: 2, percent, since: UnixMs(0), by: None };
            (0..10_000_u128).filter(|n| shadow.sees(JobId(uuid::Uuid::from_u128(*n)), 1)).count()
        };
        assert_eq!((seen(0), seen(100)), (0, 10_000));
        for percent in [1, 10, 50] {
            let expected = usize::try_from(percent).unwrap() * 100;
            assert!(seen(percent).abs_diff(expected) < 200, "{percent} %: {}", seen(percent));
        }
    }

    fn canary(version: i64, percent: u32) -> Canary {
        let (max_faults, max_differences) = (0.0, 0.0);
        let since = UnixMs(20);
        Canary { version, percent, since, by: None, why: None, max_faults, max_differences, min_attempts: 1 }
    }

    #[test]
    fn a_canary_is_followed_by_its_share_until_it_is_taken_back_or_in_force() {
        let mut rollout = after(&[]);
        let followed_by = |rollout: &Rollout, n| rollout.followed_by(GroupId(1), JobId(uuid::Uuid::from_u128(n)));
        let follow = |rollout: &Rollout, version| (0..1_000).filter(|n| followed_by(rollout, *n) == version).count();
        rollout.begin_canary(canary(2, 30));
        assert_eq!(follow(&rollout, 2) + follow(&rollout, 1), 1_000);
        assert!(follow(&rollout, 2).abs_diff(300) < 60, "{}", follow(&rollout, 2));
        assert!(rollout.uses(2) && rollout.uses(1) && !rollout.uses(3));
        let some = (0..1_000).find(|n| followed_by(&rollout, *n) == 2).unwrap();
        rollout.begin_canary(canary(2, 60));
        assert_eq!(followed_by(&rollout, some), 2, "who followed it still does");
        assert!(!rollout.is_withdrawn(2));
        rollout.end_canary(&author(), Initiator::Server, UnixMs(30));
        assert_eq!((follow(&rollout, 1), rollout.is_withdrawn(2)), (1_000, true));
        let last = rollout.history.last().unwrap();
        assert_eq!((last.action, last.from, last.to, last.automatic), (Action::Rollback, Some(2), 1, true));
        rollout.begin_canary(canary(2, 10));
        rollout.advance(version(2), Action::Promote, &author(), UnixMs(40));
        assert!(rollout.canary.is_none() && !rollout.is_withdrawn(2));
        rollout.begin_canary(canary(3, 10));
        rollout.advance(version(4), Action::Bind, &author(), UnixMs(50));
        assert!(rollout.canary.is_none() && rollout.is_withdrawn(3), "another policy ends it");
    }

    #[test]
    fn each_canary_is_followed_by_other_jobs() {
        let followers = |group, version| {
            let takes = |n: &u128| canary(version, 30).takes(GroupId(group), JobId(uuid::Uuid::from_u128(*n)));
            (0..1_000).filter(takes).collect::<BTreeSet<_>>()
        };
        let first = followers(1, 2);
        for other in [followers(1, 3), followers(2, 2)] {
            // Of 300, 90 are expected if the two sets are independent.
            let both = first.intersection(&other).count();
            assert!(both.abs_diff(90) < 45, "{both} of {} and {}", first.len(), other.len());
        }
    }

    #[test]
    fn every_move_lifts_the_quarantine() {
        let mut rollout = after(&[]);
        assert_eq!(rollout.lifted_at, UnixMs(0), "a group that is made");
        rollout.advance(version(2), Action::Bind, &author(), UnixMs(10));
        assert_eq!(rollout.lifted_at, UnixMs(10));
        rollout.begin_canary(canary(3, 10));
        assert_eq!(rollout.lifted_at, UnixMs(20));
        rollout.end_canary(&author(), Initiator::Server, UnixMs(30));
        assert_eq!(rollout.lifted_at, UnixMs(30));
        rollout.roll_back(version(1), &author(), Initiator::Server, UnixMs(40));
        rollout.shadow = Some(Shadow { version: 3, percent: 100, since: UnixMs(45), by: None });
        assert_eq!((rollout.lifted_at, rollout.shadow_lifted_at()), (UnixMs(40), UnixMs(45)));
        rollout.lift_quarantine(&Author::server("x", Origin::system()), UnixMs(50));
        assert_eq!((rollout.lifted_at, rollout.shadow_lifted_at()), (UnixMs(50), UnixMs(50)));
        let last = rollout.history.last().unwrap();
        assert_eq!((last.action, last.from, last.to), (Action::Unquarantine, Some(1), 1));
        assert_eq!((rollout.previous(|_| true), &rollout.canary), (None, &None), "nothing else has moved");
    }

    #[test]
    fn it_stays_small() {
        let mut rollout = after(&(2..2_000).collect::<Vec<_>>());
        assert_eq!((rollout.history.len(), rollout.before.len()), (REMEMBERED, REMEMBERED));
        rollout.pin();
        for number in 2_000..4_000 {
            rollout.advance(version(number), Action::Bind, &author(), UnixMs(number));
            rollout.pin();
        }
        assert_eq!(rollout.retired.len(), PINNED);
    }

    #[test]
    fn a_policy_is_the_roles_of_a_group() {
        let own = json!({"sign": null, "judge": {"plugin": "a"}, "limits": {"ttl": "1h"}});
        assert_eq!(roles_of(&own), json!({"sign": null, "judge": {"plugin": "a"}}));
        let other = with_roles(&own, &json!({"retry": {"plugin": "b"}}));
        assert_eq!(other, json!({"retry": {"plugin": "b"}, "limits": {"ttl": "1h"}}));
        assert_eq!(slot_of(&entity_name(GroupId(7), 12)), Some((GroupId(7), 12)));
        assert_eq!(slot_of("7"), None);
    }

    #[test]
    fn it_survives_the_store() {
        let mut rollout = after(&[2]);
        rollout.pin();
        rollout.advance(version(3), Action::Promote, &Author::server("x", Origin::system()), UnixMs(30));
        rollout.roll_back(version(2), &author(), Initiator::Server, UnixMs(40));
        let stored = serde_json::to_value(&rollout).unwrap();
        assert_eq!(Rollout::deserialize(&stored).unwrap(), rollout);
    }
}
