//! One attempt, as a straight line: encode and sign, send, judge and decide about a retry, settle.
//!
//! Invariant: the types show the progress. A prepared request cannot be encoded again, and a sent one can only be decided.

mod answer;
mod facts;
#[cfg(feature = "fuzzing")]
mod fuzzing;
mod interruption;
mod lease_end;
mod permission;
mod recorder;
mod snapshot;

use std::sync::Arc;
use std::time::Duration;

use url::Url;

use self::answer::{exchange_of, health_of, inputs_of, pause_asked, retry_after};
use self::facts::{facts, request_of, seed_of};
#[cfg(feature = "fuzzing")]
pub use self::fuzzing::read_retry_after;
pub use self::interruption::Interruption;
pub use self::lease_end::LeaseEnd;
pub(crate) use self::recorder::AttemptRecorder;
use self::recorder::micros;
pub use self::snapshot::{AttemptSnapshot, Evaluation, NotReplayable};
use crate::delivery::receiver::{Destination, Pass, Postponed, Receivers};
use crate::delivery::send::{Answer, Envelope, Outgoing, Requester, Sender, Sent};
use crate::delivery::settle::{self, CutOff, RetryBounds};
use crate::services::Services;
use carillon_catalog::Group;
use carillon_config::Delivery;
use carillon_core::clock::{Stopwatch, UnixMs};
use carillon_core::error_code::ErrorCode;
use carillon_core::exhaustion::Exhausted;
use carillon_core::job::{AttemptError, AttemptRecord, LeasedJob, Settlement};
use carillon_policy::{
    Fault, JudgedOutcome, Judgement, Plan, PolicyCaller, PreparedRequest, QueueKey, Request, Role, Verdict, Watch,
};

/// Pauses between calls of a judge that the server has no resources for, in milliseconds: about twenty seconds in all.
const JUDGE_PAUSES_MS: [u64; 8] = [50, 100, 200, 500, 1_000, 3_000, 5_000, 10_000];

/// Makes attempts.
pub struct AttemptExecutor {
    services: Services,
    sender: Sender,
    delivery: Delivery,
    bounds: RetryBounds,
    receivers: Receivers,
}

/// The job and group of an attempt, with the watch over its policy's calls.
pub(crate) struct AttemptContext<'a> {
    group: &'a Group,
    leased: &'a LeasedJob,
    watch: Option<Watch>,
    /// The job's own URL, if it is already parsed.
    url: Option<Url>,
}

/// A prepared attempt, whose request may be sent.
struct Ready<'a> {
    case: AttemptContext<'a>,
    pass: Pass,
    destination: Destination,
    plan: Arc<Plan>,
    outgoing: Outgoing,
}

/// Reason for which a request is not sent.
enum Unready {
    /// Not now, through no fault of the job: it is released, unspent.
    Released,
    /// The receiver at this origin does not take the request now.
    Postponed(String, Postponed),
    /// A policy gave no result.
    Fault(Role, Fault),
}

/// Result of an attempt.
pub struct AttemptResult {
    /// The job's settlement.
    pub settlement: Settlement,
    /// Snapshot for the group's shadow, if it has one that is to see the attempt.
    pub trial: Option<Box<AttemptSnapshot>>,
}

impl From<Settlement> for AttemptResult {
    fn from(settlement: Settlement) -> Self {
        Self { settlement, trial: None }
    }
}

impl<'a> AttemptContext<'a> {
    /// Creates the context of a simulated attempt: its policies' calls are not counted.
    pub(crate) fn simulated(group: &'a Group, leased: &'a LeasedJob) -> Self {
        Self { group, leased, watch: None, url: None }
    }
}

impl AttemptExecutor {
    /// Creates an executor from what attempts need.
    #[must_use]
    pub fn new(services: Services, sender: Sender, delivery: Delivery, bounds: RetryBounds) -> Self {
        let receivers = Receivers::new(&delivery);
        Self { services, sender, delivery, bounds, receivers }
    }

    /// Returns the server's bounds of retries.
    pub(crate) fn retry_bounds(&self) -> RetryBounds {
        self.bounds
    }

    /// Returns the number of receivers whose circuit breaker is open.
    #[must_use]
    pub fn open_breakers(&self) -> usize {
        self.receivers.open_breakers(self.services.clock.now())
    }

