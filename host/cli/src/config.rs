//! `carillon config`: checks a configuration. Also the configuration flags, for all commands that read a configuration.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use figment::value::Value;
use serde_json::json;

use super::output::Output;
use super::{input, secret};
use carillon_config::{Config, Flag, Sources};

/// Sources of a configuration, and settings given as flags.
#[derive(Debug, Args)]
pub struct ConfigArgs {
    /// Address and port to listen on: `127.0.0.1:7070`, `[::1]:7070`, `localhost:7070`.
    #[arg(long, value_name = "ADDR", value_parser = carillon_config::parse_address)]
    listen: Option<SocketAddr>,
    #[command(flatten)]
    store: StoreArgs,
    /// Disable authentication; requires a loopback --listen address.
    #[arg(long)]
    no_auth: bool,
    /// Loopback or private network to which jobs may be sent. Can be repeated; replaces `egress.allow`.
    #[arg(long, value_name = "CIDR")]
    egress_allow: Vec<String>,
}

/// Configuration and store, for commands that do not serve.
#[derive(Debug, Args)]
pub struct StoreArgs {
    /// Database of the server: sqlite:PATH or postgres://… A password in it can be read by other users of the machine.
    #[arg(long, value_name = "URL", conflicts_with = "store_file")]
    store: Option<String>,
    /// File whose first line is the URL of the database; `-` for standard input.
    #[arg(long, value_name = "FILE")]
    store_file: Option<PathBuf>,
    /// Configuration file. Default: `carillon.toml` in the working directory, if it exists.
    #[arg(long, env = "CARILLON_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Commands about a configuration.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Check the configuration file, the environment and the flags as `serve` would, without starting a server.
    ///
    /// The store is not opened. References to its content, such as uploaded keys and plugins, are checked when a server starts.
    Check(ConfigArgs),
}

impl Command {
    /// Runs the command.
    ///
    /// # Errors
    /// Returns an error if the configuration is not valid.
    pub fn run(self, out: Output) -> anyhow::Result<()> {
        let Self::Check(arguments) = self;
        arguments.check(out)
    }
}

impl ConfigArgs {
    /// Loads the configuration, and prints that it is valid.
    pub fn check(self, out: Output) -> anyhow::Result<()> {
        let sources = self.sources()?;
        let file = sources.file.as_ref().map(|file| file.display().to_string());
        let config = Config::load(sources)?;
        if out.is_json() {
            return out.json(&json!({
                "file": file, "listen": config.server.listen.to_string(), "store": config.store.name(),
                "authentication": config.auth.enabled,
            }));
        }
        let of = file.map_or_else(|| "the defaults and the environment".to_owned(), |file| format!("`{file}`"));
        let (listen, store) = (config.server.listen, config.store.name());
        out.line(&format!("{of}: the configuration is valid (server.listen {listen}, store.url {store})"))
    }

    /// Returns the sources of the configuration.
    ///
    /// # Errors
    /// Returns an error if a named source does not exist.
    pub fn sources(&self) -> anyhow::Result<Sources> {
        Ok(Sources::of_process(self.store.config.clone(), self.flags()?)?)
    }

    /// Returns the flags that stand for settings.
    ///
    /// # Errors
    /// Returns an error if standard input cannot be read.
    pub fn flags(&self) -> anyhow::Result<Vec<Flag>> {
        let listen = self.listen.map(|listen| ("--listen", "server.listen", Value::from(listen.to_string())));
        let no_auth = self.no_auth.then(|| ("--no-auth", "auth.enabled", Value::from(false)));
        let networks = (!self.egress_allow.is_empty())
            .then(|| ("--egress-allow", "egress.allow", Value::from(self.egress_allow.clone())));
        let given = [listen, no_auth, networks].into_iter().flatten();
        Ok(given.map(|(name, key, value)| Flag { name, key, value }).chain(self.store.flag()?).collect())
    }
}

impl StoreArgs {
    /// Loads the configuration.
    ///
    /// # Errors
    /// Returns an error if the configuration is not valid.
    pub fn load(&self) -> anyhow::Result<Config> {
        self.load_with(Vec::new())
    }

    /// Loads the configuration with these flags over it.
    ///
    /// # Errors
    /// Returns an error if the configuration is not valid.
    pub fn load_with(&self, mut flags: Vec<Flag>) -> anyhow::Result<Config> {
        flags.extend(self.flag()?);
        Ok(Config::load(Sources::of_process(self.config.clone(), flags)?)?)
    }

    fn flag(&self) -> anyhow::Result<Option<Flag>> {
        if let Some(url) = &self.store {
            return Ok(Some(Flag { name: "--store", key: "store.url", value: Value::from(url.as_str()) }));
        }
        let Some(path) = &self.store_file else { return Ok(None) };
        let name = "--store-file";
        if path == Path::new(input::STDIN) {
            let url = secret::first_line(name, path)?;
            return Ok(Some(Flag { name, key: "store.url", value: Value::from(url.as_str()) }));
        }
        Ok(Some(Flag { name, key: "store.url_file", value: Value::from(path.display().to_string()) }))
    }
}
