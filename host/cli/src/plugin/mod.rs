//! `carillon plugin`: creates, tries and manages the components of policies.

mod anatomy;
mod bench;
mod build;
mod call;
mod dev;
mod golden;
mod inspect;
mod oci;
mod scaffold;
mod signing;
mod template;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{Paging, Session, input, local, output};
use carillon_client::answer::Answer;
use carillon_config::{Config, Sources};
use carillon_policy::{CallResult, CallUsage, Description, Plugin, Runtime};

#[derive(Debug, Subcommand)]
pub enum Command {
    /// List plugins.
    List {
        #[command(flatten)]
        choice: Choice,
        #[command(flatten)]
        paging: Paging,
    },
    /// List the versions of a plugin, newest first.
    Versions {
        /// Name of the plugin.
        plugin: String,
        #[command(flatten)]
        choice: Choice,
        #[command(flatten)]
        paging: Paging,
    },
    /// Show a plugin's roles, summary and config schema.
    Describe {
        /// NAME, NAME@VERSION, or a local component: a path that contains `/` or ends in `.wasm`.
        plugin: Reference,
        #[command(flatten)]
        choice: Choice,
    },
    /// Show everything about a component, and whether a server would accept it.
    Inspect(inspect::Inspect),
    /// Create a plugin: a directory that builds and passes its tests.
    New(scaffold::New),
    /// Build a plugin in Rust, C, JavaScript or Python into a component, and load it as an upload would.
    Build(build::Build),
    /// Rebuild a plugin whenever its sources change, and put it in force for a group.
    Dev(dev::Dev),
    /// Call a local component once, with the engine and the limits of the server.
    #[command(after_long_help = call::EXAMPLES)]
    Run(call::Call),
    /// Run golden tests with a local component.
    #[command(after_long_help = golden::FORM)]
    Test(golden::Test),
    /// Measure a call of a local component.
    Bench(bench::Bench),
    /// Upload a component as a new version of a plugin, or to an OCI registry.
    Push {
        /// NAME@VERSION, which must not exist, or oci://HOST/REPOSITORY:TAG.
        plugin: Place,
        /// Component to upload; `-` reads standard input.
        file: PathBuf,
        /// File with an Ed25519 private key in PEM to sign the upload, for tenants that accept only signed plugins.
        #[arg(long, value_name = "FILE", env = "CARILLON_SIGNING_KEY")]
        signing_key: Option<PathBuf>,
        #[command(flatten)]
        sharing: Sharing,
        #[command(flatten)]
        login: oci::Login,
    },
    /// Share a shared version with other tenants than before, for operators; fails while one that would lose it uses it.
    Share {
        /// NAME@VERSION.
        plugin: Version,
        #[command(flatten)]
        sharing: Sharing,
    },
    /// Create a key for signing uploads, and print its public key for `carillon tenant put --plugin-signer`.
    Keygen(signing::Keygen),
    /// Download the component of a version, or one from an OCI registry.
    Pull {
        /// NAME@VERSION, or oci://HOST/REPOSITORY with :TAG or @sha256:DIGEST.
        plugin: Place,
        /// File to write; `-` is standard output.
        file: PathBuf,
        #[command(flatten)]
        login: oci::Login,
    },
    /// Mark a version as deprecated; groups that bind it continue, with a warning.
    Deprecate {
        /// NAME@VERSION.
        plugin: Version,
        #[command(flatten)]
        choice: Choice,
        #[command(flatten)]
        deprecation: Deprecation,
    },
    /// Delete an unused version.
    Delete {
        /// NAME@VERSION.
        plugin: Version,
        #[command(flatten)]
        choice: Choice,
    },
}

/// Choice between the tenant's plugins and those that are shared.
#[derive(Debug, Args)]
pub struct Choice {
    /// Take the plugins that are shared with tenants, for operators.
    #[arg(long)]
    shared: bool,
}

impl Choice {
    fn query(&self) -> Vec<(&'static str, String)> {
        if self.shared { vec![("shared", true.to_string())] } else { Vec::new() }
    }
}

