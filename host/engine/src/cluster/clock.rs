//! Database clock: the time on which all nodes agree, however much their own clocks differ.
//!
//! A node keeps the offset of its clock from the database's, and corrects it with every sample that contradicts it. So jobs, leases and ticks
//! share one time, and no verb has to query it. Of the offsets that the samples allow, the node takes the smallest: its time is behind the
//! database's by at most the duration of the fastest sample plus a millisecond, and never ahead, so no job is early.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use carillon_core::clock::{Clock, Sleep, UnixMs};
use carillon_store::{Peers, StoreError};

/// Number of samples at the start. The fastest one is the most precise.
const QUESTIONS: usize = 5;

/// Longest sleep before the offset is checked again.
const MAX_SLEEP: Duration = Duration::from_secs(1);

/// Smallest correction that is logged, in milliseconds.
const WORTH_A_WORD: i64 = 100;

/// Clock that follows the database's.
#[derive(Debug)]
pub struct DatabaseClock {
    local: Arc<dyn Clock>,
    /// Offset to add to the local time, in milliseconds.
    offset: AtomicI64,
}

impl DatabaseClock {
    /// Reads the database's time.
    ///
    /// # Errors
    /// Returns the store's error if the database does not respond.
    pub async fn start(local: Arc<dyn Clock>, peers: &dyn Peers) -> Result<Self, StoreError> {
        let mut offset = i64::MIN;
        for _ in 0..QUESTIONS {
            let before = local.now();
            let there = peers.time().await?;
            offset = ClockSample { before, there, after: local.now() }.corrected(offset);
        }
        tracing::info!(offset_ms = offset, "synchronized with the database's clock");
        Ok(Self { local, offset: AtomicI64::new(offset) })
    }

    /// Returns the node's own time, for [`DatabaseClock::correct`].
    #[must_use]
    pub fn local(&self) -> UnixMs {
        self.local.now()
    }

    /// Corrects the offset by a sample.
    pub fn correct(&self, sample: ClockSample) {
        let old = self.offset.load(Ordering::Relaxed);
        let new = sample.corrected(old);
        self.offset.store(new, Ordering::Relaxed);
        if (new - old).abs() >= WORTH_A_WORD {
            tracing::warn!(
                change_ms = new - old,
                "offset to the database's clock has changed; check time synchronization"
            );
        }
    }
}

impl Clock for DatabaseClock {
    fn now(&self) -> UnixMs {
        UnixMs(self.local.now().0.saturating_add(self.offset.load(Ordering::Relaxed)))
    }

    fn sleep_until(&self, at: UnixMs) -> Sleep<'_> {
        Box::pin(async move {
            loop {
                let left = at.since(self.now());
                if left.is_zero() {
                    return;
                }
                self.local.sleep_until(self.local.now().plus(left.min(MAX_SLEEP))).await;
            }
        })
    }

    fn sleep_until_nearly(&self, at: UnixMs) -> Sleep<'_> {
        Box::pin(async move {
            self.sleep_until(at.minus(MAX_SLEEP)).await;
            // The rest is slept by the local clock, which needs no further check.
            self.local.sleep_until_nearly(self.local.now().plus(at.since(self.now()))).await;
        })
    }

    fn fill_random(&self, bytes: &mut [u8]) {
        self.local.fill_random(bytes);
    }
}

/// One sample: the database's time at some moment between two local times.
#[derive(Clone, Copy)]
pub struct ClockSample {
    /// Local time of the query.
    pub before: UnixMs,
    /// The database's time.
    pub there: UnixMs,
    /// Local time of the response.
    pub after: UnixMs,
}

impl ClockSample {
    /// Returns the smallest offset that the sample allows. Both times are rounded down to a millisecond.
    fn least(&self) -> i64 {
        self.there.0.saturating_sub(self.after.0).saturating_sub(1)
    }

    fn most(&self) -> i64 {
        self.there.0.saturating_sub(self.before.0).saturating_add(1)
    }

    /// Returns an offset that the sample allows: the previous one if possible, else the smallest.
    fn corrected(&self, offset: i64) -> i64 {
        if (self.least()..=self.most()).contains(&offset) { offset } else { self.least() }
    }
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;
    use uuid::Uuid;

    use super::*;
    use carillon_core::test_util::{ManualClock, SkewedClock};
    use carillon_store::{Heartbeat, MemberList, Signals};

