//! Templates of new plugins, in each language.
//!
//! Invariant: the plugins of a role do the same in all languages, so that they have one golden test.

use clap::ValueEnum;

use carillon_policy::Role;

/// Packages that build a plugin in JavaScript, in the versions that the example locks.
const NODE_LOCK: &str = include_str!("../../../../examples/judge-json-ok-js/package-lock.json");

/// Name that the lock file gives to its project.
const LOCKED: &str = "judge-json-ok-js";

/// A language that plugins are written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Language {
    Rust,
    Js,
    Python,
    C,
}

impl Language {
    /// Returns the files of a plugin of this role, without its golden test: path and content, in which `PLUGIN` stands for its name and
    /// `ROLE` for the role.
    pub(super) fn files(self, role: Role) -> Vec<(&'static str, String)> {
        let world = ("policy.wit", include_str!("new/policy.wit.txt").replace("ROLE", role.as_str()));
        match self {
            Self::Rust => {
                vec![
                    ("Cargo.toml", include_str!("new/Cargo.toml.txt").to_owned()),
                    ("src/lib.rs", rust(role).to_owned()),
                    (".gitignore", "target/\n*.wasm\n".to_owned()),
                ]
            }
            Self::Js => vec![
                ("package.json", include_str!("new/package.json.txt").to_owned()),
                ("package-lock.json", NODE_LOCK.replace(LOCKED, "PLUGIN")),
                ("policy.js", js(role).to_owned()),
                world,
                (".gitignore", "node_modules/\ntarget/\n*.wasm\n".to_owned()),
            ],
            Self::Python => vec![
                ("requirements.txt", include_str!("new/requirements.txt").to_owned()),
                ("policy.py", python(role).to_owned()),
                world,
                (".gitignore", ".venv/\n__pycache__/\ntarget/\n*.wasm\n".to_owned()),
            ],
            Self::C => vec![("policy.c", c(role).to_owned()), world, (".gitignore", "target/\n*.wasm\n".to_owned())],
        }
    }

    /// Returns the commands, to be run before `carillon plugin build`, that install its tools; each ends in ` && `.
    pub(super) fn install(self) -> &'static str {
        match self {
            Self::Rust | Self::C => "",
            Self::Js => "npm ci && ",
            Self::Python => "python3 -m venv .venv && .venv/bin/pip install -r requirements.txt && ",
        }
    }
}

/// Returns the golden test of a role.
pub(super) fn golden(role: Role) -> &'static str {
    match role {
        Role::Encode => include_str!("new/encode.json"),
        Role::Sign => include_str!("new/sign.json"),
        Role::Judge => include_str!("new/judge.json"),
        Role::Retry => include_str!("new/retry.json"),
        Role::Observe => include_str!("new/observe.json"),
    }
}

fn rust(role: Role) -> &'static str {
    match role {
        Role::Encode => include_str!("new/encode.rs.txt"),
        Role::Sign => include_str!("new/sign.rs.txt"),
        Role::Judge => include_str!("new/judge.rs.txt"),
        Role::Retry => include_str!("new/retry.rs.txt"),
        Role::Observe => include_str!("new/observe.rs.txt"),
    }
}

fn js(role: Role) -> &'static str {
    match role {
        Role::Encode => include_str!("new/encode.js.txt"),
        Role::Sign => include_str!("new/sign.js.txt"),
        Role::Judge => include_str!("new/judge.js.txt"),
        Role::Retry => include_str!("new/retry.js.txt"),
        Role::Observe => include_str!("new/observe.js.txt"),
    }
}

fn python(role: Role) -> &'static str {
    match role {
        Role::Encode => include_str!("new/encode.py.txt"),
        Role::Sign => include_str!("new/sign.py.txt"),
        Role::Judge => include_str!("new/judge.py.txt"),
        Role::Retry => include_str!("new/retry.py.txt"),
        Role::Observe => include_str!("new/observe.py.txt"),
    }
}

fn c(role: Role) -> &'static str {
    match role {
        Role::Encode => include_str!("new/encode.c.txt"),
        Role::Sign => include_str!("new/sign.c.txt"),
        Role::Judge => include_str!("new/judge.c.txt"),
        Role::Retry => include_str!("new/retry.c.txt"),
        Role::Observe => include_str!("new/observe.c.txt"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_plugin_asks_for_is_what_the_tests_install() {
        let tested = include_str!("../../../../tests/requirements.in");
        assert!(include_str!("new/requirements.txt").lines().all(|line| tested.lines().any(|tested| tested == line)));
        let asked: serde_json::Value = serde_json::from_str(include_str!("new/package.json.txt")).unwrap();
        let locked: serde_json::Value = serde_json::from_str(NODE_LOCK).unwrap();
        assert_eq!(asked["devDependencies"], locked["packages"][""]["devDependencies"]);
    }

    /// Since version 11, npm rejects a lock file without the packages that other platforms would use.
    #[test]
    fn the_lock_file_has_the_packages_of_every_platform() {
        let locked: serde_json::Value = serde_json::from_str(NODE_LOCK).unwrap();
        let packages = locked["packages"].as_object().unwrap();
        let is_locked = |name: &str| packages.keys().any(|path| path.ends_with(&format!("node_modules/{name}")));
        let optional = packages.values().filter_map(|package| package["optionalDependencies"].as_object());
        let names: Vec<_> = optional.flat_map(serde_json::Map::keys).collect();
        assert!(names.len() > 20, "{names:?}");
        let missing: Vec<_> = names.into_iter().filter(|name| !is_locked(name)).collect();
        assert!(missing.is_empty(), "make it anew without one, with npm 11 or newer: {missing:?}");
    }
}
