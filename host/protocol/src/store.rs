//! The store: one row for each job, and the verbs on them. Each verb is one transaction.

use crate::rules::{Broken, Rule};
use crate::setting::{Mistake, Setting, Time};

/// Index of a job.
pub type Job = usize;

/// A lease: the job, and the token.
pub type Lease = (Job, u8);

/// State of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// Waits for its time.
    Scheduled,
    /// Is leased.
    Running,
    /// Ended: an attempt succeeded.
    Succeeded,
    /// Ended: no attempt is left.
    Dead,
    /// Ended: a client has cancelled it.
    Cancelled,
    /// Ended, and removed by a client.
    Purged,
}

impl State {
    /// Returns whether the job has ended.
    #[must_use]
    pub fn is_final(self) -> bool {
        !matches!(self, Self::Scheduled | Self::Running)
    }
}

/// Row of a job.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Row {
    /// Its state.
    pub state: State,
    /// Time when the next attempt is due.
    pub run_at: Time,
    /// Token of the newest lease.
    pub token: u8,
    /// Time when the newest lease ends.
    pub lease_until: Time,
    /// Number of spent attempts.
    pub attempts: u8,
    /// Whether the job is to be cancelled when its attempt is over.
    pub cancel_requested: bool,
    /// For the rules: attempt numbers under which a request was sent, as bits.
    pub sent_numbers: u16,
    /// For the rules: number of requests that were sent.
    pub sends: u8,
}

/// A leased job, as a claim returns it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Leased {
    /// The lease.
    pub lease: Lease,
    /// Number of its attempt.
    pub number: u8,
    /// Time when it is due.
    pub run_at: Time,
    /// End of the lease, unless it is extended.
    pub until: Time,
}

/// A settlement of a leased job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Settlement {
    /// The lease.
    pub lease: Lease,
    /// Number of the attempt, if one is spent.
    pub attempt: Option<u8>,
    /// The job's next state, with the time of its next attempt if it is scheduled.
    pub next: (State, Time),
}

/// A verb of the store, with its arguments.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Verb {
    /// Leases the jobs that are due by then.
    ClaimDue {
        /// Latest time when the jobs are due.
        due_by: Time,
        /// End of the leases.
        until: Time,
    },
    /// Moves the end of leases.
    Extend {
        /// The leases.
        leases: Vec<Lease>,
        /// Their new end.
        until: Time,
    },
    /// Leases anew what has expired.
    ClaimLost {
        /// Node that calls.
        node: usize,
        /// The leases.
        lost: Vec<Lease>,
        /// Time by which they must have ended.
        ended_by: Time,
        /// End of the new leases.
        until: Time,
    },
    /// Writes a settlement.
    Settle(Settlement),
}

/// Response to a [`Verb`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Answer {
    /// Jobs that are leased now.
    Leased(Vec<Leased>),
    /// Leases that are extended now.
    Extended(Vec<Lease>),
    /// Whether the settlement was written is no matter to the node that has sent it.
    Settled,
}

/// The rows of all jobs.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Store {
    /// Rows by job.
    pub rows: Vec<Row>,
}

impl Store {
    /// Returns a store of waiting jobs.
    #[must_use]
    pub fn new(jobs: usize, run_at: Time) -> Self {
        let row = Row {
            state: State::Scheduled,
            run_at,
            token: 0,
            lease_until: 0,
            attempts: 0,
            cancel_requested: false,
            sent_numbers: 0,
            sends: 0,
        };
        Self { rows: vec![row; jobs] }
    }

    /// Returns the leases that end at `until` or before.
    #[must_use]
    pub fn ending(&self, until: Time) -> Vec<Lease> {
        let is_ending = |row: &&Row| row.state == State::Running && row.lease_until <= until;
        self.rows.iter().enumerate().filter(|(_, row)| is_ending(row)).map(|(job, row)| (job, row.token)).collect()
    }

    /// Runs a verb at `now` by the store's clock.
    pub fn run(&mut self, verb: &Verb, now: Time, setting: &Setting, broken: &mut Broken) -> Answer {
        match verb {
            Verb::ClaimDue { due_by, until } => {
                let due = |row: &&mut Row| row.state == State::Scheduled && row.run_at <= *due_by;
                let rows = self.rows.iter_mut().enumerate().filter(|(_, row)| due(row));
                Answer::Leased(rows.map(|(job, row)| row.lease(job, *until)).collect())
            }
            Verb::Extend { leases, until } => {
                let mut ours = Vec::new();
                for lease in leases {
                    let row = &mut self.rows[lease.0];
                    if row.state == State::Running && row.token == lease.1 {
                        let moves_back = setting.has(Mistake::ExtensionMovesBack);
                        row.lease_until = if moves_back { *until } else { row.lease_until.max(*until) };
                        ours.push(*lease);
                    }
                }
                Answer::Extended(ours)
            }
            Verb::ClaimLost { lost, ended_by, until, .. } => {
                let mut leased = Vec::new();
                for (job, token) in lost {
                    let row = &mut self.rows[*job];
                    let has_ended = row.lease_until <= *ended_by || setting.has(Mistake::RescueIgnoresExpiry);
                    if row.state == State::Running && row.token == *token && has_ended {
                        broken.check(Rule::OneLiveLease, row.lease_until <= now);
                        leased.push(row.lease(*job, *until));
                    }
                }
                Answer::Leased(leased)
            }
            Verb::Settle(settlement) => {
                self.rows[settlement.lease.0].settle(settlement, setting, broken);
                Answer::Settled
            }
        }
    }
}

impl Row {
    fn lease(&mut self, job: Job, until: Time) -> Leased {
        self.state = State::Running;
        self.token += 1;
        self.lease_until = until;
        Leased { lease: (job, self.token), number: self.attempts + 1, run_at: self.run_at, until }
    }

    fn settle(&mut self, settlement: &Settlement, setting: &Setting, broken: &mut Broken) {
        let is_newest = self.token == settlement.lease.1;
        let fits_token = is_newest || setting.has(Mistake::SettlementIgnoresToken);
        let fits_state = self.state == State::Running || setting.has(Mistake::SettlementIgnoresState);
        if !fits_token || !fits_state {
            return;
        }
        let before = self.clone();
        let (state, run_at) = match settlement.next {
            (State::Scheduled, _) if self.cancel_requested => (State::Cancelled, self.run_at),
            next => next,
        };
        (self.state, self.run_at, self.lease_until) = (state, run_at, 0);
        self.attempts = settlement.attempt.unwrap_or(self.attempts);
        if setting.has(Mistake::ReleaseSpendsAttempt) && settlement.attempt.is_none() {
            self.attempts += 1;
        }
        broken.check(Rule::StaleSettlementChangesNothing, is_newest || *self == before);
        broken.check(Rule::OneEnd, !before.state.is_final() || self.state == before.state);
        broken.check(Rule::NoGaps, self.attempts == before.attempts + u8::from(settlement.attempt.is_some()));
    }
}
