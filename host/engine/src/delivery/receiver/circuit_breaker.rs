//! One circuit breaker: closed, open, half-open. Pure: the time is an argument.
//!
//! While closed, it counts consecutive failures. While open, no attempt passes until its pause is over; then it is half-open, and one attempt
//! passes as a probe. Only the probe's result decides: it closes the circuit breaker, or begins another pause, twice as long.
//!
//! Postponed jobs get retry slots one after the other, and none before the end of the pause.

use std::time::Duration;

use super::retry_slots::{Refusal, RetrySlots, Turn};
use carillon_core::clock::UnixMs;

/// Threshold and pauses of a circuit breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rules {
    /// Consecutive failures that open it.
    pub(super) failures: u32,
    /// First pause. Not zero.
    pub(super) pause: Duration,
    /// Longest pause.
    pub(super) longest_pause: Duration,
}

/// Result of an attempt with regard to its receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// The receiver responded.
    Answered,
    /// The receiver did not respond.
    Failed,
    /// Nothing is known: no request was sent.
    Unknown,
}

/// Kind of an attempt that passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PassKind {
    /// The circuit breaker was closed.
    Normal,
    /// The probe of an open circuit breaker: only its result decides.
    Probe,
}

/// Decision about an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Entry {
    /// The attempt may be made. If it is the probe, all others wait for its result.
    Passed(PassKind),
    /// No attempt now.
    Refused(Refusal),
}

/// Change of a circuit breaker's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerChange {
    /// It opened: no attempt passes before this time.
    Opened(UnixMs),
    /// It closed: every attempt passes.
    Closed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Closed { failures: u32 },
    Open { until: UnixMs, pause: Duration },
    HalfOpen { pause: Duration },
}

/// State of one receiver's circuit breaker.
#[derive(Clone, Debug)]
pub(super) struct CircuitBreaker {
    state: State,
    retry_slots: RetrySlots,
}

impl Default for CircuitBreaker {
    fn default() -> Self {
        Self { state: State::Closed { failures: 0 }, retry_slots: RetrySlots::default() }
    }
}

impl CircuitBreaker {
    /// Requests an attempt now. The caller must follow a probe with [`CircuitBreaker::report`].
    pub(super) fn enter(&mut self, rules: &Rules, turn: Turn, now: UnixMs, spacing: Duration) -> Entry {
        let refused = |retry_at| Entry::Refused(Refusal { retry_at, spacing });
        match &mut self.state {
            State::Closed { .. } => Entry::Passed(PassKind::Normal),
            State::Open { until, pause } => {
                // The pause exceeds this bound only if the clock has been set back.
                *until = (*until).min(now.plus(rules.longest_pause));
                let (until, pause) = (*until, *pause);
                if until > now {
                    return refused(until);
                }
                // A job whose probe has failed must not be the next probe, too, while others wait.
                if self.retry_slots.is_before(turn, now) {
                    return refused(now.plus(spacing));
                }
                self.retry_slots.leave(turn);
                self.state = State::HalfOpen { pause };
                Entry::Passed(PassKind::Probe)
            }
            State::HalfOpen { .. } => refused(now.plus(rules.pause)),
        }
    }

    /// Reserves the retry slot of a refused job, which gives back the one that it had.
    pub(super) fn reserve(&mut self, turn: Turn, refusal: Refusal) -> UnixMs {
        self.retry_slots.leave(turn);
        self.retry_slots.reserve(refusal)
    }

    /// Reports the result of an attempt that had passed.
    pub(super) fn report(
        &mut self,
        rules: &Rules,
        kind: PassKind,
        health: Health,
        now: UnixMs,
    ) -> Option<BreakerChange> {
        match (&mut self.state, health, kind) {
            (State::Closed { failures }, Health::Answered, _) => *failures = 0,
            (State::Closed { failures }, Health::Failed, _) => {
                *failures = failures.saturating_add(1);
                if *failures >= rules.failures {
                    return Some(self.open(now.plus(rules.pause), rules.pause));
                }
            }
            (State::HalfOpen { .. }, Health::Answered, PassKind::Probe) => {
                *self = Self::default();
                return Some(BreakerChange::Closed);
            }
            (State::HalfOpen { pause }, Health::Failed, PassKind::Probe) => {
                let pause = pause.saturating_mul(2).min(rules.longest_pause);
                self.open(now.plus(pause), pause);
            }
            // The next attempt is the probe.
            (State::HalfOpen { pause }, Health::Unknown, PassKind::Probe) => {
                let pause = *pause;
                self.open(now, pause);
            }
            // Other attempts were sent before the probe, so their results are not new.
            (State::Closed { .. } | State::Open { .. } | State::HalfOpen { .. }, _, _) => {}
        }
        None
    }

    /// Returns whether only probes pass.
    pub(super) fn is_open(&self) -> bool {
        !matches!(self.state, State::Closed { .. })
    }

    /// Returns whether the state equals a new one.
    pub(super) fn is_blank(&self) -> bool {
        self.state == State::Closed { failures: 0 }
    }

