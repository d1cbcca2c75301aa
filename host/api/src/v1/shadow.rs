//! A version of a group's policy that runs beside the one in force.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};

use super::super::ApiState;
use super::super::auth::Access;
use super::super::error::Problem;
use super::super::input::{Body, Path};
use super::find_group;
use super::views::ByView;
use carillon_catalog::{Group, Shadow};
use carillon_core::error_code::ErrorCode;
use carillon_core::job::Outcome;
use carillon_engine::delivery::attempt::Evaluation;
use carillon_engine::rollout::{Difference, RequestChanges, Tally};
use carillon_policy::Ruling;

/// Version to run as a group's shadow.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ShadowInput {
    /// Number of the version.
    version: i64,
    /// Percentage of the attempts that the shadow is shown: 1 to 100. Default: 100.
    #[serde(default)]
    percent: Option<u32>,
}

/// Shadow of a group, with its results on this node since it was set or the server started.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct ShadowView {
    /// Number of the version.
    version: i64,
    /// Percentage of the attempts that it is shown.
    percent: u32,
    /// Time when it was set.
    #[schema(format = DateTime)]
    since: String,
    /// Author; null if authentication is disabled.
    by: Option<ByView>,
    /// Comparison with the deciding versions; `differences` has the newest 20, newest first.
    #[serde(flatten)]
    tally: TallyView,
    /// Number of attempts that it was not shown because too many were waiting.
    dropped: u64,
    /// Fuel that the calls of the shadow used.
    shadow_fuel: u64,
}

/// Comparison of a version's decisions with those of the deciding versions.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct TallyView {
    /// Number of compared attempts.
    attempts: u64,
    /// Number of attempts on which the version decided the same in every respect.
    same: u64,
    /// Number of attempts on which it decided differently, by what differs.
    different: DifferentView,
    /// Number of the version's faults, by code.
    #[schema(value_type = BTreeMap<String, u64>)]
    faults: BTreeMap<ErrorCode, u64>,
    /// Fuel that the calls of the deciding versions used.
    fuel: u64,
    /// Attempts on which the version decided differently, or had a fault.
    differences: Vec<DifferenceView>,
}

impl From<&Tally> for TallyView {
    fn from(tally: &Tally) -> Self {
        Self {
            attempts: tally.attempts,
            same: tally.same,
            different: DifferentView { request: tally.request, judge: tally.judge, retry: tally.retry },
            faults: tally.faults.clone(),
            fuel: tally.fuel,
            differences: tally.differences.iter().map(DifferenceView::from).collect(),
        }
    }
}

/// Number of attempts that were decided differently, by what differs.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct DifferentView {
    /// Attempts whose request differs, or could be made by one version only. `encode` and `sign` make it.
    request: u64,
    /// Attempts whose verdict differs.
    judge: u64,
    /// Attempts whose retry decision differs.
    retry: u64,
}

/// Attempt on which a version decided differently, or had a fault.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct DifferenceView {
    /// Id of the job.
    job: String,
    /// Number of the attempt.
    attempt: u32,
    /// What differs: `request`, `judge` and `retry`, separated by commas.
    different: String,
    /// Decision that took effect.
    said: OpinionView,
    /// Decision of the compared version; null if it could not be called.
    shadow: Option<OpinionView>,
    /// Codes of the compared version's faults.
    #[schema(value_type = Vec<String>)]
    faults: Vec<ErrorCode>,
    /// Whether the verdicts differ, but the compared version saw less of the response than the deciding judge: then `judge`, and what follows
    /// from it, may not really differ. Always false for a live shadow, which sees the whole response.
    uncertain: bool,
    /// Differences of the version's request from the one that was sent. Only in a replay or a backtest, if both requests were made and the one
    /// that was sent can be reproduced.
    #[serde(skip_serializing_if = "Option::is_none")]
    request: Option<RequestChanges>,
    /// Inputs that may have changed since the attempt, and so may explain the difference.
    caveats: Vec<&'static str>,
}

impl DifferenceView {
    /// Returns the comparison without the changes of the request, which show signatures.
    pub(super) fn without_request(self) -> Self {
        Self { request: None, ..self }
    }
}

impl TallyView {
    /// Returns the comparison without the changes of requests, which show signatures.
    pub(super) fn without_requests(self) -> Self {
        let differences = self.differences.into_iter().map(DifferenceView::without_request).collect();
        Self { differences, ..self }
    }
}

