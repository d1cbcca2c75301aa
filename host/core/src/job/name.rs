//! Rules for the names of tenants, groups, keys and plugins.

/// The longest name, in bytes.
const NAME_LEN: usize = 64;

/// Checks a name: 1 to 64 of `a-z A-Z 0-9 . _ -`, the first of them a letter or a digit.
///
/// # Errors
/// Returns a sentence that says which rule `name` breaks as the name of a `what`.
pub fn check_name(what: &str, name: &str) -> Result<(), String> {
    let fine = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
    let begins = name.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    if fine && begins && name.len() <= NAME_LEN {
        return Ok(());
    }
    Err(format!(
        "`{}` is not a name for a {what}: use 1 to {NAME_LEN} of a-z, A-Z, 0-9, `.`, `_` and `-`, a letter or digit first",
        name.escape_default()
    ))
}
