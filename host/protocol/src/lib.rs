//! The protocol of leases, fencing tokens, claims ahead of time and settlements, as a model that tests explore completely.
//!
//! The model is not a part of the server, and shares no code with it. It says in a few hundred lines what the loops of a node and the verbs of
//! the store do together, and `tests/exhaustive.rs` has [`stateright`] visit every state that they can get into within the bounds of a
//! [`Setting`](setting::Setting): each order of steps, each place where a node may crash or stand still, each call that is slow or lost.
//!
//! # The protocol
//!
//! A job is a row in the store ([`store::Row`]) with a state, the time when it is due, and a token that counts its leases. Nodes never talk to
//! each other: all that they agree on is in that row, and each verb of the store is one transaction.
//!
//! | step | here | in the server |
//! | --- | --- | --- |
//! | **Claim.** Jobs that are due within the look-ahead become `running`, under a new token, until a time that counts from before the claim. | [`store::Verb::ClaimDue`] | `Dispatcher::claim` |
//! | **Hold.** The node holds each lease, by job *and* token, until its settlement is written. | [`node::Node::held`] | `Leases::keep` |
//! | **Wait.** A job that was claimed ahead of its time waits in memory until the node's clock says that it is due. That clock is never ahead of the store's. | [`node::Phase::Waiting`] | `AttemptExecutor::execute`, `DatabaseClock` |
//! | **Check and send.** The request is sent if the lease is not over, as far as the node knows. Else the job is released, and no attempt is spent. | [`action::Action::Send`] | `AttemptExecutor::ready` |
//! | **Extend.** A node extends the leases that it holds in each third of their duration, counted from when the last extension was asked for. An extension never moves the end of a lease back. | [`store::Verb::Extend`] | `LeaseKeeper` |
//! | **Settle.** The attempt and the job's next state are written if the token is still the newest and the job is `running`. The node repeats the call until the store responds. | [`store::Verb::Settle`] | `Settler` |
//! | **Rescue.** A node reads the leases that have expired, waits for its own claims under way, and leaves out what it holds: it extends that. It takes the others back under new tokens if they are still expired, and settles them as interrupted: the attempt is spent, and the job is tried again at once. | [`node::Rescuer`] | `Rescuer` |
//! | **Cancel.** A waiting job ends; of a running one it is noted, and it ends with its attempt. | [`action::Action::Cancel`] | `JobChange::Cancel` |
//!
//! # What may go wrong
//!
//! Nodes crash and start again without their memory. They stand still while time passes, for longer than their leases last. Calls are slow on
//! the way to the store or back. Callers give calls up that take effect all the same: at once, or after later calls, or never. Receivers fail.
//! Clocks of nodes are behind the store's. [`setting::Faults`] has the numbers.
//!
//! Time passes only when nothing is left to do at once, so a node is late only by such a fault. That makes the last rule possible,
//! which counts requests.
//!
//! There is one condition on durations: what a slow call takes to the store, and what a node's clock is behind, are together less than two
//! thirds of a lease, which remain when an extension is due. A test shows that it is needed. The server's clocks are behind by milliseconds.
//!
//! # What holds
//!
//! The rules are in [`rules::Rule`]. They are checked in every state:
//!
//! - a job has one live lease at most, and is never sent before it is due;
//! - nothing is sent under a lease that the node knows is over, nor after the job was leased anew or has ended. Where the node's clock is behind,
//!   that holds but for the distance of the clocks: a node cannot know better;
//! - a settlement under an old token changes nothing, and a job ends once;
//! - attempts are recorded as 1, 2, 3, … without a gap, and no two requests have the same number;
//! - a node takes back nothing that it works on;
//! - a job is sent once, and once more for each crash, stall and failed attempt. Slow and lost calls cost no request.
//!
//! And [`progress`], in the settings of up to 140,000 states: from each of them, whatever the order of steps, all jobs end when no more faults
//! happen.
//!
//! # What it does not show
//!
//! The bounds are small: one or two jobs, one to three nodes, at most three faults. A lease lasts three ticks and its extension is due each tick,
//! as in the server. It leaves out limits and permits, order keys, expiry, redrives, the count of lost leases, consumers that pull, and an
//! orderly stop. That the server does what the model does is for its own tests to show: this page says where to look.

pub mod action;
pub mod model;
pub mod node;
pub mod progress;
pub mod rules;
pub mod setting;
pub mod store;
pub mod trace;
