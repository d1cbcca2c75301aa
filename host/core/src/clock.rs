//! Clock: time and randomness, passed in.
//!
//! No other module of the crate reads the operating system's time or random source (a lint refuses it), so that tests can move time by hand
//! through the loops that run in production.

mod alarm;
pub mod rfc3339;

use std::fmt;
use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

/// Longest sleep of [`SystemClock`] before it reads the wall clock again, so that it notices within this time that the clock was set forward.
const MAX_SLEEP: Duration = Duration::from_secs(1);

/// Time before a deadline at which [`Clock::sleep_until_nearly`] may return.
pub const LEAD_TIME: Duration = alarm::MAX_DELAY;

/// A point in time: milliseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UnixMs(pub i64);

impl UnixMs {
    /// Latest time; no job can be due then.
    pub const MAX: Self = Self(i64::MAX);

    /// Returns this time plus `duration`, rounded up to a whole millisecond so that nothing becomes due early.
    #[must_use]
    #[inline]
    pub fn plus(self, duration: Duration) -> Self {
        let ms = duration.as_nanos().div_ceil(1_000_000);
        Self(self.0.saturating_add(i64::try_from(ms).unwrap_or(i64::MAX)))
    }

    /// Returns this time minus `duration`.
    #[must_use]
    #[inline]
    pub fn minus(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)))
    }

    /// Returns the time since `earlier`; zero if `earlier` is later.
    #[must_use]
    #[inline]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// Returns this time for a policy, with times before 1970 as 0.
    #[must_use]
    #[inline]
    pub fn as_u64(self) -> u64 {
        u64::try_from(self.0).unwrap_or(0)
    }
}

impl fmt::Display for UnixMs {
    /// Formats the time as RFC 3339 in UTC with milliseconds.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_millisecond(self.0) {
            Ok(at) => write!(f, "{at:.3}"),
            Err(_) => write!(f, "{}ms", self.0),
        }
    }
}

/// Future that [`Clock::sleep_until`] returns.
pub type Sleep<'a> = Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

/// Source of the time and of all randomness.
pub trait Clock: fmt::Debug + Send + Sync {
    /// Returns the wall-clock time, rounded down.
    fn now(&self) -> UnixMs;

    /// Returns as soon as `now()` is `at` or later. Cancel safe.
    fn sleep_until(&self, at: UnixMs) -> Sleep<'_>;

    /// Returns before `at`, by at most [`LEAD_TIME`], or a little later.
    ///
    /// For work that must be finished by `at`. Cancel safe.
    fn sleep_until_nearly(&self, at: UnixMs) -> Sleep<'_> {
        self.sleep_until(at.minus(LEAD_TIME))
    }

    /// Fills `bytes` with unpredictable bytes.
    fn fill_random(&self, bytes: &mut [u8]);
}

/// The operating system's clock and random source.
#[derive(Debug, Default, Clone, Copy)]
pub struct SystemClock;

impl SystemClock {
    /// Returns the wall-clock time in microseconds since 1970.
    ///
    /// For measurements of lateness that are finer than the clock's milliseconds.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is where the time comes from")]
    pub fn now_micros(self) -> i64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
    }

    /// Returns the time until `at`; zero if `at` has passed.
    fn left(self, at: UnixMs) -> Duration {
        let left = at.0.saturating_mul(1_000).saturating_sub(self.now_micros());
        Duration::from_micros(u64::try_from(left).unwrap_or(0))
    }
}

impl Clock for SystemClock {
    fn now(&self) -> UnixMs {
        UnixMs(self.now_micros().div_euclid(1_000))
    }

    fn sleep_until(&self, at: UnixMs) -> Sleep<'_> {
        Box::pin(async move {
            loop {
                self.sleep_until_nearly(at).await;
                match self.left(at) {
                    Duration::ZERO => return,
                    left => alarm::after(left).await,
                }
            }
        })
    }

    fn sleep_until_nearly(&self, at: UnixMs) -> Sleep<'_> {
        Box::pin(async move {
            // The nap may take a millisecond longer, which still leaves time for the alarm.
            while let Some(nap) = self.left(at).checked_sub(alarm::MAX_DELAY).filter(|nap| !nap.is_zero()) {
                tokio::time::sleep(nap.min(MAX_SLEEP)).await;
            }
        })
    }

    fn fill_random(&self, bytes: &mut [u8]) {
        #[expect(clippy::expect_used, reason = "without randomness no key, token or id is safe: stop")]
        getrandom::fill(bytes).expect("the operating system's random source works");
    }
}

/// Measures durations for records and metrics only: no decision depends on it.
#[derive(Debug, Clone, Copy)]
pub struct Stopwatch(Instant);

impl Stopwatch {
    /// Starts the measurement.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is where measured durations come from")]
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// Returns the time since the start.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}

/// Returns the instant that is `time` from now.
///
/// For timeouts of input and output only.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is where deadlines of input and output come from")]
pub fn deadline_after(time: Duration) -> tokio::time::Instant {
    const FAR: Duration = Duration::from_secs(30 * 366 * 86_400);
    let now = tokio::time::Instant::now();
    now + time.min(FAR)
}

/// Waits for `time`, independently of the wall clock.
///
/// For pauses after a failure only: the store's return does not depend on the jobs' clock, which may stand still or be set back.
pub async fn pause(time: Duration) {
    tokio::time::sleep(time).await;
}

/// Waits for `time`, or until `stop` is cancelled.
pub async fn pause_until_stopped(time: Duration, stop: &CancellationToken) {
    tokio::select! {
        () = pause(time) => {}
        () = stop.cancelled() => {}
    }
}

/// Sets a file's modification time to now, to record that it was used.
///
/// Only its age compared with other files' ages counts.
///
/// # Errors
/// Returns an error if the file does not exist, or if the file system stores no times.
#[expect(clippy::disallowed_methods, reason = "this is where the time comes from")]
pub fn touch(file: &Path) -> std::io::Result<()> {
    std::fs::File::open(file)?.set_modified(SystemTime::now())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adding_a_fraction_of_a_millisecond_rounds_up() {
        assert_eq!(UnixMs(5).plus(Duration::from_micros(1)), UnixMs(6));
        assert_eq!(UnixMs(5).plus(Duration::MAX), UnixMs::MAX);
    }

    #[test]
    fn prints_rfc_3339_with_milliseconds() {
        assert_eq!(UnixMs(1_795_168_800_250).to_string(), "2026-11-20T10:00:00.250Z");
    }

    #[tokio::test]
    async fn never_wakes_early() {
        let clock = SystemClock;
        let at = clock.now().plus(Duration::from_millis(3));
        clock.sleep_until(at).await;
        assert!(clock.now() >= at);
    }
}
