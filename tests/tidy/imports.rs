//! Test modules import helpers from `support` only, so that each of them can be read, moved and deleted alone.

use regex::Regex;

use super::sources;

/// The module of `tests/main.rs` that a file belongs to.
fn module_of(path: &str) -> &str {
    path.trim_start_matches("tests/").split('/').next().unwrap_or_default().trim_end_matches(".rs")
}

/// The modules of other tests that a file of the module `own` imports.
fn foreign_imports(own: &str, text: &str) -> Vec<String> {
    let comment = Regex::new(r"//[^\n]*").unwrap();
    let path = Regex::new(r"\bcrate::(\w+|\{)").unwrap();
    let code = comment.replace_all(text, "");
    let mut found: Vec<String> = path.captures_iter(&code).map(|captures| captures[1].to_owned()).collect();
    found.retain(|module| module != "support" && module != own);
    found
}

#[test]
fn test_modules_import_no_other_test_module() {
    for source in sources("tests", &[".rs"]) {
        let is_guest = source.path.starts_with("tests/guests/");
        if !is_guest {
            let foreign = foreign_imports(module_of(&source.path), &source.text);
            assert!(
                foreign.is_empty(),
                "{} imports {foreign:?}: what several tests use belongs in tests/support",
                source.path
            );
        }
    }
}

#[test]
fn import_of_another_test_module_is_found() {
    let text = "use crate::support::Api;\nuse crate::own::x;\nuse crate::other::{a, b}; // crate::comment\n";
    assert_eq!(foreign_imports("own", text), ["other"]);
    assert_eq!(foreign_imports("own", "crate::other::f()"), ["other"]);
    assert_eq!(foreign_imports("own", "use crate::{other::a, support::Api};"), ["{"], "one line for each module");
}
