//! Resources of the server itself that are used up, as opposed to faults of a receiver.
//!
//! Invariant: an error that is named here spends no attempt and says nothing about a receiver's health. Pure.

use std::error::Error;
use std::io;

use rustix::io::Errno;

/// A resource of this server or its machine that is used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Exhausted {
    /// Open files, of the process or of the whole system.
    #[error("the server has no free file descriptor; raise the limit of open files (`ulimit -n`)")]
    Files,
    /// Memory, or the kernel's buffers.
    #[error("the server has no free memory")]
    Memory,
    /// Local ports for connections to one address.
    #[error("the server has no free local port; widen `net.ipv4.ip_local_port_range`")]
    Ports,
    /// Threads.
    #[error("the server cannot start another thread")]
    Threads,
    /// Capacity for a call of a policy.
    #[error("the server has no capacity for the policy's call")]
    Policies,
    /// The group's, the tenant's or the node's share of concurrent name look-ups.
    #[error("too many names are being resolved at once")]
    Lookups,
}

impl Exhausted {
    /// Returns the resource whose exhaustion an error of the operating system reports.
    #[must_use]
    pub fn from_io(error: &io::Error) -> Option<Self> {
        match Errno::from_io_error(error) {
            Some(errno) => Self::from_errno(errno),
            None if error.kind() == io::ErrorKind::OutOfMemory => Some(Self::Memory),
            None => None,
        }
    }

    /// Returns the resource whose exhaustion an error number reports.
    fn from_errno(errno: Errno) -> Option<Self> {
        match errno {
            Errno::MFILE | Errno::NFILE => Some(Self::Files),
            Errno::NOMEM | Errno::NOBUFS => Some(Self::Memory),
            // `connect` reports exhausted ports as the first, `bind` as the second.
            Errno::ADDRNOTAVAIL | Errno::ADDRINUSE => Some(Self::Ports),
            Errno::AGAIN => Some(Self::Threads),
            _ => None,
        }
    }

    /// Searches an error and its causes for an exhausted resource.
    #[must_use]
    pub fn find(error: &(dyn Error + 'static)) -> Option<Self> {
        let mut next = Some(error);
        while let Some(error) = next {
            if let Some(exhausted) = error.downcast_ref().and_then(|errno: &Errno| Self::from_errno(*errno)) {
                return Some(exhausted);
            }
            if let Some(io) = error.downcast_ref::<io::Error>() {
                let inner = io.get_ref().map(|inner| inner as &(dyn Error + 'static));
                if let Some(exhausted) = Self::from_io(io).or_else(|| inner.and_then(Self::find)) {
                    return Some(exhausted);
                }
            }
            next = error.source();
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errno_table_tells_own_exhaustion_from_receivers_faults() {
        for (errno, exhausted) in [
            (Errno::MFILE, Some(Exhausted::Files)),
            (Errno::NFILE, Some(Exhausted::Files)),
            (Errno::NOMEM, Some(Exhausted::Memory)),
            (Errno::NOBUFS, Some(Exhausted::Memory)),
            (Errno::ADDRNOTAVAIL, Some(Exhausted::Ports)),
            (Errno::ADDRINUSE, Some(Exhausted::Ports)),
            (Errno::AGAIN, Some(Exhausted::Threads)),
            (Errno::CONNREFUSED, None),
            (Errno::CONNRESET, None),
            (Errno::CONNABORTED, None),
            (Errno::PIPE, None),
            (Errno::TIMEDOUT, None),
            (Errno::HOSTUNREACH, None),
            (Errno::NETUNREACH, None),
            (Errno::ACCESS, None),
            (Errno::PERM, None),
            (Errno::INVAL, None),
            (Errno::AFNOSUPPORT, None),
        ] {
            assert_eq!(Exhausted::from_io(&errno.into()), exhausted, "{errno:?}");
        }
        assert_eq!(Exhausted::from_io(&io::ErrorKind::OutOfMemory.into()), Some(Exhausted::Memory));
        assert_eq!(Exhausted::from_io(&io::Error::other("EMFILE")), None);
    }

    #[test]
    fn cause_is_found_inside_of_other_errors() {
        let files = || io::Error::from(Errno::MFILE);
        let nested = io::Error::other(io::Error::other(files()));
        assert_eq!(Exhausted::find(&nested), Some(Exhausted::Files));
        let context: anyhow::Error = anyhow::Error::new(files()).context("cannot open the plugin");
        assert_eq!(Exhausted::find(context.as_ref()), Some(Exhausted::Files));
        assert_eq!(Exhausted::find(&io::Error::from(Errno::CONNREFUSED)), None);
    }
}
