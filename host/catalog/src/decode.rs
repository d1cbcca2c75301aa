//! Decoding of stored plugins.

use serde::de::DeserializeOwned;

use super::entities::{PluginVersion, SHARED};
use carillon_core::clock::UnixMs;
use carillon_core::job::TenantId;
use carillon_policy::PluginRecord;
use carillon_policy::binding::PluginName;
use carillon_policy::config_schema::Schema;
use carillon_store::Entity;

/// Parses an entity's document.
pub(super) fn read<T: DeserializeOwned>(entity: &Entity) -> anyhow::Result<T> {
    T::deserialize(&entity.doc)
        .map_err(|error| anyhow::anyhow!("the {} `{}` cannot be read: {error}", entity.kind.as_str(), entity.name))
}

pub(super) fn plugin_of(entity: &Entity) -> anyhow::Result<PluginVersion> {
    let name = PluginName::from(entity.name.as_str());
    let version =
        plugin_version(name.name, &name.version.unwrap_or_default(), false, read(entity)?, entity.created_at)?;
    Ok(PluginVersion { shared: TenantId(entity.tenant) == SHARED, ..version })
}

/// Builds a version of a plugin from its stored parts. Its schema is not compiled.
pub(super) fn plugin_version(
    name: String,
    version: &str,
    builtin: bool,
    doc: PluginRecord,
    created_at: UnixMs,
) -> anyhow::Result<PluginVersion> {
    let version =
        version.parse().map_err(|_| anyhow::anyhow!("`{version}` is not a semantic version such as `1.4.0`"))?;
    Ok(PluginVersion { name, version, builtin, shared: false, doc, schema: Schema::default(), created_at })
}
