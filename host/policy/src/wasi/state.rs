//! State of WASI in one call: a time that stands still, random bytes derived from the seed, and output lines.

use sha2::{Digest as _, Sha256};

use crate::call_log::LogLines;
use crate::wit::log_import::Level;
use crate::wit::types::Attempt;

/// Resolution of both clocks: a millisecond.
pub(super) const RESOLUTION_NS: u64 = NANOSECONDS;

/// Nanoseconds in a millisecond.
const NANOSECONDS: u64 = 1_000_000;

/// Label from which, with the seed, the random bytes are derived.
const RANDOM_LABEL: &[u8] = b"carillon wasi:random 1";

/// Maximum number of random bytes of a call, in total.
const RANDOM_BYTES: u64 = 1 << 20;

/// Maximum number of handles of a call, in total.
const HANDLES: u32 = 10_000;

/// Arguments of a call that WASI shows.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Facts {
    /// Milliseconds since 1970.
    pub(crate) now_ms: u64,
    /// Source of the randomness.
    pub(crate) seed: u32,
}

impl From<&Attempt> for Facts {
    fn from(attempt: &Attempt) -> Self {
        Self { now_ms: attempt.now_ms, seed: attempt.seed }
    }
}

/// WASI state of one call.
#[derive(Debug)]
pub(crate) struct Wasi {
    facts: Facts,
    blocks: u64,
    random_left: u64,
    handles_left: u32,
    /// Standard output after its last line break.
    unfinished_output: Vec<u8>,
    /// Standard error after its last line break.
    unfinished_error: Vec<u8>,
}

/// Stream that a guest writes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StandardStream {
    /// Standard output.
    Output,
    /// Standard error.
    Error,
}

impl StandardStream {
    fn level(self) -> Level {
        match self {
            Self::Output => Level::Info,
            Self::Error => Level::Error,
        }
    }
}

impl Wasi {
    pub(crate) fn new(facts: Facts) -> Self {
        Self {
            facts,
            blocks: 0,
            random_left: RANDOM_BYTES,
            handles_left: HANDLES,
            unfinished_output: Vec::new(),
            unfinished_error: Vec::new(),
        }
    }

    pub(super) fn nanoseconds(&self) -> u64 {
        self.facts.now_ms.saturating_mul(NANOSECONDS)
    }

    pub(super) fn wall_clock(&self) -> (u64, u32) {
        let millis = u32::try_from(self.facts.now_ms % 1_000).unwrap_or(0);
        (self.facts.now_ms / 1_000, millis * 1_000_000)
    }

    pub(super) fn take_handle(&mut self) -> wasmtime::Result<()> {
        let left = self.handles_left.checked_sub(1);
        self.handles_left =
            left.ok_or_else(|| wasmtime::format_err!("it asked for more than {HANDLES} WASI handles"))?;
        Ok(())
    }

    pub(super) fn random(&mut self, len: u64) -> wasmtime::Result<Vec<u8>> {
        let left = self.random_left.checked_sub(len);
        self.random_left =
            left.ok_or_else(|| wasmtime::format_err!("it asked for more than {RANDOM_BYTES} random bytes"))?;
        let len = usize::try_from(len)?;
        let mut bytes = Vec::with_capacity(len.next_multiple_of(32));
        while bytes.len() < len {
            bytes.extend_from_slice(&self.block());
        }
        bytes.truncate(len);
        Ok(bytes)
    }

    pub(super) fn random_u64(&mut self) -> wasmtime::Result<u64> {
        let bytes = self.random(8)?;
        Ok(bytes.iter().fold(0, |number, byte| (number << 8) | u64::from(*byte)))
    }

    /// Returns the next 32 bytes: a hash of the seed and a counter. They are exactly as unpredictable as the seed.
    fn block(&mut self) -> [u8; 32] {
        let hash = Sha256::new().chain_update(RANDOM_LABEL).chain_update(self.facts.seed.to_be_bytes());
        let block = hash.chain_update(self.blocks.to_be_bytes()).finalize();
        self.blocks = self.blocks.wrapping_add(1);
        block.into()
    }

    /// Adds output; complete lines go to the log.
    pub(super) fn print(&mut self, log: &mut LogLines, stream: StandardStream, bytes: &[u8]) {
        let unfinished = match stream {
            StandardStream::Output => &mut self.unfinished_output,
            StandardStream::Error => &mut self.unfinished_error,
        };
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            // Bytes beyond the longest line are cut off anyway.
            let room = log.max_length().saturating_add(1).saturating_sub(unfinished.len());
            unfinished.extend_from_slice(&piece[..piece.len().min(room)]);
            if piece.ends_with(b"\n") {
                write(log, stream.level(), unfinished);
                unfinished.clear();
            }
        }
    }

    /// Logs the last output, which may lack its line break.
    pub(crate) fn finish(&mut self, log: &mut LogLines) {
        use StandardStream::{Error, Output};
        for (stream, unfinished) in [(Output, &self.unfinished_output), (Error, &self.unfinished_error)] {
            if !unfinished.is_empty() {
                write(log, stream.level(), unfinished);
            }
        }
    }
}

fn write(log: &mut LogLines, level: Level, line: &[u8]) {
    log.write(level, String::from_utf8_lossy(line).trim_end_matches(['\r', '\n']));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn randomness_follows_from_the_seed_and_differs_with_it() {
        let draw = |seed| Wasi::new(Facts { now_ms: 0, seed }).random(100).unwrap();
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
        let mut wasi = Wasi::new(Facts::default());
        assert_ne!(wasi.random(32).unwrap(), wasi.random(32).unwrap());
        assert!(wasi.random(RANDOM_BYTES).is_err(), "only so much is left");
        assert!(wasi.random(u64::MAX).is_err());
    }

    #[test]
    fn both_clocks_show_the_time_of_the_call() {
        let wasi = Wasi::new(Facts { now_ms: 1_795_168_800_251, seed: 0 });
        assert_eq!(wasi.wall_clock(), (1_795_168_800, 251_000_000));
        assert_eq!(wasi.nanoseconds(), 1_795_168_800_251_000_000);
    }

    #[test]
    fn handles_run_out() {
        let mut wasi = Wasi::new(Facts::default());
        let given = (0..u64::MAX).take_while(|_| wasi.take_handle().is_ok()).count();
        assert_eq!(given, usize::try_from(HANDLES).unwrap());
    }
}
