//! Guests whose result cannot be used, or that declare that they have none.

use super::*;
use crate::Blame;
use carillon_testing::guest::{ANSWER, ECHO, Guest, PLAIN, bytes, failure, signed, words};

/// Makes an encoder that returns the request, after `change` has modified the result at 132: method, URL, headers, body.
fn encoder(change: &str) -> Guest {
    let copy = ECHO.trim_end_matches("(i32.const 128)");
    Guest::new("encode", &format!("{copy} {change} (i32.const 128)"))
}

fn refusal_of_encoder(guest: &Guest) -> String {
    let fault = encode(&plugin(guest)).result.unwrap_err();
    all_is_well();
    assert_eq!((fault.code, fault.blame), (FaultCode::BadAnswer, Blame::Policy), "{}", fault.message);
    fault.message
}

fn refusal_of_signer(data: &str) -> String {
    let guest = Guest::new("sign", PLAIN).with(data).memory(r#"(memory (export "memory") 200)"#);
    let fault = sign(&plugin(&guest), &[]).result.unwrap_err();
    all_is_well();
    assert_eq!((fault.code, fault.blame), (FaultCode::BadAnswer, Blame::Policy), "{}", fault.message);
    fault.message
}

fn set(field: u32, at: u32, len: u32) -> String {
    let field = 132 + 8 * field;
    format!("(i32.store (i32.const {field}) (i32.const {at})) (i32.store (i32.const {}) (i32.const {len}))", field + 4)
}

const METHOD: u32 = 0;
const URL: u32 = 1;
const HEADERS: u32 = 2;
const BODY: u32 = 3;

#[test]
fn an_answer_outside_of_memory_is_bad() {
    for body in ["(i32.const 0x7ffffff0)", "(i32.const -8)", "(i32.const 131068)", "(i32.const 129)"] {
        let fault = fault_of(&Guest::new("judge", body));
        assert_eq!(fault.code, FaultCode::BadAnswer, "{body}: {}", fault.message);
    }
}

#[test]
fn strings_and_lists_beyond_memory_are_bad() {
    for (at, len) in [(1024, 1 << 31), (1024, u32::MAX), (u32::MAX, 1), (131_000, 73), (0, 1 << 28)] {
        let guest = Guest::new("judge", PLAIN).with(&words(ANSWER, &[0, 0, at, len]));
        assert_eq!(fault_of(&guest).code, FaultCode::BadAnswer, "{at} {len}");
        for field in [METHOD, URL, HEADERS, BODY] {
            refusal_of_encoder(&encoder(&set(field, at, len)));
        }
    }
}

#[test]
fn discriminants_that_do_not_exist_are_bad() {
    for answer in [[2, 0], [0, 3], [1, 3], [255, 255]] {
        let guest = Guest::new("judge", PLAIN).with(&words(ANSWER, &answer));
        assert_eq!(fault_of(&guest).code, FaultCode::BadAnswer, "{answer:?}");
    }
}

#[test]
fn text_that_is_not_utf_8_is_bad() {
    let guest = Guest::new("judge", PLAIN).with(&words(ANSWER, &[0, 0, 1024, 2])).with(&bytes(1024, &[0xc3, 0x28]));
    let fault = fault_of(&guest);
    assert_eq!(fault.code, FaultCode::BadAnswer);
    assert!(fault.message.contains("utf-8"), "{}", fault.message);
    // A header's value may be any bytes, its name may not.
    assert!(refusal_of_signer(&signed(&[("x-\u{fc}", b"1")], None)).contains("not a header name"));
}

#[test]
fn one_text_many_times_does_not_multiply() {
    // A million headers whose names are all the same mebibyte: a terabyte, if the host copied them.
    let fill = "(loop $again
        (i32.store (i32.add (i32.const 4194304) (i32.mul (local.get $i) (i32.const 16))) (i32.const 65536))
        (i32.store (i32.add (i32.const 4194308) (i32.mul (local.get $i) (i32.const 16))) (i32.const 1048576))
        (br_if $again (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 500000))))";
    let guest = encoder(&format!("{fill} {}", set(HEADERS, 4_194_304, 500_000)));
    refusal_of_encoder(&guest.memory(r#"(memory (export "memory") 200)"#));
}

#[test]
fn a_signer_cannot_inject() {
    for (name, value) in [
        ("x-a", &b"1\r\nx-b: 2"[..]),
        ("x-a", b"1\nx-b: 2"),
        ("x-a", b"1\r"),
        ("x-a", b"1\0"),
        ("x-a\r\nx-b", b"1"),
        ("x a", b"1"),
        ("x-a:", b"1"),
        ("", b"1"),
    ] {
        let message = refusal_of_signer(&signed(&[(name, value)], None));
        assert!(!message.contains(['\r', '\n']), "{message:?}");
    }
}

#[test]
fn an_encoder_cannot_inject() {
    let with_header = |name: &str, value: &[u8]| {
        let [name_len, value_len] = [name.len(), value.len()].map(|len| u32::try_from(len).unwrap());
        encoder(&set(HEADERS, 1024, 1))
            .with(&words(1024, &[2048, name_len, 3072, value_len]))
            .with(&bytes(2048, name.as_bytes()))
            .with(&bytes(3072, value))
    };
    assert!(refusal_of_encoder(&with_header("x-a", b"1\r\nx-b: 2")).contains("line break"));
    assert!(refusal_of_encoder(&with_header("x-a\r\nx-b", b"1")).contains("not a header name"));
    encode(&plugin(&with_header("x-a", b"1\xff"))).result.unwrap();
}

#[test]
fn the_servers_own_headers_stay_its_own() {
    for name in
        ["Host", "content-length", "Transfer-Encoding", "connection", "Idempotency-Key", "carillon-attempt", "Upgrade"]
    {
        assert!(refusal_of_signer(&signed(&[(name, b"1")], None)).contains("set by the server"), "{name}");
    }
}

#[test]
fn headers_are_bounded_in_number_and_in_size() {
    let names: Vec<_> = (0..17).map(|index| format!("x-{index}")).collect();
    let headers: Vec<_> = names.iter().map(|name| (name.as_str(), &b"1"[..])).collect();
    assert!(refusal_of_signer(&signed(&headers, None)).contains("more than 16 headers"));
    let guest = plugin(&Guest::new("sign", PLAIN).with(&signed(&headers[..16], None)));
    assert_eq!(sign(&guest, &[]).result.unwrap().headers.len(), 17);
    let long = vec![b'a'; 32 << 10];
    assert!(refusal_of_signer(&signed(&[("x-long", &long)], None)).contains("bytes of headers"));
    // The encoder's result is its memory's zeros behind the request's own header: too many headers, found before any of them is read.
    assert!(refusal_of_encoder(&encoder(&set(HEADERS, 1024, 18))).contains("more than 16 headers"));
}

#[test]
fn bodies_are_bounded() {
    assert!(refusal_of_signer(&signed(&[], Some((5 << 20) + 1))).contains("the body has more than"));
    let large = encoder(&set(BODY, 65536, (5 << 20) + 1)).memory(r#"(memory (export "memory") 200)"#);
    assert!(refusal_of_encoder(&large).contains("the body has more than"));
}

#[test]
fn an_encoder_stays_at_its_origin() {
    for url in [
        "http://b.example/",
        "https://a.example/",
        "http://a.example:81/",
        "http://a.example@b.example/",
        "/x",
        "file:///etc/passwd",
        "",
    ] {
        let len = u32::try_from(url.len()).unwrap();
        let message = refusal_of_encoder(&encoder(&set(URL, 1024, len)).with(&bytes(1024, url.as_bytes())));
        assert!(message.contains("origin") || message.contains("does not parse"), "{url}: {message}");
    }
    let long = format!("http://a.example/{}", "x".repeat(8 << 10));
    let len = u32::try_from(long.len()).unwrap();
    let message = refusal_of_encoder(&encoder(&set(URL, 1024, len)).with(&bytes(1024, long.as_bytes())));
    assert!(message.contains("the URL has more than"), "{message}");
}

#[test]
fn an_encoder_makes_requests_not_tunnels() {
    for method in ["CONNECT", "", "GET /\r\nHost: b", "A_METHOD_WITH_A_LONG_NAME"] {
        let len = u32::try_from(method.len()).unwrap();
        let message = refusal_of_encoder(&encoder(&set(METHOD, 1024, len)).with(&bytes(1024, method.as_bytes())));
        assert!(message.contains("is not a method") && !message.contains('\n'), "{message:?}");
    }
}

#[test]
fn a_failure_that_is_declared_keeps_its_blame() {
    for (number, blame) in [(0, Blame::Job), (1, Blame::Config), (2, Blame::Policy)] {
        let guest = Guest::new("judge", PLAIN).with(&failure(4, number, "no-idea", "I do not know"));
        let fault = fault_of(&guest);
        assert_eq!((fault.code, fault.blame), (FaultCode::Declared, blame));
        assert_eq!(fault.message, "no-idea: I do not know");
        let guest = plugin(&Guest::new("retry", PLAIN).with(&failure(8, number, "no-idea", "I do not know")));
        assert_eq!(retry(&guest).result.unwrap_err().blame, blame);
        let guest = plugin(&Guest::new("sign", PLAIN).with(&failure(4, number, "no-idea", "I do not know")));
        assert_eq!(sign(&guest, &[]).result.unwrap_err().blame, blame);
    }
}

#[test]
fn a_guests_texts_are_short_and_printable() {
    let text = |at: u32| {
        format!(
            "(memory.fill (i32.const 65536) (i32.const 10) (i32.const 1000000)) (i32.store (i32.const {at}) (i32.const 65536)) (i32.store (i32.const {}) (i32.const 1000000)) (i32.const 128)",
            at + 4
        )
    };
    let guest = |role: &str, at: u32| Guest::new(role, &text(at)).memory(r#"(memory (export "memory") 32)"#);
    let short = |text: &str| {
        assert!((1_000..=1_024).contains(&text.len()) && !text.contains(char::is_control), "{} bytes", text.len())
    };
    short(&judge(&plugin(&guest("judge", 136))).result.unwrap().reason);
    short(
        &judge(&plugin(&guest("judge", 136).with(&words(ANSWER, &[1, 0, 0, 0]))))
            .result
            .map_or_else(|fault| fault.message, |_| String::new()),
    );
    let guest_that_gives_up = guest("retry", 144).with(&words(ANSWER, &[0, 0, 1]));
    match retry(&plugin(&guest_that_gives_up)).result.unwrap() {
        retry_export::Decision::GiveUp(reason) => short(&reason),
        retry_export::Decision::AfterMs(ms) => panic!("after {ms} ms"),
    }
    let picky = Guest::new("judge", PLAIN)
        .memory(r#"(memory (export "memory") 32)"#)
        .with(&words(ANSWER, &[1]))
        .check(&text(132));
    short(&plugin(&picky).check(&limits(), "{}").result.unwrap().unwrap_err());
}

#[test]
fn an_allocator_that_lies_harms_its_own_call() {
    for realloc in
        ["(i32.const -16)", "(unreachable)", "(i32.const 0x7fff0000)", "(loop $again (br $again)) (unreachable)"]
    {
        let realloc = format!(r#"(func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) {realloc})"#);
        let fault = fault_of(&Guest::new("judge", PLAIN).realloc(&realloc));
        assert!(matches!(fault.code, FaultCode::Trap | FaultCode::BadAnswer | FaultCode::FuelExhausted), "{fault}");
    }
}
