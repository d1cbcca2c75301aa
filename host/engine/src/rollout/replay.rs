//! Replay and backtest: decide finished attempts again from their records.
//!
//! The version that decided returns the same results if nothing else has changed; another version shows what it would have done. The results
//! are not used, and faults are not counted.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use super::RolloutMonitor;
use super::requests::RequestChanges;
use super::shadow::{Difference, Tally};
use crate::delivery::attempt::{AttemptSnapshot, Evaluation, NotReplayable};
use crate::delivery::send::Outgoing;
use carillon_catalog::Group;
use carillon_core::clock::UnixMs;
use carillon_core::job::{AttemptRecord, Job, JobId};
use carillon_policy::FaultCode;

/// Reason for which the differences of a request are unknown.
const NOT_AGAIN: &str = "the request that was sent cannot be reproduced: a key, the job, or a setting that the group inherits has changed since";

/// A job with its attempts, as far as they are kept.
#[derive(Clone, Debug)]
pub struct Record {
    /// The job in its present state.
    pub job: Job,
    /// Payload.
    pub body: Bytes,
    /// Attempts, oldest first.
    pub attempts: Vec<AttemptRecord>,
}

/// Results of another version for the attempts of some jobs.
#[derive(Clone, Debug, Default)]
pub struct Backtest {
    /// Counts, with every attempt whose results differ.
    pub tally: Tally,
    /// Attempts that could not be decided again.
    pub skipped: Vec<Skipped>,
}

impl Backtest {
    /// Returns the number of attempts that were considered.
    #[must_use]
    pub fn attempts(&self) -> usize {
        usize::try_from(self.tally.attempts).unwrap_or(usize::MAX).saturating_add(self.skipped.len())
    }
}

/// An attempt that could not be decided again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skipped {
    /// The job.
    pub job: JobId,
    /// The attempt's number.
    pub attempt: u32,
    /// Reason for which it could not be decided again.
    pub why: String,
}

impl Record {
    /// Returns which inputs of an attempt are known to have changed since.
    #[must_use]
    pub fn caveats(&self, attempt: &AttemptRecord) -> Vec<&'static str> {
        let is_cut = attempt.detail.is_cut();
        let cut = "the judge saw more of the response's body than was kept (`limits.recorded_body`, `delivery.response_record_limit`)";
        let edited = "the job was edited, perhaps after this attempt: its request may have been different";
        [(is_cut, cut), (self.job.revision > 0, edited)]
            .into_iter()
            .filter(|(holds, _)| *holds)
            .map(|(_, it)| it)
            .collect()
    }

    fn trial(&self, number: u32) -> Result<AttemptSnapshot, NotReplayable> {
        AttemptSnapshot::recorded(&self.job, self.body.clone(), &self.attempts, number)
    }
}

impl RolloutMonitor {
    /// Evaluates an attempt by a version of the group's policy.
    ///
    /// # Errors
    /// Returns an error if the attempt's record holds too little, or the version is not kept.
    pub async fn replay(
        &self,
        group: &Arc<Group>,
        version: i64,
        record: &Record,
        number: u32,
    ) -> Result<Difference, NotReplayable> {
        let trial = record.trial(number)?;
        self.compared(group, version, record, &trial).await
    }

    /// Returns the request of an attempt as it was sent, without headers whose values are keys.
    ///
    /// # Errors
    /// Returns an error if the attempt's record holds too little, or the version that decided makes another request by now.
    pub async fn sent_request(
        &self,
        group: &Arc<Group>,
        record: &Record,
        number: u32,
    ) -> Result<Outgoing, NotReplayable> {
        let trial = record.trial(number)?;
        let attempt = record.attempts.iter().find(|attempt| attempt.number == number);
        let version = attempt.map_or(group.binding, |attempt| attempt.detail.binding_version);
        self.sent(group, version, &trial).await.ok_or_else(|| NotReplayable(NOT_AGAIN.to_owned()))
    }

    /// Adds the evaluations by a version of the group's policy of those attempts of a job that began within `times`.
    ///
    /// # Errors
    /// Returns an error if the version is not kept.
    pub async fn backtest(
        &self,
        group: &Arc<Group>,
        version: i64,
        record: &Record,
        times: &Range<UnixMs>,
        backtest: &mut Backtest,
    ) -> Result<(), NotReplayable> {
        for attempt in record.attempts.iter().filter(|attempt| times.contains(&attempt.started_at)) {
            match record.trial(attempt.number) {
                Ok(trial) => backtest.tally.add(self.compared(group, version, record, &trial).await?),
                Err(NotReplayable(why)) => {
                    backtest.skipped.push(Skipped { job: record.job.id, attempt: attempt.number, why });
                }
            }
        }
        Ok(())
    }

    /// Compares a version's evaluation of an attempt with the recorded one, with all differences of its request.
    async fn compared(
        &self,
        group: &Arc<Group>,
        version: i64,
        record: &Record,
        trial: &AttemptSnapshot,
    ) -> Result<Difference, NotReplayable> {
        let (shadow, request) = match self.decided_again(group, version, trial).await? {
            Ok((opinion, request)) => (Ok(opinion), request),
            Err(code) => (Err(code), None),
        };
        let mut difference = Difference::new(trial, shadow);
        let attempt = record.attempts.iter().find(|attempt| attempt.number == difference.attempt);
        difference.caveats = attempt.map(|attempt| record.caveats(attempt)).unwrap_or_default();
        let Some(request) = request.filter(|_| difference.is_of_requests()) else { return Ok(difference) };
        let decided_by = attempt.map(|attempt| attempt.detail.binding_version).filter(|decided| *decided != version);
        let sent = match decided_by {
            Some(decided) => self.sent(group, decided, trial).await,
            None => None,
        };
        match sent {
            Some(sent) => difference.request = Some(RequestChanges::between(&sent, &request)),
            None => difference.caveats.push(NOT_AGAIN),
        }
        Ok(difference)
    }

    /// Builds the request of an attempt again, by the version that decided it; `None` if that version makes another request by now.
    async fn sent(&self, group: &Arc<Group>, version: i64, trial: &AttemptSnapshot) -> Option<Outgoing> {
        let (opinion, request) = self.shadows.opinion(group, version, trial).await?.ok()?;
        request.filter(|_| opinion.request == trial.said.request)
    }

    async fn decided_again(
        &self,
        group: &Arc<Group>,
        version: i64,
        trial: &AttemptSnapshot,
    ) -> Result<Result<(Evaluation, Option<Outgoing>), FaultCode>, NotReplayable> {
        let said = self.shadows.opinion(group, version, trial).await;
        let said = said.ok_or_else(|| NotReplayable(format!("version {version} of the policy is not kept")))?;
        Ok(said.map(|(it, request)| (Evaluation { ruling: trial.as_recorded(it.ruling), ..it }, request)))
    }
}

impl Tally {
    /// Counts an evaluation, and keeps every difference.
    fn add(&mut self, difference: Difference) {
        let before: VecDeque<Difference> = std::mem::take(&mut self.differences);
        self.count(difference);
        self.differences.extend(before);
    }
}
