//! A node: what it holds in memory, and what its loops are doing.

use crate::setting::Time;
use crate::store::{Answer, Lease, Settlement, Verb};

/// A call of the store, on its way.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Call {
    /// On its way to the store; it arrives at this time or before.
    There(Verb, Time),
    /// The response is on its way back; it arrives at this time or before.
    Back(Answer, Time),
}

/// Progress of an attempt.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Waits for its time.
    Waiting,
    /// Prepares its request after it is due; only a mistake makes this a phase of its own.
    Preparing,
    /// The request was sent at this time by the store's clock.
    Sent(Time),
    /// The settlement is decided, and being written.
    Settling(Settlement, Option<Call>),
}

/// An attempt under a lease.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Task {
    /// The lease.
    pub lease: Lease,
    /// Number of the attempt.
    pub number: u8,
    /// Time when it is due.
    pub run_at: Time,
    /// End of the lease, as the node knows it.
    pub until: Time,
    /// Progress.
    pub phase: Phase,
}

/// What the rescuer is doing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum Rescuer {
    /// Waits.
    #[default]
    Idle,
    /// Has read expired leases.
    Found {
        /// Time of the node when it has read them.
        at: Time,
        /// The leases.
        ending: Vec<Lease>,
    },
    /// Extends what the node holds, before it takes back what has expired.
    Extending {
        /// Time of the node when it has read the expired leases.
        at: Time,
        /// Expired leases that the node does not hold.
        lost: Vec<Lease>,
        /// The call.
        call: Call,
    },
    /// Is about to take back what has expired.
    Ready {
        /// Time of the node when it has read the expired leases.
        at: Time,
        /// Expired leases that the node does not hold.
        lost: Vec<Lease>,
    },
    /// Takes back what has expired.
    Taking {
        /// Time of the node when it has read the expired leases.
        at: Time,
        /// The call.
        call: Call,
    },
}

/// The memory of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Node {
    /// Attempts under way.
    pub tasks: Vec<Task>,
    /// Leases that are extended and not taken back.
    pub held: Vec<Lease>,
    /// Claim under way, with the node's time when it was asked for.
    pub claim: Option<(Time, Call)>,
    /// Time of the node when leases are to be extended.
    pub extension_at: Time,
    /// Extension under way, with the node's time when it was asked for.
    pub extension: Option<(Time, Call)>,
    /// The rescuer.
    pub rescuer: Rescuer,
    /// Time until which the node stands still at most, if it does.
    pub stalled_until: Option<Time>,
}

/// A part of a node that calls the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Caller {
    /// The dispatcher's claim.
    Dispatcher,
    /// The lease keeper.
    Keeper,
    /// The rescuer.
    Rescuer,
    /// The attempt with this index.
    Task(usize),
}

impl Node {
    /// Returns all parts with a call under way.
    #[must_use]
    pub fn callers(&self) -> Vec<Caller> {
        let loops = [Caller::Dispatcher, Caller::Keeper, Caller::Rescuer];
        let all = loops.into_iter().chain((0..self.tasks.len()).map(Caller::Task));
        all.filter(|caller| self.call(*caller).is_some()).collect()
    }

    /// Returns the call under way of a part.
    #[must_use]
    pub fn call(&self, caller: Caller) -> Option<&Call> {
        match caller {
            Caller::Dispatcher => self.claim.as_ref().map(|(_, call)| call),
            Caller::Keeper => self.extension.as_ref().map(|(_, call)| call),
            Caller::Rescuer => match &self.rescuer {
                Rescuer::Extending { call, .. } | Rescuer::Taking { call, .. } => Some(call),
                Rescuer::Idle | Rescuer::Found { .. } | Rescuer::Ready { .. } => None,
            },
            Caller::Task(index) => match &self.tasks.get(index)?.phase {
                Phase::Settling(_, call) => call.as_ref(),
                Phase::Waiting | Phase::Preparing | Phase::Sent(_) => None,
            },
        }
    }

    /// Returns the call under way of a part, to change it.
    pub fn call_mut(&mut self, caller: Caller) -> Option<&mut Call> {
        match caller {
            Caller::Dispatcher => self.claim.as_mut().map(|(_, call)| call),
            Caller::Keeper => self.extension.as_mut().map(|(_, call)| call),
            Caller::Rescuer => match &mut self.rescuer {
                Rescuer::Extending { call, .. } | Rescuer::Taking { call, .. } => Some(call),
                Rescuer::Idle | Rescuer::Found { .. } | Rescuer::Ready { .. } => None,
            },
            Caller::Task(index) => match &mut self.tasks.get_mut(index)?.phase {
                Phase::Settling(_, call) => call.as_mut(),
                Phase::Waiting | Phase::Preparing | Phase::Sent(_) => None,
            },
        }
    }

    /// Holds a lease; the first one sets the time of the next extension.
    pub fn hold(&mut self, lease: Lease, extension_at: Time) {
        if self.held.is_empty() {
            self.extension_at = extension_at;
        }
        self.held.push(lease);
        self.held.sort_unstable();
    }

    /// Returns whether the node works on this lease.
    #[must_use]
    pub fn works_on(&self, lease: Lease) -> bool {
        self.tasks.iter().any(|task| task.lease == lease)
    }
}