/// Decision of a version on an attempt.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct OpinionView {
    /// SHA-256 of the request; null if none could be made.
    request_digest: Option<String>,
    /// Outcome in the verdict.
    outcome: Outcome,
    /// Reason that the judge gave.
    reason: String,
    /// What follows: `done`, `retry` or `give-up`.
    decision: &'static str,
    /// Delay of the next attempt in milliseconds, if the decision is `retry`.
    after_ms: Option<u64>,
}

impl From<&Evaluation> for OpinionView {
    fn from(opinion: &Evaluation) -> Self {
        let (decision, after_ms) = match &opinion.ruling {
            Ruling::Done => ("done", None),
            Ruling::GiveUp(_) => ("give-up", None),
            Ruling::RetryAfter(delay) => ("retry", Some(u64::try_from(delay.as_millis()).unwrap_or(u64::MAX))),
        };
        Self {
            request_digest: opinion.request.clone(),
            outcome: opinion.outcome,
            reason: opinion.reason.clone(),
            decision,
            after_ms,
        }
    }
}

impl From<&Difference> for DifferenceView {
    fn from(it: &Difference) -> Self {
        let faults = match &it.shadow {
            Ok(opinion) => opinion.uses.iter().filter_map(|used| used.fault.clone()).collect(),
            Err(code) => vec![(*code).into()],
        };
        Self {
            job: it.job.to_string(),
            attempt: it.attempt,
            different: it.parts(),
            said: (&it.said).into(),
            shadow: it.shadow.as_ref().ok().map(Into::into),
            faults,
            uncertain: it.uncertain,
            request: it.request.clone(),
            caveats: it.caveats.clone(),
        }
    }
}

fn shadow_view(api: &ApiState, group: &Group) -> Result<Json<ShadowView>, Problem> {
    let Some(shadow) = &group.rollout.shadow else { return Err(no_shadow(&group.name)) };
    let tally = api.rollouts.shadows.tally(group);
    let Shadow { version, percent, since, by } = shadow.clone();
    Ok(Json(ShadowView {
        version,
        percent,
        since: since.to_string(),
        by: by.map(Into::into),
        tally: (&tally).into(),
        dropped: tally.dropped,
        shadow_fuel: tally.shadow_fuel,
    }))
}

fn no_shadow(group: &str) -> Problem {
    Problem::unknown("shadow in the group", group)
}

/// Makes a version the group's shadow: it runs beside the version in force. Its decisions are compared and counted, and never used.
#[utoipa::path(put, path = "/v1/groups/{group}/policy/shadow", operation_id = "policy_shadows_put", tag = "policies", request_body = ShadowInput,
    responses((status = 200, body = ShadowView), (status = "4XX", body = Problem)))]
pub(in super::super) async fn put(
    State(api): State<Arc<ApiState>>,
    Extension(access): Extension<Access>,
    Path(name): Path<String>,
    Body(doc): Body<ShadowInput>,
) -> Result<Json<ShadowView>, Problem> {
    let group = find_group(&api, &access, &name)?;
    let percent = doc.percent.unwrap_or(100);
    let group = api
        .services
        .catalog
        .set_shadow(&group, doc.version, percent, &access.author(None, &api.config.limits)?)
        .await?;
    shadow_view(&api, &group)
}

/// Shows a group's shadow and its results.
#[utoipa::path(get, path = "/v1/groups/{group}/policy/shadow", operation_id = "policy_shadows_get", tag = "policies",
    responses((status = 200, body = ShadowView), (status = "4XX", body = Problem)))]
pub(in super::super) async fn get(
    State(api): State<Arc<ApiState>>,
    Extension(access): Extension<Access>,
    Path(name): Path<String>,
) -> Result<Json<ShadowView>, Problem> {
    shadow_view(&api, &*find_group(&api, &access, &name)?)
}

/// Ends a group's shadow.
#[utoipa::path(delete, path = "/v1/groups/{group}/policy/shadow", operation_id = "policy_shadows_delete", tag = "policies",
    responses((status = 204), (status = "4XX", body = Problem)))]
pub(in super::super) async fn delete(
    State(api): State<Arc<ApiState>>,
    Extension(access): Extension<Access>,
    Path(name): Path<String>,
) -> Result<StatusCode, Problem> {
    let group = find_group(&api, &access, &name)?;
    let is_cleared = api.services.catalog.clear_shadow(&group, &access.origin()).await?;
    if is_cleared { Ok(StatusCode::NO_CONTENT) } else { Err(no_shadow(&name)) }
}
