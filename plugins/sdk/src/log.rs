//! A plugin's way to say something to its author. The host keeps 16 lines of 1 KiB a call and counts what it drops.
//!
//! On other targets than wasm32 there is no host, and nothing is written.

use crate::bindings::shared::log::Level;
#[cfg(target_arch = "wasm32")]
use crate::bindings::shared::log::write as emit;

#[cfg(not(target_arch = "wasm32"))]
fn emit(_level: Level, _message: &str) {}

/// For the author of the plugin, while testing.
pub fn debug(message: &str) {
    emit(Level::Debug, message);
}

/// Worth knowing.
pub fn info(message: &str) {
    emit(Level::Info, message);
}

/// Something is odd, and the plugin could go on.
pub fn warn(message: &str) {
    emit(Level::Warn, message);
}

/// Something is wrong.
pub fn error(message: &str) {
    emit(Level::Error, message);
}

/// Makes a panic write its message and place to the log before the instance traps; a trap alone has only a backtrace.
#[cfg(all(target_arch = "wasm32", feature = "panic-messages"))]
pub(crate) fn report_panics() {
    std::panic::set_hook(Box::new(|info| {
        let message = info.payload_as_str().unwrap_or("no message");
        match info.location() {
            Some(place) => error(&format!("panicked at {place}: {message}")),
            None => error(&format!("panicked: {message}")),
        }
    }));
}

/// On the author's machine the usual panic messages serve; a plugin that does without them has the trap's backtrace.
#[cfg(not(all(target_arch = "wasm32", feature = "panic-messages")))]
pub(crate) fn report_panics() {}
