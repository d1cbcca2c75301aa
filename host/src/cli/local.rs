//! The policy runtime in this process, for the commands that call a component without a server: same engine, same limits.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use bytes::Bytes;

use crate::app::policy_limits;
use crate::config::Config;
use crate::policy::{Compiler, Plugin, QuarantineRules, Runtime, RuntimeOptions};

/// A runtime with the limits of `config` and room for `threads` calls at once. It keeps no compiled component.
pub(super) fn runtime(config: &Config, threads: usize) -> anyhow::Result<Runtime> {
    let policy = &config.policy;
    let program = std::env::current_exe().context("cannot find this program, which compiles plugins")?;
    Runtime::start(RuntimeOptions {
        limits: policy_limits(config),
        threads,
        queue: policy.queue,
        quarantine: QuarantineRules {
            threshold: policy.fault_threshold,
            window: policy.fault_window.get(),
            period: policy.quarantine.get(),
        },
        compiler: Compiler::new(program, policy.compile_timeout.get(), policy.compile_memory.get()),
        cache: None,
        component_limit: policy.component_size.get(),
    })
}

/// Loads the component in `file` as an upload would.
pub(super) async fn load(runtime: &Runtime, file: &Path) -> anyhow::Result<Arc<Plugin>> {
    let bytes = std::fs::read(file).with_context(|| format!("{} cannot be read", file.display()))?;
    runtime.registry.admit(&Bytes::from(bytes)).await.with_context(|| format!("{} is not a plugin", file.display()))
}
