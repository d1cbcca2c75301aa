//! Failures of requests: why there is no response, and whether the receiver or the server caused it.

use std::error::Error;
use std::io;

use crate::delivery::egress::Refused;
use carillon_core::exhaustion::Exhausted;

/// Reason for which a request has no response.
#[derive(Debug)]
pub(super) enum Failure {
    /// The receiver, its name or its network failed.
    Transport {
        /// Code; see `transport-error` in the policy interface.
        code: &'static str,
        /// Explanation in one sentence.
        message: String,
    },
    /// The server itself has run out of something: the receiver is not to blame.
    Exhausted(Exhausted),
}

impl Failure {
    /// Creates a failure with this code, unless `error` comes from the server's own exhaustion. The message is that of the innermost cause.
    pub(super) fn of(code: &'static str, error: &(dyn Error + 'static)) -> Self {
        match Exhausted::find(error) {
            Some(exhausted) => Self::Exhausted(exhausted),
            None => Self::Transport { code, message: innermost(error) },
        }
    }

    /// Creates a failure with this code and text.
    pub(super) fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self::Transport { code, message: message.into() }
    }

    /// Creates the failure of an exchange that ended before the head of a response.
    pub(super) fn of_exchange(error: &hyper::Error) -> Self {
        let code = if error.is_parse() { "protocol" } else { "reset" };
        Self::of(code, error)
    }
}

impl From<Refused> for Failure {
    fn from(refused: Refused) -> Self {
        Self::new("refused-address", refused.to_string())
    }
}

/// Returns the text of the innermost cause.
fn innermost(error: &(dyn Error + 'static)) -> String {
    let mut cause = error;
    loop {
        let inner = cause.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        match cause.source().or_else(|| inner.map(|inner| inner as &(dyn Error + 'static))) {
            Some(next) => cause = next,
            None => return cause.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use rustix::io::Errno;

    use super::*;

    #[test]
    fn own_exhaustion_is_no_fault_of_the_receiver() {
        let exhausted = Failure::of("connect", &io::Error::from(Errno::MFILE));
        assert!(matches!(exhausted, Failure::Exhausted(Exhausted::Files)), "{exhausted:?}");
        let refused = Failure::of("connect", &io::Error::from(Errno::CONNREFUSED));
        assert!(matches!(refused, Failure::Transport { code: "connect", .. }), "{refused:?}");
    }

    #[test]
    fn message_is_that_of_the_innermost_cause() {
        let error = io::Error::other(io::Error::other("certificate expired"));
        let Failure::Transport { message, .. } = Failure::of("tls", &error) else { panic!("no transport error") };
        assert_eq!(message, "certificate expired");
    }
}
