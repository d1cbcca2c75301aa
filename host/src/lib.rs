//! Carillon makes HTTP callbacks on time and lets WebAssembly components decide how each is encoded, signed, judged and retried.

pub mod clock;
pub mod job;
pub mod policy;