/// Tenants to share a version with.
#[derive(Debug, Args)]
#[group(multiple = false)]
pub struct Sharing {
    /// Share the version with all tenants, including later ones, for operators.
    #[arg(long)]
    all_tenants: bool,
    /// Share the version with these tenants, separated by commas, for operators.
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    tenants: Vec<String>,
}

impl Sharing {
    /// Returns the tenants as `PUT` takes them; `None` if the version is not to be shared.
    fn tenants(&self) -> Option<String> {
        if self.all_tenants { Some("*".to_owned()) } else { (!self.tenants.is_empty()).then(|| self.tenants.join(",")) }
    }
}

/// Whether a version is deprecated.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct Deprecation {
    /// Reason for the deprecation.
    #[arg(long)]
    why: Option<String>,
    /// Remove the mark.
    #[arg(long)]
    undo: bool,
}

/// Name of a plugin, with or without a version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    name: String,
    version: Option<String>,
}

impl Reference {
    fn is_file(&self) -> bool {
        let path = Path::new(&self.name);
        self.version.is_none() && (self.name.contains('/') || path.extension().is_some_and(|it| it == "wasm"))
    }
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

/// Name and version of a plugin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    name: String,
    version: String,
}

impl Version {
    fn path(&self) -> [&str; 4] {
        ["plugins", &self.name, "versions", &self.version]
    }
}

impl FromStr for Version {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let Reference { name, version } = text.parse()?;
        Ok(Self { name, version: version.ok_or("this is not NAME@VERSION")? })
    }
}

/// Location of a component: a server or a registry.
#[derive(Clone, Debug)]
pub enum Place {
    Server(Version),
    Registry(oci::Reference),
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if oci::Reference::is_meant(text) { text.parse().map(Self::Registry) } else { text.parse().map(Self::Server) }
    }
}

/// Members of a plugin that a record shows first.
const FIRST: [&str; 4] = ["name", "version", "roles", "summary"];

const LIST: [(&str, &str); 6] = [
    ("NAME", "/name"),
    ("VERSION", "/version"),
    ("ROLES", "/roles"),
    ("BUILT IN", "/builtin"),
    ("SHARED", "/shared"),
    ("SUMMARY", "/summary"),
];

const VERSIONS: [(&str, &str); 6] = [
    ("VERSION", "/version"),
    ("STATE", "/state"),
    ("VALIDATED", "/validated_at"),
    ("SIGNED BY", "/signed_by"),
    ("DEPRECATED", "/deprecated"),
    ("DIGEST", "/digest"),
];

