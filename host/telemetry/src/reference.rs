//! Reads the reference pages, for tests that compare them with what this crate publishes.

use std::collections::BTreeSet;

use carillon_core::event_kind::EventKind;

/// Name under which a stream reports missing events. It is not recorded, so it is not an [`EventKind`].
const GAP: &str = "gap";

/// Returns the names in the first column of a page's tables, without their labels.
pub(crate) fn names_in(page: &str) -> BTreeSet<String> {
    let cells = page.lines().filter_map(|line| line.strip_prefix("| ")?.split(" | ").next());
    let names = cells.flat_map(|cell| cell.split('`').skip(1).step_by(2));
    names.map(|name| name.split('{').next().unwrap_or(name).to_owned()).collect()
}

#[test]
fn reference_page_names_every_event_and_no_other() {
    let kinds = EventKind::ALL.iter().map(|kind| kind.as_str()).chain([GAP]);
    assert_eq!(names_in(include_str!("../../../docs/reference/events.md")), kinds.map(str::to_owned).collect());
}
