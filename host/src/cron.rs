//! Makes the jobs of schedules when their ticks come.
//!
//! A tick's job is stored under the tick: whoever comes second, another node or this one after a restart, finds that it was dealt
//! with. So the loop may forget everything. It knows how far each schedule has come from the store, sleeps until the next tick of
//! any, is woken by changes of the catalog, and looks now and then all the same. What it has decided to store it stores, however
//! long the store cannot be reached. Once stored, a schedule's job is a job like any other.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::accept::{Api, Mould, Ticking, Why};
use crate::catalog::Schedule;
use crate::clock::UnixMs;
use crate::store::StoreError;
use crate::timetable::Timetable;

/// The longest time between two looks.
const POLL: Duration = Duration::from_secs(5);

/// The pause after the store has failed.
const STORE_PAUSE: Duration = Duration::from_millis(500);

/// How many jobs are stored in one transaction.
const BATCH: usize = 500;

/// A schedule, and how far it has come.
struct Known {
    schedule: Arc<Schedule>,
    /// Every tick up to this has been dealt with.
    handled: UnixMs,
    /// How many jobs it has made.
    runs: u64,
    /// Ticks that are to make jobs and have not yet.
    owed: Vec<UnixMs>,
    /// When to look next; never if nothing is to come.
    next: Option<UnixMs>,
    mould: Option<Mould>,
}

/// The loop.
pub struct Cron {
    api: Arc<Api>,
    known: HashMap<i64, Known>,
    /// Whether others may have made jobs that count.
    recount: bool,
}

impl Known {
    /// When it ticks; none if it does not tick at present.
    fn timetable(&self) -> Option<&Timetable> {
        self.schedule.timetable.as_ref().ok().filter(|_| !self.schedule.paused)
    }

    /// How many more jobs it may make.
    fn left(&self) -> u64 {
        self.schedule.spec.max_runs.map_or(u64::MAX, |most| most.saturating_sub(self.runs))
    }

    /// Decides what is due.
    fn look(&mut self, now: UnixMs) {
        let catch_up = self.schedule.spec.catch_up();
        let Some(due) = self.timetable().map(|timetable| timetable.due(self.handled, now, catch_up)) else { return };
        self.handled = due.ticks.last().map_or(self.handled, |last| self.handled.max(*last));
        (self.owed, self.next) = (due.ticks, due.next);
    }
}

impl Cron {
    /// With the API through which its jobs are made.
    #[must_use]
    pub fn new(api: Arc<Api>) -> Self {
        Self { api, known: HashMap::new(), recount: false }
    }

