//! The rules of style that a program can check.

mod circles;
mod crates;
mod imports;
mod supply;
mod words;

use std::path::{Path, PathBuf};

/// The longest file without its unit tests, in lines.
const FILE_LINES: usize = 400;

/// A file of the repository.
struct Source {
    path: String,
    text: String,
}

impl Source {
    /// The file without its unit tests.
    fn product(&self) -> &str {
        let tests = self.text.find("#[cfg(test)]\nmod tests {");
        &self.text[..tests.unwrap_or(self.text.len())]
    }

    /// Whether all of it is tests.
    fn is_test(&self) -> bool {
        ["tests/", "/hostile/", "/conformance/", "/tests.rs", "/benches/"].iter().any(|part| self.path.contains(part))
    }
}

fn root() -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")).to_owned()
}

/// All files of these kinds under `directory`.
fn sources(directory: &str, kinds: &[&str]) -> Vec<Source> {
    let (root, mut found, mut left) = (root(), Vec::new(), vec![root().join(directory)]);
    while let Some(path) = left.pop() {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            let skipped = name == "target" || name == "node_modules" || name == "__pycache__" || name.starts_with('.');
            if !skipped {
                left.extend(std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
            }
        } else if kinds.iter().any(|kind| name.ends_with(kind)) {
            let shown = path.strip_prefix(&root).unwrap().to_string_lossy().replace('\\', "/");
            found.push(Source { path: shown, text: std::fs::read_to_string(&path).unwrap() });
        }
    }
    assert!(!found.is_empty(), "{directory} has files");
    found
}

#[test]
fn time_comes_from_the_clock() {
    for source in sources("host", &[".rs"]) {
        if !source.path.starts_with("host/core/src/clock") {
            for name in ["SystemTime", "Instant::now", "Timestamp::now", "Zoned::now", "getrandom::"] {
                assert!(!source.text.contains(name), "{}: {name} belongs in clock.rs", source.path);
            }
        }
    }
}

#[test]
fn files_are_short() {
    for directory in ["host", "plugins", "tests", "examples"] {
        for source in sources(directory, &[".rs"]) {
            let lines = source.product().lines().count();
            assert!(lines <= FILE_LINES, "{} has {lines} lines without its tests", source.path);
        }
    }
}

#[test]
fn nothing_is_left_to_do() {
    for directory in ["host", "plugins", "tests", "examples"] {
        for source in sources(directory, &[".rs"]) {
            for name in ["todo", "unimplemented", "dbg"] {
                assert!(!source.text.contains(&format!("{name}!(")), "{}: {name}!", source.path);
            }
        }
    }
}

#[test]
fn no_file_knows_the_machine_that_it_was_written_on() {
    let kinds = [".rs", ".toml", ".md", ".wit", ".py", ".sh", ".sql"];
    for directory in ["host", "plugins", "tests", "examples", "script", "wit"] {
        for source in sources(directory, if directory == "script" { &[""] } else { &kinds }) {
            for place in ["home", "root", "tmp", "Users", "work", "mnt"] {
                for before in ["\"", " ", "=", "`", "'", "("] {
                    let needle = format!("{before}/{place}/");
                    assert!(!source.product().contains(&needle), "{}:{needle}", source.path);
                }
            }
        }
    }
}
