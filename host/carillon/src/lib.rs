//! Carillon is a job scheduler that delivers HTTP callbacks on time.
//!
//! Role: composes the server from its crates, starts and stops it, and reads the command line.
//!
//! Not: rules of what happens to a job; those are in `carillon-engine`.
//!
//! Invariants: everything is checked before a port opens; the first signal drains, the second interrupts.
//!
//! May import: every crate of the host. It is the only one that names a store backend.

pub mod app;
pub mod command;
pub mod migrate;
