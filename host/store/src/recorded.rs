//! Entries of the audit log that are written with a change of configuration.

use carillon_core::audit::AuditEntry;

/// Whether a write of configuration is recorded in the audit log.
#[derive(Clone, Debug)]
pub enum Audit {
    /// It changes the configuration: this entry is written in its transaction. The store fills in what only the transaction knows: what has
    /// changed, and the version.
    Recorded(Box<AuditEntry>),
    /// It changes no configuration: the last use of a token, the progress of a bulk change, a version that nothing needs any more.
    Upkeep,
}

/// Result of a write, with the entry that was written with it.
#[derive(Clone, Debug, PartialEq)]
pub struct Recorded<T> {
    /// Result of the write.
    pub done: T,
    /// Entry, as it is stored; `None` if nothing was changed, or the write was [`Audit::Upkeep`].
    pub entry: Option<AuditEntry>,
}
