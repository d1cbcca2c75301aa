//! `carillon plugin new`: creates a plugin that builds and passes its tests, as a starting point.
//!
//! A plugin in Rust contains the SDK with which this program was built. So an author needs neither this repository nor network access to it,
//! and this server accepts the result. For the other languages `carillon plugin build` provides the interface.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use carillon_guest_build::WIT;
use clap::Args;
use include_dir::{Dir, include_dir};
use serde_json::json;

use super::super::{Session, output};
use super::golden;
use super::template::{self, Language};
use carillon_policy::Role;

static SDK: Dir = include_dir!("$CARGO_MANIFEST_DIR/../../plugins/sdk");

/// Manifest from which the SDK takes its dependencies.
const WORKSPACE: &str = include_str!("../../../../Cargo.toml");

const LOCK: &str = include_str!("../../../../Cargo.lock");

/// Directory of the SDK in a new plugin.
const VENDORED: &str = "carillon";

#[derive(Debug, Args)]
pub struct New {
    /// Name of the plugin and of its directory: 1 to 64 of `a-z`, `0-9` and `-`, beginning with a letter.
    #[arg(value_parser = name)]
    name: String,
    /// Directory in which the plugin's directory is created.
    #[arg(long = "in", value_name = "DIRECTORY", default_value = ".")]
    parent: PathBuf,
    /// Role of the plugin: encode, sign, judge, retry or observe. For further roles, add them to `export!` in Rust (`export!(Policy: judge,
    /// encode)`), and include their worlds in `policy.wit` in the other languages.
    #[arg(long, value_parser = super::call::role)]
    role: Role,
    /// Language of the plugin.
    #[arg(long, value_enum, default_value_t = Language::Rust)]
    lang: Language,
}

fn name(text: &str) -> Result<String, String> {
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let is_name =
        text.len() <= 64 && text.bytes().all(fits) && text.starts_with(|first: char| first.is_ascii_lowercase());
    is_name
        .then(|| text.to_owned())
        .ok_or_else(|| "a name has 1 to 64 of `a-z`, `0-9` and `-`, and begins with a letter".to_owned())
}

impl New {
    pub(super) fn run(self, session: &Session) -> anyhow::Result<()> {
        let directory = self.parent.join(&self.name);
        if directory.exists() {
            bail!("{} already exists", directory.display());
        }
        let test = (format!("{}/first.json", golden::DIRECTORY), template::golden(self.role).to_owned());
        let files = self.lang.files(self.role).into_iter().map(|(path, text)| (path.to_owned(), text));
        for (path, text) in files.chain([test]) {
            write(&directory.join(path), text.replace("PLUGIN", &self.name).as_bytes())?;
        }
        if self.lang == Language::Rust {
            vendor(&directory)?;
        }
        let (place, install, name) = (directory.display(), self.lang.install(), &self.name);
        session.out.answer(&json!({
            "directory": directory,
            "next": format!("cd {place} && {install}carillon plugin build && carillon plugin test {name}.wasm"),
        }))
    }
}

/// Copies the SDK into the directory of a crate.
fn vendor(directory: &Path) -> anyhow::Result<()> {
    for (from, to) in [(&SDK, "plugins/sdk"), (&WIT, "wit")] {
        copy(from, &directory.join(VENDORED).join(to))?;
    }
    write(&directory.join(VENDORED).join("Cargo.toml"), workspace().as_bytes())?;
    // The versions that the SDK was tested with. The first build leaves out those that the plugin does not use.
    write(&directory.join("Cargo.lock"), LOCK.as_bytes())
}

/// Returns the manifest of a workspace that contains the SDK and nothing else.
fn workspace() -> String {
    let kept = WORKSPACE.lines().filter(|line| !["exclude", "default-members"].iter().any(|key| line.starts_with(key)));
    let line = |line: &str| {
        if line.starts_with("members") {
            "members = [\"plugins/sdk\", \"plugins/sdk/pair\"]\n".to_owned()
        } else {
            format!("{line}\n")
        }
    };
    kept.map(line).collect()
}

fn copy(from: &Dir<'_>, to: &Path) -> anyhow::Result<()> {
    for file in from.files() {
        let name = file.path().file_name().unwrap_or_default();
        write(&to.join(name), file.contents())?;
    }
    for directory in from.dirs() {
        let name = directory.path().file_name().unwrap_or_default();
        copy(directory, &to.join(name))?;
    }
    Ok(())
}

/// Writes a file, and makes its directory.
fn write(path: &Path, contents: &[u8]) -> anyhow::Result<()> {
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory).with_context(|| format!("{} cannot be created", directory.display()))?;
    }
    output::write(path, contents)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_plugins() {
        assert!(name("my-judge2").is_ok());
        for bad in ["", "-a", "9a", "A", "a_b", "../a", &"a".repeat(65)] {
            assert!(name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_workspace_of_the_sdk_has_what_the_sdk_asks_for() {
        let workspace = workspace();
        assert!(workspace.contains("\nmembers = [\"plugins/sdk\", \"plugins/sdk/pair\"]\n"), "{workspace}");
        assert!(workspace.contains("\nwit-bindgen = ") && workspace.contains("[workspace.lints"));
    }
}
