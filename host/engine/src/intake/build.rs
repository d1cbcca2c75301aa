//! Builder of jobs: turns a client's document into a [`NewJob`], and checks it field by field.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use http::Method;
use serde_json::Value;
use serde_json::value::RawValue;

use super::Intake;
use super::condition::admission;
use super::error::IntakeError;
use super::input::{JobInput, check_key};
use super::target_url::{UrlSchemes, check_url};
use super::time::{is_relative, run_at};
use carillon_catalog::{CheckBudget, Group};
use carillon_core::clock::UnixMs;
use carillon_core::job::{
    Admission, Debounce, FollowUp, GroupId, JobId, Metadata, NewJob, Spec, Target, Text, new_seed,
};
use carillon_core::json::read_object;
use carillon_core::limits::ByteLimit;
use carillon_policy::binding::{parse_period, pointer_to};

/// Largest number of metadata entries.
const ENTRIES: usize = 64;

/// Largest metadata in sum, in bytes.
const METADATA_LEN: usize = 8 << 10;

/// Largest metadata in sum as headers, names and values, in bytes: receivers accept 8 to 16 KiB of headers in all.
const METADATA_HEADERS_LEN: usize = 8 << 10;

/// Longest method, in bytes.
const METHOD_LEN: usize = 20;

/// Prefix of the order keys that the server gives to the jobs of schedules; clients cannot use it.
pub(super) const SCHEDULE_ORDER_KEY: &str = "schedule:";

/// Largest number of jobs in a chain of follow-up jobs.
const FLOW_DEPTH: u32 = 5;

/// Results of checks that hold for all jobs of one request.
#[derive(Default)]
pub struct ValidationCache {
    overrides: HashSet<(String, String)>,
    /// Budget of the config checks.
    budget: Option<CheckBudget>,
    /// Last valid URL: the jobs of one request often have the same.
    url: Option<String>,
    before: bool,
    /// Names of the groups that the request may touch; `None` for all of the tenant's.
    groups: Option<Arc<[String]>>,
}

impl ValidationCache {
    /// Returns a cache for a document whose parts were all checked when it was stored.
    pub(super) fn all_valid() -> Self {
        Self { before: true, ..Self::default() }
    }

    /// Returns a cache for the documents of a request that may touch only these groups.
    #[must_use]
    pub fn within(groups: Option<Arc<[String]>>) -> Self {
        Self { groups, ..Self::default() }
    }

    /// Returns whether a document may name a group.
    pub(super) fn may_name(&self, group: &str) -> bool {
        self.groups.as_ref().is_none_or(|groups| groups.iter().any(|known| known == group))
    }

    /// Keeps a request that may touch only certain groups from the jobs that others debounce under the same key.
    fn confined(&self, admission: Admission, group: GroupId) -> Admission {
        match admission {
            Admission::Debounced(debounce) if self.groups.is_some() => {
                Admission::Debounced(Debounce { key: format!("group:{}:{}", group.0, debounce.key), ..debounce })
            }
            admission => admission,
        }
    }

    fn check_url(&mut self, text: &str, schemes: UrlSchemes) -> Result<(), IntakeError> {
        if self.url.as_deref() == Some(text) {
            return Ok(());
        }
        check_url(text, schemes).map_err(|rule| IntakeError::invalid("/url", rule))?;
        self.url = Some(text.to_owned());
        Ok(())
    }
}

/// Parts of a job that do not depend on the time at which it is posted.
pub struct Draft {
    /// Parts that do not change while the job waits.
    pub spec: Spec,
    /// Payload.
    pub body: Bytes,
    /// Time from when it was posted until it expires.
    pub ttl: Option<Duration>,
    /// Delay after its due time at which an attempt may still start.
    pub max_delay: Option<Duration>,
}

