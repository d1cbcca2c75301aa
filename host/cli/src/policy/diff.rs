//! `carillon policy diff`: shows the differences between two versions of a group's policy.

use anyhow::{Context as _, bail};
use clap::Args;
use serde_json::{Map, Value, json};

use super::super::Session;
use carillon_policy::Role;
use carillon_policy::binding::pointer_to;

#[derive(Debug, Args)]
#[command(
    after_long_help = "Without numbers, compares the version in force with the newest one, if that is newer; otherwise the version
before with the version in force. With one number, compares the version in force with that version.

`plugin` and `digest` are what each version was resolved to when it was made, including inherited roles. Limits are not part of a
version.

Exits with 0 also if the versions differ, unless --exit-code is set."
)]
pub struct Diff {
    /// Name of the group.
    group: String,
    /// Number of a version: the older one, if two are given.
    #[arg(value_name = "A")]
    one: Option<i64>,
    /// Number of the newer version.
    #[arg(value_name = "B")]
    other: Option<i64>,
    /// Exit with 1 if the versions differ.
    #[arg(long)]
    exit_code: bool,
}

const COLUMNS: [(&str, &str); 4] = [("ROLE", "/role"), ("WHERE", "/pointer"), ("FROM", "/from"), ("TO", "/to")];

impl Diff {
    pub(super) async fn run(self, session: &Session) -> anyhow::Result<()> {
        let (from, to) = self.numbers(session).await?;
        let (from, to) = (self.version(session, from).await?, self.version(session, to).await?);
        let changes = changes(&from, &to);
        let differ = !changes.is_empty();
        let (one, other) = (title(&from), title(&to));
        if session.out.is_json() {
            let about = |version: &Value| {
                let mut about = version.clone();
                if let Some(fields) = about.as_object_mut() {
                    fields.retain(|key, _| !["policy", "plugins"].contains(&key.as_str()));
                }
                about
            };
            let answer = json!({ "from": about(&from), "to": about(&to), "same": !differ, "changes": changes });
            session.out.json(&answer)?;
        } else {
            session.out.note(&format!("{}: {one} -> {other}", self.group))?;
            let rows: Vec<Value> = changes.iter().map(readable).collect();
            if differ { session.out.table(&COLUMNS, &rows)? } else { session.out.line("no differences")? }
        }
        if differ && self.exit_code {
            bail!("{one} and {other} differ");
        }
        Ok(())
    }

    /// Returns the numbers of the versions to compare.
    async fn numbers(&self, session: &Session) -> anyhow::Result<(i64, i64)> {
        if let (Some(one), Some(other)) = (self.one, self.other) {
            return Ok((one, other));
        }
        let group: Value = session.client.get(&["groups", &self.group], &[]).await?;
        let active =
            group["binding"].as_i64().context("the server's response does not contain the version in force")?;
        if let Some(one) = self.one {
            return Ok((active, one));
        }
        match self.newest(session, None).await? {
            Some(newest) if newest > active => Ok((active, newest)),
            _ => match self.newest(session, Some(active)).await? {
                Some(before) => Ok((before, active)),
                None => bail!("{} has only version {active}", self.group),
            },
        }
    }

    /// Returns the newest version, or the newest before a given one.
    async fn newest(&self, session: &Session, before: Option<i64>) -> anyhow::Result<Option<i64>> {
        let mut query = vec![("limit", "1".to_owned())];
        query.extend(before.map(|number| ("cursor", number.to_string())));
        let page: Value = session.client.get(&["groups", &self.group, "policy", "versions"], &query).await?;
        Ok(page["items"][0]["version"].as_i64())
    }

    async fn version(&self, session: &Session, number: i64) -> anyhow::Result<Value> {
        let number = number.to_string();
        Ok(session.client.get(&["groups", &self.group, "policy", "versions", &number], &[]).await?)
    }
}

fn title(version: &Value) -> String {
    let active = if version["active"] == true { " (in force)" } else { "" };
    format!("version {}{active}", version["version"])
}

/// Formats a change for people: an absent value is shown as `-`.
fn readable(change: &Value) -> Value {
    let text = |value: Option<&Value>| match value {
        None => "-".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(value) => value.to_string(),
    };
    let (from, to) = (text(change.get("from")), text(change.get("to")));
    json!({ "role": change["role"], "pointer": change["pointer"], "from": from, "to": to })
}

/// Returns the differences, role by role, in the order of an attempt: `{"role", "pointer", "from", "to"}`, without `from` or `to` where there
/// is no value.
fn changes(from: &Value, to: &Value) -> Vec<Value> {
    let mut changes = Vec::new();
    for role in Role::ALL.map(Role::as_str) {
        let mut found = Vec::new();
        let (one, other) = (bound(from, role), bound(to, role));
        compare(&pointer_to(role), one.as_ref(), other.as_ref(), &mut found);
        let mut written = Vec::new();
        compare(&pointer_to(role), from["policy"].get(role), to["policy"].get(role), &mut written);
        // The plugin to which a role was resolved says more than the written value.
        written.retain(|change| !found.iter().any(|known| known["pointer"] == change["pointer"]));
        found.append(&mut written);
        for change in &mut found {
            change["role"] = role.into();
        }
        changes.append(&mut found);
    }
    changes
}

