//! Settlement of an attempt: decides the job's new state. Pure: everything it depends on is an argument.

use std::time::Duration;

use carillon_config::Limits;
use carillon_core::clock::UnixMs;
use carillon_core::error_code::ErrorCode;
use carillon_core::job::{
    AttemptDetail, AttemptError, AttemptRecord, DecisionRecord, LeasedJob, Outcome, Settlement, State, VerdictRecord,
};
use carillon_policy::{Fault, Role, Ruling, is_fatal};

/// Shortest hold of a job that cannot be sent; it doubles up to a minute: 1 s, 2 s, 4 s, …
const HOLD_BASE: Duration = Duration::from_secs(1);
const HOLD_MAX: Duration = Duration::from_secs(60);

/// Longest hold of a job that the server has no resources for: they may be free again soon.
const EXHAUSTED_HOLD_MAX: Duration = Duration::from_secs(4);

/// Number of leases without a settlement after which a job is not tried again: it may be the cause of crashes of its nodes or consumers.
const LOST_LEASES: u32 = 10;

/// The server's bounds of retries. They hold for whatever a policy, a group, a job, a mount or a consumer chooses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryBounds {
    /// Shortest delay between a failed attempt and the next one.
    pub floor: Duration,
    /// Largest number of attempts of a job between redrives.
    pub attempts: u32,
}

impl RetryBounds {
    /// Returns the bounds that the configuration sets.
    #[must_use]
    pub fn new(limits: &Limits) -> Self {
        Self { floor: limits.retry_floor.get(), attempts: limits.attempts }
    }

    /// Returns the part of a ruling on the attempt of `leased` that the bounds allow.
    #[must_use]
    pub fn bounded(self, leased: &LeasedJob, ruling: Ruling) -> Ruling {
        match ruling {
            Ruling::RetryAfter(_) if self.is_last(leased) => Ruling::GiveUp(self.no_more()),
            Ruling::RetryAfter(delay) => Ruling::RetryAfter(delay.max(self.floor)),
            Ruling::Done | Ruling::GiveUp(_) => ruling,
        }
    }

    fn is_last(self, leased: &LeasedJob) -> bool {
        leased.number_in_series() >= self.attempts
    }

    fn no_more(self) -> String {
        format!("the server allows {} attempts of a job and no more (`limits.attempts`)", self.attempts)
    }
}

/// Reason for which an attempt is interrupted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CutOff {
    /// The server stops, and its time to drain is over.
    Stopped,
    /// The job is cancelled, and its replacement must not run beside it.
    Cancelled,
}

/// Settles an attempt that was sent, whether or not the receiver responded, by the part of `ruling` that `bounds` allow.
#[must_use]
pub fn answered(
    leased: &LeasedJob,
    at: UnixMs,
    mut attempt: AttemptRecord,
    ruling: Ruling,
    bounds: RetryBounds,
) -> Settlement {
    let next_run_at = match bounds.bounded(leased, ruling) {
        Ruling::Done => {
            decide(&mut attempt, State::Succeeded, None, "the attempt succeeded".to_owned());
            return Settlement::succeeded(leased, at, attempt);
        }
        Ruling::GiveUp(reason) => {
            decide(&mut attempt, State::Dead, None, reason);
            return Settlement::dead(leased, at, attempt);
        }
        Ruling::RetryAfter(delay) => at.plus(delay),
    };
    if leased.job.deadline.is_some_and(|deadline| next_run_at > deadline) {
        decide(
            &mut attempt,
            State::Expired,
            None,
            format!("the next attempt, at {next_run_at}, would be after the job's deadline"),
        );
        return Settlement::expired(leased, at, Some(attempt));
    }
    decide(&mut attempt, State::Scheduled, Some(next_run_at), "the retry policy requested another attempt".to_owned());
    Settlement::retry(leased, at, attempt, next_run_at)
}

