//! `carillon key`: manages the keys that signers use, and those that are sent as headers.
//!
//! A secret is never an argument, because every user of a machine can read the arguments of its processes.

use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;

use anyhow::{Context as _, bail};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use clap::{ArgGroup, Args, Subcommand};
use reqwest::StatusCode;
use serde_json::{Map, Value, json};

use super::changes::warnings;
use super::{Paging, Session, input};
use carillon_client::ClientError;
use carillon_client::answer::Answer;
use carillon_client::text::visible;
use carillon_core::clock::{Clock as _, SystemClock};

/// Length of a generated secret, in bytes.
const SECRET_LEN: usize = 32;

/// Names of kinds.
const ED25519: &str = "ed25519";
const HEADER: &str = "header";

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Store a key, or a new version of it, which cannot be read back.
    ///
    /// Without a flag for its source, the secret is read from standard input, except for one line break at its end. On a terminal, the
    /// command asks for the secret and does not show it.
    Put {
        /// Name of the key.
        name: String,
        /// Read the secret from this environment variable.
        #[arg(long, value_name = "VARIABLE", conflicts_with = "file")]
        env: Option<String>,
        /// Read the secret from this file.
        #[arg(short, long)]
        file: Option<PathBuf>,
        /// Generate a secret of 32 random bytes and print it; it cannot be shown again. The secret of an `ed25519` key is not printed, and
        /// `key get` shows its public key. With --base64, the secret has the form of Standard Webhooks (`whsec_…`).
        #[arg(long, conflicts_with_all = ["env", "file"])]
        generate: bool,
        /// Kind of the key: `secret` (default) and `ed25519` sign requests, `header` is sent as the value of a group's `auth_headers`,
        /// and `tls-client` is a certificate with its private key, in PEM, for receivers that ask for one (a group's `tls`). An `ed25519` key may
        /// be PEM, as `openssl genpkey -algorithm ed25519` writes it.
        #[arg(long, value_parser = ["secret", "ed25519", "header", "tls-client"])]
        kind: Option<String>,
        /// Read the secret as base64, with or without the prefix `whsec_` or `whsk_`.
        #[arg(long)]
        base64: bool,
        /// Time for which the earlier versions also sign: a duration such as `24h`, or `until-removed`. Default: they end at once.
        #[arg(long)]
        overlap: Option<String>,
        /// Group that may use the key. Can be repeated. Default: the groups that may use it now, and all groups for a new key.
        #[arg(long = "group", value_name = "GROUP")]
        groups: Vec<String>,
        /// Origin, such as `https://hooks.example:8443`, to which requests may go that the key signs, or that carry it. Can be repeated.
        /// Default: the origins that it may go to now, and all origins for a new key.
        #[arg(long = "origin", value_name = "ORIGIN")]
        origins: Vec<String>,
    },
    /// Set the groups that may use a key, or the origins that it may go to; fails while another group uses it.
    #[command(group = ArgGroup::new("change").args(["groups", "all", "none", "origins", "any_origin"]).required(true).multiple(true))]
    Grant {
        /// Name of the key.
        name: String,
        #[command(flatten)]
        to: Grantees,
        #[command(flatten)]
        origins: Destinations,
    },
    /// Show a key's versions, with their public keys and without secrets.
    Get {
        /// Name of the key.
        name: String,
    },
    /// List keys, without secrets.
    List {
        #[command(flatten)]
        paging: Paging,
    },
    /// Delete a key, or one of its versions.
    Delete {
        /// Name of the key.
        name: String,
        /// Delete only this version.
        #[arg(long)]
        version: Option<u64>,
    },
}

#[derive(Debug, Args)]
#[group(multiple = false)]
pub struct Destinations {
    /// Origin, such as `https://hooks.example:8443`, that the key may go to. Can be repeated.
    #[arg(long = "origin", value_name = "ORIGIN")]
    origins: Vec<String>,
    /// Let the key go to all origins.
    #[arg(long)]
    any_origin: bool,
}

