//! Which roles a plugin plays: `policy.wit` in its directory, a world that includes those of the interface.
//!
//! The interface itself comes from this crate, so that a plugin's directory holds nothing of it, and what it is built against is what
//! this program accepts. Rust has no such file: there `export!` says the roles.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use include_dir::{Dir, include_dir};
use wit_bindgen_core::wit_parser::{Resolve, WorldId, WorldKey};

use crate::{BuildError, read, write};

/// The policy interface, as `wit/` has it.
pub static WIT: Dir<'static> = include_dir!("$CARGO_MANIFEST_DIR/../../wit");

/// The file that says which roles a plugin plays.
const FILE: &str = "policy.wit";

/// The world of a plugin.
pub(crate) struct World {
    /// The world, among everything that it refers to.
    pub(crate) resolve: Resolve,
    pub(crate) id: WorldId,
    /// The same as files, for the tools that read them.
    pub(crate) directory: PathBuf,
}

impl World {
    /// Reads the world of the plugin in `directory`, and writes it below `target` together with the interface.
    pub(crate) fn write(directory: &Path, target: &Path) -> Result<Self, BuildError> {
        let file = directory.join(FILE);
        if !file.exists() {
            return Err(BuildError::NoWorld(file));
        }
        let wit = target.join("wit");
        // What an earlier version of this program left may not be a part of the interface any more.
        match std::fs::remove_dir_all(&wit) {
            Err(source) if source.kind() != ErrorKind::NotFound => return Err(BuildError::Write { path: wit, source }),
            _ => {}
        }
        write(&wit.join(FILE), &read(&file)?)?;
        for part in WIT.files() {
            write(&wit.join("deps/carillon-policy").join(part.path()), part.contents())?;
        }
        let mut resolve = Resolve::default();
        let world = resolve.push_dir(&wit).and_then(|(package, _)| resolve.select_world(&[package], None));
        match world {
            Ok(id) => Ok(Self { resolve, id, directory: wit }),
            Err(error) => Err(BuildError::World(resolve.render_error(&error))),
        }
    }

    /// The names of the interfaces that it exports: `meta`, and its roles.
    pub(crate) fn exports(&self) -> Vec<&str> {
        let exports = self.resolve.worlds[self.id].exports.keys();
        let interfaces = exports.filter_map(|key| match key {
            WorldKey::Interface(id) => self.resolve.interfaces[*id].name.as_deref(),
            WorldKey::Name(name) => Some(name.as_str()),
        });
        interfaces.collect()
    }

    /// Its name.
    pub(crate) fn name(&self) -> &str {
        &self.resolve.worlds[self.id].name
    }
}
