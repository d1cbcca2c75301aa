//! Presets: what lies under the groups of a name, in every tenant, as a tenant's defaults lie under all of its groups.

use std::collections::HashMap;

use serde_json::Value;

use carillon_policy::KeyKind;

use super::Key;

/// What a group of some name inherits, over the defaults of its tenant.
#[derive(Clone, Debug, Default)]
pub struct Preset {
    /// In the form of a group.
    pub doc: Value,
    /// What it is where the tenant has a certain key.
    pub keyed: Option<KeyedPreset>,
}

/// A preset for tenants that have a key of the kind `header`.
#[derive(Clone, Debug)]
pub struct KeyedPreset {
    /// The key's name.
    pub key: String,
    /// In the form of a group.
    pub doc: Value,
}

/// The presets, by the name of the group.
pub type Presets = HashMap<String, Preset>;

impl Preset {
    /// What lies under the group of a tenant; `key` finds the tenant's keys.
    pub(super) fn of_tenant<'k>(&self, key: impl FnOnce(&str) -> Option<&'k Key>) -> &Value {
        let keyed = self.keyed.as_ref();
        let keyed = keyed.filter(|keyed| key(&keyed.key).is_some_and(|key| key.newest.kind == KeyKind::Header));
        keyed.map_or(&self.doc, |keyed| &keyed.doc)
    }
}
