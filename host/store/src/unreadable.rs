//! Jobs and attempts whose stored rows cannot be read, because a disk or a person with a tool has damaged them.
//!
//! One unreadable row must not keep the others from being listed or delivered. Lists leave it out. A claim that meets an unreadable job ends
//! it, so that it is not leased again each time. Each is logged once.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use super::{ClaimDue, Jobs, StoreError, figures, lane};
use carillon_core::clock::UnixMs;
use carillon_core::error_code::ErrorCode;
use carillon_core::job::{
    AttemptDetail, AttemptError, AttemptRecord, DecisionRecord, Job, JobId, Lease, LeasedJob, Outcome, Settlement,
    State,
};

/// Largest number of rows that are remembered as logged.
///
/// If there are more, the earlier ones may be logged once more.
const MAX_NOTED: usize = 10_000;

/// Jobs, and attempts of jobs, that were logged and counted since the process began.
static NOTED: Mutex<BTreeSet<(JobId, Option<u32>)>> = Mutex::new(BTreeSet::new());

/// Jobs that a claim has leased.
#[derive(Debug, Default)]
pub struct Claimed {
    /// Jobs in the order of priority, `run_at` and id.
    pub leased: Vec<LeasedJob>,
    /// Leased jobs that cannot be read.
    pub unreadable: Vec<UnreadableJob>,
}

/// A leased job that cannot be read.
#[derive(Debug)]
pub struct UnreadableJob {
    /// Lease under which the job is ended.
    pub lease: Lease,
    /// Number of spent attempts, if it can be read.
    pub attempt_count: Option<u32>,
    /// Reason why the job cannot be read.
    pub error: StoreError,
}

impl UnreadableJob {
    /// Returns the settlement that ends the job.
    ///
    /// Nothing was sent, so no attempt is spent.
    fn dead(self, now: UnixMs) -> Settlement {
        let reason = "the stored job cannot be read";
        let attempt = AttemptRecord {
            // Where the count is lost, the number is one that no earlier attempt has.
            number: self.attempt_count.map_or(u32::MAX, |count| count.saturating_add(1)),
            started_at: now,
            finished_at: now,
            outcome: Outcome::Permanent,
            status: None,
            response_body: bytes::Bytes::new(),
            detail: AttemptDetail {
                error: Some(AttemptError {
                    code: ErrorCode::StoreUnreadable,
                    message: format!("{reason}: {}", self.error),
                }),
                decision: Some(DecisionRecord { state: State::Dead, next_run_at: None, reason: reason.to_owned() }),
                ..AttemptDetail::default()
            },
        };
        Settlement::dead_unread(self.lease, now, Arc::new(attempt))
    }
}

impl Claimed {
    /// Ends the unreadable jobs, and returns the others.
    pub async fn without_damage(self, store: &dyn Jobs, now: UnixMs) -> Vec<LeasedJob> {
        for job in self.unreadable {
            // One by one: damage may also keep one of them from being written.
            if let Err(error) = store.settle(vec![job.dead(now)]).await {
                tracing::error!(%error, "ending an unreadable job failed; retrying when its lease expires");
            }
        }
        self.leased
    }
}

/// A claim that is repeated as long as it meets unreadable jobs: they take the places of jobs that are due after them, and a caller that gets
/// fewer jobs than it asked for takes them for all.
pub struct Claiming {
    claim: ClaimDue,
    leased: Vec<LeasedJob>,
}

impl Claiming {
    /// Begins a claim.
    pub fn new(claim: ClaimDue) -> Self {
        Self { claim, leased: Vec::new() }
    }

    /// Returns the next claim: for what is left of the quotas.
    pub fn next(&self) -> ClaimDue {
        if self.leased.is_empty() {
            return self.claim.clone();
        }
        let quotas = lane::left(&self.claim.quotas, self.leased.iter().map(|leased| leased.job.group));
        ClaimDue { quotas, owed: Vec::new(), ..self.claim.clone() }
    }

    /// Takes the result of a claim, and ends its unreadable jobs. Returns all leased jobs when no further claim is needed.
    ///
    /// # Errors
    /// Returns the error of the claim, unless jobs have been leased before it.
    pub async fn add(
        &mut self,
        claimed: Result<Claimed, StoreError>,
        store: &dyn Jobs,
    ) -> Result<Option<Vec<LeasedJob>>, StoreError> {
        let claimed = match claimed {
            Err(error) if !self.leased.is_empty() => {
                tracing::warn!(%error, "claiming jobs after unreadable ones failed");
                Claimed::default()
            }
            claimed => claimed?,
        };
        let is_over = claimed.unreadable.is_empty();
        self.leased.extend(claimed.without_damage(store, self.claim.due_by).await);
        Ok(is_over.then(|| std::mem::take(&mut self.leased)))
    }
}

/// A page that is filled up in place of rows that cannot be read, because callers take a page that is not full for the last one.
pub struct Page<K, T> {
    items: Vec<T>,
    from: K,
    limit: u32,
    is_over: bool,
}

impl<K: Clone, T> Page<K, T> {
    /// Begins an empty page of the rows after `from` in the order of the list.
    pub fn new(from: K, limit: u32) -> Self {
        Self { items: Vec::new(), from, limit, is_over: false }
    }

    /// Returns the key after which to read on, and the number of rows to read; None if the page is complete.
    pub fn wanted(&self) -> Option<(K, u32)> {
        if self.is_over { None } else { Some((self.from.clone(), self.missing())) }
    }

    /// Adds the readable ones of `found` rows, the last of which is `last`.
    pub fn add(&mut self, found: usize, last: Option<K>, items: impl Iterator<Item = T>) {
        let wanted = self.missing() as usize;
        self.items.extend(items);
        self.is_over = found < wanted || last.is_none() || self.missing() == 0;
        self.from = last.unwrap_or_else(|| self.from.clone());
    }

    /// Returns the items of the page.
    pub fn items(self) -> Vec<T> {
        self.items
    }

    fn missing(&self) -> u32 {
        self.limit.saturating_sub(u32::try_from(self.items.len()).unwrap_or(u32::MAX))
    }
}

/// Returns the job, or logs and counts it if it cannot be read.
pub fn readable<E: Into<StoreError>>(id: Option<JobId>, row: Result<Job, E>) -> Option<Job> {
    row.map_err(|error| note(id, &error.into())).ok()
}

/// Logs and counts an unreadable job, the first time only.
pub fn note(id: Option<JobId>, error: &StoreError) {
    if id.is_none_or(|id| is_new(id, None)) {
        figures::count_failure(error);
        let id = id.map(|id| id.to_string());
        tracing::error!(%error, id, "stored job is unreadable; lists omit it, and it becomes a dead letter when due");
    }
}

/// Logs and counts an unreadable attempt, the first time only.
pub fn note_attempt(attempt: Option<(JobId, u32)>, error: &StoreError) {
    if attempt.is_none_or(|(job, number)| is_new(job, Some(number))) {
        figures::count_failure(error);
        let (job, number) = attempt.map(|(job, number)| (job.to_string(), number)).unzip();
        tracing::error!(%error, job, number, "stored attempt is unreadable; lists omit it");
    }
}

/// Returns whether the job, or the attempt, was not noted before.
fn is_new(job: JobId, attempt: Option<u32>) -> bool {
    let mut noted = NOTED.lock().unwrap_or_else(PoisonError::into_inner);
    if noted.len() >= MAX_NOTED {
        noted.clear();
    }
    noted.insert((job, attempt))
}
