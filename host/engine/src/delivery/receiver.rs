//! Receiver state: decides whether a job may be sent to its receiver now. A receiver is an origin (scheme, host, port), separately for each
//! tenant.
//!
//! A job may not be sent while the receiver's circuit breaker is open ([`breakers`]), while the receiver has asked for a pause of the job's
//! URL ([`pauses`]), or while as many of the group's attempts as the group allows are on their way to it ([`concurrency`]).
//!
//! Then the job is postponed: it goes back to the store with a retry slot of its own ([`mod@retry_slots`]), and spends no attempt. The order
//! of the checks keeps that cheap: it is decided before any policy is called, and a job is checked about once in the time that it waits. So a
//! backlog for one receiver is claimed once, and not again and again; and a postponed job returns its part of the group's rate.
//!
//! Invariant: all of it is this node's own memory, and bounded. A node that starts knows nothing and sends; forgotten state costs an attempt
//! that fails, and never a job.

mod breakers;
mod circuit_breaker;
mod concurrency;
mod original_due_times;
mod pauses;
mod retry_slots;
mod tenant_table;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use url::Url;

use self::breakers::Breakers;
pub use self::circuit_breaker::{BreakerChange, Health};
use self::concurrency::{ReceiverLimits, ReceiverSlot};
use self::original_due_times::OriginalDueTimes;
pub use self::pauses::Asks;
use self::pauses::Pauses;
use self::retry_slots::{Refusal, Turn};
use crate::delivery::send::Requester;
use crate::delivery::settle::Postponement;
use carillon_config::Delivery;
use carillon_core::clock::UnixMs;
use carillon_core::error_code::ErrorCode;
use carillon_core::job::Job;

/// How long state that no job asks for is kept, if its pause is over.
const IDLE_RETENTION: Duration = Duration::from_secs(900);

/// All receivers that this node knows.
pub struct Receivers {
    breakers: Arc<Breakers>,
    pauses: Arc<Pauses>,
    limits: Arc<ReceiverLimits>,
    waiting: Mutex<OriginalDueTimes>,
}

/// The right to make an attempt. Dropping it without a report counts as if nothing had been sent.
pub struct Pass {
    breaker: breakers::Pass,
    pause: pauses::Pass,
    slot: Option<ReceiverSlot>,
}

/// An attempt that has reported its receiver's health, and not yet whether the receiver asked for a pause.
pub struct Reported {
    pause: pauses::Pass,
}

/// Pause that a receiver asked for.
#[derive(Clone, Copy, Debug)]
pub struct PauseRequest<'a> {
    /// URL that responded.
    pub url: &'a Url,
    /// Duration of the pause.
    pub time: Duration,
}

/// A refusal: the job is postponed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Postponed {
    /// Reason for the refusal.
    pub why: RefusalReason,
    /// Retry slot: the time at which the job asks again.
    pub until: UnixMs,
}

/// Reason for which a job is postponed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusalReason {
    /// The receiver's circuit breaker is open, because it did not respond.
    BreakerOpen,
    /// The receiver has asked for a pause of this URL.
    Paused,
    /// The group's limit of concurrent attempts to this receiver is reached.
    AtCapacity,
}

impl RefusalReason {
    /// Returns the error code of the postponed attempt.
    #[must_use]
    pub fn code(self) -> ErrorCode {
        match self {
            Self::BreakerOpen => ErrorCode::BreakerOpen,
            Self::Paused => ErrorCode::ReceiverPaused,
            Self::AtCapacity => ErrorCode::ReceiverFull,
        }
    }

    /// Returns whether the job's previous refusal was of this kind, so that it holds a retry slot.
    fn turn(self, job: &Job) -> Turn {
        if job.last_error == Some(self.code()) { Turn::Back } else { Turn::New }
    }

    /// Returns the message about `origin`, for people.
    #[must_use]
    pub fn message(self, origin: &str) -> String {
        match self {
            Self::BreakerOpen => format!("the circuit breaker of {origin} is open: the receiver did not respond"),
            Self::Paused => format!("{origin} requested a pause of this URL with `Retry-After`"),
            Self::AtCapacity => {
                format!("the group has as many attempts to {origin} under way as `limits.host_concurrency` allows")
            }
        }
    }
}

/// Destination of a job's first request. No encoder changes its origin.
#[derive(Clone, Debug, Default)]
pub struct Destination {
    /// The job's own URL; `None` if it has no target.
    pub url: Option<Url>,
    /// Scheme, host and port of the URL.
    pub origin: String,
}

