//! Faults of policy calls. Each has one code, the same on the attempt, in metrics, in logs and in events.

use std::fmt;

/// The party that must act before the call can succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// The job can never be handled.
    Job,
    /// The binding's config, keys or grants are wrong.
    Config,
    /// The plugin is broken.
    Policy,
    /// The server has no room for the call right now.
    Host,
}

impl Blame {
    /// Returns the word that plugins use for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Job => "job",
            Self::Config => "config",
            Self::Policy => "policy",
            Self::Host => "host",
        }
    }
}

/// Reason why a call has no usable result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FaultCode {
    /// The guest trapped: `unreachable`, a panic, an access out of bounds, a stack overflow.
    Trap,
    /// The guest used up its fuel, the deterministic measure of work.
    FuelExhausted,
    /// The guest ran past its deadline.
    Timeout,
    /// The guest requested more memory than it may have.
    MemoryExceeded,
    /// The result cannot be used: too large, not UTF-8, a header with a line break, a changed origin.
    BadAnswer,
    /// The plugin itself declared that it has no result.
    Declared,
    /// The policy failed so often that it is not called for a while.
    Quarantined,
    /// The queue in front of the policy threads is full.
    Overloaded,
    /// The component cannot be loaded.
    Unavailable,
    /// A key that the binding names does not exist, is not granted to the group, or is of another kind than it was.
    MissingKey,
}

impl FaultCode {
    /// Returns the name in records and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Trap => "policy.trap",
            Self::FuelExhausted => "policy.fuel-exhausted",
            Self::Timeout => "policy.timeout",
            Self::MemoryExceeded => "policy.memory-exceeded",
            Self::BadAnswer => "policy.bad-answer",
            Self::Declared => "policy.declared",
            Self::Quarantined => "policy.quarantined",
            Self::Overloaded => "policy.overloaded",
            Self::Unavailable => "policy.unavailable",
            Self::MissingKey => "policy.missing-key",
        }
    }
}

/// Call without a usable result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Code of the fault.
    pub code: FaultCode,
    /// The party that must act.
    pub blame: Blame,
    /// Description for the tenant, in one sentence.
    pub message: String,
}

impl Fault {
    /// Makes a fault that the plugin is to blame for.
    pub fn of_policy(code: FaultCode, message: impl Into<String>) -> Self {
        Self { code, blame: Blame::Policy, message: message.into() }
    }

    /// Makes a fault about a result that cannot be used.
    pub fn bad_answer(message: impl Into<String>) -> Self {
        Self::of_policy(FaultCode::BadAnswer, message)
    }

    /// Makes a fault of a server that had no room for the call.
    #[must_use]
    pub fn overloaded() -> Self {
        Self {
            code: FaultCode::Overloaded,
            blame: Blame::Host,
            message: "the queue in front of the policy threads is full".to_owned(),
        }
    }

    /// Returns whether the fault counts towards quarantine.
    #[must_use]
    pub fn is_the_plugins(&self) -> bool {
        self.blame == Blame::Policy && self.code != FaultCode::Quarantined
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code.as_str(), self.message)
    }
}

impl std::error::Error for Fault {}
