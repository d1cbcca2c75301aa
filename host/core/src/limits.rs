//! Bounds of what one request carries, each with the name of its setting, and the error of a value that exceeds one.
//!
//! The defaults are in `config.default.toml`. Sizes are those of the canonical text: JSON without spaces.

use std::fmt;
use std::io;

use serde::Serialize;

/// Bound in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ByteLimit {
    /// Largest number of bytes.
    pub bytes: usize,
    /// Setting that holds it, such as `limits.job`.
    pub setting: &'static str,
}

impl ByteLimit {
    /// Checks a value of `len` bytes, the member `field` of the request at the JSON pointer `pointer`.
    ///
    /// # Errors
    /// Returns [`Exceeded`] if the value is larger.
    pub fn check(self, field: &str, pointer: impl Into<String>, len: usize) -> Result<(), Exceeded> {
        if len <= self.bytes {
            return Ok(());
        }
        Err(Exceeded { pointer: pointer.into(), field: field.to_owned(), bytes: len, limit: self })
    }
}

/// Error of a value that exceeds a bound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exceeded {
    /// JSON pointer (RFC 6901) to the value.
    pub pointer: String,
    /// Name of the value.
    pub field: String,
    /// Size of the value.
    pub bytes: usize,
    /// Bound of the value.
    pub limit: ByteLimit,
}

impl Exceeded {
    /// Returns the same error in a part of a larger document.
    #[must_use]
    pub fn within(self, prefix: &str) -> Self {
        Self { pointer: format!("{prefix}{}", self.pointer), ..self }
    }
}

impl fmt::Display for Exceeded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { field, bytes, limit, .. } = self;
        write!(f, "`{field}` is {bytes} bytes; the limit is {} (`{}`)", limit.bytes, limit.setting)
    }
}

impl std::error::Error for Exceeded {}

/// Bounds of the parts of a request.
#[derive(Clone, Copy, Debug)]
pub struct RequestLimits {
    /// A job without its payload and without the jobs that follow it.
    pub job: ByteLimit,
    /// Value of one header.
    pub header: ByteLimit,
    /// Names and values of all headers together.
    pub headers: ByteLimit,
    /// Overrides of a job, `policy`.
    pub overrides: ByteLimit,
    /// Document of a tenant, a group, a schedule, or a version of a policy; a filter; a list of signers or grants.
    pub document: ByteLimit,
    /// Name, key or title of the client's choice.
    pub name: ByteLimit,
    /// Reason or summary.
    pub note: ByteLimit,
    /// Value of one version of a key.
    pub secret: ByteLimit,
}

/// Default bounds of what a tenant keeps.
#[derive(Clone, Copy, Debug, Serialize, utoipa::ToSchema)]
pub struct TenantLimits {
    /// Unfinished jobs.
    pub jobs: u64,
    /// Schedules.
    pub schedules: u64,
    /// Groups.
    pub groups: u64,
    /// Keys.
    pub keys: u64,
    /// Tokens.
    pub tokens: u64,
    /// Versions of plugins.
    pub plugins: u64,
    /// Documents of groups, of versions of policies and of schedules together, in bytes.
    pub config_bytes: u64,
    /// Changes of many jobs that are under way.
    pub bulks: u64,
    /// Compilation of uploads within an hour, in seconds, on each node.
    pub compile_seconds: u64,
    /// Payloads, documents and attempts of all jobs together, in bytes.
    pub stored_bytes: u64,
}

/// Error of a tenant that would keep more than its quota allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct QuotaExceeded {
    /// Name of the bound in the tenant's `quota`.
    pub name: &'static str,
    /// Setting that holds its default.
    #[serde(skip)]
    pub setting: &'static str,
    /// Largest use.
    pub limit: u64,
    /// Present use.
    pub used: u64,
}

impl fmt::Display for QuotaExceeded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, setting, limit, used } = self;
        write!(f, "the tenant's quota `{name}` is {limit} (default: `{setting}`), and its use is {used}")
    }
}

impl std::error::Error for QuotaExceeded {}

/// Returns the length of a value as JSON without spaces, in bytes, without writing it.
pub fn json_len(value: &impl Serialize) -> usize {
    let mut counted = Counter(0);
    // Values that are no JSON are refused where they are written.
    match serde_json::to_writer(&mut counted, value) {
        Ok(()) => counted.0,
        Err(_) => usize::MAX,
    }
}

/// Writer that only counts.
struct Counter(usize);

impl io::Write for Counter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 = self.0.saturating_add(bytes.len());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn value_at_the_bound_is_accepted_and_one_byte_more_is_not() {
        let limit = ByteLimit { bytes: 3, setting: "limits.name" };
        assert_eq!(limit.check("name", "/name", 3), Ok(()));
        let error = limit.check("name", "/name", 4).unwrap_err().within("/jobs/2");
        assert_eq!(error.to_string(), "`name` is 4 bytes; the limit is 3 (`limits.name`)");
        assert_eq!(error.pointer, "/jobs/2/name");
    }

    #[test]
    fn json_len_is_that_of_the_compact_text() {
        for value in [json!({"a": [1, 2.5, null], "b": "é\n"}), json!([]), json!("x")] {
            assert_eq!(json_len(&value), value.to_string().len(), "{value}");
        }
    }
}
