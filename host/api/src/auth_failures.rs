//! Failures to authenticate: few of each address are answered, and all are counted, so that nobody guesses tokens unseen.
//!
//! A token bucket for each address bounds the failures that are answered with 401. The log has one line a minute and address. What is remembered
//! is bounded: addresses beyond [`MAX_ADDRESSES`] share a bucket. A valid token is never refused here.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use carillon_core::clock::{Clock, UnixMs};

/// Largest number of addresses that have buckets of their own.
const MAX_ADDRESSES: usize = 4_096;

/// Time between two log lines of one address.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// Number of bits of an IPv6 address that name the network of one client.
const IPV6_PREFIX: u32 = 64;

/// Cost of a failure, in the unit of a bucket: a rate of one a second adds one unit in a millisecond.
const COST: i64 = 1_000;

/// What becomes of a request that failed to authenticate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is told why.
    Answered,
    /// It is told that there were too many.
    Refused,
}

/// Failures to authenticate, by address.
pub struct AuthFailures {
    clock: Arc<dyn Clock>,
    /// Units by which a bucket fills in a millisecond.
    rate: i64,
    /// Units of a full bucket.
    capacity: i64,
    sources: Arc<Mutex<HashMap<Source, Failures>>>,
}

/// Origin of failures: one address, one network of IPv6, or all others.
type Source = Option<IpAddr>;

/// Failures from one source.
struct Failures {
    units: i64,
    filled_at: UnixMs,
    /// Failures since the last log line.
    unlogged: u64,
    /// Whether a log line was written within [`LOG_INTERVAL`].
    is_logged: bool,
}

impl AuthFailures {
    /// Answers `rate` failures of one address in a second, and `burst` at once.
    #[must_use]
    pub fn new(rate: u32, burst: u32, clock: Arc<dyn Clock>) -> Self {
        Self { clock, rate: i64::from(rate), capacity: i64::from(burst) * COST, sources: Arc::default() }
    }

    /// Counts a failure of a client at this address.
    pub(super) fn note(&self, from: Option<IpAddr>) -> Verdict {
        let now = self.clock.now();
        let mut sources = lock(&self.sources);
        let source = self.source_of(from, &mut sources, now);
        let full = Failures { units: self.capacity, filled_at: now, unlogged: 0, is_logged: false };
        let failures = sources.entry(source).or_insert(full);
        failures.units = self.units(failures, now);
        failures.filled_at = now;
        let verdict = if failures.units >= COST { Verdict::Answered } else { Verdict::Refused };
        if verdict == Verdict::Answered {
            failures.units -= COST;
        }
        if failures.is_logged {
            failures.unlogged += 1;
        } else {
            failures.is_logged = true;
            log(source, 1);
            tokio::spawn(log_later(Arc::clone(&self.clock), Arc::clone(&self.sources), source));
        }
        verdict
    }

    fn units(&self, failures: &Failures, now: UnixMs) -> i64 {
        let passed = i64::try_from(now.since(failures.filled_at).as_millis()).unwrap_or(i64::MAX);
        failures.units.saturating_add(passed.saturating_mul(self.rate)).min(self.capacity)
    }

    /// Returns the source of an address; the common one if there is no room for another.
    fn source_of(&self, from: Option<IpAddr>, sources: &mut HashMap<Source, Failures>, now: UnixMs) -> Source {
        let source = from.map(network);
        if sources.len() < MAX_ADDRESSES || sources.contains_key(&source) {
            return source;
        }
        sources.retain(|_, failures| failures.is_logged || self.units(failures, now) < self.capacity);
        source.filter(|_| sources.len() < MAX_ADDRESSES)
    }
}

/// Returns the address by which a client is known.
pub(super) fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let mask = u128::MAX << (u128::BITS - IPV6_PREFIX);
            IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & mask))
        }
        address @ IpAddr::V4(_) => address,
    }
}

/// Logs the failures of a source each minute, until there are none.
async fn log_later(clock: Arc<dyn Clock>, sources: Arc<Mutex<HashMap<Source, Failures>>>, source: Source) {
    loop {
        clock.sleep_until(clock.now().plus(LOG_INTERVAL)).await;
        let mut sources = lock(&sources);
        let Some(failures) = sources.get_mut(&source) else { return };
        let count = std::mem::take(&mut failures.unlogged);
        if count == 0 {
            failures.is_logged = false;
            return;
        }
        log(source, count);
    }
}

fn log(source: Source, count: u64) {
    let address = source.map(|address| address.to_string());
    tracing::warn!(address = address.as_deref().unwrap_or("others"), count, "authentication failed");
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use carillon_core::clock::SystemClock;

    fn failures(rate: u32, burst: u32) -> AuthFailures {
        AuthFailures::new(rate, burst, Arc::new(SystemClock))
    }

    fn address(text: &str) -> Option<IpAddr> {
        Some(text.parse().unwrap())
    }

    #[tokio::test]
    async fn burst_is_answered_and_the_rest_refused_for_each_address() {
        let failures = failures(1, 3);
        for from in ["192.0.2.1", "192.0.2.2", "2001:db8::1"] {
            let verdicts: Vec<_> = (0..5).map(|_| failures.note(address(from))).collect();
            use Verdict::{Answered, Refused};
            assert_eq!(verdicts, [Answered, Answered, Answered, Refused, Refused], "{from}");
        }
        assert_eq!(failures.note(address("::ffff:192.0.2.1")), Verdict::Refused, "the same address");
        assert_eq!(failures.note(address("2001:db8::2")), Verdict::Refused, "the same network");
        assert_eq!(failures.note(address("2001:db8:0:1::1")), Verdict::Answered);
    }

    #[tokio::test]
    async fn bucket_fills_again_with_time() {
        let failures = failures(1_000, 1);
        assert_eq!(failures.note(None), Verdict::Answered);
        lock(&failures.sources).get_mut(&None).unwrap().filled_at =
            failures.clock.now().minus(Duration::from_millis(1));
        assert_eq!(failures.note(None), Verdict::Answered);
    }

    #[tokio::test]
    async fn number_of_remembered_addresses_is_bounded() {
        let failures = failures(1, 1);
        for number in 0..3 * u32::try_from(MAX_ADDRESSES).unwrap() {
            failures.note(Some(std::net::Ipv4Addr::from_bits(number).into()));
        }
        assert!(lock(&failures.sources).len() <= MAX_ADDRESSES + 1);
        assert_eq!(failures.note(address("203.0.113.9")), Verdict::Refused, "addresses without a bucket share one");
    }
}
