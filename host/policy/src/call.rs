//! One call of a policy: a fresh store, its arguments, its result or its fault, and its usage.

use std::sync::Arc;

use wasmtime::component::Instance;
use wasmtime::{PoolConcurrencyLimitError, Store, Trap, WasmBacktrace};

use super::answer;
use super::component::Role;
use super::fault::{Blame, Fault, FaultCode};
use super::input_len;
use super::keys::KeyMaterial;
use super::limits::Limits;
use super::linked_component::{Exports, LinkedComponent};
use super::plugin::Plugin;
use super::state::CallState;
use super::wasi::Facts;
use super::wit::jobs_import::NewJob;
use super::wit::{judge_export, meta_export, observe_export, retry_export, types};
use carillon_core::clock::Stopwatch;
use carillon_core::exhaustion::Exhausted;

/// Result and usage of a call.
#[derive(Debug)]
pub struct CallResult<T> {
    /// Value that the policy returned, or the fault.
    pub result: Result<T, Fault>,
    /// Time, fuel and memory that the call used, and its log.
    pub usage: CallUsage,
}

/// Usage of a call: time, fuel, memory, and its log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CallUsage {
    /// Microseconds from the creation of the store to its end.
    pub micros: u64,
    /// Fuel that was consumed.
    pub fuel: u64,
    /// Fuel granted to the call: [`Limits::fuel`] plus the allowance for its arguments.
    pub fuel_limit: u64,
    /// Bytes of linear memory, bounded by [`Limits::memory`]. A memory does not shrink, so the size at the end is also the peak.
    pub memory: usize,
    /// Lines that the policy logged.
    pub log: Vec<String>,
}

/// Whether an observer may request jobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobRequests {
    /// Its requests are refused.
    Denied,
    /// Its requests are collected.
    Allowed,
}

impl Plugin {
    /// Returns the plugin's description of itself.
    pub fn describe(&self, limits: &Limits) -> CallResult<meta_export::Description> {
        self.call(limits, Facts::default(), 0, |exports, store, instance| {
            exports.meta.load(&mut *store, instance)?.call_describe(store).map(Ok)
        })
    }

    /// Asks the plugin whether it accepts a config; the inner error is the plugin's own sentence.
    pub fn check(&self, limits: &Limits, config: &str) -> CallResult<Result<(), String>> {
        self.call(limits, Facts::default(), config.len(), |exports, store, instance| {
            let answer = exports.meta.load(&mut *store, instance)?.call_check(store, config)?;
            Ok(Ok(answer.map_err(|said| answer::readable(&said))))
        })
    }

    /// Encodes a request: returns the request that the plugin makes from it.
    pub fn encode(
        &self,
        limits: &Limits,
        attempt: &types::Attempt,
        config: &str,
        request: &types::Request,
    ) -> CallResult<types::Request> {
        let length = input_len::attempt(attempt) + config.len() + input_len::request(request);
        let mut called = self.call(limits, attempt.into(), length, |exports, store, instance| {
            let Some(exports) = &exports.encode else { return Ok(Err(lacks(Role::Encode))) };
            let answer = exports.load(&mut *store, instance)?.call_encode(store, attempt, config, request)?;
            Ok(answer.map_err(declared))
        });
        called.result = called.result.and_then(|answer| answer::check_encoded(limits, request, answer));
        called
    }

    /// Signs a request: returns the signed request.
    pub fn sign(
        &self,
        limits: &Limits,
        attempt: &types::Attempt,
        config: &str,
        request: types::Request,
        keys: &[Arc<KeyMaterial>],
    ) -> CallResult<types::Request> {
        let length = input_len::attempt(attempt) + config.len() + input_len::request(&request);
        let called = self.call(limits, attempt.into(), length, |exports, store, instance| {
            let Some(exports) = &exports.sign else { return Ok(Err(lacks(Role::Sign))) };
            let handles = store.data_mut().grant(keys)?;
            let borrows: Vec<_> =
                handles.iter().map(|key| wasmtime::component::Resource::new_borrow(key.rep())).collect();
            let answer = exports.load(&mut *store, instance)?.call_sign(store, attempt, config, &request, &borrows)?;
            Ok(answer.map_err(declared))
        });
        CallResult {
            result: called.result.and_then(|signed| answer::apply_signed(limits, request, signed)),
            usage: called.usage,
        }
    }

