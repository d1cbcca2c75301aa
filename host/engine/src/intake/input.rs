//! Input document of a job, as a client posts it.

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::error::IntakeError;
use super::headers::{HeadersInput, headers_schema};
use super::target_url::UrlSchemes;
use super::time::TimeInput;
use carillon_core::job::{Metadata, Priority};
use carillon_core::json::unique;

/// Longest name or key, in bytes.
const NAME_LEN: usize = 255;

/// A job as a client posts it.
#[derive(Debug, Default, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct JobDoc {
    /// Where to deliver: an absolute `http` or `https` URL. A job without one waits for a consumer to pull it.
    #[serde(default)]
    pub url: Option<String>,
    /// The method; `POST` by default.
    #[serde(default)]
    pub method: Option<String>,
    /// Headers to send: values by name, or a list of objects with `name` and `value`, in which a name may be repeated. `Content-Type` is `application/json` by default where `payload` is given.
    #[serde(default)]
    #[schema(schema_with = headers_schema)]
    pub headers: HeadersInput,
    /// The body as JSON, sent byte for byte as it is written here. At most one of the three payloads.
    #[serde(default)]
    #[schema(value_type = Option<Value>)]
    pub payload: Option<Box<RawValue>>,
    /// The body as text.
    #[serde(default)]
    pub payload_text: Option<String>,
    /// The body as base64 (standard alphabet, padded), for any bytes.
    #[serde(default)]
    pub payload_base64: Option<String>,
    /// When: RFC 3339, Unix seconds, or `+90s`; now by default, and now if it is past.
    #[serde(default)]
    #[schema(value_type = Option<TimeInput>)]
    pub run_at: Option<Value>,
    /// A name of the client's own choosing.
    #[serde(default)]
    pub name: Option<String>,
    /// Labels, texts or one level of namespace: `{"k": "v", "billing": {"invoice": "17"}}`. Policies see them as attributes
    /// `metadata.k` and `metadata.billing.invoice`.
    #[serde(default)]
    pub metadata: Metadata,
    /// Whether each of them goes out as a header: `Carillon-Metadata-k`, `Carillon-Metadata-billing-invoice`.
    #[serde(default)]
    pub metadata_headers: bool,
    /// Overrides of the group's policy configs, by role: `{"retry": {"max_attempts": 3}}`.
    #[serde(default, deserialize_with = "unique::optional")]
    #[schema(value_type = Option<Object>)]
    pub policy: Option<Value>,
    /// Overrides of the group's limits.
    #[serde(default)]
    pub limits: JobLimits,
    /// Which of the group's due jobs go first: 0 to 9, the most urgent; 4 by default.
    #[serde(default)]
    pub priority: Option<Priority>,
    /// The group's jobs of one key are tried one at a time, in the order in which they were accepted.
    #[serde(default)]
    pub order_key: Option<String>,
    /// If the group has accepted a job with this key within `dedupe_window`, that one is answered instead (200).
    #[serde(default)]
    pub dedupe_key: Option<String>,
    /// How long `dedupe_key` is remembered; `5m` by default, at most `30d`.
    #[serde(default)]
    pub dedupe_window: Option<String>,
    /// At most one job of a key runs in so many seconds: the first now, the next when they are over, and those between are skipped
    /// (200), because that one does their work.
    #[serde(default)]
    pub debounce_seconds: Option<f64>,
    /// With `debounce_seconds`: the first waits, too.
    #[serde(default)]
    pub debounce_always_delay: bool,
    /// With `debounce_seconds`: which jobs count as one, whatever their group. By default those with the same method, URL and payload.
    #[serde(default)]
    pub debounce_key: Option<String>,
    /// This job takes the place of the group's unfinished jobs of the same `name`: those that wait are cancelled, and one that runs is
    /// when its attempt is over.
    #[serde(default)]
    pub replace: bool,
    /// A job that is made when this one succeeds.
    #[serde(default)]
    #[schema(value_type = Option<JobDoc>, no_recursion)]
    pub on_success: Option<Box<RawValue>>,
    /// A job that is made when this one ends as a dead letter or expires.
    #[serde(default)]
    #[schema(value_type = Option<JobDoc>, no_recursion)]
    pub on_failure: Option<Box<RawValue>>,
    /// Schemes that its URL may have; not a client's to say.
    #[serde(skip)]
    pub schemes: UrlSchemes,
    /// In `on_success` and `on_failure`: the group of the job that is made, if it is another one.
    #[serde(default)]
    pub group: Option<String>,
}

/// A job's own limits.
#[derive(Debug, Default, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct JobLimits {
    /// For one request, such as `5s`.
    #[serde(default)]
    pub timeout: Option<String>,
    /// From now until the job is given up, such as `1h`. Retries do not restart it.
    #[serde(default)]
    pub ttl: Option<String>,
    /// How long after it was due an attempt may still start, such as `10m`.
    #[serde(default)]
    pub max_delay: Option<String>,
}

/// Checks that a name or key is a short text.
pub(super) fn check_key(pointer: &str, key: Option<&str>) -> Result<(), IntakeError> {
    if key.is_some_and(|key| key.is_empty() || key.len() > NAME_LEN || key.contains('\0')) {
        return Err(IntakeError::invalid(pointer, format!("1 to {NAME_LEN} bytes are needed, none of them zero")));
    }
    Ok(())
}
