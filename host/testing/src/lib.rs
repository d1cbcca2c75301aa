//! Test support for several crates: a PostgreSQL server of a test's own, and WebAssembly guests made from a few lines of text.
//!
//! Role: real servers and guests for tests.
//!
//! Not: a dependency of anything but tests.
//!
//! Invariants: whatever a test starts ends when the value that represents it is dropped.
//!
//! May import: none of our crates.

#![expect(clippy::unwrap_used, reason = "a test fails where its tools do")]

pub mod guest;
pub mod postgres;
