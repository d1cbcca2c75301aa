//! Error codes of attempts and of policy calls: one list for the store, the API, events, metrics, logs and the reference page.
//!
//! Invariants: a code's text never changes, and a text that this version does not know is kept as it is, because a newer node of the same
//! cluster may have written it.

use std::cmp::Ordering;
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Prefix of the codes of [`TransportError`].
const SEND: &str = "send.";

/// Prefix of the codes of [`FaultCode`], but for [`FaultCode::KeyOrigin`].
const POLICY: &str = "policy.";

/// Error of an attempt or of a policy call.
///
/// Codes are ordered by their text.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ErrorCode {
    /// The request has no response.
    Send(TransportError),
    /// A policy call has no usable result.
    Policy(FaultCode),
    /// The node stopped, crashed or lost its lease during the attempt, or a consumer's lease expired.
    AttemptInterrupted,
    /// The job was cancelled during the attempt, because a newer job replaces it.
    AttemptCancelled,
    /// The database refused the full record of the attempt.
    AttemptRecordRefused,
    /// The receiver's circuit breaker is open.
    BreakerOpen,
    /// The receiver has asked for a pause of the job's URL.
    ReceiverPaused,
    /// The group's limit of concurrent attempts to the receiver is reached.
    ReceiverFull,
    /// A consumer reported that the job failed.
    ConsumerFailed,
    /// The stored job cannot be read.
    StoreUnreadable,
    /// The server has run out of a resource.
    ServerExhausted,
    /// A code of a newer version. Only [`Self::parse`] makes it, so that a known code is never in it.
    Other(Box<str>),
}

impl ErrorCode {
    /// All codes that this version knows.
    pub const ALL: [Self; 29] = [
        Self::Send(TransportError::Dns),
        Self::Send(TransportError::Connect),
        Self::Send(TransportError::Tls),
        Self::Send(TransportError::Timeout),
        Self::Send(TransportError::Reset),
        Self::Send(TransportError::Body),
        Self::Send(TransportError::RefusedAddress),
        Self::Send(TransportError::Redirect),
        Self::Send(TransportError::Protocol),
        Self::Policy(FaultCode::Trap),
        Self::Policy(FaultCode::FuelExhausted),
        Self::Policy(FaultCode::Timeout),
        Self::Policy(FaultCode::MemoryExceeded),
        Self::Policy(FaultCode::BadAnswer),
        Self::Policy(FaultCode::Declared),
        Self::Policy(FaultCode::Quarantined),
        Self::Policy(FaultCode::Overloaded),
        Self::Policy(FaultCode::Unavailable),
        Self::Policy(FaultCode::MissingKey),
        Self::Policy(FaultCode::KeyOrigin),
        Self::AttemptInterrupted,
        Self::AttemptCancelled,
        Self::AttemptRecordRefused,
        Self::BreakerOpen,
        Self::ReceiverPaused,
        Self::ReceiverFull,
        Self::ConsumerFailed,
        Self::StoreUnreadable,
        Self::ServerExhausted,
    ];

    /// Returns the code of this text. An unknown text is kept as [`Self::Other`].
    #[must_use]
    pub fn parse(text: &str) -> Self {
        Self::ALL.into_iter().find(|code| code.as_str() == text).unwrap_or_else(|| Self::Other(text.into()))
    }

    /// Returns the text in the store, the API, events, metrics and logs.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Send(error) => error.as_str(),
            Self::Policy(fault) => fault.as_str(),
            Self::AttemptInterrupted => "attempt.interrupted",
            Self::AttemptCancelled => "attempt.cancelled",
            Self::AttemptRecordRefused => "attempt.record_refused",
            Self::BreakerOpen => "breaker.open",
            Self::ReceiverPaused => "receiver.paused",
            Self::ReceiverFull => "receiver.full",
            Self::ConsumerFailed => "consumer.failed",
            Self::StoreUnreadable => "store.unreadable",
            Self::ServerExhausted => "server.exhausted",
            Self::Other(text) => text,
        }
    }

    /// Returns whether a policy call has no usable result. This includes faults that only newer versions know.
    ///
    /// A key that may not go to the request's origin is none: no policy is called.
    #[must_use]
    pub fn is_policy_fault(&self) -> bool {
        match self {
            Self::Policy(fault) => *fault != FaultCode::KeyOrigin,
            Self::Other(text) => text.starts_with(POLICY),
            Self::Send(_)
            | Self::AttemptInterrupted
            | Self::AttemptCancelled
            | Self::AttemptRecordRefused
            | Self::BreakerOpen
            | Self::ReceiverPaused
            | Self::ReceiverFull
            | Self::ConsumerFailed
            | Self::StoreUnreadable
            | Self::ServerExhausted => false,
        }
    }

    /// Returns whether the attempt was interrupted, which says nothing of its receiver or its policies.
    #[must_use]
    pub fn is_interruption(&self) -> bool {
        matches!(self, Self::AttemptInterrupted | Self::AttemptCancelled)
    }
}

impl From<TransportError> for ErrorCode {
    fn from(error: TransportError) -> Self {
        Self::Send(error)
    }
}

impl From<FaultCode> for ErrorCode {
    fn from(fault: FaultCode) -> Self {
        Self::Policy(fault)
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Ord for ErrorCode {
    fn cmp(&self, other: &Self) -> Ordering {
        self.as_str().cmp(other.as_str())
    }
}

impl PartialOrd for ErrorCode {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Serialize for ErrorCode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for ErrorCode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self::parse(&String::deserialize(deserializer)?))
    }
}

