//! Compilation of components in a child process, so that a component on which the compiler is slow or needs much memory affects no other
//! work.
//!
//! The child is this same program. It limits and confines itself, reads the component from its standard input, and writes native code to its
//! standard output; the parent uses nothing but the content of that pipe.

mod confinement;

use std::io::{Read as _, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{Output, Stdio};
use std::sync::Once;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use super::engine;
use super::load_error::LoadError;

/// Hidden subcommand that makes this program a compiler.
pub const SUBCOMMAND: &str = "compile-component";

/// Maximum size of the native code of one component, in bytes.
const ARTEFACT_LIMIT: usize = 128 << 20;

/// Number, on Linux and macOS, of the signal for a process that has used up its CPU time.
const SIGXCPU: i32 = 24;

/// Beginning of the message that Rust's standard library prints before it aborts for lack of memory.
const OUT_OF_MEMORY: &str = "memory allocation of ";

/// Starts child processes that compile.
pub struct Compiler {
    program: PathBuf,
    timeout: Duration,
    memory: usize,
    /// Runs when a compiler first reports that the kernel does not confine it.
    unconfined: Once,
}

impl Compiler {
    /// Makes a compiler from `program`, a `carillon` binary. A compilation takes at most `timeout` (of CPU time, and of wall time) and
    /// `memory` bytes of address space.
    #[must_use]
    pub fn new(program: PathBuf, timeout: Duration, memory: usize) -> Self {
        Self { program, timeout, memory, unconfined: Once::new() }
    }

    /// Maximum duration of a compilation.
    pub(super) fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Compiles a component to native code.
    ///
    /// # Errors
    /// Returns [`LoadError::Compile`] if the compiler rejects the component or ends for any other reason.
    pub async fn compile(&self, component: &Bytes) -> Result<Vec<u8>, LoadError> {
        let failed = |text: String| LoadError::Compile(text);
        let mut child = Command::new(&self.program)
            .arg(SUBCOMMAND)
            .arg(self.timeout.as_secs().max(1).to_string())
            .arg(self.memory.to_string())
            .env_clear()
            // Without this, the allocator reserves a gibibyte of address space at its start, half of the limit or more.
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
                // If the compiler has died, its standard error says more than the broken pipe here.
                drop(pipe.write_all(&component).await);
            }
        });
        let output = tokio::time::timeout(self.timeout, child.wait_with_output()).await;
        feed.abort();
        let output = output.map_err(|_| failed(self.too_slow()))?.map_err(|error| failed(error.to_string()))?;
        let said = String::from_utf8_lossy(&output.stderr);
        let (missing, said) = confinement::read_reports(&said);
        if !missing.is_empty() {
            self.warn_unconfined(&missing);
        }
        if output.status.success() { Ok(output.stdout) } else { Err(failed(self.reason(&output, &said))) }
    }

    /// Logs once that compilers run without some of their confinement.
    fn warn_unconfined(&self, missing: &[&str]) {
        self.unconfined.call_once(|| {
            tracing::warn!(
                missing = missing.join(", "),
                "the compiler of plugins runs without a part of its confinement: the kernel or the container does not allow it"
            );
        });
    }

    /// Returns the reason why a compiler ended without native code.
    fn reason(&self, output: &Output, said: &str) -> String {
        match said {
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

/// Entry of the child process: limits itself to `seconds` of CPU time and `memory` bytes, confines itself, reads a component, and writes
/// native code.
///
/// # Errors
/// Returns an error if the component does not compile.
pub fn compiler_main(seconds: u64, memory: u64) -> anyhow::Result<()> {
    // The soft limit of CPU time sends SIGXCPU, which names the cause, before the hard limit kills; with the limit on core files neither
    // leaves one.
    rlimit::setrlimit(rlimit::Resource::CORE, 0, 0)?;
    rlimit::setrlimit(rlimit::Resource::CPU, seconds, seconds.saturating_add(1))?;
    rlimit::setrlimit(rlimit::Resource::AS, memory, memory)?;
    let artefact = confinement::confined(|| {
        let mut component = Vec::new();
        std::io::stdin().lock().read_to_end(&mut component)?;
        let artefact = engine::compile(&component).map_err(|error| anyhow::anyhow!("{error:#}"))?;
        anyhow::ensure!(artefact.len() <= ARTEFACT_LIMIT, "it makes more than {ARTEFACT_LIMIT} bytes of native code");
        Ok(artefact)
    })?;
    std::io::stdout().lock().write_all(&artefact)?;
    Ok(())
}
