//! What the server itself reads of an uploaded component before a compiler sees it: its outline, and the golden tests in it.

use carillon_policy::fuzzing::outline;
use carillon_policy::golden::{embed, embedded_within};

/// Largest section that is read, in bytes.
const EMBEDDED: usize = 1 << 20;

/// A component.
pub(crate) fn components(data: &[u8]) {
    // The two read the same bytes independently; neither may panic, and an outline that is accepted is one of a component.
    let accepted = outline(data).is_ok();
    assert!(!accepted || data.starts_with(b"\0asm"));
    let Ok(tests) = embedded_within(data, EMBEDDED) else { return };
    if accepted && !tests.is_empty() {
        // What is written again is read as the same, if there is room for it.
        if let Ok(again) = embedded_within(&embed(data, &tests), EMBEDDED) {
            assert_eq!(again.len(), tests.len() * 2);
        }
    }
}
