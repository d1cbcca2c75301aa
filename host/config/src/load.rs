//! Combines the sources of a configuration.
//!
//! Every source becomes a layer: a tree of values that knows its source. Its keys are compared with those of the compiled-in defaults, which
//! hold every key there is, so that a misspelt key is reported with its source and never ignored.

use std::path::{Path, PathBuf};

use figment::providers::{Format, Toml};
use figment::value::{Dict, Map, Value};
use figment::{Figment, Metadata, Profile, Provider};

use super::problem::{ConfigError, ConfigProblem};
use super::{Config, DEFAULTS, TenantKey, check};

/// File that is read if no other is named and it exists.
const USUAL_FILE: &str = "carillon.toml";

/// Source of values that no other source sets.
const BUILT_IN: &str = "the built-in defaults";

/// Prefix of the environment variables.
const PREFIX: &str = "CARILLON_";

/// Sections whose keys are names that users choose.
const FREE_SECTIONS: [&str; 3] = ["defaults", "groups", "tenants"];

/// Section that has both fixed keys and sections that users name.
const KEYS_SECTION: &str = "keys";

/// Environment variable of the original poussetaches, and the key that it sets here.
const POUSSETACHES_AUTH_KEY: (&str, &str) = ("POUSSETACHES_AUTH_KEY", "compat.poussetaches.auth_key");

/// Roles of `defaults`: a source that names the plugin of a role replaces the role's settings of earlier sources.
const ROLES: [&str; 4] = ["sign", "judge", "retry", "observe"];

/// The two ways in which a source names the database.
const STORE_URL: &str = "store.url";
const STORE_FILE: &str = "store.url_file";

/// Beginning of the origin of environment variables.
const VARIABLE: &str = "environment variable ";

/// Sources of a configuration besides the defaults; later fields override earlier ones.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// A TOML file that must exist.
    pub file: Option<PathBuf>,
    /// Environment variables, of which those named `CARILLON_SECTION__KEY` are used.
    pub environment: Vec<(String, String)>,
    /// Flags of the command line.
    pub flags: Vec<Flag>,
}

impl Sources {
    /// Returns the sources of this process: its environment, and the file: the named one, else `carillon.toml` if the working directory has
    /// one.
    ///
    /// # Errors
    /// Returns an error if an environment variable of the configuration is not valid text.
    pub fn of_process(file: Option<PathBuf>, flags: Vec<Flag>) -> Result<Self, ConfigError> {
        let mut environment = Vec::new();
        for (name, value) in std::env::vars_os() {
            match (name.into_string(), value.into_string()) {
                (Ok(name), Ok(value)) => environment.push((name, value)),
                (Ok(name), Err(_)) if name.starts_with(PREFIX) => {
                    let (origin, message) = (Some(format!("{VARIABLE}{name}")), "the value is not UTF-8");
                    return Err(one(ConfigProblem { origin, key: String::new(), message: message.to_owned() }));
                }
                // A variable of other programs.
                _ => {}
            }
        }
        let file = file.or_else(|| Some(PathBuf::from(USUAL_FILE)).filter(|path| is_there(path)));
        Ok(Self { file, environment, flags })
    }
}

/// Returns whether a file of this name exists.
///
/// A link that leads nowhere or a file that cannot be read counts as existing: it is an error, not an absent file.
fn is_there(path: &Path) -> bool {
    match path.symlink_metadata() {
        Ok(_) => true,
        Err(error) => error.kind() != std::io::ErrorKind::NotFound,
    }
}

/// A key that a flag sets.
#[derive(Clone, Debug)]
pub struct Flag {
    /// Name of the flag as it is written: `--listen`.
    pub name: &'static str,
    /// Key that the flag sets: `server.listen`.
    pub key: &'static str,
    /// Value of the flag.
    pub value: Value,
}

