//! Schedule runner: makes the jobs of schedules when their ticks are due.
//!
//! Each tick's job is stored under the tick, and so is the reason for which a tick makes none. A second run of the same tick, by another node
//! or by this one after a restart, finds that record and makes nothing. So the loop needs no memory of its own: it reads each schedule's
//! progress from the store, sleeps until the next tick of any schedule, is woken by changes of the catalog, and also polls. What it has
//! decided to store it keeps trying to store, however long the store is unavailable. Once stored, a schedule's job is a job like any other.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::intake::{Intake, ScheduleTemplate, TickJob, TickTrigger};
use carillon_catalog::Schedule;
use carillon_core::clock::{self, UnixMs};
use carillon_core::job::{SkipReason, SkippedTicks};
use carillon_core::timetable::{TickRange, Timetable};
use carillon_store::{InsertOutcome, StoreError, Ticked};

/// Longest time between two runs of the loop, by the clock and without it.
const POLL: Duration = Duration::from_secs(5);

/// The pause after the store has failed.
const STORE_PAUSE: Duration = Duration::from_millis(500);

/// Largest number of jobs that one transaction stores.
const BATCH: usize = 500;

/// Progress of one schedule.
struct ScheduleState {
    schedule: Arc<Schedule>,
    /// Newest tick that has been handled; all earlier ones have, too.
    handled: UnixMs,
    /// Number of jobs made that count towards `max_runs`.
    runs: u64,
    /// Ticks that make no jobs, and whose records are not yet stored.
    skipped: Vec<SkippedTicks>,
    /// Ticks whose jobs are not yet made, each with its trigger.
    owed: Vec<(UnixMs, TickTrigger)>,
    /// Whether the first tick after the schedule's end has been recorded.
    is_closed: bool,
    /// Reason for which it cannot make jobs at present, after it tried and failed.
    hindrance: Option<SkipReason>,
    /// Time of the next decision; `None` if no tick is to come.
    next: Option<UnixMs>,
    template: Option<ScheduleTemplate>,
}

/// Makes the jobs of all schedules, in one loop.
pub struct ScheduleRunner {
    intake: Arc<Intake>,
    known: HashMap<i64, ScheduleState>,
    /// Whether other nodes may have made jobs that count towards `max_runs`.
    recount: bool,
}

/// Result of a schedule's next tick.
enum NextTick {
    /// The tick makes a job, or is too late for one.
    Active,
    /// The tick makes no job, nor do later ones while the schedule is paused.
    Paused,
    /// The tick makes no job, and later ones are not recorded.
    Over(SkipReason),
}

impl ScheduleState {
    fn new(schedule: &Arc<Schedule>, ticked: Option<&Ticked>, handled: UnixMs) -> Self {
        Self {
            schedule: Arc::clone(schedule),
            handled,
            runs: ticked.map_or(0, Ticked::counted),
            skipped: Vec::new(),
            owed: Vec::new(),
            is_closed: ticked.and_then(|ticked| ticked.reason).is_some_and(SkipReason::is_final),
            hindrance: None,
            next: Some(handled),
            template: None,
        }
    }

    /// Returns how many more jobs the schedule may make.
    fn runs_left(&self) -> u64 {
        self.schedule.spec.max_runs.map_or(u64::MAX, |most| most.saturating_sub(self.runs))
    }

    fn next_tick(&self, timetable: &Timetable) -> NextTick {
        if self.runs_left() == 0 {
            return NextTick::Over(SkipReason::MaxRuns);
        }
        if timetable.end.is_some() && timetable.after(self.handled).next().is_none() {
            return NextTick::Over(SkipReason::Ended);
        }
        if self.schedule.paused { NextTick::Paused } else { NextTick::Active }
    }

    /// Decides which ticks are due.
    fn collect_due(&mut self, now: UnixMs) {
        let schedule = Arc::clone(&self.schedule);
        let Ok(timetable) = &schedule.timetable else {
            self.next = None;
            return;
        };
        let range = TickRange { after: self.handled, last: now };
        match self.next_tick(timetable) {
            NextTick::Active => {
                let due = timetable.due(range, schedule.spec.catch_up());
                self.handled = due.last().map_or(self.handled, |last| self.handled.max(last));
                let with = |why| move |tick| (tick, why);
                let missed = due.missed.into_iter().map(with(trigger_of_missed(schedule.spec.catch_up_all)));
                self.owed = missed.chain(due.on_time.into_iter().map(with(TickTrigger::Time))).collect();
                let hindered = |skipped: SkippedTicks| SkippedTicks {
                    reason: self.hindrance.unwrap_or(skipped.reason),
                    ..skipped
                };
                self.skipped = due.skipped.into_iter().map(hindered).collect();
                self.next = due.next.or_else(|| timetable.after_end(self.handled.max(now)));
            }
            NextTick::Paused => {
                self.skipped = Vec::from_iter(timetable.skipped(range, SkipReason::Paused));
                self.handled = self.skipped.last().map_or(self.handled, |skipped| skipped.last);
                self.next = timetable.after(self.handled.max(now)).next();
                self.next = self.next.or_else(|| timetable.after_end(self.handled.max(now)));
            }
            NextTick::Over(_) if self.is_closed => self.next = None,
            NextTick::Over(reason) => {
                let first = timetable.after(self.handled).next().or_else(|| timetable.after_end(self.handled));
                self.next = first.filter(|first| *first > now);
                if let Some(first) = first.filter(|first| *first <= now) {
                    (self.handled, self.is_closed) = (first, true);
                    self.skipped.push(SkippedTicks::one(first, reason));
                }
            }
        }
    }

