//! The policy runtime in this process, for the commands that call a component without a server: same engine, same limits.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use bytes::Bytes;

use crate::app::runtime_options;
use crate::config::Config;
use crate::job::TenantId;
use crate::policy::{Plugin, Runtime};

/// Whose a component is that nobody has uploaded.
pub(super) const NOBODY: TenantId = TenantId(0);

/// A runtime with the limits of `config` and room for `threads` calls at once. It keeps no compiled component.
pub(super) fn runtime(config: &Config, threads: usize) -> anyhow::Result<Runtime> {
    Runtime::start(runtime_options(config, threads, None)?)
}

/// Loads the component in `file` as an upload would.
pub(super) async fn load(runtime: &Runtime, file: &Path) -> anyhow::Result<Arc<Plugin>> {
    let bytes = std::fs::read(file).with_context(|| format!("{} cannot be read", file.display()))?;
    let admitted = runtime.registry.admit(NOBODY, &Bytes::from(bytes)).await;
    Ok(admitted.with_context(|| format!("{} is not a plugin", file.display()))?.plugin)
}
