//! What the API takes and answers, as far as the command line and the benchmarks look into it.

use serde::ser::SerializeMap as _;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::Value;
use serde_json::value::RawValue;

use super::answer::{Answer, Members};

/// One page of a list.
#[derive(Clone, Debug, Deserialize)]
pub struct Page {
    /// The items.
    pub items: Vec<Answer>,
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
    /// In their order.
    #[serde(skip_serializing_if = "Headers::is_empty")]
    pub headers: Headers,
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
    #[serde(skip_serializing_if = "Members::is_empty")]
    pub metadata: Members,
    /// Whether they go out as headers.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub metadata_headers: bool,
    /// Overrides of the group's policy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<Members>,
    /// Everything else that the API knows of a job.
    #[serde(flatten)]
    pub more: Members,
}

/// Names and values, of which a name may come more than once.
#[derive(Clone, Debug, Default)]
pub struct Headers(pub Vec<(String, String)>);

impl Headers {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn repeats_a_name(&self) -> bool {
        let names = self.0.iter().map(|(name, _)| name);
        names.enumerate().any(|(at, name)| self.0[..at].iter().any(|(known, _)| known.eq_ignore_ascii_case(name)))
    }
}

/// An object; a list of pairs where a name comes more than once.
impl Serialize for Headers {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.repeats_a_name() {
            return self.0.serialize(serializer);
        }
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in &self.0 {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

/// A job's body.
#[derive(Clone, Debug, Serialize)]
pub enum Payload {
    /// Sent as it is written.
    #[serde(rename = "payload")]
    Json(Box<RawValue>),
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn headers_are_an_object_unless_a_name_is_repeated() {
        let written = |headers: &[(&str, &str)]| {
            let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
            serde_json::to_value(Headers(headers.collect())).unwrap()
        };
        assert_eq!(written(&[("X-A", "1"), ("X-B", "2")]), json!({"X-A": "1", "X-B": "2"}));
        assert_eq!(written(&[("X-A", "1"), ("x-a", "2")]), json!([["X-A", "1"], ["x-a", "2"]]));
    }
}
