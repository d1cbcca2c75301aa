//! What a job would do, before anything is sent.

use std::sync::Arc;

use axum::extract::State;
use axum::{Extension, Json};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::super::ApiState;
use super::super::auth::Access;
use super::super::client::Client;
use super::super::error::Problem;
use super::super::input::{Body, Path, run_at};
use super::find_group;
use carillon_catalog::{AccessRole, Group};
use carillon_core::clock::UnixMs;
use carillon_core::error_code::TransportError;
use carillon_core::job::{
    AttemptError, AttemptRecord, Job, LeasedJob, NewJob, PluginUse, State as JobState, Token, VerdictRecord, shown_url,
};
use carillon_core::json::unique;
use carillon_engine::delivery::send::{Answer, Outgoing};
use carillon_engine::delivery::simulate::{ATTEMPTS, simulated_answer};
use carillon_engine::intake::headers::{HeaderView, HeadersInput, headers_schema};
use carillon_engine::intake::{JobInput, TimeInput};
use carillon_policy::{Fault, Plan};

/// The statuses of an imagined failure and of an imagined success.
pub(super) const FAILURE_STATUS: u16 = 500;
const SUCCESS_STATUS: u16 = 200;

/// Job to simulate, and the responses to assume.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SimulateInput {
    /// Job, as it would be posted.
    job: JobInput,
    /// Candidate policy, merged over the group's own. Default: the group's policy.
    #[serde(default, deserialize_with = "unique::optional")]
    #[schema(value_type = Option<Object>)]
    policy: Option<Value>,
    /// Assumed responses of the receiver, one for each attempt.
    #[serde(default)]
    responses: Vec<ResponseInput>,
    /// Instead of `responses`: number of responses with status 500, before one with status 200.
    #[serde(default)]
    failures: usize,
    /// Seed of the job. Default: random.
    #[serde(default)]
    seed: Option<u32>,
    /// Time of posting: RFC 3339 or Unix seconds. Default: now.
    #[serde(default)]
    #[schema(value_type = Option<TimeInput>)]
    now: Option<Value>,
}

/// Assumed response.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ResponseInput {
    /// HTTP status. Default: 200.
    #[serde(default)]
    status: Option<u16>,
    /// Headers of the response.
    #[serde(default)]
    #[schema(schema_with = headers_schema)]
    headers: HeadersInput,
    /// Body of the response.
    #[serde(default)]
    body: String,
    /// Transport error instead of a response: `timeout`, `connect`, …
    #[serde(default)]
    error: Option<String>,
}

/// Result of a simulation.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct SimulationView {
    /// First request, if it can be made.
    request: Option<RequestView>,
    /// Error if the request cannot be made.
    error: Option<AttemptError>,
    /// Error of the first attempt, if its target would be refused, as far as that is known without a connection: by its port, or by the address in
    /// its URL.
    #[serde(skip_serializing_if = "Option::is_none")]
    refused: Option<AttemptError>,
    /// Calls of the policies that made it.
    plugins: Vec<PluginUse>,
    /// Simulated attempts.
    attempts: Vec<ForetoldAttempt>,
    /// Seed that was used.
    seed: u32,
}

/// Request with its exact bytes.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = SentRequestView)]
pub struct RequestView {
    /// HTTP method.
    method: String,
    /// URL of the request.
    url: String,
    /// Headers without those of the connection (`Host`, `Content-Length`). For a value that is a key, `(key NAME)` is shown.
    headers: Vec<HeaderView>,
    /// Body, if it is text.
    body: Option<String>,
    /// Body in base64, if it is not text.
    #[serde(skip_serializing_if = "Option::is_none")]
    body_base64: Option<String>,
    /// SHA-256 of the request, equal to the one that an attempt with these bytes records.
    digest: String,
}

