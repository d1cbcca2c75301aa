//! Jobs, and attempts, whose stored rows cannot be read: damage that a disk, or somebody with a tool, has done.
//!
//! One of them must not keep the others from being listed or delivered. Lists leave it out; a claim that meets it ends it, so that it is not
//! leased again each time. Each is logged once.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use super::{Jobs, StoreError, figures};
use carillon_core::clock::UnixMs;
use carillon_core::job::{
    AttemptDetail, AttemptError, AttemptRecord, DecisionRecord, Job, JobId, Lease, LeasedJob, Outcome, Settlement,
    State,
};

/// The code of the attempt that ends such a job.
const UNREADABLE: &str = "store.unreadable";

/// The most rows that are remembered as noted. If there are more, those before them may be logged once more.
const MAX_NOTED: usize = 10_000;

/// The jobs, and attempts of jobs, that were logged and counted since the process began.
static NOTED: Mutex<BTreeSet<(JobId, Option<u32>)>> = Mutex::new(BTreeSet::new());

/// What a claim has leased.
#[derive(Debug, Default)]
pub struct Claimed {
    /// In the order of priority, `run_at` and id.
    pub leased: Vec<LeasedJob>,
    /// Jobs that were met and cannot be read.
    pub unreadable: Vec<UnreadableJob>,
}

/// A job that was leased and cannot be read.
#[derive(Debug)]
pub struct UnreadableJob {
    /// The lease under which it is ended.
    pub lease: Lease,
    /// How many attempts it has spent, if that can be read.
    pub attempt_count: Option<u32>,
    /// Why it cannot be read.
    pub error: StoreError,
}

impl UnreadableJob {
    /// The end of the job. Nothing was sent, so that no attempt is spent.
    fn dead(self, now: UnixMs) -> Settlement {
        let reason = "the stored job cannot be read";
        let attempt = AttemptRecord {
            // Where the count is lost, a number that no attempt before it has.
            number: self.attempt_count.map_or(u32::MAX, |count| count.saturating_add(1)),
            started_at: now,
            finished_at: now,
            outcome: Outcome::Permanent,
            status: None,
            response_body: bytes::Bytes::new(),
            detail: AttemptDetail {
                error: Some(AttemptError { code: UNREADABLE.to_owned(), message: format!("{reason}: {}", self.error) }),
                decision: Some(DecisionRecord { state: State::Dead, next_run_at: None, reason: reason.to_owned() }),
                ..AttemptDetail::default()
            },
        };
        Settlement::dead_unread(self.lease, now, Arc::new(attempt))
    }
}

impl Claimed {
    /// Whether it has met only jobs that cannot be read: there may be others behind them.
    pub fn is_nothing_but_damage(&self) -> bool {
        self.leased.is_empty() && !self.unreadable.is_empty()
    }

    /// Ends the jobs that cannot be read, and returns the others.
    pub async fn without_damage(self, store: &dyn Jobs, now: UnixMs) -> Vec<LeasedJob> {
        for job in self.unreadable {
            // One by one: damage may keep one of them from being written, too.
            if let Err(error) = store.settle(vec![job.dead(now)]).await {
                tracing::error!(%error, "cannot end a job that cannot be read; it is met again when its lease has ended");
            }
        }
        self.leased
    }
}

/// A page that is filled up behind rows that cannot be read: one that is not full is taken for the last one.
pub struct Page<K, T> {
    items: Vec<T>,
    from: K,
    limit: u32,
    is_over: bool,
}

impl<K: Clone, T> Page<K, T> {
    /// An empty page of what comes after `from` in the order of the list.
    pub fn new(from: K, limit: u32) -> Self {
        Self { items: Vec::new(), from, limit, is_over: false }
    }

    /// After what to read on, and how many rows; none if the page is whole.
    pub fn wanted(&self) -> Option<(K, u32)> {
        if self.is_over { None } else { Some((self.from.clone(), self.missing())) }
    }

    /// Adds what could be read of `found` rows, the last of which is `last`.
    pub fn add(&mut self, found: usize, last: Option<K>, items: impl Iterator<Item = T>) {
        let wanted = self.missing() as usize;
        self.items.extend(items);
        self.is_over = found < wanted || last.is_none() || self.missing() == 0;
        self.from = last.unwrap_or_else(|| self.from.clone());
    }

    /// The items of the page.
    pub fn items(self) -> Vec<T> {
        self.items
    }

    fn missing(&self) -> u32 {
        self.limit.saturating_sub(u32::try_from(self.items.len()).unwrap_or(u32::MAX))
    }
}

/// Returns a job that can be read; notes one that cannot.
pub fn readable<E: Into<StoreError>>(id: Option<JobId>, row: Result<Job, E>) -> Option<Job> {
    row.map_err(|error| note(id, &error.into())).ok()
}

/// Logs and counts a job that cannot be read, if it is the first time.
pub fn note(id: Option<JobId>, error: &StoreError) {
    if id.is_none_or(|id| is_new(id, None)) {
        figures::count_failure(error);
        let id = id.map(|id| id.to_string());
        tracing::error!(%error, id, "a stored job cannot be read; lists leave it out, and it ends dead when it is due");
    }
}

/// Logs and counts an attempt that cannot be read, if it is the first time.
pub fn note_attempt(attempt: Option<(JobId, u32)>, error: &StoreError) {
    if attempt.is_none_or(|(job, number)| is_new(job, Some(number))) {
        figures::count_failure(error);
        let (job, number) = attempt.map(|(job, number)| (job.to_string(), number)).unzip();
        tracing::error!(%error, job, number, "a stored attempt cannot be read; it is left out");
    }
}

/// Whether a job, or an attempt of it, was not noted before.
fn is_new(job: JobId, attempt: Option<u32>) -> bool {
    let mut noted = NOTED.lock().unwrap_or_else(PoisonError::into_inner);
    if noted.len() >= MAX_NOTED {
        noted.clear();
    }
    noted.insert((job, attempt))
}
