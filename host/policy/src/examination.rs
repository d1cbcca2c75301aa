//! What a component says of itself, and whether a server accepts it: its description can be used, and its golden tests pass.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Digest, LoadError, Plugin, QueueKey, Role, Runtime, config_schema, golden};
use carillon_core::job::{TenantId, check_name};

/// What is stored of a plugin.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PluginDoc {
    /// The sha-256 of the component.
    pub digest: Digest,
    /// What it can do.
    pub roles: Vec<Role>,
    /// What it is for.
    pub summary: String,
    /// A JSON Schema.
    pub config_schema: Value,
    /// Bytes of the component.
    pub size: usize,
    /// Whether it calls for keys; of a version that was stored before this was asked, no.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub uses_keys: bool,
    /// Which of the tenant's signers had signed it, if it had any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signed_by: Option<String>,
    /// Why it should no longer be bound, if it should not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deprecated: Option<String>,
}

/// What a component that loads says of itself, if a server takes it: what it says can be used, and its golden tests pass.
///
/// # Errors
/// Whatever keeps a server from accepting it, as a sentence for its author.
pub async fn examine(
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

/// Runs the golden tests that are in a component.
async fn prove(runtime: &Runtime, tenant: TenantId, plugin: &Arc<Plugin>, component: &[u8]) -> Result<(), LoadError> {
    let tests = golden::embedded(component).map_err(|error| LoadError::Golden(error.to_string()))?;
    for test in tests {
        let (plugin, limits) = (Arc::clone(plugin), Arc::clone(&runtime.limits));
        let checked = runtime.threads.run(QueueKey::of_tenant(tenant), move || test.check(&plugin, &limits)).await;
        let checked =
            checked.map_err(|fault| LoadError::Golden(format!("the golden tests cannot be run now: {fault}")))?;
        checked.map_err(|failed| LoadError::Golden(failed.to_string()))?;
    }
    Ok(())
}

/// The longest summary of a plugin, in bytes.
const SUMMARY_LEN: usize = 1 << 10;

/// The longest config schema of a plugin, in bytes.
const SCHEMA_LEN: usize = 64 << 10;

/// A plugin's own words, read.
#[derive(Debug)]
pub struct Described {
    /// What it calls itself.
    pub name: String,
    /// Its version.
    pub version: String,
    /// What is stored of it.
    pub doc: PluginDoc,
}

/// Asks a plugin to describe itself.
///
/// # Errors
/// If it does not answer, or says what cannot be used.
pub async fn describe(
    runtime: &Runtime,
    tenant: TenantId,
    plugin: &Arc<Plugin>,
    size: usize,
) -> Result<Described, LoadError> {
    let (asked, limits) = (Arc::clone(plugin), Arc::clone(&runtime.limits));
    let called = runtime.threads.run(QueueKey::of_tenant(tenant), move || asked.describe(&limits)).await;
    let said = called.and_then(|called| called.result).map_err(|fault| LoadError::Description(fault.to_string()))?;
    if said.summary.len() > SUMMARY_LEN || said.config_schema.len() > SCHEMA_LEN {
        let text =
            format!("its summary has more than {SUMMARY_LEN} bytes, or its config schema more than {SCHEMA_LEN}");
        return Err(LoadError::Description(text));
    }
    let schema: Value = serde_json::from_str(&said.config_schema)
        .map_err(|error| LoadError::Description(format!("its config schema is not JSON: {error}")))?;
    let doc = PluginDoc {
        digest: plugin.digest.clone(),
        roles: plugin.roles(),
        summary: said.summary,
        config_schema: schema,
        size,
        uses_keys: plugin.uses_keys(),
        signed_by: None,
        deprecated: None,
    };
    Ok(Described { name: said.name, version: said.version, doc })
}
