//! JavaScript: componentize-js puts a file, what it imports by relative paths, and an engine (StarlingMonkey) into a component.
//!
//! It is a package of Node's: the plugin's `package.json` lists it, and its lock file says which one. `main` there names the file;
//! `policy.js` if it does not.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::tool::Tool;
use crate::world::World;
use crate::{BuildError, read, write};

const NODE: Tool =
    Tool { name: "node", install: "plugins in JavaScript are built with Node 20 or newer: https://nodejs.org" };

/// What runs in Node. It finds the package from the directory that it runs in.
const SCRIPT: &str = include_str!("componentize.js");

/// What wraps the policy, so that an exception or a result of the wrong type becomes a failure and not a trap.
const ENTRY: &str = include_str!("entry.js");

/// What the wrapper takes as the result of a call.
const RETURNED: &str = include_str!("returned.js");
const ENTRY_FILE: &str = ".carillon-entry.js";

const PACKAGE: &str = "node_modules/@bytecodealliance/componentize-js";

/// The file of a package that does not say which.
const MAIN: &str = "policy.js";

pub(crate) fn build(directory: &Path, target: &Path, world: &World) -> Result<Vec<u8>, BuildError> {
    let source = main(directory)?;
    // Where Node looks for it.
    if !directory.ancestors().any(|place| place.join(PACKAGE).exists()) {
        return Err(BuildError::NoPackages(directory.to_owned()));
    }
    let component = target.join("component.wasm");
    let entry = Entry::write(&source, world)?;
    let mut node = Command::new("node");
    node.args(["--input-type=module", "--eval", SCRIPT, "--"]).arg(&entry.0).arg(&world.directory);
    node.arg(world.name()).arg(&component).current_dir(directory);
    NODE.run(&mut node, directory)?;
    read(&component)
}

/// The module that wraps the policy. It lies beside the policy while the component is made, because only from there are its imports found.
struct Entry(PathBuf);

impl Entry {
    fn write(source: &Path, world: &World) -> Result<Self, BuildError> {
        let name = source.file_name().unwrap_or_default().to_string_lossy();
        let mut text = ENTRY.replace("POLICY", &name) + RETURNED;
        for export in world.exports() {
            text.push_str(&format!("export const {export} = role('{export}');\n"));
        }
        // A name of its own for each build would be another component each time.
        let path = source.with_file_name(ENTRY_FILE);
        write(&path, text.as_bytes())?;
        Ok(Self(path))
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        // What is left is hidden, and no source.
        let _ = std::fs::remove_file(&self.0);
    }
}

fn main(directory: &Path) -> Result<PathBuf, BuildError> {
    let manifest = directory.join("package.json");
    let package: serde_json::Value = serde_json::from_slice(&read(&manifest)?)
        .map_err(|error| BuildError::Read { path: manifest, source: error.into() })?;
    let name = package["main"].as_str().unwrap_or(MAIN);
    let path = directory.join(name);
    if !path.is_file() {
        return Err(BuildError::NoMain { directory: directory.to_owned(), expected: name.to_owned() });
    }
    Ok(path)
}