impl Config {
    /// Combines the sources over the defaults and checks the result.
    ///
    /// # Errors
    ///
    /// Returns every problem that can be found at once: unknown keys first, then the first value that cannot be read, then values that are
    /// out of range or contradict each other.
    pub fn load(sources: Sources) -> Result<Self, ConfigError> {
        let defaults = Layer::parse(BUILT_IN, DEFAULTS).map_err(one)?;
        let environment = sources.environment.clone();
        let layers = layers(sources).map_err(one)?;

        let unknown: Vec<ConfigProblem> = layers.iter().flat_map(|layer| layer.unknown_keys(&defaults)).collect();
        if !unknown.is_empty() {
            return Err(ConfigError { problems: unknown });
        }

        if let Some(problem) = layers.iter().find_map(|layer| layer.second_store(&layers)) {
            return Err(one(problem));
        }
        let figment = merge(defaults, layers);
        let mut config: Self = figment.extract().map_err(|error| one(unreadable(&error)))?;
        let problem =
            |key: String, message| ConfigProblem { origin: origin(figment.find_metadata(&key)), key, message };
        if let Err(message) = config.store.resolve() {
            return Err(one(problem(STORE_FILE.to_owned(), message)));
        }
        let mut problems: Vec<ConfigProblem> =
            check::check(&config).into_iter().map(|(key, message)| problem(key.to_owned(), message)).collect();
        for (section, key) in config.tenant_keys() {
            if let Err((field, message)) = key.resolve(&environment) {
                let origin = origin(figment.find_metadata(&section));
                problems.push(ConfigProblem { origin, key: format!("{section}.{field}"), message });
            }
        }
        config.origins = config
            .sections()
            .into_iter()
            .filter_map(|section| {
                let origin = origin(figment.find_metadata(&section))?;
                Some((section, origin))
            })
            .collect();
        if problems.is_empty() { Ok(config) } else { Err(ConfigError { problems }) }
    }
}

impl Config {
    /// Returns the keys of tenants, each with its section.
    fn tenant_keys(&mut self) -> impl Iterator<Item = (String, &mut TenantKey)> {
        let own = self.keys.tenant_keys.iter_mut().map(|(name, key)| (format!("keys.{name}"), key));
        own.chain(self.tenants.iter_mut().flat_map(|(tenant, config)| {
            config.keys.iter_mut().map(move |(name, key)| (format!("tenants.{tenant}.keys.{name}"), key))
        }))
    }

    /// Returns the sections that users have named, and those that are checked when they are put in force.
    fn sections(&self) -> Vec<String> {
        let mut sections: Vec<String> =
            ["defaults", "compat.doppler", "compat.poussetaches", "compat.callme"].map(str::to_owned).into();
        sections.extend(self.keys.tenant_keys.keys().map(|name| format!("keys.{name}")));
        sections.extend(self.groups.keys().map(|name| format!("groups.{name}")));
        for (tenant, config) in &self.tenants {
            sections.push(format!("tenants.{tenant}"));
            sections.extend(config.groups.keys().map(|name| format!("tenants.{tenant}.groups.{name}")));
            sections.extend(config.keys.keys().map(|name| format!("tenants.{tenant}.keys.{name}")));
        }
        sections
    }
}

fn one(problem: ConfigProblem) -> ConfigError {
    ConfigError { problems: vec![problem] }
}

/// Values of one source.
#[derive(Clone, Debug)]
struct Layer {
    origin: String,
    values: Dict,
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.origin.clone())
    }

    fn data(&self) -> figment::Result<Map<Profile, Dict>> {
        Ok(Profile::Default.collect(self.values.clone()))
    }
}

impl Layer {
    fn parse(origin: &str, text: &str) -> Result<Self, ConfigProblem> {
        let values = Toml::from_str(text).map_err(|error: <Toml as Format>::Error| ConfigProblem {
            origin: Some(origin.to_owned()),
            key: String::new(),
            message: error.to_string().trim_end().to_owned(),
        })?;
        Ok(Self { origin: origin.to_owned(), values })
    }

    /// Makes a layer with the one value `value` at the dotted `key`.
    fn single(origin: String, key: &str, value: Value) -> Self {
        let (section, rest) = key.split_once('.').unwrap_or((key, ""));
        let value = if rest.is_empty() { value } else { figment::util::nest(rest, value) };
        Self { origin, values: Dict::from([(section.to_owned(), value)]) }
    }

    fn unknown_keys(&self, known: &Self) -> Vec<ConfigProblem> {
        let mut problems = Vec::new();
        let mut unknown = |key: String, message: String| {
            problems.push(ConfigProblem { origin: Some(self.origin.clone()), key, message });
        };
        for (section, value) in &self.values {
            if FREE_SECTIONS.contains(&section.as_str()) && value.as_dict().is_some() {
                continue;
            }
            match known.values.get(section) {
                None => unknown(section.clone(), format!("unknown section; {}", listed(&known.values))),
                Some(known) => unknown_within(section, value, known, &mut unknown),
            }
        }
        problems
    }

