//! What the program is built from is what was checked: scripts take locked versions only, and documents name tests that exist.

use super::{root, sources};

/// Subcommands of cargo that read the lock file.
const LOCKED: [&str; 9] = ["build", "clippy", "doc", "fetch", "install", "metadata", "nextest run", "run", "test"];

/// Statements of a script that call cargo with one of these subcommands and take other versions than the locked ones.
fn unlocked(script: &str) -> Vec<&str> {
    let calls = script.lines().filter(|line| !line.trim_start().starts_with('#'));
    let calls = calls.filter(|line| LOCKED.iter().any(|verb| line.contains(&format!("cargo {verb} "))));
    // `standalone` has the flag.
    calls.filter(|line| !line.contains("--locked") && !line.contains("${standalone[@]}")).collect()
}

#[test]
fn scripts_build_from_locked_versions() {
    for source in sources("script", &[""]) {
        assert_eq!(unlocked(&source.text), [""; 0], "{}", source.path);
    }
    assert_eq!(unlocked("cargo build --release\ncargo fmt\n# cargo test x"), ["cargo build --release"]);
}

#[test]
fn python_packages_have_hashes() {
    let lists = ["tests", "examples/flask", "clients/python", "plugins"];
    let lists: Vec<_> = lists.iter().flat_map(|directory| sources(directory, &["requirements.in"])).collect();
    assert!(lists.len() >= 5);
    for list in lists {
        let locked = list.path.replace(".in", ".txt");
        let text = std::fs::read_to_string(root().join(&locked)).unwrap_or_else(|error| panic!("{locked}: {error}"));
        let asked = list.text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
        for line in asked {
            let (name, version) = line.split_once("==").unwrap_or_else(|| panic!("{}: {line}", list.path));
            let name = name.split('[').next().unwrap().to_lowercase().replace('_', "-");
            let is_locked = text.lines().any(|line| {
                let head = line.split("==").next().unwrap_or_default().split('[').next().unwrap_or_default();
                head.to_lowercase().replace('_', "-") == name && line.contains(&format!("=={version} "))
            });
            assert!(is_locked, "{locked} lacks {line}: run script/lock-python");
        }
        let entries = text.lines().filter(|line| line.contains("==")).count();
        let hashed = text.lines().filter(|line| line.contains("==") && line.ends_with('\\')).count();
        assert!(entries > 0 && entries == hashed, "{locked}: a package without a hash");
    }
}

#[test]
fn tests_of_the_threat_model_exist() {
    let page = std::fs::read_to_string(root().join("docs/SECURITY.md")).unwrap();
    let files: Vec<_> = ["tests", "host"].iter().flat_map(|directory| sources(directory, &[".rs"])).collect();
    let named: Vec<_> = page.split('`').filter_map(|text| text.split_once("::")).collect();
    assert!(named.len() > 30, "{named:?}");
    for (module, test) in named {
        let is_in =
            |path: &str| path.ends_with(&format!("/{module}.rs")) || path.ends_with(&format!("/{module}/mod.rs"));
        let exists = files.iter().any(|file| is_in(&file.path) && file.text.contains(&format!("fn {test}(")));
        assert!(exists, "docs/SECURITY.md names the test `{module}::{test}`, which does not exist");
    }
    let rows = page.lines().skip_while(|line| !line.starts_with("| who |")).skip(2);
    for row in rows.take_while(|line| line.starts_with('|')) {
        assert!(row.contains("::"), "a row of the threat model names no test: {row}");
    }
}
