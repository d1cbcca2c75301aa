//! Parameters that several operations have: described once, as components.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::responses::reference;
use super::{each_object, operations_mut};

/// Variable parts of paths, which handlers do not describe.
const PATH_PARTS: [(&str, &str); 9] = [
    ("group", "Name of the group."),
    ("id", "Id, as the server returned it when the resource was created."),
    ("key", "Name of the key."),
    ("number", "Number of the attempt, from 1."),
    ("plugin", "Name of the plugin."),
    ("schedule", "Name of the schedule."),
    ("tenant", "Name of the tenant."),
    ("token", "Token of the lease."),
    ("version", "Version: a number for a policy or a key, a semantic version for a plugin."),
];

/// A parameter by where and what it is, with how often each form of it occurs.
type Occurrences = BTreeMap<(String, String), Vec<(Value, usize)>>;

/// Describes the parts of paths, and turns each parameter that occurs more than once in the same form into a component.
pub(super) fn hoist_parameters(document: &mut Value) {
    let mut found = Occurrences::new();
    for operation in operations_mut(document) {
        for parameter in parameters(operation.fields) {
            describe(parameter);
            if let Some(key) = key_of(parameter) {
                let forms = found.entry(key).or_default();
                match forms.iter_mut().find(|(form, _)| form == parameter) {
                    Some((_, count)) => *count += 1,
                    None => forms.push((parameter.clone(), 1)),
                }
            }
        }
    }
    // Of a parameter with two forms neither is a component: their names would be the same.
    found.retain(|_, forms| matches!(forms.as_slice(), [(_, count)] if *count > 1));
    for operation in operations_mut(document) {
        for parameter in parameters(operation.fields) {
            if let Some(key) = key_of(parameter).filter(|key| found.contains_key(key)) {
                *parameter = reference("parameters", &component_name(&key));
            }
        }
    }
    for (key, forms) in found {
        document["components"]["parameters"][component_name(&key)] =
            forms.into_iter().next().map(|(form, _)| form).unwrap_or_default();
    }
}

/// Drops components that nothing refers to, and what only those refer to.
pub(super) fn drop_unused(document: &mut Value) {
    loop {
        let mut used = BTreeSet::new();
        each_object(document, &mut |object| {
            used.extend(object.get("$ref").and_then(Value::as_str).map(str::to_owned));
        });
        let mut dropped = 0;
        for kind in ["schemas", "responses", "headers", "parameters"] {
            let Some(components) = document["components"][kind].as_object_mut() else { continue };
            let before = components.len();
            components.retain(|name, _| used.contains(&format!("#/components/{kind}/{name}")));
            dropped += before - components.len();
        }
        if dropped == 0 {
            return;
        }
    }
}

fn parameters(fields: &mut serde_json::Map<String, Value>) -> impl Iterator<Item = &mut Value> {
    fields.get_mut("parameters").and_then(Value::as_array_mut).into_iter().flatten()
}

fn key_of(parameter: &Value) -> Option<(String, String)> {
    Some((parameter["in"].as_str()?.to_owned(), parameter["name"].as_str()?.to_owned()))
}

fn describe(parameter: &mut Value) {
    let known = PATH_PARTS.iter().find(|(name, _)| parameter["in"] == "path" && parameter["name"] == *name);
    if let Some((_, about)) = known.filter(|_| parameter.get("description").is_none()) {
        parameter["description"] = (*about).into();
    }
}

/// `limit` in a query is `LimitQuery`, `group` in a path is `GroupPath`: a name for each, though some are in both.
fn component_name((place, name): &(String, String)) -> String {
    let capitalized = |word: &str| {
        let mut letters = word.chars();
        letters.next().map(|first| first.to_ascii_uppercase().to_string() + letters.as_str()).unwrap_or_default()
    };
    let words = name.split(['_', '-', '.']).chain([place.as_str()]);
    words.map(capitalized).collect()
}
