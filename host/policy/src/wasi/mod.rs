//! WASI 0.2 for policies, as far as it fits a pure function.
//!
//! Runtimes of other languages need a clock, randomness, a terminal and files before they run a line of the plugin's code. They get values
//! that follow from the call's arguments: the time is `now-ms` and stands still, randomness is derived from `seed`, output becomes log lines,
//! environment and file system are empty. So two calls with the same arguments return the same bytes.
//!
//! Invariants: nothing here reads the host's clock, random source, files or environment; sockets and HTTP do not exist; no request of a guest
//! takes host memory without a bound. A function of an allowed interface that is not defined here traps when it is called.
//!
//! The functions are those of <https://github.com/WebAssembly/WASI>, version 0.2, in whichever patch version a guest imports.

mod io;
mod state;

use wasmtime::StoreContextMut;
use wasmtime::component::{ComponentType, Linker, LinkerInstance, Lower, Resource, ResourceType};

pub(super) use self::state::{Facts, Wasi};

use super::state::CallState;

/// Interfaces that are provided, without the version.
const INTERFACES: [&str; 20] = [
    "wasi:cli/environment",
    "wasi:cli/exit",
    "wasi:cli/stdin",
    "wasi:cli/stdout",
    "wasi:cli/stderr",
    "wasi:cli/terminal-input",
    "wasi:cli/terminal-output",
    "wasi:cli/terminal-stdin",
    "wasi:cli/terminal-stdout",
    "wasi:cli/terminal-stderr",
    "wasi:clocks/monotonic-clock",
    "wasi:clocks/wall-clock",
    "wasi:filesystem/preopens",
    "wasi:filesystem/types",
    "wasi:io/error",
    "wasi:io/poll",
    "wasi:io/streams",
    "wasi:random/insecure",
    "wasi:random/insecure-seed",
    "wasi:random/random",
];

/// Compatibility track of these interfaces.
const TRACK: &str = "@0.2.";

type Context<'a> = StoreContextMut<'a, CallState>;
type Instance<'a> = LinkerInstance<'a, CallState>;

struct Descriptor;
struct TerminalInput;
struct TerminalOutput;

/// Time of the wall clock.
#[derive(Clone, Copy, ComponentType, Lower)]
#[component(record)]
struct Datetime {
    seconds: u64,
    nanoseconds: u32,
}

/// Returns the name, without the version, of an interface that is provided.
pub(super) fn interface(import: &str) -> Option<&'static str> {
    let (name, patch) = import.split_once(TRACK)?;
    INTERFACES.into_iter().find(|known| *known == name && !patch.is_empty())
}

/// Defines an interface under the version that the guest imports.
pub(super) fn add_to_linker(linker: &mut Linker<CallState>, import: &str) -> wasmtime::Result<()> {
    let mut it = linker.instance(import)?;
    resources(&mut it)?;
    match interface(import) {
        Some("wasi:cli/environment") => environment(&mut it),
        Some("wasi:cli/exit") => exit(&mut it),
        Some("wasi:cli/terminal-stdin") => absent::<TerminalInput>(&mut it, "get-terminal-stdin"),
        Some("wasi:cli/terminal-stdout") => absent::<TerminalOutput>(&mut it, "get-terminal-stdout"),
        Some("wasi:cli/terminal-stderr") => absent::<TerminalOutput>(&mut it, "get-terminal-stderr"),
        Some("wasi:clocks/monotonic-clock") => monotonic_clock(&mut it),
        Some("wasi:clocks/wall-clock") => wall_clock(&mut it),
        Some("wasi:filesystem/preopens") => preopens(&mut it),
        Some("wasi:random/random") => random(&mut it, "get-random-bytes", "get-random-u64"),
        Some("wasi:random/insecure") => random(&mut it, "get-insecure-random-bytes", "get-insecure-random-u64"),
        Some("wasi:random/insecure-seed") => insecure_seed(&mut it),
        Some(other) => io::add_to_linker(&mut it, other),
        None => Ok(()),
    }
}

/// Defines resources. An interface has its own and those that it uses; unused definitions do no harm.
fn resources(it: &mut Instance<'_>) -> wasmtime::Result<()> {
    resource::<TerminalInput>(it, "terminal-input")?;
    resource::<TerminalOutput>(it, "terminal-output")?;
    resource::<Descriptor>(it, "descriptor")?;
    io::resources(it)
}

