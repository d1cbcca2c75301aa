//! Attempts that are over, decided again: by the version that decided, or by another one.

use std::ops::Range;
use std::sync::Arc;

use axum::extract::State;
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};

use super::super::auth::Access;
use super::super::client::Client;
use super::super::error::Problem;
use super::super::input::{Body, OptionalBody, Path, Query};
use super::super::{ApiLimits, ApiState};
use super::find_group;
use super::job_filter::{FilterInput, instant};
use super::jobs::{Named, find_readable_job};
use super::shadow::{DifferenceView, TallyView};
use carillon_catalog::{AccessRole, Group};
use carillon_core::clock::UnixMs;
use carillon_core::job::{AttemptRecord, Job, JobId};
use carillon_engine::delivery::attempt::NotReplayable;
use carillon_engine::rollout::{Backtest, Record, Skipped};
use carillon_store::{JobFilter, JobsQuery};

/// The most jobs of one backtest; the next ones are asked for with its cursor.
const JOBS: u32 = 100;

/// The most attempts of a job that are looked at. After so many of all, no further job is.
const ATTEMPTS: u32 = 1_000;

/// Options of a replay.
#[derive(Debug, Default, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ReplayInput {
    /// Version of the group's policy that decides again. Default: the version that decided.
    version: Option<i64>,
}

/// Result of a replay.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct ReplayView {
    /// Version that decided again.
    version: i64,
    /// Whether the version decided the same in every respect.
    same: bool,
    /// Recorded decision, and the new one.
    #[serde(flatten)]
    difference: DifferenceView,
}

/// Selection of attempts for a backtest.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BacktestInput {
    /// Version of the group's policy that decides again.
    version: i64,
    /// Only attempts of jobs that were accepted at this time (RFC 3339) or later.
    #[serde(default)]
    created_from: Option<String>,
    /// Only attempts of jobs that were accepted before this time (RFC 3339).
    #[serde(default)]
    created_before: Option<String>,
    /// Only attempts that began at this time (RFC 3339) or later.
    #[serde(default)]
    attempted_from: Option<String>,
    /// Only attempts that began before this time (RFC 3339).
    #[serde(default)]
    attempted_before: Option<String>,
    /// Cursor: `next_cursor` of the previous response.
    #[serde(default)]
    cursor: Option<String>,
    /// Largest number of jobs in this response: 1 to 100. Default: 100. There are fewer if they have many attempts.
    #[serde(default)]
    limit: Option<u32>,
}

/// Result of a backtest, newest jobs first.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct BacktestView {
    /// Version that decided again.
    version: i64,
    /// Number of jobs in this response.
    jobs: u32,
    /// Number of all jobs in the range, accepted before its last attempt; only in the first response.
    #[serde(skip_serializing_if = "Option::is_none")]
    total_jobs: Option<u64>,
    /// Comparison of all decisions; `differences` is complete.
    #[serde(flatten)]
    tally: TallyView,
    /// Number of attempts that the version judged differently, but whose response was recorded to a smaller part than the deciding judge saw.
    /// They are in `differences`, and not counted as different in `judge` and `retry`.
    uncertain: u64,
    /// Fuel that the calls of the backtest used.
    backtest_fuel: u64,
    /// Attempts that could not be decided again.
    skipped: Vec<SkippedView>,
    /// Cursor of the next jobs; null if there are none.
    next_cursor: Option<String>,
}

/// Attempt that could not be decided again.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct SkippedView {
    /// Id of the job.
    job: String,
    /// Number of the attempt.
    attempt: u32,
    /// Reason.
    why: String,
}

impl From<Skipped> for SkippedView {
    fn from(Skipped { job, attempt, why }: Skipped) -> Self {
        Self { job: job.to_string(), attempt, why }
    }
}

impl BacktestInput {
    /// Which jobs, and which of their attempts. An attempt begins when its job is there: so of no later jobs.
    fn range(self, access: &Access, group: &Group, limits: &ApiLimits) -> Result<(JobFilter, Range<UnixMs>), Problem> {
        let from = instant("/attempted_from", self.attempted_from)?.unwrap_or(UnixMs(i64::MIN));
        let before = instant("/attempted_before", self.attempted_before)?;
        let Self { created_from, created_before, .. } = self;
        let mut filter = FilterInput { created_from, created_before, ..FilterInput::default() }
            .into_filter(access, group.id, limits)?;
        filter.created_before = filter.created_before.into_iter().chain(before).min();
        Ok((filter, from..before.unwrap_or(UnixMs::MAX)))
    }
}

pub(super) async fn load_record(api: &ApiState, job: Job) -> Result<Record, Problem> {
    let (tenant, id) = (job.tenant, job.id);
    let body = api.services.store.body(tenant, id).await?.unwrap_or_default();
    Ok(Record { attempts: api.services.store.attempts(tenant, id, 0, ATTEMPTS).await?, body, job })
}