    /// Makes the attempt of `leased`, and returns its settlement.
    ///
    /// If it begins shortly before the job is due, it is prepared by then and waits; all decisions, and all that its policy sees, are as of
    /// the due time. If it is interrupted before its request is sent, or its lease is over by then, the job is released, unspent; after the
    /// response it is not interrupted any more.
    pub async fn execute(
        &self,
        leased: &LeasedJob,
        lease_end: &LeaseEnd,
        interruption: &Interruption,
    ) -> AttemptResult {
        let started_at = self.services.clock.now().max(leased.job.run_at);
        let due = self.receivers.due(&leased.job);
        if settle::is_late_since(leased, due, started_at) {
            return Settlement::expired(leased, started_at, None).into();
        }
        let Some(group) = self.services.catalog.group_of(&leased.job) else {
            return Settlement::released(leased, started_at).into();
        };
        if group.tenant.suspended {
            // Its job was claimed a moment before.
            return Settlement::released(leased, started_at).into();
        }
        let mut notes = AttemptRecorder::new(leased, &group, started_at);
        let ready = tokio::select! {
            ready = self.ready(leased, lease_end, &group, &mut notes) => ready,
            _ = interruption.cause() => Err(Unready::Released),
        };
        let Ready { case, pass, destination, plan, outgoing } = match ready {
            Ok(ready) => ready,
            Err(unready) => return self.not_sent(leased, due, notes, unready).into(),
        };
        notes.detail.request_digest = Some(outgoing.digest());
        let requester = Requester { tenant: leased.job.tenant, group: leased.job.group };
        let sent = tokio::select! {
            sent = self.sender.send(requester, outgoing) => sent,
            why = interruption.cause() => return self.cut_off(leased, notes, why).into(),
        };
        let Sent { answer, redirects, connect } = match sent {
            Ok(sent) => sent,
            Err(exhausted) => return self.held(leased, due, notes, exhausted).into(),
        };
        let reported = self.report(&group, pass, &destination.origin, health_of(&answer, &redirects));
        notes.detail.redirects = redirects;
        notes.detail.timings.connect = micros(connect);
        let stopwatch = Stopwatch::start();
        let answered_at = self.services.clock.now();
        notes.detail.inputs = Some(inputs_of(leased, answered_at, &answer));
        let decided = match self.decided_in_the_end(&case, &plan, answered_at, &answer).await {
            Ok(decided) => decided,
            Err(exhausted) => return self.held(leased, due, notes, exhausted).into(),
        };
        let asked = pause_asked(&answer, answered_at, &plan, &decided.ruling);
        self.pause(&group, reported, &destination, notes.detail.redirects.last(), asked);
        notes.detail.timings.decide = micros(stopwatch.elapsed());
        let ruling = self.bounds.bounded(leased, decided.ruling.clone());
        let trial = AttemptSnapshot::new(&group, leased, &notes, answered_at, &answer, (&decided, &ruling));
        let at = self.services.clock.now();
        let record = self.recorded(&group, notes, at, answer, decided);
        AttemptResult { settlement: settle::answered(leased, at, record, ruling, self.bounds), trial }
    }

