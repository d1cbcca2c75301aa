//! The description of the API: OpenAPI 3.1, and a translation to 3.0 for tools that cannot read it.
//!
//! A handler describes what is its own: its parameters, its body, and its response when all goes well. What holds for every operation is added
//! here: descriptions of responses, problems by status, headers, and the parameters that several operations share as components.

mod operations;
mod rendered;
mod responses;
mod schemas;
mod shared;
mod v3_0;

use serde_json::{Map, Value, json};
use utoipa::OpenApi;

use self::responses::reference;

pub(super) use self::rendered::Rendered;
pub(super) use self::schemas::{Binary, Component, times};

/// Name of the header with which an operator acts for another tenant, as a component.
const TENANT_PARAMETER: &str = "Tenant";

/// How the names of pages begin where routes describe themselves.
const PAGE_PREFIX: &str = "Page_";

/// Tags, with what their operations are about.
const TAGS: [(&str, &str); 14] = [
    ("jobs", "Jobs: HTTP requests that are sent when they are due, or payloads that consumers pull."),
    ("leases", "Leases: how consumers pull jobs that have no URL, and report their results."),
    ("groups", "Groups of jobs that share a policy and limits."),
    ("policies", "Versions of a group's policy: proposed, tested, put in force and rolled back."),
    ("schedules", "Schedules: jobs at the times of a crontab expression."),
    ("bulk", "Changes of many jobs at once."),
    ("events", "Events of jobs, as a live stream."),
    ("keys", "Keys that sign or authenticate requests. Their values can be written and never read."),
    ("plugins", "Plugins: WebAssembly components with the code of policies."),
    ("tokens", "Tokens that authenticate clients."),
    ("tenants", "Tenants, for operators."),
    ("audit", "The audit log: who changed what, and which requests were refused."),
    ("nodes", "Nodes that share the database, for operators."),
    ("health", "Liveness, readiness and metrics of the server."),
];

#[derive(OpenApi)]
#[openapi(info(title = "Carillon", description = "A job scheduler that delivers HTTP callbacks on time."))]
struct Document;

/// Starts the document that the routes are added to.
pub(super) fn start() -> utoipa::openapi::OpenApi {
    Document::openapi()
}

/// The finished description.
pub(super) struct Description {
    /// OpenAPI 3.1.
    pub(super) v3_1: Value,
    /// OpenAPI 3.0.
    pub(super) v3_0: Value,
}

impl Description {
    /// Completes what the routes say of themselves.
    pub(super) fn from_routes(routes: &utoipa::openapi::OpenApi) -> Self {
        let mut document = serde_json::to_value(routes).unwrap_or_default();
        name_pages(&mut document);
        head(&mut document);
        for operation in operations_mut(&mut document) {
            operations::complete(operation);
        }
        shared::hoist_parameters(&mut document);
        shared::drop_unused(&mut document);
        let v3_0 = v3_0::translate(&document);
        Self { v3_1: document, v3_0 }
    }
}

/// An operation with where it is.
struct Operation<'a> {
    path: &'a str,
    method: &'a str,
    fields: &'a mut Map<String, Value>,
}

fn operations_mut(document: &mut Value) -> impl Iterator<Item = Operation<'_>> {
    let paths = document["paths"].as_object_mut().into_iter().flatten();
    paths.flat_map(|(path, methods)| {
        methods
            .as_object_mut()
            .into_iter()
            .flatten()
            .filter_map(move |(method, operation)| Some(Operation { path, method, fields: operation.as_object_mut()? }))
    })
}

/// What stands once in front of all operations.
fn head(document: &mut Value) {
    document["info"]["license"] = json!({"name": "Apache-2.0", "identifier": "Apache-2.0"});
    document["servers"] = json!([{"url": "/", "description": "Server that this document came from."}]);
    document["tags"] = TAGS.iter().map(|(name, about)| json!({"name": name, "description": about})).collect();
    document["security"] = json!([{"token": []}, {"basic": []}]);
    let components = &mut document["components"];
    components["securitySchemes"] = json!({
        "token": {"type": "http", "scheme": "bearer", "description": "API token."},
        "basic": {"type": "http", "scheme": "basic", "description": "API token as the password, or as the user name without a password."},
    });
    components["responses"] = responses::components();
    components["headers"] = responses::headers();
    components["parameters"] = json!({TENANT_PARAMETER: {
        "name": "Carillon-Tenant",
        "in": "header",
        "description": "Tenant that an operator's token acts for. Default: the token's own tenant.",
        "required": false,
        "schema": {"type": "string"},
    }});
}

/// Calls `Page_JobView` what generated clients should call it: `JobPage`.
fn name_pages(document: &mut Value) {
    let Some(schemas) = document["components"]["schemas"].as_object_mut() else { return };
    for (name, mut schema) in std::mem::take(schemas) {
        if let Some(page) = page_name(&name) {
            // Generic parameters are written out, so a client would get a second type for each entry.
            let entry = name.trim_start_matches(PAGE_PREFIX);
            schema["properties"]["items"]["items"] = reference("schemas", entry);
            schemas.insert(page, schema);
        } else {
            schemas.insert(name, schema);
        }
    }
    each_object(document, &mut |object| {
        let Some(Value::String(target)) = object.get_mut("$ref") else { return };
        if let Some((prefix, page)) =
            target.rsplit_once('/').and_then(|(prefix, name)| Some((prefix, page_name(name)?)))
        {
            *target = format!("{prefix}/{page}");
        }
    });
}

fn page_name(name: &str) -> Option<String> {
    Some(format!("{}Page", name.strip_prefix(PAGE_PREFIX)?.strip_suffix("View")?))
}

/// Calls `change` on every object of a document, the outer ones first.
fn each_object(value: &mut Value, change: &mut impl FnMut(&mut Map<String, Value>)) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(|item| each_object(item, change)),
        Value::Object(object) => {
            change(object);
            object.values_mut().for_each(|member| each_object(member, change));
        }
        _ => {}
    }
}
