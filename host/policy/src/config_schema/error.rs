//! Messages about invalid configs, which list the valid values, the nearest first.

use jsonschema::ValidationError;
use jsonschema::error::ValidationErrorKind;
use serde_json::Value;

/// Minimum similarity of two names, from 0 to 1, for one to be proposed for the other.
const ALIKE: f64 = 0.7;

/// Maximum length of a value that a message repeats, and of names that are compared, in bytes.
const SHOWN: usize = 200;

/// Maximum number of unknown fields that a message names.
const NAMED: usize = 8;

/// Maximum number of names that are sorted by their similarity.
const SORTED: usize = 256;

/// Returns a message for a validation error; `schema` is the plugin's.
pub fn message(error: &ValidationError<'_>, schema: &Value) -> String {
    match error.kind() {
        ValidationErrorKind::Enum { options } => {
            let options = options.as_array().map_or(&[][..], Vec::as_slice);
            let texts = nearest_first(&text_of(error.instance()), options.iter().map(shown).collect());
            format!("{} is not allowed; allowed are {}", shown(error.instance()), listed(&texts))
        }
        ValidationErrorKind::AdditionalProperties { unexpected }
        | ValidationErrorKind::UnevaluatedProperties { unexpected } => {
            unknown_fields(unexpected, &siblings(error, schema))
        }
        ValidationErrorKind::FalseSchema if error.schema_path().as_str().ends_with("/additionalProperties") => {
            "no fields are allowed here".to_owned()
        }
        ValidationErrorKind::Constant { expected_value } => {
            format!("{} is not allowed; it must be {expected_value}", shown(error.instance()))
        }
        _ => error.to_string(),
    }
}

fn unknown_fields(unexpected: &[String], known: &[String]) -> String {
    let more = unexpected.len().saturating_sub(NAMED);
    let each = unexpected.iter().take(NAMED).map(|name| {
        let nearest = nearest_first(name, known.to_vec());
        let meant = nearest.first().filter(|nearest| strsim::jaro_winkler(name, nearest) >= ALIKE);
        let hint = meant.map(|nearest| format!(" (did you mean `{nearest}`?)")).unwrap_or_default();
        format!("the field `{}` is unknown{hint}", cut(&name.escape_debug().to_string()))
    });
    let mut each = each.collect::<Vec<_>>().join("; ");
    if more > 0 {
        each = format!("{each}; and {more} more");
    }
    if known.is_empty() {
        return format!("{each}; no fields are allowed here");
    }
    let known: Vec<_> = known.iter().map(|name| format!("`{name}`")).collect();
    format!("{each}; known fields are {}", known.join(", "))
}

/// Returns the fields that the schema has beside the unknown one.
fn siblings(error: &ValidationError<'_>, schema: &Value) -> Vec<String> {
    let path = error.schema_path().as_str();
    let object = path.rsplit_once('/').and_then(|(object, _)| schema.pointer(object));
    let properties = object.and_then(|object| object.get("properties")).and_then(Value::as_object);
    properties.map(|properties| properties.keys().cloned().collect()).unwrap_or_default()
}

/// Sorts values by their similarity to a name, unless they are so many or so long that nobody would look for one of them.
fn nearest_first(name: &str, all: Vec<String>) -> Vec<String> {
    if all.len() > SORTED || name.len() > SHOWN {
        return all;
    }
    let mut all: Vec<_> = all.into_iter().map(|text| (strsim::jaro_winkler(name, &cut(&text)), text)).collect();
    all.sort_by(|(one, _), (other, _)| other.total_cmp(one));
    all.into_iter().map(|(_, text)| text).collect()
}

fn text_of(value: &Value) -> String {
    value.to_string()
}

fn shown(value: &Value) -> String {
    cut(&value.to_string())
}

fn cut(text: &str) -> String {
    let end = text.floor_char_boundary(SHOWN);
    if end < text.len() { format!("{}…", &text[..end]) } else { text.to_owned() }
}

/// Formats a list as `a`, `b` or `c`.
fn listed(texts: &[String]) -> String {
    match texts {
        [] => "nothing".to_owned(),
        [only] => only.clone(),
        [others @ .., last] => format!("{} or {last}", others.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::build;
    use super::*;

    fn said(schema: &Value, config: &Value) -> String {
        let validator = build(schema).unwrap();
        let error = validator.validate(config).unwrap_err();
        message(&error, schema)
    }

    fn backoff() -> Value {
        json!({"type": "object", "additionalProperties": false, "properties": {
            "kind": {"enum": ["fixed", "linear", "exponential", "fibonacci"]}, "max_attempts": {"type": "integer"},
            "deep": {"type": "object", "additionalProperties": false, "properties": {"a": {"const": 1}}},
            "none": {"type": "object", "additionalProperties": false}}})
    }

    #[test]
    fn all_candidates_are_named_the_nearest_first() {
        let said = said(&backoff(), &json!({"kind": "exp"}));
        assert_eq!(said, r#""exp" is not allowed; allowed are "exponential", "fixed", "linear" or "fibonacci""#);
    }

    #[test]
    fn an_unknown_field_names_the_nearest_and_all() {
        let unknown = said(&backoff(), &json!({"max_attemps": 3}));
        assert_eq!(
            unknown,
            "the field `max_attemps` is unknown (did you mean `max_attempts`?); known fields are `deep`, `kind`, `max_attempts`, `none`"
        );
        assert_eq!(said(&backoff(), &json!({"deep": {"zzz": 1}})), "the field `zzz` is unknown; known fields are `a`");
        assert_eq!(said(&backoff(), &json!({"none": {"x": 1}})), "no fields are allowed here");
        assert_eq!(said(&backoff(), &json!({"deep": {"a": 2}})), "2 is not allowed; it must be 1");
        let long = said(&backoff(), &json!({"kind": "x".repeat(5_000)}));
        assert!(long.len() < 500, "{long}");
        let many: Vec<_> = (0..5_000).map(|n| format!("max_{n}")).collect();
        let long = unknown_fields(&many, &["max_attempts".to_owned()]);
        assert!(long.len() < 1_000 && long.contains("; and 4992 more; known fields are"), "{long}");
    }
}