/// Settles an attempt that was not sent, because the policy of `role` gave no result.
#[must_use]
pub fn unsent(leased: &LeasedJob, at: UnixMs, mut attempt: AttemptRecord, role: Role, fault: &Fault) -> Settlement {
    attempt.detail.error =
        Some(AttemptError { code: fault.code.into(), message: format!("{role}: {}", fault.message) });
    if is_fatal(fault) {
        attempt.outcome = Outcome::Permanent;
        let is_policys = attempt.detail.error.as_ref().is_none_or(|error| error.code.is_policy_fault());
        let reason = if is_policys {
            format!("`{role}` reports that this job can never be sent")
        } else {
            "a key of the group may not go to the job's origin".to_owned()
        };
        attempt.detail.spent = is_policys;
        decide(&mut attempt, State::Dead, None, reason);
        return Settlement::dead(leased, at, attempt);
    }
    let run_at = at.plus(hold(leased.unspent_leases()));
    if leased.job.deadline.is_some_and(|deadline| run_at > deadline) {
        decide(&mut attempt, State::Expired, None, "the job's deadline passed while it could not be sent".to_owned());
        return Settlement::expired(leased, at, Some(attempt));
    }
    decide(&mut attempt, State::Scheduled, Some(run_at), "nothing was sent; the attempt is not spent".to_owned());
    Settlement::held(leased, at, attempt, run_at)
}

/// Times of a job whose attempt is postponed, without having been sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Postponement {
    /// Due time of the job before it was first postponed.
    pub due: UnixMs,
    /// Current time.
    pub decided_at: UnixMs,
    /// Time of the next attempt.
    pub retry_at: UnixMs,
}

/// Settles an attempt that was not sent, because its receiver does not take it now, or because the server lacks a resource.
///
/// The job's `max_delay` counts from its first due time, and the job waits until that is over.
#[must_use]
pub fn postponed(leased: &LeasedJob, mut attempt: AttemptRecord, times: Postponement) -> Settlement {
    let Postponement { due, decided_at: at, retry_at } = times;
    let end = leased.job.expires_if_due(due).unwrap_or(UnixMs::MAX);
    if at >= end {
        decide(
            &mut attempt,
            State::Expired,
            None,
            "the job's deadline passed while it waited for its receiver".to_owned(),
        );
        attempt.detail.spent = false;
        return Settlement::expired(leased, at, Some(attempt));
    }
    let run_at = retry_at.min(end);
    decide(&mut attempt, State::Scheduled, Some(run_at), "nothing was sent; the attempt is not spent".to_owned());
    Settlement::held(leased, at, attempt, run_at)
}

/// Returns how long a job waits that the server had no resource to send.
#[must_use]
pub fn exhaustion_pause(leased: &LeasedJob) -> Duration {
    let pause = hold(leased.unspent_leases()).min(EXHAUSTED_HOLD_MAX);
    // Spreads the retries by the job's seed, so that jobs which were refused together do not come back together.
    let share = f64::from(leased.job.seed) / f64::from(u32::MAX);
    pause / 2 + (pause / 2).mul_f64(share)
}

/// Settles a job whose lease expired without a settlement.
///
/// Its node or consumer stopped during the attempt, and it is unknown whether the work was done. The attempt is spent, but no policy is
/// called: delivery is at least once.
#[must_use]
pub fn interrupted(leased: &LeasedJob, at: UnixMs, bounds: RetryBounds) -> Settlement {
    let message = match leased.job.spec.target {
        Some(_) => "the node stopped during the attempt; the request may have been delivered",
        None => "the consumer's lease expired without a report; the work may have been done",
    };
    let mut attempt = unknown(leased, at);
    note(&mut attempt, ErrorCode::AttemptInterrupted, message);
    if leased.lost_leases >= LOST_LEASES {
        let reason = format!("{} leases of this job expired without a report", leased.lost_leases);
        decide(&mut attempt, State::Dead, None, reason);
        return Settlement::dead(leased, at, attempt);
    }
    if bounds.is_last(leased) {
        decide(&mut attempt, State::Dead, None, bounds.no_more());
        return Settlement::dead(leased, at, attempt);
    }
    again_at_once(leased, at, attempt)
}

/// Settles an attempt that was interrupted after its request had been sent.
#[must_use]
pub fn cut_off(leased: &LeasedJob, at: UnixMs, mut attempt: AttemptRecord, why: CutOff) -> Settlement {
    match why {
        CutOff::Stopped => {
            note(
                &mut attempt,
                ErrorCode::AttemptInterrupted,
                "the server stopped during the attempt; the request may have been delivered",
            );
            again_at_once(leased, at, attempt)
        }
        CutOff::Cancelled => {
            note(
                &mut attempt,
                ErrorCode::AttemptCancelled,
                "the job was cancelled during the attempt; the work may have been done",
            );
            decide(&mut attempt, State::Cancelled, None, "a newer job replaced it".to_owned());
            Settlement::cancelled(leased, at, attempt)
        }
    }
}

