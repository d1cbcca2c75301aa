//! What a change of an entity has changed, as JSON pointers into the document that the API shows. Pure; no value leaves it.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use crate::entities::Kind;

/// Largest number of pointers of an entry. A change of more members is described by the members around them.
const MAX_POINTERS: usize = 32;

/// Largest length of a pointer, in bytes. A longer one is replaced by that of the member around it.
const MAX_POINTER_LEN: usize = 128;

/// Largest number of members in a pointer.
const MAX_DEPTH: usize = 4;

/// Parts of a stored document, each with the pointer under which it is shown.
type Parts = &'static [(&'static str, &'static str)];

fn parts(kind: Kind) -> Parts {
    match kind {
        Kind::Tenant => &[("", "")],
        Kind::Group => &[
            ("/policy", ""),
            ("/paused", "/paused"),
            ("/rollout/active/number", "/policy/version"),
            ("/rollout/canary", "/policy/canary"),
            ("/rollout/shadow", "/policy/shadow"),
        ],
        Kind::Key => &[
            ("/sealed/ciphertext", "/secret"),
            ("/kind", "/kind"),
            ("/older", "/versions"),
            ("/groups", "/groups"),
            ("/origins", "/origins"),
        ],
        Kind::ApiToken => &[
            ("/hash", "/token"),
            ("/name", "/name"),
            ("/role", "/role"),
            ("/operator", "/operator"),
            ("/expires_at", "/expires_at"),
            ("/groups", "/groups"),
            ("/addresses", "/addresses"),
        ],
        Kind::Plugin => &[("/digest", "/digest"), ("/deprecated", "/deprecated"), ("/tenants", "/tenants")],
        // Of an encrypted document, nothing but the whole can be compared.
        Kind::Schedule => &[("/spec", ""), ("/paused", "/paused"), ("/sealed", "")],
        Kind::Bulk => &[("/action", "/action"), ("/filter", "/filter")],
        Kind::Binding => &[("/policy", "")],
        Kind::DataKey => &[],
    }
}

/// Returns the pointers to what differs between two stored documents of an entity; `before` is `None` for a new one.
#[must_use]
pub fn changed(kind: Kind, before: Option<&Value>, after: &Value) -> Vec<String> {
    let mut found = Vec::new();
    for depth in (1..=MAX_DEPTH).rev() {
        found.clear();
        for (stored, shown) in parts(kind) {
            let (before, after) = (before.and_then(|doc| doc.pointer(stored)), after.pointer(stored));
            compare(&Sides { before, after }, shown, depth, &mut found);
        }
        if found.len() <= MAX_POINTERS {
            break;
        }
    }
    found.truncate(MAX_POINTERS);
    found
}

/// One member, before and after the change.
struct Sides<'a> {
    before: Option<&'a Value>,
    after: Option<&'a Value>,
}

fn compare(sides: &Sides<'_>, at: &str, depth: usize, found: &mut Vec<String>) {
    // A flag that is not set counts as absent.
    let present = |value: Option<&Value>| value.filter(|value| **value != Value::Bool(false)).cloned();
    let (before, after) = (present(sides.before), present(sides.after));
    if before == after {
        return;
    }
    let empty = || Value::Object(Map::new());
    // The whole document has no name of its own: its members are named, also if there was none.
    let (before, after) = if at.is_empty() {
        (before.or_else(|| Some(empty())), after.or_else(|| Some(empty())))
    } else {
        (before, after)
    };
    let (Some(Value::Object(before)), Some(Value::Object(after))) = (&before, &after) else {
        found.push(at.to_owned());
        return;
    };
    let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let members: Vec<_> = names.into_iter().map(|name| (name, format!("{at}/{}", escaped(name)))).collect();
    if !at.is_empty() && (depth == 0 || members.iter().any(|(_, pointer)| pointer.len() > MAX_POINTER_LEN)) {
        found.push(at.to_owned());
        return;
    }
    for (name, pointer) in members.iter().filter(|(_, pointer)| pointer.len() <= MAX_POINTER_LEN) {
        let sides = Sides { before: before.get(*name), after: after.get(*name) };
        compare(&sides, pointer, depth - 1, found);
    }
}

/// Escapes a name for a pointer (RFC 6901, section 4).
fn escaped(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn pointers_name_what_the_api_shows() {
        let before = json!({"policy": {"limits": {"rate": "1/s", "concurrency": 2}, "sign": {"plugin": "a"}}, "paused": false,
            "rollout": {"active": {"number": 1}, "history": []}});
        let after = json!({"policy": {"limits": {"rate": "2/s", "concurrency": 2}, "judge": {"plugin": "b"}}, "paused": true,
            "rollout": {"active": {"number": 2}, "history": [1]}});
        let found = changed(Kind::Group, Some(&before), &after);
        assert_eq!(found, ["/judge", "/limits/rate", "/sign", "/paused", "/policy/version"]);
        assert_eq!(changed(Kind::Group, Some(&before), &before), Vec::<String>::new());
        assert_eq!(changed(Kind::Group, None, &before), ["/limits", "/sign", "/policy/version"]);
    }

    #[test]
    fn secrets_are_named_and_not_shown() {
        let key = |text: &str| json!({"kind": "secret", "sealed": {"nonce": text, "ciphertext": text}});
        assert_eq!(changed(Kind::Key, Some(&key("s3cret")), &key("other")), ["/secret"]);
        let token = |hash: &str, used: i64| json!({"hash": hash, "name": "t", "role": "admin", "last_used_at": used});
        assert_eq!(changed(Kind::ApiToken, Some(&token("a", 1)), &token("b", 2)), ["/token"]);
    }

    #[test]
    fn bounds_of_keys_tenants_and_shared_plugins_are_named() {
        let key = |origin: &str| json!({"kind": "header", "sealed": {"ciphertext": "a"}, "origins": [origin]});
        assert_eq!(changed(Kind::Key, Some(&key("https://a")), &key("https://b")), ["/origins"]);
        let (active, suspended) = (json!({"defaults": {}}), json!({"defaults": {}, "suspended": true}));
        assert_eq!(changed(Kind::Tenant, Some(&active), &suspended), ["/suspended"]);
        let plugin = |tenants: Value| json!({"digest": "d", "tenants": tenants});
        assert_eq!(changed(Kind::Plugin, Some(&plugin(json!([1]))), &plugin(json!([1, 2]))), ["/tenants"]);
    }

    #[test]
    fn pointers_are_bounded_in_number_and_length() {
        let many = |value: i64| {
            let parts: Map<String, Value> = (0..100).map(|n| (format!("x{n}"), json!(value))).collect();
            json!({"policy": {"sign": {"config": parts}}})
        };
        assert_eq!(changed(Kind::Group, Some(&many(1)), &many(2)), ["/sign/config"]);
        let long = |value: i64| json!({"policy": {"sign": {"config": {"x".repeat(1_000): value}}}});
        assert_eq!(changed(Kind::Group, Some(&long(1)), &long(2)), ["/sign/config"]);
        let odd = |value: i64| json!({"policy": {"a/b~": value}});
        assert_eq!(changed(Kind::Group, Some(&odd(1)), &odd(2)), ["/a~1b~0"]);
    }
}
