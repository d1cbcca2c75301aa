//! Snapshots of finished attempts, and their evaluation by another version of the policy. The evaluation changes nothing.

use std::sync::Arc;

use bytes::Bytes;

use super::answer::{answer_of, exchange_of, retry_after};
use super::{AttemptContext, AttemptExecutor, AttemptRecorder, facts, request_of};
use crate::delivery::send::{Answer, Outgoing};
use carillon_catalog::Group;
use carillon_core::clock::UnixMs;
use carillon_core::job::{
    AttemptRecord, DecisionRecord, HISTORY_LIMIT, Job, LeasedJob, Outcome, Past, PluginUse, State, Token, VerdictRecord,
};
use carillon_policy::{Fault, Judgement, PolicyCaller, PreparedRequest, QueueKey, Role, Ruling};

/// A finished attempt with its policy's evaluation, to compare a shadow with.
pub struct AttemptSnapshot {
    /// The job, as it was when the attempt began.
    pub leased: LeasedJob,
    /// Evaluation by the version that decided.
    pub said: Evaluation,
    /// Whether the judge saw more of the response's body than the snapshot holds.
    pub is_cut: bool,
    started_at: UnixMs,
    answered_at: UnixMs,
    finished_at: UnixMs,
    answer: Answer,
}

/// Results of a version's policies for one attempt.
#[derive(Clone, Debug, PartialEq)]
pub struct Evaluation {
    /// Digest of the request; `None` if none could be made.
    pub request: Option<String>,
    /// Outcome according to the judge.
    pub outcome: Outcome,
    /// Reason given by the judge.
    pub reason: String,
    /// Decision that followed.
    pub ruling: Ruling,
    /// Plugins that were called.
    pub uses: Vec<PluginUse>,
}

/// Reason for which an attempt cannot be decided again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NotReplayable(pub String);

impl AttemptSnapshot {
    /// Restores the snapshot of an earlier attempt of a job; `attempts` are the records up to it.
    ///
    /// # Errors
    /// Returns [`NotReplayable`] if the record holds too little.
    pub fn recorded(job: &Job, body: Bytes, attempts: &[AttemptRecord], number: u32) -> Result<Self, NotReplayable> {
        let not = |why: &str| NotReplayable(why.to_owned());
        let record = attempts.iter().find(|it| it.number == number).ok_or_else(|| not("there is no such attempt"))?;
        if number <= job.attempt_base {
            return Err(not("the job was redriven after the attempt, so its earlier state is not known"));
        }
        let (detail, nothing) = (&record.detail, "nothing was sent, so there was nothing to judge");
        let inputs = detail.inputs.as_ref().ok_or_else(|| not(nothing))?;
        let (answer, VerdictRecord { outcome, reason }) =
            answer_of(record, inputs).zip(detail.verdict.clone()).ok_or_else(|| not(nothing))?;
        let past = attempts.iter().filter(|it| it.detail.spent && it.number > job.attempt_base && it.number < number);
        let mut history: Vec<Past> = past.map(AttemptRecord::past).collect();
        history.drain(..history.len().saturating_sub(HISTORY_LIMIT));
        let job = Job { run_at: inputs.run_at, attempt_count: number - 1, state: State::Running, ..job.clone() };
        let leased = LeasedJob { job, token: Token(0), body, lost_leases: 0, until: UnixMs::MAX, history };
        let said = Evaluation {
            request: detail.request_digest.clone(),
            outcome,
            reason,
            ruling: ruling_of(record),
            uses: detail.plugins.clone(),
        };
        let (started_at, finished_at, is_cut) = (record.started_at, record.finished_at, detail.is_cut());
        Ok(Self { leased, said, is_cut, started_at, answered_at: inputs.answered_at, finished_at, answer })
    }

    /// Takes a snapshot of an attempt, if the group has a shadow that is to see it.
    pub(super) fn new(
        group: &Group,
        leased: &LeasedJob,
        notes: &AttemptRecorder,
        answered_at: UnixMs,
        answer: &Answer,
        (decided, ruling): (&Judgement, &Ruling),
    ) -> Option<Box<Self>> {
        let shadow = group.rollout.shadow.as_ref()?;
        if !shadow.sees(leased.job.id, leased.number()) {
            return None;
        }
        let said = Evaluation {
            request: notes.detail.request_digest.clone(),
            outcome: decided.verdict.outcome,
            reason: decided.verdict.reason.clone(),
            ruling: ruling.clone(),
            uses: notes.detail.plugins.iter().chain(&decided.uses).cloned().collect(),
        };
        let (leased, answer, started_at) = (leased.clone(), answer.clone(), notes.started_at);
        let (is_cut, finished_at) = (false, answered_at);
        Some(Box::new(Self { leased, said, is_cut, started_at, answered_at, finished_at, answer }))
    }