    /// Postpones the owed jobs until `again`. Ticks that are then outside of the catch-up window are skipped.
    fn postpone(&mut self, again: UnixMs, hindrance: SkipReason) {
        let first = self.owed.first().map_or(self.handled, |(first, _)| UnixMs(first.0 - 1));
        (self.handled, self.next, self.hindrance) = (first, Some(again), Some(hindrance));
        self.owed.clear();
    }
}

/// Returns the trigger of a missed tick.
fn trigger_of_missed(all: bool) -> TickTrigger {
    if all { TickTrigger::CatchUp } else { TickTrigger::Time }
}

impl ScheduleRunner {
    /// Creates a runner that makes jobs through `intake`.
    #[must_use]
    pub fn new(intake: Arc<Intake>) -> Self {
        Self { intake, known: HashMap::new(), recount: false }
    }

    /// Makes the jobs of schedules, until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        let intake = Arc::clone(&self.intake);
        while !stop.is_cancelled() {
            let changed = intake.services.catalog.changed().notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let (next, pause) = match self.run_due().await {
                Ok(next) => (next, POLL),
                Err(error) => {
                    tracing::error!(%error, "creating jobs of schedules failed");
                    (UnixMs::MAX, STORE_PAUSE)
                }
            };
            tokio::select! {
                () = changed => {}
                () = intake.services.clock.sleep_until(next) => {}
                () = clock::pause(pause) => self.retry(),
                () = stop.cancelled() => {}
            }
        }
    }

    /// Lets schedules that could not make jobs try again.
    fn retry(&mut self) {
        for known in self.known.values_mut().filter(|known| known.hindrance.is_some()) {
            known.next = Some(known.handled);
        }
    }

    /// Makes the jobs that are due; returns the time of the next run.
    async fn run_due(&mut self) -> Result<UnixMs, StoreError> {
        self.refresh().await?;
        // All due ticks are decided before any of them is stored, so a tick that came on time does not count as missed because other
        // schedules take long.
        let now = self.intake.services.clock.now();
        for known in self.known.values_mut() {
            let is_idle = known.owed.is_empty() && known.skipped.is_empty();
            if is_idle && known.next.is_some_and(|next| next <= now) {
                known.collect_due(now);
            }
        }
        self.write_skipped().await?;
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
        let next = self.known.values().filter_map(|known| known.next).min();
        Ok(next.map_or(now.plus(POLL), |next| next.min(now.plus(POLL))))
    }

    /// Loads schedules that are new or changed, and drops those that were deleted, or whose tenant is suspended: what such a schedule misses
    /// is caught up on as after a stop of the server.
    async fn refresh(&mut self) -> Result<(), StoreError> {
        let schedules = self.intake.services.catalog.active_schedules();
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
        let ids = fresh.iter().map(|schedule| schedule.id).collect();
        let ticked = self.intake.services.store.ticked(Some(ids)).await?;
        let ticked: HashMap<_, _> = ticked.into_iter().map(|ticked| (ticked.schedule, ticked)).collect();
        for schedule in fresh {
            let ticked = ticked.get(&schedule.id);
            let mut handled = ticked.map_or(schedule.since, |ticked| ticked.last.max(schedule.since));
            if self.known.get(&schedule.id).is_some_and(|before| before.runs_left() == 0) {
                // The schedule had used up its runs; additional ones are for future ticks.
                handled = handled.max(schedule.updated_at);
            }
            self.known.insert(schedule.id, ScheduleState::new(&schedule, ticked, handled));
        }
        Ok(())
    }

    /// Stores which ticks make no jobs. Where another node has stored them already, the schedule's progress is read again.
    async fn write_skipped(&mut self) -> Result<(), StoreError> {
        let of_one = |known: &ScheduleState| {
            let schedule = Arc::clone(&known.schedule);
            known.skipped.clone().into_iter().map(move |skipped| (Arc::clone(&schedule), skipped))
        };
        let all: Vec<_> = self.known.values().flat_map(of_one).collect();
        let mut stale = Vec::new();
        for batch in all.chunks(BATCH) {
            let written = self.intake.skip_ticks(batch).await?;
            for ((schedule, skipped), written) in batch.iter().zip(written) {
                if let Some(known) = self.known.get_mut(&schedule.id) {
                    known.skipped.retain(|other| other != skipped);
                }
                if !written {
                    stale.push(schedule.id);
                }
            }
        }
        self.reload_progress(&stale).await
    }

    /// Reads the progress of these schedules from the store; their owed ticks are decided again from there.
    async fn reload_progress(&mut self, schedules: &[i64]) -> Result<(), StoreError> {
        if schedules.is_empty() {
            return Ok(());
        }
        for ticked in &self.intake.services.store.ticked(Some(schedules.to_vec())).await? {
            if let Some(known) = self.known.get_mut(&ticked.schedule) {
                let handled = ticked.last.max(known.schedule.since);
                *known = ScheduleState::new(&known.schedule, Some(ticked), handled);
            }
        }
        Ok(())
    }

    /// Counts runs again where another node may have added some.
    async fn count(&mut self) -> Result<(), StoreError> {
        if !self.recount {
            return Ok(());
        }
        let counting = self.known.values().filter(|known| known.schedule.spec.max_runs.is_some());
        let ids = counting.map(|known| known.schedule.id).collect();
        for ticked in self.intake.services.store.ticked(Some(ids)).await? {
            if let Some(known) = self.known.get_mut(&ticked.schedule) {
                known.runs = ticked.counted();
            }
        }
        self.recount = false;
        Ok(())
    }

    /// Returns the jobs that a schedule owes. If it cannot make any, its ticks stay owed until it can.
    async fn jobs(&mut self, id: i64, now: UnixMs) -> Vec<TickJob> {
        let Some(known) = self.known.get_mut(&id) else { return Vec::new() };
        let group = self.intake.services.catalog.group(known.schedule.tenant, &known.schedule.spec.group);
        known.template = known.template.take().filter(|template| template.fits(&known.schedule, group.as_ref()));
        if known.template.is_none() {
            match self.intake.schedule_template(&known.schedule).await {
                Ok(template) => known.template = Some(template),
                Err(reason) => {
                    let schedule = &known.schedule.name;
                    tracing::warn!(schedule, %reason, "schedule cannot create its jobs");
                    let hindrance = if group.is_some() { SkipReason::GroupBroken } else { SkipReason::GroupMissing };
                    known.postpone(now.plus(POLL), hindrance);
                    return Vec::new();
                }
            }
        }
        let owed = known.owed.len();
        if owed > 0
            && let Err(reason) = self.intake.admit_ticks(known.schedule.tenant, owed).await
        {
            tracing::warn!(schedule = known.schedule.name, %reason, "schedule cannot create its jobs");
            known.postpone(now.plus(POLL), SkipReason::GroupBroken);
            return Vec::new();
        }
        known.hindrance = None;
        let Some(template) = &known.template else { return Vec::new() };
        let of_one_kind = known.owed.chunk_by(|(_, one), (_, next)| one == next);
        let ticking = of_one_kind.flat_map(|owed| {
            let ticks: Vec<_> = owed.iter().map(|(tick, _)| *tick).collect();
            let why = owed.first().map_or(TickTrigger::Time, |(_, why)| *why);
            template.jobs_for(&ticks, why, &*self.intake.services.clock)
        });
        ticking.collect()
    }

    /// Stores jobs, all together if possible, else those of each schedule by themselves: the group of one of them may have just been deleted.
    async fn store(&mut self, ready: Vec<TickJob>) -> Result<(), StoreError> {
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

    async fn store_batch(&mut self, batch: &[TickJob]) -> Result<(), StoreError> {
        if batch.is_empty() {
            return Ok(());
        }
        let placed = self.intake.insert_ticks(batch).await?;
        for (TickJob { schedule, tick, .. }, placed) in batch.iter().zip(placed) {
            if let Some(known) = self.known.get_mut(&schedule.id) {
                let made = matches!(placed, InsertOutcome::Stored { .. });
                known.owed.retain(|(owed, _)| owed != tick);
                known.runs += u64::from(made);
                known.is_closed |= placed == InsertOutcome::TickSkipped(SkipReason::MaxRuns);
                self.recount |= !made && known.schedule.spec.max_runs.is_some();
                tracing::debug!(schedule = known.schedule.name, %tick, made, "schedule ticked");
            }
        }
        Ok(())
    }

    /// Postpones the owed ticks of one schedule, whose group was deleted.
    fn forget(&mut self, of_one: &[TickJob]) {
        let again = self.intake.services.clock.now().plus(POLL);
        let Some(known) = of_one.first().and_then(|one| self.known.get_mut(&one.schedule.id)) else { return };
        tracing::warn!(schedule = known.schedule.name, "group of a schedule no longer exists");
        known.template = None;
        known.postpone(again, SkipReason::GroupMissing);
    }
}
