//! Errors of changes to the catalog.

use carillon_core::limits::{Exceeded, QuotaExceeded};
use carillon_policy::LoadError;
use carillon_policy::binding::Invalid;
use carillon_store::StoreError;

/// Reason why a change was rejected. It knows nothing of HTTP.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// A part of the document is not valid.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// A part of the document exceeds a bound.
    #[error(transparent)]
    Exceeded(#[from] Exceeded),
    /// The tenant would keep more than its quota allows.
    #[error(transparent)]
    Quota(#[from] QuotaExceeded),
    /// The change contradicts the present entities.
    #[error("{0}")]
    Conflict(String),
    /// The change exceeds the tenant's quota.
    #[error("{0}")]
    TooLarge(String),
    /// The component is not a valid plugin.
    #[error(transparent)]
    Plugin(#[from] LoadError),
    /// The tenant accepts signed plugins only.
    #[error("{0}")]
    Unsigned(String),
    /// Another caller removed the entity at the same moment.
    #[error("another request removed it at the same time")]
    Gone,
    /// The store failed.
    #[error("{0}")]
    Store(StoreError),
}

impl From<StoreError> for CatalogError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Conflict(text) => Self::Conflict(text),
            error => Self::Store(error),
        }
    }
}
