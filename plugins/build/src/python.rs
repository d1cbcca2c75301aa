//! Python: componentize-py puts a module, what it imports, and CPython into a component.
//!
//! WASI is taken out (`--stub-wasi`): CPython would import sockets, which a server refuses. So a policy takes the time and randomness
//! from its arguments.

use std::path::Path;
use std::process::Command;

use crate::tool::Tool;
use crate::world::World;
use crate::{BuildError, language, read};

const COMPONENTIZE_PY: Tool = Tool {
    name: "componentize-py",
    install: "install it with `pip install componentize-py==0.25.0`, into the plugin's own `.venv` or into one that is active",
};

/// The module of a plugin that consists of several.
const MAIN: &str = "policy.py";

pub(crate) fn build(directory: &Path, target: &Path, world: &World) -> Result<Vec<u8>, BuildError> {
    let module = module(directory)?;
    let component = target.join("component.wasm");
    let own = directory.join(".venv/bin").join(COMPONENTIZE_PY.name);
    let mut tool = Command::new(if own.exists() { own.as_path() } else { Path::new(COMPONENTIZE_PY.name) });
    tool.arg("--quiet").arg("--wit-path").arg(&world.directory).args(["--world", world.name()]);
    tool.args(["componentize", "--stub-wasi", &module, "--output"]).arg(&component).current_dir(directory);
    COMPONENTIZE_PY.run(&mut tool, directory)?;
    read(&component)
}

/// The name of the module that has the roles.
fn module(directory: &Path) -> Result<String, BuildError> {
    let files = language::files(directory, "py")?;
    let main = files.iter().find(|file| files.len() == 1 || file.ends_with(MAIN));
    let stem = main.and_then(|file| Some(file.file_stem()?.to_string_lossy().into_owned()));
    stem.ok_or_else(|| BuildError::NoMain { directory: directory.to_owned(), expected: MAIN.to_owned() })
}