/// Returns whether the requests that this version makes may be shown: to an admin always; to others only what a delivery now would carry too,
/// which is the version in force.
fn shows_requests(access: &Access, group: &Group, version: i64) -> bool {
    access.role >= AccessRole::Admin || version == group.rollout.active.number
}

fn refused(NotReplayable(why): NotReplayable) -> Problem {
    Problem::conflict(why)
}

/// Replays an attempt: decides it again from its record, with the version that decided it or with another one. Nothing is sent or stored.
#[utoipa::path(post, path = "/v1/jobs/{id}/attempts/{number}/replay", operation_id = "attempts_replay", tag = "policies", params(Named),
    request_body = Option<ReplayInput>, responses((status = 200, body = ReplayView), (status = "4XX", body = Problem)))]
pub(in super::super) async fn replay(
    State(api): State<Arc<ApiState>>,
    Extension(access): Extension<Access>,
    Path((id, number)): Path<(String, String)>,
    Query(named): Query<Named>,
    OptionalBody(doc): OptionalBody<ReplayInput>,
) -> Result<Json<ReplayView>, Problem> {
    let job = find_readable_job(&api, &access, &id, &named).await?;
    let group = api.services.catalog.group_by_id(job.group).ok_or_else(|| Problem::unknown("job", &id))?;
    let record = load_record(&api, job).await?;
    let wanted = number.parse().ok();
    let attempt = record.attempts.iter().find(|attempt| Some(attempt.number) == wanted);
    let attempt: &AttemptRecord = attempt.ok_or_else(|| Problem::unknown("attempt", &number))?;
    let version = doc.version.unwrap_or(attempt.detail.binding_version);
    let difference = api.rollouts.replay(&group, version, &record, attempt.number).await.map_err(refused)?;
    let same = difference.is_none();
    let mut difference = DifferenceView::from(&difference);
    if !shows_requests(&access, &group, version) {
        difference = difference.without_request();
    }
    Ok(Json(ReplayView { version, same, difference }))
}

/// Backtests a version of the group's policy: decides recorded attempts again, and compares the decisions. Nothing is sent or stored.
#[utoipa::path(post, path = "/v1/groups/{group}/policy/backtest", operation_id = "policies_backtest", tag = "policies", request_body = BacktestInput,
    responses((status = 200, body = BacktestView), (status = "4XX", body = Problem)))]
pub(in super::super) async fn backtest(
    State(api): State<Arc<ApiState>>,
    Extension(access): Extension<Access>,
    Extension(client): Extension<Client>,
    Path(name): Path<String>,
    Body(doc): Body<BacktestInput>,
) -> Result<Json<BacktestView>, Problem> {
    let group = find_group(&api, &access, &name)?;
    let (version, limit) = (doc.version, doc.limit.unwrap_or(JOBS));
    if !(1..=JOBS).contains(&limit) {
        return Err(Problem::invalid("/limit", format!("`limit` must be from 1 to {JOBS}, not {limit}")));
    }
    let before = doc.cursor.as_deref().map(str::parse::<JobId>).transpose();
    let before = before.map_err(|_| Problem::invalid("/cursor", "`cursor` is not the `next_cursor` of a backtest"))?;
    let (filter, times) = doc.range(&access, &group, &api.config.limits)?;
    let total_jobs = match before {
        None => Some(api.services.store.count(filter.clone()).await?),
        Some(_) => None,
    };
    let mut jobs = api.services.store.jobs(JobsQuery { filter, before, limit: limit + 1 }).await?;
    jobs.reverse();
    let (mut done, mut seen, mut next_cursor) = (Backtest::default(), 0, None);
    // One by one: what was kept of a job may be much.
    while let Some(job) = jobs.pop() {
        let id = job.id;
        // One that was over before has no attempt in there.
        if job.finished_at.is_none_or(|at| at >= times.start) {
            let record = load_record(&api, job).await?;
            let judged = api.rollouts.backtest(&group, version, &record, &times, &mut done);
            client.unless_gone(judged).await?.map_err(refused)?;
        }
        seen += 1;
        if seen == limit || done.attempts() >= ATTEMPTS as usize {
            next_cursor = jobs.last().map(|_| id.to_string());
            break;
        }
    }
    let mut tally = TallyView::from(&done.tally);
    if !shows_requests(&access, &group, version) {
        tally = tally.without_requests();
    }
    Ok(Json(BacktestView {
        version,
        jobs: seen,
        total_jobs,
        tally,
        uncertain: done.tally.uncertain,
        backtest_fuel: done.tally.shadow_fuel,
        skipped: done.skipped.into_iter().map(SkippedView::from).collect(),
        next_cursor,
    }))
}
