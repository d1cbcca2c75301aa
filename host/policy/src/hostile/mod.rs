//! Effects of malicious or untested guests on the runtime: each call ends in a fault with its own code, and the next call of a good guest is
//! unharmed.
//!
//! The components are compiled in this process, by the function that the compiler process runs.

mod answers;
mod compiling;
mod copies;
mod keys;
mod load;
mod payload;
mod rules;
mod running;
mod threads;
mod wasi;

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use super::code_budget::CodeBudget;
use super::component::check_bytes;
use super::engine::{self, PolicyEngine};
use super::input_len;
use super::linked_component::Imports;
use super::wit::{judge_export, retry_export, types};
use super::{CallResult, Digest, Fault, FaultCode, KeyMaterial, Limits, LoadError, Plugin};
use carillon_testing::guest::{ECHO, Guest, PLAIN};

/// Number of threads: tests of one process never wait for an instance.
const THREADS: usize = 16;

static ENGINE: LazyLock<Arc<PolicyEngine>> =
    LazyLock::new(|| Arc::new(PolicyEngine::new(&limits(), THREADS, None).unwrap()));

/// Returns the limits of `config.default.toml` with a longer deadline: only the deadline's own test may depend on how busy the machine is.
fn limits() -> Limits {
    Limits {
        memory: 16 << 20,
        table_elements: 20_000,
        fuel: 50_000_000,
        fuel_per_byte: 2_000,
        deadline: Duration::from_secs(60),
        key_operations: 8,
        log_lines: 16,
        log_line_length: 1 << 10,
        added_headers: 16,
        answer_body: 5 << 20,
        embedded: 1 << 20,
    }
}

/// Loads a component as the registry does, without the cache and the compiler's process.
fn load(component: &[u8]) -> Result<Plugin, LoadError> {
    check_bytes(component, 4 << 20)?;
    let artefact = engine::compile(component).map_err(|error| LoadError::Compile(format!("{error:#}")))?;
    let compiled = ENGINE.deserialize(&artefact).map_err(|error| LoadError::Compile(format!("{error:#}")))?;
    let imports = Imports::new(&ENGINE, &compiled)?;
    let (engines, room) = (Arc::new([Arc::clone(&ENGINE)]), CodeBudget::new(usize::MAX));
    Plugin::link(engines, Digest::from_bytes(component), &compiled, &imports, &room)
}

fn plugin(guest: &Guest) -> Plugin {
    load(&guest.build()).unwrap()
}

fn attempt() -> types::Attempt {
    types::Attempt {
        job_id: "0199f0a2".into(),
        group: "reminders".into(),
        number: 3,
        run_at_ms: 1_795_168_800_250,
        now_ms: 1_795_168_800_251,
        created_ms: 1_795_168_700_000,
        deadline_ms: Some(1_795_168_900_000),
        seed: 7,
        attributes: vec![types::Attribute { key: "tenant".into(), value: "default".into() }],
    }
}

fn request() -> types::Request {
    types::Request {
        method: "POST".into(),
        url: "http://a.example/hook?x=1".into(),
        headers: vec![types::Header { name: "x-own".into(), value: b"1".to_vec() }],
        body: b"{\"n\": 1}".to_vec(),
    }
}

fn exchange() -> judge_export::Exchange {
    let header = types::Header { name: "server".into(), value: b"x".to_vec() };
    judge_export::Exchange::Response(judge_export::Response {
        status: 200,
        headers: vec![header],
        body: b"ok".to_vec(),
        truncated: false,
        elapsed_ms: 3,
    })
}

fn verdict() -> judge_export::Verdict {
    judge_export::Verdict { outcome: judge_export::Outcome::Retryable, reason: "no".into() }
}

fn encode(plugin: &Plugin) -> CallResult<types::Request> {
    plugin.encode(&limits(), &attempt(), "{}", &request())
}

fn sign(plugin: &Plugin, keys: &[Arc<KeyMaterial>]) -> CallResult<types::Request> {
    plugin.sign(&limits(), &attempt(), "{}", request(), keys)
}

fn judge(plugin: &Plugin) -> CallResult<judge_export::Verdict> {
    plugin.judge(&limits(), &attempt(), "{}", &exchange())
}

fn retry(plugin: &Plugin) -> CallResult<retry_export::Decision> {
    plugin.retry(&limits(), &attempt(), "{}", &verdict(), &[])
}

/// Returns the fault of a judge with this body, after checking that a good guest still judges.
fn fault_of(guest: &Guest) -> Fault {
    let fault = judge(&plugin(guest)).result.unwrap_err();
    all_is_well();
    fault
}

/// Checks that a good guest returns a result in every role.
fn all_is_well() {
    static GOOD: LazyLock<Plugin> = LazyLock::new(|| {
        plugin(&Guest::new("encode", ECHO).role("sign", PLAIN).role("judge", PLAIN).role("retry", PLAIN))
    });
    let sent = |request: types::Request| (request.method, request.url, request.headers.len(), request.body);
    assert_eq!(sent(encode(&GOOD).result.unwrap()), sent(request()));
    assert_eq!(sent(sign(&GOOD, &[]).result.unwrap()), sent(request()));
    assert_eq!(judge(&GOOD).result.unwrap().outcome, judge_export::Outcome::Success);
    assert!(matches!(retry(&GOOD).result.unwrap(), retry_export::Decision::AfterMs(0)));
    assert_eq!(GOOD.check(&limits(), "{}").result, Ok(Ok(())));
    assert_eq!(GOOD.describe(&limits()).result.unwrap().name, "guest");
}

#[test]
fn a_good_guest_answers() {
    all_is_well();
}
