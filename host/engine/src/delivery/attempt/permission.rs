//! An attempt and its receiver: whether the attempt may be made now, and what its response says of the receiver.

use std::time::Duration;

use url::Url;

use super::{AttemptExecutor, AttemptRecorder};
use crate::delivery::receiver::{Asks, BreakerChange, Destination, Health, Pass, PauseRequest, Postponed, Reported};
use crate::delivery::send::{Outgoing, Requester};
use crate::delivery::settle::{self, Postponement};
use carillon_catalog::Group;
use carillon_core::clock::UnixMs;
use carillon_core::error_code::ErrorCode;
use carillon_core::exhaustion::Exhausted;
use carillon_core::job::{AttemptError, LeasedJob, Settlement};
use carillon_telemetry::{Fact, Subject};

impl AttemptExecutor {
    /// Requests the right to make an attempt. If it is refused shortly before the job is due, it is requested again at the due time.
    pub(super) async fn enter(
        &self,
        leased: &LeasedJob,
        group: &Group,
        to: &Destination,
        at: UnixMs,
    ) -> Result<Pass, Postponed> {
        let most = || self.host_concurrency(group);
        if self.services.clock.now() < at {
            if let Some(pass) = self.receivers.try_enter(&leased.job, to, most(), at) {
                return Ok(pass);
            }
            self.services.clock.sleep_until(at).await;
        }
        self.receivers.enter(&leased.job, to, most(), at)
    }

    /// Returns how many of the group's attempts may be on their way from this node to one receiver.
    ///
    /// If this node has lost its share since the claim, the whole limit applies, because the job already holds a permit. A broken
    /// configuration is reported later.
    fn host_concurrency(&self, group: &Group) -> Option<u32> {
        let whole = group.effective.as_ref().ok()?.limits.host_concurrency?;
        Some(self.services.cluster.part_of_group(group).and_then(|part| part.host_concurrency).unwrap_or(whole))
    }

    /// Returns the error of an attempt at `outgoing` that the egress guard would refuse, as far as that is known without a connection.
    pub(crate) fn refusal(&self, outgoing: &Outgoing) -> Option<AttemptError> {
        self.sender.refusal(outgoing)
    }

    /// Settles a job whose receiver does not take it now. Its attempt is not spent.
    pub(super) fn refused(
        &self,
        leased: &LeasedJob,
        due: UnixMs,
        mut notes: AttemptRecorder,
        origin: &str,
        wait: Postponed,
    ) -> Settlement {
        notes.detail.error = Some(AttemptError { code: wait.why.code(), message: wait.why.message(origin) });
        let decided_at = self.services.clock.now();
        self.postpone(leased, notes, Postponement { due, decided_at, retry_at: wait.until })
    }

    /// Settles a job that the server had no resources to send. Its attempt is not spent, and its pass reports nothing.
    pub(super) fn held(
        &self,
        leased: &LeasedJob,
        due: UnixMs,
        mut notes: AttemptRecorder,
        exhausted: Exhausted,
    ) -> Settlement {
        (notes.detail.request_digest, notes.detail.inputs) = (None, None);
        notes.detail.error = Some(AttemptError { code: ErrorCode::ServerExhausted, message: exhausted.to_string() });
        tracing::debug!(job = %leased.job.id, %exhausted, "attempt postponed");
        let decided_at = self.services.clock.now();
        let retry_at = decided_at.plus(settle::exhaustion_pause(leased));
        self.postpone(leased, notes, Postponement { due, decided_at, retry_at })
    }

    fn postpone(&self, leased: &LeasedJob, notes: AttemptRecorder, times: Postponement) -> Settlement {
        let settlement = settle::postponed(leased, notes.unsent(times.decided_at), times);
        if let Some(retry_at) = settlement.next().run_at() {
            self.receivers.record_postponement(&leased.job, Postponement { retry_at, ..times });
        }
        settlement
    }

    /// Reports the receiver's health to its circuit breaker, and publishes a change of the circuit breaker's state.
    pub(super) fn report(&self, group: &Group, pass: Pass, origin: &str, health: Health) -> Reported {
        let (at, tenant) = (self.services.clock.now(), &group.tenant);
        let about = || Subject::group(tenant.id, group.id);
        let (change, reported) = pass.report(health, at);
        match change {
            Some(BreakerChange::Opened(until)) => {
                let failures = self.delivery.breaker_failures;
                tracing::warn!(tenant = tenant.name, origin, %until, failures, "circuit breaker opened");
                self.services.telemetry.metrics.breaker_opened();
                let reason = format!("{failures} requests in a row got no response");
                self.services.telemetry.record(Fact::breaker_open(about(), at, origin.to_owned(), until, reason));
            }
            Some(BreakerChange::Closed) => {
                tracing::info!(tenant = tenant.name, origin, "circuit breaker closed");
                self.services.telemetry.record(Fact::breaker_close(about(), at, origin.to_owned()));
            }
            None => {}
        }
        reported
    }

    /// Pauses the group's jobs for a URL if its receiver `asked` for that. `redirected` is the URL that responded, if it is not the job's.
    pub(super) fn pause(
        &self,
        group: &Group,
        reported: Reported,
        to: &Destination,
        redirected: Option<&String>,
        asked: Option<Duration>,
    ) {
        let answered = redirected.map_or_else(|| to.url.clone(), |url| Url::parse(url).ok());
        let request = answered.as_ref().zip(asked).map(|(url, time)| PauseRequest { url, time });
        let at = self.services.clock.now();
        let owner = Requester { tenant: group.tenant.id, group: group.id };
        if let Some((request, until)) = request.and_then(|it| Some((it, self.receivers.pause(owner, it, at)?))) {
            let origin = request.url.origin().ascii_serialization();
            tracing::info!(tenant = group.tenant.name, group = group.name, origin, %until, "receiver requested a pause");
            self.services.telemetry.record(Fact::receiver_pause(
                Subject::group(group.tenant.id, group.id),
                at,
                origin,
                until,
            ));
        }
        let is_own = redirected.is_none() && request.is_some();
        reported.finish(if is_own { Asks::ForAPause } else { Asks::Nothing });
    }
}
