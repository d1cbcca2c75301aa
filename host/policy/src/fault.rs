//! Faults of policy calls. Each has one code, the same on the attempt, in metrics, in logs and in events.

use std::fmt;

use url::Url;

pub use carillon_core::error_code::FaultCode;

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

    /// Makes a fault of a job whose URL is at an origin that the key `name` may not go to.
    pub(crate) fn of_key_origin(name: &str, url: &Url) -> Self {
        let origin = url.origin().ascii_serialization();
        let message =
            format!("the key `{name}` may not go to `{origin}`, which is none of its `origins`; nothing was sent");
        Self { code: FaultCode::KeyOrigin, blame: Blame::Job, message }
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
