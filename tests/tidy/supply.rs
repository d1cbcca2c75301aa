//! What the program is built from is what was checked: scripts take locked versions only, and Python packages have hashes.

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
