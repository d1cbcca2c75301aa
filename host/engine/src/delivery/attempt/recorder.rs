//! Recorder of an attempt: collects the record while the attempt is made.

use std::time::Duration;

use bytes::Bytes;

use super::seed_of;
use crate::delivery::send::Answer;
use carillon_catalog::Group;
use carillon_core::clock::UnixMs;
use carillon_core::job::{AttemptDetail, AttemptError, AttemptRecord, LeasedJob, Outcome, PluginUse, Timings};
use carillon_core::text::clean;
use carillon_policy::Judgement;

/// Record of an attempt under construction.
pub(crate) struct AttemptRecorder {
    number: u32,
    pub(super) started_at: UnixMs,
    pub(super) detail: AttemptDetail,
    status: Option<u16>,
    body: Bytes,
}

impl AttemptRecorder {
    pub(crate) fn new(leased: &LeasedJob, group: &Group, started_at: UnixMs) -> Self {
        let late = micros(started_at.since(leased.job.run_at));
        let detail = AttemptDetail {
            spent: true,
            timings: Timings { late, ..Timings::default() },
            seed: seed_of(leased.job.seed, leased.number()),
            binding_version: group.binding,
            ..AttemptDetail::default()
        };
        Self { number: leased.number(), started_at, detail, status: None, body: Bytes::new() }
    }

    /// Returns the plugins that were called so far.
    pub(crate) fn uses(self) -> Vec<PluginUse> {
        self.detail.plugins
    }

    pub(super) fn unsent(self, at: UnixMs) -> AttemptRecord {
        self.record(at, Outcome::Retryable)
    }

    /// Completes the record with a response, of whose body `kept` bytes are stored.
    pub(super) fn answered(mut self, at: UnixMs, answer: Answer, decided: Judgement, kept: usize) -> AttemptRecord {
        let detail = &mut self.detail;
        match answer {
            Answer::Response { status, headers, body, truncated, elapsed } => {
                self.status = Some(status);
                let text = |value: Vec<u8>| clean(&String::from_utf8_lossy(&value)).into_owned();
                detail.response_headers = headers.into_iter().map(|(name, value)| (name, text(value))).collect();
                self.body = body.slice(..body.len().min(kept));
                detail.response_truncated = truncated || self.body.len() < body.len();
                detail.timings.exchange = micros(elapsed);
            }
            Answer::Failure { error, message, elapsed } => {
                detail.error = Some(AttemptError { code: error.into(), message });
                detail.timings.exchange = micros(elapsed);
            }
        }
        detail.error = decided.fault.or(detail.error.take());
        detail.plugins.extend(decided.uses);
        let outcome = decided.verdict.outcome;
        detail.verdict = Some(decided.verdict);
        self.record(at, outcome)
    }

    pub(super) fn consumed(mut self, at: UnixMs, error: Option<AttemptError>, decided: Judgement) -> AttemptRecord {
        let outcome = decided.verdict.outcome;
        self.detail.error = decided.fault.or(error);
        self.detail.plugins = decided.uses;
        self.detail.verdict = Some(decided.verdict);
        self.record(at, outcome)
    }

    fn record(self, finished_at: UnixMs, outcome: Outcome) -> AttemptRecord {
        AttemptRecord {
            number: self.number,
            started_at: self.started_at,
            finished_at,
            outcome,
            status: self.status,
            response_body: self.body,
            detail: self.detail,
        }
    }
}

/// Returns a duration in whole microseconds.
pub(super) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
