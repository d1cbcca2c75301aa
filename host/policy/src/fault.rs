//! How a policy call can go wrong. One code each, the same on the attempt, in metrics, in logs and in events.

use std::fmt;

/// Who must act before the call can succeed.
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
    /// The word for it, as plugins say it.
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

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FaultCode {
    /// The guest trapped: `unreachable`, a panic, an access out of bounds, a stack overflow.
    Trap,
    /// It used up its fuel, the deterministic measure of work.
    FuelExhausted,
    /// It ran past its deadline.
    Timeout,
    /// It asked for more memory than it may have.
    MemoryExceeded,
    /// It answered something that cannot be used: too large, not UTF-8, a header with a line break, a changed origin.
    BadAnswer,
    /// It said itself that it has no answer.
    Declared,
    /// It failed so often that it is not called for a while.
    Quarantined,
    /// The queue in front of the policy threads is full.
    Overloaded,
    /// The component cannot be loaded.
    Unavailable,
    /// A key that the binding names does not exist, is not granted to the group, or is of another kind than it was.
    MissingKey,
}

impl FaultCode {
    /// The name in records and metrics.
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

/// A call without an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What happened.
    pub code: FaultCode,
    /// Who must act.
    pub blame: Blame,
    /// One sentence for the tenant.
    pub message: String,
}

impl Fault {
    /// The plugin is at fault.
    pub fn of_policy(code: FaultCode, message: impl Into<String>) -> Self {
        Self { code, blame: Blame::Policy, message: message.into() }
    }

    /// The answer cannot be used.
    pub fn bad_answer(message: impl Into<String>) -> Self {
        Self::of_policy(FaultCode::BadAnswer, message)
    }

    /// There was no room for the call.
    #[must_use]
    pub fn overloaded() -> Self {
        Self {
            code: FaultCode::Overloaded,
            blame: Blame::Host,
            message: "the queue in front of the policy threads is full".to_owned(),
        }
    }

    /// Whether it counts towards quarantine.
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
