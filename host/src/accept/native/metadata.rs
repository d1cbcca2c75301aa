//! Whether a job's labels can be taken.

use std::collections::HashSet;

use super::super::error::Problem;
use crate::job::{Metadata, Text};

/// The most metadata entries.
const ENTRIES: usize = 64;

/// The most metadata in sum, in bytes.
const METADATA_LEN: usize = 8 << 10;

/// The most metadata in sum as headers, names and values, in bytes: receivers take 8 to 16 KiB of headers in all.
const METADATA_HEADERS_LEN: usize = 8 << 10;

/// Bounds, and that no two labels have one name for policies.
pub(super) fn check_metadata(metadata: &Metadata) -> Result<(), Problem> {
    let len = metadata.texts().map(|text| text.flat_name().len() + text.value.len()).sum::<usize>();
    let names = metadata.0.keys().map(String::len).sum::<usize>();
    if metadata.0.len().max(metadata.texts().count()) > ENTRIES || len.max(names) > METADATA_LEN {
        return Err(Problem::invalid("/metadata", format!("more than {ENTRIES} entries or {METADATA_LEN} bytes")));
    }
    let mut seen = HashSet::new();
    match metadata.texts().find(|text| !seen.insert(text.flat_name())) {
        Some(text) => {
            let detail = format!("policies would see two values of `metadata.{}`", text.flat_name().escape_debug());
            Err(Problem::invalid(place_of(&text), detail))
        }
        None => Ok(()),
    }
}

/// Names that headers can have, and bounds.
pub(super) fn check_metadata_headers(metadata: &Metadata) -> Result<(), Problem> {
    let (mut seen, mut len) = (HashSet::new(), 0);
    for text in metadata.texts() {
        let name = text.header_name().ok_or_else(|| {
            let detail =
                "this name cannot be a header's: with `metadata_headers` it has letters, digits, `.`, `_` and `-` only";
            Problem::invalid(place_of(&text), detail)
        })?;
        len += name.len() + text.header_value().len();
        if !seen.insert(name.to_ascii_lowercase()) {
            return Err(Problem::invalid(place_of(&text), format!("there would be two headers `{name}`")));
        }
    }
    if len > METADATA_HEADERS_LEN {
        return Err(Problem::invalid("/metadata", format!("more than {METADATA_HEADERS_LEN} bytes as headers")));
    }
    Ok(())
}

/// Where a text stands in a job's document.
fn place_of(text: &Text<'_>) -> String {
    let token = |name: &str| format!("/{}", name.replace('~', "~0").replace('/', "~1"));
    let parts = text.namespace.into_iter().chain([text.name]);
    parts.fold("/metadata".to_owned(), |pointer, part| pointer + &token(part))
}
