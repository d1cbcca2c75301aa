//! When schedules run next, and when expressions would that are not stored.

use std::sync::Arc;

use axum::extract::State;
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::super::ApiState;
use super::super::auth::Access;
use super::super::error::Problem;
use super::super::input::{Path, Query, time};
use super::schedule_view::{broken_reason, find_schedule};
use carillon_core::clock::UnixMs;
use carillon_core::timetable::{BadExpression, Timetable, UnknownZone};
use carillon_store::Ticked;

/// How many runs are shown if the client does not say, and at most.
const RUNS: usize = 10;
const MAX_RUNS: usize = 1_000;

/// Range of a schedule's runs.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct RunsParams {
    /// Start of the range: RFC 3339, Unix seconds, or `+90s`. Default: now.
    from: Option<String>,
    /// Number of runs: 1 to 1000. Default: 10.
    count: Option<usize>,
}

/// Range of an expression's runs.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct CronParams {
    /// Expression, as `cron` of a schedule.
    cron: String,
    /// IANA time zone. Default: `UTC`.
    time_zone: Option<String>,
    /// Start of the range, from which `@every` counts: RFC 3339, Unix seconds, or `+90s`. Default: now.
    from: Option<String>,
    /// Number of runs: 1 to 1000. Default: 10.
    count: Option<usize>,
}

/// Times of runs.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct RunsView {
    /// IANA time zone in which the expression is read.
    time_zone: String,
    /// Runs in their order; empty if the schedule is paused or broken.
    runs: Vec<RunTimeView>,
}

/// Time of a run.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct RunTimeView {
    /// Time in UTC.
    at: String,
    /// Local time in the time zone, with its offset.
    local: String,
}

/// Lists the times of a schedule's runs from a time on, without jitter.
#[utoipa::path(get, path = "/v1/schedules/{schedule}/runs", operation_id = "schedule_runs_list", tag = "schedules", params(RunsParams),
    responses((status = 200, body = RunsView), (status = "4XX", body = Problem)))]
pub(in super::super) async fn of_schedule(
    State(api): State<Arc<ApiState>>,
    Extension(access): Extension<Access>,
    Path(name): Path<String>,
    Query(params): Query<RunsParams>,
) -> Result<Json<RunsView>, Problem> {
    let (schedule, now) = (find_schedule(&api, &access, &name)?, api.services.clock.now());
    let (from, count) = (from(params.from, now)?, count(params.count)?);
    let ticked = api.services.store.ticked(Some(vec![schedule.id])).await?;
    let counted = ticked.iter().find(|ticked| ticked.schedule == schedule.id).map_or(0, Ticked::counted);
    let left = schedule.spec.max_runs.map(|most| most.saturating_sub(counted));
    let left = left.and_then(|left| usize::try_from(left).ok()).unwrap_or(usize::MAX);
    let is_active = !schedule.paused && broken_reason(&api, &schedule).is_none();
    let runs = match &schedule.timetable {
        Ok(timetable) if is_active => runs(timetable, from, count.min(left)),
        _ => Vec::new(),
    };
    Ok(Json(RunsView { time_zone: schedule.spec.time_zone.clone(), runs }))
}

/// Lists the times at which an expression would run. Nothing is stored.
#[utoipa::path(get, path = "/v1/cron/runs", operation_id = "cron_runs_list", tag = "schedules", params(CronParams),
    responses((status = 200, body = RunsView), (status = "4XX", body = Problem)))]
pub(in super::super) async fn of_expression(
    State(api): State<Arc<ApiState>>,
    Query(params): Query<CronParams>,
) -> Result<Json<RunsView>, Problem> {
    let (from, count) = (from(params.from, api.services.clock.now())?, count(params.count)?);
    let time_zone = params.time_zone.unwrap_or_else(|| "UTC".to_owned());
    let expression = params.cron.parse();
    let zone = time_zone.parse();
    let timetable = Timetable {
        expression: expression.map_err(|error: BadExpression| Problem::parameter("cron", error.to_string()))?,
        zone: zone.map_err(|error: UnknownZone| Problem::parameter("time_zone", error.to_string()))?,
        anchor: from,
        start: None,
        end: None,
    };
    Ok(Json(RunsView { time_zone, runs: runs(&timetable, from, count) }))
}

fn from(text: Option<String>, now: UnixMs) -> Result<UnixMs, Problem> {
    let Some(text) = text else { return Ok(now) };
    let value = text.parse::<i64>().map_or_else(|_| Value::from(text.as_str()), Value::from);
    // A number with a plus sign is none: it is a duration without its unit.
    let value = if text.starts_with('+') { Value::from(text) } else { value };
    time(&value, now).map_err(|detail| Problem::parameter("from", detail))
}

fn count(count: Option<usize>) -> Result<usize, Problem> {
    match count.unwrap_or(RUNS) {
        count @ 1..=MAX_RUNS => Ok(count),
        count => Err(Problem::parameter("count", format!("`count` must be from 1 to {MAX_RUNS}, not {count}"))),
    }
}

fn runs(timetable: &Timetable, from: UnixMs, count: usize) -> Vec<RunTimeView> {
    let ticks = timetable.after(UnixMs(from.0.saturating_sub(1))).take(count);
    ticks.map(|at| RunTimeView { at: at.to_string(), local: timetable.zone.written(at) }).collect()
}
