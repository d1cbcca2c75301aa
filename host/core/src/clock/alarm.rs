//! Wakes tasks with a precision of a tenth of a millisecond.
//!
//! tokio's timer counts whole milliseconds and rounds up, which is half of a job's lateness on an idle machine. So the end of a sleep is
//! timed here: by one thread, which sleeps until the earliest of all alarms.
//!
//! An alarm is never early. An alarm whose task no longer waits is dropped when its time comes; no alarm is more than [`MAX_DELAY`] ahead.

use std::collections::BTreeMap;
use std::sync::{Condvar, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

/// Longest time of an alarm; tokio's timer covers the time before it.
pub(super) const MAX_DELAY: Duration = Duration::from_millis(3);

/// Alarms of the one thread; None if the system cannot start it.
static ALARMS: LazyLock<Option<&'static Alarms>> = LazyLock::new(|| {
    let alarms: &'static Alarms = Box::leak(Box::default());
    let thread = std::thread::Builder::new().name("alarms".to_owned()).spawn(|| alarms.ring());
    thread.ok().map(|_| alarms)
});

#[derive(Default)]
struct Alarms {
    set: Mutex<Set>,
    earlier: Condvar,
}

/// Alarms by time; the number distinguishes alarms of the same time.
#[derive(Default)]
struct Set {
    by_time: BTreeMap<(Instant, u64), oneshot::Sender<()>>,
    count: u64,
}

/// Returns after `time`, or after [`MAX_DELAY`] if that is shorter.
pub(super) async fn after(time: Duration) {
    match *ALARMS {
        // The alarm thread keeps the sender until it sends, so the result is always `Ok`.
        Some(alarms) => drop(alarms.set(time.min(MAX_DELAY)).await),
        None => tokio::time::sleep(time).await,
    }
}

impl Alarms {
    fn lock(&self) -> MutexGuard<'_, Set> {
        self.set.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, time: Duration) -> oneshot::Receiver<()> {
        let (ring, rings) = oneshot::channel();
        let mut set = self.lock();
        set.count += 1;
        let key = (now() + time, set.count);
        let is_first = set.by_time.first_key_value().is_none_or(|(first, _)| key < *first);
        set.by_time.insert(key, ring);
        drop(set);
        if is_first {
            self.earlier.notify_one();
        }
        rings
    }

    fn ring(&self) {
        let mut set = self.lock();
        loop {
            let later = set.by_time.split_off(&(now(), u64::MAX));
            let due = std::mem::replace(&mut set.by_time, later);
            if !due.is_empty() {
                drop(set);
                // A failed send means that the task no longer waits.
                due.into_values().for_each(|ring| _ = ring.send(()));
                set = self.lock();
                continue;
            }
            set = match set.by_time.first_key_value() {
                Some(((first, _), _)) => {
                    let left = first.saturating_duration_since(now());
                    self.earlier.wait_timeout(set, left).unwrap_or_else(PoisonError::into_inner).0
                }
                None => self.earlier.wait(set).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "this is a part of the clock")]
fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use futures_util::future::join_all;

    use super::*;

    #[tokio::test]
    async fn alarms_ring_in_any_order_and_never_early() {
        let alarms = (0..200_u64).map(|number| async move {
            let (time, begun) = (Duration::from_micros(number * 37 % 2_000), now());
            after(time).await;
            assert!(begun.elapsed() >= time, "{time:?}");
        });
        join_all(alarms).await;
    }

    #[tokio::test]
    async fn an_alarm_that_nobody_waits_for_is_forgotten() {
        for _ in 0..100 {
            let mut alarm = Box::pin(after(MAX_DELAY));
            assert!(futures_util::poll!(&mut alarm).is_pending());
        }
        after(MAX_DELAY).await;
        after(MAX_DELAY).await;
        assert!(ALARMS.unwrap().lock().by_time.len() < 100);
    }
}