fn resource<T: 'static>(it: &mut Instance<'_>, name: &str) -> wasmtime::Result<()> {
    it.resource(name, ResourceType::host::<T>(), |_, _| Ok(()))
}

/// Defines a terminal that does not exist.
fn absent<T: 'static>(it: &mut Instance<'_>, name: &str) -> wasmtime::Result<()> {
    it.func_wrap(name, |_: Context<'_>, (): ()| Ok((None::<Resource<T>>,)))
}

fn environment(it: &mut Instance<'_>) -> wasmtime::Result<()> {
    it.func_wrap("get-environment", |_: Context<'_>, (): ()| Ok((Vec::<(String, String)>::new(),)))?;
    it.func_wrap("get-arguments", |_: Context<'_>, (): ()| Ok((Vec::<String>::new(),)))?;
    it.func_wrap("initial-cwd", |_: Context<'_>, (): ()| Ok((None::<String>,)))
}

fn exit(it: &mut Instance<'_>) -> wasmtime::Result<()> {
    it.func_wrap("exit", |_: Context<'_>, (status,): (Result<(), ()>,)| -> wasmtime::Result<()> {
        let how = if status.is_ok() { "success" } else { "failure" };
        wasmtime::bail!("it called `exit` with {how}, and a policy has nothing to exit from")
    })
}

fn monotonic_clock(it: &mut Instance<'_>) -> wasmtime::Result<()> {
    it.func_wrap("now", |store: Context<'_>, (): ()| Ok((store.data().wasi.nanoseconds(),)))?;
    it.func_wrap("resolution", |_: Context<'_>, (): ()| Ok((state::RESOLUTION_NS,)))?;
    // Each subscription is ready at once, because time does not pass.
    for name in ["subscribe-instant", "subscribe-duration"] {
        it.func_wrap(name, |store: Context<'_>, (_,): (u64,)| io::pollable(store))?;
    }
    Ok(())
}

fn wall_clock(it: &mut Instance<'_>) -> wasmtime::Result<()> {
    it.func_wrap("now", |store: Context<'_>, (): ()| {
        let (seconds, nanoseconds) = store.data().wasi.wall_clock();
        Ok((Datetime { seconds, nanoseconds },))
    })?;
    let nanoseconds = u32::try_from(state::RESOLUTION_NS).unwrap_or(u32::MAX);
    it.func_wrap("resolution", move |_: Context<'_>, (): ()| Ok((Datetime { seconds: 0, nanoseconds },)))
}

fn preopens(it: &mut Instance<'_>) -> wasmtime::Result<()> {
    it.func_wrap("get-directories", |_: Context<'_>, (): ()| Ok((Vec::<(Resource<Descriptor>, String)>::new(),)))
}

fn random(it: &mut Instance<'_>, bytes: &str, number: &str) -> wasmtime::Result<()> {
    it.func_wrap(bytes, |mut store: Context<'_>, (len,): (u64,)| Ok((store.data_mut().wasi.random(len)?,)))?;
    it.func_wrap(number, |mut store: Context<'_>, (): ()| Ok((store.data_mut().wasi.random_u64()?,)))
}

fn insecure_seed(it: &mut Instance<'_>) -> wasmtime::Result<()> {
    it.func_wrap("insecure-seed", |mut store: Context<'_>, (): ()| {
        let wasi = &mut store.data_mut().wasi;
        Ok(((wasi.random_u64()?, wasi.random_u64()?),))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_patch_of_what_is_here_is_known_and_nothing_else() {
        assert_eq!(interface("wasi:io/streams@0.2.0"), Some("wasi:io/streams"));
        assert_eq!(interface("wasi:io/streams@0.2.12"), Some("wasi:io/streams"));
        for other in [
            "wasi:io/streams",
            "wasi:io/streams@0.2.",
            "wasi:io/streams@0.3.0",
            "wasi:sockets/tcp@0.2.0",
            "wasi:http/types@0.2.0",
        ] {
            assert_eq!(interface(other), None, "{other}");
        }
    }
}
