//! Guests that import WASI, and large guests: the functions and limits that they get, and those that they do not.

use std::sync::LazyLock;

use super::*;
use crate::LargeLimits;
use crate::engines::Engines;
use carillon_testing::guest::{ANSWER, ENDLESS, Guest, PLAIN, bytes, words};

static ENGINES: LazyLock<Engines> =
    LazyLock::new(|| Engines::new(&limits(), large(), THREADS, 4 << 20, CodeBudget::new(usize::MAX)).unwrap());

pub(super) fn large() -> LargeLimits {
    LargeLimits {
        component: 32 << 20,
        memory: 64 << 20,
        table_elements: 40_000,
        fuel: 60_000_000,
        deadline: Duration::from_secs(60),
    }
}

const CLOCKS: &str = "package wasi:clocks@0.2.3 {
    interface monotonic-clock { now: func() -> u64; }
    interface wall-clock { record datetime { seconds: u64, nanoseconds: u32 } now: func() -> datetime; }
}";
const RANDOM: &str = "package wasi:random@0.2.0 { interface random { get-random-u64: func() -> u64; } }";
const STREAMS: &str = "package wasi:io@0.2.9 {
    interface error { resource error { to-debug-string: func() -> string; } }
    interface streams {
        use error.{error};
        variant stream-error { last-operation-failed(error), closed }
        resource output-stream { blocking-write-and-flush: func(contents: list<u8>) -> result<_, stream-error>; }
    }
}
package wasi:cli@0.2.9 {
    interface stdout { use wasi:io/streams@0.2.9.{output-stream}; get-stdout: func() -> output-stream; }
    interface stderr { use wasi:io/streams@0.2.9.{output-stream}; get-stderr: func() -> output-stream; }
    interface exit { exit: func(status: result); }
    interface environment { get-environment: func() -> list<tuple<string, string>>; }
}";
const FILES: &str = "package wasi:filesystem@0.2.0 {
    interface types { resource descriptor { sync: func(); } unheard-of: func() -> u32; }
    interface preopens { use types.{descriptor}; get-directories: func() -> list<tuple<descriptor, string>>; }
}";

fn load(guest: &Guest) -> Result<Plugin, LoadError> {
    let component = guest.build();
    let artefact = engine::compile(&component).map_err(|error| LoadError::Compile(format!("{error:#}")))?;
    ENGINES.load(Digest::from_bytes(&component), component.len(), &artefact)
}

/// Returns the message of the fault in which a judge with this body ends.
fn trapped(guest: &Guest) -> String {
    let fault = judge(&load(guest).unwrap()).result.unwrap_err();
    assert_eq!(fault.code, FaultCode::Trap, "{fault}");
    all_is_well();
    fault.message
}

