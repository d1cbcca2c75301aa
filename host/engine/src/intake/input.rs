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
use carillon_core::limits::ByteLimit;

/// Job, as a client posts it.
#[derive(Debug, Default, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct JobInput {
    /// Absolute `http` or `https` URL to deliver to. A job without one waits for a consumer to pull it.
    #[serde(default)]
    pub url: Option<String>,
    /// HTTP method. Default: `POST`.
    #[serde(default)]
    pub method: Option<String>,
    /// Headers to send: an object of values by name, or a list of objects with `name` and `value`, in which a name may be repeated.
    /// `Content-Type` is `application/json` by default if `payload` is given.
    #[serde(default)]
    #[schema(schema_with = headers_schema)]
    pub headers: HeadersInput,
    /// Body as JSON, sent byte for byte as it is written here. At most one of `payload`, `payload_text` and `payload_base64` may be given.
    #[serde(default)]
    #[schema(value_type = Option<Value>)]
    pub payload: Option<Box<RawValue>>,
    /// Body as text.
    #[serde(default)]
    pub payload_text: Option<String>,
    /// Body in base64 (standard alphabet, padded), for any bytes.
    #[serde(default)]
    pub payload_base64: Option<String>,
    /// Time when the job is due: RFC 3339, Unix seconds, or `+90s`. Default: now. A time in the past means now.
    #[serde(default)]
    #[schema(value_type = Option<TimeInput>)]
    pub run_at: Option<Value>,
    /// Name of the client's choice: 1 to 255 bytes. It need not be unique.
    #[serde(default)]
    pub name: Option<String>,
    /// Labels: texts, or one level of namespaces of texts, as in `{"k": "v", "billing": {"invoice": "17"}}`. Policies see them as the
    /// attributes `metadata.k` and `metadata.billing.invoice`.
    #[serde(default)]
    pub metadata: Metadata,
    /// Whether each label is sent as a header: `Carillon-Metadata-k`, `Carillon-Metadata-billing-invoice`. Default: false.
    #[serde(default)]
    pub metadata_headers: bool,
    /// Overrides of the group's policy configs, by role: `{"retry": {"max_attempts": 3}}`.
    #[serde(default, deserialize_with = "unique::optional")]
    #[schema(value_type = Option<Object>)]
    pub policy: Option<Value>,
    /// Overrides of the group's limits.
    #[serde(default)]
    pub limits: JobLimits,
    /// Priority, 0 to 9: due jobs of the group with priority 9 start first. Default: 4.
    #[serde(default)]
    pub priority: Option<Priority>,
    /// Order key: jobs of the group with the same key are tried one at a time, in the order of their acceptance.
    #[serde(default)]
    pub order_key: Option<String>,
    /// Dedupe key: if the group has accepted a job with this key within `dedupe_window`, the response is that job (200), and no job is made.
    #[serde(default)]
    pub dedupe_key: Option<String>,
    /// How long `dedupe_key` is remembered, at most `30d`. Default: `5m`.
    #[serde(default)]
    pub dedupe_window: Option<String>,
    /// Debounce window in seconds: at most one job of a `debounce_key` runs in it. The first job runs now, and the next one when the window
    /// ends. Jobs in between are skipped: the response is the waiting job (200), which does their work.
    #[serde(default)]
    pub debounce_seconds: Option<f64>,
    /// Whether the first job also waits until the debounce window ends. Default: false.
    #[serde(default)]
    pub debounce_always_delay: bool,
    /// Debounce key: jobs with the same key count as one, whatever their group. Default: jobs of the same method, URL and payload do.
    #[serde(default)]
    pub debounce_key: Option<String>,
    /// Whether this job replaces the unfinished jobs of the group with the same `name`: waiting jobs are cancelled at once, and running ones
    /// when their attempt ends. Default: false.
    #[serde(default)]
    pub replace: bool,
    /// Document of a job that is made when this one succeeds.
    #[serde(default)]
    #[schema(value_type = Option<JobInput>, no_recursion)]
    pub on_success: Option<Box<RawValue>>,
    /// Document of a job that is made when this one ends as a dead letter or expires.
    #[serde(default)]
    #[schema(value_type = Option<JobInput>, no_recursion)]
    pub on_failure: Option<Box<RawValue>>,
    /// Schemes that the URL may have; clients cannot set it.
    #[serde(skip)]
    pub schemes: UrlSchemes,
    /// In `on_success` and `on_failure` only: name of the group of the follow-up job. Default: the group of this job.
    #[serde(default)]
    pub group: Option<String>,
}

/// Limits of a single job.
#[derive(Debug, Default, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct JobLimits {
    /// Time limit of one request, such as `5s`.
    #[serde(default)]
    pub timeout: Option<String>,
    /// Time from the acceptance of the job until it expires, such as `1h`. Retries do not restart it.
    #[serde(default)]
    pub ttl: Option<String>,
    /// Largest delay after its due time at which an attempt may still start, such as `10m`.
    #[serde(default)]
    pub max_delay: Option<String>,
}

/// Checks the length and the characters of a name or key.
pub(super) fn check_key(pointer: &str, key: Option<&str>, limit: ByteLimit) -> Result<(), IntakeError> {
    let Some(key) = key else { return Ok(()) };
    limit.check(pointer.trim_start_matches('/'), pointer, key.len())?;
    if key.is_empty() || key.contains('\0') {
        return Err(IntakeError::invalid(
            pointer,
            format!("the length must be 1 to {} bytes, none of them zero", limit.bytes),
        ));
    }
    Ok(())
}
