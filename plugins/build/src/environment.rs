//! What a nested cargo inherits, and what it is told about paths.
//!
//! Invariants: nothing that an outer cargo, rustup or clippy set for its own build reaches the guest's, since a shared target
//! directory deadlocks and foreign flags change the bytes; how to reach a registry is the user's business and stays. No path
//! of this machine ends up in the component.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The stack of a guest, in bytes. Small, because every call starts a fresh instance and touches it.
pub(crate) const STACK_BYTES: u32 = 32 * 1024;

/// What cargo, rustup and make set for the processes they start; matched as prefixes.
const OUTER_PREFIXES: [&str; 4] = ["CARGO", "RUST", "CLIPPY", "DEP_"];

/// The same, matched whole. Build scripts get these.
const OUTER_NAMES: [&str; 13] = [
    "OUT_DIR",
    "TARGET",
    "HOST",
    "NUM_JOBS",
    "OPT_LEVEL",
    "PROFILE",
    "DEBUG",
    "MAKEFLAGS",
    "MFLAGS",
    "MAKELEVEL",
    "LD_LIBRARY_PATH",
    "DYLD_LIBRARY_PATH",
    "DYLD_FALLBACK_LIBRARY_PATH",
];

/// Where things are and how to reach them; prefixes.
const KEPT_PREFIXES: [&str; 11] = [
    "CARGO_HOME",
    "CARGO_HTTP_",
    "CARGO_NET_",
    "CARGO_REGISTRY_",
    "CARGO_REGISTRIES_",
    "CARGO_SOURCE_",
    "CARGO_TERM_",
    "RUSTUP_HOME",
    "RUSTUP_DIST_",
    "RUSTUP_UPDATE_",
    "RUSTUP_AUTO_INSTALL",
];

/// Takes the outer cargo's variables out of a command's environment.
pub(crate) fn without_outer_cargo(command: &mut Command) -> &mut Command {
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(belongs_to_outer_cargo) {
            command.env_remove(name);
        }
    }
    command
}

fn belongs_to_outer_cargo(name: &str) -> bool {
    let starts = |prefixes: &[&str]| prefixes.iter().any(|prefix| name.starts_with(prefix));
    OUTER_NAMES.contains(&name) || (starts(&OUTER_PREFIXES) && !starts(&KEPT_PREFIXES))
}

/// Cargo's home: `CARGO_HOME`, else `~/.cargo`.
pub(crate) fn cargo_home() -> Option<PathBuf> {
    std::env::var_os("CARGO_HOME").map(PathBuf::from).or_else(|| std::env::home_dir().map(|home| home.join(".cargo")))
}

/// The compiler flags of a guest, as `CARGO_ENCODED_RUSTFLAGS` wants them. Of the prefixes that match a path, the last wins.
pub(crate) fn encoded_rustflags(workspace: &Path, cargo_home: Option<&Path>, target_dir: &Path) -> String {
    let remap = |from: &Path, to: &str| format!("--remap-path-prefix={}={to}", from.display());
    let mut flags = vec![format!("-Clink-arg=-zstack-size={STACK_BYTES}")];
    flags.extend(cargo_home.map(|home| remap(home, "/cargo")));
    flags.push(remap(workspace, "/source"));
    flags.push(remap(target_dir, "/target"));
    flags.join("\u{1f}")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{belongs_to_outer_cargo, encoded_rustflags};

    #[test]
    fn what_an_outer_cargo_sets_is_removed() {
        for name in [
            "CARGO",
            "CARGO_TARGET_DIR",
            "CARGO_ENCODED_RUSTFLAGS",
            "CARGO_MANIFEST_DIR",
            "CARGO_MAKEFLAGS",
            "CARGO_BUILD_TARGET",
            "RUSTC",
            "RUSTC_WRAPPER",
            "RUSTC_WORKSPACE_WRAPPER",
            "RUSTC_BOOTSTRAP",
            "RUSTFLAGS",
            "RUSTUP_TOOLCHAIN",
            "CLIPPY_ARGS",
            "MAKEFLAGS",
            "OUT_DIR",
            "DEP_FOO_BAR",
        ] {
            assert!(belongs_to_outer_cargo(name), "{name}");
        }
    }

    #[test]
    fn places_and_registries_are_kept() {
        for name in [
            "CARGO_HOME",
            "RUSTUP_HOME",
            "CARGO_REGISTRIES_MIRROR_INDEX",
            "CARGO_NET_OFFLINE",
            "CARGO_HTTP_PROXY",
            "HTTPS_PROXY",
            "PATH",
            "HOME",
            "TARGETS",
            "DEBUGGER",
        ] {
            assert!(!belongs_to_outer_cargo(name), "{name}");
        }
    }

    #[test]
    fn paths_with_blanks_stay_one_flag() {
        let flags = encoded_rustflags(Path::new("/a b"), Some(Path::new("/home/c/.cargo")), Path::new("/a b/target"));
        let flags: Vec<&str> = flags.split('\u{1f}').collect();
        assert_eq!(
            flags,
            [
                "-Clink-arg=-zstack-size=32768",
                "--remap-path-prefix=/home/c/.cargo=/cargo",
                "--remap-path-prefix=/a b=/source",
                "--remap-path-prefix=/a b/target=/target",
            ]
        );
    }
}
