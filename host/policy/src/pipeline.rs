//! The two halves of an attempt that policies decide: the request to send, and what follows from the response.
//!
//! Both are sequences of calls without I/O, so that a policy thread runs each without a pause, and so that a simulation runs the same code as
//! a delivery.

use std::sync::Arc;
use std::time::Duration;

use url::Url;

use super::binding::AuthHeader;
use super::call::{CallResult, JobRequests};
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

/// Attribute that tells `retry` how long the receiver asked not to be called.
pub const RETRY_AFTER_ATTRIBUTE: &str = "retry-after-ms";

/// Backoff of the host itself, used when the retry policy has no result: 2 s, 4 s, 8 s, … up to 15 min, 20 attempts in all.
const FALLBACK_BASE: Duration = Duration::from_secs(2);
const FALLBACK_MAX: Duration = Duration::from_secs(15 * 60);
const FALLBACK_ATTEMPTS: u32 = 20;

/// Maximum delay that a policy can set: ten years.
const MAX_DELAY: Duration = Duration::from_secs(3_660 * 24 * 60 * 60);

/// Plugin in a role, with its config.
#[derive(Clone, Debug)]
pub struct PlanStep {
    /// Role that the plugin plays here.
    pub role: Role,
    /// Name of the plugin in the binding.
    pub name: Arc<str>,
    /// The loaded plugin.
    pub plugin: Arc<Plugin>,
    /// Config as JSON.
    pub config: Arc<str>,
    /// Digest of `config`.
    pub config_digest: Digest,
}

/// Policy of one job: a binding with its plugins loaded and its keys ready.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Encoders, in the order of their calls.
    pub encode: Vec<PlanStep>,
    /// Signer with the versions of the keys that it is granted, some of which may have expired.
    pub sign: Option<(PlanStep, Vec<Arc<KeyMaterial>>)>,
    /// Headers with their keys, each of the kind for headers. No policy gets them.
    pub auth_headers: Vec<(AuthHeader, Arc<KeyMaterial>)>,
    /// Client certificate that receivers are shown, of the kind for it. No policy gets it.
    pub client_key: Option<Arc<KeyMaterial>>,
    /// Judge; every plan has one.
    pub judge: PlanStep,
    /// Retry policy; every plan has one.
    pub retry: PlanStep,
}

impl Plan {
    /// Returns the keys that the signer is granted, of which some may have expired.
    #[must_use]
    pub fn sign_keys(&self) -> &[Arc<KeyMaterial>] {
        self.sign.as_ref().map_or(&[], |(_, keys)| keys)
    }

    /// Checks that every key of the request may go to the origin of `url`.
    fn check_origin(&self, url: &str) -> Result<(), Fault> {
        let sent = self.auth_headers.iter().map(|(_, key)| key).chain(&self.client_key);
        let mut bound = self.sign_keys().iter().chain(sent).filter_map(|key| Some((key, key.origins()?))).peekable();
        if bound.peek().is_none() {
            return Ok(());
        }
        // Policies cannot change the origin. A URL that does not parse is refused later, by its encoder or when it is sent.
        let Ok(url) = Url::parse(url) else { return Ok(()) };
        match bound.find(|(_, origins)| !origins.contains(&url)) {
            Some((key, _)) => Err(Fault::of_key_origin(key.name(), &url)),
            None => Ok(()),
        }
    }
}

/// Caller of policies: the limits, the watch and the time that every call of a stage needs.
#[derive(Clone, Copy)]
pub struct PolicyCaller<'a> {
    /// Limits of each call.
    pub limits: &'a Limits,
    /// Watch that skips quarantined policies and counts faults. `None` if the results are not used: then every policy is called.
    pub watch: Option<&'a Watch>,
    /// Time that the policies are given.
    pub now: UnixMs,
}

/// Result of the first half: the request, or the fault that prevents it.
#[derive(Debug)]
pub struct PreparedRequest {
    /// Request to send, or the fault because of which nothing is sent.
    pub request: Result<types::Request, (Role, Fault)>,
    /// Policies that were called.
    pub uses: Vec<PluginUse>,
}

/// Result of the second half: verdict and ruling.
#[derive(Debug)]
pub struct Judgement {
    /// Verdict on the response.
    pub verdict: VerdictRecord,
    /// Consequence of the verdict.
    pub ruling: Ruling,
    /// Fault of a policy for which the host decided instead.
    pub fault: Option<AttemptError>,
    /// Whether the server had no room for a call, so that the host decided instead of the policy.
    lacks_room: bool,
    /// Policies that were called.
    pub uses: Vec<PluginUse>,
}

/// Consequence of a verdict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ruling {
    /// The job has succeeded.
    Done,
    /// Another attempt follows, this long after now.
    RetryAfter(Duration),
    /// No other attempt follows; the text is the reason.
    GiveUp(String),
}

impl Judgement {
    /// Makes a judgement of success that no judge was called for, with its reason.
    #[must_use]
    pub fn done(reason: String) -> Self {
        let verdict = VerdictRecord { outcome: Outcome::Success, reason };
        Self { verdict, ruling: Ruling::Done, fault: None, lacks_room: false, uses: Vec::new() }
    }

