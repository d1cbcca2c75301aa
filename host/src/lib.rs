//! Carillon makes HTTP callbacks on time and lets WebAssembly components decide how each is encoded, signed, judged and retried.

pub mod accept;
pub mod app;
pub mod attempt;
pub mod catalog;
pub mod cli;
pub mod clock;
pub mod config;
pub mod due;
pub mod egress;
pub mod gate;
pub mod job;
pub mod observe;
pub mod policy;
pub mod send;
pub mod settle;
pub mod simulate;
pub mod store;
pub mod sweep;
