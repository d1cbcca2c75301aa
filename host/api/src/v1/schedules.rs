//! Schedules: what makes jobs again and again.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use super::super::ApiState;
use super::super::auth::Access;
use super::super::error::Problem;
use super::super::idempotency::{Answer, Idempotent, Keyed};
use super::super::input::{Body, Path, Query, time};
use super::job_view::{JobView, job_view};
use super::schedule_view::{RunView, ScheduleView, find_schedule, schedule_view, show_schedule};
use super::{Page, Paging, foreign_cursor, removed, schedule_warnings};
use carillon_catalog::ScheduleSpec;
use carillon_core::clock::UnixMs;
use carillon_core::duration;
use carillon_core::job::Overlap;
use carillon_engine::intake::{TickTrigger, TimeInput};
use carillon_engine::maintenance::prune::TICKS_KEPT;
use carillon_store::{InsertOutcome, InsertResult, TicksQuery};

/// The most ticks that one backfill may create.
const BACKFILL_TICKS: usize = 10_000;

/// The catch-up window if the client does not say, and the longest.
const CATCH_UP: Duration = Duration::from_secs(86_400);
pub(in super::super) const MAX_CATCH_UP: Duration = Duration::from_secs(366 * 86_400);

/// The most jitter.
const MAX_JITTER: Duration = Duration::from_secs(86_400);

/// Between which times a schedule can run.
const EARLIEST: UnixMs = UnixMs(0);
const LATEST: UnixMs = UnixMs(4_133_980_799_999);

/// How often a run that was asked for is tried, if others are asked for in the same millisecond.
const ASKED_TRIES: i64 = 100;

/// Schedule, as a client puts it.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ScheduleInput {
    /// Name of the group of its jobs.
    group: String,
    /// Expression, in local time: `30 4 * * mon-fri` as in crontab, six fields with seconds first, `L`, `W` and `#` for days as in Quartz,
    /// `@hourly` and the like, or `@every 90s`.
    cron: String,
    /// IANA time zone of the expression. Default: `UTC`.
    ///
    /// If the hour or the minute is `*` or `*/n`, the schedule runs at every instant whose local time matches. Otherwise, a local time that the
    /// time zone skips runs once, right after the gap, and one that it repeats runs once, the first time.
    #[serde(default)]
    time_zone: Option<String>,
    /// Start: no run is before this time (RFC 3339, Unix seconds, or `+90s`). `@every` counts from here.
    #[serde(default)]
    #[schema(value_type = Option<TimeInput>)]
    start: Option<Value>,
    /// End: no run is after this time, in the same forms.
    #[serde(default)]
    #[schema(value_type = Option<TimeInput>)]
    end: Option<Value>,
    /// Largest number of jobs that it makes, 1 or more. Runs by hand and backfills do not count. Default: no limit.
    #[serde(default)]
    #[schema(value_type = Option<u64>, minimum = 1)]
    max_runs: Option<Value>,
    /// Upper bound of the random delay of each run, such as `30s`. A run has the same delay on each node. At most one day; no run is delayed
    /// past the next one.
    #[serde(default)]
    jitter: Option<String>,
    /// Effect of a run that comes while an earlier job of the schedule is unfinished. Default: `skip`.
    #[serde(default)]
    overlap: Overlap,
    /// How long missed runs are made up for, for example after a downtime of the server. Default: `1d`; `0` for none.
    #[serde(default)]
    catch_up: Option<String>,
    /// Whether all runs that were missed within `catch_up` are made up for, and not only the newest. Unless `overlap` is `allow`, they run one
    /// after the other. Default: false.
    #[serde(default)]
    catch_up_all: bool,
    /// Whether the schedule is paused. Default: a new schedule is not, and an existing one stays as it is.
    #[serde(default)]
    paused: Option<bool>,
    /// Document of its jobs: as it is posted, without `run_at`.
    #[schema(value_type = carillon_engine::intake::JobInput)]
    job: Box<RawValue>,
}

impl ScheduleInput {
    fn spec(self, now: UnixMs) -> Result<ScheduleSpec, Problem> {
        let at = |pointer, value: Option<Value>| {
            let value = value.filter(|value| !value.is_null());
            let at =
                value.map(|value| time(&value, now)).transpose().map_err(|detail| Problem::invalid(pointer, detail))?;
            match at {
                Some(at) if !(EARLIEST..=LATEST).contains(&at) => {
                    Err(Problem::invalid(pointer, "the time must be between 1970 and 2100"))
                }
                at => Ok(at),
            }
        };
        let (start, end) = (at("/start", self.start)?, at("/end", self.end)?);
        if start.zip(end).is_some_and(|(start, end)| end < start) {
            return Err(Problem::invalid("/end", "`end` must not be before `start`"));
        }
        Ok(ScheduleSpec {
            group: self.group,
            cron: self.cron,
            time_zone: self.time_zone.unwrap_or_else(|| "UTC".to_owned()),
            start,
            end,
            max_runs: max_runs(self.max_runs.filter(|value| !value.is_null()))?,
            jitter: period("/jitter", self.jitter, Duration::ZERO, MAX_JITTER)?,
            overlap: self.overlap,
            catch_up: period("/catch_up", self.catch_up, CATCH_UP, MAX_CATCH_UP)?,
            catch_up_all: self.catch_up_all,
            job: self.job.get().to_owned(),
        })
    }
}

