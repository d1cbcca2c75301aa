//! Schedule template: from a schedule's tick to a job. The schedule's document is read by the same code as a client's, so it has the same
//! fields.

use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest as _, Sha256};

use super::Intake;
use super::build::{SCHEDULE_ORDER_KEY, ValidationCache};
use super::error::IntakeError;
use super::input::JobInput;
use carillon_catalog::{Group, Schedule, ScheduleSpec};
use carillon_core::clock::{Clock, UnixMs};
use carillon_core::job::{Admission, GroupId, JobId, Label, NewJob, Overlap, SkippedTicks, TenantId, Tick, new_seed};
use carillon_core::json::read_object;
use carillon_core::timetable::Timetable;
use carillon_store::{IdempotentRequest, Insert, InsertOutcome, InsertResult, StoreError};
use carillon_telemetry::{Fact, Subject};

/// Template of a schedule's jobs, valid as long as neither the schedule nor its group changes.
#[derive(Clone)]
pub struct ScheduleTemplate {
    schedule: Arc<Schedule>,
    group: Arc<Group>,
    job: NewJob,
    ttl: Option<Duration>,
}

/// A tick with its job, before both are stored.
#[derive(Clone)]
pub struct TickJob {
    /// Schedule of the tick.
    pub schedule: Arc<Schedule>,
    /// Time of the tick.
    pub tick: UnixMs,
    /// Job of the tick.
    pub job: NewJob,
}

/// Reason for which a tick makes a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TickTrigger {
    /// The tick is due.
    Time,
    /// The tick was missed, and the schedule makes up for all missed ticks.
    CatchUp,
    /// A client requested a range of the past.
    Backfill,
    /// A client requested a job now. It replaces no tick.
    Asked,
}

impl TickTrigger {
    /// Returns whether the schedule itself caused the tick, and not a client: such a tick counts towards `max_runs`.
    fn is_by_clock(self) -> bool {
        matches!(self, Self::Time | Self::CatchUp)
    }
}

impl ScheduleTemplate {
    /// Returns whether the template is still valid for this schedule.
    #[must_use]
    pub fn fits(&self, schedule: &Arc<Schedule>, group: Option<&Arc<Group>>) -> bool {
        Arc::ptr_eq(&self.schedule, schedule) && group.is_some_and(|group| Arc::ptr_eq(&self.group, group))
    }

    /// Returns the jobs of these ticks, in their order.
    #[must_use]
    pub fn jobs_for(&self, ticks: &[UnixMs], trigger: TickTrigger, clock: &dyn Clock) -> Vec<TickJob> {
        let now = clock.now();
        let one = |&tick| {
            let job = self.one(tick, trigger, now, clock);
            TickJob { schedule: Arc::clone(&self.schedule), tick, job }
        };
        ticks.iter().map(one).collect()
    }

    fn one(&self, tick: UnixMs, trigger: TickTrigger, now: UnixMs, clock: &dyn Clock) -> NewJob {
        let (schedule, spec) = (&self.schedule, &self.schedule.spec);
        let overlap = match (trigger, spec.overlap) {
            (TickTrigger::Time, overlap) => overlap,
            // The jobs run one after the other, unless the schedule lets them overlap.
            (TickTrigger::Backfill | TickTrigger::CatchUp, Overlap::Allow)
            // A client that requests a job gets one: a job that `skip` would leave out runs beside the unfinished one.
            | (TickTrigger::Asked, Overlap::Allow | Overlap::Skip) => Overlap::Allow,
            (TickTrigger::Asked, Overlap::Cancel) => Overlap::Cancel,
            (TickTrigger::Backfill | TickTrigger::CatchUp | TickTrigger::Asked, _) => Overlap::Queue,
        };
        let run_at = match trigger {
            TickTrigger::Time | TickTrigger::CatchUp => {
                let most = jitter_room(schedule.timetable.as_ref().ok(), tick, spec.jitter);
                now.max(tick.plus(jitter(schedule.id, tick, most)))
            }
            TickTrigger::Backfill | TickTrigger::Asked => now,
        };
        // A timetable has no times before 1970.
        let at = if trigger == TickTrigger::Asked { UnixMs(tick.0.saturating_neg()) } else { tick };
        let max_runs = spec.max_runs.filter(|_| trigger.is_by_clock());
        let mut job = NewJob {
            // Ids rise, and jobs of one order key run in the order of their ids.
            id: JobId::new(clock),
            run_at,
            created_at: now,
            deadline: self.ttl.map(|ttl| run_at.plus(ttl)),
            seed: new_seed(clock),
            admission: Admission::Tick(Tick {
                schedule: schedule.id,
                at,
                overlap,
                max_runs,
                again: !trigger.is_by_clock(),
            }),
            ..self.job.clone()
        };
        // A job with `skip` waits for no other job, but jobs that are made up for or backfilled wait for it; and a job that replaces another
        // waits until that one has ended.
        if overlap != Overlap::Allow && job.order_key.is_none() {
            job.order_key = Some(order_key(&schedule.name));
        }
        self.label(&mut job, tick);
        job
    }

