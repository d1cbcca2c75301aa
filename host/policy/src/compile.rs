//! Compiles components in a child process: a component that makes the compiler slow or hungry hurts itself only.
//!
//! The child is this same program. It reads the component from its standard input, limits itself, and writes native code to its
//! standard output; the parent takes nothing but that pipe's content.

use std::io::{Read as _, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{Output, Stdio};
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use super::engine;
use super::load_error::LoadError;

/// The hidden subcommand that makes this program a compiler.
pub const SUBCOMMAND: &str = "compile-component";

/// Stack of the compiling thread: deeply nested code recurses.
const COMPILER_STACK: usize = 64 << 20;

/// The most native code that is taken from a compilation, in bytes.
const ARTEFACT_LIMIT: usize = 128 << 20;

/// The signal for a process that has had its processor time: of this number on Linux and macOS.
const SIGXCPU: i32 = 24;

/// How Rust's standard library begins to say that there is no more memory, before it aborts.
const OUT_OF_MEMORY: &str = "memory allocation of ";

/// Starts compilers.
pub struct Compiler {
    program: PathBuf,
    timeout: Duration,
    memory: usize,
}

impl Compiler {
    /// `program` is a `carillon` binary; a compilation takes at most `timeout` of time (CPU and wall) and `memory` bytes of
    /// address space.
    #[must_use]
    pub fn new(program: PathBuf, timeout: Duration, memory: usize) -> Self {
        Self { program, timeout, memory }
    }

    /// The longest that a compilation takes.
    pub(super) fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Turns a component into native code.
    ///
    /// # Errors
    /// [`LoadError::Compile`] if the compiler says no, or ends for any other reason.
    pub async fn compile(&self, component: &Bytes) -> Result<Vec<u8>, LoadError> {
        let failed = |text: String| LoadError::Compile(text);
        let mut child = Command::new(&self.program)
            .arg(SUBCOMMAND)
            .arg(self.timeout.as_secs().max(1).to_string())
            .arg(self.memory.to_string())
            .env_clear()
            // Or the allocator reserves a gibibyte of address space at its start, half of what there is or more.
            .env("MIMALLOC_ARENA_RESERVE", "0")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| failed(format!("cannot start {}: {error}", self.program.display())))?;
        let mut stdin = child.stdin.take();
        let component = component.clone();
        let feed = tokio::spawn(async move {
            if let Some(pipe) = &mut stdin {
                // A compiler that has died says more on its standard error than a broken pipe does here.
                drop(pipe.write_all(&component).await);
            }
        });
        let output = tokio::time::timeout(self.timeout, child.wait_with_output()).await;
        feed.abort();
        let output = output.map_err(|_| failed(self.too_slow()))?.map_err(|error| failed(error.to_string()))?;
        if output.status.success() { Ok(output.stdout) } else { Err(failed(self.reason(&output))) }
    }

    /// Why a compiler ended without native code.
    fn reason(&self, output: &Output) -> String {
        let said = String::from_utf8_lossy(&output.stderr);
        match said.trim() {
            _ if output.status.signal() == Some(SIGXCPU) => self.too_slow(),
            said if said.starts_with(OUT_OF_MEMORY) => {
                format!("it takes more than {} MiB of memory (`policy.compile_memory`)", self.memory >> 20)
            }
            "" => format!("the compiler ended with {}", output.status),
            said => said.to_owned(),
        }
    }

    fn too_slow(&self) -> String {
        format!("it takes longer than {} (`policy.compile_timeout`)", carillon_core::duration::format(self.timeout))
    }
}

/// What the child does: `seconds` of CPU, `memory` bytes of address space, component in, native code out.
///
/// # Errors
/// If the component does not compile.
pub fn compiler_main(seconds: u64, memory: u64) -> anyhow::Result<()> {
    // The first of the two sends a signal that says so; neither leaves a core.
    rlimit::setrlimit(rlimit::Resource::CORE, 0, 0)?;
    rlimit::setrlimit(rlimit::Resource::CPU, seconds, seconds.saturating_add(1))?;
    rlimit::setrlimit(rlimit::Resource::AS, memory, memory)?;
    let mut component = Vec::new();
    std::io::stdin().lock().read_to_end(&mut component)?;
    let compiling = std::thread::Builder::new()
        .stack_size(COMPILER_STACK)
        .spawn(move || engine::compile(&component).map_err(|error| anyhow::anyhow!("{error:#}")))
        .context("there is not enough memory for the compiler to begin (`policy.compile_memory`)")?;
    let artefact = compiling.join().map_err(|_| anyhow::anyhow!("the compiler panicked"))??;
    anyhow::ensure!(artefact.len() <= ARTEFACT_LIMIT, "it makes more than {ARTEFACT_LIMIT} bytes of native code");
    std::io::stdout().lock().write_all(&artefact)?;
    Ok(())
}
