//! What a Carillon policy plugin is written with.
//!
//! A plugin is a type that implements [`Plugin`] and one trait for each role it plays ([`Encode`], [`Sign`], [`Judge`],
//! [`Retry`], [`Observe`]), and is exported with [`export!`]. It is a pure function: time, randomness, settings and history are
//! arguments, and each call runs in a fresh instance.
//!
//! How it fails: a returned [`Failure`] says who must act; a panic is written to the log with its place (with the feature `panic-messages`)
//! and then traps, which the host treats as a fault of the plugin.

#[allow(missing_docs, unsafe_code, clippy::all, reason = "generated")]
#[doc(hidden)]
pub mod bindings;
#[cfg(any(test, all(target_arch = "wasm32", feature = "allocator")))]
mod bump;
mod duration;
pub mod duration_text;
mod glue;
pub mod jobs;
mod keys;
pub mod log;
mod mix;
mod role;
#[cfg(feature = "testing")]
pub mod testing;

pub use bindings::judge::{Exchange, Outcome, Response, TransportError, Verdict};
pub use bindings::observe::Event;
pub use bindings::retry::{Decision, Past};
pub use bindings::shared::jobs::{NewJob, Refusal as JobRefusal};
pub use bindings::shared::keys::{KeyError, Mac, Signature as SignatureAlgorithm};
pub use bindings::shared::types::{Attempt, Attribute, Blame, Failure, Header, Request};
pub use bindings::sign::Signed;
pub use duration::Millis;
pub use keys::Key;
pub use mix::mix64;
pub use role::{Encode, Judge, Observe, Plugin, Retry, Sign};

/// What [`export!`] expands to. Not for authors.
#[doc(hidden)]
pub mod __private {
    pub use crate::bindings;
    pub use crate::glue::{Exported, assert_role};
    pub use carillon_policy_sdk_pair::bindings as pair;
}

impl Failure {
    /// This job can never be handled: it becomes a dead letter. `code` is lower-case words joined by `-`.
    pub fn job(code: &str, message: impl Into<String>) -> Self {
        Self::new(Blame::Job, code, message)
    }

    /// The binding's config is wrong for this call: the job waits until somebody mends the config.
    pub fn config(code: &str, message: impl Into<String>) -> Self {
        Self::new(Blame::Config, code, message)
    }

    /// The plugin itself cannot go on: counted as its fault, the job waits.
    pub fn policy(code: &str, message: impl Into<String>) -> Self {
        Self::new(Blame::Policy, code, message)
    }

    fn new(blame: Blame, code: &str, message: impl Into<String>) -> Self {
        Self { blame, code: code.to_owned(), message: message.into() }
    }
}

impl Attempt {
    /// The value of an attribute, if the host set it.
    pub fn attribute(&self, key: &str) -> Option<&str> {
        self.attributes.iter().find(|attribute| attribute.key == key).map(|attribute| attribute.value.as_str())
    }
}

impl Verdict {
    /// The job is done.
    pub fn success(reason: impl Into<String>) -> Self {
        Self { outcome: Outcome::Success, reason: reason.into() }
    }

    /// Another try may help.
    pub fn retryable(reason: impl Into<String>) -> Self {
        Self { outcome: Outcome::Retryable, reason: reason.into() }
    }

    /// No further try can help.
    pub fn permanent(reason: impl Into<String>) -> Self {
        Self { outcome: Outcome::Permanent, reason: reason.into() }
    }
}

/// The examples of the README compile.
#[cfg(all(doctest, feature = "testing"))]
#[doc = include_str!("../README.md")]
struct Readme;
