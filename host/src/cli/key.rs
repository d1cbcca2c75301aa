//! `carillon key`: keeps the keys that signers use, and those that go out as headers.
//!
//! A secret is never an argument, because everybody on a machine can read the arguments of its processes.

use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{Paging, Session, input};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Store a key, or give it a new version. It cannot be read again. The secret comes from standard input unless a flag says otherwise;
    /// one line break at its end does not count.
    Put {
        /// The key's name.
        name: String,
        /// Take the secret from this variable of the environment.
        #[arg(long, value_name = "VARIABLE", conflicts_with = "file")]
        env: Option<String>,
        /// Take the secret from this file.
        #[arg(short, long)]
        file: Option<PathBuf>,
        /// What it is for: `secret` (the default) and `ed25519` sign, a `header` goes out under a group's `auth_headers`.
        #[arg(long, value_parser = ["secret", "ed25519", "header"])]
        kind: Option<String>,
        /// The secret is given as base64, for any bytes; `whsec_` and `whsk_` may stand in front.
        #[arg(long)]
        base64: bool,
        /// How long the versions until now sign besides: a duration such as `24h`, or `until-removed`. Without it they end at once.
        #[arg(long)]
        overlap: Option<String>,
        /// A group that may use it; several times for several. Without it, those that may now; a new key is for all groups.
        #[arg(long = "group", value_name = "GROUP")]
        groups: Vec<String>,
    },
    /// Say which groups may use a key. Refused while a group uses it that no longer may.
    Grant {
        /// The key's name.
        name: String,
        #[command(flatten)]
        to: Grantees,
    },
    /// Show what is not secret of a key: its versions, and the public keys of those that have one.
    Get {
        /// The key's name.
        name: String,
    },
    /// List the keys' names.
    List {
        #[command(flatten)]
        paging: Paging,
    },
    /// Delete a key, or one of its versions.
    Delete {
        /// The key's name.
        name: String,
        /// Only this version.
        #[arg(long)]
        version: Option<u64>,
    },
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(super) struct Grantees {
    /// This group; several times for several.
    #[arg(long = "group", value_name = "GROUP")]
    groups: Vec<String>,
    /// All groups of the tenant.
    #[arg(long)]
    all: bool,
    /// No group.
    #[arg(long)]
    none: bool,
}

const LIST: [(&str, &str); 7] = [
    ("NAME", "/name"),
    ("KIND", "/kind"),
    ("VERSION", "/version"),
    ("USABLE", "/usable"),
    ("GROUPS", "/groups"),
    ("CREATED", "/created_at"),
    ("UPDATED", "/updated_at"),
];

impl Command {
    pub(super) async fn run(self, session: &Session) -> anyhow::Result<()> {
        match self {
            Self::Put { name, env, file, kind, base64, overlap, groups } => {
                let field = if base64 { "secret_base64" } else { "secret" };
                let groups = (!groups.is_empty()).then_some(groups);
                let key =
                    json!({field: secret(env.as_deref(), file)?, "kind": kind, "overlap": overlap, "groups": groups});
                session.done(&session.client.put_key(&name, &key).await?, &format!("{name}: stored"))
            }
            Self::Grant { name, to } => {
                let key = json!({"groups": (!to.all).then_some(&to.groups)});
                let granted = session.client.patch(&["keys", &name], &[], &key).await?;
                let to = match (to.all, to.groups.join(", ")) {
                    (true, _) => "all groups".to_owned(),
                    (false, none) if none.is_empty() => "no group".to_owned(),
                    (false, groups) => groups,
                };
                session.done(&granted, &format!("{name}: granted to {to}"))
            }
            Self::List { paging } => session.list(&["keys"], Vec::new(), &paging, &LIST).await,
            Self::Get { name } => {
                let key: Value = session.client.get(&["keys", &name], &[]).await?;
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

fn secret(variable: Option<&str>, file: Option<PathBuf>) -> anyhow::Result<String> {
    let secret = match variable {
        Some(variable) => std::env::var(variable).with_context(|| format!("{variable} cannot be read"))?,
        None => {
            let text = input::text(&file.unwrap_or_else(|| input::STDIN.into()))?;
            let line = text.strip_suffix('\n').map(|line| line.strip_suffix('\r').unwrap_or(line));
            line.unwrap_or(&text).to_owned()
        }
    };
    if secret.is_empty() {
        bail!("the secret is empty");
    }
    Ok(secret)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_break_at_the_end_of_a_secret_does_not_count() {
        let path = tempfile::NamedTempFile::new().unwrap().into_temp_path();
        for (text, expected) in [("s", "s"), ("s\n", "s"), ("s\r\n", "s"), (" s \n\n", " s \n")] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(secret(None, Some(path.to_path_buf())).unwrap(), expected);
        }
        std::fs::write(&path, "\n").unwrap();
        assert!(secret(None, Some(path.to_path_buf())).is_err());
    }
}