    /// Asks a judge for its verdict on a response.
    pub fn judge(
        &self,
        limits: &Limits,
        attempt: &types::Attempt,
        config: &str,
        exchange: &judge_export::Exchange,
    ) -> CallResult<judge_export::Verdict> {
        let length = input_len::attempt(attempt) + config.len() + input_len::exchange(exchange);
        self.call(limits, attempt.into(), length, |exports, store, instance| {
            let Some(exports) = &exports.judge else { return Ok(Err(lacks(Role::Judge))) };
            let answer = exports.load(&mut *store, instance)?.call_judge(store, attempt, config, exchange)?;
            let verdict = answer.map_err(declared);
            Ok(verdict.map(|said| judge_export::Verdict { reason: answer::readable(&said.reason), ..said }))
        })
    }

    /// Asks a retry policy whether and when to try again.
    pub fn retry(
        &self,
        limits: &Limits,
        attempt: &types::Attempt,
        config: &str,
        verdict: &judge_export::Verdict,
        history: &[retry_export::Past],
    ) -> CallResult<retry_export::Decision> {
        let length = input_len::attempt(attempt) + config.len() + verdict.reason.len() + input_len::history(history);
        self.call(limits, attempt.into(), length, |exports, store, instance| {
            let Some(exports) = &exports.retry else { return Ok(Err(lacks(Role::Retry))) };
            let answer = exports.load(&mut *store, instance)?.call_next(store, attempt, config, verdict, history)?;
            Ok(answer.map_err(declared).map(|decision| match decision {
                retry_export::Decision::GiveUp(reason) => retry_export::Decision::GiveUp(answer::readable(&reason)),
                after => after,
            }))
        })
    }

    /// Shows events to an observer. Returns the jobs that the observer requests.
    pub fn observe(
        &self,
        limits: &Limits,
        config: &str,
        events: &[observe_export::Event],
        requests: JobRequests,
    ) -> CallResult<Vec<NewJob>> {
        let facts = Facts { now_ms: events.last().map_or(0, |event| event.at_ms), seed: 0 };
        self.call(limits, facts, config.len() + input_len::events(events), |exports, store, instance| {
            let Some(exports) = &exports.observe else { return Ok(Err(lacks(Role::Observe))) };
            match requests {
                JobRequests::Allowed => store.data_mut().allow_jobs(),
                JobRequests::Denied => {}
            }
            exports.load(&mut *store, instance)?.call_observe(&mut *store, config, events)?;
            Ok(Ok(store.data_mut().take_jobs()))
        })
    }

    /// Makes a call whose arguments have `length` bytes.
    fn call<T>(
        &self,
        limits: &Limits,
        facts: Facts,
        length: usize,
        body: impl FnOnce(&Exports, &mut Store<CallState>, &Instance) -> wasmtime::Result<Result<T, Fault>>,
    ) -> CallResult<T> {
        let stopwatch = Stopwatch::start();
        let LinkedComponent { engine, pre, exports, .. } = self.component();
        let limits = engine.limits(limits).with_input(length);
        let mut store = match engine.store(&limits, facts) {
            Ok(store) => store,
            Err(error) => {
                return CallResult {
                    result: Err(of_server(&error, format!("{error:#}"))),
                    usage: CallUsage::default(),
                };
            }
        };
        let result = match pre.instantiate(&mut store) {
            Ok(instance) => body(exports, &mut store, &instance).unwrap_or_else(|error| Err(fault(&store, &error))),
            Err(error) => Err(unstarted(&store, &error)),
        };
        let fuel_limit = limits.fuel;
        let fuel = fuel_limit.saturating_sub(store.get_fuel().unwrap_or(0));
        let memory = store.data().meter.memory(&limits);
        let log = store.into_data().into_log();
        let micros = u64::try_from(stopwatch.elapsed().as_micros()).unwrap_or(u64::MAX);
        CallResult { result, usage: CallUsage { micros, fuel, fuel_limit, memory, log } }
    }
}

/// Names the cause of a fault. A guest that was refused memory may go on and end in another way. If the guest was stopped for its time or its
/// fuel, that is the cause; for any other end, the refused memory is.
fn fault(store: &Store<CallState>, error: &wasmtime::Error) -> Fault {
    // Only errors that occur while the guest runs, a misused import included, carry a trace of the guest's functions.
    let trace = error.downcast_ref::<WasmBacktrace>();
    match error.downcast_ref::<Trap>() {
        Some(Trap::OutOfFuel) => Fault::of_policy(FaultCode::FuelExhausted, "the policy used up its fuel"),
        Some(Trap::Interrupt) => Fault::of_policy(FaultCode::Timeout, "the policy exceeded its deadline"),
        _ if store.data().meter.refused => {
            Fault::of_policy(FaultCode::MemoryExceeded, "the policy exceeded its memory limit")
        }
        None if trace.is_none() => {
            Fault::bad_answer(format!("the policy's result cannot be read: {}", one_line(error)))
        }
        _ => {
            let place = trace.map(place).unwrap_or_default();
            let text = match store.data().log.panic() {
                Some(panic) => format!("the policy {panic}{place}"),
                None => format!("the policy trapped: {}{place}", error.root_cause()),
            };
            Fault::of_policy(FaultCode::Trap, answer::readable(&text))
        }
    }
}

