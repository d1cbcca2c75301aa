//! Scan watermarks: where the next claim of each lane starts, so that it skips dead index entries.
//!
//! A claimed job leaves a dead entry in the index `job_due`. Claims step over it until it is vacuumed away, and as long as any transaction of
//! the database is open, be it a report or a forgotten session, vacuum removes nothing that ended since. A claim that starts at the beginning
//! of its lane then takes longer with every job. So a node remembers for each lane the time up to which it has found nothing, the watermark
//! (`front` in the code), and starts there.
//!
//! Jobs may be written before the watermark. Jobs that became due less than [`SLACK`] ago are found nevertheless, which are nearly all that
//! other nodes write. A job that this node itself writes further back moves the watermark back, or makes the node forget all watermarks. The
//! rest, such as a job that another node unblocks after an earlier job of its order key has ended, is found by the next scan from the
//! beginning: once in [`WHOLE_PERIOD`], or, where that scan takes long, as often as keeps it to a twentieth of the time.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use carillon_core::clock::{Stopwatch, UnixMs};

/// Largest age of a due job that is committed only now: longer than a busy database takes to write it.
const SLACK: Duration = Duration::from_millis(250);

/// Time between two scans from the beginning.
const WHOLE_PERIOD: Duration = Duration::from_secs(1);

/// Smallest ratio of the time without scans from the beginning to the duration of the last one.
const WHOLE_SHARE: u32 = 20;

/// Distance before the watermark that claims of expired leases and passed deadlines still scan: clocks were corrected, rows were locked.
const LATE_SLACK: Duration = Duration::from_secs(10);

/// Time between two such claims that scan from the beginning.
const LATE_WHOLE_PERIOD: Duration = Duration::from_secs(60);

/// Schedule of the scans from the beginning.
#[derive(Debug)]
struct Whole {
    period: Duration,
    last: Option<(Stopwatch, Duration)>,
}

impl Whole {
    const fn every(period: Duration) -> Self {
        Self { period, last: None }
    }

    fn is_due(&self) -> bool {
        self.last.is_none_or(|(since, took)| since.elapsed() >= self.period.max(took * WHOLE_SHARE))
    }

    fn done(&mut self, began: Stopwatch) {
        self.last = Some((began, began.elapsed()));
    }
}

/// Watermarks of one node.
#[derive(Debug)]
pub(super) struct Fronts(Mutex<Inner>);

#[derive(Debug)]
struct Inner {
    /// Watermark of each lane.
    ///
    /// None is known before the first scan from the beginning; after it, lanes that are missing here are empty.
    lanes: HashMap<i64, i64>,
    whole: Whole,
    /// Earliest job of each lane that was written since the last scan began, which may not have seen it.
    written: HashMap<i64, i64>,
    /// Number of times that all watermarks were forgotten.
    forgotten: u64,
    /// Latest time of a claim.
    now: i64,
}

/// Kind of a scan for waiting jobs.
pub(super) enum Look {
    /// A scan from the beginning.
    Whole { began: Stopwatch, forgotten: u64 },
    /// A scan of these lanes, from these times on.
    Lanes(Vec<i64>, Vec<i64>),
}

impl Fronts {
    pub(super) fn new() -> Self {
        Self(Mutex::new(Inner {
            lanes: HashMap::new(),
            whole: Whole::every(WHOLE_PERIOD),
            written: HashMap::new(),
            forgotten: 0,
            now: i64::MIN,
        }))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the kind of the next scan.
    pub(super) fn look(&self) -> Look {
        let mut inner = self.lock();
        if inner.whole.is_due() {
            inner.written.clear();
            return Look::Whole { began: Stopwatch::start(), forgotten: inner.forgotten };
        }
        let (lanes, fronts) = inner.lanes.iter().map(|(lane, front)| (*lane, *front)).unzip();
        Look::Lanes(lanes, fronts)
    }

    /// Records the first job of each lane; lanes that are missing, or have no job, are empty.
    pub(super) fn found(&self, look: Look, earliest: impl Iterator<Item = (i64, Option<i64>)>) {
        let mut inner = self.lock();
        let latest = inner.now;
        let front = |earliest: Option<i64>| UnixMs(earliest.map_or(latest, |at| at.min(latest))).minus(SLACK).0;
        match look {
            // The watermarks were forgotten during the scan: another scan is needed.
            Look::Whole { forgotten, .. } if forgotten != inner.forgotten => {}
            Look::Whole { began, .. } => {
                inner.lanes = earliest.map(|(lane, at)| (lane, front(at))).collect();
                inner.whole.done(began);
                for (lane, run_at) in std::mem::take(&mut inner.written) {
                    inner.move_back(lane, run_at);
                }
            }
            Look::Lanes(lanes, fronts) => {
                let asked: HashMap<i64, i64> = lanes.into_iter().zip(fronts).collect();
                for (lane, at) in earliest {
                    // A watermark that was moved back during the scan stays where it is.
                    if let Some(known) = inner.lanes.get_mut(&lane).filter(|known| asked.get(&lane) == Some(known)) {
                        *known = front(at).max(*known);
                    }
                }
            }
        }
    }

    /// Returns the watermarks of ten lanes from `first` on.
    pub(super) fn of(&self, first: i64) -> [i64; 10] {
        let inner = self.lock();
        let mut lane = first;
        [(); 10].map(|()| {
            let front = inner.lanes.get(&lane).copied().unwrap_or(i64::MIN);
            lane += 1;
            front
        })
    }

    /// Records a claim of jobs that are due by `due_by`.
    ///
    /// If the clock was set back, jobs may be written before all watermarks, so all are forgotten.
    pub(super) fn claim(&self, due_by: UnixMs) {
        let mut inner = self.lock();
        if due_by.plus(SLACK).0 < inner.now {
            inner.forget();
            inner.now = due_by.0;
        }
        inner.now = inner.now.max(due_by.0);
    }

    /// Records that a job was written.
    pub(super) fn written(&self, lane: i64, run_at: UnixMs) {
        let mut inner = self.lock();
        let first = inner.written.entry(lane).or_insert(run_at.0);
        *first = run_at.0.min(*first);
        if inner.whole.last.is_some() {
            inner.move_back(lane, run_at.0);
        }
    }

    /// Forgets all watermarks, because jobs may wait before them.
    pub(super) fn forget(&self) {
        self.lock().forget();
    }
}

impl Inner {
    fn forget(&mut self) {
        self.lanes.clear();
        self.whole.last = None;
        self.forgotten += 1;
    }

