//! JSON Schemas of plugins' configs, which the plugins' authors write.
//!
//! The cost of compiling a schema is bounded by its content: it has no references to other parts, and its patterns are few, small, and matched
//! in linear time. A validation has a deadline that ends it ([`within`]). The first validation of a config compiles the schema, in the task that validates; reading
//! schemas from the store, under a lock that many tasks wait for, does not.

mod deadline;
mod error;

use std::sync::OnceLock;

use jsonschema::{PatternOptions, Validator};
use serde_json::Value;

use self::deadline::Deadline;
pub use self::deadline::{TimeIsOver, within};
pub use self::error::message;

/// Maximum number of values in a schema: objects, lists and their content.
const NODES: usize = 4_096;

/// Maximum depth of nesting.
const DEPTH: usize = 64;

/// Maximum number of patterns, and maximum size of one in compiled form, in bytes; matching may take as much again.
const PATTERNS: usize = 32;
const PATTERN_SIZE: usize = 128 << 10;

/// Schema that is compiled when it is first used.
#[derive(Default)]
pub struct Schema(OnceLock<Result<Validator, String>>);

impl Schema {
    /// Returns whether the schema is compiled.
    pub fn is_ready(&self) -> bool {
        self.0.get().is_some()
    }

    /// Returns the validator, and compiles it first if necessary; `schema` must be the same at each call.
    ///
    /// # Errors
    /// Returns the reason why the schema cannot be used.
    pub fn validator(&self, schema: &Value) -> Result<&Validator, String> {
        self.0.get_or_init(|| build(schema)).as_ref().map_err(Clone::clone)
    }
}

/// Compiles a schema.
///
/// # Errors
/// Returns the reason why the schema cannot be used, as a sentence for its author.
pub fn build(schema: &Value) -> Result<Validator, String> {
    let mut count = Count::default();
    count.add(schema, 1)?;
    let patterns = PatternOptions::regex().size_limit(PATTERN_SIZE).dfa_size_limit(PATTERN_SIZE);
    jsonschema::options()
        .with_pattern_options(patterns)
        .with_keyword(deadline::KEYWORD, |_, _, _| Ok(Box::new(Deadline)))
        .build(&deadline::marked(schema))
        .map_err(|error| format!("the config schema is not a JSON Schema, or has a pattern that is too large: {error}"))
}

/// Counts of the schema's parts so far.
#[derive(Default)]
struct Count {
    nodes: usize,
    patterns: usize,
}

impl Count {
    fn add(&mut self, node: &Value, depth: usize) -> Result<(), String> {
        self.nodes += 1;
        match node {
            Value::Object(fields) => {
                for (name, field) in fields {
                    self.patterns += match name.as_str() {
                        "$ref" | "$dynamicRef" | "$recursiveRef" => {
                            let advice = "write its definitions where they are used";
                            return Err(format!("the config schema must not use `$ref`: {advice}"));
                        }
                        "pattern" => 1,
                        "patternProperties" => field.as_object().map_or(0, serde_json::Map::len),
                        _ => 0,
                    };
                    self.add(field, depth + 1)?;
                }
            }
            Value::Array(items) => items.iter().try_for_each(|item| self.add(item, depth + 1))?,
            _ => {}
        }
        let bounds = [("values", self.nodes, NODES), ("layers", depth, DEPTH), ("patterns", self.patterns, PATTERNS)];
        match bounds.into_iter().find(|(_, count, most)| count > most) {
            Some((what, _, most)) => Err(format!("the config schema has too many {what}: at most {most}")),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn refusal(schema: &Value) -> String {
        build(schema).map(drop).unwrap_err()
    }

    fn patterns(count: usize, pattern: &str) -> Value {
        let properties = (0..count).map(|index| (format!("p{index}"), json!({"pattern": pattern})));
        json!({"properties": properties.collect::<serde_json::Map<_, _>>()})
    }

    #[test]
    fn a_schema_stands_on_its_own() {
        let said = refusal(&json!({"properties": {"a": {"anyOf": [{"$ref": "#/$defs/a"}]}}}));
        assert!(said.contains("must not use `$ref`"), "{said}");
        assert!(build(&json!({"type": "object", "properties": {"a": {"type": "string"}}})).is_ok());
    }

    #[test]
    fn a_schema_is_bounded_in_all_that_costs() {
        assert!(build(&patterns(PATTERNS, "^([a-z][a-z0-9-]{0,62}\\.)+$")).is_ok());
        let said = refusal(&patterns(PATTERNS + 1, "a"));
        assert!(said.contains("too many patterns: at most 32"), "{said}");
        let fields: serde_json::Map<_, _> = (0..=PATTERNS).map(|index| (format!("a{index}"), json!({}))).collect();
        let said = refusal(&json!({"items": {"patternProperties": fields}}));
        assert!(said.contains("too many patterns"), "{said}");
        let said = refusal(&patterns(1, "(a{500}){99}"));
        assert!(said.contains("a pattern that is too large"), "{said}");
        let said = refusal(&json!({"enum": vec![0; NODES]}));
        assert!(said.contains("too many values: at most 4096"), "{said}");
        let deep = (0..DEPTH).fold(json!({}), |inner, _| json!({"not": inner}));
        assert!(refusal(&deep).contains("too many layers: at most 64"));
    }

    #[test]
    fn what_cannot_be_used_says_so_each_time() {
        let (schema, wrong) = (Schema::default(), json!({"type": "nothing"}));
        assert!(!schema.is_ready());
        for _ in 0..2 {
            assert!(schema.validator(&wrong).map(drop).unwrap_err().contains("not a JSON Schema"));
            assert!(schema.is_ready());
        }
    }
}
