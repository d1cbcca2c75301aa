//! What both databases keep in the same form: documents as JSON, durations as milliseconds, and what is remembered of producers.

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{IdempotentRequest, InsertOutcome, StoreError};
use carillon_core::clock::UnixMs;
use carillon_core::job::{Admission, GroupId, JobId, NewJob, Priority, Spec, TenantId};

/// The kinds of things that are remembered of producers.
pub const IDEMPOTENCY: &str = "idempotency";
/// See [`IDEMPOTENCY`].
pub const DEDUPE: &str = "dedupe";
/// See [`IDEMPOTENCY`].
pub const DEBOUNCE: &str = "debounce";

/// The kind and the key of what a probe writes, for a moment.
pub const PROBE: &str = "probe";

/// How much that is, in bytes.
pub const PROBE_BYTES: usize = 64 << 10;

/// A job that a probe stores and takes back in the same transaction.
pub fn probe_job(id: JobId, tenant: TenantId, group: GroupId, now: UnixMs) -> NewJob {
    NewJob {
        id,
        tenant,
        group,
        name: None,
        run_at: now,
        created_at: now,
        deadline: None,
        max_delay: None,
        priority: Priority::default(),
        order_key: None,
        admission: Admission::Always,
        seed: 0,
        spec: Spec::default(),
        body: Bytes::new(),
    }
}

/// What is kept of a request that was carried out.
#[derive(Serialize, Deserialize)]
pub struct Answered {
    fingerprint: String,
    answer: String,
}

impl Answered {
    /// What is kept when the request has been carried out.
    pub fn to(once: &IdempotentRequest, placed: &[InsertOutcome]) -> Self {
        Self { fingerprint: once.fingerprint.clone(), answer: (once.answer)(placed) }
    }

    /// The answer to the request that comes again, from what was kept.
    pub fn replay(doc: &str, once: &IdempotentRequest) -> Result<String, StoreError> {
        let answered: Self = serde_json::from_str(doc)
            .map_err(|error| StoreError::Corrupt(format!("an answer that was kept cannot be read: {error}")))?;
        if answered.fingerprint == once.fingerprint { Ok(answered.answer) } else { Err(StoreError::KeyReused) }
    }
}

/// The digest that a plugin's document names, and how that stands in it. None if the document cannot be read.
pub fn digest_of(doc: &str) -> Option<(String, String)> {
    let doc: serde_json::Value = serde_json::from_str(doc).ok()?;
    let digest = doc.get("digest")?.as_str()?.to_owned();
    let member = format!("\"digest\":{}", serde_json::Value::from(digest.as_str()));
    Some((digest, member))
}

/// A document as it is stored.
pub fn to_json(value: &impl Serialize) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|error| StoreError::Corrupt(format!("a document cannot be written: {error}")))
}

/// A duration as it is stored.
pub fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