/// Simulated attempt.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct ForetoldAttempt {
    /// Number of the attempt, from 1.
    number: u32,
    /// Time of the attempt.
    #[schema(format = DateTime)]
    run_at: String,
    /// Delay after the previous attempt, or after the posting, in milliseconds.
    after_ms: u64,
    /// Verdict of the judge; null if the request cannot be made.
    verdict: Option<VerdictRecord>,
    /// Error: the assumed one, or a fault of a policy, in whose place the server decided.
    error: Option<AttemptError>,
    /// State of the job after the attempt: `scheduled` for another attempt, or a final state.
    decision: JobState,
    /// Time of the next attempt; null if there is none.
    #[schema(format = DateTime)]
    next_run_at: Option<String>,
    /// Reason for the decision.
    reason: String,
    /// Calls of policies in this attempt.
    plugins: Vec<PluginUse>,
}

/// Simulates a job of this group: returns the exact bytes of its request and the times of its attempts. Nothing is stored or sent.
#[utoipa::path(post, path = "/v1/groups/{group}/policy/simulate", operation_id = "policies_simulate", tag = "policies", request_body = SimulateInput,
    responses((status = 200, body = SimulationView), (status = "4XX", body = Problem)))]
pub(in super::super) async fn simulate(
    State(api): State<Arc<ApiState>>,
    Extension(access): Extension<Access>,
    Extension(client): Extension<Client>,
    Path(name): Path<String>,
    Body(doc): Body<SimulateInput>,
) -> Result<Json<SimulationView>, Problem> {
    let group = find_group(&api, &access, &name)?;
    let wall = api.services.clock.now();
    let now = match &doc.now {
        None => wall,
        now => run_at(now.as_ref(), UnixMs(0), std::time::Duration::MAX).map_err(|error| error.moved_to("/now"))?,
    };
    let answers = answers(&doc)?;
    let in_force = group;
    let group = match &doc.policy {
        Some(policy) => candidate_of(&api, &in_force, policy).await?,
        None => Arc::clone(&in_force),
    };
    if access.role < AccessRole::Admin {
        check_signature(&in_force, &group, doc.now.is_some())?;
    }
    let mut job = api
        .intake
        .new_job(&group, doc.job, now, &mut access.validation())
        .await
        .map_err(|error| error.inside("/job"))?;
    job.seed = doc.seed.unwrap_or(job.seed);
    let plan = plan_of(&api, &group, &job).await?;
    let (seed, leased) = (job.seed, leased(job));
    let forecast = client.unless_gone(api.executor.simulate(&group, &plan, leased, answers)).await?;
    let (request, error) = match forecast.request {
        Ok(request) => (Some(RequestView::new(&request)), None),
        Err((role, fault)) => {
            (None, Some(AttemptError { code: fault.code.into(), message: format!("{role}: {}", fault.message) }))
        }
    };
    let mut before = now;
    let attempts = forecast.attempts.into_iter().map(|(at, attempt)| {
        let foretold = ForetoldAttempt::new(at, before, attempt);
        before = at;
        foretold
    });
    let (attempts, refused, plugins) = (attempts.collect(), forecast.refusal, forecast.uses);
    Ok(Json(SimulationView { request, error, refused, attempts, plugins, seed }))
}

/// Parts of a policy that make the request which a receiver trusts.
const REQUEST_PARTS: [&str; 3] = ["encode", "sign", "auth_headers"];

/// Refuses a simulation that would show a signature which no delivery now carries: of another signer, key or encoder than those in force, or of
/// another time. A producer could otherwise have any text signed with any key.
fn check_signature(in_force: &Group, simulated: &Group, is_other_time: bool) -> Result<(), Problem> {
    let part = |group: &Group, part: &str| {
        group.effective.as_ref().ok().and_then(|policy| policy.doc.value().get(part).cloned())
    };
    let signs = simulated.effective.as_ref().is_ok_and(|policy| policy.sign.is_some());
    if signs && is_other_time {
        let detail = "a simulation at another time shows a signature that no delivery carries: it takes the role admin";
        return Err(Problem::forbidden(detail));
    }
    match REQUEST_PARTS.into_iter().find(|name| part(in_force, name) != part(simulated, name)) {
        Some(name) => Err(Problem::forbidden(format!(
            "a candidate policy whose `{name}` differs from the group's takes the role admin, because the simulation shows its signature"
        ))),
        None => Ok(()),
    }
}

