//! Presets: settings under the groups of a certain name, in every tenant, as a tenant's defaults are under all of its groups.

use std::collections::HashMap;

use serde_json::Value;

use carillon_policy::KeyKind;

use super::Key;

/// Settings that a group of a certain name inherits, over the defaults of its tenant.
#[derive(Clone, Debug, Default)]
pub struct Preset {
    /// Settings in the form of a group.
    pub doc: Value,
    /// Other settings for tenants that have a certain key.
    pub keyed: Option<KeyedPreset>,
}

/// Preset for tenants that have a key of the kind `header`.
#[derive(Clone, Debug)]
pub struct KeyedPreset {
    /// Name of the key.
    pub key: String,
    /// Settings in the form of a group.
    pub doc: Value,
}

/// Presets, by the name of the group.
pub type Presets = HashMap<String, Preset>;

impl Preset {
    /// Returns the settings for a tenant's group; `key` finds the tenant's keys.
    pub(super) fn of_tenant<'k>(&self, key: impl FnOnce(&str) -> Option<&'k Key>) -> &Value {
        let keyed = self.keyed.as_ref();
        let keyed = keyed.filter(|keyed| key(&keyed.key).is_some_and(|key| key.newest.kind == KeyKind::Header));
        keyed.map_or(&self.doc, |keyed| &keyed.doc)
    }
}
