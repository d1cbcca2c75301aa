//! Steps of the model.

use std::fmt;

use crate::node::Caller;
use crate::store::Job;

/// How a call goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Way {
    /// The store runs it at once.
    Prompt,
    /// It takes some time to arrive.
    Slow,
    /// Its caller gives it up; it may be run all the same.
    Lost,
}

/// Result of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The receiver has done the work.
    Success,
    /// The attempt failed, and is to be retried.
    Failure,
}

/// A step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Time passes by one tick.
    Tick,
    /// A node claims the jobs that are due now or soon.
    Claim(usize, Way),
    /// A node extends the leases that it holds.
    Extend(usize, Way),
    /// A node's rescuer reads the expired leases.
    FindExpired(usize),
    /// A node's rescuer sorts them by whether the node holds them, and extends or takes them back.
    Sort(usize, Way),
    /// A node's rescuer takes them back, after the extension.
    TakeBack(usize, Way),
    /// A node prepares the request of a task that is due; only a mistake makes this a step of its own.
    Prepare(usize, usize),
    /// A node sends the request of a task, or releases the job if the lease is over.
    Send(usize, usize),
    /// The receiver responds to the request of a task.
    Respond(usize, usize, Outcome),
    /// A node writes the settlement of a task.
    Settle(usize, usize, Way),
    /// The store runs a slow call.
    Arrive(usize, Caller),
    /// A node gets the response to a call.
    Receive(usize, Caller),
    /// The response to a call is slow.
    Delay(usize, Caller),
    /// The store runs a call that was given up.
    RunOrphan(usize),
    /// A call that was given up is never run.
    DropOrphan(usize),
    /// A node loses its memory and starts again.
    Crash(usize),
    /// A node stands still.
    Stall(usize),
    /// A node goes on.
    Resume(usize),
    /// A client cancels a job.
    Cancel(Job),
    /// A client removes a job that has ended.
    Purge(Job),
}

impl Action {
    /// Returns whether the step is a fault, or a change by a client: something that need not happen.
    #[must_use]
    pub fn is_fault(self) -> bool {
        match self {
            Self::Claim(_, way)
            | Self::Extend(_, way)
            | Self::Sort(_, way)
            | Self::TakeBack(_, way)
            | Self::Settle(_, _, way) => way != Way::Prompt,
            Self::Respond(_, _, outcome) => outcome == Outcome::Failure,
            Self::Delay(..) | Self::Crash(_) | Self::Stall(_) | Self::Cancel(_) | Self::Purge(_) => true,
            Self::Tick
            | Self::FindExpired(_)
            | Self::Prepare(..)
            | Self::Send(..)
            | Self::Arrive(..)
            | Self::Receive(..)
            | Self::RunOrphan(_)
            | Self::DropOrphan(_)
            | Self::Resume(_) => false,
        }
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Prompt => "",
            Self::Slow => " (the call is slow)",
            Self::Lost => " (the call is given up)",
        })
    }
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dispatcher => f.write_str("claim"),
            Self::Keeper => f.write_str("extension"),
            Self::Rescuer => f.write_str("rescue"),
            Self::Task(index) => write!(f, "settlement of task {index}"),
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tick => f.write_str("time passes"),
            Self::Claim(node, way) => write!(f, "node {node} claims{way}"),
            Self::Extend(node, way) => write!(f, "node {node} extends its leases{way}"),
            Self::FindExpired(node) => write!(f, "node {node} finds expired leases"),
            Self::Sort(node, way) => {
                write!(f, "node {node} sorts the expired leases, and extends its own or takes back{way}")
            }
            Self::TakeBack(node, way) => write!(f, "node {node} takes back expired leases{way}"),
            Self::Prepare(node, task) => write!(f, "node {node} prepares the request of task {task}"),
            Self::Send(node, task) => write!(f, "node {node} sends the request of task {task}, or releases the job"),
            Self::Respond(node, task, Outcome::Success) => {
                write!(f, "node {node}: the receiver does the work of task {task}")
            }
            Self::Respond(node, task, Outcome::Failure) => write!(f, "node {node}: the receiver fails task {task}"),
            Self::Settle(node, task, way) => write!(f, "node {node} settles task {task}{way}"),
            Self::Arrive(node, caller) => write!(f, "the store runs node {node}'s {caller}"),
            Self::Receive(node, caller) => write!(f, "node {node} gets the response to its {caller}"),
            Self::Delay(node, caller) => write!(f, "the response to node {node}'s {caller} is slow"),
            Self::RunOrphan(index) => write!(f, "the store runs given-up call {index}"),
            Self::DropOrphan(index) => write!(f, "given-up call {index} is never run"),
            Self::Crash(node) => write!(f, "node {node} crashes and starts again"),
            Self::Stall(node) => write!(f, "node {node} stands still"),
            Self::Resume(node) => write!(f, "node {node} goes on"),
            Self::Cancel(job) => write!(f, "a client cancels job {job}"),
            Self::Purge(job) => write!(f, "a client removes job {job}"),
        }
    }
}
