//! Guests that do not return a result.

use super::*;
use carillon_testing::guest::{ENDLESS, Guest, PLAIN};

#[test]
fn an_endless_loop_uses_up_its_fuel() {
    let called = judge(&plugin(&Guest::new("judge", ENDLESS)));
    assert_eq!(called.result.unwrap_err().code, FaultCode::FuelExhausted);
    let length = input_len::attempt(&attempt()) + "{}".len() + input_len::exchange(&exchange());
    assert_eq!(
        (called.usage.fuel, called.usage.fuel_limit),
        (called.usage.fuel_limit, limits().with_input(length).fuel)
    );
    all_is_well();
}

#[test]
fn an_endless_recursion_uses_up_its_stack() {
    let fault = fault_of(&Guest::new("judge", "(call $play_judge (local.get $p))"));
    assert_eq!(fault.code, FaultCode::Trap);
    assert!(fault.message.contains("call stack exhausted"), "{}", fault.message);
}

#[test]
fn more_fuel_than_time_ends_at_the_deadline() {
    let bounds = Limits { fuel: u64::MAX, deadline: Duration::from_millis(30), ..limits() };
    let called = plugin(&Guest::new("judge", ENDLESS)).judge(&bounds, &attempt(), "{}", &exchange());
    assert_eq!(called.result.unwrap_err().code, FaultCode::Timeout);
    assert!(called.usage.micros >= 30_000, "{} µs", called.usage.micros);
    all_is_well();
}

