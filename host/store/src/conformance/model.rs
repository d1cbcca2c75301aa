//! Model of the random walks: the verbs, and the expected state of one job.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::*;
use crate::SettleOutcome;
use carillon_core::job::{DispatchMode, Settlement, Token};

#[derive(Clone, Copy, Debug)]
pub enum End {
    Succeed,
    Die,
    Expire,
    Retry(u64),
    Hold(u64),
    Release,
}

#[derive(Clone, Debug)]
pub enum Step {
    Insert {
        delay: u64,
        /// Time from acceptance to the deadline, in milliseconds, if the job has a deadline.
        ttl: Option<u64>,
        /// Order key, if the job has one.
        key: Option<char>,
        mode: DispatchMode,
    },
    Pass {
        time: u64,
    },
    Claim {
        quota: u32,
        mode: DispatchMode,
    },
    ClaimLost,
    ClaimOverdue,
    /// Settles a few of all leases that were ever given, lost ones included.
    Settle(Vec<(usize, End)>),
    Extend(usize),
    Cancel(usize),
    Redrive(usize),
    Reschedule(usize, u64),
    Edit(usize, u64),
    Prune(State),
}

fn an_end() -> impl Strategy<Value = End> {
    prop_oneof![
        Just(End::Succeed),
        Just(End::Die),
        Just(End::Expire),
        (0..50_u64).prop_map(End::Retry),
        (0..50_u64).prop_map(End::Hold),
        Just(End::Release),
    ]
}

fn mode(share_of_pull: f64) -> impl Strategy<Value = DispatchMode> {
    prop::bool::weighted(share_of_pull)
        .prop_map(|is_pulled| if is_pulled { DispatchMode::Pull } else { DispatchMode::Push })
}

pub fn a_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..50_u64, option::of(0..90_u64), option::of(prop::sample::select(vec!['a', 'b'])), mode(0.2))
            .prop_map(|(delay, ttl, key, mode)| Step::Insert { delay, ttl, key, mode }),
        3 => (1..60_u64).prop_map(|time| Step::Pass { time }),
        5 => (0..4_u32, mode(0.3)).prop_map(|(quota, mode)| Step::Claim { quota, mode }),
        2 => Just(Step::ClaimLost),
        2 => Just(Step::ClaimOverdue),
        5 => vec((any::<prop::sample::Index>().prop_map(|index| index.index(1_000)), an_end()), 1..4).prop_map(Step::Settle),
        1 => (0..1_000_usize).prop_map(Step::Extend),
        2 => (0..1_000_usize).prop_map(Step::Cancel),
        3 => (0..1_000_usize).prop_map(Step::Redrive),
        1 => (0..1_000_usize, 0..50_u64).prop_map(|(which, delay)| Step::Reschedule(which, delay)),
        1 => (0..1_000_usize, 0..50_u64).prop_map(|(which, delay)| Step::Edit(which, delay)),
        1 => prop::sample::select(State::ALL.to_vec()).prop_map(Step::Prune),
    ]
}

/// Duration of the walks' leases.
pub const WALK_LEASE: Duration = ms(40);

pub const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Expected state of one job.
#[derive(Clone, Debug)]
pub struct Expected {
    pub id: JobId,
    pub state: State,
    pub mode: DispatchMode,
    pub key: Option<char>,
    /// Whether an earlier job of its order key is unfinished.
    pub blocked: bool,
    pub ttl: Option<Duration>,
    pub deadline: Option<UnixMs>,
    pub revision: i64,
    pub run_at: UnixMs,
    pub lease_until: UnixMs,
    pub token: Token,
    pub lost_leases: u32,
    pub attempt_count: u32,
    pub attempt_base: u32,
    pub cancel_requested: bool,
    pub finished_at: Option<UnixMs>,
    pub pruned: bool,
}

impl Expected {
    pub fn step_to(&mut self, next: State) {
        assert!(self.state.can_become(next), "{} became {next}", self.state);
        self.state = next;
    }

    pub fn lease(&mut self, until: UnixMs, leased: &LeasedJob) {
        if self.state == State::Scheduled {
            self.step_to(State::Running);
        }
        assert!(leased.token > self.token);
        assert_eq!((leased.lost_leases, leased.number()), (self.lost_leases, self.attempt_count + 1));
        assert_eq!(leased.history.len(), (self.attempt_count - self.attempt_base) as usize);
        (self.lease_until, self.token) = (until, leased.token);
    }

    pub fn settle(&mut self, token: Token, end: End, now: UnixMs) -> SettleOutcome {
        if self.state != State::Running || self.token != token {
            return SettleOutcome::LeaseLost;
        }
        let (next, run_at, spent) = match end {
            End::Succeed => (State::Succeeded, self.run_at, true),
            End::Die => (State::Dead, self.run_at, true),
            End::Expire => (State::Expired, self.run_at, false),
            End::Retry(delay) => (State::Scheduled, now.plus(ms(delay)), true),
            End::Hold(delay) => (State::Scheduled, now.plus(ms(delay)), false),
            End::Release => (State::Scheduled, self.run_at, false),
        };
        self.attempt_count += u32::from(spent);
        if next == State::Scheduled && self.cancel_requested {
            self.step_to(State::Cancelled);
        } else {
            self.step_to(next);
            self.run_at = run_at;
        }
        self.finished_at = self.state.is_final().then_some(now);
        SettleOutcome::Applied(self.state)
    }
}

impl End {
    pub fn of(self, leased: &LeasedJob, now: UnixMs) -> Settlement {
        let attempt = an_attempt(leased, Some(503));
        match self {
            Self::Succeed => Settlement::succeeded(leased, now, attempt),
            Self::Die => Settlement::dead(leased, now, attempt),
            Self::Expire => Settlement::expired(leased, now, None),
            Self::Retry(delay) => Settlement::retry(leased, now, attempt, now.plus(ms(delay))),
            Self::Hold(delay) => Settlement::held(leased, now, attempt, now.plus(ms(delay))),
            Self::Release => Settlement::released(leased, now),
        }
    }
}