fn max_runs(value: Option<Value>) -> Result<Option<u64>, Problem> {
    let Some(value) = value else { return Ok(None) };
    let refused = |rule: &str| Problem::invalid("/max_runs", format!("`max_runs` must be {rule}, not `{value}`"));
    match value.as_u64() {
        Some(0) => Err(refused("at least 1")),
        None if value.as_i64().is_some() => Err(refused("at least 1")),
        None => Err(refused("a whole number")),
        most => Ok(most),
    }
}

/// Parses a duration that may be zero.
fn period(pointer: &str, text: Option<String>, default: Duration, most: Duration) -> Result<Duration, Problem> {
    let Some(text) = text else { return Ok(default) };
    let period = if text.trim() == "0" { Ok(Duration::ZERO) } else { duration::parse_millis(&text) };
    let invalid = |detail: String| Problem::invalid(pointer, detail);
    let period = period.map_err(|error| invalid(format!("`{}` {error}", text.escape_debug())))?;
    if period > most {
        return Err(invalid(format!(
            "`{}` is too long: at most {} is allowed",
            text.escape_debug(),
            duration::format(most)
        )));
    }
    Ok(period)
}

/// Makes or replaces a schedule. A paused schedule stays paused unless `paused` is given. If the runs change, missed runs are not made up for.
#[utoipa::path(put, path = "/v1/schedules/{schedule}", operation_id = "schedules_put", tag = "schedules", request_body = ScheduleInput,
    responses((status = 200, body = ScheduleView), (status = 201, body = ScheduleView), (status = "4XX", body = Problem)))]
pub(in super::super) async fn put(
    State(api): State<Arc<ApiState>>,
    Extension(access): Extension<Access>,
    Path(name): Path<String>,
    Body(doc): Body<ScheduleInput>,
) -> Result<(StatusCode, Json<ScheduleView>), Problem> {
    let paused = doc.paused;
    let spec = doc.spec(api.services.clock.now())?;
    let is_new = put_schedule(&api, &access, &name, spec, paused).await?;
    let status = if is_new { StatusCode::CREATED } else { StatusCode::OK };
    let Json(shown) = show_schedule(&api, &access, &name).await?;
    let warnings = schedule_warnings::warnings(&api, &*find_schedule(&api, &access, &name)?).await;
    Ok((status, Json(shown.with_warnings(warnings))))
}

/// Shows a schedule, with its next ten runs.
#[utoipa::path(get, path = "/v1/schedules/{schedule}", operation_id = "schedules_get", tag = "schedules",
    responses((status = 200, body = ScheduleView), (status = "4XX", body = Problem)))]
pub(in super::super) async fn get(
    State(api): State<Arc<ApiState>>,
    Extension(access): Extension<Access>,
    Path(name): Path<String>,
) -> Result<Json<ScheduleView>, Problem> {
    show_schedule(&api, &access, &name).await
}

/// Lists the tenant's schedules by name.
#[utoipa::path(get, path = "/v1/schedules", operation_id = "schedules_list", tag = "schedules", params(Paging),
    responses((status = 200, body = Page<ScheduleView>), (status = "4XX", body = Problem)))]
pub(in super::super) async fn list(
    State(api): State<Arc<ApiState>>,
    Extension(access): Extension<Access>,
    Query(paging): Query<Paging>,
) -> Result<Json<Page<ScheduleView>>, Problem> {
    let mut schedules = api.services.catalog.schedules(access.tenant.id);
    schedules.retain(|schedule| access.sees(&schedule.spec.group));
    let page = Page::of_sorted(schedules, &paging, |schedule| schedule.name.clone())?;
    let ticked = api.services.store.ticked(None).await?;
    Ok(Json(page.shown(|schedule| schedule_view(&api, &access, &schedule, &ticked))?.within(api.config.limits.answer)))
}

/// Lists the results of a schedule's runs, newest first: their jobs, and the reasons of skipped runs. Runs by hand are not listed.
#[utoipa::path(get, path = "/v1/schedules/{schedule}/history", operation_id = "schedule_history_list", tag = "schedules", params(Paging),
    responses((status = 200, body = Page<RunView>), (status = "4XX", body = Problem)))]
