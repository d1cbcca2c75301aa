//! Examination of a component: whether its description is valid and its golden tests pass, so that a server accepts it.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Digest, LoadError, Plugin, QueueKey, Role, Runtime, config_schema, golden};
use carillon_core::job::{TenantId, check_name};
use carillon_core::text::clean;

/// Stored description of a plugin.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PluginRecord {
    /// SHA-256 of the component.
    pub digest: Digest,
    /// Roles that the plugin can play.
    pub roles: Vec<Role>,
    /// Purpose of the plugin, in its author's words.
    pub summary: String,
    /// JSON Schema of the plugin's config.
    pub config_schema: Value,
    /// Size of the component in bytes.
    pub size: usize,
    /// Whether the plugin imports functions of keys; false for a version that was stored before this was recorded.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub uses_keys: bool,
    /// Name of the tenant's signer whose signature the upload had, if the tenant has signers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signed_by: Option<String>,
    /// Reason why the version should no longer be bound; absent if it is not deprecated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deprecated: Option<String>,
    /// Tenants that a shared plugin is given to; absent if all, and for a tenant's own plugin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenants: Option<Vec<TenantId>>,
}

/// Examines a component that loads: its description must be valid, and its golden tests must pass. Returns the description.
///
/// # Errors
/// Returns the reason for the rejection, as a sentence for the plugin's author.
pub async fn examine(
    runtime: &Runtime,
    tenant: TenantId,
    plugin: &Arc<Plugin>,
    component: &[u8],
) -> Result<Described, LoadError> {
    examined(runtime, tenant, plugin, component).await.map_err(LoadError::cleaned)
}

async fn examined(
    runtime: &Runtime,
    tenant: TenantId,
    plugin: &Arc<Plugin>,
    component: &[u8],
) -> Result<Described, LoadError> {
    let described = describe(runtime, tenant, plugin, component.len()).await?;
    let unusable = |error: String| LoadError::Description(error);
    check_name("plugin", &described.name).map_err(unusable)?;
    if described.version.parse::<semver::Version>().is_err() {
        return Err(unusable(format!("`{}` is not a semantic version such as `1.4.0`", described.version)));
    }
    let config_schema = described.doc.config_schema.clone();
    let built = tokio::task::spawn_blocking(move || config_schema::build(&config_schema).map(drop)).await;
    built.map_err(|error| unusable(error.to_string()))?.map_err(unusable)?;
    prove(runtime, tenant, plugin, component).await?;
    Ok(described)
}

/// Runs the golden tests that are embedded in a component.
async fn prove(runtime: &Runtime, tenant: TenantId, plugin: &Arc<Plugin>, component: &[u8]) -> Result<(), LoadError> {
    let tests = golden::embedded_within(component, runtime.limits.embedded)
        .map_err(|error| LoadError::Golden(error.to_string()))?;
    for test in tests {
        let (plugin, limits) = (Arc::clone(plugin), Arc::clone(&runtime.limits));
        let checked =
            runtime.check_threads.run(QueueKey::of_tenant(tenant), move || test.check(&plugin, &limits)).await;
        let checked =
            checked.map_err(|fault| LoadError::Golden(format!("the golden tests cannot be run now: {fault}")))?;
        checked.map_err(|failed| LoadError::Golden(failed.to_string()))?;
    }
    Ok(())
}

/// Maximum length of a plugin's summary, in bytes.
const SUMMARY_LEN: usize = 1 << 10;

/// Maximum length of a plugin's config schema, in bytes.
const SCHEMA_LEN: usize = 64 << 10;

/// Description that a plugin returned, parsed.
#[derive(Debug)]
pub struct Described {
    /// Name that the plugin gives itself.
    pub name: String,
    /// Version of the plugin.
    pub version: String,
    /// Description to be stored.
    pub doc: PluginRecord,
}

/// Asks a plugin to describe itself.
///
/// # Errors
/// Returns an error if the call fails or the description is not valid.
pub async fn describe(
    runtime: &Runtime,
    tenant: TenantId,
    plugin: &Arc<Plugin>,
    size: usize,
) -> Result<Described, LoadError> {
    let (asked, limits) = (Arc::clone(plugin), Arc::clone(&runtime.limits));
    let called = runtime.check_threads.run(QueueKey::of_tenant(tenant), move || asked.describe(&limits)).await;
    let said = called.and_then(|called| called.result).map_err(|fault| LoadError::Description(fault.to_string()))?;
    if said.summary.len() > SUMMARY_LEN || said.config_schema.len() > SCHEMA_LEN {
        let text =
            format!("its summary has more than {SUMMARY_LEN} bytes, or its config schema more than {SCHEMA_LEN}");
        return Err(LoadError::Description(text));
    }
    let mut schema: Value = serde_json::from_str(&said.config_schema)
        .map_err(|error| LoadError::Description(format!("its config schema is not JSON: {error}")))?;
    clean_annotations(&mut schema);
    let doc = PluginRecord {
        digest: plugin.digest.clone(),
        roles: plugin.roles(),
        summary: clean(&said.summary).into_owned(),
        config_schema: schema,
        size,
        uses_keys: plugin.uses_keys(),
        signed_by: None,
        deprecated: None,
        tenants: None,
    };
    Ok(Described { name: said.name, version: said.version, doc })
}

/// Members of a JSON Schema whose texts are for readers.
const ANNOTATIONS: [&str; 3] = ["title", "description", "$comment"];

/// Members of a JSON Schema that hold values of a config instead of schemas.
const VALUES: [&str; 4] = ["const", "enum", "default", "examples"];

/// Cleans the texts in a schema that are for readers. What decides about configs stays as it is.
fn clean_annotations(schema: &mut Value) {
    match schema {
        Value::Object(members) => {
            for (name, value) in members {
                match value {
                    Value::String(text) if ANNOTATIONS.contains(&name.as_str()) => *text = clean(text).into_owned(),
                    _ if VALUES.contains(&name.as_str()) => {}
                    below => clean_annotations(below),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(clean_annotations),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn texts_of_a_schema_are_clean_and_its_rules_unchanged() {
        let hostile = "a\u{1b}[2J\u{202e}b\nc";
        let mut schema = json!({
            "description": hostile, "enum": [{"title": hostile}], "default": {"description": hostile},
            "properties": {"title": {"const": hostile, "title": hostile}}, "anyOf": [{"$comment": hostile}],
        });
        clean_annotations(&mut schema);
        let clean = "a\u{fffd}[2J\u{fffd}b c";
        let expected = json!({
            "description": clean, "enum": [{"title": hostile}], "default": {"description": hostile},
            "properties": {"title": {"const": hostile, "title": clean}}, "anyOf": [{"$comment": clean}],
        });
        assert_eq!(schema, expected);
    }
}
