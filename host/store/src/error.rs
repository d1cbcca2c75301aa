//! Reasons why a verb of the store fails.

use carillon_core::job::JobId;

/// Reason why a verb failed; knows nothing of HTTP.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The group does not exist, or is being deleted.
    #[error("the group does not exist")]
    NoSuchGroup,
    /// The entity exists already, or its version is not the expected one.
    #[error("{0}")]
    Conflict(String),
    /// The idempotency key belongs to a request with another body.
    #[error("the idempotency key was used for another request")]
    KeyReused,
    /// The database cannot be reached, or is shutting down. The same call may succeed later.
    #[error("the store is unavailable: {0}")]
    Unavailable(String),
    /// The database has no room left. Nothing was written; the same call succeeds when there is room.
    #[error("the disk of the store is full: {0}")]
    Full(String),
    /// A read took longer than [`crate::read_turns::READ_TIME`], or waited that long for its turn. It was stopped; the database works.
    #[error("the read took too long")]
    ReadTimeout,
    /// The database holds a value that this program did not write.
    #[error("the store is inconsistent: {0}")]
    Corrupt(String),
    /// The stored row of this job holds a value that this program did not write. Changes that need no more than its state still work.
    #[error("the stored job {0} cannot be read")]
    Unreadable(JobId),
}
