//! Authentication at a registry: a name with a password, or a token that another server issues for them.
//!
//! A password is never an argument, since other users can see arguments. It comes from the environment or from where `docker login` stores it.

use anyhow::Context as _;
use clap::Args;
use reqwest::header::{HeaderMap, WWW_AUTHENTICATE};

use super::credentials::Credentials;
use super::docker_config;

/// Environment variable that holds the password.
const PASSWORD: &str = "CARILLON_OCI_PASSWORD";

/// Access to a registry.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Options for oci://")]
pub struct Login {
    /// User of the registry, whose password is in CARILLON_OCI_PASSWORD. Default: the credentials that `docker login` stored,
    /// also with a credential helper.
    #[arg(long, value_name = "NAME")]
    pub(super) username: Option<String>,
    /// Connect without TLS, as always to a registry on this machine.
    #[arg(long)]
    pub(super) plain_http: bool,
}

impl Login {
    /// Returns the credentials for `host`, if there are any.
    pub(super) fn credentials(&self, host: &str) -> anyhow::Result<Option<Credentials>> {
        if let Some(username) = &self.username {
            let password =
                std::env::var(PASSWORD).with_context(|| format!("--username requires the password in {PASSWORD}"))?;
            return Ok(Some(Credentials::Password { username: username.clone(), password }));
        }
        docker_config::credentials(host)
    }
}

/// Kind of authentication that a registry requires.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    /// A name and a password.
    Basic,
    /// A token from another server.
    Bearer { realm: String, service: Option<String>, scope: Option<String> },
}

impl Challenge {
    /// Returns the first supported challenge of a response.
    pub(super) fn from_headers(headers: &HeaderMap) -> Option<Self> {
        headers.get_all(WWW_AUTHENTICATE).iter().find_map(|value| Self::parse(value.to_str().ok()?))
    }

    fn parse(text: &str) -> Option<Self> {
        let (scheme, rest) = text.split_once(' ').unwrap_or((text, ""));
        if scheme.eq_ignore_ascii_case("basic") {
            return Some(Self::Basic);
        }
        if !scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        let parameters = parameters(rest);
        let value =
            |name: &str| parameters.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, it)| it.clone());
        Some(Self::Bearer { realm: value("realm")?, service: value("service"), scope: value("scope") })
    }
}

/// Parses `name="value"` pairs; commas separate them, and may be part of values.
fn parameters(text: &str) -> Vec<(String, String)> {
    let mut parameters = Vec::new();
    let mut rest = text;
    while let Some((name, after)) = rest.split_once('=') {
        let name = name.trim_matches([' ', ',']).to_owned();
        let (value, next) = match after.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').unwrap_or((quoted, "")),
            None => after.split_once(',').unwrap_or((after, "")),
        };
        parameters.push((name, value.trim().to_owned()));
        rest = next;
    }
    parameters
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_read() {
        let text =
            r#"Bearer realm="https://auth.example.com/token",service="registry",scope="repository:a/b:pull,push""#;
        let Some(Challenge::Bearer { realm, service, scope }) = Challenge::parse(text) else { panic!("{text}") };
        assert_eq!((&*realm, service.as_deref()), ("https://auth.example.com/token", Some("registry")));
        assert_eq!(scope.as_deref(), Some("repository:a/b:pull,push"));
        assert_eq!(Challenge::parse("basic realm=\"x\""), Some(Challenge::Basic));
        let bare = Challenge::Bearer { realm: "https://x/".into(), service: Some("s".into()), scope: None };
        assert_eq!(Challenge::parse("Bearer service=s, realm=https://x/"), Some(bare));
        assert_eq!(Challenge::parse("Bearer scope=\"no realm\""), None);
        assert_eq!(Challenge::parse("Negotiate"), None);
    }
}