#[test]
fn bulk_work_costs_fuel_by_the_byte() {
    let fill = "(loop $again (memory.fill (i32.const 0) (i32.const 0) (i32.const 15728640)) (br $again)) (unreachable)";
    let fault = fault_of(&Guest::new("judge", fill).memory(r#"(memory (export "memory") 240)"#));
    assert_eq!(fault.code, FaultCode::FuelExhausted);
}

#[test]
fn work_that_the_host_does_for_a_guest_ends_at_the_deadline() {
    let bounds = Limits { deadline: Duration::from_millis(30), ..limits() };
    let logs =
        "(loop $again (call $log (i32.const 1) (i32.const 1048576) (i32.const 8388608)) (br $again)) (unreachable)";
    let guest = plugin(&Guest::new("judge", logs).memory(r#"(memory (export "memory") 240)"#));
    let called = guest.judge(&bounds, &attempt(), "{}", &exchange());
    assert_eq!(called.result.unwrap_err().code, FaultCode::Timeout);
    all_is_well();
}

#[test]
fn the_longest_deadline_is_one() {
    let bounds = Limits { deadline: Duration::MAX, ..limits() };
    judge(&plugin(&Guest::new("judge", PLAIN))).result.unwrap();
    plugin(&Guest::new("judge", PLAIN)).judge(&bounds, &attempt(), "{}", &exchange()).result.unwrap();
}

#[test]
fn a_trap_names_the_function() {
    let guest = Guest::new("judge", "(call $burst) (i32.const 128)").with("(func $burst (unreachable))");
    let fault = fault_of(&guest);
    assert_eq!(fault.code, FaultCode::Trap);
    assert!(fault.message.contains("burst") && fault.message.contains("unreachable"), "{}", fault.message);
}

#[test]
fn each_kind_of_trap_is_a_trap() {
    for body in [
        "(i32.load (i32.const -1))",
        "(i32.div_u (i32.const 1) (i32.const 0))",
        "(i32.trunc_f32_s (f32.const nan))",
        "(call_indirect $table (result i32) (i32.const 0))",
        "(memory.copy (i32.const 131072) (i32.const 0) (i32.const 1)) (i32.const 128)",
    ] {
        let guest = Guest::new("judge", body).with("(table $table 1 funcref)");
        assert_eq!(fault_of(&guest).code, FaultCode::Trap, "{body}");
    }
}

#[test]
fn a_guest_that_traps_is_called_again_afresh() {
    // Traps in every call but the first of an instance; each call is the first.
    let body = "(global.set $calls (i32.add (global.get $calls) (i32.const 1)))
        (if (i32.ne (global.get $calls) (i32.const 1)) (then (unreachable)))
        (if (i32.load (i32.const 60000)) (then (unreachable)))
        (i32.store (i32.const 60000) (i32.const 1))
        (i32.const 128)";
    let guest = plugin(
        &Guest::new("judge", body).with("(global $calls (mut i32) (i32.const 0))").role("retry", "(unreachable)"),
    );
    for _ in 0..3 {
        assert_eq!(retry(&guest).result.unwrap_err().code, FaultCode::Trap);
        judge(&guest).result.unwrap();
    }
}

#[test]
fn growing_without_end_is_refused() {
    let trusting = "(loop $again (drop (memory.grow (i32.const 16)))
        (i32.store (i32.sub (i32.mul (memory.size) (i32.const 65536)) (i32.const 4)) (i32.const 1))
        (br_if $again (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 100)))) (unreachable)";
    assert_eq!(fault_of(&Guest::new("judge", trusting)).code, FaultCode::MemoryExceeded);
    let at_once = "(if (i32.eq (memory.grow (i32.const 65000)) (i32.const -1)) (then (unreachable))) (i32.const 128)";
    assert_eq!(fault_of(&Guest::new("judge", at_once)).code, FaultCode::MemoryExceeded);
}

#[test]
fn the_memory_that_a_guest_had_is_known() {
    let page = 64 << 10;
    let memory = |body: &str, with: &str| judge(&plugin(&Guest::new("judge", body).with(with))).usage.memory;
    assert_eq!(memory(PLAIN, ""), 2 * page);
    assert_eq!(memory(PLAIN, "(memory $second 3)"), 5 * page, "all of its memories");
    let growing = |pages: u32| format!("(drop (memory.grow (i32.const {pages})))");
    assert_eq!(memory(&format!("{} {} {PLAIN}", growing(5), growing(1)), ""), 8 * page);
    assert_eq!(memory(&format!("{} {PLAIN}", growing(65_000)), ""), 2 * page, "what it was refused it never had");
    assert_eq!(memory(&format!("{} (unreachable)", growing(1)), ""), 3 * page, "a fault costs, too");
}

#[test]
fn a_guest_that_was_refused_memory_can_still_answer_or_loop() {
    let refused = "(drop (memory.grow (i32.const 65000)))";
    let modest = plugin(&Guest::new("judge", &format!("{refused} (i32.const 128)")));
    judge(&modest).result.unwrap();
    let stubborn = Guest::new("judge", &format!("{refused} {ENDLESS}"));
    assert_eq!(fault_of(&stubborn).code, FaultCode::FuelExhausted);
}

#[test]
fn memories_count_together() {
    let pages = |first: u32, second: u32| {
        Guest::new("judge", PLAIN)
            .memory(&format!(r#"(memory (export "memory") {first})"#))
            .with(&format!("(memory $second {second})"))
    };
    judge(&plugin(&pages(128, 128))).result.unwrap();
    assert_eq!(fault_of(&pages(129, 128)).code, FaultCode::MemoryExceeded);
    let growing =
        "(if (i32.eq (memory.grow $second (i32.const 200)) (i32.const -1)) (then (unreachable))) (i32.const 128)";
    let guest = Guest::new("judge", growing).memory(r#"(memory (export "memory") 128)"#).with("(memory $second 1)");
    assert_eq!(fault_of(&guest).code, FaultCode::MemoryExceeded);
}

#[test]
fn table_bombs_are_refused() {
    let growing =
        "(if (i32.eq (table.grow $table (ref.null func) (i32.const 1000000)) (i32.const -1)) (then (unreachable)))
        (i32.const 128)";
    let guest = Guest::new("judge", growing).with("(table $table 1 funcref)");
    assert_eq!(fault_of(&guest).code, FaultCode::MemoryExceeded);
    // Each fits, their sum does not.
    let many = (0..3).fold(Guest::new("judge", PLAIN), |guest, _| guest.with("(table 9000 funcref)"));
    assert_eq!(fault_of(&many).code, FaultCode::MemoryExceeded);
}

#[test]
fn a_start_function_is_as_bounded_as_a_call() {
    let starting = |body: &str| {
        let start = format!("(func $start {body}) (start $start)");
        fault_of(&Guest::new("judge", PLAIN).with(&start)).code
    };
    assert_eq!(starting("(unreachable)"), FaultCode::Trap);
    assert_eq!(starting("(loop $again (br $again))"), FaultCode::FuelExhausted);
    assert_eq!(
        starting("(if (i32.eq (memory.grow (i32.const 300)) (i32.const -1)) (then (unreachable)))"),
        FaultCode::MemoryExceeded
    );
    let data = Guest::new("judge", PLAIN).with(r#"(data (i32.const 131071) "outside")"#);
    assert_eq!(fault_of(&data).code, FaultCode::Trap);
}

#[test]
fn the_same_call_is_the_same_every_time() {
    // Computes with floats whose bits differ from machine to machine unless they are pinned: NaNs of operations, and relaxed SIMD.
    let body = r#"
        (loop $again
          (f64.store (i32.add (i32.const 1024) (i32.mul (local.get $i) (i32.const 8)))
            (f64.div (f64.sub (f64.const inf) (f64.const inf)) (f64.convert_i32_u (local.get $i))))
          (br_if $again (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 4))))
        (v128.store (i32.const 1056) (f32x4.relaxed_madd (v128.const f32x4 nan 1 2 3) (v128.const f32x4 1 nan 3 4) (v128.const f32x4 inf 0 -0 1)))
        (v128.store (i32.const 1072) (i8x16.relaxed_swizzle (v128.const i8x16 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15) (v128.const i8x16 -1 15 16 17 127 5 6 7 8 9 10 11 12 13 14 200)))
        (memory.copy (i32.const 132) (i32.add (local.get $p) (i32.const 88)) (i32.const 24))
        (i32.store (i32.const 156) (i32.const 1024)) (i32.store (i32.const 160) (i32.const 64))
        (i32.const 128)"#;
    let guest = plugin(&Guest::new("encode", body));
    let first = encode(&guest);
    let first_body = first.result.unwrap().body;
    assert_eq!(first_body.len(), 64);
    for nan in first_body[..32].chunks(8) {
        assert_eq!(u64::from_le_bytes(nan.try_into().unwrap()), 0x7ff8_0000_0000_0000, "the canonical NaN");
    }
    for _ in 0..3 {
        let again = encode(&guest);
        assert_eq!(again.usage.fuel, first.usage.fuel);
        assert_eq!(again.result.unwrap().body, first_body);
    }
}
