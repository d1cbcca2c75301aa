//! The rules of style that a program can check.

use std::path::{Path, PathBuf};

/// The longest file without its unit tests, in lines.
const FILE_LINES: usize = 400;

/// Who may speak to the store, and why. `app` opens it; nobody else knows of it.
const STORE_USERS: [(&str, &str); 15] = [
    ("app", "opens and closes it"),
    ("migrate", "moves one store into another"),
    ("cron", "asks how far schedules have come"),
    ("accept", "writes new jobs and shows what is there"),
    ("sweep", "takes back and removes"),
    ("aborts", "takes the leases of consumers away"),
    ("due", "leases and settles"),
    ("bulk", "changes many jobs"),
    ("pull", "leases and settles for consumers"),
    ("settler", "writes what becomes of jobs"),
    ("priorities", "names what a claim takes first"),
    ("health", "asks whether it works"),
    ("cluster", "knows the other nodes by way of it"),
    ("catalog", "keeps the durable copy of what is configured"),
    ("observe", "reads facts, writes nothing"),
];

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

    /// The top-level module of the host that it belongs to.
    fn module(&self) -> &str {
        let path = self.path.trim_start_matches("host/src/");
        path.split('/').next().unwrap().trim_end_matches(".rs")
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

fn host() -> Vec<Source> {
    sources("host/src", &[".rs"]).into_iter().filter(|source| !source.is_test()).collect()
}

/// The modules that `text` imports from this crate.
fn imports(text: &str) -> Vec<&str> {
    let after = text.split("crate::").skip(1);
    after.map(|rest| rest.split(|c: char| !c.is_ascii_lowercase() && c != '_').next().unwrap()).collect()
}

#[test]
fn imports_point_along_the_way() {
    let library = std::fs::read_to_string(root().join("host/src/lib.rs")).unwrap();
    let order: Vec<_> = library.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';')).collect();
    let place = |module: &str| order.iter().position(|known| *known == module);
    for source in host() {
        let Some(own) = place(source.module()) else { continue };
        for import in imports(source.product()) {
            assert!(!import.is_empty(), "{}: import from each module of the crate by itself", source.path);
            let to = place(import).unwrap_or_else(|| panic!("{}: `{import}` is not in lib.rs", source.path));
            assert!(to >= own, "{}: `{import}` is further up the way than `{}`", source.path, source.module());
        }
    }
}

#[test]
fn the_store_is_for_few() {
    for source in host() {
        let module = source.module();
        if module != "store" && imports(source.product()).contains(&"store") {
            let may = STORE_USERS.iter().any(|(user, _)| *user == module);
            assert!(may, "{}: `{module}` is not among those who may speak to the store", source.path);
        }
    }
}

#[test]
fn time_comes_from_the_clock() {
    for source in sources("host/src", &[".rs"]) {
        if source.module() != "clock" {
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