    /// A database whose time is another clock's.
    struct TimeOf(Arc<dyn Clock>);

    #[async_trait]
    impl Peers for TimeOf {
        async fn time(&self) -> Result<UnixMs, StoreError> {
            Ok(self.0.now())
        }

        async fn beat(&self, _: Heartbeat) -> Result<MemberList, StoreError> {
            unreachable!("only the time is read")
        }

        async fn leave(&self, _: Uuid) -> Result<(), StoreError> {
            unreachable!("only the time is read")
        }

        async fn tell(&self, _: Uuid) -> Result<(), StoreError> {
            unreachable!("only the time is read")
        }

        async fn listen(&self, _: Uuid) -> Result<Box<dyn Signals>, StoreError> {
            unreachable!("only the time is read")
        }
    }

    #[tokio::test]
    async fn clock_follows_the_database_however_far_its_time_is_from_the_nodes() {
        for ahead in [-86_400_000, -1, 0, 1, 5_000, 86_400_000] {
            let local = ManualClock::new();
            let there = ManualClock::new();
            there.turn_back(UnixMs(there.now().0 + ahead));
            let clock = DatabaseClock::start(Arc::clone(&local) as _, &TimeOf(Arc::clone(&there) as _)).await.unwrap();
            for _ in 0..3 {
                assert_eq!(
                    clock.now(),
                    there.now().minus(Duration::from_millis(1)),
                    "behind by the rounding, never ahead"
                );
                for moved in [&local, &there] {
                    moved.advance(Duration::from_secs(7));
                }
            }
        }
    }

    #[tokio::test]
    async fn sleep_on_a_skewed_node_lasts_until_the_databases_time() {
        for skew in [-5_000, 0, 5_000] {
            let database = TimeOf(SkewedClock::new(60_000));
            let clock = DatabaseClock::start(SkewedClock::new(skew), &database).await.unwrap();
            let at = database.time().await.unwrap().plus(Duration::from_millis(20));
            clock.sleep_until(at).await;
            assert!(database.time().await.unwrap() >= at, "not early with a clock that is {skew} ms wrong");
        }
    }

    #[tokio::test]
    async fn database_time_that_jumps_is_followed_with_the_next_sample() {
        let (local, there) = (ManualClock::new(), ManualClock::new());
        let clock = DatabaseClock::start(Arc::clone(&local) as _, &TimeOf(Arc::clone(&there) as _)).await.unwrap();
        for at in [there.now().plus(Duration::from_secs(300)), there.now().minus(Duration::from_secs(300))] {
            there.turn_back(at);
            let (before, after) = (clock.local(), clock.local());
            clock.correct(ClockSample { before, there: there.now(), after });
            assert_eq!(clock.now(), at.minus(Duration::from_millis(1)));
        }
    }

    fn reading(before: i64, there: i64, after: i64) -> ClockSample {
        ClockSample { before: UnixMs(before), there: UnixMs(there), after: UnixMs(after) }
    }

    #[test]
    fn a_distance_is_kept_while_answers_allow_it() {
        let slow = reading(1_000, 6_010, 1_400);
        assert_eq!((slow.least(), slow.most()), (4_609, 5_011));
        assert_eq!(slow.corrected(5_000), 5_000);
        assert_eq!(slow.corrected(5_500), 4_609);
        assert_eq!(slow.corrected(0), 4_609);
    }

    #[test]
    fn a_node_is_never_ahead() {
        // All in tenths of a millisecond; readings show whole ones. Each sample took most of its time on the way there, or back.
        for (there, back) in [(90, 1), (1, 90), (9, 9), (0, 0), (25, 31)] {
            for truth in [-17, -10, -1, 0, 3, 10, 50_001] {
                let mut offset = i64::MIN;
                for start in 10_000_000..10_000_030_i64 {
                    let shown = |tenths: i64| tenths.div_euclid(10);
                    let (asked, after) = (start + there, start + there + back);
                    offset = reading(shown(start), shown(asked + truth), shown(after)).corrected(offset);
                    for now in after..after + 20 {
                        let behind = shown(now + truth) - (shown(now) + offset);
                        assert!(
                            (0..=(there + back) / 10 + 3).contains(&behind),
                            "{behind} ms behind: {there} {back} {truth}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn a_clock_that_was_set_back_while_an_answer_came_does_no_harm() {
        let odd = reading(9_000, 5_000, 1_000);
        assert_eq!(odd.corrected(0), 3_999);
    }
}