    /// Labels the job with its schedule and tick, for receivers, policies and lists. The client's own labels have priority.
    fn label(&self, job: &mut NewJob, tick: UnixMs) {
        let (name, tick) = (&self.schedule.name, tick.to_string());
        job.name.get_or_insert_with(|| name.clone());
        let labels = [("name", name), ("tick", &tick)].map(|(key, value)| (key.to_owned(), value.clone()));
        let labels = Label::Namespace(labels.into_iter().collect());
        job.spec.metadata.0.entry("schedule".to_owned()).or_insert(labels);
        if let Some(target) = &mut job.spec.target {
            target.headers.push(("Carillon-Schedule".to_owned(), name.clone()));
            target.headers.push(("Carillon-Tick".to_owned(), tick));
        }
    }
}

/// Returns the order key of a schedule's jobs, if they wait for each other.
fn order_key(schedule: &str) -> String {
    format!("{SCHEDULE_ORDER_KEY}{schedule}")
}

/// Fraction of the time to the next tick that jitter may take: the rest is for the run, so that it need not overlap with the next one.
const JITTER_SHARE: (u32, u32) = (9, 10);

/// Returns the largest jitter of a tick, at most `most`: a run is never later than the next one.
fn jitter_room(timetable: Option<&Timetable>, tick: UnixMs, most: Duration) -> Duration {
    if most.is_zero() {
        return most;
    }
    let next = timetable.and_then(|timetable| timetable.after(tick).next());
    next.map_or(most, |next| most.min(next.since(tick) * JITTER_SHARE.0 / JITTER_SHARE.1))
}

/// Returns how long after its tick a job is due: less than `most`, and always the same for the same tick.
fn jitter(schedule: i64, tick: UnixMs, most: Duration) -> Duration {
    let digest = Sha256::new().chain_update(schedule.to_be_bytes()).chain_update(tick.0.to_be_bytes()).finalize();
    let random = digest.iter().take(8).fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
    let most = u64::try_from(most.as_millis()).unwrap_or(u64::MAX);
    Duration::from_millis(random.checked_rem(most).unwrap_or(0))
}

impl Intake {
    /// Builds the template of a schedule's jobs. Overrides were checked when the schedule was stored; if they are not valid any more, its
    /// jobs report it.
    ///
    /// # Errors
    /// Returns [`IntakeError`] if the schedule's group is broken or was deleted, or if this server no longer accepts such jobs.
    pub async fn schedule_template(&self, schedule: &Arc<Schedule>) -> Result<ScheduleTemplate, IntakeError> {
        let (group, job) = self.job_of(schedule.tenant, &schedule.spec, &mut ValidationCache::all_valid()).await?;
        let ttl = job.deadline.map(|deadline| deadline.since(job.created_at));
        Ok(ScheduleTemplate { schedule: Arc::clone(schedule), group, job, ttl })
    }

    /// Builds a schedule's job as if it were posted now, and returns it with its group.
    ///
    /// # Errors
    /// Returns [`IntakeError`] with a JSON pointer into the schedule.
    pub async fn job_of(
        &self,
        tenant: TenantId,
        spec: &ScheduleSpec,
        checked: &mut ValidationCache,
    ) -> Result<(Arc<Group>, NewJob), IntakeError> {
        let group = self.named_group(tenant, &spec.group, checked)?;
        let within = |error: IntakeError| error.inside("/job");
        let doc: JobInput = read_object(spec.job.as_bytes()).map_err(IntakeError::from).map_err(within)?;
        if doc.run_at.is_some() {
            return Err(IntakeError::invalid("/job/run_at", "`run_at` is not allowed in the job of a schedule"));
        }
        if spec.overlap == Overlap::Queue && doc.order_key.is_some() {
            let detail = "`order_key` is not allowed with `\"overlap\": \"queue\"`, which sets an order key";
            return Err(IntakeError::invalid("/job/order_key", detail));
        }
        let job = self.new_job(&group, doc, self.services.clock.now(), checked).await.map_err(within)?;
        if job.admission != Admission::Always {
            return Err(IntakeError::invalid(
                "/job",
                "`dedupe_key`, `debounce_seconds` and `replace` are not allowed in the job of a schedule",
            ));
        }
        Ok((group, job))
    }

