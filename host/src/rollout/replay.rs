//! Attempts that are over, decided again from what was kept of them: by the version that decided, which says the same if nothing else has
//! changed, or by another one, to see what it would have done. Nothing of it is used, and faults count for nothing.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

use super::Rollouts;
use super::shadow::{Difference, Tally};
use crate::attempt::{Opinion, Trial, Unusable};
use crate::catalog::Group;
use crate::job::{AttemptRecord, Job, JobId};
use crate::policy::FaultCode;

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
        let inputs = attempt.detail.inputs.as_ref();
        let is_cut = attempt.detail.response_truncated && inputs.is_some_and(|inputs| !inputs.truncated);
        let cut = "the judge saw more of the answer's body than was kept (`limits.recorded_body`, `delivery.response_record_limit`)";
        let edited = "the job was edited, perhaps after this attempt: its request may have been another one";
        [(is_cut, cut), (self.job.revision > 0, edited)]
            .into_iter()
            .filter(|(holds, _)| *holds)
            .map(|(_, it)| it)
            .collect()
    }

    fn trial(&self, number: u32) -> Result<Trial, Unusable> {
        Trial::recorded(&self.job, self.body.clone(), &self.attempts, number)
    }
}

impl Rollouts {
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
    ) -> Result<Difference, Unusable> {
        let trial = record.trial(number)?;
        let shadow = self.decided_again(group, version, &trial).await?;
        Ok(Difference { job: record.job.id, attempt: number, said: trial.said, shadow })
    }

    /// Adds what a version of the group's policy says of all attempts of a job.
    ///
    /// # Errors
    /// If the version is not kept.
    pub async fn backtest(
        &self,
        group: &Arc<Group>,
        version: i64,
        record: &Record,
        backtest: &mut Backtest,
    ) -> Result<(), Unusable> {
        for AttemptRecord { number, .. } in &record.attempts {
            match record.trial(*number) {
                Ok(trial) => {
                    let said = self.decided_again(group, version, &trial).await?;
                    backtest.tally.add(&trial, said);
                }
                Err(Unusable(why)) => backtest.skipped.push(Skipped { job: record.job.id, attempt: *number, why }),
            }
        }
        Ok(())
    }

    async fn decided_again(
        &self,
        group: &Arc<Group>,
        version: i64,
        trial: &Trial,
    ) -> Result<Result<Opinion, FaultCode>, Unusable> {
        let said = self.shadows.opinion(group, version, trial, false).await;
        let said = said.ok_or_else(|| Unusable(format!("version {version} of the policy is not kept")))?;
        Ok(said.map(|opinion| Opinion { ruling: trial.as_recorded(opinion.ruling), ..opinion }))
    }
}

impl Tally {
    /// Counts an opinion, and keeps every difference.
    fn add(&mut self, trial: &Trial, said: Result<Opinion, FaultCode>) {
        let before: VecDeque<Difference> = std::mem::take(&mut self.differences);
        self.count(trial, said);
        self.differences.extend(before);
    }
}
