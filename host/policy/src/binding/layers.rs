//! Merging of layers of documents.
//!
//! The layers of the server's defaults, the tenant and the group are merged in this order as JSON merge patches (RFC 7396); a job's overrides
//! are merged into the configs at the end. One rule is added: a layer that names another plugin for a role starts from that plugin's defaults
//! and does not inherit a config that was meant for the old plugin.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::{Invalid, PluginName, pointer_to};
use crate::component::Role;

/// Returns whether `known` is the stored form of `written`: a layer that names a plugin without a version is stored with the version that it
/// resolved to.
#[must_use]
pub fn is_as_written(known: &Value, written: &Value) -> bool {
    let unpinned = |known: &mut Value, written: Option<&Value>| {
        let name = |used: &Value| used.get("plugin").and_then(Value::as_str).map(PluginName::from);
        if let (Some(pinned), Some(named)) = (name(known), written.and_then(name))
            && named.version.is_none()
        {
            known["plugin"] = pinned.name.into();
        }
    };
    let mut known = known.clone();
    for role in Role::SINGLE.map(Role::as_str) {
        if let Some(used) = known.get_mut(role) {
            unpinned(used, written.get(role));
        }
    }
    let chain = known.get_mut("encode").and_then(Value::as_array_mut).into_iter().flatten();
    chain.enumerate().for_each(|(index, used)| unpinned(used, written.pointer(&format!("/encode/{index}"))));
    known == *written
}

/// Merges `over` into `base`.
pub fn lay(base: &mut Value, over: &Value) {
    let Value::Object(fields) = over else { return };
    for (field, patch) in fields {
        let inherits = Role::is_named(&Role::SINGLE, field) && patch.get("plugin").is_some();
        if inherits && !same_plugin(base.get(field), patch) {
            base[field] = Value::Null;
        }
        json_patch::merge(base, &Value::Object(Map::from_iter([(field.clone(), patch.clone())])));
    }
}

/// Merges a part of a document into a layer; members that the part does not name stay. `effective` is the merged document that the layer
/// leads to.
///
/// The layer is still merged over others, so null is kept: it removes an inherited value, as a null that the layer itself holds does.
pub fn compose(own: &mut Value, effective: &Value, part: &Value) {
    let Value::Object(fields) = part else { return };
    for (field, part) in fields {
        let names_plugin = Role::is_named(&Role::SINGLE, field) && part.get("plugin").is_some();
        if names_plugin && !same_plugin(effective.get(field), part) {
            own[field] = Value::Null;
        }
        merge_keeping_null(&mut own[field], part);
    }
}

fn merge_keeping_null(base: &mut Value, part: &Value) {
    match (base, part) {
        (Value::Object(base), Value::Object(part)) => {
            for (name, part) in part {
                merge_keeping_null(base.entry(name).or_insert(Value::Null), part);
            }
        }
        (base, part) => *base = part.clone(),
    }
}

fn same_plugin(base: Option<&Value>, patch: &Value) -> bool {
    let name = |value: &Value| value.get("plugin").and_then(Value::as_str).map(|text| PluginName::from(text).name);
    base.and_then(name) == name(patch)
}

/// Returns which layer each value of the merged document comes from: JSON pointer → name of the layer.
#[must_use]
pub fn provenance(merged: &Value, layers: &[(&str, &Value)]) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    collect(merged, String::new(), &mut |pointer| {
        let from = layers.iter().rev().find(|(_, layer)| layer.pointer(pointer).is_some());
        if let Some((name, _)) = from {
            found.insert(pointer.to_owned(), (*name).to_owned());
        }
    });
    found
}

fn collect(value: &Value, pointer: String, leaf: &mut impl FnMut(&str)) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            for (name, field) in fields {
                collect(field, pointer.clone() + &pointer_to(name), leaf);
            }
        }
        _ => leaf(&pointer),
    }
}

/// Merges a job's overrides into the configs of a merged document. They are keyed by role (`encode` by the plugin's name, too): `{"retry":
/// {"max_attempts": 3}, "encode": {"base64-envelope": {…}}}`.
///
/// # Errors
/// Returns [`Invalid`] if an override names a role or a plugin that is not bound.
pub fn override_configs(doc: &mut Value, overrides: &Value) -> Result<(), Invalid> {
    let Value::Object(overrides) = overrides else {
        return Err(Invalid::at("", "`policy` must be an object: role → overrides of its config"));
    };
    for (role, patch) in overrides {
        let pointer = format!("/{role}");
        if !patch.is_object() {
            return Err(Invalid::at(
                pointer,
                "the overrides of a role must be an object: the members of its config to change",
            ));
        }
        match role.as_str() {
            "encode" => override_encoders(doc, patch)?,
            role if Role::is_named(&Role::OVERRIDABLE, role) => match doc.get_mut(role).filter(|used| used.is_object())
            {
                Some(used) => patch_config(used, patch),
                None => return Err(Invalid::at(pointer, format!("the group has no policy for `{role}`"))),
            },
            _ => {
                return Err(Invalid::at(pointer, "a job can override only `encode`, `sign`, `judge` and `retry`"));
            }
        }
    }
    Ok(())
}

fn override_encoders(doc: &mut Value, patches: &Value) -> Result<(), Invalid> {
    let patches = patches.as_object().into_iter().flatten();
    for (plugin, patch) in patches {
        let chain = doc.get_mut("encode").and_then(Value::as_array_mut).into_iter().flatten();
        let named = |used: &&mut Value| {
            used.get("plugin").and_then(Value::as_str).is_some_and(|name| PluginName::from(name).name == *plugin)
        };
        let used = chain.into_iter().find(named);
        let used =
            used.ok_or_else(|| Invalid::at(format!("/encode/{plugin}"), "the group has no encoder of this name"))?;
        patch_config(used, patch);
    }
    Ok(())
}

fn patch_config(used: &mut Value, patch: &Value) {
    json_patch::merge(used, &serde_json::json!({ "config": patch }));
}
