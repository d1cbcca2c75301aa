//! Differences between two states of a policy: the names of the parts that a change removes, adds and modifies. Pure.

use serde::Serialize;
use serde_json::{Map, Value};

/// Names of the settings that a change concerns: for a group its roles, and `limits`, `auth_headers` and the like.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Changes {
    /// Settings that were there before and are gone.
    pub removed: Vec<String>,
    /// Settings that were not there before.
    pub added: Vec<String>,
    /// Settings whose value is different.
    pub changed: Vec<String>,
}

impl Changes {
    /// Compares the members of two objects. A member that is null or empty counts as absent.
    #[must_use]
    pub fn between(before: &Value, after: &Value) -> Self {
        let mut changes = Self::default();
        changes.compare("", before, after);
        changes
    }

    /// Also compares the members of the objects under the member `name` of both: `defaults.sign`.
    #[must_use]
    pub fn and_within(mut self, name: &str, before: &Value, after: &Value) -> Self {
        self.compare(&format!("{name}."), before, after);
        self
    }

    fn compare(&mut self, prefix: &str, before: &Value, after: &Value) {
        let none = Map::new();
        let (before, after) = (before.as_object().unwrap_or(&none), after.as_object().unwrap_or(&none));
        let mut names: Vec<_> = before.keys().chain(after.keys()).collect();
        names.sort_unstable();
        names.dedup();
        for name in names {
            let value = |all: &Map<String, Value>| all.get(name).filter(|value| !is_nothing(value)).cloned();
            let found = match (value(before), value(after)) {
                (Some(_), None) => &mut self.removed,
                (None, Some(_)) => &mut self.added,
                (Some(before), Some(after)) if before != after => &mut self.changed,
                _ => continue,
            };
            found.push(format!("{prefix}{name}"));
        }
    }
}

fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn parts_are_removed_added_and_changed() {
        let before =
            json!({"sign": {"plugin": "s"}, "encode": [{"plugin": "e"}], "judge": {"plugin": "a"}, "retry": {}});
        let after = json!({"sign": null, "encode": [], "judge": {"plugin": "b"}, "observe": {"plugin": "o"}});
        let names = |all: &[&str]| all.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let changes = Changes::between(&before, &after);
        assert_eq!(changes.removed, names(&["encode", "sign"]));
        assert_eq!((changes.added, changes.changed), (names(&["observe"]), names(&["judge"])));
        assert_eq!(Changes::between(&before, &before), Changes::default());
        let nested = Changes::default().and_within("quota", &json!({"rate": "1/s"}), &Value::Null);
        assert_eq!(nested.removed, names(&["quota.rate"]));
    }
}
