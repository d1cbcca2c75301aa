//! Rust: a nested cargo compiles the crate to a core module, which becomes a component by the types that the SDK left in it.
//!
//! A crate is built for `wasm32-unknown-unknown`, unless it says `target = "wasm32-wasip2"` in `[package.metadata.carillon]`: then the
//! linker makes the component, which imports what its standard library needs of WASI 0.2.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::environment;
use crate::tool::Tool;
use crate::toolchain::{Target, Toolchain};
use crate::{BuildError, encode, read};

const CARGO: Tool = Tool { name: "cargo", install: "install Rust: https://rustup.rs" };

/// How a component begins; a core module does otherwise.
const COMPONENT: &[u8] = b"\0asm\x0d\0\x01\0";

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

/// What cargo says of the crate.
struct Crate {
    workspace: PathBuf,
    target: Target,
}

pub(crate) fn build(directory: &Path, target_dir: &Path, toolchain: Option<Toolchain>) -> Result<Vec<u8>, BuildError> {
    let made = describe(directory)?;
    let toolchain = match toolchain {
        Some(toolchain) => toolchain,
        None => Toolchain::choose(directory, made.target)?,
    };
    let built = read(&compile(toolchain, directory, target_dir, &made)?)?;
    if built.starts_with(COMPONENT) { Ok(built) } else { encode(&built) }
}

fn describe(directory: &Path) -> Result<Crate, BuildError> {
    let mut cargo = Toolchain::Rustup.cargo(directory);
    let said = CARGO.run(cargo.args(["metadata", "--no-deps", "--format-version", "1"]), directory)?;
    let said: Value = serde_json::from_str(&said).unwrap_or_default();
    let manifest = directory.join("Cargo.toml");
    let mut packages = said["packages"].as_array().into_iter().flatten();
    let own = packages.find(|package| package["manifest_path"].as_str().map(Path::new) == Some(&manifest));
    let target = own.and_then(|package| package["metadata"]["carillon"]["target"].as_str());
    Ok(Crate {
        workspace: said["workspace_root"].as_str().map_or_else(|| directory.to_owned(), PathBuf::from),
        target: target.map_or(Ok(Target::default()), Target::named)?,
    })
}

/// Compiles the crate and returns where its module, or component, is.
fn compile(toolchain: Toolchain, directory: &Path, target_dir: &Path, made: &Crate) -> Result<PathBuf, BuildError> {
    let mut flags = environment::encoded_rustflags(&made.workspace, environment::cargo_home().as_deref(), target_dir);
    for flag in toolchain.rustflags(made.target) {
        flags.push('\u{1f}');
        flags.push_str(flag);
    }
    let mut cargo = toolchain.cargo(directory);
    cargo.args(["build", "--lib", "--profile", "guest", "--message-format", "json-render-diagnostics"]);
    cargo.args(["--target", made.target.as_str()]).args(toolchain.arguments()).arg("--target-dir").arg(target_dir);
    cargo.env("CARGO_ENCODED_RUSTFLAGS", flags);
    if !has_guest_profile(&made.workspace) {
        for setting in PROFILE {
            cargo.args(["--config", setting]);
        }
    }
    let messages = CARGO.run(&mut cargo, directory)?;
    module_path(&messages, directory).ok_or_else(|| BuildError::NoModule(directory.to_owned()))
}

/// Whether the workspace says itself how its guests are compiled. A manifest that cannot be read is cargo's to report.
pub(crate) fn has_guest_profile(workspace: &Path) -> bool {
    std::fs::read_to_string(workspace.join("Cargo.toml"))
        .is_ok_and(|text| text.lines().any(|line| line.trim_start().starts_with("[profile.guest]")))
}

/// The module among cargo's messages (one JSON object a line) that was built from the crate in `directory`.
pub(crate) fn module_path(messages: &str, directory: &Path) -> Option<PathBuf> {
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