    /// Returns whether an attempt is certain to follow: a probe is on its way, or a pause is not over.
    pub(super) fn is_needed(&self, rules: &Rules, now: UnixMs) -> bool {
        match self.state {
            State::Closed { .. } => false,
            State::Open { until, .. } => until > now && until <= now.plus(rules.longest_pause),
            State::HalfOpen { .. } => true,
        }
    }

    fn open(&mut self, until: UnixMs, pause: Duration) -> BreakerChange {
        self.state = State::Open { until, pause };
        BreakerChange::Opened(until)
    }
}

#[cfg(test)]
mod tests {
    use super::super::retry_slots::{MAX_SERIES, MIN_SPACING};
    use super::*;
    use proptest::prelude::*;

    const RULES: Rules =
        Rules { failures: 3, pause: Duration::from_millis(100), longest_pause: Duration::from_millis(1_000) };

    /// Decision about an attempt of a job that waits if it is refused.
    #[derive(Debug, PartialEq, Eq)]
    enum Entered {
        Pass,
        Probe,
        Wait(UnixMs),
    }

    /// Requests an attempt, and reserves a retry slot if it is refused.
    fn enter(breaker: &mut CircuitBreaker, now: UnixMs, turn: Turn) -> Entered {
        match breaker.enter(&RULES, turn, now, MIN_SPACING) {
            Entry::Passed(PassKind::Normal) => Entered::Pass,
            Entry::Passed(PassKind::Probe) => Entered::Probe,
            Entry::Refused(refusal) => Entered::Wait(breaker.reserve(turn, refusal)),
        }
    }

    /// Returns a circuit breaker that opened at 0.
    fn opened() -> CircuitBreaker {
        let mut breaker = CircuitBreaker::default();
        for _ in 1..RULES.failures {
            assert_eq!(breaker.report(&RULES, PassKind::Normal, Health::Failed, UnixMs(0)), None);
        }
        let change = breaker.report(&RULES, PassKind::Normal, Health::Failed, UnixMs(0));
        assert_eq!(change, Some(BreakerChange::Opened(UnixMs(100))));
        breaker
    }

    #[test]
    fn it_opens_after_failures_in_a_row_only() {
        let mut breaker = CircuitBreaker::default();
        for _ in 0..10 {
            for health in [Health::Failed, Health::Failed, Health::Unknown, Health::Answered] {
                assert_eq!(breaker.report(&RULES, PassKind::Normal, health, UnixMs(0)), None);
                assert_eq!(enter(&mut breaker, UnixMs(0), Turn::Back), Entered::Pass);
            }
        }
        assert!(breaker.is_blank());
        assert!(opened().is_open());
    }

    #[test]
    fn one_probe_passes_and_its_answer_closes() {
        let mut breaker = opened();
        assert_eq!(enter(&mut breaker, UnixMs(99), Turn::Back), Entered::Wait(UnixMs(100)));
        assert_eq!(enter(&mut breaker, UnixMs(99), Turn::Back), Entered::Wait(UnixMs(101)), "one after the other");
        assert_eq!(enter(&mut breaker, UnixMs(100), Turn::Back), Entered::Probe);
        assert_eq!(enter(&mut breaker, UnixMs(101), Turn::Back), Entered::Wait(UnixMs(201)));
        assert_eq!(breaker.report(&RULES, PassKind::Normal, Health::Answered, UnixMs(102)), None, "it was sent before");
        assert_eq!(breaker.report(&RULES, PassKind::Probe, Health::Answered, UnixMs(103)), Some(BreakerChange::Closed));
        assert_eq!(enter(&mut breaker, UnixMs(103), Turn::Back), Entered::Pass);
        assert!(breaker.is_blank());
    }

    #[test]
    fn refusal_alone_reserves_no_retry_slot() {
        let mut breaker = opened();
        let ask = |breaker: &mut CircuitBreaker, at| breaker.enter(&RULES, Turn::Back, UnixMs(at), MIN_SPACING);
        let refused = |at| Entry::Refused(Refusal { retry_at: UnixMs(at), spacing: MIN_SPACING });
        assert_eq!([ask(&mut breaker, 9), ask(&mut breaker, 9)], [refused(100); 2]);
        assert_eq!(enter(&mut breaker, UnixMs(9), Turn::Back), Entered::Wait(UnixMs(100)), "the first slot is free");
        assert_eq!(ask(&mut breaker, 100), Entry::Passed(PassKind::Probe));
        assert_eq!(ask(&mut breaker, 100), refused(200));
    }

    #[test]
    fn pauses_double_up_to_the_longest() {
        let (mut breaker, mut now) = (opened(), UnixMs(100));
        for pause in [200, 400, 800, 1_000, 1_000] {
            assert_eq!(enter(&mut breaker, now, Turn::Back), Entered::Probe);
            assert_eq!(breaker.report(&RULES, PassKind::Probe, Health::Failed, now), None, "it stays open");
            assert!(
                matches!(enter(&mut breaker, now, Turn::Back), Entered::Wait(at) if at >= now.plus(Duration::from_millis(pause)))
            );
            now = now.plus(Duration::from_millis(pause));
        }
    }

