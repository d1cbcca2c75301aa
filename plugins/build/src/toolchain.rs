//! Which Rust toolchain compiles guests.
//!
//! The active one if its wasm32 standard library is installed. Otherwise Debian's `rustc-web`, which has no such library but
//! the sources to build it from: rustup's servers are out of reach in more places than a Debian mirror is.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::BuildError;
use crate::environment::without_outer_cargo;

/// The target of every guest: no operating system, no WASI.
pub(crate) const TARGET: &str = "wasm32-unknown-unknown";

/// Forces a toolchain: `rustup` or `debian`.
pub(crate) const OVERRIDE: &str = "CARILLON_GUEST_TOOLCHAIN";

const DEBIAN_BIN: &str = "/usr/bin";
const DEBIAN_LINKER: &str = "wasm-ld-22";

/// A way to compile guests. The two give different bytes, since their compilers differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Toolchain {
    /// The `cargo` and `rustc` in `PATH`, with the target's standard library installed, usually by rustup.
    Rustup,
    /// `rustc-web`, `cargo-web`, `rust-web-src` and `lld-22` of Debian; the standard library is built along with the guest.
    Debian,
}

impl Toolchain {
    /// The toolchain named by `CARILLON_GUEST_TOOLCHAIN`, else the first one that is installed. `directory` is where the guest
    /// lies: its `rust-toolchain.toml` counts.
    ///
    /// # Errors
    /// [`BuildError::NoToolchain`] if none is installed, [`BuildError::UnknownToolchain`] if the variable has another value.
    pub fn choose(directory: &Path) -> Result<Self, BuildError> {
        match std::env::var_os(OVERRIDE) {
            None => Self::installed(directory).ok_or(BuildError::NoToolchain),
            Some(name) => Self::named(&name),
        }
    }

    fn named(name: &OsString) -> Result<Self, BuildError> {
        match name.to_str() {
            Some("rustup") => Ok(Self::Rustup),
            Some("debian") => Ok(Self::Debian),
            _ => Err(BuildError::UnknownToolchain(name.to_string_lossy().into_owned())),
        }
    }

    fn installed(directory: &Path) -> Option<Self> {
        if prints_existing_path("rustc", &["--print", "target-libdir", "--target", TARGET], "", directory) {
            return Some(Self::Rustup);
        }
        let debian = |program: &str| Path::new(DEBIAN_BIN).join(program);
        let sources = "lib/rustlib/src/rust/library/std/Cargo.toml";
        let complete = debian("cargo").exists()
            && debian(DEBIAN_LINKER).exists()
            && prints_existing_path(&debian("rustc").to_string_lossy(), &["--print", "sysroot"], sources, directory);
        complete.then_some(Self::Debian)
    }

    /// A `cargo` of this toolchain in `directory`, without the environment of a cargo that may be running us.
    pub(crate) fn cargo(self, directory: &Path) -> Command {
        let mut command = match self {
            Self::Rustup => Command::new("cargo"),
            Self::Debian => Command::new(Path::new(DEBIAN_BIN).join("cargo")),
        };
        without_outer_cargo(&mut command).current_dir(directory);
        if self == Self::Debian {
            command
                .env("PATH", path_with(DEBIAN_BIN))
                .env("RUSTC_BOOTSTRAP", "1")
                .env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", DEBIAN_LINKER);
        }
        command
    }

    /// What `cargo build` needs besides.
    pub(crate) fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::Rustup => &[],
            Self::Debian => &["-Zbuild-std=std,panic_abort"],
        }
    }
}

fn path_with(first: &str) -> OsString {
    let rest = std::env::var_os("PATH").unwrap_or_default();
    let directories = std::iter::once(PathBuf::from(first)).chain(std::env::split_paths(&rest));
    std::env::join_paths(directories).unwrap_or_else(|_| first.into())
}

/// Whether the program runs and prints a directory in which `below` exists.
fn prints_existing_path(program: &str, arguments: &[&str], below: &str, directory: &Path) -> bool {
    let mut command = Command::new(program);
    let output = without_outer_cargo(&mut command).args(arguments).current_dir(directory).output();
    output.is_ok_and(|output| {
        output.status.success() && Path::new(String::from_utf8_lossy(&output.stdout).trim()).join(below).exists()
    })
}

#[cfg(test)]
mod tests {
    use super::Toolchain;
    use crate::BuildError;

    #[test]
    fn a_toolchain_is_named_or_the_name_is_reported() {
        assert!(matches!(Toolchain::named(&"rustup".into()), Ok(Toolchain::Rustup)));
        assert!(matches!(Toolchain::named(&"debian".into()), Ok(Toolchain::Debian)));
        assert!(matches!(Toolchain::named(&"gcc".into()), Err(BuildError::UnknownToolchain(name)) if name == "gcc"));
    }
}
