//! Guests that misuse the host's keys and log.

use sha2::{Digest as _, Sha512};
use zeroize::Zeroizing;

use super::*;
use crate::KeyKind;
use crate::keys::MacAlgorithm;
use carillon_testing::guest::{ANSWER, Guest, PLAIN, bytes, words};

/// Address of the first key's handle.
const KEY: &str = "(i32.load (i32.load (i32.add (local.get $p) (i32.const 120))))";

fn key(kind: KeyKind) -> Arc<KeyMaterial> {
    Arc::new(KeyMaterial::new("k/1".into(), kind, Zeroizing::new(vec![7; 32])).unwrap())
}

/// Makes a guest that does `operation` `count` times. The body holds each result: 0, or 0x10 and the key error.
fn counting(operation: &str, count: u32) -> Guest {
    let body = format!(
        "(loop $again
           {operation}
           (i32.store8 (i32.add (i32.const 2048) (local.get $i)) (i32.mul (i32.load8_u (i32.const 1024)) (i32.add (i32.const 16) (i32.load8_u (i32.const 1028)))))
           (br_if $again (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const {count}))))
         (call $drop_key {KEY}) (i32.const 128)"
    );
    Guest::new("sign", &body).with(&words(ANSWER, &[0, 0, 0, 1, 2048, count]))
}

/// Code of a key of the wrong kind in [`counting`]'s body.
const WRONG_KIND: u8 = 0x10;
const TOO_MANY: u8 = 0x11;

#[test]
fn the_ninth_operation_is_refused() {
    let mac = format!("(call $mac {KEY} (i32.const 1) (i32.const 0) (i32.const 32) (i32.const 1024))");
    let signed = sign(&plugin(&counting(&mac, 10)), &[key(KeyKind::Secret)]).result.unwrap();
    assert!(signed.body[..8].iter().all(|first| *first == 0), "{:x?}", signed.body);
    assert_eq!(signed.body[8..], [TOO_MANY; 2]);
    let again = sign(&plugin(&counting(&mac, 8)), &[key(KeyKind::Secret)]).result.unwrap();
    assert!(again.body.iter().all(|first| *first == 0), "the next call has its own eight");
    all_is_well();
}

#[test]
fn all_that_a_guest_has_of_a_key_is_what_was_made_with_it() {
    const DATA: &[u8] = b"what do ya want for nothing?";
    let secret: [u8; 32] = std::array::from_fn(|at| u8::try_from(at * 7 + 13).unwrap());
    // Besides the secret itself, the values that HMAC (RFC 2104) and Ed25519 (RFC 8032) derive from it.
    let padded = |with: u8| secret.iter().map(|byte| byte ^ with).collect::<Vec<_>>();
    let expanded = Sha512::digest(secret);
    let secrets = [secret.to_vec(), padded(0x36), padded(0x5c), expanded[..32].to_vec(), expanded[32..].to_vec()];
    let material = |kind| KeyMaterial::new("k/1".into(), kind, Zeroizing::new(secret.to_vec())).unwrap();
    let mac = |algorithm| material(KeyKind::Secret).mac(algorithm, DATA).unwrap();
    for (operation, algorithm, kind, made) in [
        ("$mac", 0, KeyKind::Secret, mac(MacAlgorithm::HmacSha1)),
        ("$mac", 1, KeyKind::Secret, mac(MacAlgorithm::HmacSha256)),
        ("$mac", 2, KeyKind::Secret, mac(MacAlgorithm::HmacSha512)),
        ("$signature", 0, KeyKind::Ed25519, material(KeyKind::Ed25519).sign(DATA).unwrap()),
    ] {
        let length = DATA.len();
        // The result is all of its memory.
        let body = format!(
            "(call {operation} {KEY} (i32.const {algorithm}) (i32.const 2048) (i32.const {length}) (i32.const 1024))
             (call $drop_key {KEY})
             (i32.store (i32.const 148) (i32.mul (memory.size) (i32.const 65536)))
             (i32.const 128)"
        );
        let spy = Guest::new("sign", &body).with(&words(ANSWER, &[0, 0, 0, 1, 0, 0])).with(&bytes(2048, DATA));
        let memory = sign(&plugin(&spy), &[Arc::new(material(kind))]).result.unwrap().body;
        let has = |needle: &[u8]| memory.windows(needle.len()).any(|window| window == needle);
        assert!(memory.len() >= 2 << 16 && has(DATA), "{operation} {algorithm}");
        assert!(has(&made), "{operation} {algorithm}");
        assert!(!secrets.iter().any(|secret| secret.windows(8).any(has)), "{operation} {algorithm}");
    }
}