    /// Returns a ruling as a record would show it: a time in whole milliseconds from the end of the attempt on, if it is not too late.
    #[must_use]
    pub fn as_recorded(&self, ruling: Ruling) -> Ruling {
        let Ruling::RetryAfter(delay) = ruling else { return ruling };
        match self.leased.job.deadline {
            Some(deadline) if self.finished_at.plus(delay) > deadline => {
                Ruling::GiveUp("the next attempt would be after the job's deadline".to_owned())
            }
            _ => Ruling::RetryAfter(self.finished_at.plus(delay).since(self.finished_at)),
        }
    }

    /// Returns when the response arrived.
    #[must_use]
    pub fn at(&self) -> UnixMs {
        self.answered_at
    }

    /// Estimates its memory, in bytes.
    #[must_use]
    pub fn size(&self) -> usize {
        let answer = match &self.answer {
            Answer::Response { headers, body, .. } => {
                body.len() + headers.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>()
            }
            Answer::Failure { message, .. } => message.len(),
        };
        size_of::<Self>() + self.leased.body.len() + answer
    }
}

/// Returns the ruling of a record. Its delay counts in whole milliseconds from the attempt's end.
fn ruling_of(record: &AttemptRecord) -> Ruling {
    match &record.detail.decision {
        Some(DecisionRecord { next_run_at: Some(at), .. }) => Ruling::RetryAfter(at.since(record.finished_at)),
        Some(DecisionRecord { state: State::Succeeded, .. }) => Ruling::Done,
        Some(DecisionRecord { reason, .. }) => Ruling::GiveUp(reason.clone()),
        None => Ruling::GiveUp(String::new()),
    }
}

impl AttemptExecutor {
    /// Evaluates an attempt by `group`, a group under another version of its policy; returns the evaluation, and the request that the version
    /// would have sent, if it could make one. The calls run beside the threads that deliver, and their faults are not counted.
    ///
    /// # Errors
    /// Returns the fault if the version's policy cannot be loaded, or there is no room for the call.
    pub async fn second_opinion(
        &self,
        group: &Group,
        trial: &AttemptSnapshot,
    ) -> Result<(Evaluation, Option<Outgoing>), Fault> {
        self.opinion(AttemptContext::simulated(group, &trial.leased), trial).await
    }

    /// Evaluates an attempt by the group's shadow. Its faults quarantine its policies, but in the shadow only.
    ///
    /// # Errors
    /// Returns the same faults as [`AttemptExecutor::second_opinion`].
    pub async fn opinion_of_shadow(&self, group: &Group, trial: &AttemptSnapshot) -> Result<Evaluation, Fault> {
        let watch = Some(group.watch_of_shadow(&self.services.runtime.shadow_quarantine, trial.leased.job.id));
        let case = AttemptContext { watch, ..AttemptContext::simulated(group, &trial.leased) };
        self.opinion(case, trial).await.map(|(opinion, _)| opinion)
    }

    async fn opinion(
        &self,
        case: AttemptContext<'_>,
        trial: &AttemptSnapshot,
    ) -> Result<(Evaluation, Option<Outgoing>), Fault> {
        let AttemptContext { group, leased, .. } = case;
        let plan =
            self.services.catalog.plan(group, leased.job.spec.policy.as_ref()).await.map_err(|(_, fault)| fault)?;
        let no_target = || Fault::bad_answer("the job has no target");
        let request = request_of(leased, leased.job.spec.target.as_ref().ok_or_else(no_target)?);
        let (started_at, answered_at) = (trial.started_at, trial.answered_at);
        let (before, after) = (facts(group, leased, started_at), facts(group, leased, answered_at));
        let (exchange, retry_after) = (exchange_of(&trial.answer), retry_after(&trial.answer, answered_at));
        let (shared, history) = (Arc::clone(&plan), leased.history.clone());
        let (limits, watch) = (Arc::clone(&self.services.runtime.limits), case.watch.clone());
        let calls = move || {
            let caller = |now| PolicyCaller { limits: &limits, watch: watch.as_ref(), now };
            let prepared = caller(started_at).prepare(&shared, &before, request);
            (prepared, caller(answered_at).decide(&shared, &after, &exchange, retry_after, &history))
        };
        let (PreparedRequest { request, mut uses }, decided) =
            self.services.runtime.observer_threads.run(QueueKey::for_job(&leased.job), calls).await?;
        let request = request.and_then(|request| {
            let unsendable = || (Role::Encode, Fault::bad_answer("the request cannot be sent as it is"));
            self.completed(&case, &plan, &request).ok_or_else(unsendable)
        });
        uses.extend(decided.uses);
        let outgoing = request.ok();
        let request = outgoing.as_ref().map(Outgoing::digest);
        let VerdictRecord { outcome, reason } = decided.verdict;
        let ruling = self.retry_bounds().bounded(leased, decided.ruling);
        Ok((Evaluation { request, outcome, reason, ruling, uses }, outgoing))
    }
}
