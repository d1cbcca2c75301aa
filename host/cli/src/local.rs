//! The policy runtime in this process, for commands that call a component without a server: same engine, same limits.
//!
//! Compiled components are kept in the user's cache directory, so that the next command does not compile them again. They are native code,
//! which runs when it is loaded: the directory, and the key that authenticates its files, belong to the user alone.

use std::fs::{DirBuilder, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use indicatif::{ProgressBar, ProgressStyle};
use zeroize::Zeroizing;

use carillon_config::Config;
use carillon_core::clock::{Clock as _, SystemClock};
use carillon_core::job::TenantId;
use carillon_policy::{CompileBudget, Plugin, Runtime, RuntimeOptions};

/// Owner of a component that no tenant has uploaded.
pub const NOBODY: TenantId = TenantId(0);

/// Name of the directory in the user's cache directory, and of the key in it.
const DIRECTORY: &str = "carillon";
const KEY: &str = "key";

/// Period of the progress indicator while a component is compiled.
const TICK: Duration = Duration::from_millis(100);

/// Starts a runtime with the limits of `config` and room for `threads` calls at once. Without a cache directory, each component is compiled
/// anew.
pub fn runtime(config: &Config, threads: usize) -> anyhow::Result<Runtime> {
    let kept = cache_directory().and_then(|directory| {
        let key = key(&directory)
            .inspect_err(|error| tracing::debug!(error = format!("{error:#}"), "compiled components are not cached"));
        Some((directory, key.ok()?))
    });
    Runtime::start(RuntimeOptions::from_config(config, threads, kept)?)
}

/// Loads the component in `file` as an upload would.
pub async fn load(runtime: &Runtime, file: &Path) -> anyhow::Result<Arc<Plugin>> {
    let bytes = std::fs::read(file).with_context(|| format!("{} cannot be read", file.display()))?;
    let admitted = admit(runtime, &Bytes::from(bytes)).await;
    admitted.with_context(|| format!("{} is not a plugin", file.display()))
}

/// Loads a component as an upload would, with a progress indicator on a terminal, and caches the compiled code.
pub async fn admit(runtime: &Runtime, component: &Bytes) -> anyhow::Result<Arc<Plugin>> {
    let bar = ProgressBar::new_spinner().with_style(ProgressStyle::with_template("{spinner} {msg} {elapsed}")?);
    bar.set_message("compiling the component");
    bar.enable_steady_tick(TICK);
    let admitted = runtime.registry.admit(NOBODY, CompileBudget::UNBOUNDED, component).await;
    bar.finish_and_clear();
    let admitted = admitted?;
    runtime.registry.keep(&admitted).await;
    Ok(admitted.plugin)
}

/// Returns `$XDG_CACHE_HOME/carillon`, or `~/.cache/carillon` (the XDG Base Directory Specification).
fn cache_directory() -> Option<PathBuf> {
    let variable = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let caches = variable("XDG_CACHE_HOME").or_else(|| Some(variable("HOME")?.join(".cache")))?;
    Some(caches.join(DIRECTORY))
}

/// Returns the key of a cache directory; both are made if they do not exist.
fn key(directory: &Path) -> anyhow::Result<Zeroizing<[u8; 32]>> {
    DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    let path = directory.join(KEY);
    let mut key = Zeroizing::new([0; 32]);
    SystemClock.fill_random(&mut *key);
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path) {
        Ok(mut file) => {
            file.write_all(&*key)?;
            return Ok(key);
        }
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error.into()),
    }
    let known = Zeroizing::new(std::fs::read(&path)?);
    ensure!(known.len() == key.len(), "{} is not a key", path.display());
    key.copy_from_slice(&known);
    Ok(key)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn the_key_of_a_cache_is_made_once_for_its_user_alone() {
        let parent = tempfile::tempdir().unwrap();
        let directory = parent.path().join("a/carillon");
        let made = key(&directory).unwrap();
        assert_eq!(*key(&directory).unwrap(), *made);
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&directory), mode(&directory.join(KEY))), (0o700, 0o600));
        std::fs::write(directory.join(KEY), "short").unwrap();
        assert!(key(&directory).is_err());
    }
}
