//! `docs/reference/error-codes.md`: its tables of codes list the server's error codes, all of them and no others.

use std::collections::BTreeSet;

use carillon_core::error_code::ErrorCode;

use crate::support::repository;

const PAGE: &str = "docs/reference/error-codes.md";

/// Returns the codes in the first column of the table of a section.
fn listed(section: &str) -> Vec<String> {
    let page = std::fs::read_to_string(repository().join(PAGE)).unwrap();
    let (_, rest) = page.split_once(&format!("\n## {section}\n")).unwrap_or_else(|| panic!("{PAGE} has no {section}"));
    let text = rest.split("\n## ").next().unwrap_or_default();
    let cells = text.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` |"));
    cells.map(|(code, _)| code.to_owned()).collect()
}

fn assert_lists(section: &str, belongs: impl Fn(&ErrorCode) -> bool) {
    let listed = listed(section);
    let page: BTreeSet<String> = listed.iter().cloned().collect();
    assert_eq!(page.len(), listed.len(), "{section}: a code is listed twice: {listed:?}");
    let server = ErrorCode::ALL.into_iter().filter(|code| belongs(code)).map(|code| code.to_string());
    let server: BTreeSet<String> = server.collect();
    assert_eq!(server.difference(&page).collect::<Vec<_>>(), [""; 0], "{section}: missing on {PAGE}");
    assert_eq!(
        page.difference(&server).collect::<Vec<_>>(),
        [""; 0],
        "{section}: on {PAGE}, but unknown to the server"
    );
}

#[test]
fn reference_lists_every_error_of_attempts() {
    assert_lists("Errors of attempts", |code| !code.is_policy_fault());
}

#[test]
fn reference_lists_every_policy_fault() {
    assert_lists("Policy faults", ErrorCode::is_policy_fault);
}
