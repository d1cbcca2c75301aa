//! Simulation of a job: the exact bytes that its first attempt would send, and the times of its attempts.
//!
//! Nothing is stored and nothing is sent. The policies, and the host's treatment of their results, are those of a delivery: the same code
//! runs over responses that the caller supplies. Faults are not counted, and quarantined policies are called.

use std::sync::Arc;
use std::time::Duration;

use crate::delivery::attempt::{AttemptContext, AttemptExecutor, AttemptRecorder};
use crate::delivery::send::{Answer, Outgoing};
use crate::delivery::settle;
use carillon_catalog::Group;
use carillon_core::clock::UnixMs;
use carillon_core::job::{AttemptError, AttemptRecord, LeasedJob, Next, PluginUse, Settlement};
use carillon_policy::{Fault, Plan, Role};

/// Largest number of simulated attempts.
pub const ATTEMPTS: usize = 1_001;

/// Result of a simulation.
pub struct Simulation {
    /// The first request, or the role and the fault for which it cannot be sent.
    pub request: Result<Outgoing, (Role, Fault)>,
    /// Error of the first attempt, if its target would be refused, as far as that is known without a connection.
    pub refusal: Option<AttemptError>,
    /// Plugins that were called for the request.
    pub uses: Vec<PluginUse>,
    /// The attempts: time, record and decision of each.
    pub attempts: Vec<(UnixMs, AttemptRecord)>,
}

impl AttemptExecutor {
    /// Simulates `leased`, whose attempts get `answers` one after the other.
    pub async fn simulate(
        &self,
        group: &Group,
        plan: &Arc<Plan>,
        mut leased: LeasedJob,
        answers: Vec<Answer>,
    ) -> Simulation {
        let start = leased.job.run_at;
        let mut notes = AttemptRecorder::new(&leased, group, start);
        let request = self.prepared(&AttemptContext::simulated(group, &leased), plan, start, &mut notes).await;
        let uses = notes.uses();
        let refusal = request.as_ref().ok().and_then(|request| self.refusal(request));
        let mut attempts = Vec::new();
        if request.is_ok() {
            for answer in answers.into_iter().take(ATTEMPTS) {
                let at = leased.job.run_at;
                let settlement = self.simulate_attempt(group, plan, &leased, answer).await;
                let Some(attempt) = settlement.attempt.clone() else { break };
                attempts.push((at, AttemptRecord::clone(&attempt)));
                let Next::Scheduled(run_at) = settlement.next() else { break };
                leased.history.push(attempt.past());
                leased.job.attempt_count = attempt.number;
                leased.job.run_at = run_at;
            }
        }
        Simulation { request, refusal, uses, attempts }
    }

    /// Returns the time of the first retry of `leased` after `until`, if each of its attempts gets `answer`; `None` if there is none, or not
    /// among the first `attempts`.
    pub async fn retried_after(
        &self,
        group: &Group,
        plan: &Arc<Plan>,
        mut leased: LeasedJob,
        answer: &Answer,
        until: UnixMs,
        attempts: usize,
    ) -> Option<UnixMs> {
        for _ in 0..attempts.min(ATTEMPTS) {
            let settlement = self.simulate_attempt(group, plan, &leased, answer.clone()).await;
            let attempt = settlement.attempt.clone()?;
            let Next::Scheduled(run_at) = settlement.next() else { return None };
            if run_at > until {
                return Some(run_at);
            }
            leased.history.push(attempt.past());
            leased.job.attempt_count = attempt.number;
            leased.job.run_at = run_at;
        }
        None
    }

    /// Simulates one attempt that takes no time and gets `answer`.
    async fn simulate_attempt(
        &self,
        group: &Group,
        plan: &Arc<Plan>,
        leased: &LeasedJob,
        answer: Answer,
    ) -> Settlement {
        let at = leased.job.run_at;
        if settle::is_late(leased, at) {
            return Settlement::expired(leased, at, None);
        }
        let notes = AttemptRecorder::new(leased, group, at);
        let decided = self.decided(&AttemptContext::simulated(group, leased), plan, at, &answer).await;
        let ruling = decided.ruling.clone();
        settle::answered(leased, at, self.recorded(group, notes, at, answer, decided), ruling, self.retry_bounds())
    }
}

/// Builds a response for a simulation.
#[must_use]
pub fn simulated_answer(status: u16, headers: Vec<(String, String)>, body: bytes::Bytes) -> Answer {
    let headers = headers.into_iter().map(|(name, value)| (name, value.into_bytes())).collect();
    Answer::Response { status, headers, body, truncated: false, elapsed: Duration::ZERO }
}