    /// Returns whether a policy was not called because the server had no room for the call; then nothing is decided.
    #[must_use]
    pub fn is_for_want_of_room(&self) -> bool {
        self.lacks_room
    }

    /// Makes the host's own judgement, for when no policy could be called: retryable, after the host's backoff.
    #[must_use]
    pub fn by_host(number: u32, seed: u32, fault: &Fault) -> Self {
        let error = AttemptError { code: fault.code.into(), message: fault.message.clone() };
        Self {
            verdict: VerdictRecord { outcome: Outcome::Retryable, reason: "no judge could be called".to_owned() },
            ruling: fall_back(number, seed),
            fault: Some(error),
            lacks_room: fault.code == FaultCode::Overloaded,
            uses: Vec::new(),
        }
    }
}

impl PolicyCaller<'_> {
    /// Encodes and signs. It stops at the first fault: no incomplete request is sent. No policy is called for a request to an origin that a
    /// key of the plan may not go to.
    #[must_use]
    pub fn prepare(&self, plan: &Plan, attempt: &types::Attempt, request: types::Request) -> PreparedRequest {
        if let Err(fault) = plan.check_origin(&request.url) {
            return PreparedRequest { request: Err((Role::Sign, fault)), uses: Vec::new() };
        }
        let mut uses = Vec::with_capacity(plan.encode.len() + 1);
        let mut request = Ok(request);
        for step in &plan.encode {
            let Ok(before) = &request else { break };
            let after = self.call(step, &mut uses, |plugin| plugin.encode(self.limits, attempt, &step.config, before));
            request = after.map_err(|fault| (step.role, fault));
        }
        if let (Some((step, keys)), Ok(_)) = (&plan.sign, &request) {
            // Plans are cached; a version of a key whose overlap has ended since is no longer granted.
            let live: Vec<_> = keys.iter().filter(|key| key.lives(self.now)).cloned().collect();
            request = request.and_then(|request| {
                self.call(step, &mut uses, |plugin| plugin.sign(self.limits, attempt, &step.config, request, &live))
                    .map_err(|fault| (step.role, fault))
            });
        }
        PreparedRequest { request, uses }
    }

    /// Judges an exchange and, if the verdict is retryable, asks the retry policy whether and when to try again.
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
                reason: format!("the judge failed ({}), so the attempt counts as retryable", error.code.as_str()),
            }
        });
        let ruled = self.rule(plan, attempt, verdict, retry_after, history);
        uses.extend(ruled.uses);
        Judgement { fault: ruled.fault.or(fault), lacks_room: lacks_room || ruled.lacks_room, uses, ..ruled }
    }

    /// Returns the consequence of a verdict: if it is retryable, the retry policy decides whether and when to try again.
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

    /// Shows events to an observer. Returns the jobs that the observer requests.
    #[must_use]
    pub fn observe(
        &self,
        step: &PlanStep,
        events: &[observe_export::Event],
        requests: JobRequests,
    ) -> (PluginUse, Vec<NewJob>) {
        let (used, asked) = self.called(step, |plugin| plugin.observe(self.limits, &step.config, events, requests));
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
            // Plugins read the value as 64 bits.
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
        let watched = self.watch.map(|watch| (watch, watch.policy_key(&step.plugin.digest, &step.config_digest)));
        let called = match watched.as_ref().map_or(Ok(()), |(watch, policy)| watch.admit(policy, self.now)) {
            Ok(()) => call(&step.plugin),
            Err(fault) => CallResult { result: Err(fault), usage: super::CallUsage::default() },
        };
        let fault = called.result.as_ref().err();
        if let (Some((watch, policy)), Some(fault)) = (&watched, fault.filter(|fault| fault.is_the_plugins())) {
            watch.report(policy, step.role, &step.name, fault.code, self.now);
        }
        let used = PluginUse {
            role: step.role.as_str().into(),
            plugin: Arc::clone(&step.name),
            digest: Arc::clone(&step.plugin.digest.0),
            config_digest: Arc::clone(&step.config_digest.0),
            micros: called.usage.micros,
            fuel: called.usage.fuel,
            log: called.usage.log,
            fault: fault.map(|fault| fault.code.into()),
        };
        (used, called.result)
    }
}

/// Returns the host's own backoff, shortened by a jitter of up to a fifth.
fn fall_back(number: u32, seed: u32) -> Ruling {
    if number >= FALLBACK_ATTEMPTS {
        return Ruling::GiveUp(format!("the retry policy failed, and {number} attempts were made"));
    }
    let doubled = FALLBACK_BASE.saturating_mul(1_u32.checked_shl(number.saturating_sub(1)).unwrap_or(u32::MAX));
    let delay = doubled.min(FALLBACK_MAX);
    Ruling::RetryAfter(delay - (delay / 5).mul_f64(f64::from(seed) / f64::from(u32::MAX)))
}

fn stood_in(step: &PlanStep, fault: &Fault) -> AttemptError {
    AttemptError { code: fault.code.into(), message: format!("{} ({}): {}", step.role, step.name, fault.message) }
}

/// Returns whether a fault before the request means that this job can never be sent.
#[must_use]
pub fn is_fatal(fault: &Fault) -> bool {
    matches!(fault.code, FaultCode::Declared | FaultCode::KeyOrigin) && fault.blame == Blame::Job
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
