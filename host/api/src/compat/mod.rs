//! The APIs of other schedulers in front of the same jobs, for clients that were written for them.
//!
//! Each is a translation: an old request becomes a [`carillon_core::job::NewJob`], a job becomes an old answer. What is different about how such jobs
//! are delivered, judged and retried is data: the policy and the limits of the mount's group, and overrides on the job. Nothing
//! behind this module knows of them, and they keep nothing of their own.
//!
//! A mount answers with and without slashes at the end of a path, and never redirects, because its clients build URLs by gluing.
//! What cannot be done is answered with `{"error": …}` and a status in the 400s.

mod callme;
mod doppler;
mod group;
mod poussetaches;
mod refusal;

use std::borrow::Cow;
use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use percent_encoding::percent_decode_str;
use serde_json::{Map, Value};

use self::refusal::Refusal;
use super::ApiState;
use super::audit::{Caller, requested};
use super::auth::{Access, Denied, Requirement, Standing, access_of};
use super::error::Problem;
use super::idempotency;
use super::input::read;
use super::pools::RequestGuard;
use carillon_catalog::{AccessRole, Author, Group, Written};
use carillon_core::audit::{AuditObject, Verb};
use carillon_core::job::{Admission, AttemptRecord, Job, NewJob};
use carillon_engine::intake::JobInput;
use carillon_store::{ChangeOutcome, InsertOutcome, InsertResult, JobChange, JobFilter, JobsQuery};

pub use self::group::{AUTH_KEY, OwnLimits, presets, without_preset};

/// How many jobs are changed in one transaction.
const CHANGED_AT_ONCE: usize = 1_000;

/// One of the APIs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mount {
    /// Callbacks of Flask applications.
    Doppler,
    /// Tasks that are pushed, and crons.
    Poussetaches,
    /// Calls by name and minute.
    Callme,
}

impl Mount {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Doppler, Self::Poussetaches, Self::Callme];

    /// Its name, which is the last part of its path.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Doppler => "doppler",
            Self::Poussetaches => "poussetaches",
            Self::Callme => "callme",
        }
    }

    /// Its settings.
    #[must_use]
    pub fn settings(self, compat: &carillon_config::Compat) -> &carillon_config::Mount {
        match self {
            Self::Doppler => &compat.doppler,
            Self::Poussetaches => &compat.poussetaches.mount,
            Self::Callme => &compat.callme,
        }
    }
}

/// A mount's routes under `/compat`; none if it is switched off.
pub(super) fn below_its_path(mount: Mount, api: &ApiState) -> Router<Arc<ApiState>> {
    if !mount.settings(&api.config.compat).enabled {
        return Router::new();
    }
    let path = format!("/compat/{}", mount.name());
    let handler = |prefix: usize| {
        any(move |State(api): State<Arc<ApiState>>, request: Request| async move {
            let rest = request.uri().path()[prefix..].to_owned();
            answer(mount, api, rest, request).await
        })
    };
    Router::new()
        .route(&path, handler(path.len()))
        .route(&format!("{path}/"), handler(path.len()))
        .route(&format!("{path}/{{*rest}}"), handler(path.len()))
}

/// A mount's routes on a port of its own.
pub(super) fn at_the_root(mount: Mount) -> Router<Arc<ApiState>> {
    Router::new().fallback(move |State(api): State<Arc<ApiState>>, request: Request| async move {
        let rest = request.uri().path().to_owned();
        answer(mount, api, rest, request).await
    })
}

async fn answer(mount: Mount, api: Arc<ApiState>, rest: String, request: Request) -> Response {
    let query = request.uri().query().unwrap_or_default().to_owned();
    let caller = Caller::from_request(&request).map_err(Denied::from);
    let access = caller.and_then(|caller| access_of(&api, request.headers(), &caller));
    let (call, known) = match access {
        Ok(access) => {
            let known = access.known();
            (Call::from_request(mount, api, access, rest, request).await, Some(known))
        }
        Err(Denied { problem, known }) => (Err(*problem), known.map(|known| *known)),
    };
    let mut response = match (mount, call) {
        (Mount::Callme, Err(problem)) => callme::refused(problem.into(), &query),
        (_, Err(problem)) => Refusal::from(problem).into_response(),
        (Mount::Doppler, Ok(call)) => doppler::answer(&call).await.unwrap_or_else(IntoResponse::into_response),
        (Mount::Poussetaches, Ok(call)) => {
            poussetaches::answer(&call).await.unwrap_or_else(IntoResponse::into_response)
        }
        (Mount::Callme, Ok(call)) => callme::answer(&call).await,
    };
    known.map(|known| response.extensions_mut().insert(known));
    response
}

/// A request to a mount.
#[derive(Clone)]
struct Call {
    mount: Mount,
    api: Arc<ApiState>,
    access: Access,
    method: Method,
    /// What follows the mount in the path, as it was sent: nothing, or it begins with a slash.
    rest: String,
    /// As it was sent.
    query: String,
    headers: HeaderMap,
    body: Bytes,
    /// Place of the request, and bytes of its body.
    _guard: Arc<RequestGuard>,
}

impl Call {
    async fn from_request(
        mount: Mount,
        api: Arc<ApiState>,
        access: Access,
        rest: String,
        request: Request,
    ) -> Result<Self, Problem> {
        idempotency::refuse(request.method(), request.headers())?;
        let method = if request.method() == Method::HEAD { Method::GET } else { request.method().clone() };
        // Lists show payloads, which viewers do not see elsewhere.
        Requirement::Role(AccessRole::Producer).check(&access)?;
        if !access.sees(&mount.settings(&api.config.compat).group) {
            return Err(Problem::forbidden(
                "the token is for certain groups only, and the mount's group is none of them",
            ));
        }
        if api.config.audit_jobs {
            let object = AuditObject::new("mount", Some(mount.name().to_owned()));
            requested(&api, &access.known(), Verb::MOUNT_REQUEST, object).await?;
        }
        let query = request.uri().query().unwrap_or_default().to_owned();
        let headers = request.headers().clone();
        let mut request = request;
        request.extensions_mut().insert(Standing::new(&api, &access));
        let (request, guard) = api.pools.admit(access.tenant.id, request)?;
        let body = read(request).await.map_err(|problem| guard.cut_off().unwrap_or(problem))?;
        Ok(Self { mount, api, access, method, rest, query, headers, body, _guard: Arc::new(guard) })
    }

