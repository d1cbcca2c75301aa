//! Bindings: the layers of a group's policy as users write them, merged ([`layers`]) and parsed into the form that is in force. Pure.

mod auth;
mod changes;
mod client_key;
mod document;
mod egress_quota;
mod layers;
mod limits;

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub use self::auth::AuthHeader;
pub use self::changes::Changes;
pub use self::client_key::ClientKey;
pub use self::document::Document;
pub use self::egress_quota::{EgressInput, EgressQuota};
pub use self::layers::{compose, is_as_written, lay, override_configs, provenance};
pub use self::limits::{GroupLimits, LimitsInput, Quota, QuotaInput, Rate, Redirects, parse_period};
use super::component::{Digest, Role};
pub use carillon_core::json::pointer_to;
use carillon_core::json::{Unreadable, read_value};

/// Members of a group's document.
const FIELDS: [&str; 11] = [
    "encode",
    "sign",
    "auth_headers",
    "tls",
    "judge",
    "retry",
    "observe",
    "limits",
    "dead_letters",
    "pin",
    "rollback_on_quarantine",
];

/// Maximum number of encoders in a chain.
const ENCODERS: usize = 8;

/// Error about one part of a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invalid {
    /// The offending part, as a JSON pointer (RFC 6901).
    pub pointer: String,
    /// Description of the error, in one sentence.
    pub message: String,
}

impl Invalid {
    /// Makes an error with `message` about the value at `pointer`.
    pub fn at(pointer: impl Into<String>, message: impl Into<String>) -> Self {
        Self { pointer: pointer.into(), message: message.into() }
    }

    /// Returns the role of the policy that the error is about; without one, the first role of an attempt.
    #[must_use]
    pub fn role(&self) -> Role {
        let name = self.pointer.split('/').nth(1).unwrap_or_default();
        Role::ALL.into_iter().find(|role| role.as_str() == name).unwrap_or(Role::Encode)
    }

    /// Returns the same error for a document in which the value at `pointer` lies below `prefix`.
    #[must_use]
    pub fn within(mut self, prefix: &str) -> Self {
        self.pointer.insert_str(0, prefix);
        self
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.pointer.is_empty() {
            return f.write_str(&self.message);
        }
        write!(f, "{}: {}", self.pointer, self.message)
    }
}

impl std::error::Error for Invalid {}

impl From<Unreadable> for Invalid {
    fn from(Unreadable { pointer, message }: Unreadable) -> Self {
        Self { pointer, message }
    }
}

/// Name of a plugin: `name` or `name@version`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PluginName {
    /// The name without the version.
    pub name: String,
    /// Version of the plugin. Absent for the server's own plugins, and where the newest version is meant.
    pub version: Option<String>,
}

impl From<&str> for PluginName {
    fn from(text: &str) -> Self {
        match text.split_once('@') {
            Some((name, version)) => Self { name: name.to_owned(), version: Some(version.to_owned()) },
            None => Self { name: text.to_owned(), version: None },
        }
    }
}

impl fmt::Display for PluginName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.version {
            Some(version) => write!(f, "{}@{version}", self.name),
            None => f.write_str(&self.name),
        }
    }
}

/// Policy and limits of a group as they are in force.
#[derive(Clone, Debug)]
pub struct Effective {
    /// The merged document.
    pub doc: Document,
    /// Encoders, in the order of their calls.
    pub encode: Vec<Use>,
    /// Signer; absent if requests go out unsigned.
    pub sign: Option<Use>,
    /// Headers with keys as values, which the server puts on every request at the end.
    pub auth_headers: Vec<AuthHeader>,
    /// Client certificate that receivers are shown.
    pub client_key: Option<ClientKey>,
    /// Judge; every group has one.
    pub judge: Use,
    /// Retry policy; every group has one.
    pub retry: Use,
    /// Observer, if the group has one.
    pub observe: Option<Use>,
    /// Limits on concurrency, rate and time.
    pub limits: GroupLimits,
    /// Group of the same tenant to which copies of dead letters go, for consumers to pull.
    pub dead_letters: Option<String>,
    /// Version of the policy that a job follows.
    pub pin: Pin,
    /// Whether the previous version is put in force again when a policy of the present one is quarantined.
    pub rollback_on_quarantine: bool,
}

/// Version of its group's policy that a job follows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Pin {
    /// The version in force.
    #[default]
    Group,
    /// The version that was in force when the job was accepted.
    Job,
}

