//! The traits that a plugin implements: [`Plugin`] always, and one more for each role it plays.
//!
//! All of them are pure functions of their arguments, as the interface demands. None gets a `self`: there is no state between
//! calls, each runs in a fresh instance.

use serde::de::DeserializeOwned;

use crate::{Attempt, Decision, Event, Exchange, Failure, Key, Past, Request, Signed, Verdict};

/// What a plugin says of itself.
pub trait Plugin {
    /// The plugin's settings. Reject unknown fields (`#[serde(deny_unknown_fields)]`), so that a misspelt one is noticed.
    type Config: DeserializeOwned;

    /// 1 to 64 of `a-z`, `0-9` and `-`.
    const NAME: &'static str;

    /// A semantic version; `env!("CARGO_PKG_VERSION")` is usual.
    const VERSION: &'static str;

    /// One sentence that tells a tenant what the plugin is for.
    const SUMMARY: &'static str;

    /// A JSON Schema (draft 2020-12) for [`Plugin::Config`]. The host checks every config against it before the plugin sees it.
    const CONFIG_SCHEMA: &'static str;

    /// Rejects a config that parses but makes no sense, with one sentence for the person who wrote it.
    fn check(_config: &Self::Config) -> Result<(), String> {
        Ok(())
    }
}

/// Turns a job's request into the one that the receiver expects.
pub trait Encode: Plugin {
    /// Called once an attempt, before `sign`. The URL's origin may not change.
    fn encode(attempt: &Attempt, config: &Self::Config, request: Request) -> Result<Request, Failure>;
}

/// Proves to the receiver that a request comes from the tenant.
pub trait Sign: Plugin {
    /// Called once an attempt, after the last encoder. `keys` are the binding's, each with its live versions newest first.
    fn sign(attempt: &Attempt, config: &Self::Config, request: Request, keys: &[&dyn Key]) -> Result<Signed, Failure>;
}

/// Decides what an answer means.
pub trait Judge: Plugin {
    /// Called once an attempt, when the exchange is over.
    fn judge(attempt: &Attempt, config: &Self::Config, exchange: Exchange) -> Result<Verdict, Failure>;
}

/// Decides whether and when to try again.
pub trait Retry: Plugin {
    /// Called after each attempt whose verdict was `retryable`. `history` holds the earlier attempts, oldest first, at most 100.
    fn next(attempt: &Attempt, config: &Self::Config, verdict: &Verdict, history: &[Past])
    -> Result<Decision, Failure>;
}

/// Watches what happens to a group's jobs.
pub trait Observe: Plugin {
    /// Called with batches of events. Nothing waits for it.
    fn observe(config: &Self::Config, events: &[Event]);
}