/// Returns where the guest was, innermost function first, without the functions of Rust that only carry a panic out.
fn place(trace: &WasmBacktrace) -> String {
    let names = trace.frames().iter().map(|frame| match frame.func_name() {
        // Names of other languages pass unchanged.
        Some(name) => format!("{:#}", rustc_demangle::demangle(name)),
        None => "a function without a name".to_owned(),
    });
    let names: Vec<_> = outside_of_panics(names.collect()).into_iter().take(FUNCTIONS).collect();
    if names.is_empty() { String::new() } else { format!(", in {}", names.join(", called by ")) }
}

/// Maximum number of functions in the message of a trap.
const FUNCTIONS: usize = 8;

/// Functions of Rust's runtime between the line that panics and the trap.
const PANIC_MACHINERY: [&str; 12] = [
    "core::panicking::",
    "core::option::unwrap_failed",
    "core::option::expect_failed",
    "core::result::unwrap_failed",
    "core::slice::index::slice_",
    "core::str::slice_error_fail",
    "core::cell::panic_already_",
    "std::panicking::",
    "std::sys::",
    "std::process::abort",
    "alloc::raw_vec::",
    "__rustc::",
];

fn outside_of_panics(names: Vec<String>) -> Vec<String> {
    let is_machinery = |name: &String| {
        let name = name.trim_start_matches('<');
        PANIC_MACHINERY.iter().any(|begin| name.starts_with(begin)) || ["abort", "rust_panic"].contains(&name)
    };
    let panics = names.iter().any(|name| name.contains("panic_fmt") || name.contains("rust_panic"));
    let first = names.iter().position(|name| !is_machinery(name)).filter(|_| panics).unwrap_or(0);
    names.into_iter().skip(first).collect()
}

/// Names the cause of a call that did not start: the guest's own start function, its demands, or else the server.
fn unstarted(store: &Store<CallState>, error: &wasmtime::Error) -> Fault {
    if store.data().meter.refused || error.downcast_ref::<Trap>().is_some() {
        return fault(store, error);
    }
    of_server(error, format!("the server cannot start the policy: {}", one_line(error)))
}

/// Makes a fault of the server. A resource that has run out may be free again in a moment, so that fault differs from a call that cannot be
/// made.
fn of_server(error: &wasmtime::Error, message: String) -> Fault {
    let is_full =
        error.is::<PoolConcurrencyLimitError>() || error.chain().any(|cause| Exhausted::find(cause).is_some());
    let code = if is_full { FaultCode::Overloaded } else { FaultCode::Unavailable };
    Fault { code, blame: Blame::Host, message }
}

/// Formats an error with its causes, without line breaks, cut to a readable length.
fn one_line(error: &wasmtime::Error) -> String {
    answer::readable(&format!("{error:#}").split_whitespace().collect::<Vec<_>>().join(" "))
}

fn declared(failure: types::Failure) -> Fault {
    let blame = match failure.blame {
        types::Blame::Job => Blame::Job,
        types::Blame::Config => Blame::Config,
        types::Blame::Policy => Blame::Policy,
    };
    let message = answer::readable(&format!("{}: {}", failure.code, failure.message));
    Fault { code: FaultCode::Declared, blame, message }
}

fn lacks(role: Role) -> Fault {
    Fault {
        code: FaultCode::Unavailable,
        blame: Blame::Config,
        message: format!("the plugin does not have the role `{role}`"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trap_names_the_function_that_panicked_first() {
        let mangled =
            ["_RNvCsfLfy6EI15iL_7___rustc12___rust_abort", "_ZN4core9panicking9panic_fmt17h0123456789abcdefE"];
        let demangled = mangled.map(|name| format!("{:#}", rustc_demangle::demangle(name)));
        assert_eq!(demangled, ["__rustc::__rust_abort", "core::panicking::panic_fmt"]);
        let frames = ["core::option::unwrap_failed", "says::judge", "carillon:policy/judge@0.1.0#judge"];
        let names = demangled.into_iter().chain(frames.map(str::to_owned)).collect();
        assert_eq!(outside_of_panics(names), ["says::judge", "carillon:policy/judge@0.1.0#judge"]);
        let other = vec!["std::sys::thing".to_owned(), "f".to_owned()];
        assert_eq!(outside_of_panics(other.clone()), other, "nobody panicked");
    }
}
