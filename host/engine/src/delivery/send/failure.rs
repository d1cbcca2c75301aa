//! Failures of requests: why there is no response, and whether the receiver or the server caused it.

use std::error::Error;
use std::io;

use crate::delivery::egress::{Refused, RefusedPort};
use crate::delivery::tenant_egress::RefusedByQuota;
use carillon_core::error_code::TransportError;
use carillon_core::exhaustion::Exhausted;
use carillon_core::text::clean;

/// Reason for which a request has no response.
#[derive(Debug)]
pub(super) enum Failure {
    /// The receiver, its name or its network failed.
    Transport {
        /// Reason.
        error: TransportError,
        /// Explanation in one sentence.
        message: String,
    },
    /// The server itself has run out of something: the receiver is not to blame.
    Exhausted(Exhausted),
}

impl Failure {
    /// Creates a transport failure, unless `cause` is the server's own exhaustion. The message is that of the innermost cause.
    pub(super) fn caused_by(error: TransportError, cause: &(dyn Error + 'static)) -> Self {
        match Exhausted::find(cause) {
            Some(exhausted) => Self::Exhausted(exhausted),
            None => Self::Transport { error, message: clean(&innermost(cause)).into_owned() },
        }
    }

    /// Creates a transport failure with this message, in which the receiver's words are cleaned.
    pub(super) fn new(error: TransportError, message: impl AsRef<str>) -> Self {
        Self::Transport { error, message: clean(message.as_ref()).into_owned() }
    }

    /// Creates the failure of an exchange that ended before the head of a response.
    pub(super) fn of_exchange(cause: &hyper::Error) -> Self {
        let is_broken = cause.is_parse() || http2_error(cause).is_some_and(h2::Error::is_library);
        let error = if is_broken { TransportError::Protocol } else { TransportError::Reset };
        Self::caused_by(error, cause)
    }
}

impl Failure {
    /// Creates the failure of a `name` that leads to a refused address.
    ///
    /// The text tells nothing of the address: whoever may create jobs could map the operator's networks by names.
    pub(super) fn refused_name(name: &str) -> Self {
        let where_to_look = "the server's log names the address and the reason";
        Self::new(
            TransportError::RefusedAddress,
            format!("`{name}` leads to an address that is refused as a target; {where_to_look}"),
        )
    }
}

/// Creates the failure of an address that the URL itself contains.
impl From<Refused> for Failure {
    fn from(refused: Refused) -> Self {
        Self::new(TransportError::RefusedAddress, refused.to_string())
    }
}

impl From<RefusedByQuota> for Failure {
    fn from(refused: RefusedByQuota) -> Self {
        Self::new(TransportError::RefusedAddress, refused.to_string())
    }
}

impl From<RefusedPort> for Failure {
    fn from(refused: RefusedPort) -> Self {
        Self::new(TransportError::RefusedAddress, refused.to_string())
    }
}

/// Returns whether the receiver has not processed the request, and says so: it refused the stream, or took leave before (RFC 9113, section 8.7).
pub(super) fn is_unprocessed(error: &hyper::Error) -> bool {
    let is_refused = |error: &h2::Error| {
        error.reason() == Some(h2::Reason::REFUSED_STREAM) || error.is_go_away() && error.is_remote()
    };
    error.is_canceled() || http2_error(error).is_some_and(is_refused)
}

/// Returns whether an error is of one stream of HTTP/2, and leaves others of its connection alone.
pub(super) fn is_of_stream(error: &hyper::Error) -> bool {
    http2_error(error).is_some_and(h2::Error::is_reset)
}

fn http2_error(error: &hyper::Error) -> Option<&h2::Error> {
    error.source().and_then(|source| source.downcast_ref())
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
        let exhausted = Failure::caused_by(TransportError::Connect, &io::Error::from(Errno::MFILE));
        assert!(matches!(exhausted, Failure::Exhausted(Exhausted::Files)), "{exhausted:?}");
        let refused = Failure::caused_by(TransportError::Connect, &io::Error::from(Errno::CONNREFUSED));
        assert!(matches!(refused, Failure::Transport { error: TransportError::Connect, .. }), "{refused:?}");
    }

    #[test]
    fn message_is_that_of_the_innermost_cause() {
        let error = io::Error::other(io::Error::other("certificate expired"));
        let Failure::Transport { message, .. } = Failure::caused_by(TransportError::Tls, &error) else {
            panic!("no transport error")
        };
        assert_eq!(message, "certificate expired");
    }
}
