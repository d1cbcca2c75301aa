//! What every operation's description has in common, derived from what the operation says of itself.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::responses::{problem, reference, success};
use super::{Operation, TENANT_PARAMETER};

/// The schema of the errors that handlers name.
const PROBLEM_SCHEMA: &str = "#/components/schemas/Problem";

/// Media type of server-sent events.
const EVENT_STREAM: &str = "text/event-stream";

/// Completes an operation: a short summary, its shared parameters, and all of its responses.
pub(super) fn complete(operation: Operation<'_>) {
    let Operation { path, method, fields } = operation;
    split_summary(fields);
    if let Some(body) = fields.get_mut("requestBody") {
        leave_out(body);
    }
    // What is open to everybody says so itself.
    let is_closed = !fields.contains_key("security");
    let statuses = problems(path, method, is_closed, fields);
    let mut parameters = match fields.remove("parameters") {
        Some(Value::Array(parameters)) => parameters,
        _ => Vec::new(),
    };
    let is_idempotent = parameters.iter().any(|parameter| parameter["name"] == "Idempotency-Key");
    if is_closed {
        parameters.push(reference("parameters", TENANT_PARAMETER));
    }
    if !parameters.is_empty() {
        fields.insert("parameters".to_owned(), parameters.into());
    }
    let Some(responses) = fields.get_mut("responses").and_then(Value::as_object_mut) else { return };
    responses.retain(|_, response| !is_problem(response));
    for (status, response) in &mut *responses {
        if response["description"].as_str().unwrap_or_default().is_empty() {
            response["description"] = success(status).into();
        }
        if is_idempotent {
            response["headers"]["Idempotency-Replayed"] = reference("headers", "Idempotency-Replayed");
        }
        describe_stream(response);
    }
    responses.extend(statuses.into_iter().filter_map(|status| Some((status.clone(), problem(&status)?))));
}

/// The first sentence of a handler's documentation is its summary; the whole of it is the description, if there is more.
fn split_summary(fields: &mut Map<String, Value>) {
    let text = |fields: &Map<String, Value>, name: &str| {
        let paragraphs = fields.get(name).and_then(Value::as_str).unwrap_or_default().trim().split("\n\n");
        paragraphs.map(|lines| lines.replace('\n', " ")).collect::<Vec<_>>().join("\n\n")
    };
    let (summary, more) = (text(fields, "summary"), text(fields, "description"));
    let (first, rest) = summary.split_once(". ").unwrap_or((&summary, ""));
    let description = [rest, &more].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("\n\n");
    fields.insert("summary".to_owned(), first.trim_end_matches('.').into());
    if description.is_empty() {
        fields.remove("description");
    } else {
        let whole = format!("{}. {description}", first.trim_end_matches('.'));
        fields.insert("description".to_owned(), whole.into());
    }
}

/// The statuses of the problems that an operation can end in: those that it names, and those that follow from its form.
fn problems(path: &str, method: &str, is_closed: bool, fields: &Map<String, Value>) -> BTreeSet<String> {
    let named = fields.get("responses").and_then(Value::as_object).into_iter().flatten();
    let named = named.filter(|(_, response)| is_problem(response)).map(|(status, _)| status.as_str());
    let mut statuses: BTreeSet<&str> = named.filter(|status| *status != "4XX").collect();
    statuses.extend(["400", "408", "500", "503", "default"]);
    if is_closed {
        statuses.extend(["401", "403", "404"]);
    }
    if path.contains('{') {
        statuses.insert("404");
    }
    if method != "get" {
        statuses.insert("409");
    }
    if fields.contains_key("requestBody") {
        statuses.extend(["413", "415", "422"]);
    }
    statuses.into_iter().map(str::to_owned).collect()
}

fn is_problem(response: &Value) -> bool {
    let content = response["content"].as_object().into_iter().flatten();
    content.into_iter().any(|(_, media)| media["schema"]["$ref"] == PROBLEM_SCHEMA)
}

/// A body that may be left out is not one that may be null.
fn leave_out(body: &mut Value) {
    let mut may_be_left_out = false;
    for media in body["content"].as_object_mut().into_iter().flat_map(|content| content.values_mut()) {
        let choices = media["schema"]["oneOf"].as_array().cloned().unwrap_or_default();
        let (nulls, documents): (Vec<_>, Vec<_>) = choices.into_iter().partition(|choice| choice["type"] == "null");
        if let ([_], [document]) = (nulls.as_slice(), documents.as_slice()) {
            media["schema"] = document.clone();
            may_be_left_out = true;
        }
    }
    if may_be_left_out {
        body["required"] = false.into();
    }
}

/// A stream is text; what its events hold is an extension, since OpenAPI 3.1 has no word for it.
fn describe_stream(response: &mut Value) {
    if let Some(media) = response.get_mut("content").and_then(|content| content.get_mut(EVENT_STREAM)) {
        let event = media["schema"].take();
        *media = json!({"schema": {"type": "string"}, "x-event-schema": event});
    }
}
