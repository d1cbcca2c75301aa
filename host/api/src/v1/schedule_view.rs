//! A schedule as it is shown.

use std::time::Duration;

use serde::Serialize;
use serde_json::value::RawValue;

use super::super::ApiState;
use super::super::auth::Access;
use super::super::error::Problem;
use super::super::openapi;
use super::disclosure::Disclosure;
use carillon_catalog::Schedule;
use carillon_core::clock::UnixMs;
use carillon_core::duration;
use carillon_core::job::{Overlap, SkipReason, shown_document};
use carillon_core::timetable::Timetable;
use carillon_store::{TickRecord, Ticked};

/// How many of the next runs are shown.
const NEXT_RUNS: usize = 10;

/// A schedule as it is shown.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct ScheduleView {
    /// Its name.
    name: String,
    /// One more with each change.
    version: i64,
    /// The group of its jobs.
    group: String,
    /// When.
    cron: String,
    /// In which time zone.
    time_zone: String,
    /// No run is before this.
    #[schema(format = DateTime)]
    start: Option<String>,
    /// No run is after this.
    #[schema(format = DateTime)]
    end: Option<String>,
    /// It makes no more jobs than this; runs by hand and backfills do not count.
    max_runs: Option<u64>,
    /// Each run is later by something less than this.
    jitter: String,
    /// What happens when a run comes while an earlier one is unfinished.
    overlap: Overlap,
    /// How long runs that were missed are made up for.
    catch_up: String,
    /// Whether all of them are.
    catch_up_all: bool,
    /// What runs.
    #[schema(value_type = carillon_engine::intake::JobDoc)]
    job: Box<RawValue>,
    /// Whether it makes no jobs for now.
    paused: bool,
    /// TickTrigger it makes no jobs, if something that it refers to has gone.
    #[serde(skip_serializing_if = "Option::is_none")]
    broken: Option<String>,
    /// How many jobs it has made, by the clock, by hand and by backfills.
    runs: u64,
    /// How many more jobs `max_runs` lets it make.
    #[serde(skip_serializing_if = "Option::is_none")]
    runs_left: Option<u64>,
    /// How many of its runs made no job; its history says which.
    skipped: u64,
    /// The newest run that was dealt with, whether it made a job or was skipped.
    #[schema(format = DateTime)]
    last_run: Option<String>,
    /// TickTrigger the newest run made no job, if it did not.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_skip: Option<SkipReason>,
    /// When it runs next, at most ten times; none while it is paused or broken.
    #[schema(schema_with = openapi::times)]
    next_runs: Vec<String>,
    /// The same times on the clocks of its time zone, with their offset.
    next_runs_local: Vec<String>,
    /// Time of its creation.
    #[schema(format = DateTime)]
    created_at: String,
    /// Time of its last change.
    #[schema(format = DateTime)]
    updated_at: String,
}

/// A run's time on the clocks of its zone.
fn local(timetable: Option<&Timetable>, at: UnixMs) -> String {
    timetable.map_or_else(|| at.to_string(), |timetable| timetable.zone.written(at))
}

impl ApiState {
    /// TickTrigger a schedule makes no jobs.
    pub(super) fn broken(&self, schedule: &Schedule) -> Option<String> {
        if let Err(error) = &schedule.timetable {
            return Some(error.to_string());
        }
        let name = &schedule.spec.group;
        match self.catalog.group(schedule.tenant, name).map(|group| group.effective.as_ref().err().cloned()) {
            Some(None) => None,
            Some(Some(error)) => Some(format!("the group `{name}` is broken: {error}")),
            None => Some(format!("there is no group `{name}`")),
        }
    }

    pub(super) fn schedule_view(
        &self,
        access: &Access,
        schedule: &Schedule,
        ticked: &[Ticked],
    ) -> Result<ScheduleView, Problem> {
        let (spec, ticked) = (&schedule.spec, ticked.iter().find(|ticked| ticked.schedule == schedule.id));
        let (broken, runs) = (self.broken(schedule), ticked.map_or(0, |ticked| ticked.runs));
        // A backfill of an older server may have left a time from before the schedule was made.
        let last = ticked.map(|ticked| ticked.last).filter(|last| *last >= schedule.created_at);
        let counted = ticked.map_or(0, Ticked::counted);
        let left = spec.max_runs.map(|most| most.saturating_sub(counted));
        let shown = left.and_then(|left| usize::try_from(left).ok()).map_or(NEXT_RUNS, |left| left.min(NEXT_RUNS));
        let timetable = schedule.timetable.as_ref().ok().filter(|_| !schedule.paused && broken.is_none());
        let next = timetable.into_iter().flat_map(|timetable| timetable.after(self.clock.now()).take(shown));
        let (next_runs, next_runs_local) = next.map(|at| (at.to_string(), local(timetable, at))).unzip();
        let period = |period: Duration| duration::format(period).to_string();
        Ok(ScheduleView {
            name: schedule.name.clone(),
            version: schedule.version,
            group: spec.group.clone(),
            cron: spec.cron.clone(),
            time_zone: spec.time_zone.clone(),
            start: spec.start.map(|at| at.to_string()),
            end: spec.end.map(|at| at.to_string()),
            max_runs: spec.max_runs,
            jitter: period(spec.jitter),
            overlap: spec.overlap,
            catch_up: period(spec.catch_up),
            catch_up_all: spec.catch_up_all,
            job: Disclosure::from(access).document(&shown_document(&spec.job)).map_err(|error| {
                tracing::error!(schedule = schedule.name, %error, "the stored job of a schedule cannot be read");
                Problem::internal()
            })?,
            paused: schedule.paused,
            broken,
            runs,
            runs_left: left,
            skipped: ticked.map_or(0, |ticked| ticked.skipped),
            last_skip: ticked.and_then(|ticked| ticked.reason),
            last_run: last.map(|last| last.to_string()),
            next_runs,
            next_runs_local,
            created_at: schedule.created_at.to_string(),
            updated_at: schedule.updated_at.to_string(),
        })
    }
}

/// What became of a run, or of several that were skipped one after the other for the same reason.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct RunView {
    /// When the run was due, without jitter; of several, the last one.
    tick: String,
    /// Its job. A run that was skipped has one, too, if it was made up for by a backfill.
    job: Option<String>,
    /// TickTrigger it made no job on its time.
    #[serde(skip_serializing_if = "Option::is_none")]
    skipped: Option<SkipReason>,
    /// The same in a sentence.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    /// When the first of the skipped runs was due.
    #[serde(skip_serializing_if = "Option::is_none")]
    first: Option<String>,
    /// How many runs were skipped; 1000 means at least as many.
    #[serde(skip_serializing_if = "Option::is_none")]
    count: Option<u64>,
}

impl RunView {
    pub(super) fn of(record: &TickRecord) -> Self {
        let skipped = record.skipped;
        Self {
            tick: record.at.to_string(),
            job: record.job.map(|job| job.to_string()),
            skipped: skipped.map(|skipped| skipped.reason),
            reason: skipped.map(|skipped| skipped.reason.sentence()),
            first: skipped.map(|skipped| skipped.first.to_string()),
            count: skipped.map(|skipped| skipped.count),
        }
    }

    pub(super) fn cursor(&self) -> String {
        self.tick.clone()
    }
}
