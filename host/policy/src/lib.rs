//! The policy runtime: how components are accepted, loaded and called.
//!
//! Role: checks and compiles components, keeps them loaded, reads the documents that bind them to roles ([`binding`]), and calls them on
//! threads of its own. Whatever a guest does ends in a result or in a [`Fault`] with a code of its own, and leaves the next call unharmed.
//!
//! Not: a catalog, a store, or any network.
//!
//! Invariants: each call runs in a fresh instance and store, with every limit set; no call runs on a thread that serves the API, the timer or
//! the network; what a guest sees of WASI follows from the call's arguments; the bytes of a key never enter a guest.
//!
//! May import: `carillon-core`, `-config`; it is the only crate that imports wasmtime.

mod answer;
pub mod binding;
mod cache;
mod call;
mod call_log;
pub mod case;
mod code_budget;
mod compile;
mod compile_budget;
mod compile_queue;
mod component;
pub mod config_schema;
mod copies;
mod engine;
mod engines;
mod epoch;
mod examination;
mod fault;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
pub mod golden;
#[cfg(test)]
mod hostile;
mod input_len;
mod key_origins;
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
mod tls_client;
mod wasi;
mod wit;

pub use self::answer::{check_header, check_job_header};
pub use self::cache::Cache;
pub use self::call::{CallResult, CallUsage, JobRequests};
pub use self::compile::{Compiler, SUBCOMMAND as COMPILER_SUBCOMMAND, compiler_main};
pub use self::compile_budget::CompileBudget;
pub use self::component::{Digest, Role};
pub use self::examination::{Described, PluginRecord, describe, examine};
pub use self::fault::{Blame, Fault, FaultCode};
pub use self::key_origins::KeyOrigins;
pub use self::keys::{KeyKind, KeyMaterial};
pub use self::limits::{LargeLimits, Limits, TABLE_ELEMENTS};
pub use self::load_error::LoadError;
pub use self::pipeline::{Judgement, Plan, PlanStep, PolicyCaller, PreparedRequest, Ruling, is_fatal};
pub use self::plugin::Plugin;
pub use self::quarantine::{
    PolicyKey, Quarantine, QuarantineEntry, QuarantineStart, QuarantineTimes, Rules as QuarantineRules, Watch,
};
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

/// Options of the runtime; `config.default.toml` explains every field.
pub struct RuntimeOptions {
    /// Limits of one call.
    pub limits: Limits,
    /// Number of calls that run at once.
    pub threads: usize,
    /// Maximum number of calls that wait.
    pub queue: usize,
    /// Number of observers' calls that run at once, in addition.
    pub observer_threads: usize,
    /// Rules of quarantine.
    pub quarantine: QuarantineRules,
    /// Compiler of components.
    pub compiler: Compiler,
    /// Directory of the cache of compiled components, and the key that authenticates its files.
    pub cache: Option<(PathBuf, Zeroizing<[u8; 32]>)>,
    /// Maximum size of the cache, in bytes.
    pub cache_limit: usize,
    /// Maximum size of a component that is not large, in bytes.
    pub component_limit: usize,
    /// Limits that differ for large components.
    pub large: LargeLimits,
    /// Bytes of compiled code that stay loaded.
    pub loaded_limit: usize,
}

/// The policy runtime: limits, threads, quarantines and loaded plugins.
pub struct Runtime {
    /// Limits of one call.
    pub limits: Arc<Limits>,
    /// Threads that calls run on.
    pub threads: PolicyThreads,
    /// Threads that observers run on.
    pub observer_threads: PolicyThreads,
    /// Threads that configs and uploads are checked on, so that deliveries never wait behind a check: half as many as for calls.
    pub check_threads: PolicyThreads,
    /// Policies that are not called.
    pub quarantine: Arc<Quarantine>,
    /// Policies that are not called for shadows.
    pub shadow_quarantine: Arc<Quarantine>,
    /// Loaded plugins.
    pub registry: Registry,
    /// Bytes of compiled code that stay loaded.
    pub loaded_limit: usize,
}

impl Runtime {
    /// Starts the engines and the threads.
    ///
    /// # Errors
    /// Returns an error if the machine has no room for them.
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
            // On the first engine, which has slots to spare.
            check_threads: PolicyThreads::start((options.threads / 2).max(1), options.queue, 0)?,
            quarantine: Arc::new(Quarantine::new(options.quarantine)),
            shadow_quarantine: Arc::new(Quarantine::new(options.quarantine)),
            registry: Registry::new(engines, options.compiler, cache),
            loaded_limit: options.loaded_limit,
        })
    }
}
