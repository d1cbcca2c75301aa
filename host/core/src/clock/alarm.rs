//! Wakes tasks to the tenth of a millisecond.
//!
//! tokio's timer counts whole milliseconds and rounds up, which is half of how late a job starts on a machine that has nothing else to do. So
//! the last stretch of a sleep is waited for here: by one thread, which sleeps until the earliest of all alarms.
//!
//! An alarm is never early. One that nobody waits for any more is forgotten when its time comes; none is further off than [`LONGEST`].

use std::collections::BTreeMap;
use std::sync::{Condvar, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

/// The longest that an alarm is off: what is further off is tokio's until then.
pub(super) const LONGEST: Duration = Duration::from_millis(3);

/// The one thread's. None if the system has no thread for it.
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

/// The alarms by time; the number tells those of one moment apart.
#[derive(Default)]
struct Set {
    by_time: BTreeMap<(Instant, u64), oneshot::Sender<()>>,
    count: u64,
}

/// Returns when so much time has passed, if it is not more than [`LONGEST`].
pub(super) async fn after(time: Duration) {
    match *ALARMS {
        // Whoever rings holds the sender until it does.
        Some(alarms) => drop(alarms.set(time.min(LONGEST)).await),
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
                // Those who do not wait any more do not mind.
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
            let mut alarm = Box::pin(after(LONGEST));
            assert!(futures_util::poll!(&mut alarm).is_pending());
        }
        after(LONGEST).await;
        after(LONGEST).await;
        assert!(ALARMS.unwrap().lock().by_time.len() < 100);
    }
}
