//! The two ways in which a job's attempts are dispatched.

use super::Spec;

/// Way in which attempts are dispatched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DispatchMode {
    /// The server delivers the job to its receiver.
    Push,
    /// A consumer pulls the job.
    Pull,
}

impl Spec {
    /// Returns how the job is dispatched: a job without a target is pulled.
    #[must_use]
    pub fn dispatch_mode(&self) -> DispatchMode {
        if self.target.is_some() { DispatchMode::Push } else { DispatchMode::Pull }
    }
}
