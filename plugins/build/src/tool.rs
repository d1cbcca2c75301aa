//! Runs the programs that build.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::BuildError;

/// A program, and how to get it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tool {
    /// The name that errors use.
    pub(crate) name: &'static str,
    /// The rest of a sentence that says that it is not there.
    pub(crate) install: &'static str,
}

impl Tool {
    /// Runs it to its end and returns what it printed; what it complained about goes to standard error.
    pub(crate) fn run(self, command: &mut Command, directory: &Path) -> Result<String, BuildError> {
        let program = self.name.to_owned();
        let output = match command.stdin(Stdio::null()).stderr(Stdio::inherit()).output() {
            Ok(output) => output,
            Err(source) => return Err(BuildError::Start { program, install: self.install, source }),
        };
        if !output.status.success() {
            return Err(BuildError::Compiler { program, directory: directory.to_owned(), status: output.status });
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}
