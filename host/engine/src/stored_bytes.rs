//! Bytes that the jobs of each tenant take in the store.
//!
//! A write adds to a number in memory and to nothing else. The numbers come from counts of what is stored: one begins at a tenant's first job
//! after the start, when a tenant seems to be over its quota, and now and then. Counts go page by page, in turns of all tenants, and read no
//! payload, so that a count of ten million jobs takes minutes and keeps nobody waiting. Between two counts, what is removed is not taken off,
//! so the number is too low only by what other nodes have written meanwhile.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use carillon_catalog::Catalog;
use carillon_core::clock::{Stopwatch, deadline_after, pause, pause_until_stopped};
use carillon_core::job::{GroupId, JobId, NewJob, Settlement, TenantId};
use carillon_core::limits::{QuotaExceeded, json_len};
use carillon_store::{JobFilter, JobsQuery, Store, StoreError};

/// Number of jobs in a page of a count.
const PAGE: u32 = 500;

/// Time for which a request waits for a count: most take a few milliseconds.
const WAIT: Duration = Duration::from_millis(250);

/// A count that took less is repeated whenever a decision depends on it; a longer one after this many times its duration.
const CHEAP_COUNT: Duration = Duration::from_millis(50);
const COUNT_PAUSE: u32 = 4;

/// Age after which a tenant in use is counted again, at least, and as a multiple of the duration of the count.
const MAX_AGE: Duration = Duration::from_secs(60);
const MAX_AGE_IN_COUNTS: u32 = 100;

/// A page is followed by a pause of this many times its duration, once a count has more than [`CHEAP_COUNT`] behind it.
const PAGE_PAUSE: u32 = 3;

/// The pause after the store has failed.
const STORE_PAUSE: Duration = Duration::from_secs(1);

/// Bytes of an attempt besides its headers and its body, about. The next count knows better.
const ATTEMPT_BYTES: usize = 1 << 10;

/// Bytes that are stored, by tenant.
pub struct StoredBytes {
    store: Arc<dyn Store>,
    catalog: Arc<Catalog>,
    state: Mutex<State>,
    /// Fires when a count is requested, and when one has ended.
    changed: Notify,
}

#[derive(Default)]
struct State {
    known: HashMap<TenantId, Known>,
    /// Tenants to be counted, and those that are being counted.
    counting: VecDeque<Count>,
}

/// What is known of a tenant.
struct Known {
    /// Bytes at the last count; `None` before the first one.
    counted: Option<u64>,
    /// Bytes written since the beginning of that count, or since the start.
    added: u64,
    /// Number of counts that have ended.
    counts: u64,
    since: Stopwatch,
    took: Duration,
    /// Begin of the present count.
    present: Option<Stopwatch>,
}

/// A count under way.
struct Count {
    tenant: TenantId,
    groups: Option<Vec<GroupId>>,
    before: Option<JobId>,
    bytes: u64,
    /// What had been written when it began.
    added_before: u64,
    stopwatch: Stopwatch,
}

impl Known {
    fn used(&self) -> Option<u64> {
        self.counted.map(|counted| counted.saturating_add(self.added))
    }

    /// Returns whether a decision justifies another count now.
    fn may_be_counted(&self) -> bool {
        let is_cheap = self.took <= CHEAP_COUNT || self.since.elapsed() >= self.took * COUNT_PAUSE;
        self.present.is_none() && (self.counted.is_none() || is_cheap)
    }

    fn is_old(&self) -> bool {
        self.present.is_none() && self.since.elapsed() >= MAX_AGE.max(self.took * MAX_AGE_IN_COUNTS)
    }

    /// Returns whether the count under way may end soon.
    fn is_worth_waiting(&self) -> bool {
        self.present.is_some_and(|present| present.elapsed() < WAIT)
    }
}

impl StoredBytes {
    /// Creates an empty table.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, catalog: Arc<Catalog>) -> Self {
        Self { store, catalog, state: Mutex::default(), changed: Notify::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Checks that a tenant may store `added` more bytes, and adds them.
    ///
    /// # Errors
    /// Returns [`QuotaExceeded`] if its quota does not allow it.
    pub async fn admit(&self, tenant: TenantId, added: u64) -> Result<(), QuotaExceeded> {
        let fits = |used: Option<u64>| self.catalog.check_stored_bytes(tenant, used.unwrap_or(0), added);
        let known = self.used_now(tenant);
        let used = if known.is_some() && fits(known).is_ok() { known } else { self.counted(tenant).await };
        fits(used)?;
        self.add(tenant, added);
        Ok(())
    }

    /// Returns how many bytes the tenant's jobs take; `None` while they are counted for the first time.
    pub async fn used(&self, tenant: TenantId) -> Option<u64> {
        self.counted(tenant).await
    }

    /// Adds what was written for a tenant.
    pub fn add(&self, tenant: TenantId, bytes: u64) {
        if let Some(known) = self.lock().known.get_mut(&tenant) {
            known.added = known.added.saturating_add(bytes);
        }
    }

    /// Adds the attempt and the follow-up jobs of a settlement.
    pub fn add_settled(&self, tenant: TenantId, settlement: &Settlement) {
        let attempt = settlement.attempt.as_ref().map_or(0, |attempt| {
            let headers = attempt.detail.response_headers.iter().map(|(name, value)| name.len() + value.len());
            ATTEMPT_BYTES + attempt.response_body.len() + headers.sum::<usize>()
        });
        self.add(tenant, to_u64(attempt).saturating_add(bytes_of(&settlement.follow_ups)));
    }

    /// Returns the number in memory, and requests a count if it is old.
    fn used_now(&self, tenant: TenantId) -> Option<u64> {
        let mut state = self.lock();
        let known = state.known.get(&tenant)?;
        let (used, is_old) = (known.used(), known.is_old());
        if is_old {
            self.request(&mut state, tenant);
        }
        used
    }

    /// Returns the number after a fresh count, if one can be had soon; else the one in memory.
    async fn counted(&self, tenant: TenantId) -> Option<u64> {
        let deadline = deadline_after(WAIT);
        let counts = {
            let mut state = self.lock();
            if state.known.get(&tenant).is_none_or(Known::may_be_counted) {
                self.request(&mut state, tenant);
            }
            state.known.get(&tenant).map_or(0, |known| known.counts)
        };
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let used = {
                let state = self.lock();
                let known = state.known.get(&tenant)?;
                if known.counts > counts || !known.is_worth_waiting() {
                    return known.used();
                }
                known.used()
            };
            if tokio::time::timeout_at(deadline, changed).await.is_err() {
                return used;
            }
        }
    }

