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
    // Not written as imports, because this file is looked at, too.
    let foreign = |text: &str| foreign_imports("own", &text.replace('$', "crate"));
    assert_eq!(foreign("use $::support::Api;\nuse $::own::x;\nuse $::other::{a, b}; // $::comment\n"), ["other"]);
    assert_eq!(foreign("$::other::f()"), ["other"]);
    assert_eq!(foreign("use $::{other::a, support::Api};"), ["{"], "one line for each module");
}