pub(in super::super) async fn history(
    State(api): State<Arc<ApiState>>,
    Extension(access): Extension<Access>,
    Path(name): Path<String>,
    Query(paging): Query<Paging>,
) -> Result<Json<Page<RunView>>, Problem> {
    let (schedule, limit) = (find_schedule(&api, &access, &name)?, paging.limit()?);
    let before = paging.cursor.as_deref().map(|cursor| time(&Value::from(cursor), UnixMs(0))).transpose();
    let before = before.map_err(|_| foreign_cursor())?;
    let query = TicksQuery { schedule: schedule.id, before: before.unwrap_or(UnixMs::MAX), limit: limit + 1 };
    let runs = api.services.store.ticks(query).await?.iter().map(RunView::from_record).collect();
    Ok(Json(Page::cut(runs, limit, RunView::cursor).within(api.config.limits.answer)))
}

/// Removes a schedule. Its jobs stay.
#[utoipa::path(delete, path = "/v1/schedules/{schedule}", operation_id = "schedules_delete", tag = "schedules",
    responses((status = 204), (status = "4XX", body = Problem)))]
pub(in super::super) async fn delete(
    State(api): State<Arc<ApiState>>,
    Extension(access): Extension<Access>,
    Path(name): Path<String>,
) -> Result<StatusCode, Problem> {
    find_schedule(&api, &access, &name)?;
    removed(api.services.catalog.delete_schedule(access.tenant.id, &name, &access.origin()).await?, "schedule", &name)
}

/// Pauses a schedule: it makes no jobs.
#[utoipa::path(post, path = "/v1/schedules/{schedule}/pause", operation_id = "schedules_pause", tag = "schedules",
    responses((status = 200, body = ScheduleView), (status = "4XX", body = Problem)))]
pub(in super::super) async fn pause(
    State(api): State<Arc<ApiState>>,
    Extension(access): Extension<Access>,
    Path(name): Path<String>,
) -> Result<Json<ScheduleView>, Problem> {
    pause_schedule(&api, &access, &name, true).await
}

/// Resumes a paused schedule. Runs during the pause are not made up for.
#[utoipa::path(post, path = "/v1/schedules/{schedule}/resume", operation_id = "schedules_resume", tag = "schedules",
    responses((status = 200, body = ScheduleView), (status = "4XX", body = Problem)))]
pub(in super::super) async fn resume(
    State(api): State<Arc<ApiState>>,
    Extension(access): Extension<Access>,
    Path(name): Path<String>,
) -> Result<Json<ScheduleView>, Problem> {
    pause_schedule(&api, &access, &name, false).await
}

/// Makes one of the schedule's jobs now.
///
/// It does so even if the schedule is paused, has ended, or has an unfinished job. With `"overlap": "queue"`, the new job waits for the
/// unfinished one; with `cancel`, it replaces it; with `skip` and `allow`, it runs beside it. A repetition with the same `Idempotency-Key` within 24 hours returns the same response and makes no job.
#[utoipa::path(post, path = "/v1/schedules/{schedule}/run", operation_id = "schedules_run", tag = "schedules",
    params(("Idempotency-Key" = Option<String>, Header, description = "Key that makes the request safe to repeat: 1 to 255 visible ASCII characters, kept for 24 hours.")),
    responses((status = 201, body = JobView), (status = "4XX", body = Problem)))]
pub(in super::super) async fn run(
    State(api): State<Arc<ApiState>>,
    Extension(access): Extension<Access>,
    Path(name): Path<String>,
    Keyed(key): Keyed,
) -> Result<Response, Problem> {
    let schedule = find_schedule(&api, &access, &name)?;
    let template =
        api.intake.schedule_template(&schedule).await.map_err(|error| Problem::conflict(error.to_string()))?;
    api.intake.admit_ticks(access.tenant.id, 1).await?;
    let now = api.services.clock.now();
    for later in 0..ASKED_TRIES {
        let tick = UnixMs(now.0.saturating_add(later));
        let ticking = template.jobs_for(&[tick], TickTrigger::Asked, &*api.services.clock);
        let made = ticking.first().ok_or_else(Problem::internal)?;
        let answer = Answer::new(StatusCode::CREATED, &job_view(&api, made.job.clone().shown()));
        let kept = answer.to_string();
        let once = key.clone().map(|key| key.once(access.tenant.id, now, move |_| kept.clone()));
        match api.intake.insert_ticks_once(&ticking, once).await? {
            InsertResult::Replayed(kept) => return Answer::replay(&kept),
            InsertResult::Placed(placed) if placed.iter().all(InsertOutcome::is_stored) => {
                return Ok(answer.into_response());
            }
            InsertResult::Placed(_) => {}
        }
    }
    Err(Problem::unavailable("too many runs were requested in the same millisecond"))
}

