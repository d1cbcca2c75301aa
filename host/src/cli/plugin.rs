//! `carillon plugin`: manages the components that policies are made of.

use std::path::PathBuf;
use std::str::FromStr;

use clap::Subcommand;
use serde_json::Value;

use super::{Paging, Session, input};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// List the plugins.
    List {
        #[command(flatten)]
        paging: Paging,
    },
    /// Show what a plugin does and how it is configured.
    Describe {
        /// NAME, or NAME@VERSION.
        plugin: Reference,
    },
    /// Upload a component as a new version of a plugin.
    Push {
        /// NAME@VERSION. A version cannot be replaced.
        plugin: Version,
        /// The component; `-` is standard input.
        file: PathBuf,
    },
}

/// A plugin, and perhaps which version of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reference {
    name: String,
    version: Option<String>,
}

impl FromStr for Reference {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, version) = text.split_once('@').map_or((text, None), |(name, version)| (name, Some(version)));
        if name.is_empty() || version == Some("") {
            return Err("this is neither NAME nor NAME@VERSION".to_owned());
        }
        Ok(Self { name: name.to_owned(), version: version.map(str::to_owned) })
    }
}

/// One version of a plugin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Version {
    name: String,
    version: String,
}

impl FromStr for Version {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let Reference { name, version } = text.parse()?;
        Ok(Self { name, version: version.ok_or("this is not NAME@VERSION")? })
    }
}

const LIST: [(&str, &str); 6] = [
    ("NAME", "/name"),
    ("VERSION", "/version"),
    ("ROLES", "/roles"),
    ("BUILT IN", "/builtin"),
    ("DIGEST", "/digest"),
    ("SUMMARY", "/summary"),
];

impl Command {
    pub(super) async fn run(self, session: &Session) -> anyhow::Result<()> {
        match self {
            Self::List { paging } => session.list(&["plugins"], Vec::new(), &paging, &LIST).await,
            Self::Describe { plugin } => {
                let mut path = vec!["plugins", plugin.name.as_str()];
                path.extend(plugin.version.iter().flat_map(|version| ["versions", version]));
                let description: Value = session.client.get(&path, &[]).await?;
                session.out.answer(&description)
            }
            Self::Push { plugin, file } => {
                let path = ["plugins", plugin.name.as_str(), "versions", plugin.version.as_str()];
                let stored = session.client.put_component(&path, input::bytes(&file)?).await?;
                session.out.answer(&stored)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read() {
        let reference =
            |name: &str, version: Option<&str>| Reference { name: name.into(), version: version.map(Into::into) };
        assert_eq!("a".parse(), Ok(reference("a", None)));
        assert_eq!("a@1.0.0".parse(), Ok(reference("a", Some("1.0.0"))));
        assert!("a@".parse::<Reference>().is_err() && "@1".parse::<Reference>().is_err());
        assert!("a".parse::<Version>().is_err());
    }
}
