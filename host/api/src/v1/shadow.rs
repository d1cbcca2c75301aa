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
use carillon_catalog::{Group, Shadow};
use carillon_core::job::Outcome;
use carillon_engine::delivery::attempt::Evaluation;
use carillon_engine::rollout::{Difference, RequestChanges, Tally};
use carillon_policy::Ruling;

/// What is to run beside the version in force.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ShadowDoc {
    /// The version.
    version: i64,
    /// How many of a hundred attempts it is shown: 1 to 100, the default.
    #[serde(default)]
    percent: Option<u32>,
}

/// What a shadow has said so far: on this node, since it was set or the server started.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct ShadowView {
    /// The version.
    version: i64,
    /// How many of a hundred attempts it is shown.
    percent: u32,
    /// When it was set.
    #[schema(format = DateTime)]
    since: String,
    /// The name of the token that set it.
    by: Option<String>,
    /// Its differences are the newest 20, newest first.
    #[serde(flatten)]
    tally: TallyView,
    /// Attempts that it was not shown, because too many waited.
    dropped: u64,
    /// The fuel that its own calls took.
    shadow_fuel: u64,
}

/// What a version said of attempts that another one decided.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct TallyView {
    /// Attempts that it was asked about.
    attempts: u64,
    /// Those of which it said the same in everything.
    same: u64,
    /// Those of which it did not, by what was different.
    different: DifferentView,
    /// Its faults by code.
    faults: BTreeMap<String, u64>,
    /// The fuel that the calls took of the version that decided.
    fuel: u64,
    /// Attempts of which it said something else, or had a fault.
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

/// How many attempts were different in what.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct DifferentView {
    /// In the request: other bytes to send, or none. `encode` and `sign` make it.
    request: u64,
    /// In the verdict.
    judge: u64,
    /// In the decision about another attempt.
    retry: u64,
}

/// An attempt of which a shadow said something else, or had a fault.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct DifferenceView {
    /// The job's id.
    job: String,
    /// The attempt's number.
    attempt: u32,
    /// What is different: `request`, `judge`, `retry`; separated by commas.
    different: String,
    /// What was said.
    said: OpinionView,
    /// What the shadow said; null if it could not be asked.
    shadow: Option<OpinionView>,
    /// The codes of the shadow's faults.
    faults: Vec<String>,
    /// Whether it judges otherwise, but saw less of the answer than the judge that decided: so `judge`, and what follows from it, may not be
    /// different. Never in live shadows, which see all of it.
    uncertain: bool,
    /// Where its request differs from the one that was sent, to the byte. In a replay and a backtest, if both made one, and that which was sent
    /// can be made again.
    #[serde(skip_serializing_if = "Option::is_none")]
    request: Option<RequestChanges>,
    /// Why it may say something else, as far as it is known that something is not as it was.
    caveats: Vec<&'static str>,
}

/// What a version of a policy made of an attempt.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct OpinionView {
    /// The sha-256 of the request; null if none could be made.
    request_digest: Option<String>,
    /// What the answer was judged to be.
    outcome: Outcome,
    /// Why, as the judge says it.
    reason: String,
    /// What followed: `done`, `retry` or `give-up`.
    decision: &'static str,
    /// After how many milliseconds, if it is `retry`.
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
            Err(code) => vec![code.as_str().to_owned()],
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

impl ApiState {
    fn shadow_view(&self, group: &Group) -> Result<Json<ShadowView>, Problem> {
        let Some(shadow) = &group.rollout.shadow else { return Err(no_shadow(&group.name)) };
        let tally = self.rollouts.shadows.tally(group);
        let Shadow { version, percent, since, by } = shadow.clone();
        Ok(Json(ShadowView {
            version,
            percent,
            since: since.to_string(),
            by,
            tally: (&tally).into(),
            dropped: tally.dropped,
            shadow_fuel: tally.shadow_fuel,
        }))
    }
}

fn no_shadow(group: &str) -> Problem {
    Problem::unknown("shadow in the group", group)
}

/// Lets a version of a group's policy run beside the one in force. Its answers are compared and counted, and never used.
#[utoipa::path(put, path = "/v1/groups/{group}/policy/shadow", operation_id = "policy_shadows_put", tag = "policies", request_body = ShadowDoc,
    responses((status = 200, body = ShadowView), (status = "4XX", body = Problem)))]
pub(in super::super) async fn put(
    State(api): State<Arc<ApiState>>,
    Extension(access): Extension<Access>,
    Path(name): Path<String>,
    Body(doc): Body<ShadowDoc>,
) -> Result<Json<ShadowView>, Problem> {
    let group = api.group(&access, &name)?;
    let percent = doc.percent.unwrap_or(100);
    let group = api.catalog.set_shadow(&group, doc.version, percent, &access.author(None)?).await?;
    api.shadow_view(&group)
}

/// Shows what a group's shadow has said so far.
#[utoipa::path(get, path = "/v1/groups/{group}/policy/shadow", operation_id = "policy_shadows_get", tag = "policies",
    responses((status = 200, body = ShadowView), (status = "4XX", body = Problem)))]
pub(in super::super) async fn get(
    State(api): State<Arc<ApiState>>,
    Extension(access): Extension<Access>,
    Path(name): Path<String>,
) -> Result<Json<ShadowView>, Problem> {
    api.shadow_view(&*api.group(&access, &name)?)
}

/// Ends a group's shadow.
#[utoipa::path(delete, path = "/v1/groups/{group}/policy/shadow", operation_id = "policy_shadows_delete", tag = "policies",
    responses((status = 204), (status = "4XX", body = Problem)))]
pub(in super::super) async fn delete(
    State(api): State<Arc<ApiState>>,
    Extension(access): Extension<Access>,
    Path(name): Path<String>,
) -> Result<StatusCode, Problem> {
    let group = api.group(&access, &name)?;
    if api.catalog.clear_shadow(&group).await? { Ok(StatusCode::NO_CONTENT) } else { Err(no_shadow(&name)) }
}
