//! Python: componentize-py puts a module, what it imports, and CPython into a component.
//!
//! WASI is taken out (`--stub-wasi`): CPython would import sockets, which a server refuses. So a policy takes the time and randomness
//! from its arguments, and what it prints goes to the log by `entry.py`.

use std::path::Path;
use std::process::Command;

use crate::tool::Tool;
use crate::world::World;
use crate::{BuildError, language, read, write};

const COMPONENTIZE_PY: Tool = Tool {
    name: "componentize-py",
    install: "install it with `pip install componentize-py==0.25.0`, into the plugin's own `.venv` or into one that is active",
};

/// What wraps the policy's module, so that what it prints becomes log lines, and an exception or a result of the wrong type a failure and not a trap.
const ENTRY: &str = include_str!("entry.py");

/// What the wrapper takes as the result of a call.
const RETURNED: &str = include_str!("returned.py");
const RETURNED_FILE: &str = "carillon_returned.py";
const ENTRY_MODULE: &str = "carillon_entry";
const ENTRY_FILE: &str = "carillon_entry.py";

/// The module of a plugin that consists of several.
const MAIN: &str = "policy.py";

pub(crate) fn build(directory: &Path, target: &Path, world: &World) -> Result<Vec<u8>, BuildError> {
    let entry = target.join("entry");
    write(&entry.join(ENTRY_FILE), ENTRY.replace("carillon_policy_module", &module(directory)?).as_bytes())?;
    write(&entry.join(RETURNED_FILE), RETURNED.as_bytes())?;
    let component = target.join("component.wasm");
    let own = directory.join(".venv/bin").join(COMPONENTIZE_PY.name);
    let mut tool = Command::new(if own.exists() { own.as_path() } else { Path::new(COMPONENTIZE_PY.name) });
    tool.arg("--quiet").arg("--wit-path").arg(&world.directory).args(["--world", world.name()]);
    tool.args(["componentize", "--stub-wasi", "--python-path", "."]).arg("--python-path").arg(&entry);
    tool.args([ENTRY_MODULE, "--output"]).arg(&component).current_dir(directory);
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
