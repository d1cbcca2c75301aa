//! Deadline of a validation, which ends the work.
//!
//! The library that validates has no way to stop. So each part of a schema gets a keyword of ours ([`marked`]), which looks at the time, and
//! unwinds the stack to [`within`] when it is over. What happens between two looks is bounded: one keyword on one value, with patterns that are
//! matched in linear time.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::Duration;

use jsonschema::{Keyword, ValidationError};
use serde_json::{Map, Value};

use carillon_core::clock::Stopwatch;

/// Name of the keyword. A schema that has one of this name loses it.
pub(super) const KEYWORD: &str = "carillon-deadline";

/// Parts of a schema between two looks at the time.
const PARTS: u32 = 32;

/// Keywords whose value is a schema.
const SCHEMAS: [&str; 12] = [
    "additionalItems",
    "additionalProperties",
    "contains",
    "contentSchema",
    "else",
    "if",
    "items",
    "not",
    "propertyNames",
    "then",
    "unevaluatedItems",
    "unevaluatedProperties",
];

/// Keywords whose value is a list of schemas.
const LISTS: [&str; 5] = ["allOf", "anyOf", "items", "oneOf", "prefixItems"];

/// Keywords whose value is a map of schemas.
const MAPS: [&str; 6] = ["$defs", "definitions", "dependencies", "dependentSchemas", "patternProperties", "properties"];

/// The time of a validation is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeIsOver;

thread_local! {
    /// Begin and length of the validation on this thread, and the parts that it has come to.
    static TIME: Cell<Option<(Stopwatch, Duration)>> = const { Cell::new(None) };
    static PASSED: Cell<u32> = const { Cell::new(0) };
}

/// Runs a validation, and ends it when `time` is over.
///
/// # Errors
/// Returns [`TimeIsOver`] if it has not come to its end.
pub fn within<T>(time: Duration, validate: impl FnOnce() -> T) -> Result<T, TimeIsOver> {
    TIME.set(Some((Stopwatch::start(), time)));
    PASSED.set(0);
    // A validation leaves nothing behind: its state is on the stack, and a validator is not changed by it.
    let done = catch_unwind(AssertUnwindSafe(validate));
    TIME.set(None);
    done.or_else(|panic| if panic.is::<TimeIsOver>() { Err(TimeIsOver) } else { resume_unwind(panic) })
}

/// Returns a schema with the keyword in each of its parts.
pub(super) fn marked(schema: &Value) -> Value {
    let Value::Object(fields) = schema else { return schema.clone() };
    let mut fields: Map<_, _> =
        fields.iter().map(|(keyword, value)| (keyword.clone(), marked_in(keyword, value))).collect();
    fields.insert(KEYWORD.to_owned(), Value::Bool(true));
    Value::Object(fields)
}

fn marked_in(keyword: &str, value: &Value) -> Value {
    match value {
        Value::Array(items) if LISTS.contains(&keyword) => items.iter().map(marked).collect(),
        Value::Object(members) if MAPS.contains(&keyword) => {
            let members = members.iter().map(|(name, member)| (name.clone(), marked(member)));
            Value::Object(members.collect())
        }
        Value::Object(_) if SCHEMAS.contains(&keyword) => marked(value),
        value => value.clone(),
    }
}

/// The keyword: every value is valid.
pub(super) struct Deadline;

impl Deadline {
    fn look() {
        let passed = PASSED.get().wrapping_add(1);
        PASSED.set(passed);
        if passed.is_multiple_of(PARTS)
            && let Some((watch, time)) = TIME.get()
            && watch.elapsed() > time
        {
            resume_unwind(Box::new(TimeIsOver));
        }
    }
}

impl<'i> Keyword<'i> for Deadline {
    fn validate(&self, _: &'i Value) -> Result<(), ValidationError<'i>> {
        Self::look();
        Ok(())
    }

    fn is_valid(&self, _: &'i Value) -> bool {
        Self::look();
        true
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::build;
    use super::*;

    /// Each level of it evaluates the levels below twice: 2^`depth` steps on one value.
    fn exponential(depth: usize) -> Value {
        (0..depth).fold(
            json!({"properties": {"a": true}}),
            |inner, _| json!({"anyOf": [inner], "unevaluatedProperties": {"not": {"const": 1}}}),
        )
    }

    #[test]
    fn validation_ends_when_its_time_is_over() {
        let schema = json!({"items": {"allOf": vec![json!({"not": {"const": 1}}); 1_000]}});
        let (validator, config) = (build(&schema).unwrap(), Value::from(vec![0; 100_000]));
        let watch = Stopwatch::start();
        let ended = within(Duration::from_millis(20), || validator.is_valid(&config));
        assert_eq!(ended, Err(TimeIsOver));
        assert_eq!(within(Duration::from_millis(20), || validator.validate(&config).is_ok()), Err(TimeIsOver));
        assert!(watch.elapsed() < Duration::from_secs(5), "{:?}", watch.elapsed());
        assert_eq!(
            within(Duration::from_secs(60), || validator.is_valid(&json!([0]))),
            Ok(true),
            "it can be used again"
        );
    }

    #[test]
    fn schema_whose_cost_doubles_with_each_level_ends_too() {
        let validator = build(&exponential(24)).unwrap();
        let config = json!({"a": 0, "b": 0, "c": 1});
        for _ in 0..2 {
            // Whether it is done or not is up to the library; that it ends is not.
            _ = within(Duration::from_millis(20), || validator.validate(&config).is_ok());
        }
    }

    #[test]
    fn marks_change_no_verdict() {
        let schema = json!({
            "type": "object", "additionalProperties": false, "required": ["a"], "dependentSchemas": {"b": {"required": ["c"]}},
            "properties": {
                "a": {"type": "array", "items": {"type": "integer"}, "maxItems": 2}, "b": {"enum": [{"properties": 1}]},
                "c": {"if": {"const": 1}, "then": false, "else": true}, "items": {"const": {"not": {"x": 1}}}},
        });
        let plain = jsonschema::validator_for(&schema).unwrap();
        let marked = build(&schema).unwrap();
        for config in [
            json!({"a": []}),
            json!({"a": [1, 2]}),
            json!({"a": [1, 2, 3]}),
            json!({"a": ["x"]}),
            json!({}),
            json!({"a": [], "b": {"properties": 1}}),
            json!({"a": [], "b": {"properties": 1}, "c": 2}),
            json!({"a": [], "c": 1}),
            json!({"a": [], "d": 1}),
            json!({"a": [], "items": {"not": {"x": 1}}}),
            json!({"a": [], "items": {"not": {"x": 1, "carillon-deadline": true}}}),
        ] {
            let said =
                |validator: &jsonschema::Validator| validator.validate(&config).map_err(|error| error.to_string());
            assert_eq!(said(&marked), said(&plain), "{config}");
        }
    }

    #[test]
    fn panic_of_a_validation_is_passed_on() {
        let caught = catch_unwind(|| within(Duration::from_secs(60), || panic!("of another kind")));
        assert_eq!(caught.unwrap_err().downcast_ref::<&str>(), Some(&"of another kind"));
    }
}
