//! `carillon serve`: reads the configuration and runs the server.

use std::io::IsTerminal as _;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use figment::value::Value;
use tracing_subscriber::EnvFilter;

use crate::app;
use crate::config::{Config, Flag, Sources};

/// What is logged where `CARILLON_LOG` says nothing.
const LOG_FILTER: &str = "info,sqlx::postgres::notice=warn";

#[derive(Debug, Args)]
pub(super) struct Serve {
    /// The address and port to listen on.
    #[arg(long, value_name = "ADDR")]
    listen: Option<SocketAddr>,
    /// Where jobs are kept: sqlite:PATH or postgres://…
    #[arg(long, value_name = "URL")]
    store: Option<String>,
    /// The configuration; `carillon.toml` in the working directory if it is not said and there is one.
    #[arg(long, env = "CARILLON_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Let everybody in who can reach the port. For loopback addresses only.
    #[arg(long)]
    no_auth: bool,
    /// A loopback or private network that jobs may go to. Can be repeated; replaces `egress.allow`.
    #[arg(long, value_name = "CIDR")]
    egress_allow: Vec<String>,
    /// The form of the log. CARILLON_LOG says what is in it: `debug`, or `info,carillon::store=debug`.
    #[arg(long, env = "CARILLON_LOG_FORMAT", default_value = "text")]
    log_format: LogFormat,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum LogFormat {
    /// For people.
    Text,
    /// A JSON object to a line.
    Json,
}

impl Serve {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        start_log(self.log_format)?;
        let sources = Sources::of_process(self.config.clone(), self.flags());
        if let Some(file) = &sources.file {
            tracing::info!(file = %file.display(), "reading the configuration");
        }
        app::run(Config::load(sources)?).await
    }

    fn flags(&self) -> Vec<Flag> {
        let listen = self.listen.map(|listen| ("--listen", "server.listen", Value::from(listen.to_string())));
        let store = self.store.clone().map(|url| ("--store", "store.url", Value::from(url)));
        let no_auth = self.no_auth.then(|| ("--no-auth", "auth.enabled", Value::from(false)));
        let networks = (!self.egress_allow.is_empty())
            .then(|| ("--egress-allow", "egress.allow", Value::from(self.egress_allow.clone())));
        let given = [listen, store, no_auth, networks].into_iter().flatten();
        given.map(|(name, key, value)| Flag { name, key, value }).collect()
    }
}

fn start_log(format: LogFormat) -> anyhow::Result<()> {
    let filter = match std::env::var("CARILLON_LOG") {
        Ok(filter) => EnvFilter::try_new(filter)?,
        Err(_) => EnvFilter::new(LOG_FILTER),
    };
    let colours = std::io::stderr().is_terminal();
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(colours);
    match format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().flatten_event(true).init(),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        serve: Serve,
    }

    fn load(arguments: &[&str]) -> Result<Config, String> {
        let line = Line::try_parse_from([&["serve"], arguments].concat()).unwrap();
        Config::load(Sources { flags: line.serve.flags(), ..Sources::default() }).map_err(|error| error.to_string())
    }

    #[test]
    fn flags_become_keys() {
        let arguments = ["--listen", "127.0.0.1:0", "--store", "sqlite:x.db", "--no-auth"];
        let config =
            load(&[&arguments[..], &["--egress-allow", "127.0.0.0/8", "--egress-allow", "::1"]].concat()).unwrap();
        assert_eq!(config.server.listen.to_string(), "127.0.0.1:0");
        assert_eq!(config.store.url, "sqlite:x.db");
        assert!(!config.auth.enabled);
        assert_eq!(config.egress.allow.len(), 2);
        assert!(load(&[]).unwrap().auth.enabled);
    }

    #[test]
    fn wrong_flags_are_named() {
        let message = load(&["--listen", "0.0.0.0:1", "--no-auth"]).unwrap_err();
        assert!(
            message.contains("--no-auth: auth.enabled: without authentication only a loopback address"),
            "{message}"
        );
        let message = load(&["--egress-allow", "everything"]).unwrap_err();
        assert!(message.contains("--egress-allow: egress.allow: `everything` is not a network"), "{message}");
    }
}