#[derive(Debug, Args)]
#[group(multiple = false)]
pub struct Grantees {
    /// Group that may use the key. Can be repeated.
    #[arg(long = "group", value_name = "GROUP")]
    groups: Vec<String>,
    /// Let all groups of the tenant use the key.
    #[arg(long)]
    all: bool,
    /// Let no group use the key.
    #[arg(long)]
    none: bool,
}

const LIST: [(&str, &str); 8] = [
    ("NAME", "/name"),
    ("KIND", "/kind"),
    ("VERSION", "/version"),
    ("USABLE", "/usable"),
    ("GROUPS", "/groups"),
    ("ORIGINS", "/origins"),
    ("CREATED", "/created_at"),
    ("UPDATED", "/updated_at"),
];

impl Command {
    pub(super) async fn run(self, session: &Session) -> anyhow::Result<()> {
        match self {
            Self::Put { name, env, file, generate, kind, base64, overlap, groups, origins } => {
                let given =
                    if generate { generated(kind.as_deref(), base64) } else { secret(&name, env.as_deref(), file) };
                let given = given?;
                let is_seed = generate && kind.as_deref() == Some(ED25519);
                let field = if base64 || is_seed { "secret_base64" } else { "secret" };
                let groups = (!groups.is_empty()).then_some(groups);
                let origins = (!origins.is_empty()).then_some(origins);
                let key = json!({field: given, "kind": kind, "overlap": overlap, "groups": groups, "origins": origins});
                let before = granted(session, &name).await?;
                let put = session.client.put_key(&name, &key).await?;
                let lost = lost(before.as_deref(), groups.as_deref());
                let lost = lost.map(|lost| format!(" (no longer granted to {lost})")).unwrap_or_default();
                if generate && !is_seed {
                    let made = json!({"name": name, "secret": given});
                    session
                        .out
                        .note(&format!("{name}: stored{lost}; this is its secret, which cannot be shown again:"))?;
                    session.done(&made, &given)?;
                    return warnings(&put).iter().try_for_each(|warning| session.out.note(warning));
                }
                session.changed(&put, &format!("{name}: stored{lost}"))
            }
            Self::Grant { name, to, origins } => {
                let (change, told) = (grants(&to, &origins), granted_to(&to, &origins));
                let granted = session.client.patch(&["keys", &name], &[], &change).await?;
                session.done(&granted, &format!("{name}: {told}"))
            }
            Self::List { paging } => session.list(&["keys"], Vec::new(), &paging, &LIST).await,
            Self::Get { name } => {
                let key: Answer = session.client.get(&["keys", &name], &[]).await?;
                session.out.answer(&key)
            }
            Self::Delete { name, version: Some(version) } => {
                let path = ["keys", &name, "versions", &version.to_string()];
                session.done(&session.client.delete(&path).await?, &format!("{name}/{version}: deleted"))
            }
            Self::Delete { name, version: None } => {
                session.done(&session.client.delete(&["keys", &name]).await?, &format!("{name}: deleted"))
            }
        }
    }
}

/// Returns the document of a change of a key's grants.
fn grants(to: &Grantees, origins: &Destinations) -> Value {
    let mut change = Map::new();
    if to.all || to.none || !to.groups.is_empty() {
        change.insert("groups".to_owned(), json!((!to.all).then_some(&to.groups)));
    }
    if origins.any_origin || !origins.origins.is_empty() {
        change.insert("origins".to_owned(), json!((!origins.any_origin).then_some(&origins.origins)));
    }
    Value::Object(change)
}

/// Returns the same in words.
fn granted_to(to: &Grantees, origins: &Destinations) -> String {
    let groups = match (to.all, to.none, to.groups.join(", ")) {
        (true, ..) => Some("granted to all groups".to_owned()),
        (_, true, _) => Some("granted to no group".to_owned()),
        (.., groups) => (!groups.is_empty()).then(|| format!("granted to {groups}")),
    };
    let origins = match (origins.any_origin, origins.origins.join(", ")) {
        (true, _) => Some("may go to all origins".to_owned()),
        (false, origins) => (!origins.is_empty()).then(|| format!("may go to {origins}")),
    };
    groups.into_iter().chain(origins).collect::<Vec<_>>().join(", ")
}

