//! A schedule as it is shown.

use std::time::Duration;

use serde::Serialize;
use serde_json::value::RawValue;

use super::super::Api;
use super::super::error::Problem;
use crate::catalog::Schedule;
use crate::job::Overlap;
use crate::store::Ticked;

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
    start: Option<String>,
    /// No run is after this.
    end: Option<String>,
    /// It makes no more jobs than this.
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
    #[schema(value_type = Object)]
    job: Box<RawValue>,
    /// Whether it makes no jobs for now.
    paused: bool,
    /// Why it makes no jobs, if something that it refers to has gone.
    #[serde(skip_serializing_if = "Option::is_none")]
    broken: Option<String>,
    /// How many jobs it has made.
    runs: u64,
    /// The newest run that was dealt with, whether it made a job or was skipped.
    last_run: Option<String>,
    /// When it runs next, at most ten times; none while it is paused or broken.
    next_runs: Vec<String>,
    /// When it was made.
    created_at: String,
    /// When it was last changed.
    updated_at: String,
}

impl Api {
    /// Why a schedule makes no jobs.
    fn broken(&self, schedule: &Schedule) -> Option<String> {
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

    pub(super) fn schedule_view(&self, schedule: &Schedule, ticked: &[Ticked]) -> Result<ScheduleView, Problem> {
        let (spec, ticked) = (&schedule.spec, ticked.iter().find(|ticked| ticked.schedule == schedule.id));
        let (broken, runs) = (self.broken(schedule), ticked.map_or(0, |ticked| ticked.runs));
        let last = ticked.map(|ticked| ticked.last).filter(|last| last.0 >= 0);
        let left = spec.max_runs.map_or(u64::MAX, |most| most.saturating_sub(runs));
        let shown = NEXT_RUNS.min(usize::try_from(left).unwrap_or(NEXT_RUNS));
        let timetable = schedule.timetable.as_ref().ok().filter(|_| !schedule.paused && broken.is_none());
        let next = timetable.into_iter().flat_map(|timetable| timetable.after(self.clock.now()).take(shown));
        let period = |period: Duration| humantime::format_duration(period).to_string();
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
            job: RawValue::from_string(spec.job.clone()).map_err(|error| {
                tracing::error!(schedule = schedule.name, %error, "the stored job of a schedule cannot be read");
                Problem::internal()
            })?,
            paused: schedule.paused,
            broken,
            runs,
            last_run: last.map(|last| last.to_string()),
            next_runs: next.map(|at| at.to_string()).collect(),
            created_at: schedule.created_at.to_string(),
            updated_at: schedule.updated_at.to_string(),
        })
    }
}
