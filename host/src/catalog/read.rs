//! From what is stored of a plugin to what the server works with.

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::entities::{PluginDoc, PluginVersion};
use crate::clock::UnixMs;
use crate::policy::binding::PluginName;
use crate::store::Entity;

/// Its document.
pub(super) fn read<T: DeserializeOwned>(entity: &Entity) -> anyhow::Result<T> {
    T::deserialize(&entity.doc)
        .map_err(|error| anyhow::anyhow!("the {} `{}` cannot be read: {error}", entity.kind.as_str(), entity.name))
}

pub(super) fn plugin_of(entity: &Entity) -> anyhow::Result<PluginVersion> {
    let name = PluginName::from(entity.name.as_str());
    plugin_version(name.name, &name.version.unwrap_or_default(), false, read(entity)?, entity.created_at)
}

/// Puts a plugin's parts together.
pub(super) fn plugin_version(
    name: String,
    version: &str,
    builtin: bool,
    doc: PluginDoc,
    created_at: UnixMs,
) -> anyhow::Result<PluginVersion> {
    let version =
        version.parse().map_err(|_| anyhow::anyhow!("`{version}` is not a semantic version such as `1.4.0`"))?;
    anyhow::ensure!(
        builtin || !refers(&doc.config_schema),
        "the config schema must not use `$ref`: write its definitions where they are used"
    );
    // Patterns are matched in linear time: the schema is the plugin author's, the server's time is everybody's.
    let schema = jsonschema::options()
        .with_pattern_options(jsonschema::PatternOptions::regex())
        .build(&doc.config_schema)
        .map_err(|error| anyhow::anyhow!("the config schema is not a JSON Schema: {error}"))?;
    Ok(PluginVersion { name, version, builtin, doc, schema, created_at })
}

/// Whether a schema refers to parts of itself. With references its size no longer bounds the work that a check takes.
fn refers(schema: &Value) -> bool {
    match schema {
        Value::Object(fields) => fields
            .iter()
            .any(|(name, field)| ["$ref", "$dynamicRef", "$recursiveRef"].contains(&name.as_str()) || refers(field)),
        Value::Array(items) => items.iter().any(refers),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_schema_stands_on_its_own() {
        assert!(refers(&json!({"properties": {"a": {"anyOf": [{"$ref": "#/$defs/a"}]}}})));
        assert!(!refers(&json!({"type": "object", "properties": {"a": {"type": "string"}}})));
    }
}