/// Use of a plugin in a role, with its config.
#[derive(Clone, Debug)]
pub struct Use {
    /// Role that the plugin plays.
    pub role: Role,
    /// Its place in the document, as a JSON pointer.
    pub pointer: String,
    /// Name of the plugin.
    pub plugin: PluginName,
    /// Digest of the plugin's component.
    pub digest: Digest,
    /// Config: a JSON object.
    pub config: Arc<str>,
    /// Digest of `config`.
    pub config_digest: Digest,
    /// Names of the keys that the plugin may use; signers only.
    pub keys: Vec<String>,
    /// Group of the same tenant for the jobs that the plugin requests; observers only.
    pub jobs: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct UseInput {
    plugin: String,
    #[serde(default)]
    config: Map<String, Value>,
    #[serde(default)]
    keys: Vec<String>,
    #[serde(default)]
    jobs: Option<String>,
}

impl Effective {
    /// Returns the names of the keys that one layer of a policy names itself.
    #[must_use]
    pub fn keys_named_in(layer: &Value) -> Vec<String> {
        let signing = layer.pointer("/sign/keys").and_then(Value::as_array).into_iter().flatten();
        let sent = layer.get("auth_headers").and_then(Value::as_object).into_iter().flat_map(Map::values);
        let shown = layer.pointer("/tls/client_key");
        signing.chain(sent).chain(shown).filter_map(Value::as_str).map(str::to_owned).collect()
    }

    /// Parses a merged document; `digest_of` returns the digest of a plugin, if it exists.
    ///
    /// # Errors
    /// Returns [`Invalid`] with a pointer into the document.
    pub fn parse(doc: Value, digest_of: &dyn Fn(&PluginName) -> Option<Digest>) -> Result<Self, Invalid> {
        for field in doc.as_object().map(Map::keys).into_iter().flatten() {
            if !FIELDS.contains(&field.as_str()) {
                let known = FIELDS.join(", ");
                return Err(Invalid::at(format!("/{field}"), format!("unknown field; a group has {known}")));
            }
        }
        let one = |role: Role| match doc.get(role.as_str()) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => Use::parse(role, format!("/{role}"), value, digest_of).map(Some),
        };
        let required = |role: Role| {
            one(role)?.ok_or_else(|| {
                Invalid::at(format!("/{role}"), format!("`{role}` is required: a group must have a policy for it"))
            })
        };
        let (sign, judge, retry) = (one(Role::Sign)?, required(Role::Judge)?, required(Role::Retry)?);
        let observe = one(Role::Observe)?;
        let encode = parse_chain(doc.get("encode"), digest_of)?;
        let auth_headers = auth::parse(doc.get("auth_headers"))?;
        let client_key = client_key::parse(doc.get("tls"))?;
        let limits = GroupLimits::parse(doc.get("limits").unwrap_or(&Value::Null))?;
        let dead_letters = match doc.get("dead_letters") {
            None | Some(Value::Null) => None,
            Some(Value::String(group)) => Some(group.clone()),
            Some(_) => return Err(Invalid::at("/dead_letters", "`dead_letters` must be the name of a group")),
        };
        let pin = match doc.get("pin") {
            None | Some(Value::Null) => Pin::default(),
            Some(pin) => Pin::deserialize(pin).map_err(|_| Invalid::at("/pin", "`pin` must be `group` or `job`"))?,
        };
        let rollback_on_quarantine = match doc.get("rollback_on_quarantine") {
            None | Some(Value::Null) => true,
            Some(Value::Bool(it)) => *it,
            Some(_) => {
                return Err(Invalid::at("/rollback_on_quarantine", "`rollback_on_quarantine` must be true or false"));
            }
        };
        let policies = Self {
            encode,
            sign,
            auth_headers,
            client_key,
            judge,
            retry,
            observe,
            limits,
            dead_letters,
            pin,
            rollback_on_quarantine,
            doc: Document::from(&doc),
        };
        Ok(policies)
    }

    /// Returns every use, in the order of an attempt.
    pub fn uses(&self) -> impl Iterator<Item = &Use> {
        self.encode.iter().chain(&self.sign).chain([&self.judge, &self.retry]).chain(&self.observe)
    }

    /// Returns the names of the keys with which the group signs, or which it shows to receivers.
    pub fn keys(&self) -> impl Iterator<Item = &String> {
        let signs = self.sign.iter().flat_map(|used| &used.keys);
        signs
            .chain(self.auth_headers.iter().map(|header| &header.key))
            .chain(self.client_key.iter().map(|tls| &tls.key))
    }

    /// Returns whether the group signs with this key, or shows it to receivers.
    #[must_use]
    pub fn uses_key(&self, name: &str) -> bool {
        self.keys().any(|key| key == name)
    }
}

fn parse_chain(value: Option<&Value>, digest_of: &dyn Fn(&PluginName) -> Option<Digest>) -> Result<Vec<Use>, Invalid> {
    let chain = match value {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Array(chain)) if chain.len() <= ENCODERS => chain,
        Some(_) => {
            return Err(Invalid::at("/encode", format!("`encode` must be a list of at most {ENCODERS} plugins")));
        }
    };
    let parse = |(index, value)| Use::parse(Role::Encode, format!("/encode/{index}"), value, digest_of);
    chain.iter().enumerate().map(parse).collect()
}