/// Returns the names of the groups that may use a key now; `None` if all may, or if the key does not exist.
async fn granted(session: &Session, name: &str) -> anyhow::Result<Option<Vec<String>>> {
    match session.client.get::<Answer>(&["keys", name], &[]).await {
        Ok(key) => Ok(serde_json::from_value(key["groups"].clone()).unwrap_or_default()),
        Err(ClientError::Refused(problem)) if problem.status == StatusCode::NOT_FOUND.as_u16() => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Returns the groups that may no longer use a key, in words.
fn lost(before: Option<&[String]>, groups: Option<&[String]>) -> Option<String> {
    let groups = groups?;
    let lost: Vec<_> = before?.iter().filter(|group| !groups.contains(group)).map(String::as_str).collect();
    (!lost.is_empty()).then(|| lost.join(", "))
}

/// Generates a secret, in the form in which it is stored and printed.
fn generated(kind: Option<&str>, base64: bool) -> anyhow::Result<String> {
    let mut bytes = [0; SECRET_LEN];
    SystemClock.fill_random(&mut bytes);
    Ok(match kind {
        Some(ED25519) => STANDARD.encode(bytes),
        Some(HEADER) if base64 => bail!("--base64 cannot be combined with --generate for a key of the kind `header`"),
        _ if base64 => format!("whsec_{}", STANDARD.encode(bytes)),
        _ => URL_SAFE_NO_PAD.encode(bytes),
    })
}

fn secret(name: &str, variable: Option<&str>, file: Option<PathBuf>) -> anyhow::Result<String> {
    let secret = match (variable, file) {
        (Some(variable), _) => std::env::var(variable).with_context(|| format!("{variable} cannot be read"))?,
        (None, None) if std::io::stdin().is_terminal() => prompted(name)?,
        (None, file) => {
            let text = input::text(&file.unwrap_or_else(|| input::STDIN.into()))?;
            let line = text.strip_suffix('\n').map(|line| line.strip_suffix('\r').unwrap_or(line));
            line.unwrap_or(&text).to_owned()
        }
    };
    if secret.is_empty() {
        bail!("the secret must not be empty");
    }
    Ok(secret)
}

/// Asks for a secret on the terminal, which does not show the input.
fn prompted(name: &str) -> anyhow::Result<String> {
    let mut terminal = console::Term::stderr();
    write!(terminal, "Secret of the key `{}` (hidden): ", visible(name))?;
    terminal.read_secure_line().context("the terminal cannot be read")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_break_at_the_end_of_a_secret_does_not_count() {
        let path = tempfile::NamedTempFile::new().unwrap().into_temp_path();
        for (text, expected) in [("s", "s"), ("s\n", "s"), ("s\r\n", "s"), (" s \n\n", " s \n")] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(secret("k", None, Some(path.to_path_buf())).unwrap(), expected);
        }
        std::fs::write(&path, "\n").unwrap();
        assert!(secret("k", None, Some(path.to_path_buf())).is_err());
    }

    #[test]
    fn generated_secrets_are_of_their_kind_and_never_the_same() {
        let text = generated(None, false).unwrap();
        assert!(text.len() == 43 && text != generated(None, false).unwrap(), "{text}");
        let webhook = generated(Some("secret"), true).unwrap();
        assert_eq!(STANDARD.decode(webhook.strip_prefix("whsec_").unwrap()).unwrap().len(), SECRET_LEN);
        assert_eq!(STANDARD.decode(generated(Some(ED25519), false).unwrap()).unwrap().len(), SECRET_LEN);
        assert!(generated(Some(HEADER), true).is_err() && generated(Some(HEADER), false).is_ok());
    }

    #[test]
    fn who_may_no_longer_use_a_key_is_told() {
        let names = |all: &[&str]| all.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        assert_eq!(lost(Some(&names(&["a", "b"])), Some(&names(&["b"]))).as_deref(), Some("a"));
        assert_eq!(lost(Some(&names(&["a"])), Some(&names(&["a", "b"]))), None);
        assert_eq!(lost(Some(&names(&["a"])), None), None);
        assert_eq!(lost(None, Some(&names(&["a"]))), None);
    }
}