impl Destination {
    /// Returns the destination of `job`.
    #[must_use]
    pub fn for_job(job: &Job) -> Self {
        let url = job.spec.target.as_ref().and_then(|target| Url::parse(&target.url).ok());
        let origin = url.as_ref().map(|url| url.origin().ascii_serialization()).unwrap_or_default();
        Self { url, origin }
    }
}

fn owner_of(job: &Job) -> Requester {
    Requester { tenant: job.tenant, group: job.group }
}

impl Receivers {
    /// Creates the state from the `[delivery]` settings.
    #[must_use]
    pub fn new(delivery: &Delivery) -> Self {
        let breakers = Arc::new(Breakers::new(delivery));
        let pauses = Arc::new(Pauses::new(delivery));
        Self { breakers, pauses, limits: Arc::default(), waiting: Mutex::default() }
    }

    /// Requests the right to make an attempt of `job` now. At most `most` attempts of its group may be on their way to the receiver.
    ///
    /// # Errors
    /// Returns [`Postponed`] with a retry slot of the job's own.
    pub fn enter(&self, job: &Job, to: &Destination, most: Option<u32>, now: UnixMs) -> Result<Pass, Postponed> {
        self.check(job, to, most, now).map_err(|(reason, refusal)| {
            let until = match reason {
                RefusalReason::BreakerOpen => self.breakers.reserve(job.tenant, &to.origin, reason.turn(job), refusal),
                RefusalReason::Paused => self.pauses.reserve(owner_of(job), to.url.as_ref(), job.id, refusal),
                RefusalReason::AtCapacity => self.limits.reserve(owner_of(job), &to.origin, refusal),
            };
            Postponed { why: reason, until }
        })
    }

    /// Requests the same for a caller that asks again anyway: a refusal returns `None` and reserves no retry slot.
    pub fn try_enter(&self, job: &Job, to: &Destination, most: Option<u32>, now: UnixMs) -> Option<Pass> {
        self.check(job, to, most, now).ok()
    }

    /// Begins a pause, because a receiver has responded to an attempt of the owner's with `Retry-After`. Returns the end of a new pause.
    pub fn pause(&self, owner: Requester, request: PauseRequest<'_>, now: UnixMs) -> Option<UnixMs> {
        self.pauses.begin(owner, request.url, request.time, now)
    }

    fn check(
        &self,
        job: &Job,
        to: &Destination,
        most: Option<u32>,
        now: UnixMs,
    ) -> Result<Pass, (RefusalReason, Refusal)> {
        let refused = |reason: RefusalReason| move |refusal| (reason, refusal);
        // Rights that can be returned without a trace are taken first; a circuit breaker's probe cannot be returned.
        let slot = most.map(|most| self.limits.enter(owner_of(job), &to.origin, most, now)).transpose();
        let slot = slot.map_err(refused(RefusalReason::AtCapacity))?;
        let pause = self.pauses.enter(owner_of(job), to.url.as_ref(), job.id, now);
        let pause = pause.map_err(refused(RefusalReason::Paused))?;
        let breaker = self.breakers.enter(job.tenant, &to.origin, RefusalReason::BreakerOpen.turn(job), now);
        let breaker = breaker.map_err(refused(RefusalReason::BreakerOpen))?;
        if job.max_delay.is_some() {
            self.waiting().forget(job);
        }
        Ok(Pass { breaker, pause, slot })
    }

    /// Returns when the job was due before it was first postponed.
    #[must_use]
    pub fn due(&self, job: &Job) -> UnixMs {
        match job.max_delay {
            Some(_) => self.waiting().due(job),
            None => job.run_at,
        }
    }

    /// Records that a job is postponed.
    pub fn record_postponement(&self, job: &Job, times: Postponement) {
        if job.max_delay.is_some() {
            self.waiting().record(job, times);
        }
    }

    /// Returns the number of receivers whose circuit breaker is open.
    #[must_use]
    pub fn open_breakers(&self, now: UnixMs) -> usize {
        self.breakers.open(now)
    }

    fn waiting(&self) -> MutexGuard<'_, OriginalDueTimes> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pass {
    /// Ends the attempt, and reports the receiver's health.
    pub fn report(self, health: Health, now: UnixMs) -> (Option<BreakerChange>, Reported) {
        if let Some(slot) = self.slot {
            slot.leave(now);
        }
        (self.breaker.report(health, now), Reported { pause: self.pause })
    }
}

