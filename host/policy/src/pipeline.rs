//! The two halves of an attempt that policies decide: what is sent, and what becomes of the answer.
//!
//! Both are straight lines of calls without I/O, so that a policy thread takes each in one go, and so that a simulation runs the
//! very code that a delivery runs.

use std::sync::Arc;
use std::time::Duration;

use super::binding::AuthHeader;
use super::call::CallResult;
use super::component::{Digest, Role};
use super::fault::{Blame, Fault, FaultCode};
use super::keys::KeyMaterial;
use super::limits::Limits;
use super::plugin::Plugin;
use super::quarantine::Watch;
use super::wit::jobs_import::NewJob;
use super::wit::{judge_export, observe_export, retry_export, types};
use carillon_core::clock::UnixMs;
use carillon_core::job::{AttemptError, HISTORY_LIMIT, Outcome, Past, PluginUse, VerdictRecord};

/// The attribute that tells `retry` how long the receiver asked to be left alone.
pub const RETRY_AFTER_ATTRIBUTE: &str = "retry-after-ms";

/// The host's own backoff, for when the retry policy has no answer: 2 s, 4 s, 8 s, … up to 15 min, 20 attempts in all.
const FALLBACK_BASE: Duration = Duration::from_secs(2);
const FALLBACK_MAX: Duration = Duration::from_secs(15 * 60);
const FALLBACK_ATTEMPTS: u32 = 20;

/// The longest time that a policy can put a job off: ten years.
const MAX_DELAY: Duration = Duration::from_secs(3_660 * 24 * 60 * 60);

/// A plugin under a config, in a role.
#[derive(Clone, Debug)]
pub struct PlanStep {
    /// Which role it plays here.
    pub role: Role,
    /// The name that the binding knows it by.
    pub name: Arc<str>,
    /// The code.
    pub plugin: Arc<Plugin>,
    /// JSON.
    pub config: Arc<str>,
    /// The digest of `config`.
    pub config_digest: Digest,
}

/// The policy of one job, ready to be called.
#[derive(Clone, Debug)]
pub struct Plan {
    /// In order.
    pub encode: Vec<PlanStep>,
    /// With the versions of the keys that it is granted, some of which may have expired.
    pub sign: Option<(PlanStep, Vec<Arc<KeyMaterial>>)>,
    /// With their keys, each of the kind for headers. No policy is given them.
    pub auth_headers: Vec<(AuthHeader, Arc<KeyMaterial>)>,
    /// Always there.
    pub judge: PlanStep,
    /// Always there.
    pub retry: PlanStep,
}

/// What every call of a stage needs.
#[derive(Clone, Copy)]
pub struct PolicyCaller<'a> {
    /// Bounds of each call.
    pub limits: &'a Limits,
    /// Who must not be called, and what becomes of faults. None if nothing comes of the answers: then everybody is called.
    pub watch: Option<&'a Watch>,
    /// The time that the policies are told.
    pub now: UnixMs,
}

/// The outcome of the first half.
#[derive(Debug)]
pub struct PreparedRequest {
    /// The request to send, or the fault because of which nothing is sent.
    pub request: Result<types::Request, (Role, Fault)>,
    /// Who was called.
    pub uses: Vec<PluginUse>,
}

/// The outcome of the second half.
#[derive(Debug)]
pub struct Judgement {
    /// What the answer was judged to be.
    pub verdict: VerdictRecord,
    /// What follows.
    pub ruling: Ruling,
    /// The fault of a policy that the host stood in for.
    pub fault: Option<AttemptError>,
    /// Whether the server had no room for a call, and the host stood in for the policy because of that.
    lacks_room: bool,
    /// Who was called.
    pub uses: Vec<PluginUse>,
}

/// What follows from a verdict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ruling {
    /// The job is done.
    Done,
    /// Another attempt, this long after now.
    RetryAfter(Duration),
    /// No other attempt; the text says why.
    GiveUp(String),
}

impl Judgement {
    /// Somebody who needs no judge says that the job is done.
    #[must_use]
    pub fn done(reason: String) -> Self {
        let verdict = VerdictRecord { outcome: Outcome::Success, reason };
        Self { verdict, ruling: Ruling::Done, fault: None, lacks_room: false, uses: Vec::new() }
    }

    /// Whether a policy was not asked because the server had no room for the call: nothing is decided then.
    #[must_use]
    pub fn is_for_want_of_room(&self) -> bool {
        self.lacks_room
    }

