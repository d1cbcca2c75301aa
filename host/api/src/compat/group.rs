//! The presets of the mounts: what is different about such jobs, with the limits of the configuration. They lie under the groups of the mounts,
//! whoever makes or changes these.

use serde_json::{Map, Value, json};

use super::Mount;
use carillon_catalog::{By, KeyedPreset, Preset, Presets};
use carillon_config::Compat;

/// The key that holds what receivers of poussetaches' tasks know the server by, and the header that it is sent in.
pub const AUTH_KEY: &str = "poussetaches-auth-key";
const AUTH_HEADER: &str = "Poussetaches-Auth-Key";

/// What the first version of the server wrote into the group itself, when it made it: the number of Doppler's workers.
const FIRST_DOPPLER_WORKERS: u32 = 1;

/// The presets of all mounts, by the names of their groups. Those of a mount that is switched off are among them: its jobs are there still.
#[must_use]
pub fn presets(compat: &Compat) -> Presets {
    Mount::ALL.into_iter().map(|mount| (mount.settings(compat).group.clone(), preset(mount, compat))).collect()
}

fn preset(mount: Mount, compat: &Compat) -> Preset {
    let preset = match mount {
        Mount::Doppler => include_str!("../../../../examples/presets/doppler.json"),
        Mount::Poussetaches => include_str!("../../../../examples/presets/poussetaches.json"),
        Mount::Callme => include_str!("../../../../examples/presets/callme.json"),
    };
    let mut doc: Value = serde_json::from_str(preset).unwrap_or(Value::Null);
    json_patch::merge(&mut doc, &json!({"limits": limits(mount, compat)}));
    let keyed = (mount == Mount::Poussetaches).then(|| {
        let mut doc = doc.clone();
        json_patch::merge(&mut doc, &json!({"auth_headers": {AUTH_HEADER: AUTH_KEY}}));
        KeyedPreset { key: AUTH_KEY.to_owned(), doc }
    });
    Preset { doc, keyed }
}

/// The limits that the configuration sets. A burst belongs to a rate: without one it says nothing.
fn limits(mount: Mount, compat: &Compat) -> Value {
    let settings = mount.settings(compat);
    let burst = Some(settings.burst).filter(|burst| *burst > 0 && settings.rate.is_some());
    json!({"concurrency": settings.workers, "rate": settings.rate, "burst": burst})
}

/// What a group says itself, where it is as the first version of the server made it: that version wrote the preset into the group. `by` is who
/// made the group's policy, `limits` whose its limits are. None if somebody has changed the policy since.
#[must_use]
pub fn without_preset(mount: Mount, own: &Value, preset: &Value, by: Option<&By>, limits: OwnLimits) -> Option<Value> {
    let roles = preset.as_object()?.iter().filter(|(field, _)| *field != "limits" && *field != "auth_headers");
    let mut roles = roles.peekable();
    let is_untouched = by.is_some_and(|by| by.token.is_none() && by.name == author(mount))
        && roles.peek().is_some()
        && roles.all(|(role, it)| own.get(role) == Some(it));
    if !is_untouched {
        return None;
    }
    let is_inherited = |pointer: &str, value: &Value| preset.pointer(pointer) == Some(value);
    let mut said = Map::new();
    for (field, value) in own.as_object()? {
        let Value::Object(parts) = value else {
            if !is_inherited(&format!("/{field}"), value) {
                said.insert(field.clone(), value.clone());
            }
            continue;
        };
        if !["limits", "auth_headers"].contains(&field.as_str()) {
            if !is_inherited(&format!("/{field}"), value) {
                said.insert(field.clone(), value.clone());
            }
            continue;
        }
        let parts = parts.iter().filter(|(part, value)| {
            let is_old = mount == Mount::Doppler && *part == "concurrency" && **value == json!(FIRST_DOPPLER_WORKERS);
            let is_configured = field == "limits" && ["concurrency", "rate", "burst"].contains(&part.as_str());
            let is_servers = is_configured && (is_old || limits == OwnLimits::Configured);
            !is_servers && !is_inherited(&format!("/{field}/{part}"), value)
        });
        let parts: Map<String, Value> = parts.map(|(part, value)| (part.clone(), value.clone())).collect();
        if !parts.is_empty() {
            said.insert(field.clone(), Value::Object(parts));
        }
    }
    Some(Value::Object(said))
}

/// Whose the limits are that a group has of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwnLimits {
    /// The configuration's: they were written into the group at every start.
    Configured,
    /// The configuration's of the moment in which the group was made, or somebody has changed them since.
    Unknown,
}

/// Who makes the group of a mount.
pub(super) fn author(mount: Mount) -> String {
    format!("compat.{}", mount.name())
}

#[cfg(test)]
mod tests {
    use super::*;
    use carillon_config::{Config, Sources};

    fn of(mount: Mount) -> Preset {
        preset(mount, &Config::load(Sources::default()).unwrap().compat)
    }

    #[test]
    fn limits_of_the_configuration_are_part_of_the_preset() {
        assert_eq!(of(Mount::Doppler).doc["limits"], json!({"concurrency": 32, "redirects": 5}));
        let poussetaches = of(Mount::Poussetaches);
        assert_eq!(poussetaches.doc["limits"]["rate"], "3/s");
        assert_eq!(poussetaches.doc.get("auth_headers"), None);
        assert_eq!(poussetaches.keyed.unwrap().doc["auth_headers"], json!({AUTH_HEADER: AUTH_KEY}));
    }

    #[test]
    fn burst_without_a_rate_says_nothing() {
        let variable = ("CARILLON_COMPAT__POUSSETACHES__RATE".to_owned(), String::new());
        let config = Config::load(Sources { environment: vec![variable], ..Sources::default() }).unwrap();
        let limits = &preset(Mount::Poussetaches, &config.compat).doc["limits"];
        assert_eq!(limits, &json!({"concurrency": 2, "redirects": 5}));
    }

    #[test]
    fn group_of_the_first_version_gives_up_the_preset_and_nothing_else() {
        let preset = of(Mount::Doppler).doc;
        let mut own = preset.clone();
        own["limits"]["concurrency"] = 1.into();
        own["limits"]["timeout"] = "7s".into();
        own["dead_letters"] = "graveyard".into();
        let by = |name: &str| By { token: None, name: name.to_owned() };
        let said =
            |own: &Value, limits| without_preset(Mount::Doppler, own, &preset, Some(&by("compat.doppler")), limits);
        let kept = json!({"limits": {"timeout": "7s"}, "dead_letters": "graveyard"});
        assert_eq!(said(&own, OwnLimits::Unknown), Some(kept.clone()));
        own["limits"]["concurrency"] = 9.into();
        assert_eq!(said(&own, OwnLimits::Configured), Some(kept));
        assert_eq!(said(&own, OwnLimits::Unknown).unwrap()["limits"]["concurrency"], 9);
        assert_eq!(without_preset(Mount::Doppler, &own, &preset, Some(&by("me")), OwnLimits::Unknown), None);
        own["judge"]["config"]["expect"] = 200.into();
        assert_eq!(said(&own, OwnLimits::Unknown), None, "somebody has changed it");
        assert_eq!(said(&json!({"limits": {"concurrency": 32}}), OwnLimits::Unknown), None, "it says so itself");
    }
}
