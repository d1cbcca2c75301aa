//! Builds a plugin to a WebAssembly component.
//!
//! What is in the plugin's directory says which language it is written in, and one module for each turns it into a component: Rust by
//! a nested cargo, C by clang, JavaScript and Python by the tools that put their runtimes into a component. The server's own build,
//! `carillon plugin build` and the tests share this one way.
//!
//! Invariants, for Rust and C: the same sources, `Cargo.lock` and compiler give the same bytes in any directory; a nested cargo shares
//! neither target directory nor environment with an outer one. Path dependencies outside the crate's workspace are the
//! exception: cargo mixes their absolute paths into symbol names.
//!
//! It fails with a sentence that says what to run or to change; the compiler's own messages go to standard error.

mod c;
mod environment;
mod error;
mod javascript;
mod language;
mod python;
mod rust;
mod tool;
mod toolchain;
mod world;

use std::path::{Path, PathBuf};

use wit_component::ComponentEncoder;

pub use error::BuildError;
pub use language::Language;
pub use toolchain::{Target, Toolchain};
pub use world::WIT;

use world::World;

/// What to build, and where.
#[derive(Clone, Debug)]
pub struct BuildRequest {
    /// The directory of the plugin: that of a crate's `Cargo.toml`, of a `package.json`, of `*.c` or of `*.py`. A crate must have the
    /// crate type `cdylib`; in the other languages `policy.wit` says which roles the plugin plays.
    pub manifest_dir: PathBuf,
    /// Where intermediate files are kept; must not be the target directory of a cargo that is running. In the languages other than
    /// Rust, plugins that share it must not have directories of the same name.
    pub target_dir: PathBuf,
    /// What compiles Rust. None means [`Toolchain::choose`].
    pub toolchain: Option<Toolchain>,
}

/// Builds a plugin to a component.
///
/// # Errors
/// See [`BuildError`].
pub fn build(request: &BuildRequest) -> Result<Vec<u8>, BuildError> {
    let unusable = |source| BuildError::NotADirectory { directory: request.manifest_dir.clone(), source };
    let directory = request.manifest_dir.canonicalize().map_err(unusable)?;
    let target_dir = std::path::absolute(&request.target_dir).map_err(unusable)?;
    let with_world = |build: fn(&Path, &Path, &World) -> Result<Vec<u8>, BuildError>| {
        let own = target_dir.join(directory.file_name().unwrap_or_default());
        build(&directory, &own, &World::write(&directory, &own)?)
    };
    match Language::detect(&directory)? {
        Language::Rust => rust::build(&directory, &target_dir, request.toolchain),
        Language::C => with_world(c::build),
        Language::JavaScript => with_world(javascript::build),
        Language::Python => with_world(python::build),
    }
}

/// Turns a core module, which says in its custom sections what its types are, into a validated component.
fn encode(module: &[u8]) -> Result<Vec<u8>, BuildError> {
    let encoded = ComponentEncoder::default().validate(true).module(module).and_then(|mut encoder| encoder.encode());
    encoded.map_err(|error| BuildError::NotAComponent(format!("{error:#}")))
}

fn read(path: &Path) -> Result<Vec<u8>, BuildError> {
    std::fs::read(path).map_err(|source| BuildError::Read { path: path.to_owned(), source })
}

/// Writes a file, and makes its directory.
fn write(path: &Path, contents: &[u8]) -> Result<(), BuildError> {
    let unwritten = |source| BuildError::Write { path: path.to_owned(), source };
    std::fs::create_dir_all(path.parent().unwrap_or(path)).map_err(unwritten)?;
    std::fs::write(path, contents).map_err(unwritten)
}

#[cfg(test)]
mod tests;