/// Range of past runs.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BackfillInput {
    /// First time of the range: RFC 3339 or Unix seconds.
    #[schema(value_type = TimeInput)]
    from: Value,
    /// Last time of the range, not in the future: RFC 3339 or Unix seconds.
    #[schema(value_type = TimeInput)]
    to: Value,
}

/// Result of a backfill.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct BackfillView {
    /// Number of runs in the range.
    ticks: usize,
    /// Number of jobs that were made; the other runs had their jobs already.
    created: usize,
}

/// Makes the missing jobs of a range of past runs. Unless `overlap` is `allow`, they run one after the other. A repetition with the same
/// `Idempotency-Key` within 24 hours returns the same response and makes no job.
#[utoipa::path(post, path = "/v1/schedules/{schedule}/backfill", operation_id = "schedules_backfill", tag = "schedules", request_body = BackfillInput,
    params(("Idempotency-Key" = Option<String>, Header, description = "Key that makes the request safe to repeat: 1 to 255 visible ASCII characters, kept for 24 hours.")),
    responses((status = 200, body = BackfillView), (status = "4XX", body = Problem)))]
pub(in super::super) async fn backfill(
    State(api): State<Arc<ApiState>>,
    Extension(access): Extension<Access>,
    Path(name): Path<String>,
    Idempotent { doc, key }: Idempotent<BackfillInput>,
) -> Result<Response, Problem> {
    let (schedule, now) = (find_schedule(&api, &access, &name)?, api.services.clock.now());
    let at = |pointer, value: &Value| time(value, now).map_err(|detail| Problem::invalid(pointer, detail));
    let (from, to) = (at("/from", &doc.from)?, at("/to", &doc.to)?);
    if to > now {
        return Err(Problem::invalid("/to", "`to` must not be in the future"));
    }
    if to < from {
        return Err(Problem::invalid("/to", "`to` must not be before `from`"));
    }
    if from <= now.minus(TICKS_KEPT) {
        let days = TICKS_KEPT.as_secs() / 86_400;
        return Err(Problem::invalid(
            "/from",
            format!("`from` must be within the last {days} days: older runs are no longer recorded"),
        ));
    }
    let timetable = schedule.timetable.as_ref().map_err(|error| Problem::conflict(error.to_string()))?;
    let range = timetable.after(UnixMs(from.0.saturating_sub(1))).take_while(|tick| *tick <= to);
    let ticks: Vec<_> = range.take(BACKFILL_TICKS + 1).collect();
    if ticks.len() > BACKFILL_TICKS {
        return Err(Problem::invalid(
            "/to",
            format!("the range has more than {BACKFILL_TICKS} runs: backfill shorter ranges"),
        ));
    }
    let template =
        api.intake.schedule_template(&schedule).await.map_err(|error| Problem::conflict(error.to_string()))?;
    let count = ticks.len();
    api.intake.admit_ticks(access.tenant.id, count).await?;
    let answer = move |placed: &[InsertOutcome]| {
        let created = placed.iter().filter(|placed| placed.is_stored()).count();
        Answer::new(StatusCode::OK, &BackfillView { ticks: count, created })
    };
    let once = key.map(|key| key.once(access.tenant.id, now, move |placed| answer(placed).to_string()));
    match api
        .intake
        .insert_ticks_once(&template.jobs_for(&ticks, TickTrigger::Backfill, &*api.services.clock), once)
        .await?
    {
        InsertResult::Placed(placed) => Ok(answer(&placed).into_response()),
        InsertResult::Replayed(kept) => Answer::replay(&kept),
    }
}

/// Puts a schedule whose job makes sense; the answer says whether it is new.
pub(in super::super) async fn put_schedule(
    api: &ApiState,
    access: &Access,
    name: &str,
    spec: ScheduleSpec,
    paused: Option<bool>,
) -> Result<bool, Problem> {
    api.intake.job_of(access.tenant.id, &spec, &mut access.validation()).await?;
    let known = api.services.catalog.schedule(access.tenant.id, name);
    if known.is_some_and(|known| !access.sees(&known.spec.group)) {
        return Err(Problem::forbidden("the token is for certain groups only; the schedule is of another one"));
    }
    Ok(api.services.catalog.put_schedule(access.tenant.id, name, spec, paused, &access.origin()).await?.1)
}

async fn pause_schedule(
    api: &ApiState,
    access: &Access,
    name: &str,
    paused: bool,
) -> Result<Json<ScheduleView>, Problem> {
    let schedule = find_schedule(api, access, name)?;
    if schedule.paused != paused {
        api.services.catalog.pause_schedule(&schedule, paused, &access.origin()).await?;
    }
    show_schedule(api, access, name).await
}
