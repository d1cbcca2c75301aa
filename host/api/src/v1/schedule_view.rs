//! A schedule as it is shown.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
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

/// Schedule, as the API returns it.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct ScheduleView {
    /// Name of the schedule.
    name: String,
    /// Version, which rises with each change.
    version: i64,
    /// Name of the group of its jobs.
    group: String,
    /// Crontab expression.
    cron: String,
    /// IANA time zone of the expression.
    time_zone: String,
    /// Start: no run is before this time.
    #[schema(format = DateTime)]
    start: Option<String>,
    /// End: no run is after this time.
    #[schema(format = DateTime)]
    end: Option<String>,
    /// Largest number of jobs that it makes. Runs by hand and backfills do not count.
    max_runs: Option<u64>,
    /// Upper bound of the random delay of each run.
    jitter: String,
    /// Effect of a run that comes while an earlier job of the schedule is unfinished.
    overlap: Overlap,
    /// How long after its time a missed run is made up for.
    catch_up: String,
    /// Whether all missed runs are made up for, and not only the newest.
    catch_up_all: bool,
    /// Document of its jobs.
    #[schema(value_type = carillon_engine::intake::JobInput)]
    job: Box<RawValue>,
    /// Whether the schedule is paused.
    paused: bool,
    /// Reason why it makes no jobs, if something that it refers to is gone.
    #[serde(skip_serializing_if = "Option::is_none")]
    broken: Option<String>,
    /// Number of jobs that it has made: on time, by hand and by backfills.
    runs: u64,
    /// Number of jobs that it may still make under `max_runs`.
    #[serde(skip_serializing_if = "Option::is_none")]
    runs_left: Option<u64>,
    /// Number of its runs that made no job; the history lists them.
    skipped: u64,
    /// Time of the newest run that made a job or was skipped.
    #[schema(format = DateTime)]
    last_run: Option<String>,
    /// Reason why the newest run made no job, if it made none.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_skip: Option<SkipReason>,
    /// Times of the next runs, at most ten; empty while the schedule is paused or broken.
    #[schema(schema_with = openapi::times)]
    next_runs: Vec<String>,
    /// The same times as local times in the time zone, with their offsets.
    next_runs_local: Vec<String>,
    /// Warnings about the schedule; only in the response to a change.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
    /// Time of its creation.
    #[schema(format = DateTime)]
    created_at: String,
    /// Time of its last change.
    #[schema(format = DateTime)]
    updated_at: String,
}

impl ScheduleView {
    /// Adds warnings.
    pub(super) fn with_warnings(self, warnings: Vec<String>) -> Self {
        Self { warnings, ..self }
    }
}

/// Returns a run's local time in its time zone.
fn local(timetable: Option<&Timetable>, at: UnixMs) -> String {
    timetable.map_or_else(|| at.to_string(), |timetable| timetable.zone.written(at))
}

/// Returns the reason why a schedule makes no jobs, if there is one.
pub(super) fn broken_reason(api: &ApiState, schedule: &Schedule) -> Option<String> {
    if let Err(error) = &schedule.timetable {
        return Some(error.to_string());
    }
    let name = &schedule.spec.group;
    match api.services.catalog.group(schedule.tenant, name).map(|group| group.effective.as_ref().err().cloned()) {
        Some(None) => None,
        Some(Some(error)) => Some(format!("the group `{name}` is broken: {error}")),
        None => Some(format!("there is no group `{name}`")),
    }
}

pub(super) fn schedule_view(
    api: &ApiState,
    access: &Access,
    schedule: &Schedule,
    ticked: &[Ticked],
) -> Result<ScheduleView, Problem> {
    let (spec, ticked) = (&schedule.spec, ticked.iter().find(|ticked| ticked.schedule == schedule.id));
    let (broken, runs) = (broken_reason(api, schedule), ticked.map_or(0, |ticked| ticked.runs));
    // A backfill of an older server may have left a time from before the schedule was made.
    let last = ticked.map(|ticked| ticked.last).filter(|last| *last >= schedule.created_at);
    let counted = ticked.map_or(0, Ticked::counted);
    let left = spec.max_runs.map(|most| most.saturating_sub(counted));
    let shown = left.and_then(|left| usize::try_from(left).ok()).map_or(NEXT_RUNS, |left| left.min(NEXT_RUNS));
    let timetable = schedule.timetable.as_ref().ok().filter(|_| !schedule.paused && broken.is_none());
    let next = timetable.into_iter().flat_map(|timetable| timetable.after(api.services.clock.now()).take(shown));
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
            tracing::error!(schedule = schedule.name, %error, "reading the stored job of a schedule failed");
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
        warnings: Vec::new(),
        created_at: schedule.created_at.to_string(),
        updated_at: schedule.updated_at.to_string(),
    })
}

pub(super) fn find_schedule(api: &ApiState, access: &Access, name: &str) -> Result<Arc<Schedule>, Problem> {
    let schedule = api.services.catalog.schedule(access.tenant.id, name);
    let visible = schedule.filter(|schedule| access.sees(&schedule.spec.group));
    visible.ok_or_else(|| Problem::unknown("schedule", name))
}

pub(super) async fn show_schedule(api: &ApiState, access: &Access, name: &str) -> Result<Json<ScheduleView>, Problem> {
    let schedule = find_schedule(api, access, name)?;
    let ticked = api.services.store.ticked(Some(vec![schedule.id])).await?;
    Ok(Json(schedule_view(api, access, &schedule, &ticked)?))
}

/// Result of a run, or of consecutive runs that were skipped for the same reason.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct RunView {
    /// Time when the run was due, without jitter; of several runs, the last one.
    tick: String,
    /// Id of its job. A skipped run has one if a backfill made up for it.
    job: Option<String>,
    /// Reason why the run made no job when it was due.
    #[serde(skip_serializing_if = "Option::is_none")]
    skipped: Option<SkipReason>,
    /// The reason as a sentence.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    /// Time when the first of the skipped runs was due.
    #[serde(skip_serializing_if = "Option::is_none")]
    first: Option<String>,
    /// Number of skipped runs; 1000 means 1000 or more.
    #[serde(skip_serializing_if = "Option::is_none")]
    count: Option<u64>,
}

impl RunView {
    pub(super) fn from_record(record: &TickRecord) -> Self {
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
