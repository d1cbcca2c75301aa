//! Times of the API.

use carillon_core::clock::UnixMs;
use serde_json::Value;

/// A time as the API writes it.
pub fn ms(text: &Value) -> UnixMs {
    let text = text.as_str().expect("a time is a text");
    let at: jiff::Timestamp = text.parse().expect("a time is RFC 3339");
    assert!(text.ends_with('Z') && text.len() == "2026-11-20T10:00:00.250Z".len(), "UTC with milliseconds: {text}");
    UnixMs(at.as_millisecond())
}
