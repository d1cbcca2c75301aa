//! The program that libFuzzer drives: it runs the target that `CARILLON_FUZZ_TARGET` names. `script/fuzz` builds and starts it; libFuzzer has the
//! function `main`.

#![no_main]

use std::process::abort;
use std::sync::LazyLock;

use carillon_fuzz::{Target, find};

/// Target of this process.
static TARGET: LazyLock<Target> = LazyLock::new(|| {
    let name = std::env::var("CARILLON_FUZZ_TARGET").unwrap_or_default();
    let target = find(&name).unwrap_or_else(|| panic!("CARILLON_FUZZ_TARGET={name} is not the name of a target"));
    // libFuzzer keeps the input of a process that aborts.
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        abort();
    }));
    target
});

/// Runs the target on one input of libFuzzer's.
///
/// # Safety
/// `data` points to `size` bytes.
#[unsafe(no_mangle)]
#[expect(unsafe_code, reason = "libFuzzer calls this function with the bytes of an input")]
pub unsafe extern "C" fn LLVMFuzzerTestOneInput(data: *const u8, size: usize) -> i32 {
    let input = if size == 0 { &[] } else { unsafe { std::slice::from_raw_parts(data, size) } };
    (TARGET.run)(input);
    0
}
