//! `[store]`: the database, and the file that its URL is read from.

use std::fmt;
use std::path::PathBuf;

use anyhow::Context as _;
use serde::Deserialize;

use super::values::{self, Period};

/// `[store]`: database of jobs.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoreConfig {
    /// URL of the database: `sqlite:PATH` or `postgres://…`.
    pub url: String,
    /// File whose first line is the URL, in place of `url`.
    #[serde(deserialize_with = "values::unless_empty")]
    pub url_file: Option<PathBuf>,
    /// Failures that a confirmed write survives.
    pub durability: Durability,
    /// Longest wait for a PostgreSQL database: for a connection, and for the work of one transaction.
    pub timeout: Period,
    /// Whether payloads, and whatever else of a job may hold secrets, are encrypted from now on.
    pub encrypt: bool,
}

/// Hides the URL, which may contain a password.
impl fmt::Debug for StoreConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = self.url.split(':').next().unwrap_or_default();
        f.debug_struct("StoreConfig")
            .field("url", &format!("{scheme}:…"))
            .field("url_file", &self.url_file)
            .field("durability", &self.durability)
            .field("timeout", &self.timeout)
            .field("encrypt", &self.encrypt)
            .finish()
    }
}

/// Place of the database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreLocation {
    /// A file of this machine, used by this process alone.
    File(PathBuf),
    /// A database server that other nodes may use, too.
    Server,
}

impl StoreConfig {
    /// Reads the URL from `url_file`, if that is set.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read, or if its first line is empty.
    pub(super) fn resolve(&mut self) -> Result<(), String> {
        let Some(path) = &self.url_file else { return Ok(()) };
        let text =
            std::fs::read_to_string(path).map_err(|error| format!("`{}` cannot be read: {error}", path.display()))?;
        let url = text.lines().next().unwrap_or_default().trim();
        if url.is_empty() {
            return Err(format!("the first line of `{}` must be the URL of the database", path.display()));
        }
        url.clone_into(&mut self.url);
        Ok(())
    }

    /// Returns the place to which the URL points.
    ///
    /// # Errors
    /// Returns an error if the URL is not that of a store.
    pub fn place(&self) -> anyhow::Result<StoreLocation> {
        if self.is_shared() {
            return Ok(StoreLocation::Server);
        }
        let path = self.url.strip_prefix("sqlite:").context("the URL must be sqlite:PATH or postgres://…")?;
        Ok(StoreLocation::File(PathBuf::from(path.trim_start_matches("//"))))
    }

    /// Returns the store's name for logs, without possible secrets.
    #[must_use]
    pub fn name(&self) -> String {
        if self.is_shared() { "postgres".to_owned() } else { self.url.clone() }
    }

    /// Returns whether other nodes may use the same database.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        ["postgres://", "postgresql://"].iter().any(|scheme| self.url.starts_with(scheme))
    }
}

/// Failures that a confirmed write survives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// A loss of power.
    Full,
    /// A crash of the program.
    Normal,
}

#[cfg(test)]
mod tests {
    use figment::value::Value;

    use super::super::{Config, Flag, Sources};

    /// Loads a configuration; `FILE` in the texts is a file with a URL.
    fn load(
        text: &str,
        environment: &[(&str, &str)],
        flags: &[(&'static str, &'static str)],
    ) -> Result<String, String> {
        let dir = tempfile::tempdir().unwrap();
        let (path, url) = (dir.path().join("carillon.toml"), dir.path().join("url"));
        let with_url = |text: &str| text.replace("FILE", &url.display().to_string());
        std::fs::write(&path, with_url(text)).unwrap();
        std::fs::write(&url, "postgres://u:hidden@h/d\nmore\n").unwrap();
        std::fs::write(dir.path().join("url.empty"), "\npostgres://h/d").unwrap();
        let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), with_url(value))).collect();
        let flag = |(name, key): &(&'static str, &'static str)| {
            let value = if key.ends_with("file") { with_url("FILE") } else { "sqlite:flag.db".to_owned() };
            Flag { name, key, value: Value::from(value) }
        };
        let flags = flags.iter().map(flag).collect();
        let loaded = Config::load(Sources { file: Some(path), environment, flags });
        loaded.map(|config| config.store.url).map_err(|error| error.to_string())
    }

    const KEY: &str = "[keys]\nmaster_key_file = \"x\"\n";
    const IN_FILE: &str = "postgres://u:hidden@h/d";

    #[test]
    fn url_comes_from_the_first_line_of_a_file() {
        let text = format!("{KEY}[store]\nurl_file = \"FILE\"");
        assert_eq!(load(&text, &[], &[]).as_deref(), Ok(IN_FILE));
        let said = load("[store]\nurl_file = \"FILE.gone\"", &[], &[]).unwrap_err();
        assert!(said.contains("store.url_file: `") && said.contains("url.gone` cannot be read"), "{said}");
        let said = load("[store]\nurl_file = \"FILE.empty\"", &[], &[]).unwrap_err();
        assert!(said.contains("must be the URL of the database"), "{said}");
    }

    #[test]
    fn stronger_source_names_the_database_in_its_own_way() {
        let file = format!("{KEY}[store]\nurl_file = \"FILE\"");
        let url = format!("{KEY}[store]\nurl = \"sqlite:file.db\"");
        let variable = [("CARILLON_STORE__URL", "sqlite:variable.db")];
        let in_variable = [("CARILLON_STORE__URL_FILE", "FILE")];
        assert_eq!(load(&file, &variable, &[]).as_deref(), Ok("sqlite:variable.db"));
        assert_eq!(load(&url, &in_variable, &[]).as_deref(), Ok(IN_FILE));
        assert_eq!(load(&file, &[], &[("--store", "store.url")]).as_deref(), Ok("sqlite:flag.db"));
        assert_eq!(load(&url, &variable, &[("--store-file", "store.url_file")]).as_deref(), Ok(IN_FILE));
    }

    #[test]
    fn source_that_names_the_database_twice_is_refused() {
        let said = load("[store]\nurl = \"sqlite:x.db\"\nurl_file = \"FILE\"", &[], &[]).unwrap_err();
        assert!(said.contains("carillon.toml: store.url_file: store.url is set already"), "{said}");
        let both = [("CARILLON_STORE__URL", "sqlite:x.db"), ("CARILLON_STORE__URL_FILE", "FILE")];
        let said = load("", &both, &[]).unwrap_err();
        assert!(said.contains("environment variable CARILLON_STORE__URL_FILE: store.url_file: store.url is"), "{said}");
        assert!(!said.contains("hidden"), "{said}");
    }
}