    /// What the host decides when it could ask nobody: another try may help, after its own backoff.
    #[must_use]
    pub fn by_host(number: u32, seed: u32, fault: &Fault) -> Self {
        let error = AttemptError { code: fault.code.as_str().to_owned(), message: fault.message.clone() };
        Self {
            verdict: VerdictRecord { outcome: Outcome::Retryable, reason: "no judge could be asked".to_owned() },
            ruling: fall_back(number, seed),
            fault: Some(error),
            lacks_room: fault.code == FaultCode::Overloaded,
            uses: Vec::new(),
        }
    }
}

impl PolicyCaller<'_> {
    /// Encodes and signs. Stops at the first fault: nothing goes out half-made.
    #[must_use]
    pub fn prepare(&self, plan: &Plan, attempt: &types::Attempt, request: types::Request) -> PreparedRequest {
        let mut uses = Vec::with_capacity(plan.encode.len() + 1);
        let mut request = Ok(request);
        for step in &plan.encode {
            let Ok(before) = &request else { break };
            let after = self.call(step, &mut uses, |plugin| plugin.encode(self.limits, attempt, &step.config, before));
            request = after.map_err(|fault| (step.role, fault));
        }
        if let (Some((step, keys)), Ok(_)) = (&plan.sign, &request) {
            // Plans are kept; a version whose overlap has ended since is not given any more.
            let live: Vec<_> = keys.iter().filter(|key| key.lives(self.now)).cloned().collect();
            request = request.and_then(|request| {
                self.call(step, &mut uses, |plugin| plugin.sign(self.limits, attempt, &step.config, request, &live))
                    .map_err(|fault| (step.role, fault))
            });
        }
        PreparedRequest { request, uses }
    }

    /// Judges an exchange and, if another try may help, asks whether and when.
    #[must_use]
    pub fn decide(
        &self,
        plan: &Plan,
        attempt: &types::Attempt,
        exchange: &judge_export::Exchange,
        retry_after: Option<Duration>,
        history: &[Past],
    ) -> Judgement {
        let (mut uses, mut fault) = (Vec::with_capacity(2), None);
        let judge = &plan.judge;
        let judged = self.call(judge, &mut uses, |plugin| plugin.judge(self.limits, attempt, &judge.config, exchange));
        let mut lacks_room = false;
        let verdict = judged.unwrap_or_else(|error| {
            lacks_room = error.code == FaultCode::Overloaded;
            fault = Some(stood_in(judge, &error));
            judge_export::Verdict {
                outcome: judge_export::Outcome::Retryable,
                reason: format!("the judge did not answer ({}), so another try may help", error.code.as_str()),
            }
        });
        let ruled = self.rule(plan, attempt, verdict, retry_after, history);
        uses.extend(ruled.uses);
        Judgement { fault: ruled.fault.or(fault), lacks_room: lacks_room || ruled.lacks_room, uses, ..ruled }
    }

    /// What follows from a verdict: if another try may help, the retry policy is asked whether and when.
    #[must_use]
    pub fn rule(
        &self,
        plan: &Plan,
        attempt: &types::Attempt,
        verdict: judge_export::Verdict,
        retry_after: Option<Duration>,
        history: &[Past],
    ) -> Judgement {
        let (mut uses, mut fault, mut lacks_room) = (Vec::with_capacity(1), None, false);
        let ruling = match verdict.outcome {
            judge_export::Outcome::Success => Ruling::Done,
            judge_export::Outcome::Permanent => Ruling::GiveUp(verdict.reason.clone()),
            judge_export::Outcome::Retryable => {
                let asked = self.ask_retry(&plan.retry, &mut uses, attempt, &verdict, retry_after, history);
                asked.unwrap_or_else(|error| {
                    lacks_room = error.code == FaultCode::Overloaded;
                    fault = Some(stood_in(&plan.retry, &error));
                    fall_back(attempt.number, attempt.seed)
                })
            }
        };
        let verdict = VerdictRecord { outcome: outcome_of(verdict.outcome), reason: verdict.reason };
        Judgement { verdict, ruling, fault, lacks_room, uses }
    }

    /// Shows events to an observer, which asks for jobs if it may.
    #[must_use]
    pub fn observe(
        &self,
        step: &PlanStep,
        events: &[observe_export::Event],
        may_ask: bool,
    ) -> (PluginUse, Vec<NewJob>) {
        let (used, asked) = self.called(step, |plugin| plugin.observe(self.limits, &step.config, events, may_ask));
        (used, asked.unwrap_or_default())
    }

    fn ask_retry(
        &self,
        step: &PlanStep,
        uses: &mut Vec<PluginUse>,
        attempt: &types::Attempt,
        verdict: &judge_export::Verdict,
        retry_after: Option<Duration>,
        history: &[Past],
    ) -> Result<Ruling, Fault> {
        let mut attempt = attempt.clone();
        attempt.attributes.extend(retry_after.map(|after| types::Attribute {
            key: RETRY_AFTER_ATTRIBUTE.to_owned(),
            // A plugin reads it as 64 bits.
            value: u64::try_from(after.as_millis()).unwrap_or(u64::MAX).to_string(),
        }));
        let recent = history.len().saturating_sub(HISTORY_LIMIT);
        let history: Vec<_> = history[recent..].iter().map(past_of).collect();
        let call = |plugin: &Plugin| plugin.retry(self.limits, &attempt, &step.config, verdict, &history);
        Ok(match self.call(step, uses, call)? {
            retry_export::Decision::GiveUp(reason) => Ruling::GiveUp(reason),
            retry_export::Decision::AfterMs(ms) => Ruling::RetryAfter(Duration::from_millis(ms).min(MAX_DELAY)),
        })
    }

    fn call<T>(
        &self,
        step: &PlanStep,
        uses: &mut Vec<PluginUse>,
        call: impl FnOnce(&Plugin) -> CallResult<T>,
    ) -> Result<T, Fault> {
        let (used, result) = self.called(step, call);
        uses.push(used);
        result
    }

    fn called<T>(&self, step: &PlanStep, call: impl FnOnce(&Plugin) -> CallResult<T>) -> (PluginUse, Result<T, Fault>) {
        let watched = self.watch.map(|watch| (watch, watch.suspect(&step.plugin.digest, &step.config_digest)));
        let called = match watched.as_ref().map_or(Ok(()), |(watch, suspect)| watch.admit(suspect, self.now)) {
            Ok(()) => call(&step.plugin),
            Err(fault) => CallResult { result: Err(fault), usage: super::CallUsage::default() },
        };
        let fault = called.result.as_ref().err();
        if let (Some((watch, suspect)), Some(fault)) = (&watched, fault.filter(|fault| fault.is_the_plugins())) {
            watch.report(suspect, step.role, &step.name, fault.code, self.now);
        }
        let used = PluginUse {
            role: step.role.as_str().into(),
            plugin: Arc::clone(&step.name),
            digest: Arc::clone(&step.plugin.digest.0),
            config_digest: Arc::clone(&step.config_digest.0),
            micros: called.usage.micros,
            fuel: called.usage.fuel,
            log: called.usage.log,
            fault: fault.map(|fault| fault.code.as_str().to_owned()),
        };
        (used, called.result)
    }
}

