//! Confinement of the compiling process: what the kernel keeps from it, so that a component that takes over the compiler can do nothing but
//! compute and write to the pipe.
//!
//! Not a limit on time or memory: the caller sets those. Invariant: the process opens no file and no socket, starts no thread and no process,
//! maps no executable memory and gains no privilege. A kernel without one of the means runs the compiler without it and says so.

#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
mod linux;

#[cfg(not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"))))]
mod linux {
    //! Stand-in for systems without these means.

    pub(super) fn lower_priority() -> anyhow::Result<()> {
        anyhow::bail!("not implemented for this system")
    }

    pub(super) use {lower_priority as restrict_files, lower_priority as filter_system_calls};
}

use std::io::Write as _;

use anyhow::Context as _;

/// Stack of the confined thread in bytes: the compiler recurses into nested code.
const STACK: usize = 64 << 20;

/// Beginning of a line on the compiler's standard error that names a means which the kernel does not have.
const UNCONFINED: &str = "unconfined: ";

/// Means that can be missing, with the names that the process reports and the log shows.
const MEANS: [&str; 3] = ["nice", "landlock", "seccomp"];

/// Runs `work` in a confined thread of this process, which must not need other threads afterwards, and returns its result.
///
/// # Errors
/// Returns an error if the thread does not start, panics, or fails.
pub(super) fn confined<T: Send + 'static>(
    work: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
) -> anyhow::Result<T> {
    report("nice", linux::lower_priority());
    // Landlock holds for this thread and those that it starts; the filter of system calls for all, and it allows no further thread.
    report("landlock", linux::restrict_files());
    let thread = std::thread::Builder::new()
        .stack_size(STACK)
        .spawn(move || {
            report("seccomp", linux::filter_system_calls());
            work()
        })
        .context("there is not enough memory for the compiler to begin (`policy.compile_memory`)")?;
    thread.join().map_err(|_| anyhow::anyhow!("the compiler panicked"))?
}

/// Tells the parent process which means is missing. What prevents it is of no use there: the kernel or a container does.
fn report(means: &str, confined: anyhow::Result<()>) {
    if confined.is_err() {
        // If the parent does not read, nobody does.
        let _ = writeln!(std::io::stderr(), "{UNCONFINED}{means}");
    }
}

/// Separates the reports of missing means from the rest of the compiler's standard error.
pub(super) fn read_reports(said: &str) -> (Vec<&'static str>, String) {
    let mut missing = Vec::new();
    let mut rest = String::new();
    for line in said.lines() {
        match line.strip_prefix(UNCONFINED).and_then(|name| MEANS.into_iter().find(|means| *means == name)) {
            Some(means) => missing.push(means),
            None => rest.extend([line, "\n"]),
        }
    }
    (missing, rest.trim().to_owned())
}

#[cfg(test)]
mod tests;
