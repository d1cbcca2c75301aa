//! `carillon plugin dev`: builds a plugin again whenever its sources change, and puts it in force for a group.
//!
//! Versions never change, so each round uploads a draft of the version that the component states: `0.1.0-dev.3` of `0.1.0`. Only a round that
//! was built, passed its golden tests and was accepted changes the group: a failure leaves the previous round in force.
//!
//! Changes are found by reading the files' metadata four times a second: that needs no feature of the system, and a directory of sources is
//! small.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use clap::Args;
use serde_json::{Value, json};

use super::super::{Session, input};
use super::build::{Built, GoldenTests, Sources};
use super::{Version, runtime, signing};
use carillon_client::answer::Members;
use carillon_client::bodies::Page;
use carillon_policy::{Digest, Role, Runtime};

/// Period of the checks for changed files.
const PERIOD: Duration = Duration::from_millis(250);

/// Part of a version that marks it as a draft.
const DRAFT: &str = "dev";

/// Directories without sources.
const NO_SOURCES: [&str; 3] = ["target", "node_modules", "__pycache__"];

/// Extensions of files that a build writes.
const BUILT: [&str; 2] = ["lock", "wasm"];

#[derive(Debug, Args)]
#[command(
    after_long_help = "Each round creates a version of the group's policy, so `carillon policy history` lists all rounds, and `carillon policy rollback`
reverts one. A config and keys that the group has for the plugin stay.

Ctrl-C ends the command, and the version in force stays in force. When the plugin is done, push it under its own version."
)]
pub struct Dev {
    #[command(flatten)]
    sources: Sources,
    /// Group whose policy the plugin becomes a part of.
    #[arg(long)]
    group: String,
    /// Role of the plugin in the policy. Can be repeated. Default: all roles of the plugin.
    #[arg(long = "role", value_parser = super::call::role)]
    roles: Vec<Role>,
    /// Config of the plugin. Default: the config that the group has for it.
    #[arg(long, value_name = "JSON", value_parser = input::json_object)]
    config: Option<Members>,
    /// Key that the plugin may use. Can be repeated, newest first.
    #[arg(long = "key", value_name = "NAME")]
    keys: Vec<String>,
    /// File with an Ed25519 private key in PEM to sign the uploads, for tenants that accept only signed plugins.
    #[arg(long, value_name = "FILE", env = "CARILLON_SIGNING_KEY")]
    signing_key: Option<PathBuf>,
}

/// Plugin that was bound.
struct Bound {
    plugin: String,
    digest: Digest,
}

impl Dev {
    pub(super) async fn run(self, session: &Session) -> anyhow::Result<()> {
        let directory = &self.sources.directory;
        ensure!(directory.is_dir(), "{} is not a directory", directory.display());
        let _: Value = session.client.get(&["groups", &self.group], &[]).await?;
        tokio::select! {
            ended = self.watch(session) => ended,
            signal = tokio::signal::ctrl_c() => Ok(signal?),
        }
    }

    async fn watch(&self, session: &Session) -> anyhow::Result<()> {
        let runtime = runtime()?;
        let look = || files(&self.sources.directory, &self.sources.target_dir());
        let (mut round, mut bound, mut seen) = (0_u64, None, None);
        loop {
            if seen != Some(look()) {
                // An editor may write more than one file.
                tokio::time::sleep(PERIOD).await;
                seen = Some(look());
                round += 1;
                self.round(session, &runtime, round, &mut bound).await?;
            }
            tokio::time::sleep(PERIOD).await;
        }
    }

    /// Runs one round, and returns the line that describes its result.
    async fn round(
        &self,
        session: &Session,
        runtime: &Runtime,
        round: u64,
        bound: &mut Option<Bound>,
    ) -> anyhow::Result<()> {
        let (mut answer, text) = match self.advance(session, runtime, bound).await {
            Ok(answer) => {
                let tests = answer["golden_tests"].as_u64().unwrap_or(0);
                let plugin = answer["plugin"].as_str().unwrap_or_default();
                let text = match answer["version"].as_i64() {
                    Some(version) => {
                        format!("{plugin} is in force: version {version} of {}; golden tests: {tests}", self.group)
                    }
                    None => format!("{plugin} is unchanged"),
                };
                (answer, text)
            }
            Err(error) => {
                let stays = bound
                    .as_ref()
                    .map_or_else(|| "nothing is bound".to_owned(), |it| format!("{} stays in force", it.plugin));
                let error = format!("{error:#}");
                let text = format!("FAIL  {error}; {stays}");
                (json!({ "error": error }), text)
            }
        };
        answer["round"] = round.into();
        if session.out.is_json() {
            session.out.json_line(&answer)
        } else {
            session.out.line(&format!("{round}: {text}"))
        }
    }

