//! From what a client posts to a [`NewJob`], checked field by field.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use axum::http::Method;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use url::Url;

use super::super::Api;
use super::super::error::Problem;
use super::super::input::run_at;
use crate::catalog::Group;
use crate::clock::UnixMs;
use crate::job::{JobId, Metadata, NewJob, Spec, Target, Text};
use crate::policy::binding::{Invalid, parse_period};
use crate::policy::check_header;

/// The longest URL, in bytes.
const URL_LEN: usize = 8 << 10;

/// The longest name, in bytes.
const NAME_LEN: usize = 255;

/// The most headers, and the most metadata entries.
const ENTRIES: usize = 64;

/// The most metadata in sum, in bytes.
const METADATA_LEN: usize = 8 << 10;

/// The most metadata in sum as headers, names and values, in bytes: receivers take 8 to 16 KiB of headers in all.
const METADATA_HEADERS_LEN: usize = 8 << 10;

/// The longest method, in bytes.
const METHOD_LEN: usize = 20;

/// A job as a client posts it.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct JobDoc {
    /// Where to deliver: an absolute `http` or `https` URL.
    url: String,
    /// The method; `POST` by default.
    #[serde(default)]
    method: Option<String>,
    /// Headers to send. `Content-Type` is `application/json` by default where `payload` is given.
    #[serde(default)]
    headers: BTreeMap<String, String>,
    /// The body as JSON, sent byte for byte as it is written here. At most one of the three payloads.
    #[serde(default)]
    #[schema(value_type = Option<Object>)]
    payload: Option<Box<RawValue>>,
    /// The body as text.
    #[serde(default)]
    payload_text: Option<String>,
    /// The body as base64 (standard alphabet, padded), for any bytes.
    #[serde(default)]
    payload_base64: Option<String>,
    /// When: RFC 3339, Unix seconds, or `+90s`; now by default, and now if it is past.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    run_at: Option<Value>,
    /// A name of the client's own choosing.
    #[serde(default)]
    name: Option<String>,
    /// Labels, texts or one level of namespace: `{"k": "v", "billing": {"invoice": "17"}}`. Policies see them as attributes
    /// `metadata.k` and `metadata.billing.invoice`.
    #[serde(default)]
    metadata: Metadata,
    /// Whether each of them goes out as a header: `Carillon-Metadata-k`, `Carillon-Metadata-billing-invoice`.
    #[serde(default)]
    metadata_headers: bool,
    /// Overrides of the group's policy configs, by role: `{"retry": {"max_attempts": 3}}`.
    #[serde(default)]
    #[schema(value_type = Option<Object>)]
    policy: Option<Value>,
    /// Overrides of the group's limits.
    #[serde(default)]
    limits: JobLimits,
}

/// A job's own limits.
#[derive(Debug, Default, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct JobLimits {
    /// For one request, such as `5s`.
    #[serde(default)]
    timeout: Option<String>,
    /// From now until the job is given up, such as `1h`.
    #[serde(default)]
    ttl: Option<String>,
}

/// What the jobs of one request have been checked for already.
#[derive(Default)]
pub(in super::super) struct Checked {
    overrides: HashSet<String>,
}

impl Api {
    /// Turns a document into a job of `group`.
    pub(super) async fn new_job(
        &self,
        group: &Arc<Group>,
        doc: JobDoc,
        now: UnixMs,
        checked: &mut Checked,
    ) -> Result<NewJob, Problem> {
        let effective =
            group.effective.as_ref().map_err(|error| Problem::conflict(format!("the group is broken: {error}")))?;
        let run_at = run_at(doc.run_at.as_ref(), now, self.limits.horizon)?;
        let (body, is_json) = payload(&doc)?;
        if body.len() > self.limits.payload {
            let detail = format!("the payload has {} bytes; this server takes {}", body.len(), self.limits.payload);
            return Err(Problem::invalid("/payload", detail));
        }
        let target = target(&doc, is_json)?;
        check_labels(&doc)?;
        let period =
            |pointer, text: &Option<String>| text.as_deref().map(|text| parse_period(pointer, text)).transpose();
        let timeout = period("/limits/timeout", &doc.limits.timeout)?;
        let ttl = period("/limits/ttl", &doc.limits.ttl)?.into_iter().chain(effective.limits.ttl).min();
        let deadline = ttl.map(|ttl| now.plus(ttl));
        if deadline.is_some_and(|deadline| run_at > deadline) {
            return Err(Problem::invalid("/run_at", "the job would expire (`limits.ttl`) before it is due"));
        }
        if let Some(overrides) = &doc.policy {
            self.check_overrides(group, overrides, checked).await?;
        }
        let mut seed = [0; 4];
        self.clock.fill_random(&mut seed);
        Ok(NewJob {
            id: JobId::new(&*self.clock),
            tenant: group.tenant.id,
            group: group.id,
            name: doc.name,
            run_at,
            created_at: now,
            deadline,
            seed: u32::from_le_bytes(seed),
            spec: Spec {
                target,
                metadata: doc.metadata,
                metadata_headers: doc.metadata_headers,
                policy: doc.policy,
                timeout_ms: timeout.map(|timeout| u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX).max(1)),
            },
            body,
        })
    }

    async fn check_overrides(&self, group: &Group, overrides: &Value, checked: &mut Checked) -> Result<(), Problem> {
        let text = overrides.to_string();
        if checked.overrides.contains(&text) {
            return Ok(());
        }
        self.catalog.check_overrides(group, overrides).await.map_err(|error| Problem::from(error).within("/policy"))?;
        checked.overrides.insert(text);
        Ok(())
    }
}

