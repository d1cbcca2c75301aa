//! Types and pure functions that all crates share: the model of a job, the clock, timetables, and values that people write.
//!
//! Role: definitions that every other crate uses.
//!
//! Not: SQL, HTTP, WebAssembly, or any loop.
//!
//! Invariants: time and randomness enter the program here only; all but [`clock::SystemClock`] is pure.
//!
//! May import: none of our crates.

pub mod audit;
pub mod clock;
// The same file as in the plugin SDK, so that both read durations by the same rule.
#[path = "../../../plugins/sdk/src/duration_text.rs"]
pub mod duration;
pub mod error_code;
pub mod event_kind;
pub mod exhaustion;
pub mod job;
pub mod json;
pub mod limits;
pub mod shares;
pub mod shutdown;
pub mod stable_hash;
pub mod stats;
#[cfg(any(test, feature = "test-util"))]
pub mod test_util;
pub mod text;
pub mod timetable;
