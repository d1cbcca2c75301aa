//! Requests and responses of the API, as far as the command line and the benchmarks read them.

use serde::ser::SerializeMap as _;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::Value;
use serde_json::value::RawValue;

use super::answer::{Answer, Members};

/// Page of a list.
#[derive(Clone, Debug, Deserialize)]
pub struct Page {
    /// Items of the page.
    pub items: Vec<Answer>,
    /// Cursor of the next page, if there is one.
    #[serde(default)]
    pub next_cursor: Option<String>,
}

/// Job to be created.
#[derive(Clone, Debug, Default, Serialize)]
pub struct JobInput {
    /// URL of the receiver; absent for a job that consumers lease.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Method; the default is `POST`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// Headers in their order.
    #[serde(skip_serializing_if = "Headers::is_empty")]
    pub headers: Headers,
    /// Body of the request.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub payload: Option<Payload>,
    /// Due time: RFC 3339, `+90s`, or seconds since 1970 as a number; the default is now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run_at: Option<Value>,
    /// Name that the client gives the job.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Labels that the client gives the job.
    #[serde(skip_serializing_if = "Members::is_empty")]
    pub metadata: Members,
    /// Whether the labels are sent as headers.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub metadata_headers: bool,
    /// Overrides of the group's policy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<Members>,
    /// All other members that the API defines for a job.
    #[serde(flatten)]
    pub more: Members,
}

/// Names and values of headers; a name may occur more than once.
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

/// Serializes as an object, or as a list of pairs if a name occurs more than once.
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

/// Body of a job.
#[derive(Clone, Debug, Serialize)]
pub enum Payload {
    /// JSON, sent as it is written.
    #[serde(rename = "payload")]
    Json(Box<RawValue>),
    /// Text, sent as it is.
    #[serde(rename = "payload_text")]
    Text(String),
    /// Base64, sent decoded.
    #[serde(rename = "payload_base64")]
    Base64(String),
}

/// Job that was just created.
#[derive(Clone, Debug, Deserialize)]
pub struct CreatedJob {
    /// Id of the job.
    pub id: String,
    /// State of the job.
    pub state: String,
    /// Due time, in RFC 3339.
    pub run_at: String,
}

/// Jobs of a batch.
#[derive(Debug, Deserialize)]
pub struct CreatedJobs {
    /// Ids of the jobs, in the same order.
    pub ids: Vec<String>,
}

/// Number of a group's jobs in each state.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Stats {
    /// Jobs that wait for their `run_at` or their next attempt.
    pub scheduled: u64,
    /// Jobs with a running attempt.
    pub running: u64,
    /// Jobs that succeeded.
    pub succeeded: u64,
    /// Jobs that failed for good.
    pub dead: u64,
    /// Jobs whose time to live ended.
    pub expired: u64,
    /// Jobs that were cancelled.
    pub cancelled: u64,
    /// Jobs that are due and not running.
    pub available: u64,
    /// Jobs that are leased.
    pub in_flight: u64,
    /// Jobs that are not due yet.
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
