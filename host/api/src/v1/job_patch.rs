//! A patch of a job (RFC 7396): what is in it replaces what the job has, and null takes it away.
//!
//! The patch is applied to the job as it could have been posted, so whatever the server derives from a document is derived again. A payload
//! keeps its bytes, as it does where a job is posted.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::super::error::Problem;
use carillon_core::job::{Job, Metadata, Target};
use carillon_core::json::unique::UniqueValue;
use carillon_core::json::{Unreadable, read_value};
use carillon_engine::intake::headers::{HeadersInput, HeadersPatch, headers_schema};
use carillon_engine::intake::{JobInput, TimeInput};
use carillon_policy::binding::pointer_to;

/// The parts of a job that can be edited.
const EDITABLE: [&str; 13] = [
    "url",
    "method",
    "headers",
    "payload",
    "payload_text",
    "payload_base64",
    "run_at",
    "name",
    "metadata",
    "metadata_headers",
    "policy",
    "priority",
    "limits",
];

/// The three forms of a payload, of which a job has one.
const PAYLOADS: [&str; 3] = ["payload", "payload_text", "payload_base64"];

/// Edit of a waiting job.
#[derive(utoipa::ToSchema)]
#[expect(dead_code, reason = "only described: the fields of a patch are read as they are written")]
pub struct JobPatch {
    /// URL that the job is delivered to.
    url: Option<String>,
    /// HTTP method.
    method: Option<String>,
    /// Headers. An object changes headers by name, and null removes one; a list replaces all headers.
    #[schema(schema_with = headers_patch_schema)]
    headers: Option<HeadersInput>,
    /// Body as JSON, sent byte for byte as it is written here.
    payload: Option<Value>,
    /// Body as text.
    payload_text: Option<String>,
    /// Body in base64.
    payload_base64: Option<String>,
    /// Time when the job is due: RFC 3339, Unix seconds, or `+90s`.
    run_at: Option<TimeInput>,
    /// Name of the client's choice.
    name: Option<String>,
    /// Labels, merged into the present ones.
    #[schema(value_type = Option<Object>)]
    metadata: Option<Metadata>,
    /// Whether the labels are sent as headers.
    metadata_headers: Option<bool>,
    /// Overrides of the group's policy configs, merged into the present ones.
    #[schema(value_type = Option<Object>)]
    policy: Option<Value>,
    /// Priority, 0 to 9: due jobs of priority 9 start first.
    #[schema(minimum = 0, maximum = 9)]
    priority: Option<u8>,
    /// Overrides of the group's limits, of which only `timeout` can be edited.
    limits: Option<TimeoutPatch>,
}

/// Limits of a job that can be edited.
#[derive(utoipa::ToSchema)]
#[expect(dead_code, reason = "only described: the fields of a patch are read as they are written")]
pub struct TimeoutPatch {
    /// Time limit of one request, such as `5s`.
    timeout: Option<String>,
}

/// The schema of headers in a patch.
fn headers_patch_schema() -> impl Into<utoipa::openapi::RefOr<utoipa::openapi::Schema>> {
    use utoipa::openapi::schema::{AdditionalProperties, ObjectBuilder, OneOfBuilder, SchemaType, Type};
    let text = ObjectBuilder::new().schema_type(SchemaType::from_iter([Type::String, Type::Null]));
    let changes = ObjectBuilder::new()
        .schema_type(Type::Object)
        .additional_properties(Some(AdditionalProperties::from(utoipa::openapi::Schema::Object(text.build()))));
    let null = ObjectBuilder::new().schema_type(Type::Null);
    let whole: utoipa::openapi::RefOr<utoipa::openapi::Schema> = headers_schema().into();
    let list = match whole {
        utoipa::openapi::RefOr::T(utoipa::openapi::Schema::OneOf(forms)) => forms.items.into_iter().nth(1),
        _ => None,
    };
    let choice = OneOfBuilder::new().item(changes).item(null);
    utoipa::openapi::Schema::OneOf(list.into_iter().fold(choice, OneOfBuilder::item).build())
}

/// The fields of a patch, as they are written.
pub struct Patch(BTreeMap<String, Box<RawValue>>);

impl<'de> Deserialize<'de> for Patch {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        carillon_core::json::unique::map(deserializer).map(Self)
    }
}

impl Patch {
    /// Whether it says something of a field.
    pub(super) fn has(&self, field: &str) -> bool {
        self.0.contains_key(field)
    }

    /// Whether it replaces the payload.
    pub(super) fn has_payload(&self) -> bool {
        PAYLOADS.iter().any(|field| self.has(field))
    }

    /// The job as it could have been posted, patched. Without a payload in the patch there is none in the document.
    pub(super) fn applied_to(mut self, job: &Job) -> Result<JobInput, Problem> {
        if let Some(field) = self.0.keys().find(|field| !EDITABLE.contains(&field.as_str())) {
            let detail = format!("`{}` cannot be edited; {} can", field.escape_debug(), EDITABLE.join(", "));
            return Err(Problem::invalid(pointer_to(field), detail));
        }
        let payload = self.0.remove("payload").filter(|payload| payload.get() != "null");
        let headers = self.0.remove("headers").map(|headers| read::<HeadersPatch>("headers", &headers)).transpose()?;
        let mut changes = Value::Object(serde_json::Map::new());
        for (field, value) in &self.0 {
            changes[field] = read::<UniqueValue>(field, value)?.0;
        }
        if let Some(limit) = ["ttl", "max_delay"].into_iter().find(|limit| !changes["limits"][limit].is_null()) {
            let detail = format!("`{limit}` cannot be edited; of the limits, only `timeout` can");
            return Err(Problem::invalid(format!("/limits/{limit}"), detail));
        }
        let mut doc = document(job);
        json_patch::merge(&mut doc, &changes);
        let doc: JobInput =
            read_value(&doc).map_err(|Unreadable { pointer, message }| Problem::malformed(Some(pointer), message))?;
        let given = job.spec.target.as_ref().map(|target| target.headers.clone()).unwrap_or_default();
        let given = HeadersInput::from(given);
        let headers = match headers {
            Some(patch) => given.patched(patch),
            // A job that is to be pulled has none.
            None if doc.url.is_none() => HeadersInput::default(),
            None => given,
        };
        Ok(JobInput { payload, headers, ..doc })
    }
}

/// Reads the value of a field.
fn read<T: DeserializeOwned>(field: &str, value: &RawValue) -> Result<T, Problem> {
    carillon_core::json::read_text(value.get().as_bytes()).map_err(|Unreadable { pointer, message }| {
        Problem::malformed(Some(format!("{}{pointer}", pointer_to(field))), message)
    })
}

/// A job as it could have been posted, but for its payload and its headers.
fn document(job: &Job) -> Value {
    let spec = &job.spec;
    let timeout = spec.timeout_ms.map(|ms| format!("{ms}ms"));
    let mut doc = json!({
        "name": job.name,
        "metadata": spec.metadata,
        "metadata_headers": spec.metadata_headers,
        "policy": spec.policy,
        "priority": u8::from(job.priority),
        "limits": {"timeout": timeout},
    });
    if let Some(Target { method, url, .. }) = &spec.target {
        doc["url"] = url.clone().into();
        doc["method"] = method.clone().into();
    }
    doc
}