/// Reason why a request has no response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TransportError {
    /// The name has no addresses, or was not resolved in time.
    Dns,
    /// The connection was refused, or was not open in time.
    Connect,
    /// The certificate was refused, or TLS was not agreed on in time.
    Tls,
    /// The request was sent, and no response came in time.
    Timeout,
    /// The connection ended without a response.
    Reset,
    /// The response's body broke off.
    ///
    /// The sender does not report it: a response whose head has arrived counts as a response. Simulations and tests of policies use it.
    Body,
    /// The egress guard refuses the address.
    RefusedAddress,
    /// The response is a redirect that is not followed, though the group follows redirects.
    Redirect,
    /// The bytes that came back are not an HTTP response, or its head is too large.
    Protocol,
}

impl TransportError {
    /// All transport errors.
    pub const ALL: [Self; 9] = [
        Self::Dns,
        Self::Connect,
        Self::Tls,
        Self::Timeout,
        Self::Reset,
        Self::Body,
        Self::RefusedAddress,
        Self::Redirect,
        Self::Protocol,
    ];

    /// Returns the transport error whose [`Self::code`] is this text.
    #[must_use]
    pub fn parse(code: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|error| error.code() == code)
    }

    /// Returns the code that policies see: that of the attempt without its prefix. See `transport-error` in the policy interface.
    #[must_use]
    pub fn code(self) -> &'static str {
        self.as_str().trim_start_matches(SEND)
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Dns => "send.dns",
            Self::Connect => "send.connect",
            Self::Tls => "send.tls",
            Self::Timeout => "send.timeout",
            Self::Reset => "send.reset",
            Self::Body => "send.body",
            Self::RefusedAddress => "send.refused-address",
            Self::Redirect => "send.redirect",
            Self::Protocol => "send.protocol",
        }
    }
}

/// Reason why a policy call has no usable result.
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
    /// A key of the request may not go to its origin, so that no policy is called.
    KeyOrigin,
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
            Self::KeyOrigin => "key.origin",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// The texts that are stored in databases and that programs compare. None of them may change.
    const TEXTS: [&str; 29] = [
        "attempt.cancelled",
        "attempt.interrupted",
        "attempt.record_refused",
        "breaker.open",
        "consumer.failed",
        "key.origin",
        "policy.bad-answer",
        "policy.declared",
        "policy.fuel-exhausted",
        "policy.memory-exceeded",
        "policy.missing-key",
        "policy.overloaded",
        "policy.quarantined",
        "policy.timeout",
        "policy.trap",
        "policy.unavailable",
        "receiver.full",
        "receiver.paused",
        "send.body",
        "send.connect",
        "send.dns",
        "send.protocol",
        "send.redirect",
        "send.refused-address",
        "send.reset",
        "send.timeout",
        "send.tls",
        "server.exhausted",
        "store.unreadable",
    ];

    #[test]
    fn every_code_has_its_stored_text() {
        let codes: BTreeSet<ErrorCode> = ErrorCode::ALL.into();
        assert!(codes.iter().map(ErrorCode::as_str).eq(TEXTS), "{codes:?}");
    }

    #[test]
    fn list_of_all_codes_is_complete() {
        // The compiler demands an arm for each code in `as_str`, but not an entry in `ALL`.
        let (code, _) = include_str!("error_code.rs").split_once("#[cfg(test)]").unwrap();
        assert_eq!(code.matches(" => \"").count(), ErrorCode::ALL.len());
        let sent = ErrorCode::ALL.into_iter().filter(|code| matches!(code, ErrorCode::Send(_)));
        assert!(sent.eq(TransportError::ALL.map(ErrorCode::Send)));
    }

    #[test]
    fn every_code_survives_a_round_trip() {
        for code in ErrorCode::ALL {
            let text = code.as_str();
            assert_eq!(ErrorCode::parse(text), code, "{text}");
            let json = serde_json::to_string(&code).unwrap();
            assert_eq!(json, format!("\"{text}\""));
            assert_eq!(serde_json::from_str::<ErrorCode>(&json).unwrap(), code, "{text}");
            assert_eq!(code.is_policy_fault(), text.starts_with("policy."), "{text}");
            assert_eq!(code.is_interruption(), ["attempt.interrupted", "attempt.cancelled"].contains(&text), "{text}");
        }
    }

    #[test]
    fn unknown_code_survives_a_round_trip() {
        for text in ["send.quantum", "policy.bored", "", "a\0b", "send", "Send.dns", "send.dns "] {
            let code = ErrorCode::parse(text);
            assert_eq!(code, ErrorCode::Other(text.into()), "{text:?}");
            assert_eq!(code.to_string(), text);
            let json = serde_json::to_string(&code).unwrap();
            assert_eq!(json, serde_json::to_string(text).unwrap());
            assert_eq!(serde_json::from_str::<ErrorCode>(&json).unwrap(), code, "{text:?}");
            assert_eq!(code.is_policy_fault(), text == "policy.bored", "{text:?}");
        }
    }

    #[test]
    fn transport_error_has_the_code_of_its_attempt_without_the_prefix() {
        for error in TransportError::ALL {
            assert_eq!(ErrorCode::from(error).as_str(), format!("send.{}", error.code()));
            assert_eq!(TransportError::parse(error.code()), Some(error));
        }
        assert_eq!([TransportError::parse("send.dns"), TransportError::parse("quantum")], [None; 2]);
    }
}