impl Intake {
    /// Turns a document into a job of `group`.
    ///
    /// # Errors
    /// Returns [`IntakeError`] with a JSON pointer to the field that cannot be accepted.
    pub async fn new_job(
        &self,
        group: &Arc<Group>,
        doc: JobInput,
        now: UnixMs,
        checked: &mut ValidationCache,
    ) -> Result<NewJob, IntakeError> {
        if doc.group.as_ref().is_some_and(|name| *name != group.name) {
            return Err(IntakeError::invalid(
                "/group",
                "`group` is allowed only in follow-up jobs: the path names the group",
            ));
        }
        let draft = self.draft(group, &doc, checked, FLOW_DEPTH).await?;
        let run_at = run_at(doc.run_at.as_ref(), now, self.limits.horizon)?;
        let admission = admission(&doc, &draft.spec, &draft.body, draft.ttl, self.limits.parts.name)?;
        let admission = checked.confined(admission, group.id);
        let deadline = draft.ttl.map(|ttl| now.plus(ttl));
        let delay = match &admission {
            Admission::Debounced(debounce) => debounce.window,
            _ => Duration::ZERO,
        };
        if deadline.is_some_and(|deadline| run_at.plus(delay) > deadline) {
            return Err(IntakeError::invalid("/run_at", "the job would expire (`limits.ttl`) before it is due"));
        }
        let id = JobId::new(&*self.services.clock);
        Ok(NewJob {
            id,
            tenant: group.tenant.id,
            group: group.id,
            name: doc.name,
            run_at,
            created_at: now,
            deadline,
            max_delay: draft.max_delay,
            priority: doc.priority.unwrap_or_default(),
            order_key: doc.order_key,
            admission,
            seed: new_seed(&*self.services.clock),
            spec: Spec { binding: self.services.catalog.pinned(group.id, id), ..draft.spec },
            body: draft.body,
        })
    }

