//! Encodings that both databases share: documents as JSON, durations as milliseconds, and records of producers' keys.
//!
//! The two databases differ in their statements only; a value has the same form in both.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{IdempotentRequest, InsertOutcome, StoreError};
use carillon_core::job::{GroupId, LastAccepted, Settlement};

/// Kind of the records of idempotency keys.
pub const IDEMPOTENCY: &str = "idempotency";
/// Kind of the records of dedupe keys.
pub const DEDUPE: &str = "dedupe";
/// Kind of the records of debounce keys.
pub const DEBOUNCE: &str = "debounce";

/// Kind and key of the record that a probe writes and removes.
pub const PROBE: &str = "probe";

/// Size of a probe's record in bytes.
pub const PROBE_BYTES: usize = 64 << 10;

/// Record of a request that was carried out.
#[derive(Serialize, Deserialize)]
pub struct Answered {
    fingerprint: String,
    answer: String,
}

impl Answered {
    /// Returns the record of a request that has been carried out; None if nothing was done for any of its jobs.
    pub fn record(once: &IdempotentRequest, placed: &[InsertOutcome]) -> Result<Option<String>, StoreError> {
        if placed.iter().all(InsertOutcome::is_skipped) {
            return Ok(None);
        }
        to_json(&Self { fingerprint: once.fingerprint.clone(), answer: (once.answer)(placed) }).map(Some)
    }

    /// Returns the recorded response to a repeated request.
    pub fn replay(doc: &str, once: &IdempotentRequest) -> Result<String, StoreError> {
        let answered: Self = serde_json::from_str(doc)
            .map_err(|error| StoreError::Corrupt(format!("an answer that was kept cannot be read: {error}")))?;
        if answered.fingerprint == once.fingerprint { Ok(answered.answer) } else { Err(StoreError::KeyReused) }
    }
}

/// Returns the key of the record of a job's dedupe key, which holds within the job's group.
pub fn dedupe_key(group: GroupId, key: &str) -> String {
    format!("{}/{key}", group.0)
}

/// Reads the record of a debounce key, if there is one; returns also whether it cannot be read, and is treated as absent.
pub fn last_accepted(doc: Option<&str>) -> (Option<LastAccepted>, bool) {
    let last = doc.map(serde_json::from_str).transpose();
    let forgotten = last.is_err();
    (last.unwrap_or_default(), forgotten)
}

/// Encodes the details of a settlement's attempt for the database.
pub fn attempt_detail(settlement: &Settlement) -> Result<Option<String>, StoreError> {
    settlement.attempt.as_ref().map(|attempt| to_json(&attempt.detail)).transpose()
}

/// Returns the digest that a plugin's document names, and its text in the document.
///
/// None if the document cannot be read.
pub fn digest_of(doc: &str) -> Option<(String, String)> {
    let doc: serde_json::Value = serde_json::from_str(doc).ok()?;
    let digest = doc.get("digest")?.as_str()?.to_owned();
    let member = format!("\"digest\":{}", serde_json::Value::from(digest.as_str()));
    Some((digest, member))
}

/// Encodes a document for the database.
pub fn to_json(value: &impl Serialize) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|error| StoreError::Corrupt(format!("a document cannot be written: {error}")))
}

/// Encodes a duration for the database.
pub fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::NodeRecord;
    use carillon_core::test_util::assert_stored_form;

    #[test]
    fn stored_documents_of_requests_and_nodes_keep_their_form() {
        assert_stored_form::<Answered>(include_str!("stored_documents/answered.json"));
        assert_stored_form::<NodeRecord>(include_str!("stored_documents/node.json"));
    }
}