    /// Builds, uploads and binds the plugin.
    async fn advance(&self, session: &Session, runtime: &Runtime, bound: &mut Option<Bound>) -> anyhow::Result<Value> {
        let built = self.sources.build(runtime, GoldenTests::Check).await?.proven()?;
        let Built { component, plugin, said, tests, .. } = built;
        let roles = if self.roles.is_empty() { plugin.roles() } else { self.roles.clone() };
        if let Some(role) = roles.iter().find(|role| !plugin.plays(**role)) {
            bail!("{} does not export the role {role}", said.name);
        }
        if let Some(same) = bound.as_ref().filter(|it| it.digest == plugin.digest) {
            return Ok(json!({ "plugin": same.plugin, "digest": same.digest, "golden_tests": tests }));
        }
        let signature = self.signing_key.as_ref().map(|key| signing::sign(key, &component)).transpose()?;
        let version = Version { version: draft(session, &said.name, &said.version).await?, name: said.name };
        session.client.put_component(&version.path(), &[], component.into(), signature.as_deref()).await?;
        let full = format!("{}@{}", version.name, version.version);
        let number = self.bind(session, &full, &roles).await?;
        *bound = Some(Bound { plugin: full.clone(), digest: plugin.digest.clone() });
        let roles: Vec<_> = roles.into_iter().map(Role::as_str).collect();
        Ok(json!({
            "plugin": full, "digest": plugin.digest, "golden_tests": tests, "roles": roles, "group": self.group, "version": number,
        }))
    }

    /// Makes a version of the group's policy with the plugin in it, and puts it in force.
    async fn bind(&self, session: &Session, plugin: &str, roles: &[Role]) -> anyhow::Result<i64> {
        let path = ["groups", &self.group];
        let group: Value = session.client.get(&path, &[]).await?;
        let active = group["binding"].to_string();
        let path = [&path[..], &["policy", "versions"]].concat();
        let version: Value = session.client.get(&[&path[..], &[&active]].concat(), &[]).await?;
        let mut policy = version["policy"].clone();
        for role in roles {
            self.put(&mut policy, *role, plugin);
        }
        policy["why"] = "carillon plugin dev".into();
        let made: Value = session.client.post(&path, &policy).await?;
        let number =
            made["version"].as_i64().context("the server's response does not contain the new version's number")?;
        let promote = json!({ "version": number, "why": "carillon plugin dev" });
        let _: Value = session.client.post(&["groups", &self.group, "policy", "promote"], &promote).await?;
        Ok(number)
    }

    /// Puts the plugin into a policy, in place of another version of it. Otherwise an encoder is appended, and a plugin of another role
    /// replaces the present one.
    fn put(&self, policy: &mut Value, role: Role, plugin: &str) {
        let name = |full: &str| full.split('@').next().map(str::to_owned);
        let is_ours = |used: &Value| used["plugin"].as_str().is_some_and(|bound| name(bound) == name(plugin));
        let used = if role == Role::Encode {
            let mut chain = policy["encode"].as_array().cloned().unwrap_or_default();
            let place = chain.iter().position(is_ours).unwrap_or_else(|| {
                chain.push(Value::Null);
                chain.len() - 1
            });
            policy["encode"] = chain.into();
            &mut policy["encode"][place]
        } else {
            &mut policy[role.as_str()]
        };
        if !is_ours(used) {
            *used = json!({});
        }
        used["plugin"] = plugin.into();
        if let Some(config) = &self.config {
            used["config"] = json!(config);
        }
        if !self.keys.is_empty() && role == Role::Sign {
            used["keys"] = json!(self.keys);
        }
    }
}