#[test]
fn time_and_randomness_are_those_of_the_attempt() {
    let body = "(call $wall (i32.const 2048)) (i64.store (i32.const 2064) (call $mono))
        (i64.store (i32.const 2072) (call $random)) (i64.store (i32.const 2080) (call $random)) (i32.const 128)";
    let guest = Guest::new("sign", body)
        .importing("wasi:clocks/wall-clock@0.2.3", CLOCKS)
        .importing("wasi:clocks/monotonic-clock@0.2.3", "")
        .importing("wasi:random/random@0.2.0", RANDOM)
        .first(r#"(import "wasi:clocks/wall-clock@0.2.3" "now" (func $wall (param i32)))"#)
        .first(r#"(import "wasi:clocks/monotonic-clock@0.2.3" "now" (func $mono (result i64)))"#)
        .first(r#"(import "wasi:random/random@0.2.0" "get-random-u64" (func $random (result i64)))"#)
        .with(&words(ANSWER, &[0, 0, 0, 1, 2048, 40]));
    let plugin = load(&guest).unwrap();
    let signed = |seed| {
        let attempt = types::Attempt { seed, ..attempt() };
        plugin.sign(&limits(), &attempt, "{}", request(), &[]).result.unwrap().body
    };
    let first = signed(7);
    let number = |at: usize| u64::from_le_bytes(first[at..at + 8].try_into().unwrap());
    assert_eq!((number(0), number(8), number(16)), (1_795_168_800, 251_000_000, 1_795_168_800_251_000_000));
    assert_ne!(number(24), number(32));
    assert_eq!(signed(7), first, "the same arguments, the same bytes");
    let other = signed(8);
    assert_eq!(other[..24], first[..24]);
    assert_ne!(other[24..], first[24..]);
}

#[test]
fn what_is_printed_becomes_lines_of_the_log() {
    let write = |stream: &str, at: u32, len: u32| {
        format!("(call $write (call ${stream}) (i32.const {at}) (i32.const {len}) (i32.const 2040))")
    };
    let body = [write("out", 1024, 9), write("err", 1040, 5), write("out", 1033, 4), PLAIN.to_owned()].join("\n");
    let guest = Guest::new("judge", &body)
        .importing("wasi:cli/stdout@0.2.9", STREAMS)
        .importing("wasi:cli/stderr@0.2.9", "")
        .first(r#"(import "wasi:cli/stdout@0.2.9" "get-stdout" (func $out (result i32)))"#)
        .first(r#"(import "wasi:cli/stderr@0.2.9" "get-stderr" (func $err (result i32)))"#)
        .first(
            r#"(import "wasi:io/streams@0.2.9" "[method]output-stream.blocking-write-and-flush" (func $write (param i32 i32 i32 i32)))"#,
        )
        .with(&bytes(1024, b"one\ntwo, three"))
        .with(&bytes(1040, b"alas!"));
    let called = judge(&load(&guest).unwrap());
    assert!(called.result.is_ok());
    assert_eq!(called.usage.log, ["info: one", "info: two, thre", "error: alas!"]);

    let endless = format!("(loop $again {} (br $again)) (unreachable)", write("out", 1024, 4));
    let message = trapped(&guest.instead(&endless));
    assert!(message.contains("WASI handles"), "{message}");
}

#[test]
fn environment_and_files_are_empty_and_the_rest_traps() {
    let body = "(call $environment (i32.const 2048)) (call $directories (i32.const 2056)) (i32.const 128)";
    let guest = Guest::new("sign", body)
        .importing("wasi:cli/environment@0.2.9", STREAMS)
        .importing("wasi:filesystem/preopens@0.2.0", FILES)
        .first(r#"(import "wasi:cli/environment@0.2.9" "get-environment" (func $environment (param i32)))"#)
        .first(r#"(import "wasi:filesystem/preopens@0.2.0" "get-directories" (func $directories (param i32)))"#)
        .with(&words(ANSWER, &[0, 0, 0, 1, 2048, 16]))
        .with(&words(2048, &[9, 9, 9, 9]));
    let body = sign(&load(&guest).unwrap(), &[]).result.unwrap().body;
    let word = |at: usize| u32::from_le_bytes(body[at..at + 4].try_into().unwrap());
    assert_eq!((word(4), word(12)), (0, 0), "two lists of nothing");

    let exits = Guest::new("judge", "(call $exit (i32.const 1)) (unreachable)")
        .importing("wasi:cli/exit@0.2.9", STREAMS)
        .first(r#"(import "wasi:cli/exit@0.2.9" "exit" (func $exit (param i32)))"#);
    assert!(trapped(&exits).contains("`exit` with failure"));
    let asks = Guest::new("judge", "(drop (call $unheard)) (unreachable)")
        .importing("wasi:filesystem/types@0.2.0", FILES)
        .first(r#"(import "wasi:filesystem/types@0.2.0" "unheard-of" (func $unheard (result i32)))"#);
    assert!(trapped(&asks).contains("unheard-of"));
}

#[test]
fn the_network_is_refused_with_what_to_do() {
    for (interface, says) in [
        ("wasi:sockets/tcp@0.2.0", "--stub-wasi"),
        ("wasi:http/outgoing-handler@0.2.0", "disableFeatures"),
        ("wasi:keyvalue/store@0.2.0", "wasm32-wasip2"),
        ("wasi:clocks/wall-clock@0.3.0", "wasm32-wasip2"),
        ("acme:odd/thing@1.0.0", "carillon:policy@0.1.0"),
    ] {
        let (name, version) = interface.split_once('@').unwrap();
        let (package, short) = name.split_once('/').unwrap();
        let wit = format!("package {package}@{version} {{ interface {short} {{ f: func() -> u32; }} }}");
        let guest = Guest::new("judge", "(drop (call $f)) (i32.const 128)")
            .importing(interface, &wit)
            .first(&format!(r#"(import "{interface}" "f" (func $f (result i32)))"#));
        let error = load(&guest).unwrap_err();
        assert!(matches!(&error, LoadError::Import(name) if name == interface), "{error}");
        assert!(error.to_string().contains(says), "{error}");
    }
    all_is_well();
}

#[test]
fn a_large_guest_has_limits_of_its_own() {
    let sized = |pages: u32| Guest::new("judge", PLAIN).memory(&format!(r#"(memory (export "memory") {pages})"#));
    assert!(judge(&load(&sized(600)).unwrap()).result.is_ok(), "37.5 MiB are more than a small guest may have");
    assert!(matches!(load(&sized(1_100)).unwrap_err(), LoadError::Compile(_)), "and 68.75 MiB more than any");
    let grows = "(loop $again (br_if $again (i32.ne (memory.grow (i32.const 16)) (i32.const -1)))) (unreachable)";
    for (body, code) in [(ENDLESS, FaultCode::FuelExhausted), (grows, FaultCode::MemoryExceeded)] {
        let guest = Guest::new("judge", body).memory(r#"(memory (export "memory") 600)"#);
        let called = judge(&load(&guest).unwrap());
        assert_eq!(called.result.unwrap_err().code, code);
        let used_up = called.usage.fuel == called.usage.fuel_limit && called.usage.fuel_limit >= large().fuel;
        assert!(code != FaultCode::FuelExhausted || used_up, "{:?}", called.usage);
    }
    all_is_well();
}