/// The host's own backoff, with up to a fifth of jitter taken off.
fn fall_back(number: u32, seed: u32) -> Ruling {
    if number >= FALLBACK_ATTEMPTS {
        return Ruling::GiveUp(format!("the retry policy did not answer, and {number} attempts were made"));
    }
    let doubled = FALLBACK_BASE.saturating_mul(1_u32.checked_shl(number.saturating_sub(1)).unwrap_or(u32::MAX));
    let delay = doubled.min(FALLBACK_MAX);
    Ruling::RetryAfter(delay - (delay / 5).mul_f64(f64::from(seed) / f64::from(u32::MAX)))
}

fn stood_in(step: &PlanStep, fault: &Fault) -> AttemptError {
    AttemptError {
        code: fault.code.as_str().to_owned(),
        message: format!("{} ({}): {}", step.role, step.name, fault.message),
    }
}

/// Whether a fault in front of the request means that this job can never be sent.
#[must_use]
pub fn is_fatal(fault: &Fault) -> bool {
    fault.code == FaultCode::Declared && fault.blame == Blame::Job
}

fn outcome_of(outcome: judge_export::Outcome) -> Outcome {
    match outcome {
        judge_export::Outcome::Success => Outcome::Success,
        judge_export::Outcome::Retryable => Outcome::Retryable,
        judge_export::Outcome::Permanent => Outcome::Permanent,
    }
}

fn past_of(past: &Past) -> retry_export::Past {
    retry_export::Past {
        number: past.number,
        started_ms: past.started_at.as_u64(),
        finished_ms: past.finished_at.as_u64(),
        outcome: match past.outcome {
            Outcome::Success => retry_export::Outcome::Success,
            Outcome::Retryable => retry_export::Outcome::Retryable,
            Outcome::Permanent => retry_export::Outcome::Permanent,
        },
        status: past.status,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_fallback_stays_within_its_bounds(number in 1_u32.., seed: u32) {
            match fall_back(number, seed) {
                Ruling::RetryAfter(delay) => {
                    prop_assert!(number < FALLBACK_ATTEMPTS);
                    prop_assert!(delay >= FALLBACK_BASE * 4 / 5 && delay <= FALLBACK_MAX);
                }
                ruling => prop_assert!(matches!(ruling, Ruling::GiveUp(_)) && number >= FALLBACK_ATTEMPTS),
            }
        }
    }
}