impl Command {
    pub(super) async fn run(self, session: &Session) -> anyhow::Result<()> {
        match self {
            Self::List { choice, paging } => session.list(&["plugins"], choice.query(), &paging, &LIST).await,
            Self::Versions { plugin, choice, paging } => {
                session.list(&["plugins", &plugin, "versions"], choice.query(), &paging, &VERSIONS).await
            }
            Self::Describe { plugin, .. } if plugin.is_file() => {
                let runtime = runtime()?;
                let file = PathBuf::from(plugin.name);
                let loaded = local::load(&runtime, &file).await?;
                let (said, _) = describe(&runtime, &loaded)?;
                session.out.answer_with(&FIRST, &record(&loaded, said, std::fs::metadata(&file)?.len()))
            }
            Self::Inspect(inspect) => inspect.run(session).await,
            Self::New(new) => new.run(session),
            Self::Build(build) => build.run(session).await,
            Self::Dev(dev) => dev.run(session).await,
            Self::Run(call) => call.run(session).await,
            Self::Test(test) => test.run(session).await,
            Self::Bench(bench) => bench.run(session).await,
            Self::Describe { plugin, choice } => {
                let mut path = vec!["plugins", plugin.name.as_str()];
                path.extend(plugin.version.iter().flat_map(|version| ["versions", version]));
                let description: Answer = session.client.get(&path, &choice.query()).await?;
                session.out.answer_with(&FIRST, &description)
            }
            Self::Keygen(keygen) => keygen.run(session),
            Self::Push { plugin, file, signing_key, sharing, login } => {
                let component = input::bytes(&file)?;
                let stored = match plugin {
                    Place::Server(plugin) => {
                        let signature = signing_key.map(|key| signing::sign(&key, &component)).transpose()?;
                        let query: Vec<_> = sharing.tenants().map(|tenants| ("tenants", tenants)).into_iter().collect();
                        session.client.put_component(&plugin.path(), &query, component, signature.as_deref()).await?
                    }
                    Place::Registry(_) if sharing.tenants().is_some() => {
                        bail!("a version in a registry is shared with no tenants: push it to the server")
                    }
                    Place::Registry(reference) => oci::push(&reference, &login, component).await?.try_into()?,
                };
                session.out.answer(&stored)
            }
            Self::Pull { plugin, file, login } => {
                let (bytes, shown) = match plugin {
                    Place::Server(plugin) => (download(session, &plugin).await?, None),
                    Place::Registry(reference) => {
                        let (bytes, shown) = oci::pull(&reference, &login).await?;
                        (bytes, Some(shown))
                    }
                };
                if file.to_str() == Some(input::STDIN) {
                    return Ok(std::io::stdout().write_all(&bytes)?);
                }
                output::write(&file, &bytes)?;
                shown.map_or(Ok(()), |shown| session.out.answer(&shown))
            }
            Self::Share { plugin, sharing } => {
                let names = sharing.tenants().context("name the tenants: `--tenants NAMES`, or `--all-tenants`")?;
                let tenants = (!sharing.all_tenants).then_some(&sharing.tenants);
                let (query, patch) = (Choice { shared: true }.query(), json!({ "tenants": tenants }));
                let answer = session.client.patch(&plugin.path(), &query, &patch).await?;
                let with = if sharing.all_tenants { "all tenants" } else { names.as_str() };
                session.done(&answer, &format!("{}@{}: shared with {with}", plugin.name, plugin.version))
            }
            Self::Deprecate { plugin, choice, deprecation: Deprecation { why, .. } } => {
                let patch = json!({ "deprecated": why });
                let answer = session.client.patch(&plugin.path(), &choice.query(), &patch).await?;
                let now = if why.is_some() { "deprecated" } else { "no longer deprecated" };
                session.done(&answer, &format!("{}@{}: {now}", plugin.name, plugin.version))
            }
            Self::Delete { plugin, choice } => {
                let answer = session.client.delete_with(&plugin.path(), &choice.query()).await?;
                session.done(&answer, &format!("{}@{}: deleted", plugin.name, plugin.version))
            }
        }
    }
}

/// Downloads a version's component.
async fn download(session: &Session, plugin: &Version) -> anyhow::Result<Vec<u8>> {
    let path = plugin.path();
    let path = [&path[..], &["component"]].concat();
    Ok(session.client.open(&path, &[], None).await?.bytes().await?.into())
}

/// Starts a runtime for one call at a time, with the limits that a server with this configuration would have.
fn runtime() -> anyhow::Result<Runtime> {
    local::runtime(&Config::load(Sources::of_process(None, Vec::new())?)?, 1)
}

/// Asks a component for its description, and returns it with the usage of the call.
fn describe(runtime: &Runtime, plugin: &Plugin) -> anyhow::Result<(Description, CallUsage)> {
    let CallResult { result, usage } = plugin.describe(&runtime.limits);
    let said = result.map_err(|fault| anyhow::anyhow!("the call of `describe` failed: {fault}"))?;
    Ok((said, usage))
}

/// Makes the record that a server would show of a component.
fn record(plugin: &Plugin, said: Description, size: u64) -> Value {
    let schema = serde_json::from_str(&said.config_schema).unwrap_or(Value::String(said.config_schema));
    json!({
        "name": said.name,
        "version": said.version,
        "roles": plugin.roles(),
        "summary": said.summary,
        "digest": plugin.digest,
        "size": size,
        "config_schema": schema,
    })
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
        let is_file = |text: &str| text.parse::<Reference>().unwrap().is_file();
        assert!(is_file("a.wasm") && is_file("./a") && !is_file("a") && !is_file("a@1.0.0"));
    }
}