    /// Makes the jobs of schedules until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        let api = Arc::clone(&self.api);
        while !stop.is_cancelled() {
            let changed = api.catalog.changed().notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let next = match self.look().await {
                Ok(next) => next,
                Err(error) => {
                    tracing::error!(%error, "cannot make the jobs of schedules");
                    api.clock.now().plus(STORE_PAUSE)
                }
            };
            tokio::select! {
                () = changed => {}
                () = api.clock.sleep_until(next) => {}
                () = stop.cancelled() => {}
            }
        }
    }

    /// Makes the jobs that are due; returns when to look again.
    async fn look(&mut self) -> Result<UnixMs, StoreError> {
        self.refresh().await?;
        // All that is due now is decided before any of it is stored: a tick that came on time is not missed because others take long.
        let now = self.api.clock.now();
        for known in self.known.values_mut() {
            if known.owed.is_empty() && known.left() > 0 && known.next.is_some_and(|next| next <= now) {
                known.look(now);
            }
        }
        let owing: Vec<_> = self.known.iter().filter(|(_, known)| !known.owed.is_empty()).map(|(id, _)| *id).collect();
        let mut ready = Vec::new();
        for id in owing {
            ready.extend(self.jobs(id, now).await);
            if ready.len() >= BATCH {
                self.store(std::mem::take(&mut ready)).await?;
            }
        }
        self.store(ready).await?;
        self.count().await?;
        let active = self.known.values().filter(|known| known.timetable().is_some() && known.left() > 0);
        let next = active.filter_map(|known| known.next).min();
        Ok(next.map_or(now.plus(POLL), |next| next.min(now.plus(POLL))))
    }

    /// Learns of schedules that are new, were changed, or have gone.
    async fn refresh(&mut self) -> Result<(), StoreError> {
        let schedules = self.api.catalog.all_schedules();
        let is_known = |schedule: &Arc<Schedule>| {
            self.known.get(&schedule.id).is_some_and(|known| Arc::ptr_eq(&known.schedule, schedule))
        };
        let fresh: Vec<_> = schedules.iter().filter(|schedule| !is_known(schedule)).cloned().collect();
        if self.known.len() + fresh.len() > schedules.len() {
            let ids: std::collections::HashSet<_> = schedules.iter().map(|schedule| schedule.id).collect();
            self.known.retain(|id, _| ids.contains(id));
        }
        if fresh.is_empty() {
            return Ok(());
        }
        let ticked: HashMap<_, _> =
            self.api.store.ticked().await?.into_iter().map(|ticked| (ticked.schedule, ticked)).collect();
        for schedule in fresh {
            let ticked = ticked.get(&schedule.id);
            let mut handled = ticked.map_or(schedule.since, |ticked| ticked.last.max(schedule.since));
            if self.known.get(&schedule.id).is_some_and(|before| before.left() == 0) {
                // It had no more runs; those that it is given now are for what is to come.
                handled = handled.max(schedule.updated_at);
            }
            let known = Known {
                handled,
                runs: ticked.map_or(0, |ticked| ticked.runs),
                owed: Vec::new(),
                next: Some(handled),
                mould: None,
                schedule: Arc::clone(&schedule),
            };
            self.known.insert(schedule.id, known);
        }
        Ok(())
    }

    /// Counts anew what a run by hand, or another node, may have added to.
    async fn count(&mut self) -> Result<(), StoreError> {
        if !self.recount {
            return Ok(());
        }
        for ticked in self.api.store.ticked().await? {
            if let Some(known) = self.known.get_mut(&ticked.schedule) {
                known.runs = ticked.runs;
            }
        }
        self.recount = false;
        Ok(())
    }

    /// The jobs that a schedule owes. If it cannot make any, what it owes is left for when it can again.
    async fn jobs(&mut self, id: i64, now: UnixMs) -> Vec<Ticking> {
        let Some(known) = self.known.get_mut(&id) else { return Vec::new() };
        let group = self.api.catalog.group(known.schedule.tenant, &known.schedule.spec.group);
        known.mould = known.mould.take().filter(|mould| mould.fits(&known.schedule, group.as_ref()));
        if known.mould.is_none() {
            match self.api.mould(&known.schedule).await {
                Ok(mould) => known.mould = Some(mould),
                Err(problem) => {
                    let (schedule, reason) = (&known.schedule.name, problem.detail());
                    tracing::warn!(schedule, reason, "a schedule cannot make its jobs");
                    // What is not made within the catch-up window is missed.
                    let first = known.owed.first().map_or(known.handled, |first| UnixMs(first.0 - 1));
                    (known.owed, known.handled, known.next) = (Vec::new(), first, Some(now.plus(POLL)));
                    return Vec::new();
                }
            }
        }
        known.mould.iter().flat_map(|mould| mould.cast(&known.owed, Why::Time, &*self.api.clock)).collect()
    }

    /// Stores jobs, together if that goes, else those of each schedule for themselves: the group of one may just have gone.
    async fn store(&mut self, ready: Vec<Ticking>) -> Result<(), StoreError> {
        for batch in ready.chunks(BATCH) {
            match self.store_batch(batch).await {
                Err(StoreError::NoSuchGroup) => {}
                other => {
                    other?;
                    continue;
                }
            }
            for of_one in batch.chunk_by(|one, next| one.schedule.id == next.schedule.id) {
                match self.store_batch(of_one).await {
                    Err(StoreError::NoSuchGroup) => self.forget(of_one),
                    other => other?,
                }
            }
        }
        Ok(())
    }

    async fn store_batch(&mut self, batch: &[Ticking]) -> Result<(), StoreError> {
        if batch.is_empty() {
            return Ok(());
        }
        let made = self.api.insert_ticks(batch).await?;
        for (Ticking { schedule, tick, .. }, made) in batch.iter().zip(made) {
            if let Some(known) = self.known.get_mut(&schedule.id) {
                known.owed.retain(|owed| owed != tick);
                known.runs += u64::from(made);
                self.recount |= !made && known.schedule.spec.max_runs.is_some();
                tracing::debug!(schedule = known.schedule.name, %tick, made, "a schedule ticked");
            }
        }
        Ok(())
    }

    /// These ticks cannot make jobs.
    fn forget(&mut self, of_one: &[Ticking]) {
        for Ticking { schedule, tick, .. } in of_one {
            if let Some(known) = self.known.get_mut(&schedule.id) {
                tracing::warn!(schedule = known.schedule.name, %tick, "the group of a schedule has gone");
                known.owed.retain(|owed| owed != tick);
            }
        }
    }
}