    /// Prepares the request, and returns when it may be sent.
    async fn ready<'a>(
        &self,
        leased: &'a LeasedJob,
        lease_end: &LeaseEnd,
        group: &'a Group,
        notes: &mut AttemptRecorder,
    ) -> Result<Ready<'a>, Unready> {
        let (begun_at, run_at) = (self.services.clock.now(), leased.job.run_at);
        let started_at = notes.started_at;
        let destination = Destination::for_job(&leased.job);
        let pass = match self.enter(leased, group, &destination, started_at).await {
            Ok(pass) => pass,
            Err(wait) => return Err(Unready::Postponed(destination.origin, wait)),
        };
        let case = AttemptContext { url: destination.url.clone(), ..self.watched(group, leased) };
        let request = self.request(&case, started_at, notes).await;
        if begun_at < run_at {
            self.services.clock.sleep_until(run_at).await;
        }
        let now = self.services.clock.now();
        if lease_end.has_passed(now) {
            // This node stood still: another node may hold the job by now.
            return Err(Unready::Released);
        }
        if begun_at < run_at {
            notes.detail.timings.late = micros(now.since(run_at));
        }
        let (plan, outgoing) = request.map_err(|(role, fault)| Unready::Fault(role, fault))?;
        Ok(Ready { case, pass, destination, plan, outgoing })
    }

    /// Settles an attempt whose request was not sent.
    fn not_sent(&self, leased: &LeasedJob, due: UnixMs, notes: AttemptRecorder, unready: Unready) -> Settlement {
        match unready {
            Unready::Released => Settlement::released(leased, self.services.clock.now()),
            Unready::Postponed(origin, wait) => self.refused(leased, due, notes, &origin, wait),
            Unready::Fault(role, fault) => self.unsent(leased, notes, role, &fault),
        }
    }

    /// Settles an attempt that was interrupted while its receiver worked. It says nothing of the receiver.
    fn cut_off(&self, leased: &LeasedJob, notes: AttemptRecorder, why: CutOff) -> Settlement {
        let at = self.services.clock.now();
        settle::cut_off(leased, at, notes.unsent(at), why)
    }

    /// Builds the request, and the plan by which it is judged.
    async fn request(
        &self,
        case: &AttemptContext<'_>,
        now: UnixMs,
        notes: &mut AttemptRecorder,
    ) -> Result<(Arc<Plan>, Outgoing), (Role, Fault)> {
        let plan = self.services.catalog.plan(case.group, case.leased.job.spec.policy.as_ref()).await?;
        let outgoing = self.prepared(case, &plan, now, notes).await?;
        Ok((plan, outgoing))
    }

    /// Encodes and signs the request, and adds the server's own headers and the group's keys.
    pub(crate) async fn prepared(
        &self,
        case: &AttemptContext<'_>,
        plan: &Arc<Plan>,
        now: UnixMs,
        notes: &mut AttemptRecorder,
    ) -> Result<Outgoing, (Role, Fault)> {
        let stopwatch = Stopwatch::start();
        let AttemptContext { group, leased, .. } = case;
        let no_target = || (Role::Encode, Fault::bad_answer("the job has no target"));
        let request = request_of(leased, leased.job.spec.target.as_ref().ok_or_else(no_target)?);
        let facts = facts(group, leased, now);
        let shared = Arc::clone(plan);
        let prepare = move |caller: PolicyCaller<'_>| caller.prepare(&shared, &facts, request);
        let prepared = self.on_policy_thread(case, now, prepare).await;
        notes.detail.timings.prepare = micros(stopwatch.elapsed());
        let PreparedRequest { request, uses } = prepared.map_err(|fault| (Role::Encode, fault))?;
        notes.detail.plugins.extend(uses);
        let outgoing = self.completed(case, plan, &request?);
        outgoing.ok_or_else(|| (Role::Encode, Fault::bad_answer("the request cannot be sent as it is")))
    }

    /// Adds the server's own headers and the group's keys; returns `None` if the request cannot be sent.
    fn completed(&self, case: &AttemptContext<'_>, plan: &Plan, request: &Request) -> Option<Outgoing> {
        let AttemptContext { group, leased, url, .. } = case;
        let (job, number) = (&leased.job, leased.number());
        let metadata = job.spec.metadata_headers.then_some(&job.spec.metadata);
        let envelope = Envelope {
            job: job.id,
            number,
            seed: seed_of(job.seed, number),
            timeout: self.timeout(group, leased),
            redirects: group.effective.as_ref().map(|effective| effective.limits.redirects).unwrap_or_default(),
            metadata,
            auth_headers: plan.auth_headers.as_slice(),
            client_key: plan.client_key.as_ref(),
            sign_keys: plan.sign_keys(),
            egress: group.tenant.quota.egress.as_ref(),
            url: url.as_ref(),
        };
        self.sender.complete(request, envelope)
    }

    /// Judges a response and decides about a retry.
    pub(crate) async fn decided(
        &self,
        case: &AttemptContext<'_>,
        plan: &Arc<Plan>,
        now: UnixMs,
        answer: &Answer,
    ) -> Judgement {
        let AttemptContext { group, leased, .. } = case;
        let (facts, retry_after) = (facts(group, leased, now), retry_after(answer, now));
        let (exchange, history, plan) = (exchange_of(answer), leased.history.clone(), Arc::clone(plan));
        let decide = move |caller: PolicyCaller<'_>| caller.decide(&plan, &facts, &exchange, retry_after, &history);
        let decided = self.on_policy_thread(case, now, decide).await;
        let seed = seed_of(leased.job.seed, leased.number());
        decided.unwrap_or_else(|fault| Judgement::by_host(leased.number_in_series(), seed, &fault))
    }

    /// Decides like [`AttemptExecutor::decided`], and tries again while the server has no resources for the call.
    ///
    /// The receiver has responded, and a late judgement is better than a second request.
    async fn decided_in_the_end(
        &self,
        case: &AttemptContext<'_>,
        plan: &Arc<Plan>,
        now: UnixMs,
        answer: &Answer,
    ) -> Result<Judgement, Exhausted> {
        for pause_ms in JUDGE_PAUSES_MS {
            let decided = self.decided(case, plan, now, answer).await;
            if !decided.is_for_want_of_room() {
                return Ok(decided);
            }
            tokio::time::sleep(Duration::from_millis(pause_ms)).await;
        }
        Err(Exhausted::Policies)
    }

    /// Builds the record of an attempt with a response.
    pub(crate) fn recorded(
        &self,
        group: &Group,
        notes: AttemptRecorder,
        at: UnixMs,
        answer: Answer,
        decided: Judgement,
    ) -> AttemptRecord {
        let groups = group.effective.as_ref().ok().and_then(|effective| effective.limits.recorded_body);
        notes.answered(at, answer, decided, groups.unwrap_or(self.delivery.response_record_limit.get()))
    }

    /// Settles a job on which a consumer has worked since `started_at`, by the consumer's report.
    pub async fn consumed(
        &self,
        leased: &LeasedJob,
        started_at: UnixMs,
        (outcome, reason): (JudgedOutcome, String),
        retry_after: Option<Duration>,
    ) -> Settlement {
        let at = self.services.clock.now();
        let Some(group) = self.services.catalog.group_of(&leased.job) else {
            return Settlement::released(leased, at);
        };
        let mut notes = AttemptRecorder::new(leased, &group, started_at);
        let error = (outcome != JudgedOutcome::Success)
            .then(|| AttemptError { code: ErrorCode::ConsumerFailed, message: reason.clone() });
        let verdict = Verdict { outcome, reason };
        let decided = match self.services.catalog.plan(&group, leased.job.spec.policy.as_ref()).await {
            Ok(plan) => {
                let (facts, history) = (facts(&group, leased, at), leased.history.clone());
                let rule = move |caller: PolicyCaller<'_>| caller.rule(&plan, &facts, verdict, retry_after, &history);
                self.on_policy_thread(&self.watched(&group, leased), at, rule).await
            }
            // A completed job succeeds, whatever has become of its policy.
            Err(_) if outcome == JudgedOutcome::Success => Ok(Judgement::done(verdict.reason)),
            Err((_, fault)) => Err(fault),
        };
        let decided = decided.unwrap_or_else(|fault| {
            Judgement::by_host(leased.number_in_series(), seed_of(leased.job.seed, leased.number()), &fault)
        });
        notes.detail.timings.exchange = micros(at.since(started_at));
        let ruling = decided.ruling.clone();
        settle::answered(leased, at, notes.consumed(at, error, decided), ruling, self.bounds)
    }

    /// Creates the context of an attempt whose policies' calls are counted.
    fn watched<'a>(&self, group: &'a Group, leased: &'a LeasedJob) -> AttemptContext<'a> {
        let watch = Some(group.watch(&self.services.runtime.quarantine, Some(leased.job.id)));
        AttemptContext { group, leased, watch, url: None }
    }

    async fn on_policy_thread<T: Send + 'static>(
        &self,
        case: &AttemptContext<'_>,
        now: UnixMs,
        work: impl FnOnce(PolicyCaller<'_>) -> T + Send + 'static,
    ) -> Result<T, Fault> {
        let (limits, watch) = (Arc::clone(&self.services.runtime.limits), case.watch.clone());
        let call = move || work(PolicyCaller { limits: &limits, watch: watch.as_ref(), now });
        self.services.runtime.threads.run(QueueKey::for_job(&case.leased.job), call).await
    }

    fn unsent(&self, leased: &LeasedJob, notes: AttemptRecorder, role: Role, fault: &Fault) -> Settlement {
        let at = self.services.clock.now();
        settle::unsent(leased, at, notes.unsent(at), role, fault)
    }

    /// Returns the job's own timeout, else its group's, and never more than the server allows.
    fn timeout(&self, group: &Group, leased: &LeasedJob) -> Duration {
        let own = leased.job.spec.timeout_ms.map(Duration::from_millis);
        let groups = group.effective.as_ref().map(|effective| effective.limits.timeout).ok();
        own.or(groups).unwrap_or(self.delivery.timeout.get()).min(self.delivery.max_timeout.get())
    }
}