/// Returns the group under another policy of its own.
async fn candidate_of(api: &ApiState, group: &Group, policy: &Value) -> Result<Arc<Group>, Problem> {
    if !policy.is_object() {
        return Err(Problem::malformed(Some("/policy".to_owned()), "`policy` must be a JSON object"));
    }
    let own = api.services.catalog.with_part(group, policy);
    let effective = api.services.catalog.candidate(&group.tenant, Some(&group.name), &own).await;
    let effective = effective.map_err(|error| Problem::from(error).within("/policy"))?;
    Ok(Arc::new(group.with_effective(&own, effective)))
}

pub(super) async fn plan_of(api: &ApiState, group: &Group, job: &NewJob) -> Result<Arc<Plan>, Problem> {
    let plan = api.services.catalog.plan(group, job.spec.policy.as_ref()).await;
    Ok(plan.map_err(|(role, fault)| Fault { message: format!("{role}: {}", fault.message), ..fault })?)
}

fn answers(doc: &SimulateInput) -> Result<Vec<Answer>, Problem> {
    let most = |pointer: &str| Problem::invalid(pointer, format!("at most {ATTEMPTS} attempts can be simulated"));
    if doc.failures > ATTEMPTS {
        return Err(most("/failures"));
    }
    if doc.responses.len() > ATTEMPTS {
        return Err(most("/responses"));
    }
    if doc.responses.is_empty() {
        let failure = simulated_answer(FAILURE_STATUS, Vec::new(), bytes::Bytes::new());
        let success = simulated_answer(SUCCESS_STATUS, Vec::new(), bytes::Bytes::new());
        return Ok(std::iter::repeat_n(failure, doc.failures).chain([success]).collect());
    }
    doc.responses.iter().enumerate().map(|(index, response)| answer(index, response)).collect()
}

fn answer(index: usize, response: &ResponseInput) -> Result<Answer, Problem> {
    let Some(error) = &response.error else {
        let (status, headers) = (response.status.unwrap_or(SUCCESS_STATUS), response.headers.as_given());
        return Ok(simulated_answer(status, headers, response.body.clone().into()));
    };
    let error = TransportError::parse(error).ok_or_else(|| {
        let known = TransportError::ALL.map(TransportError::code).join(", ");
        Problem::invalid(
            format!("/responses/{index}/error"),
            format!("not a transport error; the known ones are {known}"),
        )
    })?;
    Ok(Answer::Failure { error, message: "imagined".to_owned(), elapsed: std::time::Duration::ZERO })
}

/// Returns the job as it would be when its first attempt is due.
pub(super) fn leased(job: NewJob) -> LeasedJob {
    let body = job.body.clone();
    let shown = Job { state: JobState::Running, ..job.shown() };
    LeasedJob { job: shown, token: Token(1), body, lost_leases: 0, until: UnixMs::MAX, history: Vec::new() }
}

impl RequestView {
    pub(super) fn new(outgoing: &Outgoing) -> Self {
        let header = |(name, value): (&axum::http::HeaderName, &axum::http::HeaderValue)| {
            (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned())
        };
        let keys = outgoing.auth_headers.iter();
        let keys = keys.map(|(header, _)| (header.name.to_string(), format!("(key {})", header.key)));
        let body = String::from_utf8(outgoing.body.to_vec());
        Self {
            method: outgoing.method.to_string(),
            url: shown_url(outgoing.url.as_str()),
            headers: outgoing.headers.iter().map(header).chain(keys).map(HeaderView::from).collect(),
            body_base64: body.is_err().then(|| STANDARD.encode(&outgoing.body)),
            body: body.ok(),
            digest: outgoing.digest(),
        }
    }
}

impl ForetoldAttempt {
    fn new(at: UnixMs, before: UnixMs, attempt: AttemptRecord) -> Self {
        let detail = attempt.detail;
        let decision = detail.decision;
        Self {
            number: attempt.number,
            run_at: at.to_string(),
            after_ms: u64::try_from(at.since(before).as_millis()).unwrap_or(u64::MAX),
            verdict: detail.verdict,
            error: detail.error,
            next_run_at: decision.as_ref().and_then(|decision| decision.next_run_at).map(|at| at.to_string()),
            decision: decision.as_ref().map_or(JobState::Expired, |decision| decision.state),
            reason: decision.map(|decision| decision.reason).unwrap_or_default(),
            plugins: detail.plugins,
        }
    }
}
