//! `carillon serve`: reads the configuration and runs the server.

use std::io::IsTerminal as _;

use anyhow::anyhow;
use clap::{Args, ValueEnum};

use super::log_filter;
use crate::app;
use carillon_cli::Output;
use carillon_cli::config::ConfigArgs;
use carillon_config::Config;

#[derive(Debug, Args)]
pub(super) struct Serve {
    #[command(flatten)]
    config: ConfigArgs,
    /// Check the configuration and exit.
    #[arg(long)]
    check: bool,
    /// Format of the log. CARILLON_LOG is its filter: `debug`, or `info,carillon_engine::dispatch=debug`.
    #[arg(long, env = "CARILLON_LOG_FORMAT", default_value = "text")]
    log_format: LogFormat,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum LogFormat {
    /// Text for people.
    Text,
    /// One JSON object per line.
    Json,
}

impl Serve {
    pub(super) async fn run(self, out: Output) -> anyhow::Result<()> {
        if self.check {
            return self.config.check(out);
        }
        start_log(self.log_format)?;
        let sources = self.config.sources()?;
        if let Some(file) = &sources.file {
            tracing::info!(file = %file.display(), "reading the configuration");
        }
        app::run(Config::load(sources)?).await
    }
}

fn start_log(format: LogFormat) -> anyhow::Result<()> {
    let filter = match std::env::var_os(log_filter::VARIABLE) {
        Some(text) => log_filter::parse(&text.into_string().map_err(|_| anyhow!("CARILLON_LOG is not UTF-8"))?)?,
        None => log_filter::parse("")?,
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
    use carillon_config::Sources;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        config: ConfigArgs,
    }

    fn load(arguments: &[&str]) -> Result<Config, String> {
        let line = Line::try_parse_from([&["serve"], arguments].concat()).unwrap();
        Config::load(Sources { flags: line.config.flags().unwrap(), ..Sources::default() })
            .map_err(|error| error.to_string())
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
        assert!(message.contains("--no-auth: auth.enabled: authentication can be disabled only"), "{message}");
        let message = load(&["--egress-allow", "everything"]).unwrap_err();
        assert!(message.contains("--egress-allow: egress.allow: `everything` is not a network"), "{message}");
    }
}