/// Returns the plugins to which a role was resolved, in the form of a policy.
fn bound(version: &Value, role: &str) -> Option<Value> {
    let plugins = version["plugins"].as_array().into_iter().flatten().filter(|bound| bound["role"] == role);
    let uses = plugins.map(|bound| json!({ "plugin": bound["plugin"], "digest": bound["digest"] }));
    let uses: Vec<Value> = uses.collect();
    if role == Role::Encode.as_str() { Some(uses.into()) } else { uses.into_iter().next() }
}

/// Compares objects and lists of objects recursively. Other lists, such as those of keys, are one value.
fn compare(pointer: &str, from: Option<&Value>, to: Option<&Value>, changes: &mut Vec<Value>) {
    let empty = Map::new();
    match (from, to) {
        (from, to) if from == to => {}
        (Some(Value::Object(from)), Some(Value::Object(to))) => fields(pointer, from, to, changes),
        (Some(Value::Object(from)), None) => fields(pointer, from, &empty, changes),
        (None, Some(Value::Object(to))) => fields(pointer, &empty, to, changes),
        (Some(Value::Array(from)), Some(Value::Array(to))) if from.iter().chain(to).all(Value::is_object) => {
            for at in 0..from.len().max(to.len()) {
                compare(&format!("{pointer}/{at}"), from.get(at), to.get(at), changes);
            }
        }
        (from, to) => {
            let mut change = json!({ "pointer": pointer });
            for (key, value) in [("from", from), ("to", to)] {
                if let Some(value) = value {
                    change[key] = value.clone();
                }
            }
            changes.push(change);
        }
    }
}

fn fields(pointer: &str, from: &Map<String, Value>, to: &Map<String, Value>, changes: &mut Vec<Value>) {
    let mut names: Vec<&String> = from.keys().chain(to.keys()).collect();
    names.sort_unstable();
    names.dedup();
    for name in names {
        compare(&format!("{pointer}{}", pointer_to(name)), from.get(name), to.get(name), changes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(policy: Value, plugins: &[(&str, &str, &str)]) -> Value {
        let bound =
            |(role, plugin, digest): &(&str, &str, &str)| json!({"role": role, "plugin": plugin, "digest": digest});
        json!({"policy": policy, "plugins": plugins.iter().map(bound).collect::<Vec<_>>()})
    }

    #[test]
    fn changes_are_told_by_role_and_pointer() {
        let from = version(
            json!({"judge": {"plugin": "a@1.0.0", "config": {"expect": [200], "a/b": 1, "same": {"x": 1}}}}),
            &[("encode", "e@1.0.0", "ee"), ("judge", "a@1.0.0", "aa")],
        );
        let to = version(
            json!({"judge": {"plugin": "a@2.0.0", "config": {"expect": [202, 204], "same": {"x": 1}}},
                "sign": {"plugin": "s", "keys": ["k"], "config": {"on": null}}}),
            &[
                ("encode", "e@1.0.0", "ff"),
                ("encode", "f@1.0.0", "00"),
                ("judge", "a@2.0.0", "bb"),
                ("sign", "s@1.0.0", "cc"),
            ],
        );
        let expected = json!([
            {"role": "encode", "pointer": "/encode/0/digest", "from": "ee", "to": "ff"},
            {"role": "encode", "pointer": "/encode/1/digest", "to": "00"},
            {"role": "encode", "pointer": "/encode/1/plugin", "to": "f@1.0.0"},
            {"role": "sign", "pointer": "/sign/digest", "to": "cc"},
            {"role": "sign", "pointer": "/sign/plugin", "to": "s@1.0.0"},
            {"role": "sign", "pointer": "/sign/config/on", "to": null},
            {"role": "sign", "pointer": "/sign/keys", "to": ["k"]},
            {"role": "judge", "pointer": "/judge/digest", "from": "aa", "to": "bb"},
            {"role": "judge", "pointer": "/judge/plugin", "from": "a@1.0.0", "to": "a@2.0.0"},
            {"role": "judge", "pointer": "/judge/config/a~1b", "from": 1},
            {"role": "judge", "pointer": "/judge/config/expect", "from": [200], "to": [202, 204]},
        ]);
        assert_eq!(Value::from(changes(&from, &to)), expected);
        assert!(changes(&from, &from).is_empty());
    }

    #[test]
    fn what_is_not_there_is_told_from_null() {
        let (from, to) = (version(json!({}), &[]), version(json!({"sign": null}), &[]));
        assert_eq!(changes(&from, &to), [json!({"role": "sign", "pointer": "/sign", "to": null})]);
        let row = readable(&changes(&from, &to)[0]);
        assert_eq!((&row["from"], &row["to"]), (&json!("-"), &json!("null")));
    }
}
