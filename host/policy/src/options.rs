//! Translation of the configuration into the runtime's options.

use std::path::PathBuf;

use anyhow::Context as _;
use zeroize::Zeroizing;

use super::limits::TABLE_ELEMENTS;
use super::{Compiler, LargeLimits, Limits, QuarantineRules, RuntimeOptions};
use carillon_config::Config;

/// Maximum size of a body that an encoder or a signer returns, in times of the largest payload: base64 of JSON in ASCII is four times as long
/// as a text of two bytes a letter, and has a MAC besides.
const ANSWER_GROWTH: usize = 5;

impl RuntimeOptions {
    /// Makes the options of a runtime under this configuration, with room for `threads` calls at once; `cache` stores compiled components.
    ///
    /// # Errors
    /// Returns an error if this program's own file, which compiles plugins, is not found.
    pub fn from_config(
        config: &Config,
        threads: usize,
        cache: Option<(PathBuf, Zeroizing<[u8; 32]>)>,
    ) -> anyhow::Result<Self> {
        let policy = &config.policy;
        let program = match &policy.compiler {
            Some(program) => program.clone(),
            None => std::env::current_exe().context("cannot find this program, which compiles plugins")?,
        };
        Ok(Self {
            limits: Limits::from_config(config),
            threads,
            queue: policy.queue,
            observer_threads: policy.observer_threads,
            quarantine: QuarantineRules {
                threshold: policy.fault_threshold,
                window: policy.fault_window.get(),
                period: policy.quarantine.get(),
            },
            compiler: Compiler::new(program, policy.compile_timeout.get(), policy.compile_memory.get()),
            cache,
            cache_limit: policy.cache_size.get(),
            component_limit: policy.component_size.get(),
            loaded_limit: policy.loaded_size.get(),
            large: LargeLimits {
                component: policy.large.component_size.get(),
                memory: policy.large.memory.get(),
                table_elements: policy.large.table_elements,
                fuel: policy.large.fuel,
                deadline: policy.large.deadline.get(),
            },
        })
    }
}

impl Limits {
    /// Returns the limits of one call under this configuration.
    #[must_use]
    pub fn from_config(config: &Config) -> Self {
        let policy = &config.policy;
        Self {
            memory: policy.memory.get(),
            table_elements: TABLE_ELEMENTS,
            fuel: policy.fuel,
            fuel_per_byte: policy.fuel_per_byte,
            deadline: policy.deadline.get(),
            key_operations: policy.key_operations,
            log_lines: policy.log_lines,
            log_line_length: policy.log_line_length.get(),
            added_headers: usize::try_from(policy.added_headers).unwrap_or(usize::MAX),
            answer_body: config.server.payload_limit.get().saturating_mul(ANSWER_GROWTH),
            embedded: config.limits.embedded.get(),
        }
    }
}
