//! Why a job is not accepted. Knows nothing of HTTP.

use std::fmt;

use carillon_catalog::CatalogError;
use carillon_core::json::Unreadable;
use carillon_policy::binding::Invalid;
use carillon_store::StoreError;

/// Why a job, or what jobs are made of, is not accepted.
#[derive(Debug)]
pub struct IntakeError {
    /// JSON pointer (RFC 6901) to the offending part of the input, if it is about a part of it.
    pub pointer: Option<String>,
    /// What is wrong.
    pub cause: Cause,
}

/// What is wrong with a job that is not accepted.
#[derive(Debug, thiserror::Error)]
pub enum Cause {
    /// The input is not JSON, or not of the right shape.
    #[error("{0}")]
    Malformed(String),
    /// A field has a value that is not possible.
    #[error("{0}")]
    Invalid(String),
    /// The job is possible by itself, but not together with what is configured.
    #[error("{0}")]
    Conflict(String),
    /// The catalog refuses the job's overrides.
    #[error(transparent)]
    Catalog(CatalogError),
    /// The store did not accept the job; nothing of it was stored.
    #[error("the store does not answer")]
    Store(StoreError),
}

impl IntakeError {
    /// `detail` about the field at `pointer`.
    pub(crate) fn invalid(pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { pointer: Some(pointer.into()), cause: Cause::Invalid(detail.into()) }
    }

    /// The job does not go together with what is configured.
    pub(super) fn conflict(detail: impl Into<String>) -> Self {
        Self { pointer: None, cause: Cause::Conflict(detail.into()) }
    }

    /// The same error in a part of the input, which is pointed at even if nothing in it is.
    #[must_use]
    pub fn inside(mut self, prefix: &str) -> Self {
        self.pointer = Some(format!("{prefix}{}", self.pointer.unwrap_or_default()));
        self
    }

    /// The same error in a part of the input.
    #[must_use]
    pub fn within(mut self, prefix: &str) -> Self {
        self.pointer = self.pointer.map(|pointer| format!("{prefix}{pointer}"));
        self
    }

    /// The same error of another field.
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

impl From<Unreadable> for IntakeError {
    fn from(Unreadable { pointer, message }: Unreadable) -> Self {
        Self { pointer: Some(pointer), cause: Cause::Malformed(message) }
    }
}

impl From<CatalogError> for IntakeError {
    fn from(rejected: CatalogError) -> Self {
        match rejected {
            CatalogError::Invalid(invalid) => invalid.into(),
            rejected => Self { pointer: None, cause: Cause::Catalog(rejected) },
        }
    }
}

impl From<StoreError> for IntakeError {
    fn from(error: StoreError) -> Self {
        Self { pointer: None, cause: Cause::Store(error) }
    }
}
