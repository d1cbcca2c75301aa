//! Labels of a job, in the form in which the shared database indexes them.

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::StoreError;
use super::documents::to_json;
use carillon_core::job::Metadata;

/// Encodes a label as a query states it; every text can be encoded.
#[must_use]
pub fn label(name: &str, value: &str) -> String {
    let safe = |text| utf8_percent_encode(text, NON_ALPHANUMERIC);
    format!("{}={}", safe(name), safe(value))
}

/// Encodes the labels of a job under every name by which a query may ask for them.
///
/// A label `a.b` is a key of that name, or else `b` in the namespace `a`, which then has no dot in its own name.
///
/// # Errors
/// Returns an error if the labels cannot be written as JSON.
pub fn labels(metadata: &Metadata) -> Result<Option<String>, StoreError> {
    let is_asked_for = |text: &carillon_core::job::Text<'_>| match text.namespace {
        None => true,
        Some(space) => !space.contains('.') && !metadata.0.contains_key(&*text.flat_name()),
    };
    let texts = metadata.texts().filter(is_asked_for);
    let labels: Vec<String> = texts.map(|text| label(&text.flat_name(), text.value)).collect();
    if labels.is_empty() { Ok(None) } else { to_json(&labels).map(Some) }
}