    /// Begins a count.
    fn request(&self, state: &mut State, tenant: TenantId) {
        let stopwatch = Stopwatch::start();
        let known = state.known.entry(tenant).or_insert_with(|| Known {
            counted: None,
            added: 0,
            counts: 0,
            since: stopwatch,
            took: Duration::ZERO,
            present: None,
        });
        known.present = Some(stopwatch);
        let added_before = known.added;
        state.counting.push_back(Count { tenant, groups: None, before: None, bytes: 0, added_before, stopwatch });
        self.changed.notify_waiters();
    }

    /// Counts what is requested, until `stop`.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        self.resume();
        while !stop.is_cancelled() {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let next = self.lock().counting.pop_front();
            let Some(mut count) = next else {
                tokio::select! {
                    () = changed => {}
                    () = pause(MAX_AGE) => self.forget_deleted(),
                    () = stop.cancelled() => {}
                }
                continue;
            };
            let page = Stopwatch::start();
            match self.page(&mut count).await {
                Ok(true) => self.finish(&count),
                Ok(false) => {
                    let is_long = count.stopwatch.elapsed() > CHEAP_COUNT;
                    self.lock().counting.push_back(count);
                    if is_long {
                        pause_until_stopped(page.elapsed() * PAGE_PAUSE, &stop).await;
                    }
                }
                Err(error) => {
                    tracing::debug!(tenant = count.tenant.0, %error, "counting stored bytes failed; trying again");
                    self.lock().counting.push_back(count);
                    pause_until_stopped(STORE_PAUSE, &stop).await;
                }
            }
        }
    }

    /// Begins again with the counts of an earlier run, of which one may have been lost.
    fn resume(&self) {
        let mut state = self.lock();
        state.counting.clear();
        let begun = state.known.iter().filter(|(_, known)| known.present.is_some()).map(|(tenant, _)| *tenant);
        for tenant in begun.collect::<Vec<_>>() {
            self.request(&mut state, tenant);
        }
    }

    /// Counts one page; returns whether it was the last one.
    async fn page(&self, count: &mut Count) -> Result<bool, StoreError> {
        let tenant = count.tenant;
        let groups =
            count.groups.get_or_insert_with(|| self.catalog.groups(tenant).into_iter().map(|group| group.id).collect());
        let Some(group) = groups.last().copied() else { return Ok(true) };
        let filter = JobFilter::all(tenant, group);
        let jobs = self.store.jobs(JobsQuery { filter, before: count.before, limit: PAGE }).await?;
        let ids: Vec<_> = jobs.iter().map(|job| job.id).collect();
        count.before = ids.last().copied();
        if !ids.is_empty() {
            count.bytes = count.bytes.saturating_add(self.store.job_bytes(ids).await?);
        }
        if jobs.len() < PAGE as usize {
            groups.pop();
            count.before = None;
        }
        Ok(groups.is_empty())
    }

    fn finish(&self, count: &Count) {
        let mut state = self.lock();
        if let Some(known) = state.known.get_mut(&count.tenant) {
            known.counted = Some(count.bytes);
            known.added = known.added.saturating_sub(count.added_before);
            known.counts += 1;
            (known.since, known.took, known.present) = (Stopwatch::start(), count.stopwatch.elapsed(), None);
        }
        self.changed.notify_waiters();
    }

    fn forget_deleted(&self) {
        let tenants: std::collections::HashSet<_> = self.catalog.tenants().iter().map(|tenant| tenant.id).collect();
        self.lock().known.retain(|tenant, known| known.present.is_some() || tenants.contains(tenant));
    }
}

/// Returns the size of the payloads and documents of new jobs.
pub fn bytes_of(jobs: &[NewJob]) -> u64 {
    jobs.iter().map(|job| to_u64(job.body.len().saturating_add(json_len(&job.spec)))).fold(0, u64::saturating_add)
}

fn to_u64(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}
