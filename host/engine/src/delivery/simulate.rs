//! Foretells a job: the exact bytes that its first attempt would send, and when its attempts would be.
//!
//! Nothing is stored and nothing is sent. The policies, and what the host makes of their answers, are those of a delivery: this
//! runs the same code over answers that somebody imagines. Faults count for nothing, and those who are quarantined are called.

use std::sync::Arc;
use std::time::Duration;

use crate::delivery::attempt::{AttemptContext, AttemptExecutor, AttemptRecorder};
use crate::delivery::send::{Answer, Outgoing};
use crate::delivery::settle;
use carillon_catalog::Group;
use carillon_core::clock::UnixMs;
use carillon_core::job::{AttemptRecord, LeasedJob, Next, PluginUse, Settlement};
use carillon_policy::{Fault, Plan, Role};

/// The most attempts that are foretold.
pub const ATTEMPTS: usize = 1_001;

/// What would happen.
pub struct Simulation {
    /// The first request, or why it cannot be sent.
    pub request: Result<Outgoing, (Role, Fault)>,
    /// Who made it.
    pub uses: Vec<PluginUse>,
    /// Each attempt: what is recorded of it, and what follows.
    pub attempts: Vec<(UnixMs, AttemptRecord)>,
}

impl AttemptExecutor {
    /// Foretells `leased`, whose attempts get `answers` one after the other.
    pub async fn foretell(
        &self,
        group: &Group,
        plan: &Arc<Plan>,
        mut leased: LeasedJob,
        answers: Vec<Answer>,
    ) -> Simulation {
        let start = leased.job.run_at;
        let mut notes = AttemptRecorder::new(&leased, group, start);
        let request = self.prepared(&AttemptContext::imagined(group, &leased), plan, start, &mut notes).await;
        let uses = notes.uses();
        let mut attempts = Vec::new();
        if request.is_ok() {
            for answer in answers.into_iter().take(ATTEMPTS) {
                let at = leased.job.run_at;
                let settlement = self.imagined(group, plan, &leased, answer).await;
                let Some(attempt) = settlement.attempt.clone() else { break };
                attempts.push((at, AttemptRecord::clone(&attempt)));
                let Next::Scheduled(run_at) = settlement.next() else { break };
                leased.history.push(attempt.past());
                leased.job.attempt_count = attempt.number;
                leased.job.run_at = run_at;
            }
        }
        Simulation { request, uses, attempts }
    }

    /// One attempt that takes no time and gets `answer`.
    async fn imagined(&self, group: &Group, plan: &Arc<Plan>, leased: &LeasedJob, answer: Answer) -> Settlement {
        let at = leased.job.run_at;
        if settle::is_late(leased, at) {
            return Settlement::expired(leased, at, None);
        }
        let notes = AttemptRecorder::new(leased, group, at);
        let decided = self.decided(&AttemptContext::imagined(group, leased), plan, at, &answer).await;
        let ruling = decided.ruling.clone();
        settle::answered(leased, at, self.recorded(group, notes, at, answer, decided), ruling)
    }
}

/// An answer that somebody imagines.
#[must_use]
pub fn imagined_answer(status: u16, headers: Vec<(String, String)>, body: bytes::Bytes) -> Answer {
    let headers = headers.into_iter().map(|(name, value)| (name, value.into_bytes())).collect();
    Answer::Response { status, headers, body, truncated: false, elapsed: Duration::ZERO }
}
