//! OpenAPI 3.0, for generators that cannot read 3.1: the same document in the older dialect of JSON Schema.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::each_object;

/// The version of the older dialect.
const VERSION: &str = "3.0.3";

/// Where the license is, which the older version does not know by its identifier.
const LICENSE_URL: &str = "https://www.apache.org/licenses/LICENSE-2.0";

/// Translates a document of version 3.1.
pub(super) fn translate(document: &Value) -> Value {
    let mut document = document.clone();
    document["openapi"] = VERSION.into();
    if let Some(license) = document["info"]["license"].as_object_mut() {
        license.remove("identifier");
        license.insert("url".to_owned(), LICENSE_URL.into());
    }
    let types = types_of_schemas(&document);
    each_object(&mut document, &mut |object| translate_object(object, &types));
    document
}

/// The types of the named schemas that have one, by reference.
type Types = BTreeMap<String, Value>;

fn types_of_schemas(document: &Value) -> Types {
    let schemas = document["components"]["schemas"].as_object().into_iter().flatten();
    let type_of = |schema: &Value| match schema.get("type") {
        Some(kind) if kind.is_string() => Some(kind.clone()),
        _ => schema.get("allOf").map(|_| json!("object")),
    };
    schemas.filter_map(|(name, schema)| Some((format!("#/components/schemas/{name}"), type_of(schema)?))).collect()
}

fn translate_object(object: &mut Map<String, Value>, types: &Types) {
    nullable_type(object);
    nullable_choice(object, types);
    // What may be null there must say so beside its type, which a default of several members does not.
    if object.get("default").is_some_and(|default| default.is_object()) {
        object.remove("default");
    }
    if let Some(constant) = object.get("const").filter(|constant| !constant.is_object()).cloned() {
        object.remove("const");
        object.insert("enum".to_owned(), json!([constant]));
    }
    if let Some(first) = object.get("examples").and_then(Value::as_array).and_then(|examples| examples.first()).cloned()
    {
        object.remove("examples");
        object.insert("example".to_owned(), first);
    }
    if object.get("propertyNames").is_some_and(|names| names.get("type").is_some()) {
        object.remove("propertyNames");
    }
    // A reference has no neighbours there.
    if let Some(reference) = object.get("$ref").filter(|target| target.is_string() && object.len() > 1).cloned() {
        object.remove("$ref");
        object.insert("allOf".to_owned(), json!([{"$ref": reference}]));
    }
}

/// `type: [string, null]` is `type: string, nullable: true`; more than one other type is a choice.
fn nullable_type(object: &mut Map<String, Value>) {
    let Some(types) = object.get("type").and_then(Value::as_array).cloned() else { return };
    let is_nullable = types.iter().any(|kind| kind == "null");
    let others: Vec<_> = types.into_iter().filter(|kind| kind != "null").collect();
    object.remove("type");
    match others.as_slice() {
        [only] => drop(object.insert("type".to_owned(), only.clone())),
        several => {
            let choice = several.iter().map(|kind| json!({"type": kind})).collect();
            object.insert("oneOf".to_owned(), choice);
        }
    }
    if is_nullable {
        object.insert("nullable".to_owned(), true.into());
    }
}

/// `oneOf: [{…}, {type: null}]` is `allOf: [{…}], type: …, nullable: true`, where the one choice has a type; else null is a choice of its own.
fn nullable_choice(object: &mut Map<String, Value>, types: &Types) {
    let Some(choices) = object.get("oneOf").and_then(Value::as_array).cloned() else { return };
    let (nulls, mut others): (Vec<_>, Vec<_>) = choices.into_iter().partition(|choice| choice["type"] == "null");
    if nulls.is_empty() {
        return;
    }
    object.remove("oneOf");
    let kind = match others.as_slice() {
        [only] => only["$ref"].as_str().and_then(|target| types.get(target)),
        _ => None,
    };
    if let Some(kind) = kind {
        object.insert("type".to_owned(), kind.clone());
        object.insert("nullable".to_owned(), true.into());
        object.insert("allOf".to_owned(), others.into());
    } else {
        // Of a type that no other choice has.
        others.push(json!({"type": "boolean", "nullable": true, "enum": [null]}));
        object.insert("oneOf".to_owned(), others.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn null_is_written_as_the_older_dialect_has_it() {
        let document = json!({"components": {"schemas": {
            "State": {"type": "string", "enum": ["a"]},
            "Time": {"oneOf": [{"type": "string"}, {"type": "number"}]},
            "Job": {"type": "object", "properties": {
                "name": {"type": ["string", "null"]},
                "state": {"oneOf": [{"$ref": "#/components/schemas/State"}, {"type": "null"}]},
                "at": {"oneOf": [{"type": "null"}, {"$ref": "#/components/schemas/Time"}]},
                "kind": {"const": "job", "description": "x"},
            }},
        }}});
        let translated = translate(&document);
        let job = &translated["components"]["schemas"]["Job"]["properties"];
        assert_eq!(job["name"], json!({"type": "string", "nullable": true}));
        let state = json!({"type": "string", "nullable": true, "allOf": [{"$ref": "#/components/schemas/State"}]});
        assert_eq!(job["state"], state);
        let only_null = json!({"type": "boolean", "nullable": true, "enum": [null]});
        assert_eq!(job["at"], json!({"oneOf": [{"$ref": "#/components/schemas/Time"}, only_null]}));
        assert_eq!(job["kind"], json!({"enum": ["job"], "description": "x"}));
        assert_eq!(translated["openapi"], "3.0.3");
    }
}
