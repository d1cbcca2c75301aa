//! Builds a plugin crate to a WebAssembly component.
//!
//! A nested cargo compiles the crate to a core module, and `wit-component` turns that into a component by the types that the
//! SDK left in its custom sections. The server's own build, `carillon plugin build` and the tests share this one way.
//!
//! Invariants: the same sources, `Cargo.lock` and compiler give the same bytes in any directory; the nested cargo shares
//! neither target directory nor environment with an outer one. Path dependencies outside the crate's workspace are the
//! exception: cargo mixes their absolute paths into symbol names.
//!
//! It fails with a sentence that says what to run or to change; the compiler's own messages go to standard error.

mod environment;
mod toolchain;

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use wit_component::ComponentEncoder;

pub use toolchain::Toolchain;

/// How a guest is compiled if its workspace has no `[profile.guest]`: small and fast to instantiate, with the names kept so
/// that a trap can say where it happened.
const PROFILE: [&str; 9] = [
    "profile.guest.inherits='release'",
    "profile.guest.opt-level=2",
    "profile.guest.debug=false",
    "profile.guest.lto='fat'",
    "profile.guest.codegen-units=1",
    "profile.guest.panic='abort'",
    "profile.guest.incremental=false",
    "profile.guest.overflow-checks=true",
    "profile.guest.strip='debuginfo'",
];

/// What to build, and where.
#[derive(Clone, Debug)]
pub struct BuildRequest {
    /// The directory of the crate's `Cargo.toml`. The crate must have the crate type `cdylib`.
    pub manifest_dir: PathBuf,
    /// Where cargo keeps its intermediate files; must not be the target directory of a cargo that is running.
    pub target_dir: PathBuf,
    /// None means [`Toolchain::choose`].
    pub toolchain: Option<Toolchain>,
}

/// Why there is no component.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// Neither way to compile for WebAssembly is installed.
    #[error(
        "no Rust compiler here can compile for wasm32-unknown-unknown; run `script/bootstrap`, or `rustup target add wasm32-unknown-unknown`, \
         or, on Debian, `apt-get install rustc-web cargo-web rust-web-src rust-web-llvm lld-22`"
    )]
    NoToolchain,
    /// The variable that forces a toolchain has an unknown value.
    #[error("CARILLON_GUEST_TOOLCHAIN is `{0}`, but must be `rustup` or `debian`")]
    UnknownToolchain(String),
    /// The directory holds no crate.
    #[error("{} is not the directory of a crate: {source}", directory.display())]
    NotACrate {
        /// As it was asked for.
        directory: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A program could not be started.
    #[error("cargo could not be started: {0}")]
    Start(#[source] io::Error),
    /// The compiler found errors. They were written to standard error.
    #[error("cargo could not build the plugin in {} ({status}); its messages are above", directory.display())]
    Cargo {
        /// The crate's directory.
        directory: PathBuf,
        /// How cargo ended.
        status: std::process::ExitStatus,
    },
    /// The build gave no module.
    #[error("the crate in {} builds to no WebAssembly module; add `crate-type = [\"cdylib\"]` to its `[lib]` table", .0.display())]
    NoModule(PathBuf),
    /// The module vanished between cargo and us.
    #[error("{} cannot be read: {source}", path.display())]
    Read {
        /// The module.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The module does not fit the interface, such as one whose plugin type was never passed to `export!`.
    #[error("the module is not a plugin: {0}")]
    NotAComponent(String),
}

/// Builds a crate to a component.
///
/// # Errors
/// See [`BuildError`].
pub fn build(request: &BuildRequest) -> Result<Vec<u8>, BuildError> {
    let not_a_crate = |source| BuildError::NotACrate { directory: request.manifest_dir.clone(), source };
    let directory = request.manifest_dir.canonicalize().map_err(not_a_crate)?;
    let target_dir = std::path::absolute(&request.target_dir).map_err(not_a_crate)?;
    let toolchain = match request.toolchain {
        Some(toolchain) => toolchain,
        None => Toolchain::choose(&directory)?,
    };
    let module = compile(toolchain, &directory, &target_dir)?;
    let bytes = std::fs::read(&module).map_err(|source| BuildError::Read { path: module, source })?;
    encode(&bytes).map_err(|error| BuildError::NotAComponent(format!("{error:#}")))
}

/// Turns a core module with the SDK's custom sections into a validated component.
fn encode(module: &[u8]) -> anyhow::Result<Vec<u8>> {
    ComponentEncoder::default().validate(true).module(module)?.encode()
}

/// Compiles the crate and returns where its module is.
fn compile(toolchain: Toolchain, directory: &Path, target_dir: &Path) -> Result<PathBuf, BuildError> {
    let workspace_manifest = workspace_manifest(toolchain, directory)?;
    let workspace = workspace_manifest.parent().unwrap_or(directory);
    let flags = environment::encoded_rustflags(workspace, environment::cargo_home().as_deref(), target_dir);
    let mut cargo = toolchain.cargo(directory);
    cargo.args([
        "build",
        "--lib",
        "--profile",
        "guest",
        "--message-format",
        "json-render-diagnostics",
        "--target",
        toolchain::TARGET,
    ]);
    cargo.args(toolchain.arguments()).arg("--target-dir").arg(target_dir).env("CARGO_ENCODED_RUSTFLAGS", flags);
    if !has_guest_profile(&workspace_manifest) {
        for setting in PROFILE {
            cargo.args(["--config", setting]);
        }
    }
    let messages = stdout_of(cargo, directory)?;
    module_path(&messages, directory).ok_or_else(|| BuildError::NoModule(directory.to_owned()))
}

fn workspace_manifest(toolchain: Toolchain, directory: &Path) -> Result<PathBuf, BuildError> {
    let mut cargo = toolchain.cargo(directory);
    cargo.args(["locate-project", "--workspace", "--message-format", "plain"]);
    Ok(PathBuf::from(stdout_of(cargo, directory)?.trim_end()))
}

/// Whether the workspace says itself how its guests are compiled. A manifest that cannot be read is cargo's to report.
fn has_guest_profile(manifest: &Path) -> bool {
    std::fs::read_to_string(manifest)
        .is_ok_and(|text| text.lines().any(|line| line.trim_start().starts_with("[profile.guest]")))
}

fn stdout_of(mut cargo: Command, directory: &Path) -> Result<String, BuildError> {
    let output = cargo.stdin(Stdio::null()).stderr(Stdio::inherit()).output().map_err(BuildError::Start)?;
    if !output.status.success() {
        return Err(BuildError::Cargo { directory: directory.to_owned(), status: output.status });
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The module among cargo's messages (one JSON object a line) that was built from the crate in `directory`.
fn module_path(messages: &str, directory: &Path) -> Option<PathBuf> {
    let manifest = directory.join("Cargo.toml");
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter(|message| {
            message["reason"] == "compiler-artifact"
                && message["manifest_path"].as_str().map(Path::new) == Some(&manifest)
        })
        .filter_map(|message| message["filenames"].as_array().cloned())
        .flatten()
        .filter_map(|name| name.as_str().map(PathBuf::from))
        .find(|path| path.extension().is_some_and(|extension| extension == "wasm"))
}

#[cfg(test)]
mod tests;
