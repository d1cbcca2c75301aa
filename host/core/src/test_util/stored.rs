//! Check of documents that are stored as JSON.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Asserts that a stored document is read as `T` and written again unchanged.
///
/// The document has every field, with a value that is not its default. So the test fails when a field is renamed, removed or added: rows of
/// earlier versions would be read without it.
///
/// # Panics
/// Panics if the document cannot be read, or differs after it was read and written.
#[track_caller]
#[expect(clippy::expect_used, reason = "a test ends here")]
pub fn assert_stored_form<T: Serialize + DeserializeOwned>(document: &str) {
    let stored: Value = serde_json::from_str(document).expect("the golden file is JSON");
    let read: T = serde_json::from_str(document).expect("a stored document can be read");
    let written = serde_json::to_value(&read).expect("a document can be written");
    assert_eq!(written, stored, "what is stored has another form than before ({})", std::any::type_name::<T>());
}
