//! Why there is no component, in sentences that say what to run or to change. What the system said is the source of an error, and not in
//! its text: whoever prints the chain would print it twice.

use std::io;
use std::path::PathBuf;
use std::process::ExitStatus;

/// Why there is no component.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// Neither way to compile Rust for WebAssembly is installed.
    #[error(
        "no Rust compiler here can compile for {0}; run `script/bootstrap`, or `rustup target add {0}`, \
         or, on Debian, `apt-get install rustc-web cargo-web rust-web-src rust-web-llvm lld-22 wasi-libc`"
    )]
    NoToolchain(&'static str),
    /// The variable that forces a toolchain has an unknown value.
    #[error("CARILLON_GUEST_TOOLCHAIN is `{0}`, but must be `rustup` or `debian`")]
    UnknownToolchain(String),
    /// A crate asks for a target that no guest can have.
    #[error(
        "`target` in `[package.metadata.carillon]` is `{0}`, but must be `wasm32-unknown-unknown` or `wasm32-wasip2`"
    )]
    UnknownTarget(String),
    /// The directory cannot be used.
    #[error("{} is not the directory of a plugin", directory.display())]
    NotADirectory {
        /// As it was asked for.
        directory: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The directory holds nothing to build.
    #[error(
        "{} holds no plugin: there is no Cargo.toml (Rust), no package.json (JavaScript), no .c file (C) and no .py file (Python)",
        .0.display()
    )]
    NoSource(PathBuf),
    /// It is not clear which file the plugin is.
    #[error("{} has no `{expected}`, which would be the plugin", directory.display())]
    NoMain {
        /// The directory.
        directory: PathBuf,
        /// The file that is looked for.
        expected: String,
    },
    /// Nothing says which roles the plugin plays.
    #[error(
        "{} is missing. It says which roles the plugin plays, such as:\n\
         package local:plugin;\nworld plugin {{\n    include carillon:policy/judge-policy@0.1.0;\n}}",
        .0.display()
    )]
    NoWorld(PathBuf),
    /// What says so cannot be read.
    #[error("`policy.wit` is not the world of a plugin: {0}")]
    World(String),
    /// A program could not be started.
    #[error("`{program}` could not be started; {install}")]
    Start {
        /// The program.
        program: String,
        /// How to get it.
        install: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// What the directory's `package.json` lists is not installed.
    #[error("the packages of {} are not installed; run `npm ci` there", .0.display())]
    NoPackages(PathBuf),
    /// The program found errors. They were written to standard error.
    #[error("`{program}` could not build the plugin in {} ({status}); its messages are above", directory.display())]
    Compiler {
        /// The program.
        program: String,
        /// The plugin's directory.
        directory: PathBuf,
        /// How it ended.
        status: ExitStatus,
    },
    /// A crate gave no module.
    #[error("the crate in {} builds to no WebAssembly module; add `crate-type = [\"cdylib\"]` to its `[lib]` table", .0.display())]
    NoModule(PathBuf),
    /// A file cannot be read.
    #[error("{} cannot be read", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// An intermediate file cannot be written.
    #[error("{} cannot be written", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The module does not fit the interface, such as one whose plugin type was never passed to `export!`.
    #[error("the module is not a plugin: {0}")]
    NotAComponent(String),
}
