//! Wasmtime engines: how components are compiled, instantiated and interrupted.
//!
//! Each policy thread has an engine for small guests, as long as there are few threads; all threads share one engine for large guests, made
//! when it is needed. The engines differ only in the sizes of their pools.
//!
//! Settings that change what a guest computes (NaN bits, relaxed SIMD) are pinned, so that the same call returns the same result on every
//! node. Memories of 64 bits are switched off: no policy needs them, and each access would be checked. Threads, garbage collection,
//! exceptions and the asynchronous component model are not even compiled in.

use std::borrow::Cow;
use std::sync::{Arc, Mutex, PoisonError};

use wasmtime::component::{Component, HasSelf, InstancePre, Linker};
use wasmtime::{Config, Enabled, Engine, InstanceAllocationStrategy, PoolingAllocationConfig, Store};

use super::epoch::{TICK, Ticker};
use super::limits::{LargeLimits, Limits};
use super::state::CallState;
use super::wasi::{self, Facts};
use super::wit::{jobs_import, keys_import, log_import};

/// Maximum deadline in ticks: added to the epoch, it must not overflow.
const MAX_TICKS: u64 = u64::MAX / 2;

/// Memory of an instance slot that stays mapped between calls, in bytes; what a guest touches below this costs the next call no page faults.
const KEEP_RESIDENT: usize = 256 << 10;

/// Stack of a guest, in bytes.
const GUEST_STACK: usize = 512 << 10;

/// Maximum data that one call of a host import may pass, in bytes and bookkeeping.
const HOSTCALL_FUEL: usize = 32 << 20;

/// Maximum number of core instances in one component: the module itself and the shims around it.
const CORE_INSTANCES: u32 = 20;

/// The same for a large component, which may be linked from many modules.
const LARGE_CORE_INSTANCES: u32 = 100;

/// Maximum number of memories in one component.
const MEMORIES: u32 = 2;

/// Maximum size of wasmtime's data about an instance, in bytes; large components have many functions and globals.
const LARGE_INSTANCE: usize = 8 << 20;

/// Maximum number of engines for small guests. Each may have native code of its own for each component.
pub(super) const MAX_ENGINES: usize = 8;

/// Instance slots beyond one for each policy thread.
const SPARE_SLOTS: u32 = 4;

/// Engine that compiles, links and makes stores.
pub(super) struct PolicyEngine {
    engine: Engine,
    linker: Linker<CallState>,
    limits: Limits,
    /// Limits of large guests; only in their engine.
    large: Option<LargeLimits>,
    trial: Mutex<()>,
    ticker: Arc<Ticker>,
}

impl PolicyEngine {
    /// Makes one engine for all of `threads` threads, for calls under `limits`; `large` holds the different limits if it is the engine of
    /// large guests.
    pub(super) fn new(limits: &Limits, threads: usize, large: Option<LargeLimits>) -> wasmtime::Result<Self> {
        let limits = large.as_ref().map_or_else(|| limits.clone(), |large| large.over(limits));
        let size = large.as_ref().map_or(PoolSize::Small, |_| PoolSize::Large);
        let engine = Engine::new(&config(&limits, threads, size)?)?;
        let ticker = Ticker::start(vec![engine.clone()])?;
        Self::from_engine(engine, limits, large, Arc::new(ticker))
    }

    /// Makes an engine for each of `threads` threads, or for some of them if there are many, with one clock. The first has room for calls of
    /// all threads, because the others may lack a copy of the component.
    pub(super) fn several(limits: &Limits, threads: usize) -> wasmtime::Result<Arc<[Arc<Self>]>> {
        let count = threads.clamp(1, MAX_ENGINES);
        let (first, other) =
            (config(limits, threads, PoolSize::Small)?, config(limits, threads.div_ceil(count), PoolSize::Small)?);
        let configs = std::iter::once(&first).chain(std::iter::repeat(&other));
        let engines = configs.take(count).map(Engine::new).collect::<wasmtime::Result<Vec<_>>>()?;
        let ticker = Arc::new(Ticker::start(engines.clone())?);
        let of = |engine| Self::from_engine(engine, limits.clone(), None, Arc::clone(&ticker)).map(Arc::new);
        engines.into_iter().map(of).collect()
    }

    fn from_engine(
        engine: Engine,
        limits: Limits,
        large: Option<LargeLimits>,
        ticker: Arc<Ticker>,
    ) -> wasmtime::Result<Self> {
        let linker = linker(&engine)?;
        Ok(Self { engine, linker, limits, large, trial: Mutex::default(), ticker })
    }

