//! Which language a plugin is written in: what lies in its directory says so.

use std::path::{Path, PathBuf};

use crate::BuildError;

/// A language that plugins are built from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Language {
    /// A crate.
    Rust,
    /// A package whose main file exports the roles.
    JavaScript,
    /// Every `.c` file of the directory.
    C,
    /// A module whose classes are the roles.
    Python,
}

impl Language {
    /// The language of the plugin in a directory: `Cargo.toml` before `package.json`, `package.json` before `*.c`, and those before
    /// `*.py`, since a plugin may have a script or two beside it.
    ///
    /// # Errors
    /// If the directory cannot be read, or holds none of them.
    pub fn detect(directory: &Path) -> Result<Self, BuildError> {
        if directory.join("Cargo.toml").exists() {
            return Ok(Self::Rust);
        }
        if directory.join("package.json").exists() {
            return Ok(Self::JavaScript);
        }
        for (language, extension) in [(Self::C, "c"), (Self::Python, "py")] {
            if !files(directory, extension)?.is_empty() {
                return Ok(language);
            }
        }
        Err(BuildError::NoSource(directory.to_owned()))
    }
}

/// The files of a directory with this extension, by name.
pub(crate) fn files(directory: &Path, extension: &str) -> Result<Vec<PathBuf>, BuildError> {
    let unusable = |source| BuildError::NotADirectory { directory: directory.to_owned(), source };
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(unusable)? {
        let path = entry.map_err(unusable)?.path();
        if path.is_file() && path.extension().is_some_and(|it| it == extension) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::fs::write;

    use super::Language;
    use crate::BuildError;

    #[test]
    fn what_is_there_says_the_language() {
        let directory = tempfile::tempdir().expect("a directory");
        assert!(matches!(Language::detect(directory.path()), Err(BuildError::NoSource(_))));
        for (file, language) in [
            ("README.md", None),
            ("judge.py", Some(Language::Python)),
            ("judge.c", Some(Language::C)),
            ("package.json", Some(Language::JavaScript)),
            ("Cargo.toml", Some(Language::Rust)),
        ] {
            write(directory.path().join(file), "").expect("a file");
            assert_eq!(Language::detect(directory.path()).ok(), language, "with {file}");
        }
    }
}