impl Use {
    fn parse(
        role: Role,
        pointer: String,
        value: &Value,
        digest_of: &dyn Fn(&PluginName) -> Option<Digest>,
    ) -> Result<Self, Invalid> {
        let doc: UseInput = read_value(value).map_err(|error| Invalid::from(error).within(&pointer))?;
        if role != Role::Sign && !doc.keys.is_empty() {
            return Err(Invalid::at(format!("{pointer}/keys"), "`keys` is allowed only in `sign`"));
        }
        if role != Role::Observe && doc.jobs.is_some() {
            return Err(Invalid::at(format!("{pointer}/jobs"), "`jobs` is allowed only in `observe`"));
        }
        let plugin = PluginName::from(doc.plugin.as_str());
        let digest = digest_of(&plugin)
            .ok_or_else(|| Invalid::at(format!("{pointer}/plugin"), format!("there is no plugin `{plugin}`")))?;
        let config: Arc<str> = Value::Object(doc.config).to_string().into();
        let config_digest = Digest::from_bytes(config.as_bytes());
        Ok(Self { role, pointer, plugin, digest, config, config_digest, keys: doc.keys, jobs: doc.jobs })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn server() -> Value {
        json!({
            "judge": {"plugin": "expected-status", "config": {"expect": ["2xx"]}},
            "retry": {"plugin": "backoff", "config": {"base": "2s", "max": "15m"}},
            "limits": {"concurrency": 32, "timeout": "30s"},
        })
    }

    fn known(name: &PluginName) -> Option<Digest> {
        (name.name != "unknown").then(|| Digest::from_bytes(name.to_string().as_bytes()))
    }

    fn merged(layers: &[Value]) -> Value {
        let mut doc = server();
        layers.iter().for_each(|layer| lay(&mut doc, layer));
        doc
    }

    #[test]
    fn a_layer_changes_a_part_of_an_inherited_config() {
        let doc = merged(&[json!({"retry": {"config": {"max": "1m"}}}), json!({"limits": {"ttl": "1h"}})]);
        assert_eq!(doc["retry"], json!({"plugin": "backoff", "config": {"base": "2s", "max": "1m"}}));
        assert_eq!(doc["limits"], json!({"concurrency": 32, "timeout": "30s", "ttl": "1h"}));
    }

    #[test]
    fn naming_another_plugin_starts_from_its_defaults() {
        let doc = merged(&[json!({"retry": {"plugin": "mine@1.0.0", "config": {"a": 1}}})]);
        assert_eq!(doc["retry"], json!({"plugin": "mine@1.0.0", "config": {"a": 1}}));
        let doc = merged(&[json!({"retry": {"plugin": "backoff", "config": {"max": "1m"}}})]);
        assert_eq!(doc["retry"]["config"]["base"], "2s", "the same plugin inherits");
    }

    #[test]
    fn what_a_part_does_not_name_stays() {
        let own = json!({
            "sign": {"plugin": "s", "keys": ["k"]}, "retry": {"config": {"max": "1m", "base": "1s"}},
            "encode": [{"plugin": "e"}], "limits": {"ttl": "1h", "concurrency": 3},
        });
        let with = |part: Value| {
            let mut composed = own.clone();
            compose(&mut composed, &merged(std::slice::from_ref(&own)), &part);
            composed
        };
        let judged = with(json!({"judge": {"plugin": "j"}}));
        assert_eq!(
            (&judged["sign"], &judged["encode"], &judged["judge"]),
            (&own["sign"], &own["encode"], &json!({"plugin": "j"}))
        );
        let config = |part: Value| with(part)["retry"]["config"].clone();
        assert_eq!(config(json!({"retry": {"config": {"max": "2m"}}})), json!({"max": "2m", "base": "1s"}));
        assert_eq!(
            config(json!({"retry": {"plugin": "backoff", "config": {"max": "2m"}}})),
            json!({"max": "2m", "base": "1s"})
        );
        assert_eq!(with(json!({"retry": {"plugin": "other"}}))["retry"], json!({"plugin": "other"}), "another plugin");
        assert_eq!(with(json!({"sign": null}))["sign"], Value::Null, "what is inherited goes, too");
        assert_eq!(with(json!({"encode": []}))["encode"], json!([]));
        assert_eq!(with(json!({"limits": {"ttl": null}}))["limits"], json!({"ttl": null, "concurrency": 3}));
        assert_eq!(with(json!({})), own);
    }

    #[test]
    fn a_part_over_a_policy_is_a_layer_over_it() {
        let own = json!({"retry": {"config": {"max": "1m"}}, "limits": {"ttl": "1h"}, "judge": {"plugin": "other", "config": {"a": 1}}});
        for part in [
            json!({"retry": {"config": {"max": null, "base": "3s"}}}),
            json!({"limits": {"ttl": null, "concurrency": 1}}),
            json!({"judge": {"config": {"b": 2}}, "encode": [{"plugin": "e"}]}),
            json!({"sign": {"plugin": "s"}}),
        ] {
            let mut composed = own.clone();
            compose(&mut composed, &merged(std::slice::from_ref(&own)), &part);
            let (one, two) = (merged(&[composed]), merged(&[own.clone(), part.clone()]));
            assert_eq!(one, two, "{part}");
        }
    }

    #[test]
    fn a_pinned_plugin_is_as_it_was_written() {
        let known = json!({"encode": [{"plugin": "a@1.0.0"}], "judge": {"plugin": "b@2.0.0"}, "sign": null});
        let written = |encode: &str, judge: &str| json!({"encode": [{"plugin": encode}], "judge": {"plugin": judge}, "sign": null});
        assert!(is_as_written(&known, &written("a", "b")) && is_as_written(&known, &written("a@1.0.0", "b")));
        assert!(!is_as_written(&known, &written("a@1.0.1", "b")) && !is_as_written(&known, &written("a", "c")));
        assert!(!is_as_written(&known, &json!({})));
    }

    #[test]
    fn null_takes_an_inherited_role_away() {
        let doc = merged(&[json!({"sign": {"plugin": "s", "keys": ["k"]}}), json!({"sign": null})]);
        assert!(Effective::parse(doc, &known).unwrap().sign.is_none());
    }

    #[test]
    fn auth_headers_are_laid_over_each_other_one_by_one() {
        let doc = merged(&[
            json!({"auth_headers": {"X-A": "a", "X-B": "b"}}),
            json!({"auth_headers": {"X-A": null, "X-C": "c"}}),
        ]);
        let effective = Effective::parse(doc, &known).unwrap();
        assert!(effective.uses_key("b") && effective.uses_key("c") && !effective.uses_key("a"));
        let doc = merged(&[json!({"auth_headers": {"X-A": "a"}}), json!({"auth_headers": null})]);
        assert_eq!(Effective::parse(doc, &known).unwrap().auth_headers, []);
    }

    #[test]
    fn provenance_names_the_topmost_layer() {
        let (server, group) = (server(), json!({"retry": {"config": {"max": "1m"}}}));
        let doc = merged(std::slice::from_ref(&group));
        let from = provenance(&doc, &[("server", &server), ("group", &group)]);
        assert_eq!(from["/retry/config/max"], "group");
        assert_eq!(from["/retry/config/base"], "server");
    }

    #[test]
    fn a_job_overrides_configs_by_role() {
        let mut doc = merged(&[json!({"encode": [{"plugin": "base64-envelope"}]})]);
        let overrides = json!({"retry": {"base": "1s"}, "encode": {"base64-envelope": {"payload": "p"}}});
        override_configs(&mut doc, &overrides).unwrap();
        assert_eq!(doc["retry"]["config"], json!({"base": "1s", "max": "15m"}));
        assert_eq!(doc["encode"][0]["config"], json!({"payload": "p"}));
    }

    #[test]
    fn what_cannot_be_used_is_pointed_at() {
        let pointer = |layer: Value| Effective::parse(merged(&[layer]), &known).unwrap_err().pointer;
        assert_eq!(pointer(json!({"sing": {}})), "/sing");
        assert_eq!(pointer(json!({"retry": {"plugin": "unknown"}})), "/retry/plugin");
        assert_eq!(pointer(json!({"encode": [{"plugin": "unknown"}]})), "/encode/0/plugin");
        assert_eq!(pointer(json!({"judge": {"keys": ["k"]}})), "/judge/keys");
        assert_eq!(pointer(json!({"judge": {"jobs": "g"}})), "/judge/jobs");
        assert_eq!(pointer(json!({"limits": {"timeout": "soon"}})), "/limits/timeout");
        assert_eq!(pointer(json!({"limits": {"rate": "fast"}})), "/limits/rate");
        assert_eq!(pointer(json!({"limits": {"rate": "0/s"}})), "/limits/rate");
        assert_eq!(pointer(json!({"judge": null})), "/judge");
        let refused = |overrides: Value| override_configs(&mut server(), &overrides).unwrap_err().pointer;
        assert_eq!(refused(json!({"sign": {}})), "/sign");
        assert_eq!(refused(json!({"wake": {}})), "/wake");
        assert_eq!(refused(json!({"observe": {}})), "/observe");
        assert_eq!(refused(json!({"auth_headers": {}})), "/auth_headers");
        assert_eq!(refused(json!({"retry": 3})), "/retry");
        assert_eq!(refused(json!({"encode": {"x": {}}})), "/encode/x");
    }
}
