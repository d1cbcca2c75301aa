//! Carillon makes HTTP callbacks on time and lets WebAssembly components decide how each is encoded, signed, judged and retried.

pub mod cli;
pub mod clock;
pub mod config;
pub mod job;
pub mod policy;