    /// Returns the limits of a call in this engine if the caller grants it `limits`.
    pub(super) fn limits<'a>(&self, limits: &'a Limits) -> Cow<'a, Limits> {
        match &self.large {
            Some(large) => Cow::Owned(large.over(limits)),
            None => Cow::Borrowed(limits),
        }
    }

    pub(super) fn is_large(&self) -> bool {
        self.large.is_some()
    }

    pub(super) fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Links a component. A component that imports WASI gets a linker of its own, with the interfaces in the versions that it imports.
    pub(super) fn link(&self, component: &Component, wasi: &[String]) -> wasmtime::Result<InstancePre<CallState>> {
        if wasi.is_empty() {
            return self.linker.instantiate_pre(component);
        }
        let mut linker = linker(&self.engine)?;
        wasi.iter().try_for_each(|import| wasi::add_to_linker(&mut linker, import))?;
        linker.define_unknown_imports_as_traps(component)?;
        linker.instantiate_pre(component)
    }

    /// Loads the artefact that [`compile`] made.
    ///
    /// The artefact is native code: it must come from this program, by a pipe from the compiler process or authenticated from the cache.
    pub(super) fn deserialize(&self, artefact: &[u8]) -> wasmtime::Result<Component> {
        #[expect(unsafe_code, reason = "artefacts come from our own compiler process or from a file with a valid MAC")]
        unsafe {
            Component::deserialize(&self.engine, artefact)
        }
    }

    /// Makes a store outside of the policy threads, for linking; one at a time, so that it takes one spare slot.
    pub(super) fn trial<T>(&self, work: impl FnOnce(&mut Store<CallState>) -> T) -> wasmtime::Result<T> {
        let _one = self.trial.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(work(&mut self.store(&self.limits, Facts::default())?))
    }

    /// Makes a store with every limit set. No other function makes one.
    pub(super) fn store(&self, limits: &Limits, facts: Facts) -> wasmtime::Result<Store<CallState>> {
        let mut store = Store::new(&self.engine, CallState::new(limits, facts));
        store.limiter(|state| &mut state.meter);
        store.set_fuel(limits.fuel)?;
        store.set_hostcall_fuel(HOSTCALL_FUEL);
        let ticks = limits.deadline.as_millis().div_ceil(TICK.as_millis()).saturating_add(1);
        let ticks = u64::try_from(ticks).unwrap_or(u64::MAX).min(MAX_TICKS);
        store.set_epoch_deadline(ticks);
        self.ticker.call(ticks);
        Ok(store)
    }
}

/// Compiles a component to native code. The component's author determines the cost, so the call belongs in a process that can be killed.
///
/// # Errors
/// Returns an error if the bytes are not a component, or use a feature that is switched off.
pub fn compile(component: &[u8]) -> wasmtime::Result<Vec<u8>> {
    Engine::new(&settings()?)?.precompile_component(component)
}

/// Returns the settings on which the compiling and the running engine must agree. The data of a trap's message, names of functions, needs
/// neither unwinding tables nor a map of addresses.
fn settings() -> wasmtime::Result<Config> {
    let mut config = Config::new();
    config
        .consume_fuel(true)
        .epoch_interruption(true)
        .max_wasm_stack(GUEST_STACK)
        .cranelift_nan_canonicalization(true)
        .relaxed_simd_deterministic(true)
        .wasm_memory64(false)
        .native_unwind_info(false)
        .generate_address_map(false)
        .memory_init_cow(true);
    Ok(config)
}

/// Size of the instances in an engine's pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PoolSize {
    /// For most guests.
    Small,
    /// For large guests.
    Large,
}

/// Returns the settings of an engine that runs compiled code.
fn config(limits: &Limits, threads: usize, size: PoolSize) -> wasmtime::Result<Config> {
    let mut config = settings()?;
    config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool(limits, threads, size)));
    Ok(config)
}

/// Makes a linker with all imports of a policy except WASI.
fn linker(engine: &Engine) -> wasmtime::Result<Linker<CallState>> {
    let mut linker = Linker::new(engine);
    log_import::add_to_linker::<CallState, HasSelf<CallState>>(&mut linker, |state| state)?;
    keys_import::add_to_linker::<CallState, HasSelf<CallState>>(&mut linker, |state| state)?;
    jobs_import::add_to_linker::<CallState, HasSelf<CallState>>(&mut linker, |state| state)?;
    Ok(linker)
}

fn pool(limits: &Limits, threads: usize, size: PoolSize) -> PoolingAllocationConfig {
    let slots = u32::try_from(threads).unwrap_or(u32::MAX).saturating_add(SPARE_SLOTS);
    let mut pool = PoolingAllocationConfig::new();
    let core_instances = match size {
        PoolSize::Small => CORE_INSTANCES,
        PoolSize::Large => {
            pool.max_component_instance_size(LARGE_INSTANCE).max_core_instance_size(LARGE_INSTANCE);
            LARGE_CORE_INSTANCES
        }
    };
    pool.total_component_instances(slots)
        .total_core_instances(slots.saturating_mul(core_instances))
        .total_memories(slots.saturating_mul(MEMORIES))
        .total_tables(slots.saturating_mul(core_instances))
        .max_core_instances_per_component(core_instances)
        .max_memories_per_component(MEMORIES)
        .max_memories_per_module(MEMORIES)
        .max_tables_per_component(core_instances)
        .max_tables_per_module(core_instances)
        .max_memory_size(limits.memory)
        .table_elements(limits.table_elements)
        .linear_memory_keep_resident(KEEP_RESIDENT)
        .table_keep_resident(KEEP_RESIDENT)
        .pagemap_scan(Enabled::Auto);
    pool
}