impl Reported {
    /// Completes the report; `asks` is the request of the receiver of the attempt's own URL.
    pub fn finish(self, asks: Asks) {
        self.pause.finish(asks);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use carillon_core::job::State;
    use carillon_core::test_util;

    const HERE: &str = "http://a";

    fn here() -> Destination {
        let url: Url = HERE.parse().unwrap();
        Destination { url: Some(url), origin: HERE.to_owned() }
    }

    fn receivers() -> Receivers {
        let breakers = Arc::new(Breakers::with(1, Duration::from_secs(5)));
        let pauses = Arc::new(Pauses::with(Duration::from_secs(300)));
        Receivers { breakers, pauses, limits: Arc::default(), waiting: Mutex::default() }
    }

    fn job(run_at: i64, max_delay: Option<u64>) -> Job {
        let max_delay = max_delay.map(Duration::from_millis);
        test_util::job().state(State::Running).run_at(run_at).max_delay(max_delay).build()
    }

    #[test]
    fn a_receiver_is_scheme_host_and_port() {
        let origin = |url: &str| {
            let job = test_util::job().url(url).build();
            Destination::for_job(&job).origin
        };
        let here = origin("http://a/x?y");
        assert_eq!(here, HERE);
        assert_eq!(origin("http://user:secret@A:80/"), here);
        for other in ["https://a/x", "http://a:81/x", "http://b/x"] {
            assert_ne!(origin(other), here, "{other}");
        }
        assert_eq!(Destination::for_job(&job(0, None)).url, None, "it has no target");
    }

    #[test]
    fn postponed_job_takes_no_slot() {
        let receivers = receivers();
        let enter = |most| receivers.enter(&job(0, None), &here(), Some(most), UnixMs(0));
        let first = enter(2).ok().unwrap();
        let second = enter(2).ok().unwrap();
        assert_eq!(enter(2).err().unwrap().why, RefusalReason::AtCapacity);
        assert!(first.report(Health::Failed, UnixMs(0)).0.is_some());
        assert_eq!(enter(2).err().unwrap().why, RefusalReason::BreakerOpen);
        assert_eq!(enter(2).err().unwrap().why, RefusalReason::BreakerOpen, "it has returned its slot");
        drop(second);
        assert_eq!(enter(1).err().unwrap().why, RefusalReason::BreakerOpen);
    }

    #[test]
    fn probe_without_a_slot_is_no_probe() {
        let receivers = receivers();
        let enter = |now| receivers.enter(&job(0, None), &here(), Some(1), UnixMs(now));
        receivers.enter(&job(0, None), &here(), None, UnixMs(0)).ok().unwrap().report(Health::Failed, UnixMs(0));
        let slow = enter(5_000).ok().unwrap();
        assert_eq!(enter(5_000).err().unwrap().why, RefusalReason::AtCapacity);
        drop(slow);
        assert!(enter(5_001).is_ok());
    }

    #[test]
    fn pause_of_a_url_is_told_apart_from_a_receiver_that_does_not_answer() {
        let (receivers, now) = (receivers(), UnixMs(0));
        let request = PauseRequest { url: &HERE.parse().unwrap(), time: Duration::from_secs(7) };
        assert_eq!(receivers.pause(owner_of(&job(0, None)), request, now), Some(UnixMs(7_000)));
        let refused = receivers.enter(&job(0, None), &here(), None, now).err().unwrap();
        assert_eq!(refused, Postponed { why: RefusalReason::Paused, until: UnixMs(7_000) });
        assert_ne!(refused.why.message(HERE), RefusalReason::BreakerOpen.message(HERE));
        let other = Destination { url: Some("http://a/other".parse().unwrap()), ..here() };
        assert!(receivers.enter(&job(0, None), &other, None, now).is_ok());
    }

    #[test]
    fn job_postponed_again_was_due_when_it_was_first() {
        let (receivers, now) = (receivers(), UnixMs(0));
        let postpone = |job: &Job, due, retry_at| {
            receivers.record_postponement(job, Postponement { due, decided_at: now, retry_at });
        };
        for run_at in [100, 200, 300] {
            let job = job(run_at, Some(500));
            let due = receivers.due(&job);
            assert_eq!(due, UnixMs(100));
            postpone(&job, due, UnixMs(run_at + 100));
        }
        assert_eq!(receivers.due(&job(777, Some(500))), UnixMs(777), "it was rescheduled");
        assert!(receivers.enter(&job(400, Some(500)), &here(), None, now).is_ok());
        assert_eq!(receivers.due(&job(400, Some(500))), UnixMs(400), "its attempt was made");
        postpone(&job(1, None), UnixMs(0), UnixMs(9));
        assert_eq!(receivers.due(&job(9, None)), UnixMs(9));
    }
}