    /// Checks what does not depend on the time. `depth` is the number of follow-up jobs that may still form a chain.
    ///
    /// # Errors
    /// Returns [`IntakeError`] with a JSON pointer to the field that cannot be accepted.
    pub async fn draft(
        &self,
        group: &Arc<Group>,
        doc: &JobInput,
        checked: &mut ValidationCache,
        depth: u32,
    ) -> Result<Draft, IntakeError> {
        let effective =
            group.effective.as_ref().map_err(|error| IntakeError::conflict(format!("the group is broken: {error}")))?;
        // What was stored before a bound was lowered keeps running.
        if !checked.before {
            doc.check_sizes(&self.limits.parts)?;
        }
        let (body, is_json) = payload(doc)?;
        if body.len() > self.limits.payload {
            let detail =
                format!("the payload has {} bytes; `server.payload_limit` allows {}", body.len(), self.limits.payload);
            return Err(IntakeError::invalid("/payload", detail));
        }
        let target = target(doc, checked)?;
        check_labels(doc, checked, self.limits.parts.name)?;
        let period =
            |pointer, text: &Option<String>| text.as_deref().map(|text| parse_period(pointer, text)).transpose();
        let timeout = period("/limits/timeout", &doc.limits.timeout)?;
        let ttl = period("/limits/ttl", &doc.limits.ttl)?.into_iter().chain(effective.limits.ttl).min();
        let own_delay = period("/limits/max_delay", &doc.limits.max_delay)?;
        let max_delay = own_delay.into_iter().chain(effective.limits.max_delay).min();
        if let Some(overrides) = &doc.policy {
            // Boxed, because few jobs have overrides.
            Box::pin(self.check_overrides(group, overrides, checked)).await?;
        }
        let on_success = self.template(group, "/on_success", doc.on_success.as_deref(), checked, depth).await?;
        let on_failure = self.template(group, "/on_failure", doc.on_failure.as_deref(), checked, depth).await?;
        let spec = Spec {
            target,
            metadata: doc.metadata.clone(),
            metadata_headers: doc.metadata_headers,
            policy: doc.policy.clone(),
            timeout_ms: timeout.map(|timeout| u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX).max(1)),
            on_success: on_success.map(Box::new),
            on_failure: on_failure.map(Box::new),
            is_json,
            ..Spec::default()
        };
        Ok(Draft { spec, body, ttl, max_delay })
    }

    /// Builds the follow-up job, checked as if it were posted now.
    fn template<'a>(
        &'a self,
        group: &'a Arc<Group>,
        pointer: &'static str,
        doc: Option<&'a RawValue>,
        checked: &'a mut ValidationCache,
        depth: u32,
    ) -> BoxFuture<'a, Result<Option<FollowUp>, IntakeError>> {
        async move {
            let Some(doc) = doc else { return Ok(None) };
            if depth == 0 {
                let detail = format!("more than {FLOW_DEPTH} jobs follow one another");
                return Err(IntakeError::invalid(pointer, detail));
            }
            let template = match read_object(doc.get().as_bytes()) {
                Ok(doc) => self.one_template(group, &doc, checked, depth - 1).await,
                Err(unreadable) => Err(unreadable.into()),
            };
            let template = template.map_err(|error| error.inside(pointer))?;
            let len = serde_json::to_string(&template).map_or(usize::MAX, |text| text.len());
            if len > self.limits.payload {
                let detail = format!(
                    "the follow-up job has {len} bytes with its own follow-ups; `server.payload_limit` allows {}",
                    self.limits.payload
                );
                return Err(IntakeError::invalid(pointer, detail));
            }
            Ok(Some(template))
        }
        .boxed()
    }

    async fn one_template(
        &self,
        group: &Arc<Group>,
        doc: &JobInput,
        checked: &mut ValidationCache,
        depth: u32,
    ) -> Result<FollowUp, IntakeError> {
        let target = match &doc.group {
            Some(name) => self.named_group(group.tenant.id, name, checked)?,
            None => Arc::clone(group),
        };
        if !is_relative(doc.run_at.as_ref()) {
            let detail = "the `run_at` of a follow-up job must be relative, such as `+90s`, or absent for at once";
            return Err(IntakeError::invalid("/run_at", detail));
        }
        let draft = self.draft(&target, doc, checked, depth).await?;
        if admission(doc, &draft.spec, &draft.body, draft.ttl, self.limits.parts.name)? != Admission::Always {
            return Err(IntakeError::invalid(
                "",
                "`dedupe_key`, `debounce_seconds` and `replace` are not allowed in a follow-up job",
            ));
        }
        let delay = run_at(doc.run_at.as_ref(), UnixMs(0), self.limits.horizon)?.since(UnixMs(0));
        Ok(FollowUp {
            group: target.id,
            name: doc.name.clone(),
            delay,
            ttl: draft.ttl,
            max_delay: draft.max_delay,
            priority: doc.priority.unwrap_or_default(),
            order_key: doc.order_key.clone(),
            spec: draft.spec,
            body: draft.body,
        })
    }

    async fn check_overrides(
        &self,
        group: &Group,
        overrides: &Value,
        checked: &mut ValidationCache,
    ) -> Result<(), IntakeError> {
        let known = (group.name.clone(), overrides.to_string());
        if checked.before || checked.overrides.contains(&known) {
            return Ok(());
        }
        let budget = checked.budget.get_or_insert_with(|| self.services.catalog.check_budget());
        self.services
            .catalog
            .check_overrides(group, overrides, budget)
            .await
            .map_err(|error| IntakeError::from(error).within("/policy"))?;
        checked.overrides.insert(known);
        Ok(())
    }
}

fn payload(doc: &JobInput) -> Result<(Bytes, bool), IntakeError> {
    match (&doc.payload, &doc.payload_text, &doc.payload_base64) {
        (None, None, None) => Ok((Bytes::new(), false)),
        (Some(json), None, None) => Ok((Bytes::copy_from_slice(json.get().as_bytes()), true)),
        (None, Some(text), None) => Ok((Bytes::copy_from_slice(text.as_bytes()), false)),
        (None, None, Some(text)) => {
            let decoded = STANDARD.decode(text);
            let decoded = decoded.map_err(|error| {
                IntakeError::invalid("/payload_base64", format!("`payload_base64` is not base64: {error}"))
            })?;
            Ok((decoded.into(), false))
        }
        _ => Err(IntakeError::invalid(
            "/payload",
            "at most one of `payload`, `payload_text` and `payload_base64` is allowed",
        )),
    }
}