    #[test]
    fn probe_is_one_of_those_that_wait_and_not_the_one_that_failed() {
        let mut breaker = opened();
        assert_eq!(enter(&mut breaker, UnixMs(5), Turn::New), Entered::Wait(UnixMs(100)));
        assert_eq!(enter(&mut breaker, UnixMs(100), Turn::New), Entered::Wait(UnixMs(101)), "it comes from an attempt");
        assert_eq!(enter(&mut breaker, UnixMs(100), Turn::Back), Entered::Probe);
        let mut breaker = opened();
        assert_eq!(enter(&mut breaker, UnixMs(5), Turn::New), Entered::Wait(UnixMs(100)));
        assert_eq!(enter(&mut breaker, UnixMs(9_000), Turn::New), Entered::Probe, "the other one has gone");
    }

    #[test]
    fn a_probe_that_says_nothing_is_followed_by_another() {
        let mut breaker = opened();
        assert_eq!(enter(&mut breaker, UnixMs(100), Turn::Back), Entered::Probe);
        assert_eq!(breaker.report(&RULES, PassKind::Probe, Health::Unknown, UnixMs(120)), None);
        assert_eq!(enter(&mut breaker, UnixMs(120), Turn::Back), Entered::Probe);
    }

    #[test]
    fn a_clock_that_is_set_back_holds_nothing_up() {
        let mut breaker = CircuitBreaker::default();
        let late = UnixMs(1_000_000_000);
        for _ in 0..RULES.failures {
            breaker.report(&RULES, PassKind::Normal, Health::Failed, late);
        }
        assert!(matches!(enter(&mut breaker, late, Turn::Back), Entered::Wait(_)));
        let waits = enter(&mut breaker, UnixMs(0), Turn::Back);
        assert!(
            matches!(waits, Entered::Wait(at) if at <= UnixMs(0).plus(RULES.longest_pause).plus(MIN_SPACING)),
            "{waits:?}"
        );
        assert_eq!(enter(&mut breaker, UnixMs(1_000), Turn::Back), Entered::Probe);
    }

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Enter,
        Report(usize, Health),
        Pass(u16),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let health = prop_oneof![
            3 => Just(Health::Failed),
            1 => Just(Health::Answered),
            1 => Just(Health::Unknown),
        ];
        let step = prop_oneof![
            4 => Just(Step::Enter),
            4 => (any::<usize>(), health).prop_map(|(which, health)| Step::Report(which, health)),
            2 => (0_u16..500).prop_map(Step::Pass),
        ];
        prop::collection::vec(step, 0..200)
    }

    proptest! {
        #[test]
        fn one_probe_at_a_time_and_nobody_waits_for_nothing(steps in steps()) {
            let (mut breaker, mut now, mut passed) = (CircuitBreaker::default(), UnixMs(0), Vec::new());
            let mut slots = std::collections::HashSet::new();
            for step in steps {
                let was_open = breaker.is_open();
                match step {
                    Step::Pass(ms) => now = now.plus(Duration::from_millis(u64::from(ms))),
                    Step::Enter => match enter(&mut breaker, now, Turn::Back) {
                        Entered::Pass => {
                            prop_assert!(!was_open);
                            passed.push(PassKind::Normal);
                        }
                        Entered::Probe => {
                            prop_assert!(was_open && !passed.contains(&PassKind::Probe), "one probe at a time");
                            passed.push(PassKind::Probe);
                        }
                        Entered::Wait(at) => {
                            prop_assert!(was_open && at > now, "who waits does not come back at once");
                            prop_assert!(slots.insert(at), "two jobs in one slot");
                            let most = now.plus(RULES.longest_pause).plus(MAX_SERIES).plus(MIN_SPACING);
                            prop_assert!(at <= most, "nobody waits for ever");
                        }
                    },
                    Step::Report(which, health) if !passed.is_empty() => {
                        let kind = passed.swap_remove(which % passed.len());
                        match breaker.report(&RULES, kind, health, now) {
                            Some(BreakerChange::Opened(until)) => {
                                prop_assert!(!was_open && breaker.is_open());
                                prop_assert!(until > now && until <= now.plus(RULES.longest_pause));
                            }
                            Some(BreakerChange::Closed) => {
                                prop_assert!(kind == PassKind::Probe && health == Health::Answered && !breaker.is_open());
                                slots.clear();
                            }
                            None => prop_assert_eq!(was_open, breaker.is_open()),
                        }
                    }
                    Step::Report(..) => {}
                }
            }
            // Whatever happened before: when its probes succeed, it closes.
            for kind in passed {
                breaker.report(&RULES, kind, Health::Answered, now);
            }
            let later = now.plus(RULES.longest_pause);
            if enter(&mut breaker, later, Turn::Back) == Entered::Probe {
                breaker.report(&RULES, PassKind::Probe, Health::Answered, later);
            }
            prop_assert!(!breaker.is_open());
        }
    }
}