    /// Returns the roles whose plugin this layer names.
    fn replaced_roles(&self) -> Vec<&'static str> {
        let names_plugin = |role: &&str| {
            let role = self.values.get("defaults").and_then(Value::as_dict).and_then(|defaults| defaults.get(*role));
            role.and_then(Value::as_dict).is_some_and(|role| role.contains_key("plugin"))
        };
        ROLES.into_iter().filter(names_plugin).collect()
    }

    /// Returns whether the layer sets a key to a text that is not empty.
    fn sets(&self, key: &str) -> bool {
        let value = Value::from(self.values.clone()).find(key);
        value.is_some_and(|value| value.as_str().is_some_and(|text| !text.is_empty()))
    }

    /// Returns whether the layers are from one source: variables of the environment are.
    fn is_of_one_source_with(&self, other: &Self) -> bool {
        self.origin == other.origin || [&self.origin, &other.origin].iter().all(|origin| origin.starts_with(VARIABLE))
    }

    /// Returns the problem of a layer that names the file of a database whose URL the same source names.
    fn second_store(&self, layers: &[Self]) -> Option<ConfigProblem> {
        let names_url = |other: &Self| other.sets(STORE_URL) && self.is_of_one_source_with(other);
        (self.sets(STORE_FILE) && layers.iter().any(names_url)).then(|| ConfigProblem {
            origin: Some(self.origin.clone()),
            key: STORE_FILE.to_owned(),
            message: format!("{STORE_URL} is set already: set only one of the two"),
        })
    }

    fn forget_store_file(&mut self) {
        if let Some(Value::Dict(_, store)) = self.values.get_mut("store") {
            store.remove("url_file");
        }
    }

    fn forget_role(&mut self, role: &str) {
        if let Some(Value::Dict(_, defaults)) = self.values.get_mut("defaults") {
            defaults.remove(role);
        }
    }
}

/// Reports the keys of a section that the known one lacks; a section may contain sections.
fn unknown_within(section: &str, value: &Value, known: &Value, unknown: &mut impl FnMut(String, String)) {
    let Some(known) = known.as_dict() else { return };
    let Some(keys) = value.as_dict() else {
        return unknown(section.to_owned(), "it is a section: set the keys in it".to_owned());
    };
    for (key, value) in keys {
        let path = format!("{section}.{key}");
        match known.get(key) {
            None if section == KEYS_SECTION && value.as_dict().is_some() => {}
            None => unknown(path, format!("unknown key; {}", listed(known))),
            Some(known) => unknown_within(&path, value, known, unknown),
        }
    }
}

fn listed(keys: &Dict) -> String {
    let keys: Vec<&str> = keys.keys().map(String::as_str).collect();
    format!("the known ones are {}", keys.join(", "))
}

/// Returns the layers of the sources, weakest first.
fn layers(sources: Sources) -> Result<Vec<Layer>, ConfigProblem> {
    let (variable_name, key) = POUSSETACHES_AUTH_KEY;
    let original = sources.environment.iter().find(|(name, _)| name == variable_name);
    let mut layers: Vec<_> = original
        .map(|(_, text)| Layer::single(format!("{VARIABLE}{variable_name}"), key, text.as_str().into()))
        .into_iter()
        .collect();
    if let Some(path) = sources.file {
        let origin = path.display().to_string();
        let text = std::fs::read_to_string(&path).map_err(|error| ConfigProblem {
            origin: Some(origin.clone()),
            key: String::new(),
            message: format!("the file cannot be read: {error}"),
        })?;
        layers.push(Layer::parse(&origin, &text)?);
    }
    let mut environment = sources.environment;
    environment.sort();
    for (name, text) in environment {
        layers.extend(variable(&name, &text)?);
    }
    layers.extend(sources.flags.into_iter().map(|flag| Layer::single(flag.name.to_owned(), flag.key, flag.value)));
    Ok(layers)
}