    fn move_back(&mut self, lane: i64, to: i64) {
        let front = self.lanes.entry(lane).or_insert(to);
        *front = to.min(*front);
    }
}

/// Watermark of claims of expired leases, or of passed deadlines.
#[derive(Debug)]
pub(super) struct LateFront(Mutex<Late>);

#[derive(Debug)]
struct Late {
    whole: Whole,
    /// Time of the last scan.
    now: UnixMs,
}

impl LateFront {
    pub(super) fn new() -> Self {
        Self(Mutex::new(Late { whole: Whole::every(LATE_WHOLE_PERIOD), now: UnixMs(i64::MIN) }))
    }

    fn lock(&self) -> MutexGuard<'_, Late> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the time from which to scan now, and the value to pass to [`Self::found_all`].
    ///
    /// If the clock was set back, the scan starts at the beginning.
    pub(super) fn look(&self, now: UnixMs) -> (UnixMs, Option<Stopwatch>) {
        let late = self.lock();
        if late.whole.is_due() || now < late.now {
            (UnixMs(i64::MIN), Some(Stopwatch::start()))
        } else {
            (late.now.minus(LATE_SLACK), None)
        }
    }

    /// Records that nothing is left up to `now`.
    pub(super) fn found_all(&self, whole: Option<Stopwatch>, now: UnixMs) {
        let mut late = self.lock();
        if let Some(began) = whole {
            late.whole.done(began);
        }
        late.now = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lanes(fronts: &Fronts) -> Vec<(i64, i64)> {
        let Look::Lanes(lanes, from) = fronts.look() else { panic!("the whole") };
        let mut lanes: Vec<_> = lanes.into_iter().zip(from).collect();
        lanes.sort_unstable();
        lanes
    }

    /// Watermarks of a node that has made one scan: lane 20 has a job at 1,000, lane 21 one in the future.
    fn fronts() -> Fronts {
        let fronts = Fronts::new();
        fronts.claim(UnixMs(5_000));
        let look = fronts.look();
        assert!(matches!(look, Look::Whole { .. }));
        fronts.found(look, [(20, Some(1_000)), (21, Some(9_000))].into_iter());
        fronts
    }

    #[test]
    fn claims_begin_shortly_before_the_first_job_and_never_after_now() {
        let fronts = fronts();
        assert_eq!(lanes(&fronts), [(20, 750), (21, 4_750)]);
        assert_eq!(fronts.of(20)[..3], [750, 4_750, i64::MIN]);
        fronts.claim(UnixMs(6_000));
        fronts.found(fronts.look(), [(20, None), (21, Some(9_000))].into_iter());
        assert_eq!(lanes(&fronts), [(20, 5_750), (21, 5_750)]);
    }

    #[test]
    fn a_clock_that_is_set_back_begins_from_the_beginning() {
        let fronts = fronts();
        fronts.claim(UnixMs(4_800));
        assert_eq!(lanes(&fronts).len(), 2, "two loops may differ by a moment");
        fronts.claim(UnixMs(3_000));
        assert!(matches!(fronts.look(), Look::Whole { .. }));
        let late = LateFront::new();
        let (from, whole) = late.look(UnixMs(50_000));
        assert_eq!(from, UnixMs(i64::MIN));
        late.found_all(whole, UnixMs(50_000));
        assert_eq!(late.look(UnixMs(51_000)).0, UnixMs(40_000));
        assert_eq!(late.look(UnixMs(49_000)).0, UnixMs(i64::MIN));
    }

    #[test]
    fn what_is_written_behind_the_front_moves_it_back() {
        let fronts = fronts();
        let look = fronts.look();
        fronts.written(21, UnixMs(100));
        fronts.written(30, UnixMs(200));
        // The scan did not see it.
        fronts.found(look, [(20, Some(1_000)), (21, Some(9_000))].into_iter());
        assert_eq!(lanes(&fronts), [(20, 750), (21, 100), (30, 200)]);
        fronts.forget();
        assert_eq!(fronts.of(20), [i64::MIN; 10]);
        fronts.written(20, UnixMs(3_000));
        assert_eq!(fronts.of(20), [i64::MIN; 10], "there may be earlier ones");
    }

    #[test]
    fn what_is_written_while_a_node_looks_is_not_lost() {
        let fronts = Fronts::new();
        fronts.claim(UnixMs(5_000));
        let look = fronts.look();
        fronts.written(30, UnixMs(200));
        fronts.found(look, [(20, Some(1_000))].into_iter());
        assert_eq!(lanes(&fronts), [(20, 750), (30, 200)]);
        fronts.forget();
        let look = fronts.look();
        fronts.forget();
        fronts.found(look, [(20, Some(1_000))].into_iter());
        assert!(matches!(fronts.look(), Look::Whole { .. }), "it may not have seen why");
    }
}