#[test]
fn a_key_serves_its_own_kind_only() {
    let signature = format!("(call $signature {KEY} (i32.const 0) (i32.const 0) (i32.const 32) (i32.const 1024))");
    let mac = format!("(call $mac {KEY} (i32.const 1) (i32.const 0) (i32.const 32) (i32.const 1024))");
    for (operation, kind) in [(&signature, KeyKind::Secret), (&mac, KeyKind::Ed25519)] {
        let signed = sign(&plugin(&counting(operation, 1)), &[key(kind)]).result.unwrap();
        assert_eq!(signed.body, [WRONG_KIND]);
    }
}

#[test]
fn a_handle_cannot_be_guessed() {
    for handle in ["0", "1", "2", "3", "77", "-1", "0x7fffffff"] {
        for operation in [
            format!("(call $mac (i32.const {handle}) (i32.const 1) (i32.const 0) (i32.const 32) (i32.const 1024))"),
            format!(
                "(call $signature (i32.const {handle}) (i32.const 0) (i32.const 0) (i32.const 32) (i32.const 1024))"
            ),
            format!("(call $key_id (i32.const {handle}) (i32.const 1024))"),
            format!("(call $drop_key (i32.const {handle}))"),
        ] {
            let guest = plugin(&Guest::new("sign", &format!("{operation} {PLAIN}")));
            let fault = sign(&guest, &[]).result.unwrap_err();
            assert_eq!(fault.code, FaultCode::Trap, "{operation}: {fault}");
        }
    }
    all_is_well();
}

#[test]
fn a_handle_ends_with_its_call() {
    // Signs with the handle that the previous call left in a global, if there is one; else leaves its own there.
    let body = format!(
        "(if (global.get $kept) (then (call $mac (global.get $kept) (i32.const 1) (i32.const 0) (i32.const 32) (i32.const 1024)) (unreachable)))
         (if (i32.load (i32.add (local.get $p) (i32.const 124)))
           (then (global.set $kept {KEY}) (call $drop_key {KEY})))
         (i32.const 128)"
    );
    let guest = plugin(&Guest::new("sign", &body).with("(global $kept (mut i32) (i32.const 0))"));
    sign(&guest, &[key(KeyKind::Secret)]).result.unwrap();
    sign(&guest, &[]).result.unwrap();
    let late = format!(
        "(call $drop_key {KEY}) (call $mac {KEY} (i32.const 1) (i32.const 0) (i32.const 32) (i32.const 1024)) {PLAIN}"
    );
    let late = sign(&plugin(&Guest::new("sign", &late)), &[key(KeyKind::Secret)]).result.unwrap_err();
    assert_eq!(late.code, FaultCode::Trap, "{late}");
}

#[test]
fn a_key_that_is_kept_back_ends_the_call() {
    let fault = sign(&plugin(&Guest::new("sign", PLAIN)), &[key(KeyKind::Secret)]).result.unwrap_err();
    assert!(matches!(fault.code, FaultCode::Trap | FaultCode::BadAnswer), "{fault}");
    assert!(fault.message.contains("borrow"), "{fault}");
    all_is_well();
}

#[test]
fn a_role_other_than_sign_has_no_keys() {
    let fault = fault_of(&Guest::new("judge", "(call $key_id (i32.const 1) (i32.const 1024)) (i32.const 128)"));
    assert_eq!(fault.code, FaultCode::Trap, "{fault}");
}

#[test]
fn a_flood_of_lines_is_cut_and_counted() {
    let body = "(memory.fill (i32.const 4096) (i32.const 10) (i32.const 3000))
        (loop $again (call $log (i32.const 1) (i32.const 4096) (i32.const 3000))
          (br_if $again (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 1000))))
        (i32.const 128)";
    let log = judge(&plugin(&Guest::new("judge", body))).usage.log;
    assert_eq!(log.len(), 17);
    for line in &log[..16] {
        assert!(line.len() <= "info: ".len() + 1024 && !line.contains(char::is_control), "{} bytes", line.len());
    }
    assert_eq!(log[16], "(984 more lines were dropped)");
    all_is_well();
}

#[test]
fn lines_that_cannot_be_read_end_the_call() {
    let logging = |level: &str, at: &str, len: &str| {
        let body = format!("(call $log (i32.const {level}) (i32.const {at}) (i32.const {len})) (i32.const 128)");
        fault_of(&Guest::new("judge", &body).with(&bytes(1024, &[0xff, 0xfe])))
    };
    for fault in
        [logging("1", "1024", "2"), logging("9", "0", "0"), logging("1", "1024", "-1"), logging("1", "-1", "8")]
    {
        assert_eq!(fault.code, FaultCode::Trap, "{fault}");
    }
}

#[test]
fn what_was_logged_before_a_trap_is_kept() {
    let body = "(call $log (i32.const 3) (i32.const 1024) (i32.const 4)) (unreachable)";
    let called = judge(&plugin(&Guest::new("judge", body).with(&bytes(1024, b"oops"))));
    assert_eq!(called.result.unwrap_err().code, FaultCode::Trap);
    assert_eq!(called.usage.log, ["error: oops"]);
}