/// Returns the layer of one environment variable, if it belongs to the configuration.
///
/// Variables without a double underscore are not read: the command line has some of its own, and an orchestrator sets some for a service
/// named `carillon`. A variable that would be a key with a double underscore is most likely a mistake, and refused.
fn variable(name: &str, text: &str) -> Result<Option<Layer>, ConfigProblem> {
    let Some(path) = name.strip_prefix(PREFIX) else { return Ok(None) };
    let defaults = Layer::parse(BUILT_IN, DEFAULTS)?;
    let origin = format!("{VARIABLE}{name}");
    let Some((section, rest)) = path.split_once("__") else {
        return match meant_section(path, &defaults.values) {
            Some(meant) => Err(ConfigProblem {
                origin: Some(origin),
                key: String::new(),
                message: format!("the variable must be called {meant}"),
            }),
            None => Ok(None),
        };
    };
    let key = format!("{section}.{}", rest.replace("__", ".")).to_lowercase();
    // A value that is a string by default is used as written, so that a token of digits stays a token.
    let value = match Value::from(defaults.values).find_ref(&key) {
        Some(Value::String(..)) => Value::from(text),
        _ => text.parse().unwrap_or_else(|never: std::convert::Infallible| match never {}),
    };
    Ok(Some(Layer::single(origin, &key, value)))
}

fn meant_section(path: &str, defaults: &Dict) -> Option<String> {
    let path = path.to_lowercase();
    defaults.iter().find_map(|(section, keys)| {
        let key = path.strip_prefix(section.as_str())?.strip_prefix('_')?;
        keys.as_dict()?.contains_key(key).then(|| format!("{PREFIX}{section}__{key}").to_uppercase())
    })
}

fn merge(defaults: Layer, layers: Vec<Layer>) -> Figment {
    let mut all = vec![defaults];
    for layer in layers {
        if layer.sets(STORE_URL) {
            all.iter_mut().skip(1).for_each(Layer::forget_store_file);
        }
        for role in layer.replaced_roles() {
            all.iter_mut().for_each(|weaker| weaker.forget_role(role));
        }
        all.push(layer);
    }
    all.into_iter().fold(Figment::new(), Figment::merge)
}

/// Returns the source of a value that is set.
fn origin(metadata: Option<&Metadata>) -> Option<String> {
    metadata.map(|metadata| metadata.name.clone().into_owned()).filter(|name| name != BUILT_IN)
}

