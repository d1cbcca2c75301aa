//! Why the catalog refuses a change.

use carillon_policy::LoadError;
use carillon_policy::binding::Invalid;
use carillon_store::StoreError;

/// Why something was not taken. Knows nothing of HTTP.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// A part of it makes no sense.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// It cannot be together with what is there.
    #[error("{0}")]
    Conflict(String),
    /// It is more than the tenant may keep.
    #[error("{0}")]
    TooLarge(String),
    /// The component is not a plugin.
    #[error(transparent)]
    Plugin(#[from] LoadError),
    /// The tenant takes signed plugins only.
    #[error("{0}")]
    Unsigned(String),
    /// What was written has been removed by somebody else in the same moment.
    #[error("it was removed in the same moment")]
    Gone,
    /// The store did not take it.
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
