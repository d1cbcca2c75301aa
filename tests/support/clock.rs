//! Time that stands still until it is moved.

use std::sync::Arc;
use std::time::Duration;

use carillon_core::clock::{Clock, Sleep, SystemClock, UnixMs};
use serde_json::Value;
use tokio::sync::watch;

/// 2026-11-20T10:00:00Z
const START: UnixMs = UnixMs(1_795_168_800_000);

/// A clock that is moved by hand. Whoever sleeps on it wakes as soon as its time has come, so that moving it loses nothing.
#[derive(Debug)]
pub struct ManualClock(watch::Sender<UnixMs>);

impl ManualClock {
    pub fn new() -> Arc<Self> {
        Arc::new(Self(watch::Sender::new(START)))
    }

    /// Moves it to `at`, never back.
    pub fn set(&self, at: UnixMs) {
        self.0.send_modify(|now| {
            assert!(at >= *now, "the clock is at {now} and does not go back to {at}");
            *now = at;
        });
    }

    /// Sets it to an earlier time, as an operator might who corrects a mistake.
    pub fn turn_back(&self, to: UnixMs) {
        self.0.send_modify(|now| *now = to);
    }

    pub fn advance(&self, by: Duration) {
        self.set(self.now().plus(by));
    }
}

impl Clock for ManualClock {
    fn now(&self) -> UnixMs {
        *self.0.borrow()
    }

    fn sleep_until(&self, at: UnixMs) -> Sleep<'_> {
        let mut now = self.0.subscribe();
        Box::pin(async move {
            now.wait_for(|now| *now >= at).await.expect("the clock is there as long as somebody sleeps on it");
        })
    }

    fn fill_random(&self, bytes: &mut [u8]) {
        SystemClock.fill_random(bytes);
    }
}

/// The system's clock, set wrong.
#[derive(Debug)]
pub struct SkewedClock {
    ahead: i64,
}

impl SkewedClock {
    /// So many milliseconds ahead of the right time.
    pub fn new(ahead: i64) -> Arc<Self> {
        Arc::new(Self { ahead })
    }
}

impl Clock for SkewedClock {
    fn now(&self) -> UnixMs {
        UnixMs(SystemClock.now().0 + self.ahead)
    }

    fn sleep_until(&self, at: UnixMs) -> Sleep<'_> {
        Box::pin(async move { SystemClock.sleep_until(UnixMs(at.0 - self.ahead)).await })
    }

    fn fill_random(&self, bytes: &mut [u8]) {
        SystemClock.fill_random(bytes);
    }
}

/// A time as the API writes it.
pub fn ms(text: &Value) -> UnixMs {
    let text = text.as_str().expect("a time is a text");
    let at: jiff::Timestamp = text.parse().expect("a time is RFC 3339");
    assert!(text.ends_with('Z') && text.len() == "2026-11-20T10:00:00.250Z".len(), "UTC with milliseconds: {text}");
    UnixMs(at.as_millisecond())
}
