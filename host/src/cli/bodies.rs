//! What the API takes and answers, as far as the command line and the benchmarks look into it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// One page of a list.
#[derive(Clone, Debug, Deserialize)]
pub struct Page {
    /// The items.
    pub items: Vec<Value>,
    /// Where the next page begins, if there is one.
    #[serde(default)]
    pub next_cursor: Option<String>,
}

/// A job that is to be created.
#[derive(Clone, Debug, Default, Serialize)]
pub struct JobInput {
    /// Where to; nowhere if it is to be pulled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// `POST` if it is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// By name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// The body.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub payload: Option<Payload>,
    /// RFC 3339, `+90s`, or seconds since 1970 as a number; at once if it is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run_at: Option<Value>,
    /// The client's own name for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The client's own labels.
    #[serde(skip_serializing_if = "serde_json::Map::is_empty")]
    pub metadata: serde_json::Map<String, Value>,
    /// Whether they go out as headers.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub metadata_headers: bool,
    /// Overrides of the group's policy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<Value>,
    /// Everything else that the API knows of a job.
    #[serde(flatten)]
    pub more: serde_json::Map<String, Value>,
}

/// A job's body.
#[derive(Clone, Debug, Serialize)]
pub enum Payload {
    /// Sent as JSON.
    #[serde(rename = "payload")]
    Json(Value),
    /// Sent as it is.
    #[serde(rename = "payload_text")]
    Text(String),
    /// Decoded, then sent.
    #[serde(rename = "payload_base64")]
    Base64(String),
}

/// A job that was just created.
#[derive(Clone, Debug, Deserialize)]
pub struct CreatedJob {
    /// Its id.
    pub id: String,
    /// Its state.
    pub state: String,
    /// When it is due, in RFC 3339.
    pub run_at: String,
}

/// The jobs of a batch.
#[derive(Debug, Deserialize)]
pub struct CreatedJobs {
    /// Their ids, in the same order.
    pub ids: Vec<String>,
}

/// How many jobs of a group are in which state.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Stats {
    /// Waiting for their `run_at` or their next attempt.
    pub scheduled: u64,
    /// Being attempted.
    pub running: u64,
    /// Done.
    pub succeeded: u64,
    /// Given up.
    pub dead: u64,
    /// Out of time.
    pub expired: u64,
    /// Cancelled.
    pub cancelled: u64,
    /// Due and not running.
    pub available: u64,
    /// Leased.
    pub in_flight: u64,
    /// Not due yet.
    pub delayed: u64,
}
