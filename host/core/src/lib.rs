//! The vocabulary that all crates share: the model of a job, the clock, timetables, and values that people write.
//!
//! Role: types and pure functions that every other crate speaks of.
//!
//! Not: SQL, HTTP, WebAssembly, or any loop.
//!
//! Invariants: time and randomness enter the program here only; all but [`clock::SystemClock`] is pure.
//!
//! May import: none of our crates.

pub mod clock;
// The same file as in the SDK of plugins: durations are read by one rule.
#[path = "../../../plugins/sdk/src/duration_text.rs"]
pub mod duration;
pub mod event_kind;
pub mod exhaustion;
pub mod job;
pub mod json;
pub mod shutdown;
pub mod stable_hash;
pub mod stats;
pub mod timetable;