    /// Stores the jobs of ticks; returns the result for each.
    ///
    /// # Errors
    /// Returns the store's error; then no job was stored.
    pub async fn insert_ticks(&self, ticking: &[TickJob]) -> Result<Vec<InsertOutcome>, StoreError> {
        match self.insert_ticks_once(ticking, None).await? {
            InsertResult::Placed(placed) => Ok(placed),
            InsertResult::Replayed(_) => Ok(Vec::new()),
        }
    }

    /// Stores the jobs of ticks for an idempotent request.
    ///
    /// # Errors
    /// Returns the store's error; then no job was stored.
    pub async fn insert_ticks_once(
        &self,
        ticking: &[TickJob],
        once: Option<IdempotentRequest>,
    ) -> Result<InsertResult, StoreError> {
        let jobs = ticking.iter().map(|ticking| ticking.job.clone()).collect();
        let inserted = self.place(Insert { jobs, once }).await?;
        let InsertResult::Placed(placed) = &inserted else { return Ok(inserted) };
        for (TickJob { schedule, tick, job, .. }, placed) in ticking.iter().zip(placed) {
            if let InsertOutcome::TickSkipped(reason) = placed {
                self.record_skipped(schedule, Some(job.group), &SkippedTicks::one(*tick, *reason));
            }
        }
        Ok(inserted)
    }

    /// Stores that ticks made no job, and publishes it; returns for each whether it was not yet stored.
    ///
    /// # Errors
    /// Returns the store's error; then nothing was stored.
    pub async fn skip_ticks(&self, skipped: &[(Arc<Schedule>, SkippedTicks)]) -> Result<Vec<bool>, StoreError> {
        let rows = skipped.iter().map(|(schedule, skipped)| (schedule.id, *skipped)).collect();
        let written = self.services.store.skip_ticks(rows).await?;
        for ((schedule, skipped), _) in skipped.iter().zip(&written).filter(|(_, written)| **written) {
            let group = self.services.catalog.group(schedule.tenant, &schedule.spec.group).map(|group| group.id);
            self.record_skipped(schedule, group, skipped);
        }
        Ok(written)
    }

    fn record_skipped(&self, schedule: &Schedule, group: Option<GroupId>, skipped: &SkippedTicks) {
        let (name, tick, SkippedTicks { count, reason, .. }) = (&schedule.name, skipped.last, *skipped);
        tracing::info!(schedule = name, %tick, count, %reason, "schedule runs skipped");
        self.services.telemetry.metrics.ticks_skipped(skipped);
        let about = Subject::group(schedule.tenant, group.unwrap_or(NO_GROUP));
        self.services.telemetry.record(Fact::skip(about, self.services.clock.now(), name.clone(), skipped));
    }
}

/// Group id of a schedule whose group does not exist; no group has this number.
const NO_GROUP: GroupId = GroupId(0);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_never_passes_the_next_tick() {
        let zone = "UTC".parse().unwrap();
        let timetable = |cron: &str, end| Timetable {
            expression: cron.parse().unwrap(),
            zone: Clone::clone(&zone),
            anchor: UnixMs(0),
            start: None,
            end,
        };
        let day = Duration::from_secs(86_400);
        let room = |timetable: &Timetable, tick, most| jitter_room(Some(timetable), UnixMs(tick), most);
        assert_eq!(room(&timetable("*/2 * * * * *", None), 4_000, day), Duration::from_millis(1_800));
        assert_eq!(room(&timetable("0,50 * * * * *", None), 0, day), Duration::from_secs(45), "unequal gaps");
        assert_eq!(room(&timetable("0,50 * * * * *", None), 50_000, day), Duration::from_secs(9));
        assert_eq!(room(&timetable("0 * * * *", None), 0, Duration::from_secs(9)), Duration::from_secs(9));
        assert_eq!(room(&timetable("0 * * * *", Some(UnixMs(0))), 0, day), day, "the last one has all of it");
    }

    #[test]
    fn jitter_is_less_than_asked_for_and_the_same_every_time() {
        let most = Duration::from_secs(60);
        let all: Vec<_> = (0..1_000).map(|tick| jitter(7, UnixMs(tick * 60_000), most)).collect();
        assert!(all.iter().all(|jitter| *jitter < most));
        let mean = all.iter().sum::<Duration>() / 1_000;
        assert!((25..35).contains(&mean.as_secs()), "{mean:?}");
        assert_eq!(all[5], jitter(7, UnixMs(300_000), most));
        assert_ne!(all[5], jitter(8, UnixMs(300_000), most));
        assert_eq!(jitter(7, UnixMs(300_000), Duration::ZERO), Duration::ZERO);
    }
}