/// Settles a job whose consumer's lease was revoked, because a newer job replaces it.
#[must_use]
pub fn revoked(leased: &LeasedJob, at: UnixMs) -> Settlement {
    cut_off(leased, at, unknown(leased, at), CutOff::Cancelled)
}

/// Builds the record of an attempt whose progress is unknown.
fn unknown(leased: &LeasedJob, at: UnixMs) -> AttemptRecord {
    AttemptRecord {
        number: leased.number(),
        started_at: leased.job.run_at,
        finished_at: at,
        outcome: Outcome::Retryable,
        status: None,
        response_body: bytes::Bytes::new(),
        detail: AttemptDetail { spent: true, ..AttemptDetail::default() },
    }
}

fn note(attempt: &mut AttemptRecord, code: ErrorCode, message: &str) {
    attempt.detail.error = Some(AttemptError { code, message: message.to_owned() });
    attempt.detail.verdict = Some(VerdictRecord { outcome: Outcome::Retryable, reason: message.to_owned() });
}

fn again_at_once(leased: &LeasedJob, at: UnixMs, mut attempt: AttemptRecord) -> Settlement {
    if leased.job.deadline.is_some_and(|deadline| at > deadline) {
        decide(&mut attempt, State::Expired, None, "the job's deadline passed".to_owned());
        return Settlement::expired(leased, at, Some(attempt));
    }
    // A lease is taken shortly before its job is due.
    let run_at = at.max(leased.job.run_at);
    decide(&mut attempt, State::Scheduled, Some(run_at), "the job is tried again at once".to_owned());
    Settlement::retry(leased, at, attempt, run_at)
}

/// Returns whether the job's time to run has passed.
#[must_use]
pub fn is_late(leased: &LeasedJob, now: UnixMs) -> bool {
    is_late_since(leased, leased.job.run_at, now)
}

/// Returns the same for a job that was due at `due` and was postponed.
#[must_use]
pub fn is_late_since(leased: &LeasedJob, due: UnixMs, now: UnixMs) -> bool {
    leased.job.expires_if_due(due).is_some_and(|end| now > end)
}

fn decide(attempt: &mut AttemptRecord, state: State, next_run_at: Option<UnixMs>, reason: String) {
    attempt.detail.decision = Some(DecisionRecord { state, next_run_at, reason });
}

