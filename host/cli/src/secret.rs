//! Secrets of the command line, from files and standard input: other users of a machine can read the arguments of its processes.

use std::io::{BufRead as _, Write as _, stderr, stdin};
use std::path::Path;

use anyhow::{Context as _, ensure};
use zeroize::Zeroizing;

use super::input;

/// Reads the first line of a file, or the next line of standard input for `-`; a command can read the rest of it.
///
/// # Errors
/// Returns an error that names the option if nothing can be read, or if the line is empty.
pub fn first_line(option: &str, path: &Path) -> anyhow::Result<Zeroizing<String>> {
    let mut line = Zeroizing::new(String::new());
    if path == Path::new(input::STDIN) {
        stdin().lock().read_line(&mut line).with_context(|| format!("{option}: standard input cannot be read"))?;
    } else {
        let text = std::fs::read_to_string(path).map(Zeroizing::new);
        let text = text.with_context(|| format!("{option}: `{}` cannot be read", path.display()))?;
        line.push_str(text.lines().next().unwrap_or_default());
    }
    let line = Zeroizing::new(line.trim().to_owned());
    ensure!(!line.is_empty(), "{option}: the first line of {} must not be empty", input::name(path));
    Ok(line)
}

/// Writes a warning to standard error for each argument that is a URL with a password.
pub fn warn_of_passwords(arguments: impl Iterator<Item = String>) {
    for option in options_with_passwords(arguments) {
        let warning = format!(
            "warning: {option} is a URL with a password, and other users of this machine can read the arguments of its processes: \
             name a file (--store-file, --to-file, --token-file), or set a variable of the environment"
        );
        // A command does its work although nobody reads the warning.
        drop(writeln!(stderr(), "{warning}"));
    }
}

/// Returns the options of the arguments that are URLs with passwords, or `an argument` for one without an option.
fn options_with_passwords(arguments: impl Iterator<Item = String>) -> Vec<String> {
    let mut found = Vec::new();
    let mut before = String::new();
    for argument in arguments {
        let (option, value) = match argument.split_once('=') {
            Some((option, value)) if option.starts_with("--") => (option, value),
            _ => (before.as_str(), argument.as_str()),
        };
        if has_password(value) {
            found.push(if option.starts_with('-') { format!("`{option}`") } else { "an argument".to_owned() });
        }
        before = argument;
    }
    found
}

/// Returns whether a text is a URL with a password, which for PostgreSQL may also be a parameter of its query.
fn has_password(text: &str) -> bool {
    let Some((scheme, rest)) = text.split_once("://") else { return false };
    if !scheme.starts_with(|first: char| first.is_ascii_alphabetic()) || rest.contains(char::is_whitespace) {
        return false;
    }
    let (authority, query) = (rest.split(['/', '?', '#']).next().unwrap_or_default(), rest.split_once('?'));
    let password = authority.rsplit_once('@').and_then(|(user, _)| user.split_once(':')).map(|(_, password)| password);
    let in_query = scheme.starts_with("postgres")
        && query.is_some_and(|(_, query)| query.split('&').any(|pair| pair.starts_with("password=")));
    password.is_some_and(|password| !password.is_empty()) || in_query
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_in_urls_are_found_with_their_options() {
        let found = |arguments: &[&str]| options_with_passwords(arguments.iter().map(|it| (*it).to_owned())).join(" ");
        assert_eq!(found(&["carillon", "serve", "--store", "postgres://u:p@h/d"]), "`--store`");
        assert_eq!(found(&["carillon", "serve", "--store=postgres://u:p@h1,h2:5/d?a=b"]), "`--store`");
        assert_eq!(found(&["carillon", "serve", "--store", "postgres://h/d?user=u&password=p"]), "`--store`");
        assert_eq!(
            found(&["carillon", "--server", "http://u:p@h", "job", "create", "g", "http://u:p@h/"]),
            "`--server` an argument"
        );
        for fine in [
            "postgres://u@h/d",
            "postgres://u:@h/d",
            "http://h:80/a@b:c",
            "http://h/?password=x",
            "sqlite:a:b@c",
            "a://b c:d@e",
            "{\"url\": \"http://u:p@h\"}",
            "://u:p@h",
        ] {
            assert_eq!(found(&["carillon", "--store", fine]), "", "{fine}");
        }
    }

    #[test]
    fn first_line_of_a_file_is_the_secret() {
        let path = tempfile::NamedTempFile::new().unwrap().into_temp_path();
        for (text, expected) in [("s", Some("s")), (" s \r\nmore", Some("s")), ("", None), ("\ns", None)] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(first_line("--token-file", &path).ok().as_ref().map(|line| line.as_str()), expected, "{text:?}");
        }
        let error = format!("{:#}", first_line("--token-file", Path::new("/nowhere/t")).unwrap_err());
        assert!(error.starts_with("--token-file: `/nowhere/t` cannot be read"), "{error}");
    }
}
