//! Credentials that `docker login` stored: in its configuration file, or in a program that the file names (a credential helper).
//!
//! A helper is asked for one host, the registry's own, and only when a registry is used. Its name is a program of the user's `PATH`; the file
//! cannot name a path.
//!
//! <https://docs.docker.com/reference/cli/docker/login/#credential-stores>,
//! <https://github.com/docker/docker-credential-helpers>

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::Value;

use super::credentials::Credentials;
use carillon_client::text::visible;

/// Beginning of the names of helpers.
const HELPER: &str = "docker-credential-";

/// User name that marks the secret as an identity token.
const TOKEN_USER: &str = "<token>";

/// Response of a helper that has nothing for a host.
const NOT_FOUND: &str = "credentials not found";

/// Name of Docker's own registry among the stored credentials.
const DOCKER_HUB: &str = "https://index.docker.io/v1/";

/// Maximum number of characters of a helper's output that an error shows.
const EXCERPT: usize = 300;

/// Returns the credentials for `host`, if there are any.
///
/// # Errors
/// Returns an error if the file cannot be read, or if the helper that it names fails.
pub(super) fn credentials(host: &str) -> anyhow::Result<Option<Credentials>> {
    let Some(file) = file().filter(|file| file.exists()) else { return Ok(None) };
    let cannot = || format!("{} cannot be read", file.display());
    let config: Value = serde_json::from_slice(&std::fs::read(&file).with_context(cannot)?).with_context(cannot)?;
    if let Some(helper) = helper(&config, host) {
        let found = ask(helper, host).with_context(|| format!("{} names a credential helper", file.display()))?;
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(stored(&config, host))
}

/// Returns the path of the file of `docker login`.
fn file() -> Option<PathBuf> {
    let directory = std::env::var_os("DOCKER_CONFIG").map(PathBuf::from);
    let directory = directory.or_else(|| std::env::home_dir().map(|home| home.join(".docker")))?;
    Some(directory.join("config.json"))
}

/// Returns the names under which credentials for a host may be stored.
fn names(host: &str) -> Vec<String> {
    if ["docker.io", "index.docker.io", "registry-1.docker.io"].contains(&host) {
        return vec![DOCKER_HUB.to_owned()];
    }
    vec![host.to_owned(), format!("https://{host}"), format!("https://{host}/v2/")]
}

/// Returns the last part of the name of the helper for a host: its own, or the one for all hosts.
fn helper<'c>(config: &'c Value, host: &str) -> Option<&'c str> {
    let own = names(host).into_iter().find_map(|name| config["credHelpers"].get(&name)?.as_str());
    own.or_else(|| config["credsStore"].as_str()).filter(|name| !name.is_empty())
}

/// Credentials as a helper prints them.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Printed {
    username: String,
    secret: String,
}

/// Asks a helper for the credentials of a host.
fn ask(name: &str, host: &str) -> anyhow::Result<Option<Credentials>> {
    let is_name = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    ensure!(is_name, "`{}` is not the name of a credential helper", visible(name));
    let program = format!("{HELPER}{name}");
    let mut child = Command::new(&program)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("`{program}` cannot be started; it must be in PATH"))?;
    let server = names(host).swap_remove(0);
    if let Some(mut input) = child.stdin.take() {
        // A helper that does not read its input says why.
        let _ = input.write_all(server.as_bytes());
    }
    let output = child.wait_with_output().with_context(|| format!("`{program}` cannot be read"))?;
    if !output.status.success() {
        let said = [&output.stdout[..], &output.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        if said.contains(NOT_FOUND) {
            return Ok(None);
        }
        let said: String = said.trim().chars().take(EXCERPT).collect();
        bail!("`{program} get` ended with {}: {}", output.status, visible(&said));
    }
    // What it printed is a secret, whatever its form, and belongs in no message.
    let Ok(printed) = serde_json::from_slice::<Printed>(&output.stdout) else {
        bail!("`{program} get` printed no `Username` and `Secret` in JSON");
    };
    Ok(Some(match printed.username.as_str() {
        TOKEN_USER => Credentials::IdentityToken(printed.secret),
        _ => Credentials::Password { username: printed.username, password: printed.secret },
    }))
}

/// Returns the credentials that the file itself holds for a host.
fn stored(config: &Value, host: &str) -> Option<Credentials> {
    let auths = config["auths"].as_object()?;
    let entry = names(host).into_iter().find_map(|name| auths.get(&name))?;
    if let Some(token) = entry["identitytoken"].as_str().filter(|token| !token.is_empty()) {
        return Some(Credentials::IdentityToken(token.to_owned()));
    }
    let text = String::from_utf8(STANDARD.decode(entry["auth"].as_str()?.trim()).ok()?).ok()?;
    let (username, password) = text.split_once(':')?;
    Some(Credentials::Password { username: username.to_owned(), password: password.to_owned() })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn shown(found: Option<Credentials>) -> Option<String> {
        found.map(|found| match found {
            Credentials::Password { username, password } => format!("{username} {password}"),
            Credentials::IdentityToken(token) => format!("token {token}"),
        })
    }

    #[test]
    fn what_docker_has_stored_is_found() {
        let auth = |text: &str| json!({"auth": STANDARD.encode(text)});
        let config = json!({"auths": {
            "h:5000": auth("me:a:b"), "https://ghcr.io": auth("you:c"), "odd": {"auth": "?"},
            DOCKER_HUB: auth("hub:d"), "cloud": {"auth": STANDARD.encode("0:"), "identitytoken": "t"},
        }});
        let found = |host: &str| shown(stored(&config, host));
        assert_eq!(found("h:5000").as_deref(), Some("me a:b"));
        assert_eq!(found("ghcr.io").as_deref(), Some("you c"));
        assert_eq!(found("docker.io").as_deref(), Some("hub d"));
        assert_eq!(found("cloud").as_deref(), Some("token t"));
        assert_eq!((found("odd"), found("elsewhere")), (None, None));
        assert!(stored(&json!({}), "h").is_none());
    }

    #[test]
    fn helper_of_a_host_comes_before_that_of_all_hosts() {
        let config = json!({"credsStore": "all", "credHelpers": {"h:5000": "own", "https://ghcr.io": "gh"}});
        assert_eq!(helper(&config, "h:5000"), Some("own"));
        assert_eq!(helper(&config, "ghcr.io"), Some("gh"));
        assert_eq!(helper(&config, "h"), Some("all"));
        assert_eq!(helper(&json!({"credsStore": ""}), "h"), None);
    }

    #[test]
    fn helper_is_a_program_of_the_path_and_no_other_file() {
        for name in ["../evil", "a b", "x;y", "a/b"] {
            let error = ask(name, "h").map(drop).unwrap_err().to_string();
            assert!(error.contains("is not the name of a credential helper"), "{error}");
        }
        let error = ask("that-does-not-exist", "h").map(drop).unwrap_err().to_string();
        assert!(error.contains("`docker-credential-that-does-not-exist` cannot be started"), "{error}");
    }
}
