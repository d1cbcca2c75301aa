//! What both databases keep in the same form: documents as JSON, durations as milliseconds, and what is remembered of producers.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Once, Placed, StoreError};

/// The kinds of things that are remembered of producers.
pub(super) const IDEMPOTENCY: &str = "idempotency";
/// See [`IDEMPOTENCY`].
pub(super) const DEDUPE: &str = "dedupe";
/// See [`IDEMPOTENCY`].
pub(super) const DEBOUNCE: &str = "debounce";

/// What is kept of a request that was carried out.
#[derive(Serialize, Deserialize)]
pub(super) struct Answered {
    fingerprint: String,
    answer: String,
}

impl Answered {
    /// What is kept when the request has been carried out.
    pub(super) fn to(once: &Once, placed: &[Placed]) -> Self {
        Self { fingerprint: once.fingerprint.clone(), answer: (once.answer)(placed) }
    }

    /// The answer to the request that comes again, from what was kept.
    pub(super) fn replay(doc: &str, once: &Once) -> Result<String, StoreError> {
        let answered: Self = serde_json::from_str(doc)
            .map_err(|error| StoreError::Corrupt(format!("an answer that was kept cannot be read: {error}")))?;
        if answered.fingerprint == once.fingerprint { Ok(answered.answer) } else { Err(StoreError::KeyReused) }
    }
}

/// A document as it is stored.
pub(super) fn to_json(value: &impl Serialize) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|error| StoreError::Corrupt(format!("a document cannot be written: {error}")))
}

/// A duration as it is stored.
pub(super) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