fn unreadable(error: &figment::Error) -> ConfigProblem {
    ConfigProblem {
        origin: origin(error.metadata.as_ref()),
        key: error.path.join("."),
        message: error.kind.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;

    /// Loads a file with this text, together with the environment and the flags of `more`.
    fn load_file(text: &str, more: Sources) -> Result<Config, ConfigError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("carillon.toml");
        std::fs::write(&path, text).unwrap();
        Config::load(Sources { file: Some(path), ..more })
    }

    fn from_file(text: &str) -> Result<Config, ConfigError> {
        load_file(text, Sources::default())
    }

    fn from_env(variables: &[(&str, &str)]) -> Sources {
        let environment = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Sources { environment, ..Sources::default() }
    }

    fn refusal(loaded: Result<Config, ConfigError>) -> String {
        loaded.unwrap_err().to_string()
    }

    #[test]
    fn the_defaults_alone_load() {
        let config = Config::load(Sources::default()).unwrap();
        assert_eq!(config.server.listen.to_string(), "127.0.0.1:7070");
        assert_eq!(config.engine.horizon.get(), Duration::from_secs(3660 * 86_400));
        assert_eq!(config.policy.memory.get(), 16 << 20);
        assert_eq!(config.auth.admin_token, None);
        assert_eq!(config.policy.compiler, None);
        assert_eq!(config.defaults["judge"], json!({"plugin": "expected-status", "config": {"expect": ["2xx"]}}));
        assert_eq!(config.defaults["limits"], json!({"concurrency": 32, "timeout": "30s"}));
    }

    /// The defaults are the reference, so no field may be missing from them: serde lists the fields of a section when it meets an unknown
    /// one.
    #[test]
    fn every_field_is_in_the_defaults() {
        let defaults = Layer::parse("defaults", DEFAULTS).unwrap().values;
        let fields_of = |key: &str| {
            let figment = Figment::from(Layer::single("x".into(), key, Value::from(1)));
            match figment.merge(Layer::parse("defaults", DEFAULTS).unwrap()).extract::<Config>().unwrap_err().kind {
                figment::error::Kind::UnknownField(_, fields) => fields,
                other => panic!("{key}: {other}"),
            }
        };
        let sections = fields_of("zzz");
        assert_eq!(sections.len(), defaults.len());
        let named = |section: &&&str| !FREE_SECTIONS.contains(section) && **section != KEYS_SECTION;
        for section in sections.iter().filter(named) {
            let keys = defaults[*section].as_dict().unwrap();
            for field in fields_of(&format!("{section}.zzz")) {
                assert!(keys.contains_key(*field), "config.default.toml has no {section}.{field}");
            }
        }
    }

    #[test]
    fn flags_override_the_environment_which_overrides_the_file_which_overrides_the_defaults() {
        let file = "[server]\nlisten = \"127.0.0.1:1\"\nbatch_limit = 1\nbody_limit = \"1MiB\"";
        let variables = [("CARILLON_SERVER__LISTEN", "127.0.0.1:2"), ("CARILLON_SERVER__BATCH_LIMIT", "2")];
        let flags = vec![Flag { name: "--listen", key: "server.listen", value: Value::from("127.0.0.1:3") }];
        let server = load_file(file, Sources { flags, ..from_env(&variables) }).unwrap().server;
        assert_eq!(server.listen.port(), 3);
        assert_eq!(server.batch_limit, 2);
        assert_eq!(server.body_limit.get(), 1 << 20);
        assert_eq!(server.concurrent_requests, 4096);
    }

    #[test]
    fn unknown_keys_are_named_with_their_source() {
        let message = refusal(from_file("[compat.callme]\nport = 1\n[compat.sidekiq]\nx = 1\n[compat]\ndoppler = 1"));
        assert!(message.contains("compat.callme.port: unknown key; the known ones are burst, enabled"), "{message}");
        assert!(message.contains("compat.sidekiq: unknown key; the known ones are callme, doppler"), "{message}");
        assert!(message.contains("compat.doppler: it is a section"), "{message}");
        let message = refusal(from_file("[server]\nlisten_on = 1\n[serv]\nx = 1"));
        assert!(
            message.contains("carillon.toml: serv: unknown section; the known ones are audit, auth, compat, defaults"),
            "{message}"
        );
        assert!(
            message.contains("carillon.toml: server.listen_on: unknown key; the known ones are batch_limit"),
            "{message}"
        );

        let message = refusal(Config::load(from_env(&[("CARILLON_STORE__URI", "sqlite:x")])));
        assert!(message.contains("environment variable CARILLON_STORE__URI: store.uri: unknown key"), "{message}");

        let message = refusal(from_file("[tenants.acme]\ngroup = {}"));
        assert!(message.contains("carillon.toml: tenants.acme.group: unknown field"), "{message}");
    }

    #[test]
    fn the_command_lines_own_variables_and_foreign_ones_are_ignored() {
        let variables = [
            ("CARILLON_TOKEN", "t"),
            ("CARILLON_CA_FILE", "f"),
            ("CARILLON_CLIENT_CERT", "f"),
            ("CARILLON_SERVER", "http://x"),
            ("CARILLON_LOG", "debug"),
            ("SERVER__LISTEN", "x"),
        ];
        Config::load(from_env(&variables)).unwrap();
        Config::load(from_env(&[("CARILLON_SERVICE_HOST", "10.0.0.1"), ("CARILLON_PORT_7070_TCP_ADDR", "10.0.0.1")]))
            .unwrap();
    }

    #[test]
    fn the_originals_variable_is_the_weakest_source() {
        let key = |variables: &[(&str, &str)]| Config::load(from_env(variables)).unwrap().compat.poussetaches.auth_key;
        assert_eq!(key(&[]), None);
        assert_eq!(key(&[("POUSSETACHES_AUTH_KEY", "original")]).as_deref(), Some("original"));
        let both = [("POUSSETACHES_AUTH_KEY", "original"), ("CARILLON_COMPAT__POUSSETACHES__AUTH_KEY", "ours")];
        assert_eq!(key(&both).as_deref(), Some("ours"));
    }

    #[test]
    fn a_file_that_cannot_be_read_is_not_taken_for_none() {
        let dir = tempfile::tempdir().unwrap();
        let (link, file) = (dir.path().join("link.toml"), dir.path().join("file"));
        std::os::unix::fs::symlink(dir.path().join("gone"), &link).unwrap();
        std::fs::write(&file, "").unwrap();
        assert!(is_there(&link) && is_there(&file) && is_there(&file.join("x.toml")));
        assert!(!is_there(&dir.path().join("none.toml")));
    }

    #[test]
    fn a_single_underscore_is_noticed() {
        let message = refusal(Config::load(from_env(&[("CARILLON_SERVER_LISTEN", "127.0.0.1:1")])));
        assert!(
            message.contains("CARILLON_SERVER_LISTEN: the variable must be called CARILLON_SERVER__LISTEN"),
            "{message}"
        );
    }

    #[test]
    fn bad_values_are_named_with_their_source() {
        for (text, expected) in [
            (
                "[engine]\npoll = 5",
                "engine.poll: invalid type: found signed int `5`, expected a duration with its unit",
            ),
            ("[engine]\npoll = \"soon\"", "engine.poll: `soon` is not a duration with its unit"),
            ("[policy]\nmemory = \"16 megs\"", "policy.memory: `16 megs` is not a size in bytes"),
            (
                "[server]\nlisten = \"here\"",
                "server.listen: `here` is not an address and port such as `127.0.0.1:7070`",
            ),
            ("[store]\ndurability = \"some\"", "store.durability: unknown variant"),
            ("[egress]\nallow = [\"10.0.0.0/40\"]", "egress.allow: `10.0.0.0/40` is not a network"),
            ("server = 1", "server: it is a section"),
            ("[server\n", "carillon.toml: TOML parse error at line 1"),
        ] {
            let message = refusal(from_file(text));
            assert!(message.contains(expected), "{message}");
            assert!(message.contains("carillon.toml: "), "{message}");
        }
        let message = refusal(Config::load(Sources { file: Some("/no/such/file".into()), ..Sources::default() }));
        assert!(message.contains("/no/such/file: the file cannot be read"), "{message}");
    }

    #[test]
    fn the_environment_keeps_strings_and_reads_lists() {
        let digits = "3141592653589793238462643383279502884197";
        let variables = [
            ("CARILLON_AUTH__ADMIN_TOKEN", digits),
            ("CARILLON_EGRESS__ALLOW", "127.0.0.0/8, ::1"),
            ("CARILLON_EGRESS__DENY", "[\"10.1.2.3/8\"]"),
            ("CARILLON_POLICY__LOG_LINES", "3"),
            ("CARILLON_POLICY__MEMORY", "1048576"),
        ];
        let config = Config::load(from_env(&variables)).unwrap();
        assert_eq!(config.auth.admin_token.as_deref(), Some(digits));
        assert_eq!(config.egress.allow, ["127.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap()]);
        assert_eq!(config.egress.deny, ["10.0.0.0/8".parse().unwrap()]);
        assert_eq!(config.policy.log_lines, 3);
        assert_eq!(config.policy.memory.get(), 1 << 20);
    }

    #[test]
    fn a_default_role_is_replaced_with_its_plugin_and_tuned_without() {
        let config = from_file("[defaults.retry.config]\nmax_attempts = 9").unwrap();
        assert_eq!(config.defaults["retry"]["config"]["max_attempts"], 9);
        assert_eq!(config.defaults["retry"]["config"]["base"], "2s");

        let config = from_file("[defaults]\nretry = { plugin = \"mine\", config = { tries = 2 } }").unwrap();
        assert_eq!(config.defaults["retry"], json!({"plugin": "mine", "config": {"tries": 2}}));
        assert_eq!(config.defaults["judge"]["plugin"], "expected-status");
    }

    #[test]
    fn groups_and_tenants_are_read() {
        let text = r#"
            [groups.reminders]
            encode = [{ plugin = "base64-envelope" }]
            limits = { rate = "100/s" }
            [tenants.acme.quota]
            rate = "50/s"
            [tenants.acme.groups.invoices]
            sign = { plugin = "werkzeug-cookie", keys = ["k"] }
        "#;
        let config = from_file(text).unwrap();
        assert_eq!(
            config.groups["reminders"],
            json!({"encode": [{"plugin": "base64-envelope"}], "limits": {"rate": "100/s"}})
        );
        assert_eq!(config.tenants["acme"].groups["invoices"]["sign"]["keys"], json!(["k"]));
        assert_eq!(config.tenants["acme"].defaults, json!({}));
        assert_eq!(config.tenants["acme"].quota, Some(json!({"rate": "50/s"})));
    }

    #[test]
    fn secrets_are_not_printed() {
        let (token, key) = ("kT9vQ2mXw7RbZ4nLs8PcY1dGh6JfA3eU", "5a".repeat(32));
        let variables = [("CARILLON_AUTH__ADMIN_TOKEN", token), ("CARILLON_KEYS__MASTER_KEY", &key)];
        let text = format!("{:?}", Config::load(from_env(&variables)).unwrap());
        assert!(!text.contains(token) && !text.contains("5a5a"), "{text}");
    }
}