fn payload(doc: &JobDoc) -> Result<(Bytes, bool), Problem> {
    match (&doc.payload, &doc.payload_text, &doc.payload_base64) {
        (None, None, None) => Ok((Bytes::new(), false)),
        (Some(json), None, None) => Ok((Bytes::copy_from_slice(json.get().as_bytes()), true)),
        (None, Some(text), None) => Ok((Bytes::copy_from_slice(text.as_bytes()), false)),
        (None, None, Some(text)) => {
            let decoded = STANDARD.decode(text);
            let decoded =
                decoded.map_err(|error| Problem::invalid("/payload_base64", format!("not base64: {error}")))?;
            Ok((decoded.into(), false))
        }
        _ => Err(Problem::invalid("/payload", "give one of `payload`, `payload_text` and `payload_base64`")),
    }
}

fn target(doc: &JobDoc, is_json: bool) -> Result<Target, Problem> {
    let invalid = |detail: String| Problem::invalid("/url", detail);
    let url = Url::parse(&doc.url).map_err(|error| invalid(format!("not an absolute URL: {error}")))?;
    if !["http", "https"].contains(&url.scheme()) {
        return Err(invalid(format!("`{}` URLs are not delivered to; use http or https", url.scheme())));
    }
    if doc.url.len() > URL_LEN {
        return Err(invalid(format!("longer than {URL_LEN} bytes")));
    }
    let method = doc.method.as_deref().unwrap_or("POST").to_ascii_uppercase();
    if method.len() > METHOD_LEN || Method::from_bytes(method.as_bytes()).is_err() || method == "CONNECT" {
        return Err(Problem::invalid("/method", format!("`{}` is not a method", method.escape_debug())));
    }
    if doc.headers.len() > ENTRIES {
        return Err(Problem::invalid("/headers", format!("more than {ENTRIES} headers")));
    }
    let mut headers = Vec::with_capacity(doc.headers.len() + 1);
    for (name, value) in &doc.headers {
        let pointer = || format!("/headers/{}", name.replace('~', "~0").replace('/', "~1"));
        check_header(name, value.as_bytes()).map_err(|message| Invalid::at(pointer(), message))?;
        headers.push((name.clone(), value.clone()));
    }
    if is_json && !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-type")) {
        headers.push(("Content-Type".to_owned(), "application/json".to_owned()));
    }
    Ok(Target { method, url: url.into(), headers })
}

fn check_labels(doc: &JobDoc) -> Result<(), Problem> {
    if doc.name.as_ref().is_some_and(|name| name.is_empty() || name.len() > NAME_LEN || name.contains('\0')) {
        return Err(Problem::invalid("/name", format!("a name has 1 to {NAME_LEN} bytes, none of them zero")));
    }
    check_metadata(&doc.metadata)?;
    if doc.metadata_headers { check_metadata_headers(&doc.metadata) } else { Ok(()) }
}

fn check_metadata(metadata: &Metadata) -> Result<(), Problem> {
    let len = metadata.texts().map(|text| text.flat_name().len() + text.value.len()).sum::<usize>();
    let names = metadata.0.keys().map(String::len).sum::<usize>();
    if metadata.0.len().max(metadata.texts().count()) > ENTRIES || len.max(names) > METADATA_LEN {
        return Err(Problem::invalid("/metadata", format!("more than {ENTRIES} entries or {METADATA_LEN} bytes")));
    }
    let mut seen = HashSet::new();
    match metadata.texts().find(|text| !seen.insert(text.flat_name())) {
        Some(text) => {
            let detail = format!("policies would see two values of `metadata.{}`", text.flat_name().escape_debug());
            Err(Problem::invalid(place_of(&text), detail))
        }
        None => Ok(()),
    }
}

fn check_metadata_headers(metadata: &Metadata) -> Result<(), Problem> {
    let (mut seen, mut len) = (HashSet::new(), 0);
    for text in metadata.texts() {
        let name = text.header_name().ok_or_else(|| {
            let detail =
                "this name cannot be a header's: with `metadata_headers` it has letters, digits, `.`, `_` and `-` only";
            Problem::invalid(place_of(&text), detail)
        })?;
        len += name.len() + text.header_value().len();
        if !seen.insert(name.to_ascii_lowercase()) {
            return Err(Problem::invalid(place_of(&text), format!("there would be two headers `{name}`")));
        }
    }
    if len > METADATA_HEADERS_LEN {
        return Err(Problem::invalid("/metadata", format!("more than {METADATA_HEADERS_LEN} bytes as headers")));
    }
    Ok(())
}

/// Where a text stands in a job's document.
fn place_of(text: &Text<'_>) -> String {
    let token = |name: &str| format!("/{}", name.replace('~', "~0").replace('/', "~1"));
    let parts = text.namespace.into_iter().chain([text.name]);
    parts.fold("/metadata".to_owned(), |pointer, part| pointer + &token(part))
}