    /// What follows the mount in the path, without slashes around it.
    fn path(&self) -> &str {
        self.rest.trim_matches('/')
    }

    /// The parameters behind the path.
    fn params(&self) -> impl Iterator<Item = (Cow<'_, str>, Cow<'_, str>)> {
        url::form_urlencoded::parse(self.query.as_bytes())
    }

    /// The first value of a parameter.
    fn param(&self, name: &str) -> Option<Cow<'_, str>> {
        self.params().find(|(key, _)| key == name).map(|(_, value)| value)
    }

    /// The method is not one of this path's.
    fn wrong_method(&self) -> Refusal {
        Problem::wrong_method(self.method.as_str(), &decoded(&self.rest)).into()
    }

    /// What the mount's group is called.
    fn group_name(&self) -> &str {
        &self.mount.settings(&self.api.config.compat).group
    }

    /// The mount's group, if it has been used.
    fn known_group(&self) -> Option<Arc<Group>> {
        self.api.services.catalog.group(self.access.tenant.id, self.group_name())
    }

    /// The mount's group, which is made if this is its first use.
    async fn group(&self) -> Result<Arc<Group>, Refusal> {
        if let Some(group) = self.known_group() {
            return Ok(group);
        }
        let (doc, author) =
            (Value::Object(Map::new()), Author::server(&group::author(self.mount), self.access.origin()));
        let made = self
            .api
            .services
            .catalog
            .put_group(&self.access.tenant, self.group_name(), Written::Whole(doc), &author)
            .await;
        Ok(made.map_err(Problem::from)?.group)
    }

    /// A job as if it were posted to the mount's group, under a condition.
    async fn job(&self, group: &Arc<Group>, doc: JobInput, admission: Admission) -> Result<NewJob, Refusal> {
        let now = self.api.services.clock.now();
        let job = self.api.intake.new_job(group, doc, now, &mut self.access.validation()).await?;
        Ok(NewJob { admission, ..job })
    }

    /// Stores jobs; the answer comes after the commit.
    async fn insert(&self, jobs: Vec<NewJob>) -> Result<Vec<InsertOutcome>, Refusal> {
        match self.api.intake.accept(self.access.tenant.id, jobs.into()).await? {
            InsertResult::Placed(placed) => Ok(placed),
            InsertResult::Replayed(_) => Ok(Vec::new()),
        }
    }

    /// Does the same to several of the tenant's jobs; says for each what came of it.
    async fn change(&self, jobs: &[Job], change: &JobChange) -> Result<Vec<ChangeOutcome>, Refusal> {
        let mut all = Vec::with_capacity(jobs.len());
        for jobs in jobs.chunks(CHANGED_AT_ONCE) {
            all.extend(self.api.bulk.change(self.access.tenant.id, jobs, change).await?);
        }
        Ok(all)
    }

    /// The newest jobs of a name, newest first.
    async fn jobs_named(&self, name: &str, limit: u32) -> Result<Vec<Job>, Refusal> {
        let Some(group) = self.known_group() else { return Ok(Vec::new()) };
        let filter = JobFilter { name: Some(name.to_owned()), ..JobFilter::all(self.access.tenant.id, group.id) };
        Ok(self.api.services.store.jobs(JobsQuery { filter, before: None, limit }).await?)
    }

    /// A job's payload, unless it is empty.
    async fn payload(&self, job: &Job) -> Result<Option<Bytes>, Refusal> {
        match job.body_len {
            0 => Ok(None),
            _ => Ok(self.api.services.store.body(job.tenant, job.id).await?),
        }
    }

    /// The job's newest attempts, at most so many, in order.
    async fn newest_attempts(&self, job: &Job, count: u32) -> Result<Vec<AttemptRecord>, Refusal> {
        let after = job.attempt_count.saturating_sub(count);
        if job.attempt_count == 0 {
            return Ok(Vec::new());
        }
        Ok(self.api.services.store.attempts(self.access.tenant.id, job.id, after, count).await?)
    }
}

/// Text with percent-encoding taken off.
fn decoded(text: &str) -> Cow<'_, str> {
    percent_decode_str(text).decode_utf8_lossy()
}

/// What an attempt was answered with; without an answer, why there was none.
fn answered(attempt: &AttemptRecord) -> &[u8] {
    match (attempt.status, &attempt.detail.error) {
        (None, Some(error)) => error.message.as_bytes(),
        _ => &attempt.response_body,
    }
}

/// A number in a job's overrides, else in its group's policy: `/retry`, `/max_attempts`.
fn configured(job: &Job, group: &Group, role: &str, key: &str) -> Option<u64> {
    match job.spec.policy.as_ref().and_then(|policy| policy.get(role)?.get(key)) {
        Some(own) => own.as_u64(),
        None => group.effective.as_ref().ok()?.doc.value().get(role)?.get("config")?.get(key)?.as_u64(),
    }
}

/// How many attempts a job may make in all.
fn max_attempts(job: &Job, group: &Group) -> u32 {
    let found = configured(job, group, "retry", "max_attempts");
    found.and_then(|count| u32::try_from(count).ok()).unwrap_or(1)
}
