//! The engine: takes a job from intake to settlement.
//!
//! Role: accepts jobs ([`intake`], [`schedules`]), starts them when they are due ([`dispatch`]), delivers them and decides their new states
//! ([`delivery`]), rescues and removes jobs ([`maintenance`]). Nodes that share a database are a [`cluster`]; [`rollout`] compares versions of
//! policies. All of them share one set of [`services`].
//!
//! Not: an HTTP server, SQL, or types of WebAssembly other than those of `carillon-policy`.
//!
//! Invariants: nothing is sent before its time; a job ends exactly once; each attempt is decided once; no transaction is held across HTTP.
//!
//! May import: `carillon-core`, `-config`, `-store`, `-policy`, `-catalog`, `-telemetry`.

mod by_group;
pub mod cluster;
pub mod delivery;
pub mod dispatch;
pub mod files;
pub mod health;
pub mod intake;
pub mod loops;
pub mod maintenance;
pub mod notifier;
pub mod observers;
pub mod rollout;
pub mod schedules;
pub mod services;
pub mod stored_bytes;