fn hold(unspent: u32) -> Duration {
    HOLD_BASE.saturating_mul(1_u32.checked_shl(unspent).unwrap_or(u32::MAX)).min(HOLD_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use carillon_core::job::Next;
    use carillon_core::test_util;
    use carillon_policy::{Blame, FaultCode};
    use proptest::prelude::*;

    fn leased(deadline: Option<i64>, attempt_count: u32, token: i64, lost_leases: u32) -> LeasedJob {
        let job = test_util::job().deadline(deadline.map(UnixMs)).attempt_count(attempt_count);
        test_util::leased(job).token(token).lost_leases(lost_leases).build()
    }

    const BOUNDS: RetryBounds = RetryBounds { floor: Duration::from_millis(100), attempts: 1_000 };

    fn rulings() -> impl Strategy<Value = Ruling> {
        prop_oneof![
            Just(Ruling::Done),
            any::<String>().prop_map(Ruling::GiveUp),
            any::<u64>().prop_map(|ms| Ruling::RetryAfter(Duration::from_millis(ms))),
        ]
    }

    fn state_of(settlement: &Settlement) -> State {
        match settlement.next() {
            Next::Scheduled(_) => State::Scheduled,
            Next::Final(state) => state,
        }
    }

    proptest! {
        #[test]
        fn every_settlement_is_a_step_of_the_diagram(
            ruling in rulings(), deadline: Option<u32>, at in 0_u32.., count in 0_u32..50, lost in 0_u32..20, fatal: bool,
        ) {
            let leased = leased(deadline.map(i64::from), count, i64::from(count) + 1, lost);
            let at = UnixMs(i64::from(at));
            let blame = if fatal { Blame::Job } else { Blame::Config };
            let fault = Fault { code: FaultCode::Declared, blame, message: String::new() };
            for settlement in [
                answered(&leased, at, test_util::attempt(), ruling.clone(), BOUNDS),
                unsent(&leased, at, test_util::attempt(), Role::Sign, &fault),
                interrupted(&leased, at, BOUNDS),
                cut_off(&leased, at, test_util::attempt(), CutOff::Stopped),
                cut_off(&leased, at, test_util::attempt(), CutOff::Cancelled),
                revoked(&leased, at),
            ] {
                prop_assert!(State::Running.can_become(state_of(&settlement)));
                let decision = settlement.attempt.as_ref().and_then(|attempt| attempt.detail.decision.clone()).unwrap();
                prop_assert_eq!(decision.state, state_of(&settlement), "what is recorded is what happens");
                if let Next::Scheduled(run_at) = settlement.next() {
                    prop_assert!(run_at >= at, "never into the past");
                    prop_assert!(leased.job.deadline.is_none_or(|deadline| run_at <= deadline.max(at)));
                }
            }
        }
    }

    proptest! {
        #[test]
        fn no_ruling_retries_sooner_or_more_often_than_the_server_allows(
            ruling in rulings(), at in 0_u32.., count in 0_u32..20, base in 0_u32..20, floor_ms in 0_u64..1_000, attempts in 1_u32..20,
        ) {
            let bounds = RetryBounds { floor: Duration::from_millis(floor_ms), attempts };
            let mut leased = leased(None, count + base, 1, 0);
            leased.job.attempt_base = base;
            let at = UnixMs(i64::from(at));
            let settlement = answered(&leased, at, test_util::attempt(), ruling.clone(), bounds);
            match (settlement.next(), ruling) {
                (Next::Scheduled(next), Ruling::RetryAfter(delay)) => {
                    prop_assert!(next.since(at) >= bounds.floor, "not sooner");
                    prop_assert_eq!(next, at.plus(delay.max(bounds.floor)), "a longer delay stays as it is");
                    prop_assert!(count + 1 < attempts, "not more often; a redrive starts the count anew");
                }
                (Next::Final(State::Dead), Ruling::RetryAfter(_)) => {
                    prop_assert!(count + 1 >= attempts);
                    let decision = settlement.attempt.unwrap().detail.decision.clone().unwrap();
                    prop_assert!(decision.reason.contains("limits.attempts"), "{}", decision.reason);
                }
                (next, ruling) => prop_assert!(matches!(next, Next::Final(_)), "{next:?} after {ruling:?}"),
            }
            let lost = interrupted(&leased, at, bounds);
            prop_assert_eq!(lost.next() == Next::Final(State::Dead), count + 1 >= attempts, "lost leases count, too");
        }
    }

    #[test]
    fn unsent_after_any_fault_waits_unspent_unless_the_job_can_never_be_sent() {
        let codes = [FaultCode::FuelExhausted, FaultCode::Trap, FaultCode::BadAnswer, FaultCode::Declared];
        for role in [Role::Encode, Role::Sign] {
            for (code, blame) in
                codes.into_iter().flat_map(|code| [Blame::Job, Blame::Config, Blame::Policy].map(|blame| (code, blame)))
            {
                let fault = Fault { code, blame, message: String::new() };
                let settlement = unsent(&leased(None, 2, 3, 0), UnixMs(5), test_util::attempt(), role, &fault);
                let is_fatal = code == FaultCode::Declared && blame == Blame::Job;
                assert_eq!(settlement.spends(), is_fatal, "{role} {code:?} {blame:?}");
                if is_fatal {
                    assert_eq!(settlement.next(), Next::Final(State::Dead));
                } else {
                    assert!(matches!(settlement.next(), Next::Scheduled(at) if at > UnixMs(5)));
                }
                let detail = settlement.attempt.as_ref().unwrap().detail.clone();
                assert_eq!(detail.error.unwrap().code, code.into());
            }
        }
    }

    #[test]
    fn key_that_may_not_go_to_the_origin_ends_the_job_unspent() {
        let fault = Fault { code: FaultCode::KeyOrigin, blame: Blame::Job, message: String::new() };
        let settlement = unsent(&leased(None, 2, 3, 0), UnixMs(5), test_util::attempt(), Role::Sign, &fault);
        assert_eq!((settlement.next(), settlement.spends()), (Next::Final(State::Dead), false));
        assert_eq!(settlement.attempt.unwrap().detail.error.clone().unwrap().code.as_str(), "key.origin");
    }

    #[test]
    fn retry_ruling_spends_the_attempt_and_schedules_the_next() {
        let settlement = answered(
            &leased(None, 2, 3, 0),
            UnixMs(5),
            test_util::attempt(),
            Ruling::RetryAfter(Duration::ZERO),
            BOUNDS,
        );
        assert!(settlement.spends() && matches!(settlement.next(), Next::Scheduled(_)));
    }

    #[test]
    fn a_success_is_a_success_even_past_the_deadline() {
        let settlement = answered(&leased(Some(5), 0, 1, 0), UnixMs(10), test_util::attempt(), Ruling::Done, BOUNDS);
        assert_eq!(state_of(&settlement), State::Succeeded);
    }

    #[test]
    fn what_is_not_sent_is_not_spent_and_waits_longer_each_time() {
        let fault = Fault { code: FaultCode::Trap, blame: Blame::Policy, message: String::new() };
        let wait = |token| match unsent(&leased(None, 0, token, 0), UnixMs(0), test_util::attempt(), Role::Sign, &fault)
        {
            settlement if settlement.spends() => panic!("spent"),
            settlement => settlement.next(),
        };
        assert_eq!(wait(1), Next::Scheduled(UnixMs(1_000)));
        assert_eq!(wait(2), Next::Scheduled(UnixMs(2_000)));
        assert_eq!(wait(99), Next::Scheduled(UnixMs(60_000)));
    }

    #[test]
    fn exhaustion_spends_nothing_and_pauses_shortly() {
        let exhausted = |leased: &LeasedJob| {
            let (due, decided_at) = (UnixMs(0), UnixMs(10));
            let retry_at = decided_at.plus(exhaustion_pause(leased));
            postponed(leased, test_util::attempt(), Postponement { due, decided_at, retry_at })
        };
        for token in [1, 2, 99] {
            let settlement = exhausted(&leased(None, 0, token, 0));
            assert!(!settlement.spends());
            let Next::Scheduled(run_at) = settlement.next() else { panic!("it has ended") };
            assert!(run_at > UnixMs(10) && run_at <= UnixMs(10).plus(EXHAUSTED_HOLD_MAX), "{run_at}");
        }
        let late = exhausted(&leased(Some(100), 0, 1, 0));
        assert_eq!(late.next(), Next::Scheduled(UnixMs(100)), "all of its time is waited for");
    }

    #[test]
    fn postponed_job_waits_for_all_of_its_time_and_no_longer() {
        let mut leased = leased(Some(5_000), 2, 9, 0);
        let postponed = |leased: &LeasedJob, decided_at, retry_at| {
            let (decided_at, retry_at) = (UnixMs(decided_at), UnixMs(retry_at));
            postponed(leased, test_util::attempt(), Postponement { due: UnixMs(0), decided_at, retry_at })
        };
        assert_eq!(postponed(&leased, 10, 700).next(), Next::Scheduled(UnixMs(700)));
        assert_eq!(postponed(&leased, 10, 9_000).next(), Next::Scheduled(UnixMs(5_000)), "until the end");
        assert_eq!(postponed(&leased, 5_000, 9_000).next(), Next::Final(State::Expired));
        leased.job.max_delay = Some(Duration::from_millis(300));
        leased.job.run_at = UnixMs(200);
        assert_eq!(postponed(&leased, 200, 700).next(), Next::Scheduled(UnixMs(300)), "since it was first due");
        assert_eq!(postponed(&leased, 300, 700).next(), Next::Final(State::Expired));
        assert!(!postponed(&leased, 10, 700).spends() && !postponed(&leased, 300, 700).spends());
    }

    #[test]
    fn a_job_that_keeps_taking_nodes_down_is_isolated() {
        assert_eq!(state_of(&interrupted(&leased(None, 3, 4, 1), UnixMs(0), BOUNDS)), State::Scheduled);
        assert_eq!(state_of(&interrupted(&leased(None, 12, 13, LOST_LEASES), UnixMs(0), BOUNDS)), State::Dead);
    }
}
