//! Shadows: a version of a policy runs beside the one in force. Its results for the same attempts are compared and counted, and never used.
//!
//! Invariants: no delivery waits for a shadow; waiting attempts are bounded by memory, and further ones are dropped and counted. The counts
//! are this node's own, since the shadow was set or the server started.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::requests::RequestChanges;
use crate::by_group::ByGroup;
use crate::delivery::attempt::{AttemptExecutor, AttemptSnapshot, Evaluation};
use crate::delivery::send::Outgoing;
use crate::services::Services;
use carillon_catalog::{Group, Shadow};
use carillon_core::error_code::ErrorCode;
use carillon_core::job::{GroupId, JobId};
use carillon_policy::{FaultCode, Ruling};
use carillon_telemetry::{Fact, ShadowOutcome};

/// Largest memory of attempts that wait for shadows, in KiB.
const ROOM: usize = 64 << 10;

/// Memory that an attempt counts for at least, in KiB; so it also bounds the number of attempts.
const MIN_ATTEMPT_KIB: usize = 16;

/// Number of a group's differences that are kept.
const DIFFERENCES: usize = 20;

/// Runs shadows.
pub struct Shadows {
    services: Services,
    executor: Arc<AttemptExecutor>,
    room: Arc<Semaphore>,
    tasks: TaskTracker,
    stop: CancellationToken,
    accounts: Mutex<ByGroup<(Shadow, Tally)>>,
}

/// Counts of a shadow's results.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tally {
    /// Attempts that it was shown.
    pub attempts: u64,
    /// Attempts with the same results throughout.
    pub same: u64,
    /// Attempts for which it made another request: other bytes to send, or none.
    pub request: u64,
    /// Attempts that it judged differently.
    pub judge: u64,
    /// Attempts after which it decided differently about a retry.
    pub retry: u64,
    /// Attempts whose judgement may or may not differ: the judge of the version that decided saw more of the response.
    pub uncertain: u64,
    /// Faults by code.
    pub faults: BTreeMap<ErrorCode, u64>,
    /// Attempts that it was not shown, because too many waited.
    pub dropped: u64,
    /// Fuel used by the calls of the version that decided.
    pub fuel: u64,
    /// Fuel used by the shadow's own calls.
    pub shadow_fuel: u64,
    /// The newest differences, newest first.
    pub differences: VecDeque<Difference>,
}

/// An attempt for which a shadow's results differ.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    /// The job.
    pub job: JobId,
    /// The attempt's number.
    pub attempt: u32,
    /// Results of the version that decided.
    pub said: Evaluation,
    /// Results of the shadow; a fault's code if it could not be called.
    pub shadow: Result<Evaluation, FaultCode>,
    /// Whether the shadow judges differently and saw less of the response: the difference, and what follows from it, may not be real.
    pub uncertain: bool,
    /// Differences of its request, if they were computed.
    pub request: Option<RequestChanges>,
    /// Possible reasons for the difference: inputs that are known to have changed.
    pub caveats: Vec<&'static str>,
}

/// Returns which results differ: request, judge, retry.
fn different(said: &Evaluation, shadow: &Evaluation) -> [bool; 3] {
    let ruling = |ruling: &Ruling| match ruling {
        Ruling::RetryAfter(delay) => Some(*delay),
        Ruling::Done | Ruling::GiveUp(_) => None,
    };
    let (one, other) = (&said.ruling, &shadow.ruling);
    let retry = std::mem::discriminant(one) != std::mem::discriminant(other) || ruling(one) != ruling(other);
    [said.request != shadow.request, said.outcome != shadow.outcome, retry]
}

/// Returns the names of the results that differ.
fn words([request, judge, retry]: [bool; 3]) -> String {
    let words = [(request, "request"), (judge, "judge"), (retry, "retry")];
    words.into_iter().filter(|(differs, _)| *differs).map(|(_, word)| word).collect::<Vec<_>>().join(", ")
}

impl Difference {
    /// Compares a version's evaluation of an attempt with that of the version that decided.
    pub(super) fn new(trial: &AttemptSnapshot, shadow: Result<Evaluation, FaultCode>) -> Self {
        let [_, judge, _] = shadow.as_ref().map_or([false; 3], |shadow| different(&trial.said, shadow));
        Self {
            job: trial.leased.job.id,
            attempt: trial.leased.number(),
            said: trial.said.clone(),
            shadow,
            uncertain: judge && trial.is_cut,
            request: None,
            caveats: Vec::new(),
        }
    }

    /// Returns whether another request would have been sent, or none.
    pub(super) fn is_of_requests(&self) -> bool {
        self.shadow.as_ref().is_ok_and(|shadow| shadow.request != self.said.request)
    }

    /// Returns whether all results are the same, without a fault.
    #[must_use]
    pub fn is_none(&self) -> bool {
        let is_same = |shadow: &Evaluation| different(&self.said, shadow) == [false; 3] && faults(shadow).is_empty();
        self.shadow.as_ref().is_ok_and(is_same)
    }

    /// Returns the names of the results that differ; empty if the shadow could not be called.
    #[must_use]
    pub fn parts(&self) -> String {
        self.shadow.as_ref().map(|shadow| words(different(&self.said, shadow))).unwrap_or_default()
    }
}

/// Returns the codes of the faults in an evaluation.
fn faults(opinion: &Evaluation) -> Vec<ErrorCode> {
    opinion.uses.iter().filter_map(|used| used.fault.clone()).collect()
}

