//! Entry for the fuzz targets: the pause that a receiver asks for.

use std::time::Duration;

use bytes::Bytes;

use super::answer::retry_after;
use crate::delivery::send::Answer;
use carillon_core::clock::UnixMs;

/// Returns the pause that the value of a header `Retry-After` asks for.
#[must_use]
pub fn read_retry_after(value: &[u8], now: UnixMs) -> Option<Duration> {
    let answer = Answer::Response {
        status: 503,
        headers: vec![("retry-after".to_owned(), value.to_vec())],
        body: Bytes::new(),
        truncated: false,
        elapsed: Duration::ZERO,
    };
    retry_after(&answer, now)
}
