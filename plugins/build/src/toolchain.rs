//! Which Rust toolchain compiles guests.
//!
//! The active one if its wasm32 standard library is installed. Otherwise Debian's `rustc-web`, which has no such library but
//! the sources to build it from: rustup's servers are out of reach in more places than a Debian mirror is.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::BuildError;
use crate::environment::without_outer_cargo;

/// What a guest in Rust is compiled for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Target {
    /// `wasm32-unknown-unknown`: no operating system, no WASI.
    #[default]
    Unknown,
    /// `wasm32-wasip2`: the standard library works, over WASI 0.2.
    Wasip2,
}

impl Target {
    /// The target of that name.
    pub(crate) fn named(name: &str) -> Result<Self, BuildError> {
        let targets = [Self::Unknown, Self::Wasip2];
        targets
            .into_iter()
            .find(|target| target.as_str() == name)
            .ok_or_else(|| BuildError::UnknownTarget(name.to_owned()))
    }

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "wasm32-unknown-unknown",
            Self::Wasip2 => "wasm32-wasip2",
        }
    }
}

/// Forces a toolchain: `rustup` or `debian`.
pub(crate) const OVERRIDE: &str = "CARILLON_GUEST_TOOLCHAIN";

const DEBIAN_BIN: &str = "/usr/bin";
const DEBIAN_LINKER: &str = "wasm-ld-22";

/// Where Debian's `wasm-component-ld` is, the linker of `wasm32-wasip2`.
const DEBIAN_COMPONENT_LINKER: &str = "/usr/lib/rustlib/x86_64-unknown-linux-gnu/bin";

/// The libc below the standard library of `wasm32-wasip2`, from Debian's `wasi-libc` instead of from rustup.
const DEBIAN_WASI_LIBC: [&str; 2] = ["-Lnative=/usr/lib/wasm32-wasi", "-Clink-self-contained=no"];

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
    pub fn choose(directory: &Path, target: Target) -> Result<Self, BuildError> {
        match std::env::var_os(OVERRIDE) {
            None => Self::installed(directory, target).ok_or(BuildError::NoToolchain(target.as_str())),
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

    fn installed(directory: &Path, target: Target) -> Option<Self> {
        let libdir = ["--print", "target-libdir", "--target", target.as_str()];
        if prints_existing_path("rustc", &libdir, "", directory) {
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
                .env("PATH", path_with(&[DEBIAN_BIN, DEBIAN_COMPONENT_LINKER]))
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

    /// What the compiler needs besides.
    pub(crate) fn rustflags(self, target: Target) -> &'static [&'static str] {
        match (self, target) {
            (Self::Debian, Target::Wasip2) => &DEBIAN_WASI_LIBC,
            _ => &[],
        }
    }
}

fn path_with(first: &[&str]) -> OsString {
    let rest = std::env::var_os("PATH").unwrap_or_default();
    let directories = first.iter().map(PathBuf::from).chain(std::env::split_paths(&rest));
    std::env::join_paths(directories).unwrap_or(rest)
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
    use super::{Target, Toolchain};
    use crate::BuildError;

    #[test]
    fn a_toolchain_is_named_or_the_name_is_reported() {
        assert!(matches!(Toolchain::named(&"rustup".into()), Ok(Toolchain::Rustup)));
        assert!(matches!(Toolchain::named(&"debian".into()), Ok(Toolchain::Debian)));
        assert!(matches!(Toolchain::named(&"gcc".into()), Err(BuildError::UnknownToolchain(name)) if name == "gcc"));
    }

    #[test]
    fn a_target_is_one_of_two() {
        for target in [Target::Unknown, Target::Wasip2] {
            assert_eq!(Target::named(target.as_str()).ok(), Some(target));
        }
        assert!(matches!(Target::named("wasm32-wasip1"), Err(BuildError::UnknownTarget(_))));
    }
}
