//! Carillon makes HTTP callbacks on time and lets WebAssembly components decide how each is encoded, signed, judged and retried.
//!
//! The modules stand in the order of a job's way. Each imports only those below it; `tests/tidy.rs` sees to that.

// Who starts the program, and with which settings.
pub mod command;

// Measures.
pub mod bench;

// Commands that talk to a server.
pub mod cli;

// The API, for Rust programs.
pub mod client;

// Puts the parts together and takes them apart.
pub mod app;

// Everything from one database into another.
pub mod migrate;

// The way in: the API.
pub mod accept;

// What posts jobs by the clock.
pub mod cron;

// Requests become jobs.
pub mod intake;

// A job's way, foretold.
pub mod simulate;

// Changes of many jobs.
pub mod bulk;

// Jobs of nodes that died, and jobs that were kept long enough.
pub mod sweep;

// What a newer run takes the place of.
pub mod aborts;

// The tenants' code that watches.
pub mod observers;

// Which jobs start now.
pub mod due;

// Jobs that consumers fetch.
pub mod pull;

// What becomes of leased jobs, written.
pub mod settler;

// The leases that this node holds.
pub mod leases;

// Which of its priorities are owed a start.
pub mod priorities;

// How many of a group may.
pub mod gate;

// How new versions of policies do.
pub mod rollout;

// One attempt: encode, sign, send, judge, retry, settle.
pub mod attempt;

// Whether its receiver takes it now.
pub mod receiver;

// The way out.
pub mod send;

// What becomes of the job.
pub mod settle;

// What follows from its end.
pub mod flow;

// The other nodes, and this one's part of what all may do.
pub mod cluster;

// What is configured: tenants, groups, keys, plugins.
pub mod catalog;

// Where the tenants' code decides.
pub mod policy;

// Where requests may go.
pub mod egress;

// What happened, in numbers.
pub mod observe;

// Whether all of it works, for load balancers.
pub mod health;

// What is durable.
pub mod store;

// What runs in the background.
pub mod loops;

// What the process has of files, and what it has run out of.
pub mod files;

pub mod exhaustion;

// What everything above is given, and what it speaks of.
pub mod config;

// When a schedule ticks.
pub mod timetable;

pub mod job;

pub mod event_kind;

pub mod shutdown;

pub mod stats;

// Who is woken for jobs.
pub mod wake;

// JSON that people write.
pub mod json;

// The same file as in the SDK of plugins: durations are read by one rule.
#[path = "../../plugins/sdk/src/duration_text.rs"]
pub mod duration;

// What all nodes and versions hash alike.
pub mod fnv;

pub mod clock;