impl Tally {
    /// Counts an evaluation; returns its outcome and the differences.
    pub(super) fn count(&mut self, difference: Difference) -> (ShadowOutcome, Option<String>) {
        self.attempts += 1;
        let fuel = |opinion: &Evaluation| opinion.uses.iter().map(|used| used.fuel).sum::<u64>();
        self.fuel += fuel(&difference.said);
        let (codes, parts) = match &difference.shadow {
            Ok(opinion) => {
                self.shadow_fuel += fuel(opinion);
                (faults(opinion), different(&difference.said, opinion))
            }
            Err(code) => (vec![(*code).into()], [false; 3]),
        };
        let is_same = codes.is_empty() && parts == [false; 3];
        let outcome = match (is_same, codes.is_empty()) {
            (true, _) => ShadowOutcome::Same,
            (_, true) => ShadowOutcome::Different,
            (_, false) => ShadowOutcome::Fault,
        };
        let ([request, judge, retry], is_sure) = (parts, !difference.uncertain);
        self.request += u64::from(request);
        self.judge += u64::from(judge && is_sure);
        self.retry += u64::from(retry && is_sure);
        self.uncertain += u64::from(!is_sure);
        if is_same {
            self.same += 1;
            return (outcome, None);
        }
        let reason = codes.first().map_or_else(|| words(parts), ErrorCode::to_string);
        codes.into_iter().for_each(|code| *self.faults.entry(code).or_default() += 1);
        self.differences.push_front(difference);
        self.differences.truncate(DIFFERENCES);
        (outcome, Some(reason))
    }
}

impl Shadows {
    pub(super) fn new(services: Services, executor: Arc<AttemptExecutor>, stop: CancellationToken) -> Self {
        let room = Arc::new(Semaphore::new(ROOM));
        Self { services, executor, room, tasks: TaskTracker::new(), stop, accounts: Mutex::default() }
    }

    /// Returns the counts of the group's shadow.
    #[must_use]
    pub fn tally(&self, group: &Group) -> Tally {
        let Some(shadow) = &group.rollout.shadow else { return Tally::default() };
        let accounts = self.lock();
        accounts.get(group.id).filter(|(known, _)| known == shadow).map(|(_, tally)| tally.clone()).unwrap_or_default()
    }

    /// Shows an attempt to its group's shadow, in the background.
    pub(super) fn show(self: &Arc<Self>, trial: Box<AttemptSnapshot>) {
        let size = trial.size().div_ceil(1 << 10).clamp(MIN_ATTEMPT_KIB, ROOM);
        let place = Arc::clone(&self.room).try_acquire_many_owned(u32::try_from(size).unwrap_or(u32::MAX));
        let Ok(place) = place else {
            self.drop_one(trial.leased.job.group);
            return;
        };
        let shadows = Arc::clone(self);
        self.tasks.spawn(async move {
            tokio::select! {
                () = shadows.ask(&trial) => {}
                () = shadows.stop.cancelled() => {}
            }
            drop(place);
        });
    }

    /// Evaluates an attempt by a version of a group's policy on a client's request; returns the evaluation and its request, or `None` if the
    /// version is not kept.
    pub(super) async fn opinion(
        &self,
        group: &Arc<Group>,
        version: i64,
        trial: &AttemptSnapshot,
    ) -> Option<Result<(Evaluation, Option<Outgoing>), FaultCode>> {
        let variant = self.services.catalog.bound(group, version)?;
        Some(self.executor.second_opinion(&variant, trial).await.map_err(|fault| fault.code))
    }

    async fn ask(&self, trial: &AttemptSnapshot) {
        let id = trial.leased.job.group;
        let Some(group) = self.services.catalog.group_by_id(id) else {
            self.lock().remove(id);
            return;
        };
        // The shadow may have been removed meanwhile, or be in force by now.
        let Some(shadow) = group.rollout.shadow.clone() else { return };
        let Some(variant) = self.services.catalog.bound(&group, shadow.version) else { return };
        let said = match self.executor.opinion_of_shadow(&variant, trial).await {
            Err(fault) if fault.code == FaultCode::Overloaded => return self.drop_one(id),
            said => said.map_err(|fault| fault.code),
        };
        let version = shadow.version;
        let (outcome, reason) = self.account(id, shadow, |tally| tally.count(Difference::new(trial, said)));
        self.services.telemetry.metrics.shadowed(outcome);
        if let Some(reason) = reason {
            self.services.telemetry.record(Fact::shadow_difference(&trial.leased, trial.at(), version, reason));
        }
    }

    fn drop_one(&self, group: GroupId) {
        self.services.telemetry.metrics.shadowed(ShadowOutcome::Dropped);
        if let Some(shadow) = self.services.catalog.group_by_id(group).and_then(|group| group.rollout.shadow.clone()) {
            self.account(group, shadow, |tally| tally.dropped += 1);
        }
    }

    /// Changes the counts of a shadow. They begin anew with each shadow that is set.
    fn account<T>(&self, group: GroupId, shadow: Shadow, change: impl FnOnce(&mut Tally) -> T) -> T {
        let exists = |group| self.services.catalog.group_by_id(group).is_some();
        let mut accounts = self.lock();
        let (known, tally) = accounts.entry(group, exists).or_insert_with(|| (shadow.clone(), Tally::default()));
        if *known != shadow {
            (*known, *tally) = (shadow, Tally::default());
        }
        change(tally)
    }

    fn lock(&self) -> MutexGuard<'_, ByGroup<(Shadow, Tally)>> {
        self.accounts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
