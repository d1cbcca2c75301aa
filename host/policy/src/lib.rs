//! The policy runtime: how components are accepted, loaded and called.
//!
//! Invariants: every call runs in a store of its own, which nothing survives; every store has every limit; no call runs on a
//! thread that serves the API, the timer or the network; a key's bytes never enter a guest. Whatever a guest does ends in an
//! answer or in a [`Fault`] with a code of its own, and leaves the next call unharmed.

mod answer;
pub mod binding;
mod cache;
mod call;
mod call_log;
pub mod case;
mod code_budget;
mod compile;
mod compile_queue;
mod component;
pub mod config_schema;
mod copies;
mod engine;
mod engines;
mod epoch;
mod examination;
mod fault;
pub mod golden;
#[cfg(test)]
mod hostile;
mod input_len;
mod keys;
mod limits;
mod linked_component;
mod load_error;
mod options;
mod pipeline;
mod plugin;
mod preflight;
mod quarantine;
mod registry;
mod state;
mod threads;
mod wasi;
mod wit;

pub use self::answer::{check_header, check_job_header};
pub use self::cache::Cache;
pub use self::call::{CallResult, CallUsage};
pub use self::compile::{Compiler, SUBCOMMAND as COMPILER_SUBCOMMAND, compiler_main};
pub use self::component::{Digest, Role};
pub use self::examination::{Described, PluginDoc, describe, examine};
pub use self::fault::{Blame, Fault, FaultCode};
pub use self::keys::{KeyKind, KeyMaterial};
pub use self::limits::{LargeLimits, Limits, TABLE_ELEMENTS};
pub use self::load_error::LoadError;
pub use self::pipeline::{Judgement, Plan, PlanStep, PolicyCaller, PreparedRequest, Ruling, is_fatal};
pub use self::plugin::Plugin;
pub use self::quarantine::{PolicyKey, Quarantine, QuarantineEntry, QuarantineStart, Rules as QuarantineRules, Watch};
pub use self::registry::{Admitted, ComponentSource, Registry};
pub use self::threads::{PolicyThreads, QueueKey};
pub use self::wit::jobs_import::NewJob as AskedJob;
pub use self::wit::judge_export::{Exchange, Outcome as JudgedOutcome, Response, TransportError, Verdict};
pub use self::wit::meta_export::Description;
pub use self::wit::observe_export::Event;
pub use self::wit::retry_export::{Decision, Past};
pub use self::wit::types::{Attempt, Attribute, Header, Request};

use std::path::PathBuf;
use std::sync::Arc;

use zeroize::Zeroizing;

use self::code_budget::CodeBudget;
use self::engines::Engines;

/// How the runtime is set up; every field has its explanation in `config.default.toml`.
pub struct RuntimeOptions {
    /// Bounds of one call.
    pub limits: Limits,
    /// How many calls run at once.
    pub threads: usize,
    /// How many calls wait at most.
    pub queue: usize,
    /// How many calls of observers run at once, besides.
    pub observer_threads: usize,
    /// When a policy is no longer called.
    pub quarantine: QuarantineRules,
    /// Compiles components.
    pub compiler: Compiler,
    /// Keeps compiled components in this directory, authenticated with this key.
    pub cache: Option<(PathBuf, Zeroizing<[u8; 32]>)>,
    /// Bytes that are kept there.
    pub cache_limit: usize,
    /// Bytes of a component that is not large.
    pub component_limit: usize,
    /// What is different for components that are.
    pub large: LargeLimits,
    /// Bytes of compiled code that stay loaded.
    pub loaded_limit: usize,
}

/// Everything that calling a policy takes.
pub struct Runtime {
    /// Bounds of one call.
    pub limits: Arc<Limits>,
    /// Where calls run.
    pub threads: PolicyThreads,
    /// Where observers run.
    pub observer_threads: PolicyThreads,
    /// Who is not called.
    pub quarantine: Arc<Quarantine>,
    /// Who is not called for shadows.
    pub shadow_quarantine: Arc<Quarantine>,
    /// The loaded plugins.
    pub registry: Registry,
    /// Bytes of their code that stay loaded.
    pub loaded_limit: usize,
}

impl Runtime {
    /// Starts the engine and its threads.
    ///
    /// # Errors
    /// If the machine has no room for them.
    pub fn start(options: RuntimeOptions) -> anyhow::Result<Self> {
        let threads = options.threads.saturating_add(options.observer_threads);
        let room = CodeBudget::new(options.loaded_limit);
        let engines = Engines::new(&options.limits, options.large, threads, options.component_limit, room)
            .map_err(|error| anyhow::anyhow!("the policy engine does not start: {error:#}"))?;
        let cache = options.cache.map(|(dir, key)| Cache::new(dir, key, engines.compatible(), options.cache_limit));
        Ok(Self {
            limits: Arc::new(options.limits),
            threads: PolicyThreads::start(options.threads, options.queue, 0)?,
            observer_threads: PolicyThreads::start(options.observer_threads, options.queue, options.threads)?,
            quarantine: Arc::new(Quarantine::new(options.quarantine)),
            shadow_quarantine: Arc::new(Quarantine::new(options.quarantine)),
            registry: Registry::new(engines, options.compiler, cache),
            loaded_limit: options.loaded_limit,
        })
    }
}