/// Returns the version of the next draft of `version`.
async fn draft(session: &Session, name: &str, version: &str) -> anyhow::Result<String> {
    let parsed = semver::Version::parse(version).with_context(|| format!("`{version}` is not a semantic version"))?;
    ensure!(
        parsed.build.is_empty(),
        "`{version}` has build metadata, which a draft cannot have: remove the `+` and the text after it"
    );
    let dot = if parsed.pre.is_empty() { '-' } else { '.' };
    let prefix = format!("{version}{dot}{DRAFT}.");
    let (mut taken, mut cursor) = (BTreeSet::new(), Some(name.to_owned()));
    while let Some(after) = cursor {
        let page: Page = session.client.get(&["plugins"], &[("limit", "1000".to_owned()), ("cursor", after)]).await?;
        let ours = page.items.iter().filter(|plugin| plugin["name"] == name);
        taken.extend(ours.filter_map(|it| it["version"].as_str()?.strip_prefix(&prefix)?.parse::<u32>().ok()));
        cursor = page.next_cursor;
    }
    let next = taken.last().map_or(1, |last| last.saturating_add(1));
    Ok(format!("{prefix}{next}"))
}

/// Returns the sources in a directory, with their lengths and times of change. Build results may be among them, in `target_dir`.
fn files(directory: &Path, target_dir: &Path) -> BTreeMap<PathBuf, (u64, i64, i64)> {
    let target_dir = target_dir.canonicalize().ok();
    let (mut found, mut left) = (BTreeMap::new(), vec![directory.to_owned()]);
    while let Some(directory) = left.pop() {
        // A directory that was removed since it was listed has no sources.
        let Ok(entries) = std::fs::read_dir(&directory) else { continue };
        for entry in entries.flatten() {
            let (path, name) = (entry.path(), entry.file_name());
            let hidden = name.as_encoded_bytes().starts_with(b".");
            let is_built = path.extension().is_some_and(|it| BUILT.iter().any(|kind| it == *kind));
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.is_dir() && !hidden && !NO_SOURCES.iter().any(|it| name == *it) {
                left.extend(Some(path).filter(|path| target_dir.is_none() || path.canonicalize().ok() != target_dir));
            } else if metadata.is_file() && !hidden && !is_built {
                found.insert(path, (metadata.len(), metadata.mtime(), metadata.mtime_nsec()));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dev(config: Option<Value>, keys: &[&str]) -> Dev {
        let keys = keys.iter().map(|it| (*it).to_owned()).collect();
        Dev {
            sources: Sources::default(),
            group: "g".into(),
            roles: Vec::new(),
            config: config.map(|config| serde_json::from_value(config).unwrap()),
            keys,
            signing_key: None,
        }
    }

    #[test]
    fn a_policy_keeps_what_it_says_of_the_plugin_and_of_others() {
        let mut policy = json!({"encode": [{"plugin": "a@1.0.0", "config": {"x": 1}}, {"plugin": "b@1.0.0"}],
            "sign": {"plugin": "s@1.0.0", "keys": ["k"]}, "judge": {"plugin": "other", "config": {"y": 1}}});
        let plain = dev(None, &[]);
        plain.put(&mut policy, Role::Encode, "a@1.0.1-dev.2");
        plain.put(&mut policy, Role::Sign, "s@1.0.1-dev.1");
        plain.put(&mut policy, Role::Judge, "a@1.0.1-dev.2");
        plain.put(&mut policy, Role::Encode, "c@0.1.0-dev.1");
        dev(Some(json!({"z": 2})), &["k"]).put(&mut policy, Role::Retry, "a@1.0.1-dev.2");
        let expected = json!({
            "encode": [{"plugin": "a@1.0.1-dev.2", "config": {"x": 1}}, {"plugin": "b@1.0.0"}, {"plugin": "c@0.1.0-dev.1"}],
            "sign": {"plugin": "s@1.0.1-dev.1", "keys": ["k"]},
            "judge": {"plugin": "a@1.0.1-dev.2"},
            "retry": {"plugin": "a@1.0.1-dev.2", "config": {"z": 2}},
        });
        assert_eq!(policy, expected);
        dev(None, &["l", "k"]).put(&mut policy, Role::Sign, "s@1.0.1-dev.2");
        assert_eq!(policy["sign"], json!({"plugin": "s@1.0.1-dev.2", "keys": ["l", "k"]}));
    }

    #[test]
    fn sources_are_what_people_write() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        for name in ["src/lib.rs", "Cargo.toml", "golden/first.json"] {
            write(name, "a");
        }
        let files = || files(dir.path(), &dir.path().join("built"));
        let before = files();
        assert_eq!(before.len(), 3);
        for name in
            ["target/x", ".git/x", "Cargo.lock", "x.wasm", "node_modules/x/y.js", "src/.lib.rs.swp", "built/x.rs"]
        {
            write(name, "a");
        }
        assert_eq!(files(), before);
        write("src/lib.rs", "ab");
        assert_ne!(files(), before);
    }
}
