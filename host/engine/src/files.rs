//! Open files: the limit of the process, and its division among the users of many files. Pure, except for the limit.
//!
//! Invariant: the shares and [`RESERVED`] together stay below the limit, so that no user of files can take those of another.

/// Files for everything that takes a fixed number: the store, listeners, logs, loaded plugins, the runtime.
const RESERVED: usize = 96;

/// Largest number of connections to receivers, in use or idle, however many files are available.
const MAX_RECEIVER_CONNECTIONS: usize = 16_384;

/// Largest number of sockets of name look-ups.
const MAX_LOOKUP_SOCKETS: usize = 2_048;

/// Largest number of connections from clients; `server.connections` sets a lower one.
const MAX_CLIENT_CONNECTIONS: usize = 1_000_000;

/// Limit that is assumed where the operating system reports none.
const ASSUMED_LIMIT: u64 = 1_024;

/// Division of the process's open files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileShares {
    /// Connections to receivers, in use or idle.
    pub receivers: usize,
    /// Sockets of name look-ups.
    pub lookups: usize,
    /// Connections of the API's clients.
    pub clients: usize,
}

impl FileShares {
    /// Divides `limit` open files.
    #[must_use]
    pub fn from_limit(limit: u64) -> Self {
        let spare = usize::try_from(limit).unwrap_or(usize::MAX).saturating_sub(RESERVED);
        let share = |part: usize, of: usize, max: usize| (spare / of * part).clamp(1, max);
        Self {
            receivers: share(3, 8, MAX_RECEIVER_CONNECTIONS),
            lookups: share(1, 8, MAX_LOOKUP_SOCKETS),
            clients: share(3, 8, MAX_CLIENT_CONNECTIONS),
        }
    }

    /// Returns how many of the clients' connections may be streams, which last long; the others are for requests with a response.
    #[must_use]
    pub fn streams(self) -> usize {
        (self.clients / 2).max(1)
    }

    /// Raises the soft limit of this process to the hard one, and divides the result.
    #[must_use]
    pub fn of_process() -> Self {
        Self::from_limit(raise_limit())
    }
}

/// Raises the soft limit of open files to the hard one, and returns the limit that is then in force.
fn raise_limit() -> u64 {
    match rlimit::increase_nofile_limit(rlimit::INFINITY) {
        Ok(limit) => limit,
        Err(error) => {
            tracing::warn!(%error, "raising the limit of open files failed");
            rlimit::Resource::NOFILE.get_soft().unwrap_or(ASSUMED_LIMIT)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_stay_below_the_limit() {
        for limit in [128, 200, 256, 1_024, 4_096, 20_000, 524_288, u64::MAX] {
            let shares = FileShares::from_limit(limit);
            let sum = shares.receivers + shares.lookups + shares.clients;
            assert!(u64::try_from(RESERVED + sum).unwrap() <= limit, "{limit}: {shares:?}");
            assert!(shares.receivers <= MAX_RECEIVER_CONNECTIONS && shares.clients <= MAX_CLIENT_CONNECTIONS);
        }
    }

    #[test]
    fn each_share_has_a_file_however_low_the_limit() {
        for limit in [0, 1, RESERVED as u64, 100] {
            let FileShares { receivers, lookups, clients } = FileShares::from_limit(limit);
            assert!(receivers > 0 && lookups > 0 && clients > 0, "{limit}");
        }
    }

    #[test]
    fn soft_limit_is_raised_to_the_hard_one() {
        let limit = raise_limit();
        let (soft, hard) = rlimit::Resource::NOFILE.get().unwrap();
        assert_eq!((limit, soft), (hard, hard));
    }
}
