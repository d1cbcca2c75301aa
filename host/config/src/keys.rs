//! `[keys]`: the master key, and the keys of tenants that exist from the start.
//!
//! Secrets are read from the environment or from files: the configuration holds none.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use serde::Deserialize;
use zeroize::Zeroizing;

use super::values;

/// `[keys]`: the master key, of which at most one of the two settings is set, and the default tenant's keys.
#[derive(Clone, Deserialize)]
pub struct Keys {
    /// Master key: 64 hexadecimal digits.
    #[serde(deserialize_with = "values::unless_empty")]
    pub master_key: Option<String>,
    /// File with the master key; if neither is set, one next to the database.
    #[serde(deserialize_with = "values::unless_empty")]
    pub master_key_file: Option<PathBuf>,
    /// File with the master key before it, which is read with and not written with.
    #[serde(deserialize_with = "values::unless_empty")]
    pub old_master_key_file: Option<PathBuf>,
    /// `[keys.NAME]`: the default tenant's keys that exist from the start.
    #[serde(flatten)]
    pub tenant_keys: BTreeMap<String, TenantKey>,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let master_key = self.master_key.as_ref().map(|_| "…");
        f.debug_struct("Keys")
            .field("master_key", &master_key)
            .field("master_key_file", &self.master_key_file)
            .field("old_master_key_file", &self.old_master_key_file)
            .field("tenant_keys", &self.tenant_keys)
            .finish()
    }
}

/// Purpose of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TenantKeyKind {
    /// Signing by HMAC.
    Secret,
    /// Signing by Ed25519.
    Ed25519,
    /// Value of a header.
    Header,
    /// Client certificate.
    #[serde(rename = "tls-client")]
    TlsClient,
}

/// A tenant's key that exists from the start.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TenantKey {
    /// Environment variable with the secret; alternative to `file`.
    #[serde(default)]
    pub env: Option<String>,
    /// File with the secret; one line break at its end is removed.
    #[serde(default)]
    pub file: Option<PathBuf>,
    /// Purpose of the key, as in the API.
    #[serde(default)]
    pub kind: Option<TenantKeyKind>,
    /// Whether the secret is written in base64, as `secret_base64` in the API.
    #[serde(default)]
    pub base64: bool,
    /// Groups that may use the key; all groups if None.
    #[serde(default)]
    pub groups: Option<Vec<String>>,
    /// Origins that the key may go to; all origins if None.
    #[serde(default)]
    pub origins: Option<Vec<String>>,
    /// Time for which the previous secret stays valid after a change, as in the API.
    #[serde(default)]
    pub overlap: Option<String>,
    /// The secret that was read.
    #[serde(skip)]
    pub secret: Zeroizing<String>,
}

impl fmt::Debug for TenantKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TenantKey").field("env", &self.env).field("file", &self.file).finish_non_exhaustive()
    }
}

impl TenantKey {
    /// Reads the secret.
    ///
    /// # Errors
    /// Returns the field at fault, and the problem.
    pub(super) fn resolve(&mut self, environment: &[(String, String)]) -> Result<(), (&'static str, String)> {
        let (field, secret) = match (&self.env, &self.file) {
            (Some(name), None) => {
                let found = environment.iter().find(|(known, _)| known == name);
                let (_, text) = found.ok_or_else(|| ("env", format!("the environment variable {name} is not set")))?;
                ("env", text.clone())
            }
            (None, Some(path)) => {
                let text = std::fs::read_to_string(path)
                    .map_err(|error| ("file", format!("`{}` cannot be read: {error}", path.display())))?;
                let line = text.strip_suffix('\n').map(|line| line.strip_suffix('\r').unwrap_or(line));
                ("file", line.unwrap_or(&text).to_owned())
            }
            _ => return Err(("env", "exactly one of `env` and `file` is required".to_owned())),
        };
        if secret.is_empty() {
            return Err((field, "the secret is empty".to_owned()));
        }
        self.secret = Zeroizing::new(secret);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Config, Sources};

    fn load(text: &str, environment: &[(&str, &str)]) -> Result<Config, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("carillon.toml");
        std::fs::write(&path, text.replace("DIR", &dir.path().display().to_string())).unwrap();
        std::fs::write(dir.path().join("secret"), "from a file\n").unwrap();
        std::fs::write(dir.path().join("empty"), "\n").unwrap();
        let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Config::load(Sources { file: Some(path), environment, ..Sources::default() }).map_err(|error| error.to_string())
    }

    #[test]
    fn secrets_of_tenants_come_from_the_environment_or_files() {
        let text = "[keys.one]\nenv = \"ONE\"\n[keys.two]\nfile = \"DIR/secret\"\ngroups = [\"g\"]\n\
                    [tenants.acme.keys.three]\nenv = \"ONE\"\nkind = \"header\"";
        let config = load(text, &[("ONE", "of one")]).unwrap();
        assert_eq!(config.keys.tenant_keys["one"].secret.as_str(), "of one");
        assert_eq!(config.keys.tenant_keys["two"].secret.as_str(), "from a file");
        assert_eq!(config.tenants["acme"].keys["three"].secret.as_str(), "of one");
        let shown = format!("{config:?}");
        assert!(!shown.contains("of one") && !shown.contains("from a file"), "{shown}");
    }

    #[test]
    fn secret_that_is_not_there_is_named_with_its_key_and_file() {
        for (text, expected) in [
            ("[keys.k]\nenv = \"GONE\"", "carillon.toml: keys.k.env: the environment variable GONE is not set"),
            ("[keys.k]\nfile = \"DIR/gone\"", "gone` cannot be read"),
            ("[keys.k]\nfile = \"DIR/empty\"", "carillon.toml: keys.k.file: the secret is empty"),
            ("[keys.k]\nkind = \"secret\"", "keys.k.env: exactly one of `env` and `file` is required"),
            ("[keys.k]\nsecret = \"x\"", "unknown field"),
            (
                "[keys]\nmaster_kye = \"x\"",
                "keys.master_kye: unknown key; the known ones are master_key, master_key_file",
            ),
            ("[tenants.t.keys.k]\nenv = \"GONE\"", "tenants.t.keys.k.env: the environment variable GONE is not set"),
        ] {
            let said = load(text, &[]).unwrap_err();
            assert!(said.contains(expected), "{text}: {said}");
        }
    }
}
