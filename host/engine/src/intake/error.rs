//! Errors of intake: reasons for which a job is not accepted. Knows nothing of HTTP.

use std::fmt;

use carillon_catalog::CatalogError;
use carillon_core::json::Unreadable;
use carillon_core::limits::{Exceeded, QuotaExceeded};
use carillon_policy::binding::Invalid;
use carillon_store::StoreError;

/// Reason for which a job, or a document of which jobs are made, is not accepted.
#[derive(Debug)]
pub struct IntakeError {
    /// JSON pointer (RFC 6901) to the offending part of the input, if the error is about a part.
    pub pointer: Option<String>,
    /// Cause of the error.
    pub cause: Cause,
}

/// Cause for which a job is not accepted.
#[derive(Debug, thiserror::Error)]
pub enum Cause {
    /// The input is not JSON, or has the wrong shape.
    #[error("{0}")]
    Malformed(String),
    /// A field has an invalid value.
    #[error("{0}")]
    Invalid(String),
    /// The job is valid by itself, but conflicts with the configuration.
    #[error("{0}")]
    Conflict(String),
    /// A part of the input exceeds a bound.
    #[error(transparent)]
    Exceeded(Exceeded),
    /// The tenant would keep more jobs than its quota allows.
    #[error(transparent)]
    Quota(QuotaExceeded),
    /// The catalog refuses the job's overrides.
    #[error(transparent)]
    Catalog(CatalogError),
    /// The store did not accept the job; nothing of it was stored.
    #[error("the store does not respond")]
    Store(StoreError),
}

impl IntakeError {
    /// Creates an error with `detail` about the field at `pointer`.
    pub(crate) fn invalid(pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { pointer: Some(pointer.into()), cause: Cause::Invalid(detail.into()) }
    }

    /// Creates an error about a job that conflicts with the configuration.
    pub(super) fn conflict(detail: impl Into<String>) -> Self {
        Self { pointer: None, cause: Cause::Conflict(detail.into()) }
    }

    /// Returns the error within a part of the input; the pointer names the part even if the error has no pointer.
    #[must_use]
    pub fn inside(mut self, prefix: &str) -> Self {
        self.pointer = Some(format!("{prefix}{}", self.pointer.unwrap_or_default()));
        self
    }

    /// Returns the error within a part of the input.
    #[must_use]
    pub fn within(mut self, prefix: &str) -> Self {
        self.pointer = self.pointer.map(|pointer| format!("{prefix}{pointer}"));
        self
    }

    /// Returns the same error about another field.
    #[must_use]
    pub fn moved_to(mut self, pointer: &str) -> Self {
        self.pointer = Some(pointer.to_owned());
        self
    }
}

impl fmt::Display for IntakeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.cause.fmt(f)
    }
}

impl std::error::Error for IntakeError {}

impl From<Invalid> for IntakeError {
    fn from(invalid: Invalid) -> Self {
        Self::invalid(invalid.pointer, invalid.message)
    }
}

impl From<Exceeded> for IntakeError {
    fn from(exceeded: Exceeded) -> Self {
        Self { pointer: Some(exceeded.pointer.clone()), cause: Cause::Exceeded(exceeded) }
    }
}

impl From<QuotaExceeded> for IntakeError {
    fn from(exceeded: QuotaExceeded) -> Self {
        Self { pointer: None, cause: Cause::Quota(exceeded) }
    }
}

impl From<Unreadable> for IntakeError {
    fn from(Unreadable { pointer, message }: Unreadable) -> Self {
        Self { pointer: Some(pointer), cause: Cause::Malformed(message) }
    }
}

impl From<CatalogError> for IntakeError {
    fn from(rejected: CatalogError) -> Self {
        match rejected {
            CatalogError::Invalid(invalid) => invalid.into(),
            CatalogError::Exceeded(exceeded) => exceeded.into(),
            rejected => Self { pointer: None, cause: Cause::Catalog(rejected) },
        }
    }
}

impl From<StoreError> for IntakeError {
    fn from(error: StoreError) -> Self {
        Self { pointer: None, cause: Cause::Store(error) }
    }
}