/// Returns the target of the job; `None` if it is to be pulled.
fn target(doc: &JobInput, checked: &mut ValidationCache) -> Result<Option<Target>, IntakeError> {
    let Some(text) = &doc.url else {
        if doc.method.is_some() || !doc.headers.is_empty() {
            let detail = "a job without `url` is pulled by consumers: `method` and `headers` are not allowed";
            return Err(IntakeError::invalid("/url", detail));
        }
        return Ok(None);
    };
    checked.check_url(text, doc.schemes)?;
    let method = doc.method.as_deref().unwrap_or("POST").to_ascii_uppercase();
    if method.len() > METHOD_LEN || Method::from_bytes(method.as_bytes()).is_err() || method == "CONNECT" {
        return Err(IntakeError::invalid("/method", format!("`{}` is not an HTTP method", method.escape_debug())));
    }
    Ok(Some(Target { method, url: text.clone(), headers: doc.headers.checked()? }))
}

fn check_labels(doc: &JobInput, checked: &ValidationCache, name: ByteLimit) -> Result<(), IntakeError> {
    check_key("/name", doc.name.as_deref(), name)?;
    check_key("/order_key", doc.order_key.as_deref(), name)?;
    if !checked.before && doc.order_key.as_ref().is_some_and(|key| key.starts_with(SCHEDULE_ORDER_KEY)) {
        let detail =
            format!("`order_key` must not begin with `{SCHEDULE_ORDER_KEY}`, which is reserved for jobs of schedules");
        return Err(IntakeError::invalid("/order_key", detail));
    }
    check_metadata(&doc.metadata)?;
    if doc.metadata_headers { check_metadata_headers(&doc.metadata) } else { Ok(()) }
}

fn check_metadata(metadata: &Metadata) -> Result<(), IntakeError> {
    let len = metadata.texts().map(|text| text.flat_name().len() + text.value.len()).sum::<usize>();
    let names = metadata.0.keys().map(String::len).sum::<usize>();
    if metadata.0.len().max(metadata.texts().count()) > ENTRIES || len.max(names) > METADATA_LEN {
        return Err(IntakeError::invalid(
            "/metadata",
            format!("`metadata` must have at most {ENTRIES} entries and {METADATA_LEN} bytes"),
        ));
    }
    let mut seen = HashSet::new();
    match metadata.texts().find(|text| !seen.insert(text.flat_name())) {
        Some(text) => {
            let detail = format!("two labels have the name `metadata.{}`", text.flat_name().escape_debug());
            Err(IntakeError::invalid(place_of(&text), detail))
        }
        None => Ok(()),
    }
}

fn check_metadata_headers(metadata: &Metadata) -> Result<(), IntakeError> {
    let (mut seen, mut len) = (HashSet::new(), 0);
    for text in metadata.texts() {
        let name = text.header_name().ok_or_else(|| {
            let detail = "with `metadata_headers`, the name of a label must be letters, digits, `.`, `_` and `-`";
            IntakeError::invalid(place_of(&text), detail)
        })?;
        len += name.len() + text.header_value().len();
        if !seen.insert(name.to_ascii_lowercase()) {
            return Err(IntakeError::invalid(place_of(&text), format!("two labels have the header `{name}`")));
        }
    }
    if len > METADATA_HEADERS_LEN {
        return Err(IntakeError::invalid(
            "/metadata",
            format!("`metadata` must have at most {METADATA_HEADERS_LEN} bytes as headers"),
        ));
    }
    Ok(())
}

/// Returns the name of a text's field in a job's document.
fn place_of(text: &Text<'_>) -> String {
    let parts = text.namespace.into_iter().chain([text.name]);
    parts.fold("/metadata".to_owned(), |pointer, part| pointer + &pointer_to(part))
}
