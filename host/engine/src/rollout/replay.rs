//! Attempts that are over, decided again from what was kept of them: by the version that decided, which says the same if nothing else has
//! changed, or by another one, to see what it would have done. Nothing of it is used, and faults count for nothing.

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

/// Why what differs in a request is not known.
const NOT_AGAIN: &str = "the version that decided makes another request by now than it sent: a key, the job, or what the group inherits is not as it was";

/// A job, with all that was kept of it.
#[derive(Clone, Debug)]
pub struct Record {
    /// As it is now.
    pub job: Job,
    /// Its payload.
    pub body: Bytes,
    /// Oldest first.
    pub attempts: Vec<AttemptRecord>,
}

/// What another version says of the attempts of some jobs.
#[derive(Clone, Debug, Default)]
pub struct Backtest {
    /// What it said, with every attempt of which it said something else.
    pub tally: Tally,
    /// Attempts that could not be decided again.
    pub skipped: Vec<Skipped>,
}

impl Backtest {
    /// How many attempts were looked at.
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
    /// Why.
    pub why: String,
}

impl Record {
    /// What is not as it was when an attempt was made, as far as that is known.
    #[must_use]
    pub fn caveats(&self, attempt: &AttemptRecord) -> Vec<&'static str> {
        let is_cut = attempt.detail.is_cut();
        let cut = "the judge saw more of the answer's body than was kept (`limits.recorded_body`, `delivery.response_record_limit`)";
        let edited = "the job was edited, perhaps after this attempt: its request may have been another one";
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
    /// What a version of the group's policy says of an attempt.
    ///
    /// # Errors
    /// If too little is known of the attempt, or the version is not kept.
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

    /// The request of an attempt as it was sent, but for headers whose values are keys.
    ///
    /// # Errors
    /// If too little is known of the attempt, or the version that decided makes another request by now.
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

    /// Adds what a version of the group's policy says of those attempts of a job that began within `times`.
    ///
    /// # Errors
    /// If the version is not kept.
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

    /// What a version says of an attempt, beside what was said, with all that differs in its request.
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
        let mut difference = Difference::of(trial, shadow);
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

    /// The request of an attempt, made again by the version that decided it. None if that makes another one by now.
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
    /// Counts an opinion, and keeps every difference.
    fn add(&mut self, difference: Difference) {
        let before: VecDeque<Difference> = std::mem::take(&mut self.differences);
        self.count(difference);
        self.differences.extend(before);
    }
}
