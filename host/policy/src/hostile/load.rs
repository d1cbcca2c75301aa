//! Components that the runtime must not accept, and the limits of those that it accepts.

use super::*;
use carillon_testing::guest::{Guest, PLAIN};

fn refusal(component: &[u8]) -> LoadError {
    let error = load(component).unwrap_err();
    all_is_well();
    error
}

fn component(text: &str) -> Vec<u8> {
    wat::parse_str(text).unwrap()
}

#[test]
fn bytes_that_are_no_component_are_refused() {
    let good = Guest::new("judge", PLAIN).build();
    assert!(matches!(refusal(b""), LoadError::NotAComponent(_)));
    assert!(matches!(refusal(&component("(module)")), LoadError::NotAComponent(_)));
    for len in (8..good.len()).step_by(97) {
        let error = refusal(&good[..len]);
        let refused = matches!(error, LoadError::Compile(_) | LoadError::NoMeta | LoadError::NoRole);
        assert!(refused, "cut to {len} bytes: {error}");
    }
}

#[test]
fn a_touched_component_loads_or_is_refused_but_harms_nobody() {
    let good = Guest::new("judge", PLAIN).build();
    for at in (8..good.len()).step_by(61) {
        let mut touched = good.clone();
        touched[at] ^= 0x55;
        if let Ok(plugin) = load(&touched) {
            drop(judge(&plugin));
        }
    }
    all_is_well();
}

#[test]
fn what_is_exported_must_be_a_plugin() {
    assert!(matches!(refusal(&component("(component)")), LoadError::NoMeta));
    assert!(matches!(refusal(&Guest::new("judge", PLAIN).without_meta().build()), LoadError::NoMeta));
    assert!(matches!(refusal(&Guest::describing("guest", "1.0.0", "{}").build()), LoadError::NoRole));
}

#[test]
fn wrong_types_are_named() {
    let other = Guest::new("judge", PLAIN).speaking("permanent,", "permanent, undecided,");
    match refusal(&other.build()) {
        LoadError::WrongType { name, .. } => assert_eq!(name, "carillon:policy/judge@0.1.0"),
        error => panic!("{error}"),
    }
    let function = component(
        r#"(component
            (core module $m (func (export "f")))
            (core instance $i (instantiate $m))
            (func $f (canon lift (core func $i "f")))
            (instance $meta (export "describe" (func $f)))
            (export "carillon:policy/meta@0.1.0" (instance $meta)))"#,
    );
    match refusal(&function) {
        LoadError::WrongType { name, .. } => assert_eq!(name, "carillon:policy/meta@0.1.0"),
        error => panic!("{error}"),
    }
}

#[test]
fn another_major_version_of_a_role_is_no_role() {
    let guest = Guest::describing("guest", "1.0.0", "{}").build();
    assert!(matches!(refusal(&guest), LoadError::NoRole));
}

#[test]
fn imports_beyond_the_policy_interface_are_named() {
    let wasi = Guest::new("judge", "(drop (call $now)) (i32.const 128)")
        .importing(
            "wasi:clocks/wall-clock@0.2.0",
            "package wasi:clocks@0.2.0 { interface wall-clock { now: func() -> u64; } }",
        )
        .first(r#"(import "wasi:clocks/wall-clock@0.2.0" "now" (func $now (result i64)))"#);
    match refusal(&wasi.build()) {
        LoadError::WrongType { name, detail } => {
            assert!(name == "imports" && detail.contains("wall-clock"), "{detail}")
        }
        error => panic!("{error}"),
    }
    for (text, expected) in [
        (r#"(component (import "now" (func (result u64))))"#, "now"),
        (r#"(component (import "carillon:policy/judge@0.1.0" (func)))"#, "carillon:policy/judge@0.1.0"),
        (r#"(component (import "carillon:policy/log@0.2.0" (instance)))"#, "carillon:policy/log@0.2.0"),
        (r#"(component (import "carillon:policy/clock@0.1.0" (instance)))"#, "carillon:policy/clock@0.1.0"),
        (r#"(component (import "m" (core module)))"#, "m"),
    ] {
        match refusal(&component(text)) {
            LoadError::Import(name) => assert_eq!(name, expected),
            error => panic!("{text}: {error}"),
        }
    }
}

#[test]
fn an_import_of_ours_with_a_function_that_it_does_not_have_is_named() {
    let text = r#"(component (import "carillon:policy/log@0.1.0" (instance (export "read" (func (result string))))))"#;
    match refusal(&component(text)) {
        LoadError::WrongType { detail, .. } => assert!(detail.contains("carillon:policy/log@0.1.0"), "{detail}"),
        error => panic!("{error}"),
    }
}

#[test]
fn what_is_switched_off_does_not_compile() {
    for item in [
        "(memory $shared 1 1 shared)",
        "(type (struct (field i32)))",
        "(tag (param i32))",
        "(func (result i64) (i64.atomic.load (i32.const 0)))",
        "(func (param i64 i64) (result i64 i64) (i64.mul_wide_u (local.get 0) (local.get 1)))",
        "(memory $tiny 1 (pagesize 1))",
        "(memory $wide i64 1)",
    ] {
        let wrapped = component(&format!("(component (core module $m {item}))"));
        assert!(matches!(refusal(&wrapped), LoadError::Compile(_)), "{item}");
    }
}

#[test]
fn demands_that_no_call_could_meet_are_refused_at_once() {
    let pages = Guest::new("judge", PLAIN).memory(r#"(memory (export "memory") 257)"#);
    assert!(refusal(&pages.build()).to_string().contains("memory"));
    let memories = (0..2).fold(Guest::new("judge", PLAIN), |guest, _| guest.with("(memory 1)"));
    assert!(refusal(&memories.build()).to_string().contains("memories"));
    let tables = (0..50).fold(Guest::new("judge", PLAIN), |guest, _| guest.with("(table 1 funcref)"));
    assert!(refusal(&tables.build()).to_string().contains("tables"));
    let elements = Guest::new("judge", PLAIN).with("(table 1000000 funcref)");
    assert!(refusal(&elements.build()).to_string().contains("table"));
    let instances = format!(
        "(component (core module $m) {})",
        (0..100).map(|_| "(core instance (instantiate $m))").collect::<String>()
    );
    assert!(refusal(&component(&instances)).to_string().contains("instances"));
}

#[test]
fn a_component_may_have_parts() {
    // The largest number of modules, memories and tables that any language's tools make from one source.
    let tables = (0..12).fold(Guest::new("judge", PLAIN), |guest, _| guest.with("(table 100 funcref)"));
    judge(&plugin(&tables.with("(memory $second 1)"))).result.unwrap();
}

#[test]
fn components_in_components_do_not_multiply() {
    // Each layer instantiates the one below twice.
    let mut text = String::from("(component $c0 (core module $m) (core instance (instantiate $m)))");
    for depth in 1..=10 {
        let below = depth - 1;
        text = format!(
            "(component $c{depth} {text} (instance (instantiate $c{below})) (instance (instantiate $c{below})))"
        );
    }
    assert!(refusal(&component(&text)).to_string().contains("instances"));
}

#[test]
fn descriptions_are_read_as_they_are() {
    let odd = plugin(&Guest::describing("../..", "one", "{not json").role("judge", PLAIN));
    let said = odd.describe(&limits()).result.unwrap();
    assert_eq!((said.name.as_str(), said.version.as_str(), said.config_schema.as_str()), ("../..", "one", "{not json"));
}
